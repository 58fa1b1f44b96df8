"""The selected cell of each loss is the best on validation, as the tables show.

pytest tests/tuning/test_selection.py
"""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.cli import app
from squentropy.tuning.selection import REFINE, SWEEP, select, selected_hyperparameters

CELL = ["lr", "dropout", "n_layer"]


@pytest.fixture(scope="module")
def sweep(finished) -> pd.DataFrame:
    return pd.read_csv(finished / "results" / "sweep.csv")


def test_the_sweep_has_a_row_a_cell_in_the_order_of_the_parameters(sweep, tiny_study):
    cells = tiny_study().sweep_cells()
    assert list(sweep.columns) == SWEEP
    given = sweep[["loss", *CELL, "seed"]].itertuples(index=False, name=None)
    assert list(given) == [(c.loss, c.lr, c.dropout, c.n_layer, c.seed) for c in cells]
    ok = sweep[sweep.status == "ok"]
    np.testing.assert_allclose(ok.validation_ppl, np.exp(ok.validation_nll), rtol=1e-8)


def test_each_cell_is_selected_by_its_own_probabilities(sweep):
    """The sweep fits no temperature, so softmax takes the place of tempered."""
    by = dict(sweep.groupby("loss").reading.unique().map(list))
    assert by == {"cross_entropy": ["softmax"], "mse": ["own"], "brier": ["softmax"]}
    ok = sweep[sweep.status == "ok"]
    assert (ok.selection_nll == ok.validation_nll).all()


@pytest.fixture(scope="module")
def refined(finished) -> pd.DataFrame:
    return pd.read_csv(finished / "results" / "refine.csv")


def test_refined_runs_start_at_the_best_cell_of_the_sweep(sweep, refined, tiny_study):
    assert list(refined.columns) == REFINE
    for loss in ("cross_entropy", "mse"):
        own, cells = refined[refined.loss == loss], sweep[sweep.loss == loss]
        best = cells.loc[cells.selection_nll.idxmin()]
        assert own.iloc[0].lr == best.lr
        assert best.selected
        assert cells.selected.sum() == own.selected.sum() == 1
        assert len(own) <= tiny_study().refine.max_runs
        assert (own.tokens == 6 * 2 * 16).all()


def test_a_loss_whose_outputs_are_logits_is_refined_by_a_fitted_temperature(refined):
    by = dict(refined.groupby("loss").reading.unique().map(list))
    assert by["cross_entropy"] == ["tempered"]
    assert by["mse"] == ["own"]
    own = refined[refined.loss == "cross_entropy"]
    assert (own.selection_nll <= own.validation_nll + 1e-6).all()


def test_a_diverged_cell_has_its_iteration_and_no_nll(sweep):
    diverged = sweep[sweep.loss == "brier"]
    assert (diverged.status == "diverged").all()
    assert (diverged.diverged_at == 0).all()
    columns = ["train_loss", "train_nll", "validation_nll", "validation_ppl"]
    assert diverged[columns].isna().all(axis=None)
    assert sweep[sweep.loss != "brier"][columns].notna().all(axis=None)


def test_the_selected_run_is_the_best_on_validation(refined, finished, tiny_study):
    chosen = selected_hyperparameters(tiny_study(), finished / "results")
    for loss in ("cross_entropy", "mse"):
        own = refined[refined.loss == loss]
        best = own.loc[own.selection_nll.idxmin()]
        assert chosen[loss] == {key: best[key] for key in CELL}
        assert best.selected


def test_a_loss_that_diverged_everywhere_goes_on_at_its_smallest_rate(sweep, refined, finished):
    chosen = storage.read_sealed(finished / "results" / "selected.json")["losses"]["brier"]
    assert chosen["lr"] == refined[refined.loss == "brier"].lr.min() < 0.001
    assert (chosen["diverged"], chosen["max_runs_reached"]) == (3, True)
    assert chosen["validation_nll"] is chosen["selection_nll"] is None
    assert sweep[sweep.loss == "brier"].selected.tolist() == [True, False, False]


def rewrite(path, changes: dict) -> None:
    storage.write_sealed(path, storage.read_sealed(path) | changes)


