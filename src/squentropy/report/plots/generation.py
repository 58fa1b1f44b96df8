"""Quality of the sampled stories."""

import math

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from squentropy.report.plots.style import SOFT, WIDTH, look
from squentropy.report.read import Results, label

PANELS = {
    "sentences_in_form": "sentences in form, %",
    "form": "stories in form, %",
    "agreement": "references that agree, %",
    "valid": "accepted by the checker, %",
    "distinct_2": "distinct word pairs, %",
    "self_bleu": "self-BLEU, %",
    "repetition": "repeated 4-grams, %",
    "ended": "ended by themselves, %",
}
"""Columns of quality.csv, all fractions, with their titles; the first ones that the corpus has are
drawn."""

MOST_PANELS = 6


def quality(r: Results) -> Figure:
    """Measures of the sampled stories by temperature, one panel per measure, one line per loss."""
    panels = [name for name in PANELS if r.quality[name].notna().any()][:MOST_PANELS]
    rows = math.ceil(len(panels) / (3 if len(panels) > 4 else 2))
    fig = Figure(figsize=(WIDTH, 0.7 + 2.0 * rows), layout="constrained")
    axes = fig.subplots(rows, math.ceil(len(panels) / rows), sharex=True, squeeze=False)
    told = r.quality.dropna(subset="temperature")
    losses = [loss for loss in r.losses if loss in set(told["loss"])]
    for ax, name in zip(axes.flat, panels, strict=False):
        ax.set_title(PANELS[name], fontsize=8.5)
        for i, loss in enumerate(losses):
            colour, marker, line = look(loss, r.losses)
            own = told[told["loss"] == loss].sort_values("temperature")
            values = 100 * own[[name, f"{name}_low", f"{name}_high"]].to_numpy(dtype=float)
            aside = 0.012 * (i - (len(losses) - 1) / 2)  # so that intervals do not hide each other
            below, above = values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]
            ax.errorbar(
                own["temperature"] + aside, values[:, 0],
                yerr=np.nan_to_num(np.maximum([below, above], 0)), color=colour, marker=marker,
                ls=line, lw=1.1, ms=4.5, mec="white", mew=0.5, elinewidth=0.9,
            )  # fmt: skip
        for value in r.test_stories[[name]].dropna():
            ax.axhline(100 * value, color=SOFT, lw=1.2, ls=(0, (4, 2)), zorder=1.5)
    for ax in axes[-1]:
        ax.set_xlabel("temperature")
        ax.set_xticks(r.study.sample.temperatures)
    handles = [
        Line2D([], [], color=colour, marker=marker, ls=line, lw=1.1, ms=4.5, mec="white", mew=0.5)
        for colour, marker, line in (look(loss, r.losses) for loss in losses)
    ]
    handles.append(Line2D([], [], color=SOFT, lw=1.2, ls=(0, (4, 2))))
    texts = [*map(label, losses), "test stories"]
    bars = f"bars: {r.confidence} intervals"
    fig.legend(handles, texts, title=bars, title_fontsize=9, loc="outside lower center", ncols=3)
    return fig
