"""The tables follow from the runs: perplexities, intervals, differences and bins.

pytest tests/results/test_tables.py
"""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import stdtrit

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.results import tables
from squentropy.results.metric_rows import METRICS, ORDERS
from squentropy.results.original import REPORTED
from squentropy.results.tables import metrics
from squentropy.results.voices import write_voices
from squentropy.study import digests
from squentropy.tuning.outcomes import ppl
from squentropy.tuning.selection import select, selected_hyperparameters

LOSSES = ["cross_entropy", "mse", "brier"]  # the last one always diverges
CELL = ["lr", "dropout", "n_layer"]


@pytest.fixture(scope="module")
def rows(finished) -> pd.DataFrame:
    table = pd.read_csv(finished / "results" / "metrics.csv")
    return table[table.kind == "loss"].set_index("loss")


@pytest.fixture(scope="module")
def yardsticks(finished) -> pd.DataFrame:
    table = pd.read_csv(finished / "results" / "metrics.csv")
    return table[table.kind != "loss"].set_index("loss")


@pytest.fixture(scope="module")
def readings(finished) -> pd.DataFrame:
    return pd.read_csv(finished / "results" / "readings.csv")


def test_metrics_have_one_row_per_loss(rows, finished, tiny_study):
    columns = pd.read_csv(finished / "results" / "metrics.csv").columns.tolist()
    assert columns == METRICS
    assert rows.index.tolist() == LOSSES
    assert rows.n_seeds.tolist() == [2, 2, 0]
    assert rows.diverged.tolist() == [0, 0, 2]
    chosen = selected_hyperparameters(tiny_study(), finished / "results")
    assert rows[CELL].to_dict("index") == chosen


def test_the_numbers_of_a_loss_follow_from_its_stories(rows, finished, data):
    stories = pd.read_csv(finished / "results" / "stories.csv")
    for loss in ("cross_entropy", "mse"):
        own = stories[(stories.loss == loss) & (stories.phase == "final")]
        row, nll = rows.loc[loss], own.nll.sum() / own.tokens.sum()
        assert row.reading == {"cross_entropy": "tempered", "mse": "own"}[loss]
        for prefix, column in (("", "nll"), ("test_", "softmax_nll")):
            mean = own[column].sum() / own.tokens.sum()
            assert row[f"{prefix}nll"] == pytest.approx(mean, rel=1e-8)
            assert row[f"{prefix}nll_low"] < mean < row[f"{prefix}nll_high"]
            for end in ("", "_low", "_high"):
                expected = math.exp(row[f"{prefix}nll{end}"])
                assert row[f"{prefix}ppl{end}"] == pytest.approx(expected, rel=1e-8)
            bits = own[column].sum() / math.log(2) / own.bytes.sum()
            assert row[f"{prefix}bits_per_byte"] == pytest.approx(bits, rel=1e-8)
        assert row.test_accuracy == pytest.approx(own.correct.sum() / own.tokens.sum())
        runs = [finished / f"checkpoints/final/{loss}/seed{seed}/test.json" for seed in (1, 2)]
        scores = [storage.read_sealed(run) for run in runs]
        top5 = sum(sum(s["stories"]["top5"]) for s in scores) / own.tokens.sum()
        assert row.test_top5_accuracy == pytest.approx(top5)
        assert row.test_top5_accuracy >= row.test_accuracy
        # In this fixture a story's log p is -0.1 per character.
        entropy = 0.1 * sum(len(s) for s in pd.read_parquet(data / "corpus/test.parquet").text)
        floor = entropy / own[own.seed == 1].tokens.sum()
        assert row.excess == pytest.approx(nll - floor, rel=1e-6)


def readings_of(finished, loss, key):
    """A value of each reading of a loss's final runs, (seeds, ...)."""
    runs = [finished / f"checkpoints/final/{loss}/seed{seed}/test.json" for seed in (1, 2)]
    scores = [storage.read_sealed(run)["readings"] for run in runs]
    return {name: np.array([s[name][key] for s in scores]) for name in scores[0]}


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_every_reading_has_its_nll_brier_score_and_calibration_error(readings, finished, loss):
    stories = pd.read_csv(finished / "results" / "stories.csv")
    tokens = stories[(stories.loss == loss) & (stories.seed == 1)].tokens.sum()
    own = readings[readings.loss == loss]
    for key in ("nll", "brier", "ece"):
        by_name = readings_of(finished, loss, key)
        assert len(by_name) == len(own)
        for (_, row), values in zip(own.iterrows(), by_name.values(), strict=True):
            mean = values.reshape(2, -1).sum(1).mean() / (tokens if key == "nll" else 1)
            assert row[key] == pytest.approx(mean, rel=1e-8)


