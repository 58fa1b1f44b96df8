"""One function a figure: Results in, a matplotlib figure out. `figures.draw` calls and saves them.

One style for all: a loss has the same colour and marker everywhere, told apart in grey as well,
every estimate has its interval, and what diverged is shown as such.
"""

import contextlib
import math
from collections.abc import Iterator, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from squentropy import statistics
from squentropy.params import BASELINE
from squentropy.results import Results, label

INK, SOFT, FAINT = "#222222", "#6b6b6b", "#d9d9d9"
STYLE = {
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
    "svg.fonttype": "path",  # looks alike where DejaVu Sans is not installed
    "svg.hashsalt": "squentropy",  # else element ids differ from run to run
    "path.simplify": True,
}

# colour, marker and line style of a loss: Okabe & Ito's colours, told apart without them too
_LOOKS = {
    "cross_entropy": ("#222222", "o", "-"),
    "mse": ("#E69F00", "s", (0, (4, 1.5))),
    "mse_weighted": ("#D55E00", "D", (0, (1.5, 1.2))),
    "squentropy": ("#0072B2", "^", "-"),
    "squentropy_tenth": ("#332288", "<", (0, (6, 1.2, 1.2, 1.2))),
    "squentropy_weighted": ("#56B4E9", "v", (0, (4, 1.5))),
    "z_loss": ("#009E73", "P", (0, (1.5, 1.2))),
    "brier": ("#CC79A7", "X", (0, (6, 1.2, 1.2, 1.2))),
}
_SPARE = [
    ("#882255", "p", "-"),
    ("#999933", "h", (0, (4, 1.5))),
    ("#44AA99", ">", (0, (1.5, 1.2))),
    ("#661100", "*", "-"),
    ("#888888", "d", (0, (4, 1.5))),
    ("#AA4499", "8", (0, (1.5, 1.2))),
]
WIDTH = 7.2  # inches


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The style of every figure, whatever the reader's own matplotlibrc says."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def look(loss: str, losses: list[str]) -> tuple:
    """(colour, marker, line style) of a loss; unknown losses take the spare ones in order."""
    if loss in _LOOKS:
        return _LOOKS[loss]
    return _SPARE[[name for name in losses if name not in _LOOKS].index(loss) % len(_SPARE)]


# --- the figures --------------------------------------------------------------------------------


def perplexity(r: Results) -> Figure:
    """Test perplexity by loss: interval, mean, and each seed as a dot."""
    fig, ax = _rows(r.ranked)
    for y, loss in enumerate(r.ranked):
        row = r.metrics.loc[loss]
        if loss not in r.scored:
            _diverged_row(ax, y)
            continue
        ppl = np.exp(r.by_seed(loss)["nll"])
        _estimate(ax, r, loss, y, of="test_ppl")
        if len(ppl) > 1:
            ax.plot(ppl, np.full(len(ppl), y + 0.27), "|", color=INK, ms=6, mew=1)
        if pd.notna(row["inverse_link_nll"]):
            colour, marker, _ = look(loss, r.losses)
            linked = math.exp(row["inverse_link_nll"])
            ax.plot(linked, y, marker, mfc="white", mec=colour, ms=7)
        _note(ax, y, _number(row["test_ppl"]))
    floors = [(math.exp(nll), name) for nll, name in _entropies(r)]
    for x, _ in floors:
        ax.axvline(x, color=SOFT, lw=1, ls=(0, (4, 2)), zorder=0)
    _log_axis(ax, [x for x, _ in floors])
    _headings(ax, [(x, name.replace(" ", "\n", 1)) for x, name in floors])
    _note(ax, -0.8, "perplexity", weight="bold")
    seeds = "; ticks below: single seeds" if len(r.study.final.seeds) > 1 else ""
    hollow = "; hollow: by the inverse link" if r.metrics["inverse_link_nll"].notna().any() else ""
    ax.set_xlabel(
        "test perplexity under softmax, log scale (less is better)\n"
        f"bars: {_percent(r)} intervals{seeds}{hollow}"
    )
    return fig


