"""nll against training tokens and against the learning rate."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from squentropy.report.format import plain, short
from squentropy.report.plots.style import INK, SOFT, WIDTH, look, plain_log_ticks, spread
from squentropy.report.read import NGRAMS, Results, label
from squentropy.study.grid import GRID_KEYS

SHOWN = (2, 3, 4)  # orders of the n-gram models that are drawn


def lengths(r: Results) -> Figure:
    """Test nll against training tokens, and above the exact entropy: one line per loss."""
    source = r.corpus["source_nll"]
    columns = 1 if source is None else 2
    fig = Figure(figsize=(WIDTH, 4.1), layout="constrained")
    axes = fig.subplots(1, columns, squeeze=False)[0]
    if not r.scored:
        for ax in axes:
            _empty(ax)
        return fig
    titles = ("test nll, nats per token", "the same above the exact entropy")
    for ax, column, title in zip(axes, ("nll", "excess"), titles, strict=False):
        for i, loss in enumerate(r.scored):
            aside = 1.012 ** (i - (len(r.scored) - 1) / 2)
            _length_curve(ax, r, loss, column, aside)
        ax.set_title(title)
        ax.set_xlabel("training tokens, log scale")
        _token_axis(ax, sorted(r.lengths["tokens"].unique()))
    _yardsticks(axes[0], r)
    if source is not None:
        axes[1].set_yscale("log")
        plain_log_ticks(axes[1].yaxis)
    _legend(fig, r, f"bars at full length: {r.confidence} intervals")
    return fig


def _length_curve(ax: Axes, r: Results, loss: str, column: str, aside: float) -> None:
    """One dot per run, a line through their means, an interval at full length.

    Losses that overlap at full length are shifted by `aside` there, a factor of the tokens.
    """
    colour, marker, style = look(loss, r.losses)
    rows = r.lengths[r.lengths["loss"] == loss]
    mean = rows.groupby("tokens")[column].mean()
    ax.plot(mean.index, mean, color=colour, ls=style, lw=1.5)
    shorter = rows[rows["tokens"] < rows["tokens"].max()]
    ax.plot(shorter["tokens"], shorter[column], marker, color=colour, ms=4.5, mec="white", mew=0.5)
    value, low, high = r.metrics.loc[loss, [f"{column}{end}" for end in ("", "_low", "_high")]]
    ax.errorbar(
        mean.index[-1] * aside, value, yerr=spread(value, low, high), fmt=marker, color=colour,
        ms=6, mec="white", mew=0.6, elinewidth=1.2, capsize=2.5, capthick=1.2, zorder=3,
    )  # fmt: skip


def _yardsticks(ax: Axes, r: Results) -> None:
    """n-gram models and the source's entropy as dashed lines, labelled at the left."""
    lines = [(name, r.ngrams[n]) for name, n in NGRAMS.items() if n in SHOWN and n in r.ngrams]
    source = r.corpus["source_nll"]
    if source is not None:
        lines.append(("exact entropy", source))
    low, high = ax.get_ylim()
    ends = [nll for _, nll in lines]
    least = min([low, *ends])
    if source is not None:
        least -= 0.02 * (high - low)
    ax.set_ylim(least, max([high, *ends]) + 0.04 * (high - low))
    room = 0.045 * (ax.get_ylim()[1] - ax.get_ylim()[0])
    below = -np.inf
    for name, nll in sorted(lines, key=lambda line: line[1]):
        ax.axhline(nll, color=SOFT, lw=0.9, ls=(0, (4, 2)), zorder=1.5)
        y = max(nll, below + room)  # labels of lines that nearly meet are stacked
        ax.text(0.015, y, name, transform=ax.get_yaxis_transform(), ha="left", va="bottom",
                fontsize=7.5, color=SOFT)  # fmt: skip
        below = y


