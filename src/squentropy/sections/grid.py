"""The grid, and what was selected."""

import math
from pathlib import Path

import pandas as pd

from squentropy.markup import (
    DASH,
    Html,
    count,
    integer,
    listed,
    nats,
    number,
    paragraphs,
    plain,
    signed,
    table,
)
from squentropy.outcomes import ppl
from squentropy.params import BASELINE
from squentropy.results import Results
from squentropy.sections.figure import figure
from squentropy.sections.pieces import loss_name, names


def selected_table(r: Results) -> Html:
    """The selected cell of each loss, edges of the grid and diverged cells."""
    cells = len(r.sweep) // max(1, r.sweep["loss"].nunique())
    rows = []
    for loss in r.losses:
        chosen = r.selected[loss]
        gone, nll = chosen["diverged"], chosen[_nll_column(r, loss)]
        at = {key: plain(chosen[key]) for key in ("lr", "dropout", "n_layer")}
        at = {key: f"{text} ←" if key in chosen["edge"] else text for key, text in at.items()}
        if gone == cells:
            at = dict.fromkeys(at, DASH)
        perplexity = DASH if nll is None else number(ppl(nll))
        rows.append(
            [loss_name(loss), *at.values(), _reading(r, loss), perplexity, f"{gone} of {cells}"]
        )
    head = ["loss", "learning rate", "dropout", "layers", "selected by", "validation perplexity"]
    return table(
        [*head, "diverged cells"], rows, caption="The cell of lowest validation nll of each loss."
    )


def _nll_column(r: Results, loss: str) -> str:
    """The validation nll by which a loss's cell was selected."""
    linked = r.own_reading(loss) == "inverse_link"
    return "validation_link_nll" if linked else "validation_nll"


def _reading(r: Results, loss: str) -> str:
    return r.own_reading(loss).replace("_", " ")


def equal_table(r: Results) -> Html:
    """Every loss at cross entropy's selected cell of the grid; empty without two to compare."""
    nll = _at_baselines_cell(r)
    if BASELINE not in nll or len(nll) < 2:
        return Html()
    rows = [
        [loss_name(loss), _reading(r, loss), nats(nll.get(loss)),
         DASH if loss == BASELINE else signed(nll.get(loss, math.nan) - nll[BASELINE])]
        for loss in r.losses
    ]  # fmt: skip
    return table(["loss", "read by", "validation nll", "minus cross entropy’s"], rows, text=2)


def equal_sentence(r: Results) -> Html:
    """What becomes of the comparison where every loss has cross entropy's hyperparameters."""
    nll = _at_baselines_cell(r)
    if BASELINE not in nll or len(nll) < 2:
        return paragraphs("Without cross entropy and another loss there is nothing to compare.")
    chosen = r.selected[BASELINE]
    below = [loss for loss in nll if nll[loss] < nll[BASELINE]]
    return paragraphs(
        f"At cross entropy’s own cell (learning rate {plain(chosen['lr'])}, dropout "
        f"{plain(chosen['dropout'])}, {count(chosen['n_layer'], 'layer')}), after "
        f"{integer(r.study.sweep.max_iters)} iterations with one seed and so without an interval, "
        + (f"{names(below)} did better than it." if below else "no other loss did better.")
    )


def _at_baselines_cell(r: Results) -> dict[str, float]:
    """{loss: validation nll, nats a token} at cross entropy's cell, without what diverged."""
    chosen = r.sweep[(r.sweep["loss"] == BASELINE) & r.sweep["selected"]]
    rows = r.sweep.merge(chosen[["lr", "dropout", "n_layer"]])
    nll = {row["loss"]: row[_nll_column(r, row["loss"])] for _, row in rows.iterrows()}
    return {loss: value for loss, value in nll.items() if pd.notna(value)}


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
        f"The grid after {integer(r.study.sweep.max_iters)} iterations a cell, each loss read as "
        "it was selected.",
    )