def differences(r: Results) -> Figure:
    """Forest plot: each loss's test nll minus cross entropy's, paired by story and seed."""
    compared = [x for x in r.ranked if x != BASELINE]
    fig, ax = _rows(compared)
    rows = r.metrics.loc[compared]
    for y, loss in enumerate(compared):
        row = rows.loc[loss]
        if pd.isna(row["difference"]):
            _diverged_row(ax, y, "diverged" if loss not in r.scored else "no common seed")
            continue
        _estimate(ax, r, loss, y, of="difference")
        _note(ax, y, _signed(row["difference"]))
        _note(ax, y, _p(row["p_value"]), right=0.19)
    ends = rows[["difference", "difference_low", "difference_high"]].abs().to_numpy().ravel()
    ends = ends[np.isfinite(ends) & (ends > 0)]
    scale = ""
    if len(ends) and ends.max() > 20 * ends.min():
        # a few hundredths of a nat and several nats belong in one picture
        linear = 10.0 ** math.floor(math.log10(max(np.quantile(ends, 0.3), ends.max() / 1000)))
        ax.set_xscale("symlog", linthresh=linear, linscale=0.8)
        _symlog_ticks(ax, linear)
        scale = f" (linear within ±{linear:g}, then log)"
    ax.set_xlabel(
        f"test nll minus cross entropy's, nats a token{scale}\n"
        f"bars: {_percent(r)} intervals, paired by story and seed; p corrected by Holm"
    )
    if not len(ends):
        ax.set_xticks([])
        return fig
    ax.axvline(0, color=INK, lw=1)
    _headings(ax, [(0, "← better than  \ncross entropy  "), (0, "  worse than →\n  cross entropy")],
              align=["right", "left"])  # fmt: skip
    _note(ax, -0.85, "difference", weight="bold")
    _note(ax, -0.85, "p", right=0.19, weight="bold")
    return fig


def accuracy(r: Results) -> Figure:
    """Top-1 accuracy against perplexity: a loss may rank well and still give poor probabilities."""
    fig = Figure(figsize=(WIDTH, 4.0), layout="constrained")
    ax = fig.add_subplot()
    how = {"resamples": r.study.evaluate.bootstrap, "confidence": r.study.evaluate.confidence,
           "seed": 0}  # fmt: skip
    for loss in r.scored:
        colour, marker, _ = look(loss, r.losses)
        row, correct = r.metrics.loc[loss], r.by_story(loss, "correct")
        share = statistics.mean_nll(correct.to_numpy(), r.by_story(loss, "tokens").iloc[0], **how)
        x = row["test_ppl"]
        ax.errorbar(
            x, 100 * share.estimate, fmt=marker, color=colour, ms=7, mec="white", mew=0.6,
            xerr=_spread(x, row["test_ppl_low"], row["test_ppl_high"]),
            yerr=100 * _spread(share.estimate, share.low, share.high), elinewidth=1.2,
            label=label(loss),
        )  # fmt: skip
        if pd.notna(row["inverse_link_nll"]):
            linked = math.exp(row["inverse_link_nll"])
            ax.annotate(
                "", (linked, 100 * share.estimate), (x, 100 * share.estimate),
                arrowprops={"arrowstyle": "-", "color": colour, "lw": 1, "ls": (0, (1, 2))},
            )  # fmt: skip
            ax.plot(linked, 100 * share.estimate, marker, mfc="white", mec=colour, ms=7)
    if r.scored:
        _log_axis(ax)
        handles, texts = ax.get_legend_handles_labels()
        if r.metrics["inverse_link_nll"].notna().any():
            handles.append(Line2D([], [], ls="", marker="o", mfc="white", mec=SOFT, ms=7))
            texts.append("same, by the inverse link")
        fig.legend(handles, texts, loc="outside right upper", handletextpad=0.4)
    else:
        ax.set(xticks=[], yticks=[])
        ax.text(0.5, 0.5, "every final run diverged", transform=ax.transAxes, ha="center",
                va="center", color=SOFT, style="italic")  # fmt: skip
    ax.set_xlabel(f"test perplexity, log scale (less is better)\nbars: {_percent(r)} intervals")
    ax.set_ylabel("top-1 accuracy, % of test tokens")
    return fig


