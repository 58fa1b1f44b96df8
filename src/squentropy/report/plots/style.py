"""One style for all figures, and the elements they share.

A loss has the same colour and marker everywhere, distinguishable in greyscale too. Every estimate
has its interval, and divergence is shown as such.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from squentropy.report.read import NGRAMS, Results, label
from squentropy.study.params import BASELINE

if TYPE_CHECKING:
    from matplotlib.typing import LineStyleType, RcKeyType

    Look = tuple[str, str, LineStyleType]

INK, SOFT, FAINT = "#222222", "#6b6b6b", "#d9d9d9"
STYLE: "dict[RcKeyType, Any]" = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#ececec",
    "grid.linewidth": 0.8,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "hatch.linewidth": 0.6,
    "hatch.color": "#b5b5b5",
    "svg.fonttype": "path",  # looks the same if DejaVu Sans is not installed
    "svg.hashsalt": "squentropy",  # otherwise element ids differ between runs
    "path.simplify": True,
}

# Okabe & Ito's colours and a few more; markers and line styles suffice without them
_BASELINE: "Look" = (INK, "o", "-")
_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9",
            "#AA4499", "#882255", "#999933", "#44AA99", "#117733"]  # fmt: skip
_MARKERS = ["^", "s", "D", "v", "P", "X", "<", "p", ">", "h"]
_LINES: "list[LineStyleType]" = ["-", (0, (4, 1.5)), (0, (1.5, 1.2)), (0, (6, 1.2, 1.2, 1.2))]
WIDTH = 7.2  # inches


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The style of every figure, independent of the user's matplotlibrc."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def look(loss: str, losses: list[str]) -> "Look":
    """(colour, marker, line style) of a loss by its position in the study; fixed for cross entropy.

    A loss outside the study is numbered after those in it.
    """
    if loss == BASELINE:
        return _BASELINE
    others = [name for name in losses if name != BASELINE]
    place = others.index(loss) if loss in others else len(others)
    return (
        _COLOURS[place % len(_COLOURS)],
        _MARKERS[place % len(_MARKERS)],
        _LINES[place % len(_LINES)],
    )


# --- pieces ---------------------------------------------------------------------------------------


def loss_rows(losses: list[str]) -> tuple[Figure, Axes]:
    """A figure with one horizontal row per loss, the first at the top, and a margin for notes."""
    fig = Figure(figsize=(WIDTH, 1.45 + 0.42 * len(losses)), layout="constrained")
    ax = fig.add_subplot()
    ax.set_ylim(len(losses) - 0.4, -0.6)
    ax.set_yticks(range(len(losses)), [label(loss) for loss in losses])
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.spines["left"].set_visible(False)
    return fig, ax


def estimate(ax: Axes, r: Results, loss: str, y: float, *, of: str) -> None:
    """A column of metrics.csv with its interval; a hollow marker if it has none."""
    estimate, low, high = r.metrics.loc[loss, [of, f"{of}_low", f"{of}_high"]].astype(float)
    colour, marker, _ = look(loss, r.losses)
    hollow = pd.isna(low) or pd.isna(high)
    ax.errorbar(
        estimate, y, xerr=spread(estimate, low, high), fmt=marker, color=colour, ms=6,
        mfc="white" if hollow else colour, mew=1, elinewidth=1.4, capsize=3.5, capthick=1.4,
    )  # fmt: skip


def spread(estimate: float, low: float, high: float) -> np.ndarray:
    """(2, 1): the distances to the ends of an interval; zero if there is none."""
    return np.nan_to_num(np.array([[max(estimate - low, 0.0)], [max(high - estimate, 0.0)]]))


def mean_curve(history: pd.DataFrame, loss: str, column: str) -> pd.Series:
    return history[history["loss"] == loss].groupby("iteration")[column].mean()


def entropies(r: Results) -> list[tuple[float, str]]:
    """Reference lines, in nats per token."""
    lines = [(r.corpus["source_nll"], "source's entropy")]
    lines += [(r.ngrams.get(order), f"{name} counts")
              for name, order in NGRAMS.items() if order == r.study.plan.ngram]  # fmt: skip
    return [(nll, name) for nll, name in lines if nll is not None]


def diverged_row(ax: Axes, y: float, text: str = "diverged") -> None:
    ax.text(0.5, y, text, transform=ax.get_yaxis_transform(), ha="center", va="center",
            color=SOFT, style="italic")  # fmt: skip


def note(ax: Axes, y: float, text: str, right: float = 0.0, **how: Any) -> None:
    """Text in the right margin beside row y, `right` points further."""
    ax.annotate(
        text, (1, y), (7 + right, 0), xycoords=ax.get_yaxis_transform(),
        textcoords="offset points", va="center", fontsize=8.5, **how,
    )  # fmt: skip


def headings(ax: Axes, at: list[tuple[float, str]], align: list[str] | None = None) -> None:
    """Labels above vertical lines."""
    for (x, text), side in zip(at, align or ["center"] * len(at), strict=True):
        ax.text(x, 1.02, text, transform=ax.get_xaxis_transform(), ha=side, va="bottom",
                fontsize=8, color=SOFT, linespacing=1.1)  # fmt: skip


def log_axis(ax: Axes, also: Sequence[float] = ()) -> None:
    """A log x axis that covers the data and the points `also`, with plain numbers as ticks."""
    ax.set_xscale("log")
    low, high = ax.dataLim.intervalx
    low, high = min([low, *also]) / 1.15, max([high, *also]) * 1.15
    ax.set_xlim(low, high)
    near = high / low < 5
    subs = (1, 2, 5) if high / low < 1000 else (1,)  # more labels would overlap
    ax.xaxis.set_major_locator(MaxNLocator(6) if near else LogLocator(subs=subs))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.10g}".replace(",", "\u202f")))
    ax.xaxis.set_minor_formatter(NullFormatter())
    if near:
        ax.minorticks_off()


def plain_log_ticks(axis: Axis) -> None:
    """1, 2, 5, 10, … as plain numbers."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(NullLocator())
