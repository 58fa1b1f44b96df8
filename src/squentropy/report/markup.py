"""Pieces of HTML that the report's sections are set from: tables, paragraphs, numbers, lists.

Whatever comes from data goes through `escape`; everything else here takes and gives HTML.
"""

import html
import json
import math
import re
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd

DASH = "–"
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)
_ENDS_A_SCRIPT = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


class Html(str):
    """Text that a notebook shows as HTML."""

    def _repr_html_(self) -> str:
        return self


def table(
    head: list[str], rows: list[list[str]], text: int = 1, last: bool = False, caption: str = ""
) -> Html:
    """An HTML table of cells that are HTML already; `text` columns, and the last, align left.

    The first cell of a row names it. A table wider than the page scrolls in its own region.
    """

    def side(i: int) -> str:
        return "" if i < text or (last and i == len(head) - 1) else " class=n"

    def row(cells: list[str]) -> str:
        name, *values = cells
        shown = (f"<td{side(i)}>{value}</td>" for i, value in enumerate(values, 1))
        return f"<tr><th scope=row>{name}</th>{''.join(shown)}</tr>"

    columns = "".join(f"<th scope=col{side(i)}>{name}</th>" for i, name in enumerate(head))
    what = re.sub("<[^>]*>", "", caption or f"Table: {', '.join(head)}").replace('"', "&quot;")
    return Html(
        f'<div class="table" role="group" aria-label="{what}" tabindex="0"><table>'
        + (f"<caption><span>{caption}</span></caption>" if caption else "")
        + f"<thead><tr>{columns}</tr></thead><tbody>{''.join(map(row, rows))}</tbody></table></div>"
    )


def paragraphs(*texts: str) -> Html:
    return Html("".join(f"<p>{upper(text)}</p>" for text in texts if text))


def upper(text: str) -> str:
    """With a capital first letter."""
    return text[:1].upper() + text[1:]


def visible(text: str) -> str:
    """Text as it is, but what could hide or reorder other text is a visible sign."""
    return _INVISIBLE.sub("\ufffd", str(text).replace("\r\n", "\n"))


def escape(text: str) -> str:
    """Visible text, in HTML."""
    return html.escape(visible(text))


def embedded(value: Any) -> str:
    """JSON for a <script> of the page: nothing in it can end the script or begin another."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate(_ENDS_A_SCRIPT)


def interval(row: pd.Series, name: str, style: Callable[[float], str]) -> str:
    """An estimate with its interval, or alone if it has none."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if pd.isna(row[name]):
        return DASH
    if pd.isna(low) or pd.isna(high):
        return style(row[name])
    return f'{style(row[name])} <span class="ci">[{style(low)}, {style(high)}]</span>'


def number(value: float | None) -> str:
    """Three significant digits, thousands apart."""
    if value is None or pd.isna(value):
        return DASH
    if math.isinf(value):
        return "∞"
    if abs(value) >= 1e6:
        return f"{value:.1e}"
    return integer(value) if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")


def nats(value: float | None) -> str:
    return DASH if value is None or pd.isna(value) else f"{value:.3f}".replace("-", "−")


def signed(value: float | None) -> str:
    return DASH if value is None or pd.isna(value) else f"{value:+.3f}".replace("-", "−")


def plain(value: float) -> str:
    """A number without exponent: 0.000006."""
    return f"{value:.12f}".rstrip("0").rstrip(".")


def integer(value: float) -> str:
    """An integer with thousands apart by a narrow space."""
    return f"{value:,.0f}".replace(",", "\u202f")


def listed(parts: Iterable[str], word: str = "and") -> str:
    """a, b and c"""
    parts = list(parts)
    return f" {word} ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def either(values: Iterable) -> str:
    return listed((str(value) for value in values), "or")


def count(n: int, one: str, many: str | None = None) -> str:
    words = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")
    name = one if n == 1 else many or f"{one}s"
    return f"{words[n].lower() if n < len(words) else n} {name}"
