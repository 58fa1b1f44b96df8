"""Each loss's cell is the best of its grid on validation, and the grid's table shows why.

pytest tests/test_selection.py
"""

import shutil

import numpy as np
import pandas as pd
import pytest

from squentropy import storage
from squentropy.errors import SquentropyError
from squentropy.selection import SWEEP, select, selected_hyperparameters

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
    by = {"cross_entropy": "validation_nll", "mse": "validation_link_nll"}
    for loss, column in by.items():
        own = sweep[sweep.loss == loss]
        best = own.loc[own[column].idxmin()]
        assert chosen[loss] == {key: best[key] for key in CELL}
        assert own.selected.sum() == 1
        assert best.selected


def test_a_loss_that_diverged_everywhere_goes_on_at_its_smallest_rate(sweep, finished):
    chosen = storage.read_sealed(finished / "results" / "selected.json")["losses"]["brier"]
    assert (chosen["lr"], chosen["diverged"]) == (0.001, 3)
    assert chosen["validation_nll"] is chosen["validation_link_nll"] is None
    assert sweep[sweep.loss == "brier"].selected.tolist() == [True, False, False]


@pytest.fixture
def selected(copy, tiny_study):
    """selected(loss, values): what is selected where the cells' run.json say these values."""
    study, checkpoints = tiny_study(), copy / "checkpoints"

    def selected(loss: str, values: list[dict]) -> dict:
        cells = [cell for cell in study.sweep_cells() if cell.loss == loss]
        for cell, changes in zip(cells, values, strict=True):
            path = checkpoints / cell.name / "run.json"
            storage.write_sealed(path, storage.read_sealed(path) | changes)
        return select(study, checkpoints, copy / "results")[loss]

    return selected


def test_a_best_value_at_the_edge_of_its_grid_is_flagged(selected):
    """Grids of one value have no edge."""
    for best, (lr, edge) in enumerate([(0.001, ["lr"]), (0.01, []), (0.02, ["lr"])]):
        values = [{"validation_nll": 5.0 - (i == best)} for i in range(3)]
        chosen = selected("cross_entropy", values)
        assert (chosen["lr"], chosen["edge"]) == (lr, edge)


def test_a_loss_with_an_inverse_link_is_selected_by_it(selected):
    values = [(5.0, 6.0), (5.1, 4.0), (5.2, 7.0)]
    names = ("validation_nll", "validation_link_nll")
    chosen = selected("mse", [dict(zip(names, v)) for v in values])
    assert (chosen["lr"], chosen["selected_by"]) == (0.01, "inverse_link")
    assert [chosen[name] for name in names] == [5.1, 4.0]
    diverged = {"status": "diverged"} | dict.fromkeys(names)
    chosen = selected("mse", [diverged, diverged, dict(zip(names, values[2]))])
    assert (chosen["lr"], chosen["selected_by"]) == (0.02, "inverse_link")
    assert selected("cross_entropy", [{}] * 3)["selected_by"] == "softmax"


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
