"""Finished runs for Weights & Biases, as the seed study logged them; off unless asked.

    squentropy wandb checkpoints/grammar/final/mse/seed1                into ./wandb, offline
    WANDB_MODE=online squentropy wandb checkpoints/grammar/final/*/*    to WANDB_API_KEY's account

What is kept offline is sent by `wandb sync`.
"""

import csv
import os
from pathlib import Path

from squentropy import records, storage
from squentropy.errors import SquentropyError

OUTCOME = ("status", "train_loss", "train_nll", "validation_nll", "validation_accuracy")


def log(folders: list[Path], project: str) -> None:
    """Log each run: its cell and parameters, its history by iteration, its outcome.

    Raises SquentropyError where wandb is not installed, or a folder holds no run.
    """
    try:
        import wandb
    except ImportError:
        raise SquentropyError("wandb: is not installed; `pip install wandb`") from None
    os.environ.setdefault("WANDB_MODE", "offline")
    os.environ.setdefault("WANDB_SILENT", "true")
    for folder in folders:
        run = records.read_run(folder)
        history = storage.verified(folder / "history.csv", run["history_sha256"])
        cell = run["cell"]
        name = "{phase}/{loss}/lr{lr}_dropout{dropout}_layers{n_layer}_seed{seed}".format(**cell)
        config = {"cell": cell, **run["params"], "parameters": run["parameters"]}
        with (
            wandb.init(project=project, name=name, group=cell["loss"], config=config) as logged,
            history.open(encoding="utf-8") as file,
        ):
            for row in csv.DictReader(file):
                step = int(row.pop("iteration"))
                logged.log({key: float(value) for key, value in row.items()}, step=step)
            logged.summary.update({key: run[key] for key in OUTCOME})
