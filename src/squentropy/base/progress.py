"""Progress of long work, on stderr: a bar on a terminal, a line every few seconds in a log.

`of_log` reads these lines, and the line that a run prints when it has finished.
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
"""Minimum time between lines of a log."""
THERE = "already there"
"""What is printed for a run that had finished before."""

_LINE = re.compile(
    r"(\S+): (?:(\d+) of (\d+) iterations(, resumed$)?|(\d+) iterations, |(already there)$)"
)


class Come(NamedTuple):
    """The progress of a run according to its job's log."""

    done: int
    of: int
    """Iterations; `done` and `of` are 1 if the run had finished before."""
    over: bool
    now: bool
    """Whether this job trained it."""
    before: int = 0
    """Iterations of an earlier job, which this one resumed from."""

    @property
    def trained(self) -> float:
        """The share of the run that this job has trained."""
        return (self.done - self.before) / self.of if self.now else 0.0


class _Lines(tqdm):
    """tqdm that prints whole lines, and none at the start and the end of the work."""

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        if self.n not in (self.initial, self.total):
            print(str(self), file=sys.stderr, flush=True)


def bar(work: Iterable, name: str, unit: str, shown: bool = True, of: int | None = None) -> Any:
    """Iterate over `work` and show progress; has `set_postfix_str`, as tqdm.

    unit  in the plural
    of    the length, if `work` has none

    For a range, the numbers before its start count as done.
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
    if shown and isinstance(work, range) and work.start:
        print(f"{about['desc']}: {work.start} of {work.stop} {unit}, resumed", file=sys.stderr)
    return _Lines(
        work, **about, file=io.StringIO(), mininterval=SECONDS, miniters=1, bar_format=line
    )


def of_log(path: Path) -> dict[str, Come]:
    """The progress of each run in a job's log, by run name; empty if there is no log."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    found: dict[str, Come] = {}
    for match in filter(None, map(_LINE.match, lines)):
        name, done, of, resumed, length, there = match.groups()
        before = int(done) if resumed else found[name].before if name in found else 0
        if of:
            found[name] = Come(int(done), int(of), False, True, before)
        elif there:
            found[name] = Come(1, 1, True, False)
        else:
            found[name] = Come(int(length), int(length), True, True, before)
    return found


def left(seconds: float) -> str:
    """Remaining time, as 40 s, 2.5 min, 6 min or 2.5 h: rounded by at most 15 % from 30 s on."""
    minutes = seconds / 60
    if seconds < 95:
        return f"{max(10, round(seconds, -1)):.0f} s"
    if minutes < 5:
        return f"{round(2 * minutes) / 2:g} min"
    return f"{minutes:.0f} min" if minutes < 95 else f"{minutes / 60:.1f} h"