def test_an_inverse_link_is_read_at_every_floor(readings, tiny_study):
    evaluate = tiny_study().evaluate
    own = readings[readings.reading == "own"]
    assert set(own.loss) == {"mse"}
    assert own.floor.tolist() == [evaluate.link_floor, *evaluate.other_floors]
    assert own.primary.tolist() == [True, False, False]


def test_each_loss_has_one_primary_reading_and_metrics_hold_it(rows, readings):
    primary = readings[readings.primary].set_index("loss")
    assert primary.index.tolist() == ["cross_entropy", "mse"]
    for loss, row in primary.iterrows():
        assert row.reading == rows.at[loss, "reading"]
        assert row.nll == pytest.approx(rows.at[loss, "nll"], rel=1e-8)


def test_calibration_errors_follow_from_the_bins(readings, finished):
    table = pd.read_csv(finished / "results" / "calibration.csv")
    assert list(table.columns) == tables.CALIBRATION
    assert set(table.loss) == {"cross_entropy", "mse"}
    gap = (table.correct - table.confidence).abs().groupby([table.loss, table.reading]).sum()
    tokens = table.groupby(["loss", "reading"]).tokens.sum()
    first = readings.drop_duplicates(["loss", "reading"]).set_index(["loss", "reading"])
    for key, ece in (gap / tokens).items():
        assert first.at[key, "ece"] == pytest.approx(ece, rel=1e-6)
    inside = table[table.tokens > 0]
    confidence = inside.confidence / inside.tokens
    assert confidence.between(inside.low - 1e-6, inside.high + 1e-6).all()


@pytest.mark.parametrize("by", ["position", "frequency"])
def test_a_profile_parts_the_nll_into_bins(readings, finished, by):
    table = pd.read_csv(finished / "results" / "profile.csv")
    assert list(table.columns) == tables.PROFILE
    table = table[table.by == by]
    sums = table.groupby(["loss", "reading"])[["nll", "tokens"]].sum()
    first = readings.drop_duplicates(["loss", "reading"]).set_index(["loss", "reading"])
    assert sums.index.tolist() == sorted(first.index)
    for key, row in sums.iterrows():
        assert first.at[key, "nll"] == pytest.approx(row.nll / row.tokens, rel=1e-6)
    run = table[(table.loss == "mse") & (table.seed == 1) & (table.reading == "softmax")]
    assert (run.low.to_numpy()[1:] >= run.high.to_numpy()[:-1]).all()


def test_a_difference_is_between_primary_readings(rows, tiny_study):
    columns = ["difference", "difference_low", "difference_high", "p_value", "tokens_needed"]
    assert rows.loc["cross_entropy", columns].isna().all()
    gap = rows.loc["mse", "nll"] - rows.loc["cross_entropy", "nll"]
    assert rows.loc["mse", "difference"] == pytest.approx(gap, rel=1e-6)
    assert tiny_study().plan.smallest_p <= rows.loc["mse", "p_value"] <= 1


def test_softmax_is_compared_with_softmax_and_an_inverse_link_with_the_plans_reading(readings):
    by = readings[readings.loss == "cross_entropy"].set_index("reading").nll
    for row in readings[readings.difference.notna()].itertuples():
        other = "softmax" if row.reading == "softmax" else "tempered"
        assert row.difference == pytest.approx(row.nll - by[other], rel=1e-6)


def test_more_tokens_are_needed_if_and_only_if_a_loss_is_worse(rows):
    row = rows.loc["mse"]
    assert (row.tokens_needed > 1) == (row.difference > 0)
    assert row.tokens_needed_low <= row.tokens_needed <= row.tokens_needed_high


def test_yardsticks_are_the_n_grams_of_the_tokens_that_a_run_saw(yardsticks, rows, tokens):
    assert yardsticks.index.tolist() == [*ORDERS.values(), "xz", "source entropy"]
    seen = min(int(rows.tokens.iloc[0]), len(tokens.split("train").ids))
    grams = yardsticks[yardsticks.kind == "ngram"]
    assert (grams.tokens == seen).all()
    assert grams.nll.notna().all()
    assert (grams.nll_low <= grams.nll).all()
    assert 0 < yardsticks.nll["xz"] < 2 * yardsticks.nll["unigram"]


def test_what_is_learnt_is_the_share_of_the_way_from_unigram_to_the_limit(rows, yardsticks):
    unigram, limit = yardsticks.nll["unigram"], yardsticks.nll["source entropy"]
    for loss in ("cross_entropy", "mse"):
        share = (unigram - rows.at[loss, "nll"]) / (unigram - limit)
        assert rows.at[loss, "learnt"] == pytest.approx(share, rel=1e-6)


