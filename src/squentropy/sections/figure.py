"""A figure inside the page."""

import base64
from pathlib import Path

from squentropy.errors import SquentropyError
from squentropy.markup import Html, escape


def figure(folder: str | Path, name: str, alt: str, caption: str) -> Html:
    """A figure inside the page. Raises SquentropyError where it has not been drawn.

    As an image it cannot run scripts or load anything, whatever is in the file.
    """
    path = Path(folder) / f"{name}.svg"
    try:
        data = base64.b64encode(path.read_bytes()).decode("ascii")
    except FileNotFoundError:
        raise SquentropyError(f"{path}: does not exist; draw the figures first") from None
    image = f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(alt)}">'
    return Html(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")
