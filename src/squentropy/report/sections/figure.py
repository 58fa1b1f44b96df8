"""A figure inside the page."""

import base64
import re
from pathlib import Path

from squentropy.errors import SquentropyError
from squentropy.report.markup import Html, escape

_SIZE = re.compile(rb'<svg[^>]*viewBox="0 0 ([\d.]+) ([\d.]+)"')


def figure(folder: str | Path, name: str, alt: str, caption: str) -> Html:
    """A figure inside the page. Raises SquentropyError where it has not been drawn.

    As an image it cannot run scripts or load anything, whatever is in the file.
    """
    path = Path(folder) / f"{name}.svg"
    try:
        svg = path.read_bytes()
    except FileNotFoundError:
        raise SquentropyError(f"{path}: does not exist; draw the figures first") from None
    data = base64.b64encode(svg).decode("ascii")
    image = f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(alt)}"{_size(svg)}>'
    return Html(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")


def _size(svg: bytes) -> str:
    """Width and height, so that the text below does not move when the image is there."""
    found = _SIZE.search(svg)
    if not found:
        return ""
    width, height = (round(float(value)) for value in found.groups())
    return f' width="{width}" height="{height}"'
