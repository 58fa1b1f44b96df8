"""The tables and sentences of the report follow the numbers.

pytest tests/report/test_sections.py
"""

import base64
import collections
import json
import math
import re
import zlib
from dataclasses import replace

import fake_results
import pandas as pd
import pytest

from squentropy.report import read, sections
from squentropy.report.sections import method
from squentropy.study.catalogue import loss_info

SMALL = {"lr": [0.0006, 0.06], "dropout": [0.0], "n_layer": [8, 12]}


def small(folder, losses=("cross_entropy", "squentropy", "mse"), seeds=(1, 2), **how):
    changes = {"sweep": SMALL | {"losses": list(losses)}, "final": {"seeds": list(seeds)}}
    return fake_results.write(folder, stories=20, **changes, **how)


def with_difference(tmp_path, gap):
    """Results in which squentropy differs by `gap` from cross entropy, at 2 nats per token."""
    r = read.read(small(tmp_path / "results", losses=["cross_entropy", "squentropy", "mse"]))
    columns = ["nll", "difference", "difference_low", "difference_high"]
    r.metrics.loc["squentropy", columns] = [2 + gap, gap, gap - 0.01, gap + 0.01]
    r.metrics.loc["cross_entropy", "nll"] = 2.0
    return r


def test_edges_and_limits_of_tuning_are_said(tmp_path):
    r = read.read(small(tmp_path / "results"))
    assert "of every loss lies between two that were tried" in sections.tuning.sentence(r)
    r.selected["mse"] |= {"inside": False, "edge": ["lr"], "max_runs_reached": True}
    text = sections.tuning.sentence(r)
    assert "The best learning rate of MSE lies at an edge" in text
    assert "The limit of runs ended the search for MSE." in text
    row = sections.tuning.table(r).split("<th scope=row>MSE</th>")[1].split("</tr>")[0]
    assert "←" in row
    assert "<td class=n>edge</td>" in row
    assert f"{r.selected['mse']['runs']} (limit)" in row


def test_the_page_says_under_what_the_entropy_is_known(tmp_path):
    said = {}
    for source in ("grammar", "model"):
        r = read.read(small(tmp_path / source, corpus={"source": source}))
        said[source] = method.corpus(r) + sections.closing.limits(r)
        entropy = re.search(r"exact entropy of the test stories under the (\w+) is ", said[source])
        assert entropy[1] == {"grammar": "grammar", "model": "teacher"}[source]
    assert "checkpoints/tinystories-sample/final/cross_entropy/seed1" in said["model"]
    assert "another seed of the teacher’s draws gives stories" in said["model"]
    assert "synthetic" not in said["model"]
    assert "teacher" not in said["grammar"]


@pytest.mark.parametrize("parametrization", ["standard", "mup"])
def test_the_parametrization_is_said_where_it_is_not_the_standard(tmp_path, parametrization):
    r = read.read(small(tmp_path / "results", model={"parametrization": parametrization}))
    assert ("scaled with the width (μP" in method.model(r)) == (parametrization == "mup")


def test_diverged_cells_are_said(tmp_path):
    r = read.read(small(tmp_path / "results"))
    gone = int((r.sweep["status"] == "diverged").sum())
    said = f"{gone} of {len(r.sweep)} cells diverged: {gone} at learning rate 0.06"
    assert said in sections.grid.sentence(r)


def test_the_readings_table_has_a_row_per_reading_and_floor(tmp_path):
    r = read.read(small(tmp_path / "results"))
    text = sections.calibration.readings(r)
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
    assert "test nll changes for MSE by 0.050 nats per token" in sections.calibration.floors(r)
    alone = replace(r, readings=r.readings.drop(r.readings.index[own][1:]))
    assert sections.calibration.floors(alone) == ""


def test_the_best_and_the_worst_calibrated_loss_are_named(tmp_path):
    r = read.read(small(tmp_path / "results"))
    primary = r.readings["primary"]
    r.readings.loc[primary, "ece"] = [0.03, 0.002, 0.5]
    text = sections.calibration.errors(r)
    assert "squentropy is off by 0.20 %, MSE by 50.00 %" in text
    raw, tempered = (r.read_as("squentropy", how)["nll"] for how in ("softmax", "tempered"))
    assert f"squentropy {tempered - raw:+.3f}".replace("-", "−") in text
    assert "MSE −" not in text  # its softmax is meaningless, so a temperature is too


