"""The second phase of tuning: longer runs around each loss's best cell of the sweep.

    squentropy refine checkpoints/grammar --tokens data/grammar/tokens --loss mse

One rule for every loss, whose only inputs are its own validation nll:

1. Find the sweep's best cell. Among those of its learning rate that come within `refine.tie` nats
   per token of it, which such short cells cannot tell apart, start from the simplest: of least
   dropout, then of fewest layers.
2. Train the best learning rate's two neighbours, a factor `refine.factor` away, until the best one
   lies between two that were tried.
3. At that learning rate, try every other depth, dropout and so on with a sweep cell that comes
   within `refine.tie` of the best one. If one is better, step 2 is repeated from there.

It ends when nothing is left to try, or after `refine.max_runs` runs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from squentropy.study.grid import GRID_KEYS, Cell
from squentropy.study.params import Study

MOST = 10.0  # the largest learning rate that parameters may have


@dataclass(frozen=True)
class Refined:
    """What refining a loss came to.

    trials            validation nll of each run in the order of trying; inf if it diverged
    inside            whether the best learning rate's two neighbours were tried
    max_runs_reached  whether the runs ended before the rule did
    """

    best: Cell
    trials: dict[Cell, float]
    inside: bool
    max_runs_reached: bool

    @property
    def edge(self) -> list[str]:
        """The hyperparameters whose best value is at an end of several that were tried."""
        ends = []
        for key in GRID_KEYS:
            tried = {getattr(cell, key) for cell in self.trials}
            if len(tried) > 1 and getattr(self.best, key) in (min(tried), max(tried)):
                ends.append(key)
        return ends


def refine(study: Study, sweep: dict[Cell, float], nll_of: Callable[[Cell], float]) -> Refined:
    """Refine one loss.

    sweep   validation nll of each of its cells, inf if it diverged
    nll_of  trains a cell of the phase "refine", or reads its run; gives the same
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
    """The cell of least nll; among equals, as where all diverged, the gentlest one."""
    return min(trials, key=lambda cell: (trials[cell], *cell.point.values()))


def simplest(study: Study, sweep: dict[Cell, float]) -> Cell:
    """The cell to start from: see step 1."""
    best = best_of(sweep)
    limit = sweep[best] + study.refine.tie
    near = [cell for cell, nll in sweep.items() if cell.lr == best.lr and nll <= limit]
    return min(near, key=lambda cell: tuple(cell.point.values()))


def neighbours(study: Study, cell: Cell, start: float) -> list[Cell]:
    """The learning rates next to a cell's, below and above, with all else alike.

    Those tried are start x factor^k for whole k, so that different ways lead to the same number.
    """
    factor = study.refine.factor
    place = round(math.log(cell.lr / start) / math.log(factor))
    rates = [float(f"{start * factor ** (place + step):.6g}") for step in (-1, 1)]
    return [replace(cell, lr=rate) for rate in rates if rate <= MOST]


def tied(study: Study, sweep: dict[Cell, float]) -> list[tuple[str, float]]:
    """(key, value): depths, dropouts and the like that the sweep cannot tell from the best cell's.

    Its own among them, from which another may lead away, and back. Depth comes first: dropouts
    are then tried at the best depth alone.
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
    """The best cell with another of the tied values."""
    return [
        replace(best, **{key: value})  # type: ignore[arg-type]  # a key goes with its value
        for key, value in tied
        if value != getattr(best, key)
    ]
