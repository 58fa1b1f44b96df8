"""The report: one page from the results alone, that says what they say and runs nothing."""

import collections
import hashlib
import html.parser
import json
import re
import shutil
from dataclasses import replace

import fake_results
import nbformat
import pandas as pd
import pytest

from squentropy.catalogue import loss_info
from squentropy.errors import SquentropyError
from squentropy.report import figures, read, render, sections
from squentropy.report.sections import method
from squentropy.study.params import TABLES

NASTY = (
    'Once upon a time <script>alert("x")</script> **bold** # Heading\n\n'
    "![](http://example.org/x.png) <img src=http://example.org/y.png onerror=alert(1)> "
    "\x00\x1b[31m\u202e & $x^2$ {{ 7*7 }} </article></main>\n\n## Injected\n"
)
SMALL = {"lr": [0.0006, 0.06], "dropout": [0.0], "n_layer": [8, 12]}


def small(folder, losses=("cross_entropy", "squentropy", "mse"), seeds=(1, 2), **how):
    changes = {"sweep": SMALL | {"losses": list(losses)}, "final": {"seeds": list(seeds)}}
    return fake_results.write(folder, stories=20, **changes, **how)


class Page(html.parser.HTMLParser):
    """The tags, with attributes, and the text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def values(self, name):
        return [attrs[name] for _, attrs in self.tags if name in attrs]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    small(folder / "results", text=NASTY)
    figures.draw(folder / "results", folder / "figures")
    render.render(folder / "results", folder / "figures", folder / "index.html")
    return folder


@pytest.fixture(scope="module")
def page(rendered):
    return Page((rendered / "index.html").read_text(encoding="utf-8"))


# --- the page -----------------------------------------------------------------------------------


def test_the_same_results_elsewhere_give_the_same_bytes(rendered, tmp_path):
    shutil.copytree(rendered / "results", tmp_path / "r")
    shutil.copytree(rendered / "figures", tmp_path / "f")
    render.render(tmp_path / "r", tmp_path / "f", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == (rendered / "index.html").read_bytes()


def test_the_page_loads_nothing(page):
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"link", "iframe", "object", "embed", "base", "form"}
    assert all(value.startswith("data:image/svg+xml;base64,") for value in page.values("src"))
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not page.values("style")  # which the policy would drop


def test_the_page_is_below_five_megabytes(rendered):
    assert (rendered / "index.html").stat().st_size < 5e6


def test_the_page_tells_nothing_of_the_machine_or_the_hour(rendered):
    text = (rendered / "index.html").read_text(encoding="utf-8")
    assert str(rendered) not in text
    assert "/tmp/" not in text
    assert not re.search(r"\d\d:\d\d:\d\d", text)


def test_a_story_is_shown_as_it_is_and_never_interpreted(page):
    assert '<script>alert("x")</script> **bold** # Heading' in page.text
    assert "{{ 7*7 }}" in page.text
    assert "</article></main>\n\n## Injected" in page.text
    assert "Injected" not in page.values("id")
    assert not {"\x00", "\x1b", "\u202e"} & set(page.text)


def test_every_entry_of_the_contents_leads_to_a_heading(page):
    targets = [value[1:] for value in page.values("href") if value.startswith("#")]
    assert len(targets) > 10
    assert set(targets) <= set(page.values("id"))


def test_every_image_says_in_words_what_it_shows(page):
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(images) == len(figures.MODULES) - 1  # no two doses here
    assert all(len(image["alt"]) > 30 for image in images)


def test_the_page_names_the_files_it_is_made_of(rendered, page):
    for path in (rendered / "results").glob("*.csv"):
        assert path.name in page.text
        assert hashlib.sha256(path.read_bytes()).hexdigest()[:16] in page.text


def test_no_code_is_shown(page):
    assert "import" not in page.text.split("Every parameter of this study")[0].split()


def test_a_missing_figure_is_one_line_that_names_it(rendered, tmp_path):
    r = read.read(rendered / "results")
    with pytest.raises(SquentropyError, match=r"grid\.svg: does not exist"):
        sections.grid_figure(r, tmp_path)


def test_a_missing_table_is_one_line_and_leaves_no_page(rendered, tmp_path):
    shutil.copytree(rendered / "results", tmp_path / "r")
    (tmp_path / "r" / "metrics.csv").unlink()
    with pytest.raises(SquentropyError, match=r"metrics\.csv: does not exist"):
        render.render(tmp_path / "r", rendered / "figures", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


# --- the notebook -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(render.NOTEBOOK, as_version=4)


def test_the_notebook_is_clean(notebook):
    nbformat.validate(notebook)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            assert len(cell.source.splitlines()) <= 6


def shown(notebook, folder):
    """What the notebook's code cells show for the results in a folder, run in this process."""
    drawn = folder / "figures"
    drawn.mkdir()
    for name in figures.MODULES:
        (drawn / f"{name}.svg").write_text("<svg/>")
    names = {}
    texts = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        if "parameters" in cell.metadata.get("tags", []):
            names |= {"results": str(folder / "results"), "figures": str(drawn)}
        elif cell.source.startswith("show."):
            texts.append(eval(cell.source, names))
        else:
            exec(cell.source, names)
    return Page("\n".join(texts)).text


