"""How far long work has come, on stderr: a bar on a terminal, in a log a line now and then."""

import io
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

from squentropy.output import one_line, unchanged

SECONDS = 10.0
"""Between lines of a log."""


class _Lines(tqdm):
    """tqdm that writes lines, each to its end, and none where the work is short."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if self.n not in (self.initial, self.total):
            print(str(self), file=sys.stderr, flush=True)


def bar(work: Iterable, name: str, unit: str, shown: bool = True, of: int | None = None) -> Any:
    """`work`, as it is gone through; `unit` in the plural. Takes `set_postfix_str`, as tqdm.

    Of a range, what comes before its start counts as done. `of` says how much there is where `work`
    cannot.
    """
    about: dict[str, Any] = {"desc": one_line(name), "unit": f" {unit}", "disable": not shown}
    about["total"] = of
    if isinstance(work, range):
        about |= {"initial": work.start, "total": work.stop}
    if sys.stderr.isatty():
        return tqdm(work, **about, file=unchanged(sys.stderr))
    known = of is not None or hasattr(work, "__len__")
    line = "{desc}: {n_fmt} of {total_fmt} " if known else "{desc}: {n_fmt} "
    line += unit + ("{postfix}, {remaining} left" if known else "{postfix}")
    return _Lines(
        work, **about, file=io.StringIO(), mininterval=SECONDS, miniters=1, bar_format=line
    )
