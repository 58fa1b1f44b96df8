"""Export finished runs to TensorBoard, or to Weights & Biases.

    squentropy tensorboard checkpoints/grammar/final/*/*                into events/
    squentropy wandb checkpoints/grammar/final/mse/seed1                into ./wandb, offline
    WANDB_MODE=online squentropy wandb checkpoints/grammar/final/*/*    to WANDB_API_KEY's account

`wandb sync` uploads offline runs to Weights & Biases. For unfinished runs, see tracking.py.
"""

import csv
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.base.kinds import RunRecord
from squentropy.runs import records
from squentropy.tools import tracking

OUTCOME = ("status", "train_loss", "train_nll", "validation_nll", "validation_accuracy")


def log(folders: list[Path], project: str) -> Iterator[tuple[Path, str]]:
    """Log the cell, the parameters, the history by iteration and the outcome of each run.

    Yields each run with its wandb folder, or with its URL if it was uploaded. Raises
    SquentropyError if wandb is not installed, or if a folder contains no run.
    """
    try:
        import wandb
    except ImportError:
        raise SquentropyError("wandb: is not installed; `pip install wandb`") from None
    os.environ.setdefault("WANDB_MODE", "offline")
    os.environ.setdefault("WANDB_SILENT", "true")
    for folder in folders:
        run, history = _read(folder)
        cell = run["cell"]
        name = "{phase}/{loss}/lr{lr}_dropout{dropout}_layers{n_layer}_seed{seed}".format(**cell)
        config = {"cell": cell, **run["params"], "parameters": run["parameters"]}
        with wandb.init(project=project, name=name, group=cell["loss"], config=config) as logged:
            for step, values in history.items():
                logged.log(values, step=step)
            logged.summary.update(_outcome(run))
            place = logged.url or os.path.relpath(Path(logged.dir).parent)
        yield folder, place


def write_events(folders: list[Path], out: Path) -> list[Path]:
    """Write each run for TensorBoard into a folder with its name in `out`, replacing older events.

    Writes the history by iteration, and the cell and the outcome as hyperparameters and metrics.
    Returns the folders written. Raises SquentropyError if TensorBoard is not installed, or if a
    folder contains no run.
    """
    SummaryWriter = tracking.summary_writer()
    written = []
    for folder in folders:
        run, history = _read(folder)
        place = out / _name(folder)
        tracking.forget(place)
        outcome = {key: v for key, v in _outcome(run).items() if key != "status" and v is not None}
        with SummaryWriter(place) as writer:
            for step, values in history.items():
                for key, value in values.items():
                    writer.add_scalar(key, value, step)
            cell = {"layers" if key == "n_layer" else key: v for key, v in run["cell"].items()}
            metrics = {f"outcome/{key}": value for key, value in outcome.items()}
            writer.add_hparams(cell | {"status": run["status"]}, metrics, run_name=".")
        written.append(place)
    return written


def _outcome(run: Mapping[str, object]) -> dict[str, object]:
    return {key: run[key] for key in OUTCOME}


def _read(folder: Path) -> tuple[RunRecord, dict[int, dict[str, float]]]:
    """The contents of run.json, and the history's values by iteration."""
    run = records.read_run(folder)
    path = storage.verified(folder / "history.csv", run["history_sha256"])
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return run, {
        int(row.pop("iteration")): {key: float(value) for key, value in row.items()} for row in rows
    }


def _name(folder: Path) -> Path:
    """The path below `checkpoints`, as in tracking.py; for other folders, their own name."""
    parts = folder.resolve().parts
    if "checkpoints" in parts:
        return Path(*parts[len(parts) - parts[::-1].index("checkpoints") :])
    return Path(folder.resolve().name)
