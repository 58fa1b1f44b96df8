"""The tables follow from the runs: the perplexities, the intervals, the gaps, the bins.

pytest tests/test_tables.py
"""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import stdtrit

from squentropy import code, storage, tables
from squentropy.errors import SquentropyError
from squentropy.outcomes import ppl
from squentropy.selection import select, selected_hyperparameters
from squentropy.tables import metrics

LOSSES = ["cross_entropy", "mse", "brier"]  # the last one always diverges
CELL = ["lr", "dropout", "n_layer"]


@pytest.fixture(scope="module")
def rows(finished) -> pd.DataFrame:
    return pd.read_csv(finished / "results" / "metrics.csv").set_index("loss")


def test_metrics_have_a_row_a_loss(rows, finished, tiny_study):
    assert rows.reset_index().columns.tolist() == tables.METRICS
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
        assert row.test_nll == pytest.approx(nll, rel=1e-8)
        for end in ("", "_low", "_high"):
            expected = math.exp(row[f"test_nll{end}"])
            assert row[f"test_ppl{end}"] == pytest.approx(expected, rel=1e-8)
        bits = own.nll.sum() / math.log(2) / own.bytes.sum()
        assert row.test_bits_per_byte == pytest.approx(bits, rel=1e-8)
        assert row.test_accuracy == pytest.approx(own.correct.sum() / own.tokens.sum())
        runs = [finished / f"checkpoints/final/{loss}/seed{seed}/test.json" for seed in (1, 2)]
        scores = [storage.read_sealed(run) for run in runs]
        top5 = sum(sum(s["stories"]["top5"]) for s in scores) / own.tokens.sum()
        assert row.test_top5_accuracy == pytest.approx(top5)
        assert row.test_top5_accuracy >= row.test_accuracy
        assert row.test_nll_low < row.test_nll < row.test_nll_high
        # The stories' log p is -0.1 a character here.
        entropy = 0.1 * sum(len(s) for s in pd.read_parquet(data / "corpus/test.parquet").text)
        floor = entropy / own[own.seed == 1].tokens.sum()
        assert row.excess == pytest.approx(nll - floor, rel=1e-6)


def readings_of(finished, loss, key):
    """(seeds, ...) of every reading of a loss's final runs."""
    runs = [finished / f"checkpoints/final/{loss}/seed{seed}/test.json" for seed in (1, 2)]
    scores = [storage.read_sealed(run)["readings"] for run in runs]
    return {name: np.array([s[name][key] for s in scores]) for name in scores[0]}


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_every_reading_has_its_nll_brier_score_and_calibration_error(rows, finished, loss):
    row = rows.loc[loss]
    for key in ("nll", "brier", "ece"):
        for name, values in readings_of(finished, loss, key).items():
            column = f"{'test' if name == 'softmax' else name}_{key}"
            tokens = 1
            if key == "nll":
                stories = pd.read_csv(finished / "results" / "stories.csv")
                tokens = stories[(stories.loss == loss) & (stories.seed == 1)].tokens.sum()
            mean = values.reshape(2, -1).sum(1).mean() / tokens
            assert row[column] == pytest.approx(mean, rel=1e-8)
    assert row.notna()["inverse_link_ece"] == (loss == "mse")


def test_calibration_errors_follow_from_the_bins(rows, finished):
    table = pd.read_csv(finished / "results" / "calibration.csv")
    assert list(table.columns) == tables.CALIBRATION
    assert set(table.loss) == {"cross_entropy", "mse"}
    gap = (table.correct - table.confidence).abs().groupby([table.loss, table.reading]).sum()
    tokens = table.groupby(["loss", "reading"]).tokens.sum()
    for (loss, reading), ece in (gap / tokens).items():
        column = f"{'test' if reading == 'softmax' else reading}_ece"
        assert rows.at[loss, column] == pytest.approx(ece, rel=1e-6)
    inside = table[table.tokens > 0]
    confidence = inside.confidence / inside.tokens
    assert confidence.between(inside.low - 1e-6, inside.high + 1e-6).all()


@pytest.mark.parametrize("by", ["position", "frequency"])
def test_a_profile_parts_the_nll_into_bins(rows, finished, by):
    table = pd.read_csv(finished / "results" / "profile.csv")
    assert list(table.columns) == tables.PROFILE
    table = table[table.by == by]
    sums = table.groupby(["loss", "reading"])[["nll", "tokens"]].sum()
    for (loss, reading), row in sums.iterrows():
        column = f"{'test' if reading == 'softmax' else reading}_nll"
        assert rows.at[loss, column] == pytest.approx(row.nll / row.tokens, rel=1e-6)
    run = table[(table.loss == "mse") & (table.seed == 1) & (table.reading == "softmax")]
    assert (run.low.to_numpy()[1:] >= run.high.to_numpy()[:-1]).all()


def test_a_difference_is_to_cross_entropy_and_it_has_none_to_itself(rows):
    columns = ["difference", "difference_low", "difference_high", "p_value"]
    assert rows.loc["cross_entropy", columns].isna().all()
    gap = rows.loc["mse", "test_nll"] - rows.loc["cross_entropy", "test_nll"]
    assert rows.loc["mse", "difference"] == pytest.approx(gap, rel=1e-6)
    assert 0 <= rows.loc["mse", "p_value"] <= 1
    gap = rows.loc["mse", "tempered_nll"] - rows.loc["cross_entropy", "tempered_nll"]
    assert rows.loc["mse", "tempered_difference"] == pytest.approx(gap, rel=1e-6)


