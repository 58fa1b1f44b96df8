"""Helpers shared by several sections."""

from collections.abc import Iterable

from squentropy.report.format import count, listed
from squentropy.report.markup import escape
from squentropy.report.read import Results, label

TEST_STORIES = "test stories"  # name of a row of quality.csv that is not a loss


def loss_name(loss: str) -> str:
    """A loss's label in HTML; "test stories" is kept."""
    return escape(loss if loss == TEST_STORIES else label(loss))


def names(losses: Iterable[str]) -> str:
    return listed(loss_name(loss) for loss in losses)


def reading_name(reading: str) -> str:
    """A reading's display name, as "own link"."""
    return {"own": "own link"}.get(reading, reading)


def about_seeds(r: Results) -> str:
    """How the number of seeds limits the intervals."""
    n = r.metrics["n_seeds"]
    if len(r.study.final.seeds) == 1:
        return (
            "One seed was trained. The intervals reflect only the choice of test stories; "
            "how much another seed would change is unknown."
        )
    text = f"{count(len(r.study.final.seeds), 'seed')} were trained per loss."
    if len(r.study.final.seeds) < 10:
        text += (
            " That is few for judging how results vary from seed to seed, and the intervals are "
            "accordingly wide."
        )
    if (n == 1).any():
        text += (
            f" Only one seed of {names(n.index[n == 1])} finished, so that interval reflects "
            "stories only."
        )
    return text