def test_lengths_have_one_row_per_run_and_end_at_the_full_length(finished, rows, tiny_study):
    table = pd.read_csv(finished / "results" / "lengths.csv")
    assert list(table.columns) == tables.LENGTHS
    own = table[table.loss == "mse"]
    assert own[["iterations", "seed"]].to_numpy().tolist() == [[4, 1], [8, 1], [8, 2]]
    assert own.tokens.tolist() == [4 * 32, 8 * 32, 8 * 32]
    assert own[own.iterations == 8].nll.mean() == pytest.approx(rows.at["mse", "nll"])
    gap = own.nll - own.excess
    assert np.ptp(gap) < 1e-9


def test_a_loss_that_diverged_leaves_its_scores_empty(rows):
    scores = rows.columns[rows.columns.get_loc("train_loss") :].drop("reading")
    assert rows.loc["brier", scores].isna().all()


def test_the_json_for_dvc_holds_each_losses_test_nll_where_there_is_one(rows, finished):
    held = json.loads((finished / "results" / "metrics.json").read_text())
    assert held == rows["nll"].dropna().to_dict()
    assert held.keys() == {"cross_entropy", "mse"}  # brier diverged


def test_the_history_holds_every_run(finished, tiny_study):
    history = pd.read_csv(finished / "results" / "history.csv")
    assert list(history.columns) == tables.HISTORY
    final = history[(history.phase == "final") & (history.loss == "mse")]
    assert final[["seed", "iteration"]].to_numpy().tolist() == [[1, 4], [1, 8], [2, 4], [2, 8]]
    assert set(history.phase) == {"sweep", "lengths", "final", "reported"}
    assert "brier" not in set(history.loss)


def test_the_corpus_is_described_as_it_is(finished, tokens):
    described = storage.read_sealed(finished / "results" / "corpus.json")
    test = tokens.split("test")
    assert described["splits"]["test"]["tokens"] == len(test.ids)
    assert described["vocab_size"] == 300
    assert described["unigram_nll"] == test.unigram_nll()
    assert described["source_nll"] > 0 < described["source_nll_se"]


def test_one_story_has_a_source_nll_without_an_error(data, finished):
    entropy = np.array([12.0])
    split = tables.TokenFolder.split
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables.TokenFolder, "split", lambda self, name: split(self, name).head(1))
        assert tables.describe_corpus(data, entropy)["source_nll_se"] is None


def test_the_reported_cell_stands_beside_the_original_studys_numbers(finished):
    table = pd.read_csv(finished / "results" / "reported.csv")
    assert len(table) == len(REPORTED)
    assert table.reproduced.notna().all()
    run = storage.read_sealed(finished / "checkpoints/reported/squentropy_weighted/seed1/test.json")
    mine = table[table.loss == "squentropy_weighted"].set_index("measure").reproduced
    assert mine["test perplexity"] == pytest.approx(math.exp(run["original_estimate"]["nll"]))
    assert mine["test loss"] == pytest.approx(run["original_estimate"]["loss"])


def test_samples_read_side_by_side_as_they_are(finished, tiny_study):
    text = (finished / "results" / "samples.md").read_text()
    samples = json.loads((finished / "results" / "samples.json").read_text())
    assert len(samples) == 5 * 3 * 2 * 2  # runs, temperatures, stories, prompts
    for sample in samples:
        if (sample["temperature"], sample["number"]) == (0.8, 0):
            assert f"**{sample['loss']}**, {sample['phase']}, seed {sample['seed']}" in text
            assert f"\n{sample['text']}\n```" in text
    assert text.count(" tokens, ") == 5 * 2
    assert [line[3:-2] for line in text.splitlines() if line.startswith("## ")] == list(
        tiny_study().sample.prompts
    )


def test_a_sample_that_holds_a_fence_does_not_break_out(tiny_study):
    sample = {
        "prompt": "p", "text": "a\n````\nb", "ended": True, "tokens": 3,
        "loss": "mse", "phase": "final", "seed": 1, "temperature": 0.8, "number": 0,
    }  # fmt: skip
    lines = tables._samples_markdown(tiny_study(), [sample]).splitlines()
    assert "`````text" in lines
    assert "`````" in lines


def test_the_same_runs_give_the_same_bytes(copy, finished, data, tiny_study):
    first = {p.name: p.read_bytes() for p in (finished / "results").iterdir()}
    for path in (copy / "results").iterdir():
        path.unlink()
    select(tiny_study(), copy / "checkpoints", copy / "results")
    write_voices(tiny_study(), data, copy / "checkpoints", copy / "results")
    metrics(tiny_study(), data, copy / "checkpoints", copy / "results")
    assert {p.name: p.read_bytes() for p in (copy / "results").iterdir()} == first


def test_scores_of_another_run_are_refused(copy, data, tiny_study):
    path = copy / "checkpoints/final/mse/seed1/run.json"
    storage.write_sealed(path, storage.read_sealed(path) | {"train_loss": 1.0})
    with pytest.raises(
        SquentropyError, match=r"test\.json: the run has been trained again since; "
    ):
        metrics(tiny_study(), data, copy / "checkpoints", copy / "results")