ODD = {
    "one loss, one seed, no source": {"losses": ["squentropy"], "seeds": [7], "source_nll": None},
    "cross entropy alone": {"losses": ["cross_entropy"]},
    "without cross entropy": {"losses": ["mse", "brier"]},
    "cross entropy diverged": {"diverged": ("cross_entropy",)},
    "everything diverged": {"diverged": ("cross_entropy", "squentropy", "mse")},
}


@pytest.mark.parametrize("how", ODD.values(), ids=ODD.keys())
def test_odd_studies_are_reported_whole(notebook, tmp_path, how):
    small(tmp_path / "results", **how)
    text = shown(notebook, tmp_path)
    assert "nan" not in re.findall(r"\w+", text)
    assert "None" not in re.findall(r"\w+", text.split("Every parameter of this study")[0])


# --- sentences follow the numbers ---------------------------------------------------------------


def with_difference(tmp_path, gap):
    """Results of squentropy whose difference to cross entropy, at 2 nats per token, is `gap`."""
    r = read.read(small(tmp_path / "results", losses=["cross_entropy", "squentropy", "mse"]))
    columns = ["nll", "difference", "difference_low", "difference_high"]
    r.metrics.loc["squentropy", columns] = [2 + gap, gap, gap - 0.01, gap + 0.01]
    r.metrics.loc["cross_entropy", "nll"] = 2.0
    return r


def test_edges_and_limits_of_tuning_are_said(tmp_path):
    r = read.read(small(tmp_path / "results"))
    assert "of every loss lies between two that were tried" in sections.tuning_sentence(r)
    r.selected["mse"] |= {"inside": False, "edge": ["lr"], "max_runs_reached": True}
    text = sections.tuning_sentence(r)
    assert "The best learning rate of MSE lies at an edge" in text
    assert "The limit of runs ended the search for MSE." in text
    row = sections.tuned_table(r).split("<th scope=row>MSE</th>")[1].split("</tr>")[0]
    assert "←" in row
    assert "<td class=n>edge</td>" in row
    assert f"{r.selected['mse']['runs']} (limit)" in row


def test_diverged_cells_are_said(tmp_path):
    r = read.read(small(tmp_path / "results"))
    gone = int((r.sweep["status"] == "diverged").sum())
    said = f"{gone} of {len(r.sweep)} cells diverged: {gone} at learning rate 0.06"
    assert said in sections.grid_sentence(r)


def test_the_readings_table_has_a_row_per_reading_and_floor(tmp_path):
    r = read.read(small(tmp_path / "results"))
    text = sections.readings_table(r)
    own = 1 + len(r.study.evaluate.other_floors)
    assert text.count("<tr>") == 1 + 2 + 2 + (2 + own)
    for value in r.readings["ece"]:
        assert f"<td class=n>{100 * value:.2f}</td>" in text
    assert "<i>T</i> = 0.0123" in text
    primary = re.findall(r"<b>(.*?)</b>", text)
    assert primary == ["tempered, <i>T</i> = 0.900"] * 2 + ["own link, floor 10<sup>−6</sup>"]


def test_how_much_the_floor_matters_follows_the_numbers(tmp_path):
    r = read.read(small(tmp_path / "results"))
    own = r.readings["reading"] == "own"
    r.readings.loc[own, "nll"] = [2.0, 2.05, 2.0321]
    assert "test nll changes for MSE by 0.050 nats per token" in sections.floor_matters(r)
    alone = replace(r, readings=r.readings.drop(r.readings.index[own][1:]))
    assert sections.floor_matters(alone) == ""


