"""Learning rate by width: does a squared loss lack large stable learning rates?

    python studies/width.py data/grammar/tokens checkpoints/width results/width

Haas et al. 2025 (arXiv 2505.22491): under the standard parametrisation cross entropy has large
learning rates that are stable and learn features, and MSE has none; under muP the gap vanishes.
Trains short runs of each loss at each learning rate, three widths and both parametrisations, which
are one at the width of the default study; one seed each. Writes width.csv, one row per run, and
width.svg into the last folder.
"""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from squentropy.report.plots.style import WIDTH, log_axis, style
from squentropy.report.read import label
from squentropy.runs.records import read_run
from squentropy.study import params
from squentropy.study.overlays import overlay
from squentropy.study.params import Study
from squentropy.tokens.token_files import TokenFolder
from squentropy.training.run import train_run
from squentropy.training.stacked import train_stacks, worthwhile
from squentropy.tuning.selection import selection_nll

ROOT = Path(__file__).resolve().parents[1]
WIDTHS = (64, 128, 256)
PARAMETRIZATIONS = ("standard", "mup")
HEAD = 32  # width of a head, whatever the model's
CHANGES = {
    "train": {"compile": "never", "runs_per_gpu": 64},
    "sweep": {
        "losses": ["cross_entropy", "squentropy", "brier", "mse_weighted"],
        "lr": [0.00025 * 2**k for k in range(11)],
        "dropout": [0.0],
        "n_layer": [2],
        "max_iters": 800,
        "warmup_iters": 68,
        "eval_interval": 800,
        "eval_stories": 60,
    },
}
COLUMNS = ("parametrization", "width", "loss", "lr", "status", "nll")
NAMES = {"standard": "standard", "mup": "µP"}
COLOURS = ("#9ecae1", "#4292c6", "#084594")


def study_of(width: int, parametrization: str) -> Study:
    model = {"n_embd": width, "n_head": width // HEAD, "parametrization": parametrization}
    given = params.load([ROOT / "params.yaml"]).model_dump()
    name = {"study": f"width-{width}-{parametrization}"}
    return params.parse(overlay(given, CHANGES | name | {"model": model}))


def train(width: int, parametrization: str, tokens: Path, checkpoints: Path) -> None:
    """Train what is not there yet."""
    study, folder = study_of(width, parametrization), TokenFolder.open(tokens)
    out = checkpoints / study.study
    if worthwhile(study):
        for _ in train_stacks(study, study.sweep_cells(), folder, out, None):
            pass
        return
    for cell in study.sweep_cells():
        train_run(study, cell, folder, out / cell.name)


def rows(checkpoints: Path) -> Iterator[tuple[object, ...]]:
    """A run each; nll on validation in nats per token by the loss's primary reading, infinite
    where it diverged."""
    for parametrization, width in itertools.product(PARAMETRIZATIONS, WIDTHS):
        study = study_of(width, parametrization)
        for cell in study.sweep_cells():
            run = read_run(checkpoints / study.study / cell.name)
            yield (
                parametrization,
                width,
                cell.loss,
                cell.lr,
                run["status"],
                selection_nll(study, run),
            )


def figure(table: pd.DataFrame) -> Figure:
    """A panel per loss and parametrisation, a line per width."""
    losses = list(dict.fromkeys(table["loss"]))
    fig = Figure(figsize=(WIDTH, 5.2), layout="constrained")
    axes = fig.subplots(len(PARAMETRIZATIONS), len(losses), sharex=True, sharey=True)
    for line, parametrization in zip(axes, PARAMETRIZATIONS, strict=True):
        for ax, loss in zip(line, losses, strict=True):
            own = table[(table["loss"] == loss) & (table["parametrization"] == parametrization)]
            for width, colour in zip(WIDTHS, COLOURS, strict=False):
                runs = own[own["width"] == width]
                ax.plot(runs["lr"], runs["nll"], color=colour, marker="o", ms=3, label=str(width))
                best = runs.loc[runs["nll"].idxmin()]
                ax.plot(best["lr"], best["nll"], "o", color=colour, ms=7)
            log_axis(ax)
        line[0].set_ylabel(f"{NAMES[parametrization]}: nats per token")
    for ax, loss in zip(axes[0], losses, strict=True):
        ax.set_title(label(loss))
    axes[0][0].set_ylim(0.9, 6.5)
    for ax in axes[-1]:
        ax.set_xlabel("learning rate")
    handles, names = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, names, title="width", loc="outside lower center", ncols=len(WIDTHS))
    return fig


def main(tokens: Path, checkpoints: Path, results: Path) -> None:
    for parametrization, width in itertools.product(PARAMETRIZATIONS, WIDTHS):
        train(width, parametrization, tokens, checkpoints)
    table = pd.DataFrame(rows(checkpoints), columns=list(COLUMNS))
    results.mkdir(parents=True, exist_ok=True)
    table.to_csv(results / "width.csv", index=False, lineterminator="\n")
    with style():
        figure(table).savefig(results / "width.svg", metadata={"Date": None})


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
