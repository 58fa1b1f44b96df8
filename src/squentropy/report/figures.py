"""Every figure of a study, from its result tables alone.

    squentropy figures results/grammar report/grammar/figures

Each is written as SVG and PNG, the same bytes from the same tables. To add a figure, write a
function of plots/, name it below, and show it in notebooks/report.ipynb.
"""

from collections.abc import Callable
from pathlib import Path

from squentropy import storage
from squentropy.errors import SquentropyError
from squentropy.study.params import BASELINE, Study

MODULES = {
    "lengths": "learning",
    "perplexity": "comparison",
    "differences": "comparison",
    "learning_rates": "learning",
    "accuracy": "comparison",
    "reliability": "calibration",
    "profile": "calibration",
    "quality": "generation",
    "improperness": "theory",
    "dose": "theory",
    "learning_curves": "training",
    "grid": "training",
}
"""Every figure, a function of this module of plots/ and, with .svg and .png, a file."""


def names(study: Study) -> list[str]:
    """The figures of a study, known before there are any results.

    Without cross entropy, or with nothing else, there is no difference to show; without a loss
    that stands there with two arguments, no dose.
    """
    losses = study.sweep.losses
    functions = [loss.partition("(")[0] for loss in losses]
    absent = set()
    if BASELINE not in losses or len(losses) == 1:
        absent |= {"differences", "dose"}
    if len(set(functions)) == len(functions):
        absent.add("dose")
    return [name for name in MODULES if name not in absent]


def drawn_by(name: str) -> Callable:
    """The function that draws a figure: Results in, a matplotlib figure out."""
    # here, so that Snakemake learns the names above without waiting for matplotlib and pandas
    from squentropy.report import plots

    return getattr(getattr(plots, MODULES[name]), name)


def draw(results: str | Path, folder: str | Path) -> list[Path]:
    """Draw the figures of the results in a folder as folder/NAME.svg and .png, then a manifest.

    Returns the paths. Raises SquentropyError if a table is missing or damaged, or a figure
    cannot be written.
    """
    from squentropy.report.plots.style import style
    from squentropy.report.read import read

    r = read(results)
    paths, hashes = [], {}
    with style():
        for name in names(r.study):
            figure = drawn_by(name)(r)
            for kind, dated_by in (("svg", "Date"), ("png", "Software")):
                path = Path(folder) / f"{name}.{kind}"
                with storage.atomic(path) as temporary:
                    figure.savefig(temporary, format=kind, dpi=160, metadata={dated_by: None})
                paths.append(path)
                hashes[path.name] = storage.sha256(path)
    held = {"results_sha256": storage.sha256(Path(results) / "manifest.json"), "sha256": hashes}
    storage.write_sealed(Path(folder) / "manifest.json", held)
    return paths


def check(results: str | Path, folder: str | Path) -> None:
    """Raises SquentropyError if the figures in a folder are not whole, or of other results."""
    path = Path(folder) / "manifest.json"
    held = storage.read_sealed(path)
    if held["results_sha256"] != storage.sha256(Path(results) / "manifest.json"):
        raise SquentropyError(f"{folder}: the figures are of other tables; draw them again")
    for name, expected in held["sha256"].items():
        storage.verified(path.with_name(name), expected)
