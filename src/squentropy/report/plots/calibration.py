"""Calibration, and nll by position, frequency and certainty."""

import math
from itertools import pairwise

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MultipleLocator

from squentropy.report.catalogue import FEWEST
from squentropy.report.format import integer
from squentropy.report.plots.style import INK, SOFT, WIDTH, look, plain_log_ticks
from squentropy.report.read import Results, label
from squentropy.study.params import BASELINE

_NAMES = {"softmax": "softmax", "tempered": "tempered", "own": "own link"}
_LINES = {"softmax": "-", "tempered": (0, (4, 1.5)), "own": (0, (1.5, 1.2))}
_SIZES = {"softmax": 5, "tempered": 2, "own": 5}  # of markers


def reliability(r: Results) -> Figure:
    """Accuracy by confidence, one panel per loss, one line per reading; seeds as bars."""
    columns = 1 if len(r.losses) == 1 else 2 if len(r.losses) in (2, 4) else 3
    rows = math.ceil(len(r.losses) / columns)
    fig = Figure(figsize=(WIDTH, 0.9 + 2.15 * rows), layout="constrained")
    axes = fig.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for ax, loss in zip(axes.flat, r.losses, strict=False):
        colour, marker, _ = look(loss, r.losses)
        ax.set_title(label(loss), color=colour, fontweight="bold")
        ax.plot([0, 100], [0, 100], color=SOFT, lw=0.9)
        errors = []
        for reading in r.readings_of(loss):
            _reliability_line(ax, r, loss, reading, colour, marker)
            error = r.read_as(loss, reading)
            if error is not None:
                errors.append(f"{_NAMES[reading]} {100 * error['ece']:.1f}")
        text = "ECE, %\n" + "\n".join(errors) if errors else "diverged"
        ax.text(0.04, 0.97, text, transform=ax.transAxes, ha="left", va="top", fontsize=7.5,
                color=INK if errors else SOFT, linespacing=1.3)  # fmt: skip
    for ax in axes.flat[len(r.losses) :]:
        ax.set_visible(False)
    for column in range(columns):
        lowest = max(i for i in range(rows) if i * columns + column < len(r.losses))
        axes[lowest, column].tick_params(labelbottom=True)
    axes[0, 0].set(xlim=(-3, 103), ylim=(-3, 103))
    for axis in (axes[0, 0].xaxis, axes[0, 0].yaxis):
        axis.set_major_locator(MultipleLocator(25))
    fig.supxlabel("confidence: probability of the most likely token, %", fontsize=9)
    fig.supylabel("accuracy: how often it is the true one, %", fontsize=9)
    _reading_legend(fig, [x for x in _NAMES if x in set(r.calibration["reading"])])
    return fig


def _reliability_line(
    ax: Axes, r: Results, loss: str, reading: str, colour: str, marker: str
) -> None:
    table = r.calibration
    rows = table[(table["loss"] == loss) & (table["reading"] == reading)]
    sums = rows.groupby("low")[["tokens", "correct", "confidence"]].sum()
    sums = sums[sums["tokens"] >= FEWEST]
    seeds = rows[(rows["tokens"] > 0) & rows["low"].isin(sums.index)]
    by_seed = (100 * seeds["correct"] / seeds["tokens"]).groupby(seeds["low"])
    x, y = 100 * sums["confidence"] / sums["tokens"], 100 * sums["correct"] / sums["tokens"]
    ax.vlines(x, by_seed.min(), by_seed.max(), color=colour, lw=1.2)
    ax.plot(
        x, y, marker, color=colour, ls=_LINES[reading], lw=1.2, ms=_SIZES[reading], mew=1,
        mfc="white" if reading == "own" else colour,
    )  # fmt: skip


def _reading_legend(fig: Figure, readings: list[str]) -> None:
    handles = [
        Line2D([], [], color=INK, ls=_LINES[x], lw=1.2, marker="o", ms=_SIZES[x],
               mfc="white" if x == "own" else INK)
        for x in readings
    ]  # fmt: skip
    fig.legend(handles, [_NAMES[x] for x in readings], loc="outside upper right", ncols=3)


def profile(r: Results) -> Figure:
    """nll by position and frequency, and its difference to cross entropy; seeds as bands."""
    compared = BASELINE in r.scored and len(r.scored) > 1
    rows = 2 if compared else 1
    fig = Figure(figsize=(WIDTH, 1.5 + 2.3 * rows), layout="constrained")
    axes = fig.subplots(rows, 2, sharex="col", sharey="row", squeeze=False)
    if not r.scored:
        return _nothing(fig)
    for column, by in enumerate(("position", "frequency")):
        for loss in r.scored:
            reading = r.reading(loss)
            curve = r.by_bin(loss, reading, by)
            _curve(axes[0, column], r, loss, curve)
            if compared and loss != BASELINE:
                gap = curve - r.by_bin(BASELINE, r.reading(BASELINE), by)
                _curve(axes[1, column], r, loss, gap)
        _doubling_axis(axes[:, column])
    axes[0, 0].set_title("by position in the story")
    axes[0, 1].set_title("by how frequent the token is in train")
    axes[-1, 0].set_xlabel("tokens before it in the story\n(bins: 0, 1, 2–3, 4–7, 8–15, …)")
    axes[-1, 1].set_xlabel("occurrences in a million tokens\n(bins: below 1, 1, 2–3, 4–7, …)")
    axes[0, 0].set_ylabel("test nll, nats per token")
    if compared:
        axes[1, 0].set_ylabel("minus cross entropy's\n(linear within ±1, then log)")
        _difference_axis(axes[1])
    looks = [look(loss, r.losses) for loss in r.ranked]
    handles = [
        Line2D([], [], color=colour, marker=marker, ls=style, ms=4.5)
        for colour, marker, style in looks
    ]
    texts = [label(loss) + ("" if loss in r.scored else " (diverged)") for loss in r.ranked]
    fig.legend(handles, texts, loc="outside upper center", ncols=4, fontsize=8)
    return fig


