"""The grid: the hyperparameters that are tuned for each loss, and a run as one of its points.

To tune another hyperparameter, add it to `Point`, `Grid` and `Cell` here, use `cell.KEY` where it
takes effect, and list its values in the parameters under `sweep`. Folders, tables, tuning and
commands follow.
"""

import itertools
from dataclasses import dataclass
from typing import Any

from squentropy.study.catalogue import slug
from squentropy.study.kinds import Dropout, Layers, Rate, Section, Values
from squentropy.study.layout import ROW, RUNS


class Point(Section):
    """One value of each tuned hyperparameter."""

    lr: Rate
    dropout: Dropout
    n_layer: Layers


class Grid(Section):
    """The values that the sweep tries, for each tuned hyperparameter."""

    lr: Values[Rate]
    dropout: Values[Dropout]
    n_layer: Values[Layers]

    def points(self) -> list[dict[str, Any]]:
        """Every combination, in the order of the parameters."""
        values = [getattr(self, key) for key in GRID_KEYS]
        return [dict(zip(GRID_KEYS, point)) for point in itertools.product(*values)]


GRID_KEYS = tuple(Point.model_fields)
"""The learning rate comes first: it defines a row of the grid and has its own rule in tuning."""

NAMES = {"lr": "learning rate", "n_layer": "layers"}
"""The names of grid keys in tables and folders, if not the key itself."""


@dataclass(frozen=True, order=True)
class Cell:
    """One run: its phase, loss, hyperparameters and seed.

    `iterations` is set only for the phase "lengths"; the other phases have one length each.
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
        """Its point in the grid, by `GRID_KEYS`."""
        return {key: getattr(self, key) for key in GRID_KEYS}


def point_name(point: dict[str, Any]) -> str:
    """A point's folder in its row, without the learning rate: dropout0.1_layers2."""
    return "_".join(f"{NAMES.get(key, key)}{point[key]!r}" for key in GRID_KEYS[1:])
