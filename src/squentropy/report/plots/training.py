"""Learning curves of the final runs, and the grid."""

import math
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from squentropy.report.format import DASH, number, plain
from squentropy.report.plots.style import INK, SOFT, WIDTH, entropies, look, mean_curve
from squentropy.report.read import Results, label
from squentropy.study.params import BASELINE


def learning_curves(r: Results) -> Figure:
    """Train and validation nll by iteration, one panel per loss; seeds as bands.

    The history records nll under a loss's own link, or under plain softmax if it has none.
    """
    final = r.history[r.history["phase"] == "final"]
    columns = 1 if len(r.losses) == 1 else 2 if len(r.losses) in (2, 4) else 3
    rows = math.ceil(len(r.losses) / columns)
    fig = Figure(figsize=(WIDTH, 0.9 + 1.75 * rows), layout="constrained")
    axes = fig.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    reference = mean_curve(final, BASELINE, "validation_nll")
    for ax, loss in zip(axes.flat, r.losses, strict=False):
        colour, _, _ = look(loss, r.losses)
        ax.set_title(label(loss), color=colour, fontweight="bold")
        for nll, _ in entropies(r):
            ax.axhline(nll, color=SOFT, lw=0.9, ls=(0, (4, 2)))
        notes = ["own link"] if loss in r.linked else []
        if gone := r.metrics.at[loss, "diverged"]:
            runs = gone + r.metrics.at[loss, "n_seeds"]
            notes.append(f"{gone:.0f} of {runs:.0f} diverged")
        ax.set_title("\n".join(notes), loc="right", color=SOFT, fontsize=8)
        if loss != BASELINE and len(reference):
            ax.plot(reference.index, reference, color="#aaaaaa", lw=1.1)
        for measure, style in (("train_nll", (0, (2, 1.2))), ("validation_nll", "-")):
            grouped = final[final["loss"] == loss].groupby("iteration")[measure]
            mean = grouped.mean()
            ax.fill_between(
                mean.index, grouped.min(), grouped.max(), color=colour, alpha=0.18, lw=0
            )
            ax.plot(mean.index, mean, color=colour, ls=style, lw=1.5)
    for ax in axes.flat[len(r.losses) :]:
        ax.set_visible(False)
    for ax in axes[:, 0]:
        ax.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    for column in range(columns):
        lowest = max(i for i in range(rows) if i * columns + column < len(r.losses))
        axes[lowest, column].tick_params(labelbottom=True)
        axes[lowest, column].xaxis.set_major_locator(
            MaxNLocator(4, integer=True, steps=[1, 2, 5, 10])
        )
    for nll, name in entropies(r):
        left = name.startswith("source")  # falling curves leave room at lower left and upper right
        axes[0, 0].text(0.03 if left else 0.98, nll, name, va="bottom", color=SOFT, fontsize=7,
                        ha="left" if left else "right",
                        transform=axes[0, 0].get_yaxis_transform())  # fmt: skip
    fig.supxlabel("iteration", fontsize=9)
    fig.supylabel("nll, nats per token", fontsize=9)
    handles = [Line2D([], [], color=INK, ls="-"), Line2D([], [], color=INK, ls=(0, (2, 1.2)))]
    texts = ["validation", "train"]
    if len(reference) and len(r.losses) > 1:
        handles.append(Line2D([], [], color="#aaaaaa"))
        texts.append("cross entropy's validation")
    fig.legend(handles, texts, loc="outside upper right", ncols=3)
    return fig


def grid(r: Results) -> Figure:
    """Validation perplexity of every cell: one panel per loss, learning rate by dropout and layers.

    In the reading by which a loss's cells are compared.
    """
    sweep = r.study.sweep
    columns = [(dropout, layers) for dropout in sweep.dropout for layers in sweep.n_layer]
    height = len(r.losses) * (0.3 * len(sweep.lr) + 0.28) + 0.95
    fig = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = fig.subplots(len(r.losses), 1, sharex=True, squeeze=False)[:, 0]
    shown = r.sweep["selection_nll"]
    values = shown.replace(math.inf, math.nan).dropna()
    uniform = math.log(r.corpus["vocab_size"])  # cells worse than this share one colour
    span = (values.min(), min(values.max(), uniform)) if len(values) else (0.0, 1.0)
    rows = r.sweep.assign(nll=shown).sort_values("nll", ascending=False, na_position="first")
    cells = {  # with more grid keys than axes, show the best of the cells that share a position
        (row.loss, row.lr, row.dropout, row.n_layer): row for row in rows.itertuples(index=False)
    }
    for ax, loss in zip(axes, r.losses, strict=True):
        ax.set_title(label(loss), color=look(loss, r.losses)[0], fontweight="bold", pad=4)
        if loss in r.linked:
            ax.set_title("read by its own link", loc="right", color=SOFT, fontsize=8, pad=4)
        ax.grid(visible=False)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        for y, lr in enumerate(sweep.lr):
            for x, (dropout, layers) in enumerate(columns):
                _cell(ax, x, y, cells.get((loss, lr, dropout, layers)), span)
        ax.set(xlim=(-0.56, len(columns) - 0.44), ylim=(len(sweep.lr) - 0.4, -0.6))
        ax.set_yticks(range(len(sweep.lr)), [f"lr {plain(lr)}" for lr in sweep.lr], fontsize=8)
    per = len(sweep.n_layer)
    axes[-1].set_xticks(range(len(columns)), [f"{layers}" for _, layers in columns], fontsize=8)
    axes[-1].set_xlabel(
        "layers\n\n"
        "number: validation perplexity, darker is lower; framed: the best cell; hatched: diverged",
        fontsize=8,
    )
    top = axes[0].secondary_xaxis("top")
    top.set_xticks(
        [i * per + (per - 1) / 2 for i in range(len(sweep.dropout))],
        [f"dropout {dropout:g}" for dropout in sweep.dropout],
        fontsize=8,
    )
    top.tick_params(length=0, pad=0)
    top.spines[:].set_visible(False)
    return fig


def _cell(ax: Axes, x: int, y: int, row: Any, span: tuple[float, float]) -> None:
    """One cell, coloured by its position in the range of nll of the whole grid.

    row  of sweep.csv as a named tuple; None if the cell has not run
    """
    low, high = span

    def square(**how: Any) -> None:
        ax.add_patch(Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, **how))

    if row is None or pd.isna(row.nll):
        diverged = row is not None and row.status == "diverged"
        square(fc="#f4f4f4", ec="none", hatch="////")
        text, ink, size = ("diverged" if diverged else DASH), SOFT, 6.5
    else:
        share = (high - row.nll) / (high - low) if high > low else 1.0
        colour = matplotlib.colormaps["Blues"](0.08 + 0.82 * float(np.clip(share, 0, 1)))
        square(fc=colour, ec="none")
        text, size = number(math.exp(min(row.nll, 700))), 8
        ink = "white" if share > 0.55 else INK
    box = {"fc": "#f4f4f4", "ec": "none", "pad": 1} if text == "diverged" else None
    ax.text(x, y, text, ha="center", va="center", color=ink, fontsize=size, bbox=box)
    if row is not None and row.selected and pd.notna(row.nll):
        square(fill=False, ec="#D55E00", lw=2.2, zorder=3)