def test_a_selection_that_lacks_a_loss_is_refused(copy, data, tiny_study):
    study = tiny_study(sweep={"losses": ["cross_entropy", "z_loss"]})
    with pytest.raises(SquentropyError, match=r"selected\.json: holds no z_loss; run the sweep"):
        metrics(study, data, copy / "checkpoints", copy / "results")


@pytest.mark.parametrize("losses", [["mse", "brier"], ["cross_entropy"], ["brier"]])
def test_tables_do_without_the_baseline_or_any_finished_loss(copy, data, tiny_study, losses):
    study = tiny_study(sweep={"losses": losses}, final={"reported": None})
    select(study, copy / "checkpoints", copy / "results")
    metrics(study, data, copy / "checkpoints", copy / "results")
    table = pd.read_csv(copy / "results" / "metrics.csv").query("kind == 'loss'")
    assert table.loss.tolist() == losses
    assert table.difference.isna().all()


@pytest.mark.parametrize(("nll", "expected"), [(None, None), (0.0, 1.0), (1e4, math.inf)])
def test_perplexity_is_exp_of_the_nll_as_far_as_a_float_goes(nll, expected):
    assert ppl(nll) == expected


def test_no_model_of_the_committed_study_is_below_the_sources_entropy():
    """By any reading, by more than three standard errors."""
    results = Path(__file__).resolve().parents[2] / "results" / "grammar"
    table = pd.read_csv(results / "metrics.csv").set_index("loss").dropna(subset="excess")
    half = (table.excess_high - table.excess_low) / 2
    # The degrees of freedom are at least these, so t is at most this and the error at least this.
    error = half / stdtrit(table.n_seeds - 1, 0.975)
    least = pd.read_csv(results / "readings.csv").groupby("loss").nll.min()
    gap = least - storage.read_sealed(results / "corpus.json")["source_nll"]
    assert len(table) > 1
    assert (gap[table.index] >= -3 * error).all()


def test_a_selection_from_other_cells_is_refused(copy, data, tiny_study):
    path = copy / "checkpoints" / tiny_study().sweep_cells()[0].name / "run.json"
    storage.write_sealed(path, storage.read_sealed(path) | {"train_loss": 1.0})
    with pytest.raises(SquentropyError, match=r"selected\.json: is not of the runs in .*; select"):
        metrics(tiny_study(), data, copy / "checkpoints", copy / "results")


def test_runs_of_other_parameters_or_code_are_refused(copy, data, tiny_study, monkeypatch):
    with pytest.raises(
        SquentropyError, match=r"run\.json: params\.train\.beta1 was 0\.9, is 0\.8;"
    ):
        metrics(tiny_study(train={"beta1": 0.8}), data, copy / "checkpoints", copy / "results")
    by_module = digests.by_module
    monkeypatch.setattr(
        digests, "by_module", lambda *m, loss=None: by_module(*m, loss=loss) | {"model.py": "other"}
    )
    with pytest.raises(SquentropyError, match=r"run\.json: the code has changed: model\.py; run"):
        metrics(tiny_study(), data, copy / "checkpoints", copy / "results")


def test_another_corpus_than_that_of_the_tokens_is_refused(copy, data, tiny_study, tmp_path):
    other = Path(shutil.copytree(data, tmp_path / "data"))
    path = other / "corpus" / "manifest.json"
    storage.write_sealed(path, storage.read_sealed(path) | {"licence": "another"})
    with pytest.raises(SquentropyError, match=r"are not the tokens of .*corpus; run `squent"):
        metrics(tiny_study(), other, copy / "checkpoints", copy / "results")


def test_a_single_test_story_gives_numbers_without_intervals(copy, data, tiny_study):
    """The ends of intervals of perplexity are missing, not infinite."""
    for cell in copy.glob("checkpoints/*/*/seed*/test.json"):
        scores = storage.read_sealed(cell)
        if "stories" in scores:
            for values in scores["stories"], *scores["readings"].values():
                values |= {k: v[:1] for k, v in values.items() if isinstance(v, list)}
            storage.write_sealed(cell, scores)
    split = tables.TokenFolder.split
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "story_entropy", lambda data: None)
        patch.setattr(tables.TokenFolder, "split", lambda self, name: split(self, name).head(1))
        metrics(tiny_study(), data, copy / "checkpoints", copy / "results")
    row = pd.read_csv(copy / "results" / "metrics.csv").set_index("loss").loc["mse"]
    assert math.isfinite(row.test_ppl)
    assert row[["nll_low", "test_nll_low", "test_ppl_low", "test_ppl_high"]].isna().all()