def _token_axis(ax: Axes, tokens: Sequence[int]) -> None:
    """Ticks at the trained lengths."""
    ax.set_xscale("log")
    room = max(1.15, (tokens[-1] / tokens[0]) ** 0.1)
    ax.set_xlim(tokens[0] / room**2.2, tokens[-1] * room)  # room for the yardsticks' labels
    ax.xaxis.set_major_locator(FixedLocator(_apart(tokens, 1.3)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short(x)))


def _apart(values: Sequence[float], factor: float) -> list[float]:
    """Ascending values, without those less than a factor above the previous one."""
    kept = [values[0]]
    for value in values[1:]:
        if value >= factor * kept[-1]:
            kept.append(value)
    return kept


def _legend(fig: Figure, r: Results, title: str) -> None:
    handles, texts = [], []
    for loss in r.ranked:
        colour, marker, style = look(loss, r.losses)
        handles.append(Line2D([], [], color=colour, marker=marker, ls=style, lw=1.5, ms=5,
                              mec="white", mew=0.5))  # fmt: skip
        texts.append(label(loss) + ("" if loss in r.scored else " (diverged)"))
    fig.legend(handles, texts, title=title, title_fontsize=8.5, loc="outside lower center", ncols=3)


def _empty(ax: Axes) -> None:
    ax.set(xticks=[], yticks=[])
    ax.text(0.5, 0.5, "every final run diverged", transform=ax.transAxes, ha="center", va="center",
            color=SOFT, style="italic")  # fmt: skip


def learning_rates(r: Results) -> Figure:
    """Validation nll against learning rate, one line per loss; the selected rate is ringed."""
    fig = Figure(figsize=(WIDTH, 4.1), layout="constrained")
    ax = fig.add_subplot()
    for loss in r.losses:
        _rate_curve(ax, r, loss)
    rates = r.refine["lr"]
    ax.set_xscale("log")
    ax.set_xlim(rates.min() / 1.3, rates.max() * 1.3)
    ax.xaxis.set_major_locator(FixedLocator(_apart(sorted(rates.unique()), 1.6)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: plain(float(f"{x:.3g}"))))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set_xlabel("learning rate, log scale")
    ax.set_ylabel("validation nll, nats per token")
    handles, texts = [], []
    for loss in r.losses:
        colour, marker, style = look(loss, r.losses)
        handles.append(Line2D([], [], color=colour, marker=marker, ls=style, lw=1.5, ms=5,
                              mec="white", mew=0.5))  # fmt: skip
        texts.append(label(loss))
    handles.append(Line2D([], [], ls="", marker="o", mfc="none", mec=INK, mew=1.1, ms=10))
    texts.append("selected")
    if (r.refine["status"] == "diverged").any():
        handles.append(Line2D([], [], ls="", marker="x", color=SOFT, ms=6))
        texts.append("diverged")
    fig.legend(handles, texts, loc="outside lower center", ncols=3)
    return fig


def _rate_curve(ax: Axes, r: Results, loss: str) -> None:
    """The refining runs at the dropout and depth selected for a loss."""
    chosen, rows = r.selected[loss], r.refine[r.refine["loss"] == loss]
    for key in GRID_KEYS[1:]:
        rows = rows[rows[key] == chosen[key]]  # type: ignore[literal-required]
    rows = rows.sort_values("lr")
    colour, marker, style = look(loss, r.losses)
    ok = rows[np.isfinite(rows["selection_nll"])]
    ax.plot(ok["lr"], ok["selection_nll"], marker, color=colour, ls=style, lw=1.5, ms=5,
            mec="white", mew=0.5)  # fmt: skip
    best: pd.DataFrame = ok[ok["selected"]]
    ax.plot(best["lr"], best["selection_nll"], "o", mfc="none", mec=INK, mew=1.1, ms=10)
    for lr in rows["lr"][rows["status"] == "diverged"]:
        ax.plot(lr, 0.97, "x", color=colour, ms=6, transform=ax.get_xaxis_transform())
