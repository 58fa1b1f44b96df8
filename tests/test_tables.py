"""The tables follow from the runs: the selection, the perplexities, the intervals, the gaps.

pytest tests/test_tables.py
"""

import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from squentropy import storage, tables
from squentropy.errors import SquentropyError
from squentropy.tables import metrics, select, selected_hyperparameters

LOSSES = ["cross_entropy", "mse", "brier"]  # the last one always diverges
CELL = ["lr", "dropout", "n_layer"]


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """A copy of the finished study to change."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.fixture(scope="module")
def sweep(finished) -> pd.DataFrame:
    return pd.read_csv(finished / "results" / "sweep.csv")


@pytest.fixture(scope="module")
def rows(finished) -> pd.DataFrame:
    return pd.read_csv(finished / "results" / "metrics.csv").set_index("loss")


def test_the_sweep_has_a_row_a_cell_in_the_order_of_the_parameters(sweep, tiny_study):
    cells = tiny_study().sweep_cells()
    assert list(sweep.columns) == tables.SWEEP
    given = sweep[["loss", *CELL, "seed"]].itertuples(index=False, name=None)
    assert list(given) == [(c.loss, c.lr, c.dropout, c.n_layer, c.seed) for c in cells]
    ok = sweep[sweep.status == "ok"]
    np.testing.assert_allclose(ok.validation_ppl, np.exp(ok.validation_nll), rtol=1e-8)


def test_a_squared_loss_is_validated_by_its_inverse_link_too(sweep):
    assert sweep[sweep.loss == "mse"].validation_link_nll.notna().all()
    assert sweep[sweep.loss != "mse"].validation_link_nll.isna().all()


def test_a_diverged_cell_has_its_iteration_and_no_nll(sweep):
    diverged = sweep[sweep.loss == "brier"]
    assert (diverged.status == "diverged").all()
    assert (diverged.diverged_at == 0).all()
    columns = ["train_loss", "train_nll", "validation_nll", "validation_ppl"]
    assert diverged[columns].isna().all(axis=None)
    assert sweep[sweep.loss != "brier"][columns].notna().all(axis=None)


def test_the_selected_cell_is_the_best_on_validation(sweep, finished, tiny_study):
    chosen = selected_hyperparameters(tiny_study(), finished / "results")
    for loss in ("cross_entropy", "mse"):
        own = sweep[sweep.loss == loss]
        best = own.loc[own.validation_nll.idxmin()]
        assert chosen[loss] == {key: best[key] for key in CELL}
        assert own.selected.sum() == 1
        assert best.selected


def test_a_loss_that_diverged_everywhere_goes_on_at_its_smallest_rate(sweep, finished):
    chosen = storage.read_json(finished / "results" / "selected.json")["brier"]
    assert (chosen["lr"], chosen["validation_nll"], chosen["diverged"]) == (0.001, None, 3)
    assert sweep[sweep.loss == "brier"].selected.tolist() == [True, False, False]


def test_a_best_value_at_the_edge_of_its_grid_is_flagged(copy, tiny_study):
    """Grids of one value have no edge."""
    study, checkpoints = tiny_study(), copy / "checkpoints"
    cells = [cell for cell in study.sweep_cells() if cell.loss == "mse"]
    for best, edge in zip(cells, (["lr"], [], ["lr"])):
        for cell in cells:
            path = checkpoints / cell.name / "run.json"
            run = storage.read_json(path)
            storage.write_json(path, run | {"validation_nll": 5.0 - (cell == best)})
        chosen = select(study, checkpoints, copy / "results")["mse"]
        assert (chosen["lr"], chosen["edge"]) == (best.lr, edge)


def test_a_run_of_another_cell_is_refused(copy, tiny_study):
    one, other = (
        copy / "checkpoints" / c.name / "run.json" for c in tiny_study().sweep_cells()[:2]
    )
    shutil.copy(one, other)
    with pytest.raises(SquentropyError, match=f"{other}: is another cell's"):
        select(tiny_study(), copy / "checkpoints", copy / "results")


def test_a_missing_run_is_named(copy, tiny_study):
    path = copy / "checkpoints" / tiny_study().sweep_cells()[0].name / "run.json"
    path.unlink()
    with pytest.raises(SquentropyError, match=f"{path}: does not exist"):
        select(tiny_study(), copy / "checkpoints", copy / "results")


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
            ppl = math.exp(row[f"test_nll{end}"])
            assert row[f"test_ppl{end}"] == pytest.approx(ppl, rel=1e-8)
        bits = own.nll.sum() / math.log(2) / own.bytes.sum()
        assert row.test_bits_per_byte == pytest.approx(bits, rel=1e-8)
        assert row.test_accuracy == pytest.approx(own.correct.sum() / own.tokens.sum())
        runs = [finished / f"checkpoints/final/{loss}/seed{seed}/test.json" for seed in (1, 2)]
        scores = [storage.read_json(run) for run in runs]
        top5 = sum(sum(s["stories"]["top5"]) for s in scores) / own.tokens.sum()
        assert row.test_top5_accuracy == pytest.approx(top5)
        assert row.test_top5_accuracy >= row.test_accuracy
        gaps = [
            abs(correct - confidence)
            for s in scores
            for correct, confidence in zip(
                s["calibration"]["correct"], s["calibration"]["confidence"]
            )
        ]
        assert row.test_ece == pytest.approx(sum(gaps) / own.tokens.sum(), rel=1e-6)
        assert row.test_nll_low < row.test_nll < row.test_nll_high
        # The stories' log p is -0.1 a character here.
        entropy = 0.1 * sum(len(s) for s in pd.read_parquet(data / "corpus/test.parquet").text)
        floor = entropy / own[own.seed == 1].tokens.sum()
        assert row.excess == pytest.approx(nll - floor, rel=1e-6)


def test_a_difference_is_to_cross_entropy_and_it_has_none_to_itself(rows):
    columns = ["difference", "difference_low", "difference_high", "p_value"]
    assert rows.loc["cross_entropy", columns].isna().all()
    gap = rows.loc["mse", "test_nll"] - rows.loc["cross_entropy", "test_nll"]
    assert rows.loc["mse", "difference"] == pytest.approx(gap, rel=1e-6)
    assert 0 <= rows.loc["mse", "p_value"] <= 1


def test_only_squared_losses_have_an_inverse_link(rows):
    assert rows.inverse_link_nll.notna().tolist() == [False, True, False]


def test_a_loss_that_diverged_leaves_its_scores_empty(rows):
    scores = rows.columns[rows.columns.get_loc("train_loss") :]
    assert rows.loc["brier", scores].isna().all()


def test_the_json_for_dvc_holds_the_finite_numbers_of_the_csv(rows, finished):
    held = storage.read_json(finished / "results" / "metrics.json")
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
    described = storage.read_json(finished / "results" / "corpus.json")
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
    run = storage.read_json(finished / "checkpoints/reported/squentropy_weighted/seed1/test.json")
    mine = table[table.loss == "squentropy_weighted"].set_index("measure").reproduced
    assert mine["test perplexity"] == pytest.approx(math.exp(run["seed_estimate"]["nll"]))
    assert mine["test loss"] == pytest.approx(run["seed_estimate"]["loss"])


def test_samples_read_side_by_side_as_they_are(finished, tiny_study):
    text = (finished / "results" / "samples.md").read_text()
    samples = storage.read_json(finished / "results" / "samples.json")
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
    storage.write_json(path, storage.read_json(path) | {"train_loss": 1.0})
    with pytest.raises(SquentropyError, match=r"test\.json: belongs to another run; evaluate"):
        metrics(tiny_study(), data, copy / "checkpoints", copy / "results")


def test_a_selection_that_lacks_a_loss_is_refused(copy, data, tiny_study):
    study = tiny_study(sweep={"losses": ["cross_entropy", "z_loss"]})
    with pytest.raises(SquentropyError, match=r"selected\.json: holds no z_loss; run the sweep"):
        metrics(study, data, copy / "checkpoints", copy / "results")


@pytest.mark.parametrize("losses", [["mse", "brier"], ["cross_entropy"], ["brier"]])
def test_tables_do_without_the_baseline_or_any_finished_loss(copy, data, tiny_study, losses):
    study = tiny_study(sweep={"losses": losses}, final={"reported": None})
    metrics(study, data, copy / "checkpoints", copy / "results")
    table = pd.read_csv(copy / "results" / "metrics.csv")
    assert table.loss.tolist() == losses
    assert table.difference.isna().all()


@pytest.mark.parametrize(("nll", "ppl"), [(None, None), (0.0, 1.0), (1e4, math.inf)])
def test_perplexity_is_exp_of_the_nll_as_far_as_a_float_goes(nll, ppl):
    assert tables.ppl(nll) == ppl