def test_what_cross_entropy_beats_follows_the_numbers(tmp_path):
    r = read.read(small(tmp_path / "results"))
    text = sections.learning.enough(r)
    assert "It beats the models of unigrams (5.310), bigrams (3.600)" in text
    assert "Both hold." in text
    r = read.read(small(tmp_path / "starved", learnt=False))
    text = sections.learning.enough(r)
    assert "It beats the models of unigrams (5.310) and bigrams (2.100), counted" in text
    assert "<strong>Not trained enough to rank the losses</strong>: cross entropy" in text


def test_a_ranking_that_changes_with_the_length_is_said(tmp_path):
    r = read.read(small(tmp_path / "results"))
    assert "every loss stays on the same side" in sections.learning.ranking(r)
    shortest = r.lengths["iterations"] == r.lengths["iterations"].min()
    r.lengths.loc[shortest & (r.lengths["loss"] == "squentropy"), "nll"] = 1.9
    text = sections.learning.ranking(r)
    assert "depends on the length of training for squentropy." in text
    assert "MSE" not in text


def test_a_starved_studys_tables_compare_nothing(tmp_path):
    r = read.read(small(tmp_path / "results", learnt=False))
    text = sections.results.table(r)
    assert "cross entropy’s" not in text
    assert "tokens needed" not in text
    assert "trigram counts" in text


def test_where_a_loss_loses_follows_from_the_profile(tmp_path):
    r = read.read(small(tmp_path / "results"))
    p = r.profile
    p["nll"], p["tokens"] = 20_000.0, 10_000
    rare = (p["by"] == "frequency") & (p["low"] < 256)
    p.loc[rare, "tokens"] = 8_888  # nine bins with as many tokens as the other eight
    p.loc[rare, "nll"] = 2.0 * 8_888
    mine = p["loss"] == "squentropy"
    p.loc[mine & rare, "nll"] += 0.7 * 8_888
    text = sections.calibration.by_frequency(r)
    assert "fewer than 256 times in a million (50 % of test)" in text
    assert "squentropy +0.700 and 0.000" in text
    p.loc[mine & (p["by"] == "position") & (p["low"] == 8), "nll"] *= 2
    text = sections.calibration.by_position(r)
    assert "From tokens with 8 to 15 before them to those with 128 or more" in text
    assert "squentropy −2.000" in text


def test_where_predictions_diverge_follows_from_the_places(tmp_path):
    r = read.read(small(tmp_path / "results"))
    c = r.certainty
    c["kl"], c["outside"] = 10.0, 5.0
    c.loc[c["low"] == 0, "tokens"] = 1600
    c.loc[(c["loss"] == "squentropy") & (c["low"] == 0), "kl"] = 1510.0
    text = sections.calibration.by_certainty(r)
    assert (
        "At 80 % of the places it is all but certain (entropy below 0.01 nats), at 10 % open"
        in text
    )
    row = re.search(r"squentropy</th>(.*?)</tr>", text)[1]
    cells = re.findall(r">([\d.]+)<", row)
    assert cells == ["0.775", "0.755", "0.010", "0.010", "1.25"]
    r = replace(r, certainty=c.head(0))
    assert sections.calibration.by_certainty(r) == ""


def test_the_slope_is_that_of_the_excess_on_logarithmic_axes(tmp_path):
    r = read.read(small(tmp_path / "results"))
    own = r.lengths["loss"] == "squentropy"
    r.lengths.loc[own, "nll"] = r.corpus["source_nll"] + 50 * r.lengths["tokens"][own] ** -0.25
    row = re.search(r"squentropy</th>(.*?)</tr>", sections.learning.table(r))[1]
    assert row.endswith(">−0.25</td>")
    r.lengths.loc[own & (r.lengths["seed"] > 1), "nll"] += 1  # only affects runs of full length
    assert re.search(r"squentropy</th>(.*?)</tr>", sections.learning.table(r))[1] == row
    without = replace(r, metrics=r.metrics.assign(excess=math.nan))
    assert "slope" not in sections.learning.table(without).lower()


def test_a_loss_below_the_sources_entropy_is_called_out(tmp_path):
    r = read.read(small(tmp_path / "results"))
    assert "No loss is below the source’s entropy" in sections.results.entropy(r)
    r.metrics.loc["mse", ["excess", "excess_low", "excess_high"]] = [-0.3, -0.4, -0.2]
    assert "MSE: below the source’s entropy by more than chance" in sections.results.entropy(r)


