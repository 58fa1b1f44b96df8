"""A figure of the losses' speed and memory relative to cross entropy, as losses.py measured them.

    python benchmarks/cost.py          # from benchmarks/results/losses.csv to losses.svg beside it

Filled marks are this project's losses, hollow ones the formula on whole logits.
"""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from squentropy.report.plots.style import INK, SOFT, WIDTH, log_axis, look, style
from squentropy.report.read import label

TABLE = Path(__file__).with_name("results") / "losses.csv"
PANELS = {"seconds": "time of forward and backward", "above": "memory above the start"}
BASELINE = "cross_entropy"


def cost(table: pd.DataFrame) -> Figure:
    """One row per loss; both measures relative to this project's cross entropy."""
    table = table.assign(above=table["peak_mb"] - table["start_mb"]).set_index("loss")
    losses = [name.removeprefix("our ") for name in table.index if name.startswith("our ")]
    fig = Figure(figsize=(WIDTH, 1.5 + 0.36 * len(losses)), layout="constrained")
    axes = fig.subplots(1, 2, sharey=True)
    for ax, (column, title) in zip(axes, PANELS.items(), strict=True):
        unit = table.at[f"our {BASELINE}", column]
        for y, loss in enumerate(losses):
            colour, marker, _ = look(loss, losses)
            whole = "F.cross_entropy" if loss == BASELINE else f"naive {loss}"
            ours = table.at[f"our {loss}", column] / unit
            ax.plot(ours, y, marker, color=colour, ms=7)
            if whole in table.index:
                naive = table.at[whole, column] / unit
                ax.plot([ours, naive], [y, y], color=colour, lw=1, ls=(0, (1, 2)))
                ax.plot(naive, y, marker, mfc="white", mec=colour, ms=7)
        ax.axvline(1, color=SOFT, lw=1, ls=(0, (4, 2)), zorder=1.5)
        log_axis(ax)
        ax.grid(visible=False, axis="y")
        ax.set_title(title)
        ax.set_xlabel("this project’s cross entropy = 1, log scale")
    axes[0].set_yticks(range(len(losses)), [label(loss) for loss in losses])
    axes[0].set_ylim(len(losses) - 0.5, -0.5)
    shapes = {"this project": INK, "formula on whole logits": "white"}
    fig.legend(
        [Line2D([], [], ls="", marker="o", mfc=fill, mec=INK, ms=7) for fill in shapes.values()],
        list(shapes), loc="outside lower center", ncols=2,
    )  # fmt: skip
    return fig


def main() -> None:
    with style():
        figure = cost(pd.read_csv(TABLE))
        figure.savefig(TABLE.with_suffix(".svg"), metadata={"Date": None})


if __name__ == "__main__":
    main()
