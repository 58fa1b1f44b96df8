"""A study in the terminal: its tables and its progress.

    squentropy show                     the default study
    squentropy show smoke               another one, by its name, file or results folder
    squentropy show --watch             its progress, updated while it is running

A page is a list of text lines and tables. `print_page` formats it for a terminal, or as plain text
with Markdown for a file.
"""

import textwrap
import time
from dataclasses import dataclass
from itertools import groupby

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.base.output import one_line, visible
from squentropy.report.read import Results, read
from squentropy.report.sections.pieces import reading_name
from squentropy.report.sections.verdict import evidence, headline, sentences
from squentropy.report.summary import baselines_table, final_table, markdown
from squentropy.study.grid import GRID_KEYS, NAMES
from squentropy.study.layout import Places
from squentropy.study.overlays import differences
from squentropy.study.params import Study
from squentropy.tools.progress import STATES, Progress, Run, progress

COLOURS = {
    "done": "green",
    "diverged": "yellow",
    "running": "cyan",
    "unfinished": "cyan",
    "failed": "red",
    "outdated": "yellow",
    "waiting": "dim",
}


ELSEWHERE = ("perplexity",)  # exp of the nll, omitted because a terminal is narrow


@dataclass(frozen=True)
class Table:
    title: str
    columns: list[str]
    rows: list[list[str]]
    only_plain: tuple[str, ...] = ()
    """Columns that are omitted in a terminal."""


def page(study: Study, places: Places) -> list[str | Table]:
    """The page of a study at any stage."""
    so_far = progress(study, places)
    parts: list[str | Table] = [_who(study, so_far)]
    try:
        results = read(places.results)
        if changed := differences(results.study.table_keys(), study.table_keys()):
            parts.append(f"Its tables were made with a different {', '.join(changed)}.")
        parts += [_verdict(results), _final(results), *_baselines(results)]
    except SquentropyError as error:
        results = None
        if (places.results / "manifest.json").exists():
            parts.append(str(error))
    parts += _selected(places)
    parts += _grid(study, so_far, results)
    if so_far.begun or results is None:
        parts += [_steps(so_far), *_lists(study, so_far)]
    else:
        parts.append(
            "Its tables are here, but not its runs: `make restore` fetches them if a remote "
            "storage has them, `make study` trains them."
        )
    return parts


def watch(study: Study, places: Places, console: Console, seconds: float = 5.0) -> None:
    """Print a study's progress repeatedly until it is no longer running.

    The study may run on another machine that shares its folder. A terminal is cleared each time.
    """
    while True:
        so_far = progress(study, places)
        said = f"{time.strftime('%H:%M:%S')}  {_who(study, so_far)}"
        console.clear()
        print_page([said, _steps(so_far), *_lists(study, so_far)], console)
        if so_far.holder is None:
            return
        time.sleep(seconds)


def _who(study: Study, so_far: Progress) -> str:
    who = f"is being run by {so_far.holder}" if so_far.holder else "is not being run"
    return f"The study {study.study} {who}."


def _verdict(results: Results) -> str:
    e = evidence(results)
    said = " ".join(sentences(e))
    return f"{headline(e)}{' ' if e.enough or not said else ': '}{said}".rstrip()


def _final(results: Results) -> Table:
    table = final_table(results)
    return Table("Final runs, on test", list(table.columns), table.values.tolist(), ELSEWHERE)


def _baselines(results: Results) -> list[Table]:
    if results.baselines.empty:
        return []
    table = baselines_table(results)
    return [Table("Beside other models, on test", list(table.columns), table.values.tolist())]


def _selected(places: Places) -> list[str | Table]:
    """The selected hyperparameters of each loss; empty before tuning has ended."""
    path = places.results / "selected.json"
    if not path.exists():
        return []
    try:
        losses = storage.read_sealed(path)["losses"]
    except SquentropyError as error:
        return [str(error)]
    rows = []
    for loss, chosen in losses.items():
        cell = [f"{chosen[key]:g}" for key in GRID_KEYS]
        nll = f"{_nll(chosen['selection_nll'])} ({reading_name(chosen['reading'])})"
        lies = "inside" if chosen["inside"] else "at the edge"
        runs = f"{chosen['runs']}{' (the limit)' if chosen['max_runs_reached'] else ''}"
        rows.append([loss, *cell, nll, lies, runs])
    columns = [
        "loss",
        *(NAMES.get(key, key) for key in GRID_KEYS),
        "validation nll",
        "lr lies",
        "runs",
    ]
    return [Table("Selected hyperparameters", columns, rows)]


def _grid(study: Study, so_far: Progress, results: Results | None) -> list[Table]:
    """For each row of the grid, its lowest validation nll and the states of unfinished cells."""
    cells = [run for run in so_far.runs if run.phase == "sweep"]
    if not so_far.begun:
        if results is None:
            return []
        cells = [_from_table(row) for _, row in results.sweep.iterrows()]
    columns = ["loss", *(f"lr {lr:g}" for lr in study.sweep.lr)]
    rows = []
    for loss in study.sweep.losses:
        of_lr = [
            [run for run in cells if (run.loss, run.lr) == (loss, lr)] for lr in study.sweep.lr
        ]
        rows.append([loss, *map(_row_of_grid, of_lr)])
    n_cells = len(study.sweep.points()) // len(study.sweep.lr)
    title = f"The grid: lowest validation nll of {n_cells} cells each"
    return [Table(title, columns, rows)]


