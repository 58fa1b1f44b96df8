"""How far squentropy's optimum lies from the truth."""

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from squentropy.plots.pieces import SOFT, WIDTH, look, number, percent, spread
from squentropy.results import Results, label

CONTEXTS = {"bigram": "one token of context", "whole": "the whole story before"}
"""The kinds of contexts in theory.csv, and what they are called."""
LEAST = 1e-4
"""Nats a token below which nothing is shown."""


def improperness(r: Results) -> Figure:
    """Nll that each form of squentropy loses at its optimum, by size of the vocabulary."""
    kinds = [kind for kind in CONTEXTS if kind in set(r.theory["contexts"])]
    fig = Figure(figsize=(WIDTH if len(kinds) > 1 else 0.7 * WIDTH, 3.9), layout="constrained")
    axes = fig.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    names = list(dict.fromkeys(r.theory["loss"]))
    every = list(dict.fromkeys([*r.losses, *names]))  # so that a loss looks as in other figures
    measured = [name for name in names if name in r.losses and r.metrics.at[name, "difference"] > 0]
    own = r.corpus["vocab_size"]
    for ax, kind in zip(axes, kinds, strict=True):
        ax.set_title(CONTEXTS[kind])
        ax.axvline(own, color=SOFT, lw=1, ls=(0, (4, 2)), zorder=1.5)
        rows = r.theory[r.theory["contexts"] == kind]
        for name in names:
            colour, marker, style = look(name, every)
            line = rows[rows["loss"] == name]
            low = line["kl_low"].clip(lower=LEAST / 2)
            ax.fill_between(line["classes"], low, line["kl_high"], color=colour, alpha=0.18, lw=0)
            ax.plot(
                line["classes"], line["kl"], color=colour, marker=marker, ls=style, lw=1.3,
                ms=5, mec="white", mew=0.5,
            )  # fmt: skip
        for i, name in enumerate(measured, 1):
            colour, marker, _ = look(name, every)
            gap = r.metrics.loc[name, [f"difference{end}" for end in ("", "_low", "_high")]]
            ax.errorbar(
                own * 0.75**i, gap.iloc[0], yerr=spread(*gap), fmt=marker, color=colour,
                mfc="white", ms=6.5,
            )  # fmt: skip
        _axes(ax, rows["classes"].unique())
    axes[0].set_ylim(LEAST, 1.6 * r.theory[["kl", "kl_high"]].max(axis=None))
    axes[0].set_ylabel("nll lost at the optimum, nats a token, log scale")
    axes[0].annotate(
        "this study", (own, LEAST), (4, 4), textcoords="offset points", color=SOFT, fontsize=8
    )
    handles, texts = [], []
    for name in names:
        colour, marker, style = look(name, every)
        handles.append(Line2D([], [], color=colour, marker=marker, ls=style, lw=1.3, mec="white"))
        texts.append(label(name))
    if measured:
        handles.append(Line2D([], [], ls="", marker="o", mfc="white", mec=SOFT, ms=6.5))
        texts.append(f"measured: nll − cross entropy’s, {percent(r)} interval")
    fig.legend(handles, texts, loc="outside lower center", ncols=3)
    return fig


def _axes(ax, classes: list[int]) -> None:
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
