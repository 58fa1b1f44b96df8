"""Every figure of a study, drawn from its result tables alone.

    squentropy figures results/grammar report/grammar/figures

Each is written as SVG and PNG, byte-identical for identical tables. catalogue.py lists the figures.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.report import catalogue
from squentropy.study.params import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from squentropy.report.read import Results


def names(study: Study) -> list[str]:
    """The figures of a study, known before there are any results."""
    return [figure.name for figure in catalogue.figures(study)]


def drawn_by(name: str) -> "Callable[[Results], Figure]":
    """The function of plots/ that draws a figure."""
    # imported here, so that reading the names does not load matplotlib and pandas
    from squentropy.report import plots

    module, _, function = catalogue.figure(name).drawn_by.partition(".")
    return getattr(getattr(plots, module), function)


def draw(results: str | Path, folder: str | Path) -> list[Path]:
    """Draw the figures of a results folder as folder/NAME.svg and .png, then write a manifest.

    Returns the paths. Raises SquentropyError if a table is missing or damaged, or a figure
    cannot be written.
    """
    from squentropy.report.plots.style import style
    from squentropy.report.read import read

    r = read(results)
    paths: list[Path] = []
    hashes: dict[str, str] = {}
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
    """Raises SquentropyError if figures in a folder are damaged or belong to other results."""
    path = Path(folder) / "manifest.json"
    held = storage.read_sealed(path)
    if held["results_sha256"] != storage.sha256(Path(results) / "manifest.json"):
        raise SquentropyError(f"{folder}: the figures are of other tables; draw them again")
    for name, expected in held["sha256"].items():
        storage.verified(path.with_name(name), expected)


def write_captions(study: Study, folder: str | Path) -> dict[str, Path]:
    """Write each caption as folder/NAME.rst, for Snakemake's own report.

    Returns the files by figure name. Files that are already up to date are not rewritten.
    """
    paths = {}
    for figure in catalogue.figures(study):
        path = Path(folder).resolve() / f"{figure.name}.rst"
        text = catalogue.restructured(figure.caption_of(study))
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            storage.write_text(path, text)
        paths[figure.name] = path
    return paths
