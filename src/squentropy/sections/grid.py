"""The grid, and what was selected."""

from pathlib import Path

from squentropy.markup import DASH, Html, integer, listed, number, paragraphs, plain, table
from squentropy.results import Results
from squentropy.sections.figure import figure
from squentropy.sections.pieces import loss_name, names, ppl


def selected_table(r: Results) -> Html:
    """The selected cell of each loss, edges of the grid and diverged cells."""
    cells = len(r.sweep) // max(1, r.sweep["loss"].nunique())
    rows = []
    for loss in r.losses:
        chosen = r.selected[loss]
        gone, nll = chosen["diverged"], chosen["validation_nll"]
        at = {key: plain(chosen[key]) for key in ("lr", "dropout", "n_layer")}
        at = {key: f"{text} ←" if key in chosen["edge"] else text for key, text in at.items()}
        if gone == cells:
            at = dict.fromkeys(at, DASH)
        rows.append([
            loss_name(loss), *at.values(), DASH if nll is None else number(ppl(nll)),
            f"{gone} of {cells}",
        ])  # fmt: skip
    head = ["loss", "learning rate", "dropout", "layers", "validation perplexity", "diverged cells"]
    return table(head, rows, caption="The cell of lowest validation nll of each loss.")


def grid_sentence(r: Results) -> Html:
    """Edges and diverged cells in words."""
    words = {"lr": "learning rate", "dropout": "dropout", "n_layer": "number of layers"}
    cells = len(r.sweep) // max(1, r.sweep["loss"].nunique())
    alive = [loss for loss in r.losses if r.selected[loss]["diverged"] < cells]
    sentences = []
    for key, word in words.items():
        at_edge = [loss for loss in alive if key in r.selected[loss]["edge"]]
        whose = "every loss" if at_edge == alive else names(at_edge)
        sentences += [f"the {word} of {whose}"] if at_edge else []
    text = (
        f"An arrow (←) marks a selected value at the edge of its grid: {listed(sentences)}. There "
        "the best value may lie outside."
        if sentences
        else "No selected value lies at the edge of its grid."
    )
    gone = r.sweep[r.sweep["status"] == "diverged"]
    if len(gone):
        rates = ", ".join(
            f"{n} at learning rate {plain(lr)}" for lr, n in gone.groupby("lr").size().items()
        )
        text += f" {len(gone)} of {len(r.sweep)} cells diverged: {rates}."
    else:
        text += " No cell diverged."
    lost = [loss for loss in r.losses if loss not in alive]
    if lost:
        text += f" Every cell of {names(lost)} diverged."
    return paragraphs(text)


def grid_figure(r: Results, folder: str | Path) -> Html:
    """The grid."""
    return figure(
        folder,
        "grid",
        "Heat maps: validation perplexity of every cell of the grid, a panel a loss",
        f"The grid after {integer(r.study.sweep.max_iters)} iterations a cell.",
    )
