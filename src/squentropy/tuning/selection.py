"""Select hyperparameters for each loss from the sweep and its refinement.

    squentropy select checkpoints/grammar results/grammar

writes sweep.csv, refine.csv and selected.json.

Hyperparameters are selected by the validation nll of the loss's primary reading (`Study.primary`).
In the sweep, softmax replaces `tempered`, because runs are too short for a temperature to matter.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.base.kinds import Row, RunRecord
from squentropy.runs import records
from squentropy.runs.records import chosen_for
from squentropy.study import digests
from squentropy.study.grid import GRID_KEYS, Cell
from squentropy.study.layout import refine_file
from squentropy.study.params import SELECTION_TABLES, Study
from squentropy.tuning.outcomes import ppl, read_outcomes, runs_sha256, write_csv
from squentropy.tuning.refinement import Refined, best_of, refine

RUN = ["loss", *GRID_KEYS, "seed", "status", "iterations"]
SWEEP = [
    *RUN, "diverged_at", "train_loss", "train_nll", "validation_nll", "validation_ppl",
    "reading", "selection_nll", "validation_accuracy", "parameters", "selected",
]  # fmt: skip
REFINE = [*RUN, "tokens", "reading", "validation_nll", "selection_nll", "selected"]


def refine_loss(
    study: Study, loss: str, checkpoints: Path, train: Callable[[Cell], RunRecord]
) -> Refined:
    """Refine one loss and write its runs and selected hyperparameters to `refine_file`.

    train  trains a cell, unless its run exists already, and returns its run.json
    """
    sweep = read_outcomes(study, checkpoints, [c for c in study.sweep_cells() if c.loss == loss])
    runs: dict[Cell, RunRecord] = {}

    def nll_of(cell: Cell) -> float:
        runs[cell] = train(cell)
        return selection_nll(study, runs[cell])

    found = refine(study, _nll_by_cell(study, sweep), nll_of)
    held = {
        "params": study.refine.model_dump(),
        "runs": list(runs.values()),
        "losses": {loss: _chosen(study, sweep, found, runs)},
    }
    storage.write_sealed(refine_file(checkpoints, loss), held)
    return found


def selection_nll(study: Study, run: RunRecord) -> float:
    """The validation nll used to select a run, in nats per token; inf if it diverged."""
    if run["status"] != "ok":
        return math.inf
    tempered = run["validation_tempered_nll"]
    by_temperature = tempered is not None and study.plan.reading == "tempered"
    return tempered if by_temperature else run["validation_nll"]  # type: ignore[return-value]  # ok


def select(study: Study, checkpoints: Path, results: Path) -> dict[str, dict[str, Any]]:
    """Write sweep.csv, refine.csv and selected.json. Returns the selection, by loss.

    Replays each loss's refinement from its runs, without training. Raises SquentropyError if it
    does not follow from the study's parameters, sweep and code.
    """
    sweep = read_outcomes(study, checkpoints, study.sweep_cells())
    selected: dict[str, dict[str, Any]]
    refined_rows: list[Row]
    selected, refined_rows = {}, []
    for loss in study.sweep.losses:
        own = {cell: run for cell, run in sweep.items() if cell.loss == loss}
        runs = read_refined(study, loss, checkpoints, own)
        found = _followed(study, own, runs, refine_file(checkpoints, loss))
        selected[loss] = _chosen(study, own, found, runs)
        refined_rows += [
            _run_row(study, cell, runs[cell]) | {"selected": cell == found.best}
            for cell in found.trials
        ]
    sweep_rows = [
        _run_row(study, cell, run) | {"selected": selected[cell.loss]["sweep"] == cell.point}
        for cell, run in sweep.items()
    ]
    write_csv(results / "sweep.csv", sweep_rows, SWEEP)
    write_csv(results / "refine.csv", refined_rows, REFINE)
    held = {
        "sha256": {name: storage.sha256(results / name) for name in SELECTION_TABLES[:-1]},
        "runs_sha256": tuning_sha256(study, checkpoints),
        "code": digests.by_module("selection"),
        "labels": digests.labels(study.sweep.losses),
        "losses": selected,
    }
    storage.write_sealed(results / "selected.json", held)
    return selected


def read_refined(
    study: Study, loss: str, checkpoints: Path, sweep: dict[Cell, RunRecord]
) -> dict[Cell, RunRecord]:
    """The refinement runs of a loss by cell, in the order of training.

    Raises SquentropyError if one was trained with other parameters, code or tokens.
    """
    path = refine_file(checkpoints, loss)
    runs = {}
    for run in storage.read_sealed(path)["runs"]:
        cell = Cell(**run["cell"])
        expected = records.origin_of(study, cell) | {
            key: next(iter(sweep.values()))[key] for key in ("tokens_sha256", "vocab_size")
        }
        records.check_origin(run, expected, path)
        runs[cell] = run
    return runs


def tuning_sha256(study: Study, checkpoints: Path) -> str:
    """One hash over all runs on which the selection is based."""
    refined = [refine_file(checkpoints, loss) for loss in study.sweep.losses]
    return runs_sha256(checkpoints, study.sweep_cells(), refined)


def selected_hyperparameters(study: Study, results: Path) -> dict[str, dict[str, Any]]:
    """{loss: point} from selected.json. Raises SquentropyError if one is missing."""
    return {loss: chosen_for(loss, results / "selected.json") for loss in study.sweep.losses}


def _nll_by_cell(study: Study, runs: dict[Cell, RunRecord]) -> dict[Cell, float]:
    return {cell: selection_nll(study, run) for cell, run in runs.items()}


def _followed(
    study: Study, sweep: dict[Cell, RunRecord], runs: dict[Cell, RunRecord], path: Path
) -> Refined:
    try:
        found = refine(
            study, _nll_by_cell(study, sweep), lambda cell: selection_nll(study, runs[cell])
        )
    except KeyError:
        found = None
    if found is None or list(found.trials) != list(runs):
        raise SquentropyError(
            f"{path}: is not what the study's sweep and parameters lead to; run the study again"
        )
    return found


def _chosen(
    study: Study, sweep: dict[Cell, RunRecord], found: Refined, runs: dict[Cell, RunRecord]
) -> dict[str, Any]:
    best, run = found.best, runs[found.best]
    nll = found.trials[best]
    start = best_of(_nll_by_cell(study, sweep))
    return {
        **best.point,
        "reading": study.primary(best.loss),
        "validation_nll": run["validation_nll"],
        "selection_nll": nll if math.isfinite(nll) else None,
        "inside": found.inside,
        "edge": found.edge,
        "runs": len(found.trials),
        "max_runs_reached": found.max_runs_reached,
        "diverged": sum(run["status"] != "ok" for run in sweep.values()),
        "sweep": start.point,
    }


def _run_row(study: Study, cell: Cell, run: RunRecord) -> Row:
    nll = selection_nll(study, run)
    tempered = run["validation_tempered_nll"] is not None
    reading = study.primary(cell.loss)
    return {
        **{key: run[key] for key in SWEEP if key in run},  # type: ignore[literal-required]  # columns
        "loss": cell.loss,
        **cell.point,
        "seed": cell.seed,
        "tokens": study.tokens_trained(cell.phase),
        "validation_ppl": ppl(run["validation_nll"]),
        "reading": "softmax" if reading == "tempered" and not tempered else reading,
        "selection_nll": nll if math.isfinite(nll) else None,
    }
