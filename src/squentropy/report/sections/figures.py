"""The figures of a section, each with its caption."""

import base64
import re
from pathlib import Path

from squentropy.base.errors import SquentropyError
from squentropy.report import catalogue
from squentropy.report.markup import Html, escape, paragraphs
from squentropy.report.read import Results

_SIZE = re.compile(rb'<svg[^>]*viewBox="0 0 ([\d.]+) ([\d.]+)"')


def of(section: str, r: Results, folder: str | Path) -> Html:
    """A section's figures of the catalogue, already drawn into a folder.

    Raises SquentropyError if a figure has not been drawn.
    """
    return Html(
        "".join(
            _figure(figure, r, Path(folder))
            if figure.when(r.study)
            else paragraphs(escape(figure.otherwise))
            for figure in catalogue.FIGURES
            if figure.section == section
        )
    )


def _figure(figure: catalogue.Figure, r: Results, folder: Path) -> str:
    """An <img>, which can neither run scripts nor load anything, whatever its file contains."""
    path = folder / f"{figure.name}.svg"
    try:
        svg = path.read_bytes()
    except FileNotFoundError:
        raise SquentropyError(f"{path}: does not exist; draw the figures first") from None
    data = base64.b64encode(svg).decode("ascii")
    image = f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(figure.alt)}"{_size(svg)}>'
    caption = escape(figure.caption_of(r.study))
    return f"<figure>{image}<figcaption>{caption}</figcaption></figure>"


def _size(svg: bytes) -> str:
    """Width and height, so that the page does not shift when the image appears."""
    found = _SIZE.search(svg)
    if not found:
        return ""
    width, height = (round(float(value)) for value in found.groups())
    return f' width="{width}" height="{height}"'
