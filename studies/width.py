"""Learning rate by width: does a squared loss lack large stable learning rates?

    python studies/width.py data/grammar/tokens checkpoints/width results/width.csv

Haas et al. 2025 (arXiv 2505.22491): under the standard parametrisation cross entropy has large
learning rates that are stable and learn features, and MSE has none; under muP the gap vanishes.
Trains short runs of each loss at each learning rate, three widths and both parametrisations, which
are one at the width of the default study; one seed each. Writes one row per run.
"""

import csv
import itertools
import math
import sys
from collections.abc import Iterator
from pathlib import Path

from squentropy.runs.records import read_run
from squentropy.study import params
from squentropy.study.overlays import overlay
from squentropy.study.params import Study
from squentropy.tokens.token_files import TokenFolder
from squentropy.training.run import train_run
from squentropy.training.stacked import train_stacks, worthwhile

ROOT = Path(__file__).resolve().parents[1]
WIDTHS = (64, 128, 256)
PARAMETRIZATIONS = ("standard", "mup")
HEAD = 32  # width of a head, whatever the model's
CHANGES = {
    "train": {"compile": "never", "runs_per_gpu": 64},
    "sweep": {
        "losses": ["cross_entropy", "squentropy", "brier", "mse_weighted"],
        "lr": [0.00025 * 2**k for k in range(11)],
        "dropout": [0.0],
        "n_layer": [2],
        "max_iters": 800,
        "warmup_iters": 68,
        "eval_interval": 800,
        "eval_stories": 60,
    },
}
COLUMNS = ("parametrization", "width", "loss", "lr", "status", "validation_nll", "tempered_nll")


def study_of(width: int, parametrization: str) -> Study:
    model = {"n_embd": width, "n_head": width // HEAD, "parametrization": parametrization}
    given = params.load([ROOT / "params.yaml"]).model_dump()
    name = {"study": f"width-{width}-{parametrization}"}
    return params.parse(overlay(given, CHANGES | name | {"model": model}))


def train(width: int, parametrization: str, tokens: Path, checkpoints: Path) -> None:
    """Train what is not there yet."""
    study, folder = study_of(width, parametrization), TokenFolder.open(tokens)
    out = checkpoints / study.study
    if worthwhile(study):
        for _ in train_stacks(study, study.sweep_cells(), folder, out, None):
            pass
        return
    for cell in study.sweep_cells():
        train_run(study, cell, folder, out / cell.name)


def rows(checkpoints: Path) -> Iterator[dict[str, object]]:
    """A run each; nll in nats per token, infinite where it diverged."""
    for parametrization, width in itertools.product(PARAMETRIZATIONS, WIDTHS):
        study = study_of(width, parametrization)
        for cell in study.sweep_cells():
            run = read_run(checkpoints / study.study / cell.name)
            nll = run["validation_nll"] if run["status"] == "ok" else math.inf
            tempered = run["validation_tempered_nll"] if run["status"] == "ok" else math.inf
            values = (parametrization, width, cell.loss, cell.lr, run["status"], nll, tempered)
            yield dict(zip(COLUMNS, values, strict=True))


def main(tokens: Path, checkpoints: Path, table: Path) -> None:
    for parametrization, width in itertools.product(PARAMETRIZATIONS, WIDTHS):
        train(width, parametrization, tokens, checkpoints)
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows(checkpoints))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
