"""What several sections say alike."""

from collections.abc import Iterable

from squentropy.report.format import count, listed
from squentropy.report.markup import escape
from squentropy.report.read import Results, label

TEST_STORIES = "test stories"  # what a row of quality.csv is of that is no loss's


def loss_name(loss: str) -> str:
    """A loss's label in HTML; the test stories' own name."""
    return escape(loss if loss == TEST_STORIES else label(loss))


def names(losses: Iterable[str]) -> str:
    return listed(loss_name(loss) for loss in losses)


def reading_name(reading: str) -> str:
    """A reading for a reader, as "own link"."""
    return {"own": "own link"}.get(reading, reading)


def about_seeds(r: Results) -> str:
    """What the intervals can and cannot speak of."""
    n = r.metrics["n_seeds"]
    if len(r.study.final.seeds) == 1:
        return (
            "One seed was trained. The intervals speak about the choice of test stories alone; "
            "how much another seed would change is not known."
        )
    text = f"{count(len(r.study.final.seeds), 'seed')} were trained per loss."
    if len(r.study.final.seeds) < 10:
        text += (
            " That is few for judging how results vary from seed to seed, and the intervals are "
            "as wide as that asks."
        )
    if (n == 1).any():
        text += (
            f" Only one seed of {names(n.index[n == 1])} finished, so there the interval speaks "
            "about stories alone."
        )
    return text
