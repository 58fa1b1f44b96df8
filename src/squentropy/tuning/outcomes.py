"""Read the outcomes of runs and write tables."""

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.base.kinds import Row, RunRecord
from squentropy.runs.records import made_from, origin_of
from squentropy.study.grid import Cell
from squentropy.study.params import Study


def read_outcomes(study: Study, checkpoints: Path, cells: Iterable[Cell]) -> dict[Cell, RunRecord]:
    """Each cell's run.json, in order.

    Raises SquentropyError if one belongs to another cell, was trained with other parameters or code
    than the study's, or was trained on other tokens than the rest.
    """
    runs: dict[Cell, RunRecord]
    tokens: dict[str, Path]
    runs, tokens = {}, {}
    for cell in cells:
        path = checkpoints / cell.name / "run.json"
        runs[cell] = made_from(path, origin_of(study, cell))
        tokens[runs[cell]["tokens_sha256"]] = path
    if len(tokens) > 1:
        raise SquentropyError(
            f"{' and '.join(map(str, tokens.values()))}: were trained on different tokens; run the "
            "study again"
        )
    return runs


def runs_sha256(checkpoints: Path, cells: Iterable[Cell], files: Iterable[Path] = ()) -> str:
    """One hash over the cells' run.json files and other files, in order."""
    paths = [*(checkpoints / cell.name / "run.json" for cell in cells), *files]
    return hashlib.sha256("".join(map(storage.sha256, paths)).encode()).hexdigest()


def write_csv(path: Path, rows: Iterable[Row], columns: list[str]) -> None:
    """Write a CSV file with numbers that read back exactly, regardless of the locale."""
    table = pd.DataFrame(list(rows), columns=columns)
    storage.write_text(path, table.to_csv(index=False))


def ppl(nll: float | None) -> float | None:
    """Perplexity: exp of the nll in nats per token; infinite if too large for a float."""
    if nll is None:
        return None
    return math.inf if nll >= 700 else math.exp(nll)
