"""The grid's table, and each loss's best cell.

    squentropy select checkpoints/grammar results/grammar       writes sweep.csv, selected.json

A loss that has an inverse link is selected by the validation nll that its outputs give when read
by it: their softmax is nearly flat and hardly tells the cells apart.
"""

import math
from pathlib import Path

from squentropy import storage
from squentropy.outcomes import ppl, read_outcomes, runs_sha256, write_csv
from squentropy.params import Cell, Study
from squentropy.records import chosen_for

SWEEP = [
    "loss", "lr", "dropout", "n_layer", "seed", "status", "iterations", "diverged_at",
    "train_loss", "train_nll", "validation_nll", "validation_ppl",
    "validation_link_nll", "validation_accuracy", "parameters", "selected",
]  # fmt: skip


def select(study: Study, checkpoints: Path, results: Path) -> dict:
    """Write sweep.csv and selected.json: each loss with the cell of lowest validation nll.

    `selected_by` is the reading whose nll that is. A loss whose every cell diverged is selected at
    its smallest learning rate, so that its final runs show the same.
    """
    runs = read_outcomes(study, checkpoints, study.sweep_cells())
    selected = {}
    for loss in study.sweep.losses:
        cells = [cell for cell in runs if cell.loss == loss]
        ok = [cell for cell in cells if runs[cell]["status"] == "ok"]
        linked = any(runs[cell]["validation_link_nll"] is not None for cell in ok)
        nll = "validation_link_nll" if linked else "validation_nll"
        best = (
            min(ok, key=lambda cell: math.inf if runs[cell][nll] is None else runs[cell][nll])
            if ok
            else min(cells, key=lambda cell: (cell.lr, cell.dropout, cell.n_layer))
        )
        selected[loss] = {
            "lr": best.lr,
            "dropout": best.dropout,
            "n_layer": best.n_layer,
            "selected_by": "inverse_link" if linked else "softmax",
            "validation_nll": runs[best]["validation_nll"],
            "validation_link_nll": runs[best]["validation_link_nll"],
            "edge": _edges(study, best),
            "diverged": len(cells) - len(ok),
        }
    rows = []
    for cell, run in runs.items():
        chosen = selected[cell.loss]
        rows.append(
            {key: run[key] for key in SWEEP if key in run}
            | {key: getattr(cell, key) for key in ("loss", "lr", "dropout", "n_layer", "seed")}
            | {
                "validation_ppl": ppl(run["validation_nll"]),
                "selected": all(
                    getattr(cell, key) == chosen[key] for key in ("lr", "dropout", "n_layer")
                ),
            }
        )
    write_csv(results / "sweep.csv", rows, SWEEP)
    held = {
        "sweep_sha256": storage.sha256(results / "sweep.csv"),
        "runs_sha256": runs_sha256(checkpoints, runs),
        "losses": selected,
    }
    storage.write_sealed(results / "selected.json", held)
    return selected


def _edges(study: Study, cell: Cell) -> list[str]:
    """The hyperparameters whose selected value is the least or greatest of their grid."""
    grids = {name: getattr(study.sweep, name) for name in ("lr", "dropout", "n_layer")}
    return [
        name
        for name, grid in grids.items()
        if len(grid) > 1 and getattr(cell, name) in (min(grid), max(grid))
    ]


def selected_hyperparameters(study: Study, results: Path) -> dict[str, dict]:
    """{loss: {lr, dropout, n_layer}} from selected.json. Raises SquentropyError if one lacks."""
    return {loss: chosen_for(loss, results / "selected.json") for loss in study.sweep.losses}