def learning_curves(r: Results) -> Figure:
    """Train and validation nll by iteration, a panel a loss; seeds as bands."""
    final = r.history[r.history["phase"] == "final"]
    columns = 1 if len(r.losses) == 1 else 2 if len(r.losses) in (2, 4) else 3
    rows = math.ceil(len(r.losses) / columns)
    fig = Figure(figsize=(WIDTH, 0.9 + 1.75 * rows), layout="constrained")
    axes = fig.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    reference = _mean_curve(final, BASELINE, "validation_nll")
    for ax, loss in zip(axes.flat, r.losses, strict=False):
        colour, _, _ = look(loss, r.losses)
        ax.set_title(label(loss), color=colour, fontweight="bold")
        for nll, _ in _entropies(r):
            ax.axhline(nll, color=SOFT, lw=0.9, ls=(0, (4, 2)))
        if loss != BASELINE and len(reference):
            ax.plot(reference.index, reference, color="#aaaaaa", lw=1.1)
        for column, style in (("train_nll", (0, (2, 1.2))), ("validation_nll", "-")):
            grouped = final[final["loss"] == loss].groupby("iteration")[column]
            mean = grouped.mean()
            ax.fill_between(
                mean.index, grouped.min(), grouped.max(), color=colour, alpha=0.18, lw=0
            )
            ax.plot(mean.index, mean, color=colour, ls=style, lw=1.5)
        gone = r.metrics.at[loss, "diverged"]
        if gone:
            runs = gone + r.metrics.at[loss, "n_seeds"]
            ax.set_title(f"{gone:.0f} of {runs:.0f} diverged", loc="right", color=SOFT, fontsize=8)
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
    for nll, name in _entropies(r):
        lowest = name.startswith("source")  # the curve falls: room is below left, above right
        axes[0, 0].text(0.03 if lowest else 0.98, nll, name, va="bottom", color=SOFT, fontsize=7,
                        ha="left" if lowest else "right",
                        transform=axes[0, 0].get_yaxis_transform())  # fmt: skip
    fig.supxlabel("iteration", fontsize=9)
    fig.supylabel("nll, nats a token", fontsize=9)
    handles = [Line2D([], [], color=INK, ls="-"), Line2D([], [], color=INK, ls=(0, (2, 1.2)))]
    texts = ["validation", "train"]
    if len(reference) and len(r.losses) > 1:
        handles.append(Line2D([], [], color="#aaaaaa"))
        texts.append("cross entropy's validation")
    fig.legend(handles, texts, loc="outside upper right", ncols=3)
    return fig