def test_a_diverged_loss_stays_in_the_tables(tmp_path):
    r = read.read(small(tmp_path / "results", diverged=("mse",)))
    assert "MSE</th><td class=n>diverged" in sections.results.table(r)
    assert "Every cell of MSE diverged" in sections.grid.sentence(r)
    assert "Every run of MSE diverged" in sections.tuning.sentence(r)


def test_every_number_of_the_final_table_is_in_the_metrics(tmp_path):
    r = read.read(small(tmp_path / "results"))
    text = sections.results.table(r)
    metrics = pd.read_csv(tmp_path / "results" / "metrics.csv")
    for value in metrics[["nll", "nll_low", "nll_high"]].stack().dropna():
        assert f"{value:.3f}" in text


def test_a_loss_without_a_formula_shows_its_docstring(tmp_path, monkeypatch):
    r = read.read(small(tmp_path / "results"))
    known = loss_info("squentropy")
    plain = replace(known, formula="-log p_y &lt; all of it", source="")
    monkeypatch.setattr(method, "loss_info", lambda loss: plain)
    assert "-log p_y &lt; all of it" in sections.method.losses(r)


def of_each_prompt_and_loss(r) -> list[dict]:
    firsts = (s for s in r.samples if (s["number"], s["temperature"]) == (0, 0.5))
    return [s | {"reading": "softmax"} for s in firsts]


def test_the_page_holds_as_many_stories_as_there_is_room_for(tmp_path, monkeypatch):
    r = read.read(small(tmp_path / "results"))
    firsts = of_each_prompt_and_loss(r)
    numbered = [s | {"number": n} for s in firsts for n in range(1000)]
    text = sections.stories.stories(replace(r, samples=numbered))
    assert len(text) < 5e5
    packed = text.split('id="told">')[1].split("</script>")[0]
    held = json.loads(zlib.decompress(base64.b64decode(packed)))
    assert f"The first {len(held):,}".replace(",", "\u202f") in text
    last = max(story["number"] for story in held)
    of_each = collections.Counter((story["prompt"], story["loss"]) for story in held)
    assert len(of_each) == len(firsts)
    assert set(of_each.values()) <= {last, last + 1}


def test_a_story_without_end_is_cut_and_said_to_be(tmp_path):
    r = read.read(small(tmp_path / "results", text="a" * 1_000_000))
    text = sections.stories.stories(r)
    assert len(text) < len(r.samples) * 8000
    assert "the first 5\u202f000 characters" in text


def test_a_story_is_chosen_by_whatever_varies(tmp_path):
    r = read.read(small(tmp_path / "results"))
    firsts = of_each_prompt_and_loss(r)
    text = sections.stories.stories(replace(r, samples=firsts))
    assert re.findall('select name="(.*?)"', text) == ["prompt", *["loss"] * 2]
    varied = [s | {"reading": way, "number": n} for s in firsts for way in "ab" for n in (0, 1)]
    r = replace(r, samples=varied)
    assert re.findall('select name="(.*?)"', sections.stories.stories(r)) == [
        "prompt", *["loss", "reading", "number"] * 2
    ]  # fmt: skip


def test_one_story_alone_has_nothing_to_choose(tmp_path):
    r = read.read(small(tmp_path / "results"))
    shown = next(s for s in r.samples if s["temperature"] == r.study.sample.middle)
    text = sections.stories.stories(replace(r, samples=[shown]))
    assert "<select" not in text
    assert text.count("<article") == 1


# --- the stories' quality, and the optimum ------------------------------------------------------


def test_the_checkers_verdict_follows_the_counts(tmp_path):
    r = read.read(small(tmp_path / "results"))
    told = r.quality["temperature"].notna()
    best = r.quality[told]["valid"].idxmax()
    text = sections.generation.sentence(r)
    assert f"accepts is that of {read.label(r.quality.at[best, 'loss'])}" in text
    assert f"{100 * r.quality.at[best, 'valid']:.1f} %" in text
    r.quality.loc[told, ["valid", "valid_low"]] = 0
    assert "accepts none of the" in sections.generation.sentence(r)