def _nothing(fig: Figure, why: str = "every final run diverged") -> Figure:
    for ax in fig.axes:
        ax.set(xticks=[], yticks=[])
        ax.text(0.5, 0.5, why, transform=ax.transAxes, ha="center", va="center", color=SOFT,
                style="italic")  # fmt: skip
    return fig


def certainty(r: Results) -> Figure:
    """KL divergence from the source's predictions, by their entropy; seeds as bands."""
    fig = Figure(figsize=(WIDTH, 3.4), layout="constrained")
    left, right = fig.subplots(1, 2, sharex=True)
    if not r.scored:
        return _nothing(fig)
    if r.certainty.empty:
        return _nothing(fig, "no test story could be compared")
    lows = pd.Index(sorted(r.certainty["low"].unique()))
    for loss in r.scored:
        kl, tokens = (r.by_certainty(loss, column) for column in ("kl", "tokens"))
        colour, marker, style = look(loss, r.losses)
        for ax, values in ((left, kl / tokens), (right, kl / tokens.sum())):
            x = lows.get_indexer(values.index)
            ax.fill_between(
                x, values.min(axis=1), values.max(axis=1), color=colour, alpha=0.18, lw=0
            )
            ax.plot(x, values.mean(axis=1), marker, color=colour, ls=style, lw=1.3, ms=4)
    left.set(yscale="log", title="mean of the bin", ylabel="KL divergence, nats per token")
    plain_log_ticks(left.yaxis)
    right.set(title="the bin’s part of the whole")
    right.set_ylim(bottom=0)
    names = [f"{low:g}–{high:g}" for low, high in pairwise(lows)] + [f"{lows[-1]:g} or more"]
    left.set_xticks(range(len(names)), names, rotation=30, ha="right")
    right.tick_params("x", rotation=30)
    fig.supxlabel("entropy of the grammar’s own prediction, nats", fontsize=9)
    handles = [
        Line2D([], [], color=colour, marker=marker, ls=style, ms=4.5)
        for colour, marker, style in (look(loss, r.losses) for loss in r.scored)
    ]
    fig.legend(handles, map(label, r.scored), loc="outside upper center", ncols=4, fontsize=8)
    return fig


def _curve(ax: Axes, r: Results, loss: str, nll: pd.DataFrame) -> None:
    nll = nll.dropna(how="all")
    colour, marker, style = look(loss, r.losses)
    x = _place(nll.index.to_numpy(dtype=float))
    ax.fill_between(x, nll.min(axis=1), nll.max(axis=1), color=colour, alpha=0.18, lw=0)
    ax.plot(x, nll.mean(axis=1), marker, color=colour, ls=style, lw=1.3, ms=4)


def _difference_axis(axes: np.ndarray) -> None:
    """A scale that shows both tenths of a nat and several nats."""
    ends = np.concatenate([ax.dataLim.intervaly for ax in axes])
    ends = 1.3 * ends[np.isfinite(ends)]
    low, high = ends.min(initial=-0.2), ends.max(initial=0.2)
    axes[0].set_yscale("symlog", linthresh=1, linscale=1.5)
    axes[0].set_ylim(low, high)
    ticks = [x for x in (-10, -3, -1, -0.5, 0, 0.5, 1, 3, 10) if low <= x <= high]
    axes[0].set_yticks(ticks, [f"{x:g}".replace("-", "−") for x in ticks])
    for ax in axes:
        ax.axhline(0, color=INK, lw=1)
        ax.minorticks_off()


def _place(low: np.ndarray) -> np.ndarray:
    """Axis coordinate of a bin: bins that double in size are one unit apart."""
    return np.where(low > 0, np.log2(np.maximum(low, 1)) + 1, 0)


def _doubling_axis(axes: np.ndarray) -> None:
    """Ticks at some of the bins, labelled with their lower edges."""
    ends = axes[0].dataLim.intervalx
    first, last = ends.astype(int) if np.isfinite(ends).all() else (0, 0)
    ticks = range(first, last + 1, math.ceil((last + 1 - first) / 7))
    axes[-1].set_xticks(ticks, [integer(2**x // 2) for x in ticks])