def grid(r: Results) -> Figure:
    """Validation perplexity of every cell: a panel a loss, learning rate by dropout and layers."""
    sweep = r.study.sweep
    columns = [(dropout, layers) for dropout in sweep.dropout for layers in sweep.n_layer]
    height = len(r.losses) * (0.3 * len(sweep.lr) + 0.28) + 0.95
    fig = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = fig.subplots(len(r.losses), 1, sharex=True, squeeze=False)[:, 0]
    values = r.sweep["validation_nll"].replace(math.inf, math.nan).dropna()
    span = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    cells = {
        (row.loss, row.lr, row.dropout, row.n_layer): row for row in r.sweep.itertuples(index=False)
    }
    for ax, loss in zip(axes, r.losses, strict=True):
        ax.set_title(label(loss), color=look(loss, r.losses)[0], fontweight="bold", pad=4)
        ax.grid(visible=False)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        for y, lr in enumerate(sweep.lr):
            for x, (dropout, layers) in enumerate(columns):
                _cell(ax, x, y, cells.get((loss, lr, dropout, layers)), span)
        ax.set(xlim=(-0.56, len(columns) - 0.44), ylim=(len(sweep.lr) - 0.4, -0.6))
        ax.set_yticks(range(len(sweep.lr)), [f"lr {_plain(lr)}" for lr in sweep.lr], fontsize=8)
    per = len(sweep.n_layer)
    axes[-1].set_xticks(range(len(columns)), [f"{layers}" for _, layers in columns], fontsize=8)
    axes[-1].set_xlabel(
        "layers\n\n"
        "number: validation perplexity, darker is lower; framed: selected; hatched: diverged",
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


# --- pieces -------------------------------------------------------------------------------------


def _rows(losses: list[str]) -> tuple:
    """A figure with one horizontal row a loss, the first on top, and a margin for notes."""
    fig = Figure(figsize=(WIDTH, 1.45 + 0.42 * len(losses)), layout="constrained")
    ax = fig.add_subplot()
    ax.set_ylim(len(losses) - 0.4, -0.6)
    ax.set_yticks(range(len(losses)), [label(loss) for loss in losses])
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.spines["left"].set_visible(False)
    return fig, ax


def _estimate(ax, r: Results, loss: str, y: float, *, of: str) -> None:
    """A column of metrics.csv with its interval; hollow where there is none to draw."""
    estimate, low, high = r.metrics.loc[loss, [of, f"{of}_low", f"{of}_high"]].astype(float)
    colour, marker, _ = look(loss, r.losses)
    hollow = pd.isna(low) or pd.isna(high)
    ax.errorbar(
        estimate, y, xerr=_spread(estimate, low, high), fmt=marker, color=colour, ms=6,
        mfc="white" if hollow else colour, mew=1, elinewidth=1.4, capsize=3.5, capthick=1.4,
    )  # fmt: skip


def _spread(estimate: float, low: float, high: float) -> np.ndarray | None:
    """(2, 1): the distances to the ends of an interval; zero where there is none."""
    return np.nan_to_num(np.array([[max(estimate - low, 0.0)], [max(high - estimate, 0.0)]]))


def _mean_curve(history: pd.DataFrame, loss: str, column: str) -> pd.Series:
    return history[history["loss"] == loss].groupby("iteration")[column].mean()


def _entropies(r: Results) -> list[tuple[float, str]]:
    """The lines to read a loss against, in nats a token."""
    lines = [(r.corpus["source_nll"], "source's entropy"),
             (r.corpus["unigram_nll"], "unigram entropy")]  # fmt: skip
    return [(nll, name) for nll, name in lines if nll is not None]


def _cell(ax, x: int, y: int, row, span: tuple[float, float]) -> None:
    """One cell of the grid, coloured by its place within the span of nll of the whole grid."""
    low, high = span
    square = {"xy": (x - 0.48, y - 0.46), "width": 0.96, "height": 0.92}
    if row is None or pd.isna(row.validation_nll):
        diverged = row is not None and row.status == "diverged"
        ax.add_patch(Rectangle(**square, fc="#f4f4f4", ec="none", hatch="////"))
        text, ink, size = ("diverged" if diverged else "–"), SOFT, 6.5
    else:
        share = (high - row.validation_nll) / (high - low) if high > low else 1.0
        colour = matplotlib.colormaps["Blues"](0.08 + 0.82 * float(np.clip(share, 0, 1)))
        ax.add_patch(Rectangle(**square, fc=colour, ec="none"))
        text, size = _number(row.validation_ppl), 8
        ink = "white" if share > 0.55 else INK
    box = {"fc": "#f4f4f4", "ec": "none", "pad": 1} if text == "diverged" else None
    ax.text(x, y, text, ha="center", va="center", color=ink, fontsize=size, bbox=box)
    if row is not None and row.selected and pd.notna(row.validation_nll):
        ax.add_patch(Rectangle(**square, fill=False, ec="#D55E00", lw=2.2, zorder=3))


def _diverged_row(ax, y: float, text: str = "diverged") -> None:
    ax.text(0.5, y, text, transform=ax.get_yaxis_transform(), ha="center", va="center",
            color=SOFT, style="italic")  # fmt: skip


def _note(ax, y: float, text: str, right: float = 0.0, **how) -> None:
    """Text in the right margin beside row y, `right` axes' widths further."""
    ax.text(
        1.02 + right, y, text, transform=ax.get_yaxis_transform(), va="center", fontsize=8.5, **how
    )


def _headings(ax, at: list[tuple[float, str]], align: list[str] | None = None) -> None:
    """Names above vertical lines."""
    for (x, text), side in zip(at, align or ["center"] * len(at), strict=True):
        ax.text(x, 1.02, text, transform=ax.get_xaxis_transform(), ha=side, va="bottom",
                fontsize=8, color=SOFT, linespacing=1.1)  # fmt: skip


def _log_axis(ax, also: Sequence[float] = ()) -> None:
    """A log x axis around the data and some more points, its ticks plain numbers."""
    ax.set_xscale("log")
    low, high = ax.dataLim.intervalx
    low, high = min([low, *also]) / 1.15, max([high, *also]) * 1.15
    ax.set_xlim(low, high)
    near = high / low < 5
    ax.xaxis.set_major_locator(MaxNLocator(6) if near else LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    if near:
        ax.minorticks_off()


def _symlog_ticks(ax, linear: float) -> None:
    low, high = ax.get_xlim()
    powers = [linear * 10.0**i for i in range(12)]
    ticks = [-x for x in powers if -x >= low * 1.02] + [0] + [x for x in powers if x <= high * 1.02]
    ax.set_xticks(ticks, [f"{x:g}".replace("-", "−") for x in ticks])
    ax.minorticks_off()


def _percent(r: Results) -> str:
    return f"{100 * r.study.evaluate.confidence:g} %"


def _number(value: float) -> str:
    """Three significant digits, without an exponent where it can be avoided."""
    if not math.isfinite(value):
        return "∞"
    if value >= 100:
        return f"{value:,.0f}".replace(",", " ") if value < 1e6 else f"{value:.1e}"
    return f"{value:#.3g}"


def _plain(value: float) -> str:
    return f"{value:.10f}".rstrip("0").rstrip(".")


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def _p(p: float) -> str:
    return "" if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"