def test_the_best_and_the_worst_calibrated_loss_are_named(tmp_path):
    r = read.read(small(tmp_path / "results"))
    primary = r.readings["primary"]
    r.readings.loc[primary, "ece"] = [0.03, 0.002, 0.5]
    text = sections.calibration_sentence(r)
    assert "squentropy is off by 0.20 %, MSE by 50.00 %" in text
    raw, tempered = (r.read_as("squentropy", how)["nll"] for how in ("softmax", "tempered"))
    assert f"squentropy {tempered - raw:+.3f}".replace("-", "−") in text
    assert "MSE −" not in text  # its softmax says nothing, so no temperature helps or harms it


def test_what_cross_entropy_beats_follows_the_numbers(tmp_path):
    r = read.read(small(tmp_path / "results"))
    text = sections.adequacy_sentence(r)
    assert "It beats the models of unigrams (5.310), bigrams (3.600)" in text
    assert "Both hold." in text
    r = read.read(small(tmp_path / "starved", learnt=False))
    text = sections.adequacy_sentence(r)
    assert "It beats the models of unigrams (5.310) and bigrams (2.100), counted" in text
    assert "<strong>Not trained enough to rank the losses</strong>: cross entropy" in text


def test_a_ranking_that_changes_with_the_length_is_said(tmp_path):
    r = read.read(small(tmp_path / "results"))
    assert "every loss stands on the same side" in sections.ranking_sentence(r)
    shortest = r.lengths["iterations"] == r.lengths["iterations"].min()
    r.lengths.loc[shortest & (r.lengths["loss"] == "squentropy"), "nll"] = 1.9
    text = sections.ranking_sentence(r)
    assert "depends on the length of training for squentropy." in text
    assert "MSE" not in text


def test_a_starved_studys_tables_compare_nothing(tmp_path):
    r = read.read(small(tmp_path / "results", learnt=False))
    text = sections.final_table(r)
    assert "cross entropy’s" not in text
    assert "tokens needed" not in text
    assert "trigram counts" in text


def test_where_a_loss_loses_follows_from_the_profile(tmp_path):
    r = read.read(small(tmp_path / "results"))
    p = r.profile
    p["nll"], p["tokens"] = 20_000.0, 10_000
    rare = (p["by"] == "frequency") & (p["low"] < 256)
    p.loc[rare, "tokens"] = 8_888  # nine bins as large as the eight others
    p.loc[rare, "nll"] = 2.0 * 8_888
    mine = p["loss"] == "squentropy"
    p.loc[mine & rare, "nll"] += 0.7 * 8_888
    text = sections.frequency_sentence(r)
    assert "fewer than 256 times in a million (50 % of test)" in text
    assert "squentropy +0.700 and +0.000" in text
    p.loc[mine & (p["by"] == "position") & (p["low"] == 8), "nll"] *= 2
    text = sections.position_sentence(r)
    assert "From tokens with 8 to 15 before them to those with 128 or more" in text
    assert "squentropy −2.000" in text


def test_a_loss_below_the_sources_entropy_is_called_out(tmp_path):
    r = read.read(small(tmp_path / "results"))
    assert "No loss is below the source’s entropy" in sections.floor_sentence(r)
    r.metrics.loc["mse", ["excess", "excess_low", "excess_high"]] = [-0.3, -0.4, -0.2]
    assert "MSE: below the source’s entropy beyond chance" in sections.floor_sentence(r)


def test_a_diverged_loss_stays_in_the_tables(tmp_path):
    r = read.read(small(tmp_path / "results", diverged=("mse",)))
    assert "MSE</th><td class=n>diverged" in sections.final_table(r)
    assert "Every cell of MSE diverged" in sections.grid_sentence(r)
    assert "Every run of MSE diverged" in sections.tuning_sentence(r)


def test_every_number_of_the_final_table_is_in_the_metrics(tmp_path):
    r = read.read(small(tmp_path / "results"))
    text = sections.final_table(r)
    metrics = pd.read_csv(tmp_path / "results" / "metrics.csv")
    for value in metrics[["nll", "nll_low", "nll_high"]].stack().dropna():
        assert f"{value:.3f}" in text


def test_a_loss_without_a_formula_shows_its_docstring(tmp_path, monkeypatch):
    r = read.read(small(tmp_path / "results"))
    known = loss_info("squentropy")
    plain = replace(known, formula="-log p_y &lt; all of it", source="")
    monkeypatch.setattr(method, "loss_info", lambda loss: plain)
    assert "-log p_y &lt; all of it" in sections.losses_table(r)


