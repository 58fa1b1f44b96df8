"""The final table as text, and the README that shows it."""

import html
import re
from pathlib import Path

import pytest
from fake_results import write
from markdown_it import MarkdownIt

from squentropy.base.errors import SquentropyError
from squentropy.report import summary
from squentropy.report.figures import draw
from squentropy.report.read import label, read
from squentropy.report.sections.verdict import evidence, headline, sentences
from squentropy.report.summary import final_table, metrics_table, with_results

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
RESULTS = ROOT / "results" / "grammar"


def test_every_loss_has_a_row_and_every_row_as_many_cells(tmp_path):
    lines = metrics_table(write(tmp_path)).splitlines()
    names = [line.split("|")[1].strip() for line in lines[2:]]
    assert {"cross_entropy", "squentropy(0.1)", "trigram counts", "source entropy"} < set(names)
    assert len(names) == len(set(names))
    assert len({line.count("|") for line in lines}) == 1
    assert len({len(line) for line in lines}) == 1  # padded


@pytest.mark.parametrize("learnt", [True, False])
def test_the_table_has_at_most_six_columns(tmp_path, learnt):
    table = final_table(read(write(tmp_path, learnt=learnt)))
    assert len(table.columns) <= 6
    assert ("p" in table.columns) == learnt
    assert ("share learnt" in table.columns) != learnt


def test_a_missing_table_is_one_line_that_says_how_to_make_it(tmp_path):
    with pytest.raises(SquentropyError, match=r"holds no manifest\.json of results; run the"):
        metrics_table(tmp_path)


def test_only_what_stands_between_the_marks_of_the_readme_changes(tmp_path):
    results = write(tmp_path)
    text = "before\n<!-- results: x -->\nSTALE\n<!-- end of results -->\nafter\n"
    new = with_results(text, results, Path("report/grammar"))
    assert new.startswith("before\n<!-- results: x -->\n")
    assert new.endswith("<!-- end of results -->\nafter\n")
    assert "STALE" not in new
    assert with_results(new, results, Path("report/grammar")) == new


def test_a_readme_without_its_marks_is_refused(tmp_path):
    results = write(tmp_path)
    with pytest.raises(SquentropyError, match="lacks the marks"):
        with_results("nothing here", results, Path("report/grammar"))


def test_the_readme_shows_the_committed_results():
    text = README.read_text(encoding="utf-8")
    assert text == with_results(text, RESULTS, Path("report/grammar")), "run `make readme`"


def test_the_figure_of_the_readme_is_drawn_from_the_committed_results(tmp_path):
    name = re.search(r"!\[.*\]\((.*)\)", README.read_text(encoding="utf-8"))[1]
    draw(RESULTS, tmp_path)
    drawn = tmp_path / Path(name).name
    assert drawn.read_bytes() == (ROOT / name).read_bytes(), "run `squentropy figures`"


def filled(folder: Path, **how) -> str:
    """The text between the marks of a README."""
    return with_results(MARKS, write(folder, **how), Path("report")).removeprefix(f"{MARKS[:19]}\n")


MARKS = "<!-- results: x -->\n<!-- end of results -->"


def test_the_readme_opens_with_the_formula_and_answers_its_question(tmp_path):
    results = write(tmp_path)
    parts = with_results(MARKS, results, Path("report")).split("\n\n")
    assert re.fullmatch(r"\$\$[^$]+\$\$", parts[2])
    e = evidence(read(results))
    assert parts[4].startswith(f"**{headline(e)}** ")
    assert all(sentence in parts[4] for sentence in sentences(e))
    assert re.fullmatch(r"!\[.*\]\(.*lengths\.svg\)", parts[5])


def test_the_readme_tells_a_story_per_loss(tmp_path):
    text = filled(tmp_path)
    losses = read(tmp_path).losses
    assert text.count("<td") == len(losses)
    for loss in losses:
        assert f"<b>{label(loss)}</b><br>Once upon a time, there was a small fox" in text


HOSTILE = (
    "Once <!-- end of results --> </td></tr></table> <script>alert(1)</script>\n\n# Heading\n\n"
    "| a | b |\n|---|---|\n[x](javascript:1) ![y](http://example.org/z.png) "
    "**bold** _it_ `code`\n\n"
    "```sh run\nrm\n``` $x^2$ :smile: @someone #12 &lt; &#60; \\* \x1b\u202e" + "long " * 1000
)


def test_no_story_is_more_than_text_in_the_readme(tmp_path):
    text = filled(tmp_path, text=HOSTILE, sweep={"losses": ["cross_entropy"]})
    table = text[text.index("<table>") : text.index("</table>")]
    assert "\n\n" not in table  # a blank line would restart Markdown
    assert set(re.findall(r"<(/?\w+)", table)) == {
        "table",
        "tr",
        "/tr",
        "td",
        "/td",
        "b",
        "/b",
        "br",
    }
    shown = html.unescape(re.search("<br>(.*)</td>", table)[1].replace("<br>", "\n"))
    assert shown.startswith("Once <!-- end of results --> </td></tr></table> <script>alert(1)")
    assert "\n| a | b |\n" in shown
    assert not {"\x1b", "\u202e"} & set(shown)
    assert len(shown) < 800
    raw = re.search("<br>(.*)</td>", table)[1]
    assert not set(re.sub(r"<br>|&#\d+;", "", raw)) & set("<>&*_`[]$|#:@\\")
    tags = MarkdownIt("commonmark").enable("table").parse(text)
    assert [token.type for token in tags].count("html_block") == 2  # the table and the end mark
    again = with_results(f"<!-- results: x -->\n{text}", tmp_path, Path("report"))
    assert again.endswith(text)


def test_a_loss_with_a_hostile_label_stays_text(tmp_path, monkeypatch):
    monkeypatch.setattr(summary, "label", lambda loss: "<b>|[x](y)")
    assert "<b>|[x](y)" not in filled(tmp_path)
