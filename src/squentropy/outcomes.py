"""What the tables are made from and how they are written: runs' outcomes in, rows of text out."""

import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from squentropy import storage
from squentropy.errors import SquentropyError
from squentropy.params import Cell


def read_outcome(checkpoints: Path, cell: Cell) -> dict:
    """A cell's run.json. Raises SquentropyError where it belongs to another cell."""
    folder = checkpoints / cell.name
    run = storage.read_json(folder / "run.json")
    if Cell(**run["cell"]) != cell:
        raise SquentropyError(f"{folder}/run.json: is another cell's; delete it and run again")
    return run


def write_csv(path: Path, rows: Iterable[dict], columns: list[str]) -> None:
    """Ten significant digits, as text that does not depend on the machine's locale."""
    table = pd.DataFrame(list(rows), columns=columns)
    storage.write_text(path, table.to_csv(index=False, float_format="%.10g"))


def ppl(nll: float | None) -> float | None:
    """Perplexity, exp of nll in nats a token; infinite where it is beyond a float."""
    if nll is None:
        return None
    return math.exp(nll) if nll < 700 else math.inf