def of_each_prompt_and_loss(r) -> list[dict]:
    firsts = (s for s in r.samples if (s["number"], s["temperature"]) == (0, 0.5))
    return [s | {"reading": "softmax"} for s in firsts]


def test_the_page_holds_as_many_stories_as_there_is_room_for(tmp_path, monkeypatch):
    r = read.read(small(tmp_path / "results"))
    firsts = of_each_prompt_and_loss(r)
    numbered = [s | {"number": n} for s in firsts for n in range(1000)]
    text = sections.stories(replace(r, samples=numbered))
    assert len(text) < 2.2e6
    held = json.loads(text.split('id="told">')[1].split("</script>")[0])
    assert f"The first {len(held):,}".replace(",", "\u202f") in text
    last = max(story["number"] for story in held)
    of_each = collections.Counter((story["prompt"], story["loss"]) for story in held)
    assert len(of_each) == len(firsts)
    assert set(of_each.values()) <= {last, last + 1}


def test_a_story_without_end_is_cut_and_said_to_be(tmp_path):
    r = read.read(small(tmp_path / "results", text="a" * 1_000_000))
    text = sections.stories(r)
    assert len(text) < len(r.samples) * 8000
    assert "the first 5\u202f000 characters" in text


def test_a_story_is_chosen_by_whatever_varies(tmp_path):
    r = read.read(small(tmp_path / "results"))
    firsts = of_each_prompt_and_loss(r)
    assert re.findall('select name="(.*?)"', sections.stories(replace(r, samples=firsts))) == [
        "prompt", *["loss"] * 2
    ]  # fmt: skip
    varied = [s | {"reading": way, "number": n} for s in firsts for way in "ab" for n in (0, 1)]
    r = replace(r, samples=varied)
    assert re.findall('select name="(.*?)"', sections.stories(r)) == [
        "prompt", *["loss", "reading", "number"] * 2
    ]  # fmt: skip


def test_one_story_alone_has_nothing_to_choose(tmp_path):
    r = read.read(small(tmp_path / "results"))
    shown = next(s for s in r.samples if s["temperature"] == r.study.sample.middle)
    text = sections.stories(replace(r, samples=[shown]))
    assert "<select" not in text
    assert text.count("<article") == 1


def test_results_of_other_parameters_are_refused(tmp_path):
    folder = small(tmp_path / "results")
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("bootstrap: 2000", "bootstrap: 3000"))
    said = r"results: the tables were made with other evaluate\.bootstrap than params\.yaml"
    with pytest.raises(SquentropyError, match=said):
        read.read(folder)


def test_parameters_that_no_table_depends_on_may_change(tmp_path):
    folder = small(tmp_path / "results")
    text = (folder / "params.yaml").read_text()
    for old, new in (("state_interval: 250", "state_interval: 9"), ("dataset: r", "dataset: x")):
        assert old in text
        text = text.replace(old, new)
    (folder / "params.yaml").write_text(text)
    assert read.read(folder).study.train.state_interval == 9


@pytest.mark.parametrize("name", TABLES)
def test_a_changed_table_is_refused_by_name(tmp_path, name):
    folder = small(tmp_path / "results")
    path = folder / name
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1) + b" ")
    with pytest.raises(SquentropyError, match=rf"{name}: is not what its manifest says"):
        read.read(folder)


