"""The distance between squentropy's optimum and the true distribution."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from squentropy.report.format import number
from squentropy.report.plots.style import INK, SOFT, WIDTH, look, spread
from squentropy.report.read import Results, label

CONTEXTS = {"bigram": "one token of context", "whole": "the whole story before"}
"""The kinds of contexts in theory.csv, with their titles."""
GAP = "difference"  # the column of metrics.csv
LEAST = 1e-4
"""Lower limit of the axis, in nats per token."""


def improperness(r: Results) -> Figure:
    """The nll that each form of squentropy loses at its optimum, by vocabulary size."""
    kinds = [kind for kind in CONTEXTS if kind in set(r.theory["contexts"])]
    fig = Figure(figsize=(WIDTH if len(kinds) > 1 else 0.7 * WIDTH, 3.9), layout="constrained")
    axes = fig.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    forms = list(dict.fromkeys(r.theory["loss"]))
    known = list(dict.fromkeys([*r.losses, *forms]))
    measured = [loss for loss in forms if loss in r.compared and r.metrics.at[loss, GAP] > 0]
    own = r.corpus["vocab_size"]
    for ax, kind in zip(axes, kinds, strict=True):
        ax.set_title(CONTEXTS[kind])
        ax.axvline(own, color=SOFT, lw=1, ls=(0, (4, 2)), zorder=1.5)
        rows = r.theory[r.theory["contexts"] == kind]
        for loss in forms:
            colour, marker, style = look(loss, known)
            line = rows[rows["loss"] == loss]
            low = line["kl_low"].clip(lower=LEAST / 2)
            ax.fill_between(line["classes"], low, line["kl_high"], color=colour, alpha=0.18, lw=0)
            ax.plot(
                line["classes"], line["kl"], color=colour, marker=marker, ls=style, lw=1.3,
                ms=5, mec="white", mew=0.5,
            )  # fmt: skip
        for i, loss in enumerate(measured, 1):
            colour, marker, _ = look(loss, known)
            gap = r.metrics.loc[loss, [f"{GAP}{end}" for end in ("", "_low", "_high")]]
            ax.errorbar(
                own * 0.75**i, gap.iloc[0], yerr=spread(*gap), fmt=marker, color=colour,
                mfc="white", ms=6.5,
            )  # fmt: skip
        _axes(ax, rows["classes"].unique())
    axes[0].set_ylim(LEAST, 1.6 * r.theory[["kl", "kl_high"]].max(axis=None))
    axes[0].set_ylabel("nll lost at the optimum, nats per token, log scale")
    axes[0].annotate(
        "this study", (own, LEAST), (4, 4), textcoords="offset points", color=SOFT, fontsize=8
    )
    handles, texts = [], []
    for loss in forms:
        colour, marker, style = look(loss, known)
        handles.append(Line2D([], [], color=colour, marker=marker, ls=style, lw=1.3, mec="white"))
        texts.append(label(loss))
    if measured:
        handles.append(Line2D([], [], ls="", marker="o", mfc="white", mec=SOFT, ms=6.5))
        texts.append(f"measured: nll − cross entropy’s, {r.confidence} interval")
    fig.legend(handles, texts, loc="outside lower center", ncols=2)
    return fig


def dose(r: Results) -> Figure:
    """Measured gap and predicted floor by the multiplier of the square term: one panel per form."""
    families = r.doses or {"": {}}
    fig = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    axes = fig.subplots(1, len(families), sharey=True, squeeze=False)[0]
    for ax, (function, family) in zip(axes, families.items(), strict=True):
        if not family:
            ax.set(xticks=[], yticks=[])
            ax.text(0.5, 0.5, "no two doses to compare", transform=ax.transAxes, ha="center",
                    va="center", color=SOFT, style="italic")  # fmt: skip
            continue
        _dose(ax, r, function, family)
    axes[0].set_ylabel("nll − cross entropy’s, nats per token")
    if r.doses:
        handles, texts = axes[0].get_legend_handles_labels()
        fig.legend(handles, texts, loc="outside lower center", ncols=2)
    return fig


def _dose(ax: Axes, r: Results, function: str, family: dict[str, float]) -> None:
    rows = r.theory[
        (r.theory["classes"] == r.corpus["vocab_size"])
        & (r.theory["loss"].str.partition("(")[0] == function)
    ]
    for kind, style in zip(CONTEXTS, ("-", (0, (4, 1.5))), strict=True):
        line = rows[rows["contexts"] == kind].sort_values("weight")
        if len(line):
            ax.plot(line["weight"], line["kl"], color=SOFT, ls=style, lw=1.3,
                    label=f"floor, {CONTEXTS[kind]}")  # fmt: skip
    primary = [(weight, r.metrics.loc[loss]) for loss, weight in family.items()]
    rows_of = ((weight, r.read_as(loss, "softmax")) for loss, weight in family.items())
    plain = [(weight, row) for weight, row in rows_of if row is not None]
    for which, points, aside, fill in (
        ("primary reading", primary, 1.0, INK),
        ("plain softmax", plain, 1.06, "white"),
    ):
        gaps = np.array(
            [[row[f"{GAP}{end}"] for end in ("", "_low", "_high")] for _, row in points]
        )
        if len(gaps):
            ax.errorbar(
                [aside * weight for weight, _ in points], gaps[:, 0],
                yerr=np.nan_to_num([gaps[:, 0] - gaps[:, 1], gaps[:, 2] - gaps[:, 0]]).clip(min=0),
                fmt="o", color=INK, mfc=fill, ms=6, capsize=2.5,
                label=f"measured, {which}, {r.confidence} interval",
            )  # fmt: skip
    ax.axhline(0, color=INK, lw=0.8)
    ax.set(xscale="log", xlabel="multiplier λ of the square term, log scale")
    ax.set_title(label(function))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.xaxis.set_minor_locator(NullLocator())


def _axes(ax: Axes, classes: list[int]) -> None:
    ticks = [classes[0]]
    for size in classes:
        if size >= 4 * ticks[-1]:
            ticks.append(size)
    ax.set(xscale="log", yscale="log", xlabel="classes in the vocabulary, log scale")
    ax.set_xticks(ticks)
    ax.tick_params(axis="x", labelsize=8)
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: number(x)))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
