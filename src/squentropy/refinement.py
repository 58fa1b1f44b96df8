"""The second phase of tuning: longer runs around each loss's best cell of the sweep.

    squentropy refine checkpoints/grammar --tokens data/grammar/tokens --loss mse

One rule for every loss, whose only inputs are its own validation nll:

1. Start from the sweep's best cell.
2. At its dropout and depth, train the best learning rate's two neighbours, a factor
   `refine.factor` away, until the best one lies between two that were tried.
3. At that learning rate, try every other dropout and depth of the grid whose sweep cells come
   within `refine.tie` nats per token of the best one: the short cells cannot tell these apart.
   If one is better, go on from it with step 2.

It ends when nothing is left to try, or after `refine.max_runs` runs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from squentropy.params import Cell, Study

GRID_KEYS = ("lr", "dropout", "n_layer")


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
    start = best_of(sweep)
    others = tied(study, sweep, start)
    best = replace(start, phase="refine")
    while True:
        wanted = _wanted(study, trials, best, others)
        if wanted is None or len(trials) >= study.refine.max_runs:
            break
        trials[wanted] = nll_of(wanted)
        best = best_of(trials)
    inside = all(cell in trials for cell in neighbours(study, best))
    return Refined(best, trials, inside, wanted is not None)


def best_of(trials: dict[Cell, float]) -> Cell:
    """The cell of least nll; among equals, as where all diverged, the gentlest one."""
    return min(trials, key=lambda cell: (trials[cell], cell.lr, cell.dropout, cell.n_layer))


def neighbours(study: Study, cell: Cell) -> list[Cell]:
    """The learning rates next to a cell's, below and above, with all else alike."""
    factor = study.refine.factor
    rates = (cell.lr / factor, cell.lr * factor)
    # Rounded, so that a step up and a step down come back to the same number.
    return [
        replace(cell, lr=rate) for rate in (float(f"{rate:.6g}") for rate in rates) if rate <= 10
    ]


def tied(study: Study, sweep: dict[Cell, float], best: Cell) -> list[tuple[str, float]]:
    """(key, value): dropouts and depths that the sweep cannot tell from the best cell's."""
    found = []
    for key in ("dropout", "n_layer"):
        for value in getattr(study.sweep, key):
            nearest = min(nll for cell, nll in sweep.items() if getattr(cell, key) == value)
            if value != getattr(best, key) and nearest <= sweep[best] + study.refine.tie:
                found.append((key, value))
    return [] if math.isinf(sweep[best]) else found


def _wanted(
    study: Study, trials: dict[Cell, float], best: Cell, others: list[tuple[str, float]]
) -> Cell | None:
    """The next cell to try; None if the rule has come to its end."""
    values = {key: {getattr(best, key)} for key in ("dropout", "n_layer")}
    for key, value in others:
        values[key].add(value)
    alternatives = [
        replace(best, **{key: value})
        for key in values
        for value in sorted(values[key])
        if value != getattr(best, key)
    ]
    for cell in [best, *neighbours(study, best), *alternatives]:
        if cell not in trials:
            return cell
    return None
