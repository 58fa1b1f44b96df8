"""The sweep: a grid of the original study's shape, with short cells."""

from squentropy.report.format import count, integer, plain
from squentropy.report.markup import Html, paragraphs
from squentropy.report.read import Results
from squentropy.report.sections.pieces import names


def sentence(r: Results) -> Html:
    """A description of the grid and its diverged cells."""
    cells = len(r.sweep) // max(1, r.sweep["loss"].nunique())
    text = (
        f"Each loss first ran a grid of the original study’s shape, {count(cells, 'cell')} of "
        f"{integer(r.study.sweep.max_iters)} iterations. Refining began at its best cell."
    )
    gone = r.sweep[r.sweep["status"] == "diverged"]
    if len(gone):
        rates = ", ".join(
            f"{n} at learning rate {plain(lr)}" for lr, n in gone.groupby("lr").size().items()
        )
        text += f" {len(gone)} of {len(r.sweep)} cells diverged: {rates}."
    else:
        text += " No cell diverged."
    lost = [loss for loss in r.losses if r.selected[loss]["diverged"] == cells]
    if lost:
        text += f" Every cell of {names(lost)} diverged."
    return paragraphs(text)