def _from_table(row: pd.Series) -> Run:
    nll = row["selection_nll"]
    state = "diverged" if row["status"] == "diverged" else "done"
    return Run("", "sweep", row["loss"], row["lr"], state, nll=None if pd.isna(nll) else nll)


def _row_of_grid(cells: list[Run]) -> str:
    known = [run.nll for run in cells if run.nll is not None]
    said = _not_done(cells)
    return " ".join([_nll(min(known, default=None)), *([f"({said})"] if said else [])])


def _not_done(runs: list[Run]) -> str:
    """The number of runs in each state but done, such as "2 running, 3 waiting"."""
    counts = [(state, sum(run.state == state for run in runs)) for state in STATES]
    return ", ".join(f"{n} {state}" for state, n in counts if n and state != "done")


def _steps(so_far: Progress) -> Table:
    of_phase = {s.name: [r for r in so_far.runs if r.phase == s.name] for s in so_far.steps}
    rows = [[s.name, f"{s.done:,} of {s.of:,}", _not_done(of_phase[s.name])] for s in so_far.steps]
    return Table("Progress", ["step", "done", "of these"], rows)


def _lists(study: Study, so_far: Progress) -> list[str | Table]:
    """Lists of the runs that need attention; those done or waiting are only counted elsewhere."""
    parts: list[str | Table] = []
    columns = ["run", "iteration", "last loss", ""]
    for state in ("running", "unfinished"):
        if runs := so_far.of(state):
            rows = [[run.name, *_how_far(study, run), run.note] for run in runs]
            parts.append(Table(state.capitalize(), columns, rows))
    if so_far.failed:
        rows = [[str(log), line] for log, line in so_far.failed.items()]
        parts.append(Table("Failed", ["log", "last line"], rows))
    if runs := so_far.of("diverged"):
        finals = [run for run in runs if run.phase not in ("sweep", "refine")]
        rows = [[run.name, f"{run.iterations:,}", _loss(run.last_loss)] for run in finals]
        if rows:
            parts.append(Table("Diverged", columns[:3], rows))
    if runs := so_far.of("outdated"):
        same = groupby(sorted(runs, key=_reason), key=_reason)
        rows = [[_several([run.name for run in group]), reason] for reason, group in same]
        parts.append(Table("Outdated, to be trained again", ["run", "why"], rows))
    return parts


def _how_far(study: Study, run: Run) -> list[str]:
    of = study.schedule(run.phase).max_iters
    if not run.iterations:
        return [f"of {of:,}, none saved yet", "—"]
    done = f"{run.iterations:,} of {of:,} ({100 * run.iterations / of:.0f} %)"
    return [done, _loss(run.last_loss)]


def _reason(run: Run) -> str:
    """A run's note without its name, so that runs with the same reason are grouped."""
    return run.note.partition(f"{run.name}/run.json: ")[2] or run.note


def _several(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1:,} more"


def _loss(value: float | None) -> str:
    return "—" if value is None else f"{value:.4g}"


def _nll(value: float | None) -> str:
    return "—" if value is None else f"{value:.3f}"


def print_page(parts: list[str | Table], console: Console) -> None:
    """On a terminal, print in colour, fitted to its width; otherwise plain text with Markdown."""
    for part in parts:
        if not console.is_terminal:
            text = part if isinstance(part, str) else _plain(part)
            console.file.write(f"{text}\n\n")
        elif isinstance(part, str):
            console.print(Text(visible(part)), end="\n\n")
        else:
            console.print(Text(part.title, "bold"))
            console.print(_rich(part, console.width))


def _plain(table: Table) -> str:
    rows = [[one_line(cell) for cell in row] for row in table.rows]
    frame = pd.DataFrame(rows, columns=table.columns, dtype=str)
    return f"{table.title}:\n\n{markdown(frame)}"


NARROW = 20  # minimum width of a column that needs it, in characters


def _rich(table: Table, width: int) -> RichTable:
    """Puts intervals and counts below their number, and wraps headings to the cells' width."""
    rich = RichTable(box=box.SIMPLE, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    columns = {
        name: [_stacked(one_line(row[i])) for row in table.rows]
        for i, name in enumerate(table.columns)
        if name not in table.only_plain
    }
    widths = {
        name: max(len(word) for word in [*name.split(), *"\n".join(cells).splitlines(), ""])
        for name, cells in columns.items()
    }
    least = {name: min(wide, NARROW) for name, wide in widths.items()}
    fits = sum(least.values()) + 2 * len(least) <= width
    for name, wide in widths.items():
        heading = "\n".join(textwrap.wrap(name, max(wide, 1)))
        rich.add_column(Text(heading), overflow="fold", min_width=least[name] if fits else None)
    for cells in zip(*columns.values(), strict=True):
        rich.add_row(*map(_coloured, cells))
    rich.add_row()
    return rich


def _stacked(cell: str) -> str:
    number, _, more = cell.partition(" (")
    return f"{number}\n{more.removesuffix(')').replace(' to ', '…')}" if more else cell


def _coloured(cell: str) -> Text:
    text = Text(cell)
    for state, colour in COLOURS.items():
        text.highlight_words([state], colour)
    return text
