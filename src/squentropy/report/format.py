"""Number and list formatting shared by figures, page, README and terminal.

Standard library only, so that Snakemake can read captions without loading pandas.
"""

import math
from collections.abc import Iterable

DASH = "—"
"""Placeholder for an unknown value."""


def unknown(value: float | None) -> bool:
    return value is None or math.isnan(value)


def number(value: float | None) -> str:
    """Three significant digits, thousands separated, with an exponent from a million on."""
    if value is None or math.isnan(value):
        return DASH
    if math.isinf(value):
        return "∞"
    if abs(value) >= 1e6:
        return f"{value:.1e}"
    return integer(value) if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")


def fixed(value: float | None, digits: int) -> str:
    """A fixed number of decimals."""
    if value is None or math.isnan(value):
        return DASH
    return "∞" if math.isinf(value) else f"{value:z.{digits}f}".replace("-", "−")


def nats(value: float | None) -> str:
    return fixed(value, 3)


def signed(value: float | None, digits: int = 3) -> str:
    """A difference in nats with its sign; no sign if it rounds to zero."""
    text = fixed(value, digits)
    bare = unknown(value) or text.startswith("−") or not text.strip("0.")
    return text if bare else f"+{text}"


def share(value: float | None, digits: int = 1) -> str:
    """A fraction as a percentage with `digits` decimals: 12.3 %."""
    return DASH if value is None or math.isnan(value) else f"{fixed(100 * value, digits)} %"


def percent(value: float) -> str:
    """A fraction as a percentage without trailing zeros: 95 %."""
    return f"{100 * value:g} %"


def p_text(p: float, smallest: float) -> str:
    """A p-value as "= 0.031" or, at the smallest that few seeds support, "< 0.01"."""
    least = max(smallest, 0.001)
    return f"< {least:g}" if p <= least else f"= {p:.3f}"


def plain(value: float) -> str:
    """A number without exponent: 0.000006."""
    return f"{value:.12f}".rstrip("0").rstrip(".")


def integer(value: float) -> str:
    """An integer, thousands separated by a narrow space."""
    return f"{value:,.0f}".replace(",", "\u202f")


def short(value: float) -> str:
    """A large number with its unit: 288 000 as 288 k, 1 152 000 as 1.15 M."""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:g}"


# --- words --------------------------------------------------------------------------------------


def listed(parts: Iterable[str], word: str = "and") -> str:
    """a, b and c"""
    parts = list(parts)
    return f" {word} ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def either(values: Iterable[object]) -> str:
    """a, b or c"""
    return listed((str(value) for value in values), "or")


def count(n: int, one: str, many: str | None = None) -> str:
    """no run, one run, two runs, 12 runs"""
    words = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    name = one if n == 1 else many or f"{one}s"
    return f"{words[n] if n < len(words) else n} {name}"


def upper(text: str) -> str:
    """With a capital first letter."""
    return text[:1].upper() + text[1:]