def test_why_stories_were_refused_begins_with_what_is_most_frequent(tmp_path):
    r = read.read(small(tmp_path / "results"))
    columns = ["dropped_object", "broken_agreement", "unknown_word", "unexpected", "no_ending"]
    r.quality[columns] = 0
    r.quality.loc[r.quality["temperature"] == 0.8, ["no_ending", "unknown_word"]] = (1, 4)
    text = sections.generation.sentence(r)
    assert "rejected 15 stories at temperature 0.8" in text
    assert text.index("a word is not in the grammar (12)") < text.index("before the story ends (3)")


def test_form_is_told_of_each_loss_the_best_first(tmp_path):
    r = read.read(small(tmp_path / "results"))
    middle = r.quality.index[r.quality["temperature"] == r.study.sample.middle]
    worst, best, other = middle
    r.quality.loc[middle, "sentences_in_form"] = [0.125, 0.875, 0.5]
    r.quality.loc[worst, "agreement"] = None
    text = sections.generation.sentence(r)
    places = [
        text.index(f"For {read.label(r.quality.at[row, 'loss'])}, {share} %")
        for row, share in ((best, "87.5"), (other, "50.0"), (worst, "12.5"))
    ]
    assert places == sorted(places)
    assert text.count("of the stories are in form") == 3
    assert text.count("of the references agree") == 2
    assert "no reference could be judged" in text[places[-1] :]


def test_a_natural_corpus_has_no_checker_to_speak_of(tmp_path):
    r = read.read(small(tmp_path / "results", source_nll=None))
    assert "in form" not in sections.generation.sentence(r) + sections.generation.table(r)
    assert "checker" not in sections.generation.sentence(r)
    assert "accepted" not in sections.generation.table(r)
    assert "whole story" not in sections.theory.in_contexts(r) + sections.theory.contexts(r)


def test_the_share_that_the_optimum_accounts_for_follows_the_numbers(tmp_path):
    r = with_difference(tmp_path, 0.4)
    floor = {kind: r.floor("squentropy", kind)["kl"] for kind in ("bigram", "whole")}
    text = sections.theory.gap(r)
    assert f"{floor['bigram']:.3f} with one token of context" in text
    assert f"({100 * floor['whole'] / 0.4:.0f} % of that)" in text
    assert "MSE" not in text
    assert "not a bound" not in text
    r.metrics.loc["squentropy", "difference"] = floor["bigram"] / 2
    text = sections.theory.gap(r)
    assert f"{floor['bigram']:.3f} with one token of context (more than that)" in text
    assert "not a bound on what comes before it" in text
    r.metrics.loc["squentropy", "difference"] = -0.1
    assert "of that" not in sections.theory.gap(r)


def test_models_that_are_no_better_than_bigrams_are_far_from_any_optimum(tmp_path):
    r = with_difference(tmp_path, 0.4)
    r.metrics.loc["squentropy", "nll"] = 3.7
    assert sections.theory.gap(r) == ""
    r.metrics.loc[["squentropy", "cross_entropy"], "nll"] = [2.4, 3.7]
    assert sections.theory.gap(r) == ""


def test_the_dose_table_has_measured_gap_and_floor_of_each_multiplier(tmp_path):
    losses = ["cross_entropy", "squentropy(0.1)", "squentropy", "mse"]
    r = read.read(small(tmp_path / "results", losses=losses))
    rows = sections.theory.doses(r).split("<tr>")[2:]
    assert [row.split("</th>")[0].split(">")[1] for row in rows] == [
        "squentropy (0.1)",
        "squentropy",
    ]
    for row, loss, multiplier in zip(rows, losses[1:3], ("0.1", "1"), strict=True):
        assert f"<td class=n>{multiplier}</td>" in row
        assert f"{r.metrics.at[loss, 'difference']:+.3f}".replace("-", "−") in row
        assert f"{r.floor(loss, 'whole')['kl']:.3f}" in row
    r = read.read(small(tmp_path / "one", losses=["cross_entropy", "squentropy"]))
    assert sections.theory.doses(r) == ""


def test_the_optimum_is_the_sources_entropy_and_what_the_loss_adds(tmp_path):
    r = read.read(small(tmp_path / "results"))
    row = r.floor("squentropy", "whole")
    assert (row["classes"], row["weight"]) == (r.corpus["vocab_size"], 1)
    assert r.optimum("squentropy") == r.corpus["source_nll"] + row["kl"]
    assert r.optimum("cross_entropy") is None
    assert r.floor("squentropy(0.1)", "whole")["weight"] == 0.1
