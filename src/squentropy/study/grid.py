"""The grid: which hyperparameters are tuned for each loss, and a run as a point of it.

To tune another one, add it to `Point`, `Grid` and `Cell`, here, and use `cell.KEY` where it acts;
its values stand in the parameters, under `sweep`. Folders, tables, tuning and commands follow.
"""

import itertools
from dataclasses import dataclass
from typing import Any

from squentropy.study.catalogue import slug
from squentropy.study.kinds import Dropout, Layers, Rate, Section, Values
from squentropy.study.layout import ROW, RUNS


class Point(Section):
    """The hyperparameters that are tuned, with one value each."""

    lr: Rate
    dropout: Dropout
    n_layer: Layers


class Grid(Section):
    """The same with the values that the sweep tries."""

    lr: Values[Rate]
    dropout: Values[Dropout]
    n_layer: Values[Layers]

    def points(self) -> list[dict[str, Any]]:
        """Every combination, in the order of the parameters."""
        values = [getattr(self, key) for key in GRID_KEYS]
        return [dict(zip(GRID_KEYS, point)) for point in itertools.product(*values)]


GRID_KEYS = tuple(Point.model_fields)
"""The learning rate first, which has a row of the grid and a rule of its own in tuning."""

NAMES = {"lr": "learning rate", "n_layer": "layers"}
"""What a grid key is called in tables and folders, unless by its own name."""


@dataclass(frozen=True, order=True)
class Cell:
    """One run: which phase it belongs to and what it trains.

    `iterations` is given for the phase "lengths" alone; the others have one length each.
    """

    phase: str
    loss: str
    lr: float
    dropout: float
    n_layer: int
    seed: int
    iterations: int | None = None

    @property
    def name(self) -> str:
        """The run's folder below checkpoints/STUDY."""
        return self._in(RUNS[self.phase])

    @property
    def row(self) -> str:
        """The folder of the cell's row of the grid."""
        return self._in(ROW)

    def _in(self, layout: str) -> str:
        point = point_name(self.point)
        return layout.format(**vars(self) | {"loss": slug(self.loss), "point": point})

    @property
    def point(self) -> dict[str, Any]:
        """Its place in the grid, by `GRID_KEYS`."""
        return {key: getattr(self, key) for key in GRID_KEYS}


def point_name(point: dict[str, Any]) -> str:
    """A point's folder in its row: all but the learning rate, as dropout0.1_layers2."""
    return "_".join(f"{NAMES.get(key, key)}{point[key]!r}" for key in GRID_KEYS[1:])