def test_runs_that_the_rule_would_not_have_tried_are_refused(copy, tiny_study):
    """Selection repeats the refinement, starting from the sweep."""
    study, checkpoints = tiny_study(), copy / "checkpoints"
    cells = [c for c in study.sweep_cells() if c.loss == "cross_entropy"]
    nll = [storage.read_sealed(checkpoints / c.name / "run.json")["validation_nll"] for c in cells]
    other = cells[max(range(len(nll)), key=nll.__getitem__)]
    rewrite(checkpoints / other.name / "run.json", {"validation_nll": 0.1})
    said = r"refine\.json: is not what the study's sweep and parameters lead to"
    with pytest.raises(SquentropyError, match=said):
        select(study, checkpoints, copy / "results")


def test_refined_runs_of_other_parameters_are_refused(copy, tiny_study):
    study = tiny_study(refine={"max_iters": 5})
    with pytest.raises(
        SquentropyError, match=r"refine\.json: params\.schedule\.max_iters was 6, is 5"
    ):
        select(study, copy / "checkpoints", copy / "results")


def test_a_run_of_another_cell_is_refused(copy, tiny_study):
    one, other = (
        copy / "checkpoints" / c.name / "run.json" for c in tiny_study().sweep_cells()[:2]
    )
    shutil.copy(one, other)
    with pytest.raises(SquentropyError, match=f"{other}: cell.lr was"):
        select(tiny_study(), copy / "checkpoints", copy / "results")


def test_a_missing_run_is_named(copy, tiny_study):
    path = copy / "checkpoints" / tiny_study().sweep_cells()[0].name / "run.json"
    path.unlink()
    with pytest.raises(SquentropyError, match=f"{path}: does not exist"):
        select(tiny_study(), copy / "checkpoints", copy / "results")


@pytest.fixture
def command(whole_study, tiny_study, capsys):
    """command(*words): exit code, stdout and stderr of a command in the finished study."""
    (whole_study / "params.yaml").write_text(tiny_study().dump())

    def command(*words: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            app.main([*words, "--tokens", "data/tiny/tokens"])
        said = capsys.readouterr()
        return end.value.code or 0, said.out, said.err

    return command


def contents(folder) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("step", ["refine", "lengths"])
def test_a_finished_step_again_trains_nothing_and_leaves_the_same_bytes(command, whole_study, step):
    before = contents(whole_study / "checkpoints")
    code, out, _ = command(step, "checkpoints/tiny", "--loss", "mse")
    assert code == 0
    runs = list(Path("checkpoints/tiny", step, "mse").glob("**/run.json"))
    assert out.count("already there") == len(runs) > 0
    assert contents(whole_study / "checkpoints") == before


@pytest.mark.parametrize("step", ["refine", "lengths"])
def test_a_loss_outside_the_grid_is_named(command, step):
    code, _, err = command(step, "checkpoints/tiny", "--loss", "z_loss")
    assert code != 0
    assert err == "squentropy: --loss z_loss: is not in the grid of tiny\n"


def test_refining_goes_on_from_the_runs_that_are_there(command, whole_study):
    """As after a kill: finished runs are kept, and the result is byte-identical."""
    folder = whole_study / "checkpoints/tiny/refine/mse"
    before = contents(folder)
    (folder / "refine.json").unlink()
    last = sorted(folder.glob("*/run.json"))[-1]
    last.unlink()
    code, out, _ = command("refine", "checkpoints/tiny", "--loss", "mse")
    assert code == 0
    assert out.count(" iterations, validation") == 1
    after = contents(folder)
    assert {k: v for k, v in after.items() if "provenance" not in k} == {
        k: v for k, v in before.items() if "provenance" not in k
    }


def test_shorter_runs_wait_for_the_tuning(command, whole_study):
    path = whole_study / "checkpoints/tiny/refine/mse/refine.json"
    path.unlink()
    code, _, err = command("lengths", "checkpoints/tiny", "--loss", "mse")
    assert code != 0
    assert "checkpoints/tiny/refine/mse/refine.json: does not exist" in err
