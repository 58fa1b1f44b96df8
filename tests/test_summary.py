"""The final table as text, and the README that shows it."""

from pathlib import Path

import pytest
from fake_results import write

from squentropy.errors import SquentropyError
from squentropy.summary import metrics_table, with_results

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"


def test_every_loss_has_a_row_and_every_row_as_many_cells(tmp_path):
    results = write(tmp_path)
    lines = metrics_table(results).splitlines()
    losses = [line.split("|")[1].strip() for line in lines[2:]]
    assert "cross_entropy" in losses
    assert len(losses) == len(set(losses)) > 1
    assert len({line.count("|") for line in lines}) == 1
    assert len({len(line) for line in lines}) == 1  # padded


def test_a_missing_table_is_one_line_that_says_how_to_make_it(tmp_path):
    with pytest.raises(SquentropyError, match=r"holds no manifest\.json of results; run the"):
        metrics_table(tmp_path)


def test_only_what_stands_between_the_marks_of_the_readme_changes(tmp_path):
    results = write(tmp_path)
    text = "before\n<!-- results: x -->\nold\n<!-- end of results -->\nafter\n"
    new = with_results(text, results, Path("report/grammar"))
    assert new.startswith("before\n<!-- results: x -->\n")
    assert new.endswith("<!-- end of results -->\nafter\n")
    assert "old" not in new
    assert with_results(new, results, Path("report/grammar")) == new


def test_a_readme_without_its_marks_is_refused(tmp_path):
    results = write(tmp_path)
    with pytest.raises(SquentropyError, match="lacks the marks"):
        with_results("nothing here", results, Path("report/grammar"))


def test_the_readme_shows_the_committed_results():
    results = ROOT / "results" / "grammar"
    if not (results / "metrics.csv").is_file():
        pytest.skip("the default study has not been run here")
    text = README.read_text(encoding="utf-8")
    assert text == with_results(text, results, Path("report/grammar")), "run `make readme`"
