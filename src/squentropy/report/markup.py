"""HTML building blocks of the report: tables, paragraphs, intervals.

Text from data goes through `escape`; all other functions take and return HTML.
"""

import base64
import html
import json
import re
import zlib
from collections.abc import Callable
from typing import Any

import pandas as pd

from squentropy.base.output import visible
from squentropy.report.format import DASH, upper

_ENDS_A_SCRIPT = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


class Html(str):
    """A string that a notebook displays as HTML."""

    def _repr_html_(self) -> str:
        return self


def table(
    head: list[str], rows: list[list[str]], text: int = 1, last: bool = False, caption: str = ""
) -> Html:
    """An HTML table of HTML cells; the first `text` columns, and the `last`, are left-aligned.

    The first cell is the row header. A table wider than the page scrolls in its own region.
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


def escape(text: str) -> str:
    """Text escaped for HTML, with invisible characters made visible."""
    return html.escape(visible(text))


def embedded(value: Any) -> str:
    """JSON for a <script> element: its contents cannot close the element or open another."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate(_ENDS_A_SCRIPT)


def packed(value: Any) -> str:
    """JSON, deflated and base64-encoded: about a third of the size for repetitive text."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode("utf-8"), 9)).decode("ascii")


def interval(row: pd.Series, name: str, style: Callable[[float], str]) -> str:
    """An estimate with its interval, if it has one."""
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    if pd.isna(row[name]):
        return DASH
    if pd.isna(low) or pd.isna(high):
        return style(row[name])
    return f'{style(row[name])} <span class="ci">[{style(low)}, {style(high)}]</span>'
