"""Test perplexity, differences to cross entropy, and accuracy."""

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from squentropy.report.format import number, p_text, signed
from squentropy.report.plots.style import (
    INK,
    SOFT,
    WIDTH,
    diverged_row,
    entropies,
    estimate,
    headings,
    log_axis,
    look,
    loss_rows,
    note,
    spread,
)
from squentropy.report.read import Results, label
from squentropy.results import intervals
from squentropy.study.params import BASELINE


def perplexity(r: Results) -> Figure:
    """Test perplexity by loss: interval, mean, and each seed as a dot."""
    fig, ax = loss_rows(r.ranked)
    optima: list[float] = []
    for y, loss in enumerate(r.ranked):
        row = r.metrics.loc[loss]
        if loss not in r.scored:
            diverged_row(ax, y)
            continue
        ppl = np.exp(r.by_seed(loss)["nll"])
        estimate(ax, r, loss, y, of="ppl")
        if len(ppl) > 1:
            ax.plot(ppl, np.full(len(ppl), y + 0.27), "|", color=INK, ms=6, mew=1)
        optimum = r.optimum(loss)
        if optimum is not None:
            colour, _, _ = look(loss, r.losses)
            ax.plot(math.exp(optimum), y, "|", color=colour, ms=16, mew=2.2)
            optima.append(math.exp(optimum))
        note(ax, y, number(row["ppl"]))
    floors = [(math.exp(nll), name) for nll, name in entropies(r)]
    for x, _ in floors:
        ax.axvline(x, color=SOFT, lw=1, ls=(0, (4, 2)), zorder=0)
    log_axis(ax, [*optima, *(x for x, _ in floors)])
    headings(ax, [(x, name.replace(" ", "\n", 1)) for x, name in floors])
    note(ax, -0.8, "perplexity", weight="bold")
    seeds = "; ticks below: single seeds" if len(r.study.final.seeds) > 1 else ""
    ax.set_xlabel(
        "test perplexity in the primary reading, log scale (less is better)\n"
        f"bars: {r.confidence} intervals{seeds}"
        + ("\nthick tick: the loss’s own optimum for the grammar, by softmax" if optima else "")
    )
    return fig


def differences(r: Results) -> Figure:
    """Forest plot: each loss's test nll minus cross entropy's, paired by story and seed."""
    compared = [x for x in r.ranked if x != BASELINE]
    fig, ax = loss_rows(compared)
    rows = r.metrics.loc[compared]
    for y, loss in enumerate(compared):
        row = rows.loc[loss]
        if pd.isna(row["difference"]):
            diverged_row(ax, y, "diverged" if loss not in r.scored else "no common seed")
            continue
        estimate(ax, r, loss, y, of="difference")
        note(ax, y, signed(row["difference"]))
        if r.adequacy.enough and pd.notna(row["p_value"]):
            p = p_text(row["p_value"], r.study.plan.smallest_p)
            note(ax, y, p.removeprefix("= "), right=58)
    ends = rows[["difference", "difference_low", "difference_high"]].abs().to_numpy().ravel()
    ends = ends[np.isfinite(ends) & (ends > 0)]
    scale = ""
    if len(ends) and ends.max() > 20 * ends.min():
        # shows both hundredths of a nat and several nats
        linear = 10.0 ** math.floor(math.log10(max(np.quantile(ends, 0.3), ends.max() / 1000)))
        ax.set_xscale("symlog", linthresh=linear, linscale=0.8)
        _symlog_ticks(ax, linear)
        scale = f" (linear within ±{linear:g}, then log)"
    ax.set_xlabel(
        f"test nll minus cross entropy's, nats per token{scale}\n"
        f"bars: {r.confidence} intervals, paired by story and seed"
        + ("; p corrected by Holm" if r.adequacy.enough else "")
    )
    if not len(ends):
        ax.set_xticks([])
        return fig
    ax.axvline(0, color=INK, lw=1)
    headings(ax, [(0, "← better than  \ncross entropy  "), (0, "  worse than →\n  cross entropy")],
              align=["right", "left"])  # fmt: skip
    note(ax, -0.85, "difference", weight="bold")
    if r.adequacy.enough:
        note(ax, -0.85, "p", right=58, weight="bold")
    return fig


def accuracy(r: Results) -> Figure:
    """Top-1 accuracy against perplexity: good ranks of tokens do not imply good probabilities."""
    fig = Figure(figsize=(WIDTH, 4.0), layout="constrained")
    ax = fig.add_subplot()
    evaluate = r.study.evaluate
    for loss in r.scored:
        colour, marker, _ = look(loss, r.losses)
        row, correct = r.metrics.loc[loss], r.by_story(loss, "correct")
        share = intervals.mean_nll(
            correct.to_numpy(),
            r.by_story(loss, "tokens").iloc[0].to_numpy(),
            resamples=evaluate.bootstrap,
            confidence=evaluate.confidence,
            seed=evaluate.bootstrap_seed,
        )
        x = row["ppl"]
        ax.errorbar(
            x, 100 * share.estimate, fmt=marker, color=colour, ms=7, mec="white", mew=0.6,
            xerr=spread(x, row["ppl_low"], row["ppl_high"]),
            yerr=100 * spread(share.estimate, share.low, share.high), elinewidth=1.2,
            label=label(loss),
        )  # fmt: skip
    if r.scored:
        log_axis(ax)
        handles, texts = ax.get_legend_handles_labels()
        fig.legend(handles, texts, loc="outside right upper", handletextpad=0.4)
    else:
        ax.set(xticks=[], yticks=[])
        ax.text(0.5, 0.5, "every final run diverged", transform=ax.transAxes, ha="center",
                va="center", color=SOFT, style="italic")  # fmt: skip
    ax.set_xlabel(f"test perplexity, log scale (less is better)\nbars: {r.confidence} intervals")
    ax.set_ylabel("top-1 accuracy, % of test tokens")
    return fig


def _symlog_ticks(ax: Axes, linear: float) -> None:
    low, high = ax.get_xlim()
    powers = [linear * 10.0**i for i in range(12)]
    ticks = [-x for x in powers if -x >= low * 1.02] + [0] + [x for x in powers if x <= high * 1.02]
    ax.set_xticks(ticks, [f"{x:g}".replace("-", "−") for x in ticks])
    ax.minorticks_off()