def test_only_squared_losses_have_an_inverse_link(rows):
    assert rows.inverse_link_nll.notna().tolist() == [False, True, False]


def test_a_loss_that_diverged_leaves_its_scores_empty(rows):
    scores = rows.columns[rows.columns.get_loc("train_loss") :]
    assert rows.loc["brier", scores].isna().all()


def test_the_json_for_dvc_holds_the_finite_numbers_of_the_csv(rows, finished):
    held = json.loads((finished / "results" / "metrics.json").read_text())
    assert list(held) == LOSSES
    for loss, numbers in held.items():
        finite = rows.loc[loss].dropna().to_dict()
        assert numbers == pytest.approx(finite, rel=1e-8)


def test_the_history_holds_every_run(finished, tiny_study):
    history = pd.read_csv(finished / "results" / "history.csv")
    assert list(history.columns) == tables.HISTORY
    final = history[(history.phase == "final") & (history.loss == "mse")]
    assert final[["seed", "iteration"]].to_numpy().tolist() == [[1, 4], [1, 8], [2, 4], [2, 8]]
    assert set(history.phase) == {"sweep", "final", "reported"}
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


def test_the_reported_cell_stands_beside_the_seed_studys_numbers(finished):
    table = pd.read_csv(finished / "results" / "reported.csv")
    assert len(table) == len(tables.REPORTED)
    assert table.reproduced.notna().all()
    run = storage.read_sealed(finished / "checkpoints/reported/squentropy_weighted/seed1/test.json")
    mine = table[table.loss == "squentropy_weighted"].set_index("measure").reproduced
    assert mine["test perplexity"] == pytest.approx(math.exp(run["seed_estimate"]["nll"]))
    assert mine["test loss"] == pytest.approx(run["seed_estimate"]["loss"])


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
    table = pd.read_csv(copy / "results" / "metrics.csv")
    assert table.loss.tolist() == losses
    assert table.difference.isna().all()


@pytest.mark.parametrize(("nll", "expected"), [(None, None), (0.0, 1.0), (1e4, math.inf)])
def test_perplexity_is_exp_of_the_nll_as_far_as_a_float_goes(nll, expected):
    assert ppl(nll) == expected


def test_no_model_of_the_committed_study_is_below_the_sources_entropy():
    """However it is read, by more than three standard errors."""
    results = Path(__file__).resolve().parents[1] / "results" / "grammar"
    table = pd.read_csv(results / "metrics.csv").set_index("loss").dropna(subset="excess")
    half = (table.excess_high - table.excess_low) / 2
    # No fewer degrees of freedom than this, so no larger t, and no smaller standard error.
    error = half / stdtrit(table.n_seeds - 1, 0.975)
    nll = table.filter(regex=r"^(test|tempered|inverse_link)_nll$")
    gap = nll - storage.read_sealed(results / "corpus.json")["source_nll"]
    assert len(table) > 1
    np.testing.assert_allclose(gap.test_nll, table.excess, rtol=1e-6)
    assert (gap.min(axis=1) >= -3 * error).all()


def test_a_selection_from_other_cells_is_refused(copy, data, tiny_study):
    path = copy / "checkpoints" / tiny_study().sweep_cells()[0].name / "run.json"
    storage.write_sealed(path, storage.read_sealed(path) | {"train_loss": 1.0})
    with pytest.raises(SquentropyError, match=r"selected\.json: is not of the cells in .*; select"):
        metrics(tiny_study(), data, copy / "checkpoints", copy / "results")


def test_runs_of_other_parameters_or_code_are_refused(copy, data, tiny_study, monkeypatch):
    with pytest.raises(
        SquentropyError, match=r"run\.json: params\.train\.beta1 was 0\.9, is 0\.8;"
    ):
        metrics(tiny_study(train={"beta1": 0.8}), data, copy / "checkpoints", copy / "results")
    digests = code.digests
    monkeypatch.setattr(
        code, "digests", lambda *m, loss=None: digests(*m, loss=loss) | {"model.py": "other"}
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
    """Perplexities without an interval are missing, not infinite."""
    for cell in copy.glob("checkpoints/*/*/seed*/test.json"):
        scores = storage.read_sealed(cell)
        if "stories" in scores:
            for values in scores["stories"], *scores["readings"].values():
                values |= {k: v[:1] for k, v in values.items() if isinstance(v, list)}
            storage.write_sealed(cell, scores)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "story_entropy", lambda data: None)
        patch.setattr(tables, "describe_corpus", lambda data, entropy: {"source": "files"})
        metrics(tiny_study(), data, copy / "checkpoints", copy / "results")
    row = pd.read_csv(copy / "results" / "metrics.csv").set_index("loss").loc["mse"]
    assert math.isfinite(row.test_ppl)
    assert row[["test_nll_low", "test_ppl_low", "test_ppl_high"]].isna().all()
