"""What the tables are made from and how they are written: runs' outcomes in, rows of text out."""

import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from squentropy import storage
from squentropy.errors import SquentropyError
from squentropy.params import Cell, Study
from squentropy.records import check_study, read_run


def read_outcomes(study: Study, checkpoints: Path, cells: Iterable[Cell]) -> dict[Cell, dict]:
    """Each cell's run.json, in order.

    Raises SquentropyError where one belongs to another cell, or was trained with other parameters
    than the study's or on other tokens than the rest.
    """
    runs, tokens = {}, {}
    for cell in cells:
        folder = checkpoints / cell.name
        run = read_run(folder)
        if Cell(**run["cell"]) != cell:
            raise SquentropyError(f"{folder}/run.json: is another cell's; delete it and run again")
        check_study(run, folder, study)
        tokens[run["tokens_sha256"]] = folder
        runs[cell] = run
    if len(tokens) > 1:
        raise SquentropyError(
            f"{' and '.join(map(str, tokens.values()))}: were trained on different tokens; run the "
            "study again"
        )
    return runs


def write_csv(path: Path, rows: Iterable[dict], columns: list[str]) -> None:
    """Ten significant digits, as text that does not depend on the machine's locale."""
    table = pd.DataFrame(list(rows), columns=columns)
    storage.write_text(path, table.to_csv(index=False, float_format="%.10g"))


def ppl(nll: float | None) -> float | None:
    """Perplexity, exp of nll in nats a token; infinite where it is beyond a float."""
    if nll is None:
        return None
    return math.exp(nll) if nll < 700 else math.inf
