"""How far long work has come, on stderr: a bar on a terminal, in a log a line now and then.

Such a line, and that by which a run says that it is over, is what `of_log` reads.
"""

import io
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from squentropy.base.output import one_line, unchanged

SECONDS = 10.0
"""Between lines of a log."""
THERE = "already there"
"""What a run says that was over before."""

_LINE = re.compile(r"(\S+): (?:(\d+) of (\d+) iterations|(\d+) iterations, |(already there)$)")


class Come(NamedTuple):
    """How far a run has come by its job's log."""

    done: int
    of: int
    """Iterations; both 1 where it was over before."""
    over: bool
    now: bool
    """Whether this job has trained it."""


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


def of_log(path: Path) -> dict[str, Come]:
    """How far each run has come that a job's log names, by its name; empty without a log."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    found = {}
    for match in filter(None, map(_LINE.match, lines)):
        name, done, of, length, there = match.groups()
        if of:
            found[name] = Come(int(done), int(of), False, True)
        elif there:
            found[name] = Come(1, 1, True, False)
        else:
            found[name] = Come(int(length), int(length), True, True)
    return found


def left(seconds: float) -> str:
    """A time that is left, as 40 s, 6 min or 2.5 h."""
    if seconds < 95:
        return f"{max(10, round(seconds, -1)):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 95 * 60 else f"{seconds / 3600:.1f} h"
