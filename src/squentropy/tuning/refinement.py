"""The second phase of tuning: longer runs around each loss's best cell of the sweep.

    squentropy refine checkpoints/grammar --tokens data/grammar/tokens --loss mse

The same rule applies to every loss, and its only input is the loss's own validation nll:

1. Find the best cell of the sweep. Cells with the same learning rate count as tied if they are
   within `refine.tie` nats per token of it, because such short runs cannot distinguish them. Start
   from the simplest of these: the least dropout, then the fewest layers.
2. Train the two neighbours of the best learning rate, a factor `refine.factor` away, until the best
   one lies between two others that were tried.
3. At that learning rate, try every other depth, dropout and so on that has a sweep cell within
   `refine.tie` of the best one. If one is better, repeat step 2 from there.

The search ends when nothing is left to try, or after `refine.max_runs` runs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from squentropy.study.grid import GRID_KEYS, Cell
from squentropy.study.params import Study

MOST = 10.0  # the largest learning rate that the parameters allow


@dataclass(frozen=True)
class Refined:
    """The result of refining a loss.

    trials            validation nll of each run, in the order of training; inf if it diverged
    inside            whether both neighbours of the best learning rate were tried
    max_runs_reached  whether `refine.max_runs` ended the search
    """

    best: Cell
    trials: dict[Cell, float]
    inside: bool
    max_runs_reached: bool

    @property
    def edge(self) -> list[str]:
        """The hyperparameters whose best value is the smallest or largest of several tried."""
        ends = []
        for key in GRID_KEYS:
            tried = {getattr(cell, key) for cell in self.trials}
            if len(tried) > 1 and getattr(self.best, key) in (min(tried), max(tried)):
                ends.append(key)
        return ends


def refine(study: Study, sweep: dict[Cell, float], nll_of: Callable[[Cell], float]) -> Refined:
    """Refine one loss.

    sweep   validation nll of each of its cells; inf if it diverged
    nll_of  trains a cell of the phase "refine", or reads its run, and returns its validation nll
    """
    trials: dict[Cell, float] = {}
    start = simplest(study, sweep)
    others = tied(study, sweep)
    best = replace(start, phase="refine")
    while True:
        near = neighbours(study, best, start.lr)
        wanted = next((c for c in [best, *near, *_others(best, others)] if c not in trials), None)
        if wanted is None or len(trials) >= study.refine.max_runs:
            break
        trials[wanted] = nll_of(wanted)
        best = best_of(trials)
    inside = all(cell in trials for cell in neighbours(study, best, start.lr))
    return Refined(best, trials, inside, wanted is not None)


def best_of(trials: dict[Cell, float]) -> Cell:
    """The cell with the lowest nll; ties, as when all diverged, go to the smallest values."""
    return min(trials, key=lambda cell: (trials[cell], *cell.point.values()))


def simplest(study: Study, sweep: dict[Cell, float]) -> Cell:
    """The cell to start from; see step 1."""
    best = best_of(sweep)
    limit = sweep[best] + study.refine.tie
    near = [cell for cell, nll in sweep.items() if cell.lr == best.lr and nll <= limit]
    return min(near, key=lambda cell: tuple(cell.point.values()))


def neighbours(study: Study, cell: Cell, start: float) -> list[Cell]:
    """The cells with the next lower and higher learning rate, and all else equal.

    Learning rates are start x factor^k for integer k, so that different paths lead to equal values.
    """
    factor = study.refine.factor
    place = round(math.log(cell.lr / start) / math.log(factor))
    rates = [float(f"{start * factor ** (place + step):.6g}") for step in (-1, 1)]
    return [replace(cell, lr=rate) for rate in rates if rate <= MOST]


def tied(study: Study, sweep: dict[Cell, float]) -> list[tuple[str, float]]:
    """(key, value): depths, dropouts and so on that the sweep cannot distinguish from the best.

    Includes the best cell's own values, because the search may move away from them and back. Depth
    comes first: dropouts are then tried only at the best depth.
    """
    best = min(sweep.values())
    if math.isinf(best):
        return []
    found = []
    for key in reversed(GRID_KEYS[1:]):
        for value in getattr(study.sweep, key):
            nearest = min(nll for cell, nll in sweep.items() if getattr(cell, key) == value)
            if nearest <= best + study.refine.tie:
                found.append((key, value))
    return found


def _others(best: Cell, tied: list[tuple[str, float]]) -> list[Cell]:
    """The best cell with one value replaced: once for each other tied value."""
    return [
        replace(best, **{key: value})  # type: ignore[arg-type]  # each value has its key's type
        for key, value in tied
        if value != getattr(best, key)
    ]