def test_figures_of_other_results_and_changed_ones_are_refused(tmp_path):
    one, other = small(tmp_path / "one"), small(tmp_path / "other", seeds=(1,))
    drawn = tmp_path / "figures"
    figures.draw(one, drawn)
    with pytest.raises(SquentropyError, match="figures: the figures are of other tables; draw"):
        render.render(other, drawn, tmp_path / "page.html")
    (drawn / "grid.svg").write_text("<svg/>")
    with pytest.raises(SquentropyError, match=r"grid\.svg: is not what its manifest says"):
        render.render(one, drawn, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


# --- the stories' quality, and the optimum ------------------------------------------------------


def test_the_checkers_verdict_follows_the_counts(tmp_path):
    r = read.read(small(tmp_path / "results"))
    told = r.quality["temperature"].notna()
    best = r.quality[told]["valid"].idxmax()
    text = sections.quality_sentence(r)
    assert f"accepts is that of {read.label(r.quality.at[best, 'loss'])}" in text
    assert f"{100 * r.quality.at[best, 'valid']:.1f} %" in text
    r.quality.loc[told, ["valid", "valid_low"]] = 0
    assert "accepts none of the" in sections.quality_sentence(r)


def test_why_stories_were_refused_begins_with_what_is_most_frequent(tmp_path):
    r = read.read(small(tmp_path / "results"))
    columns = ["dropped_object", "broken_agreement", "unknown_word", "unexpected", "no_ending"]
    r.quality[columns] = 0
    r.quality.loc[r.quality["temperature"] == 0.8, ["no_ending", "unknown_word"]] = (1, 4)
    text = sections.quality_sentence(r)
    assert "refused 15 stories at temperature 0.8" in text
    assert text.index("none of the grammar’s (12)") < text.index("before the story ends (3)")


def test_form_is_told_of_each_loss_the_best_first(tmp_path):
    r = read.read(small(tmp_path / "results"))
    middle = r.quality.index[r.quality["temperature"] == r.study.sample.middle]
    worst, best, other = middle
    r.quality.loc[middle, "sentences_in_form"] = [0.125, 0.875, 0.5]
    r.quality.loc[worst, "agreement"] = None
    text = sections.quality_sentence(r)
    places = [
        text.index(f"Of {read.label(r.quality.at[row, 'loss'])}, {share} %")
        for row, share in ((best, "87.5"), (other, "50.0"), (worst, "12.5"))
    ]
    assert places == sorted(places)
    assert text.count("of the stories are in form") == 3
    assert text.count("of the references agree") == 2
    assert "no reference could be judged" in text[places[-1] :]


def test_a_natural_corpus_has_no_checker_to_speak_of(tmp_path):
    r = read.read(small(tmp_path / "results", source_nll=None))
    assert "in form" not in sections.quality_sentence(r) + sections.quality_table(r)
    assert "checker" not in sections.quality_sentence(r)
    assert "accepted" not in sections.quality_table(r)
    assert "whole story" not in sections.contexts_table(r) + sections.contexts_sentence(r)


def test_the_share_that_the_optimum_accounts_for_follows_the_numbers(tmp_path):
    r = with_difference(tmp_path, 0.4)
    floor = {kind: r.floor("squentropy", kind)["kl"] for kind in ("bigram", "whole")}
    text = sections.gap_sentence(r)
    assert f"{floor['bigram']:.3f} with one token of context" in text
    assert f"({100 * floor['whole'] / 0.4:.0f} % of that)" in text
    assert "MSE" not in text
    assert "not a bound" not in text
    r.metrics.loc["squentropy", "difference"] = floor["bigram"] / 2
    text = sections.gap_sentence(r)
    assert f"{floor['bigram']:.3f} with one token of context (more than that)" in text
    assert "not a bound on what is met before" in text
    r.metrics.loc["squentropy", "difference"] = -0.1
    assert "of that" not in sections.gap_sentence(r)


def test_models_that_are_no_better_than_bigrams_are_far_from_any_optimum(tmp_path):
    r = with_difference(tmp_path, 0.4)
    r.metrics.loc["squentropy", "nll"] = 3.7
    assert sections.gap_sentence(r) == ""
    r.metrics.loc[["squentropy", "cross_entropy"], "nll"] = [2.4, 3.7]
    assert sections.gap_sentence(r) == ""


def test_the_dose_table_has_measured_gap_and_floor_of_each_multiplier(tmp_path):
    losses = ["cross_entropy", "squentropy(0.1)", "squentropy", "mse"]
    r = read.read(small(tmp_path / "results", losses=losses))
    rows = sections.dose_table(r).split("<tr>")[2:]
    assert [row.split("</th>")[0].split(">")[1] for row in rows] == [
        "squentropy (0.1)",
        "squentropy",
    ]
    for row, loss, multiplier in zip(rows, losses[1:3], ("0.1", "1"), strict=True):
        assert f"<td class=n>{multiplier}</td>" in row
        assert f"{r.metrics.at[loss, 'difference']:+.3f}".replace("-", "−") in row
        assert f"{r.floor(loss, 'whole')['kl']:.3f}" in row
    r = read.read(small(tmp_path / "one", losses=["cross_entropy", "squentropy"]))
    assert sections.dose_table(r) == ""


def test_the_optimum_is_the_sources_entropy_and_what_the_loss_adds(tmp_path):
    r = read.read(small(tmp_path / "results"))
    row = r.floor("squentropy", "whole")
    assert (row["classes"], row["weight"]) == (r.corpus["vocab_size"], 1)
    assert r.optimum("squentropy") == r.corpus["source_nll"] + row["kl"]
    assert r.optimum("cross_entropy") is None
    assert r.floor("squentropy(0.1)", "whole")["weight"] == 0.1
