"""What the commands that train have in common: the cells they mean, and how one is trained."""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from squentropy.base import progress
from squentropy.base.errors import SquentropyError
from squentropy.cli import completion
from squentropy.study.catalogue import PHASES, name_of_slug

if TYPE_CHECKING:
    from squentropy.study.grid import Cell
    from squentropy.study.params import Study
    from squentropy.tokens.token_files import TokenFolder
    from squentropy.training.run import Trained

Loss = Annotated[
    str, typer.Option(help="A loss, as mse or squentropy-0.1.", autocompletion=completion.losses)
]
GridLoss = Annotated[
    str, typer.Option(help="A loss of the study's grid.", autocompletion=completion.losses)
]
Phase = Annotated[
    str,
    typer.Option(
        help="Whose schedule: sweep, refine, final or reported.", autocompletion=completion.phases
    ),
]
Stacked = Annotated[
    bool | None,
    typer.Option(
        "--stacked/--one-by-one",
        help="Train cells of one depth at once, or each by itself; else at once on a GPU alone.",
    ),
]
Resume = Annotated[
    bool, typer.Option(help="Go on from an unfinished run's state, and save one; or do neither.")
]


def of_study(study: "Study", given: str) -> str:
    """The loss of the study's grid that is meant by its name or its folder's."""
    loss = _loss(given)
    if loss not in study.sweep.losses:
        raise SquentropyError(f"--loss {given}: is not in the grid of {study.study}")
    return loss


def launched(study: "Study") -> bool:
    """Whether this command has been run to its end in the processes that the study asks for."""
    if study.train.processes == 1:
        return False

    from squentropy.training import distributed

    if distributed.started():
        return False
    distributed.launch(study.train.processes)
    return True


def train_each(
    study: "Study", cells: list["Cell"], tokens: Path, checkpoints: Path, states: Path | None
) -> None:
    """Train cells one after the other in one process, each into its folder of CHECKPOINTS."""
    from squentropy.tokens.token_files import TokenFolder

    folder = TokenFolder.open(tokens)
    if launched(study):
        return
    for cell in cells:
        train_one(study, cell, folder, checkpoints / cell.name, states)


def train_at_once(
    study: "Study", cells: list["Cell"], tokens: Path, checkpoints: Path, states: Path | None
) -> None:
    """Train cells of one depth at once, each into its folder of CHECKPOINTS."""
    from squentropy.tokens.token_files import TokenFolder
    from squentropy.training.stacked import train_stacks

    if study.train.processes > 1:
        raise SquentropyError(
            f"--stacked: train.processes is {study.train.processes}, and cells at once take one; "
            "write 1, or --one-by-one"
        )
    folder = TokenFolder.open(tokens)
    for cell, trained in train_stacks(study, cells, folder, checkpoints, states):
        _tell(cell, trained)


def train_one(
    study: "Study", cell: "Cell", tokens: "TokenFolder", out: Path, states: Path | None
) -> None:
    """Train a cell, and say how it went."""
    from squentropy.training.run import train_run

    with outlived_by_lost_ones(study.train.processes):
        trained = train_run(study, cell, tokens, out, states)
    _tell(cell, trained)


PATIENCE = 10.0
"""Seconds that a process whose run has lost another waits for the launcher to end it."""


@contextlib.contextmanager
def outlived_by_lost_ones(processes: int) -> Iterator[None]:
    """Where another process of a run of several has gone, let the launcher end this one.

    The launcher looks ten times a second and names a process that it then finds ended: by its
    number, not by its time, where there are two. So this one, which only noticed, must not be among
    them. Raises SquentropyError if no launcher comes, as where the lost one ran on another machine.
    """
    if processes == 1:
        yield
        return

    from squentropy.training.distributed import Group

    try:
        with Group(int(os.environ["RANK"]), processes).noticing_lost_ones():
            yield
    except SquentropyError as error:
        if isinstance(error.__cause__, RuntimeError):
            time.sleep(PATIENCE)
        raise


def _tell(cell: "Cell", trained: "Trained") -> None:
    run, now, first = trained
    if first and not now:
        print(f"{cell.name}: {progress.THERE}")
    elif first:
        nll = run["validation_nll"]
        how = f"diverged at {run['diverged_at']}" if nll is None else f"validation nll {nll:.4f}"
        print(f"{cell.name}: {run['iterations']} iterations, {how}", flush=True)


def cell_of(
    study: "Study",
    phase: str,
    loss: str,
    given: Mapping[str, float | int | None],
    seed: int | None,
    selected: Path | None,
) -> "Cell":
    """The cell that the options name. Raises SquentropyError with the option that is wrong.

    given  a value of each key of the grid; None if it is to come from `selected`
    """
    if phase not in PHASES:
        raise SquentropyError(f"--phase {phase}: no such phase; there are: {', '.join(PHASES)}")
    loss = _loss(loss)
    if phase == "lengths":
        raise SquentropyError("--phase lengths: `squentropy lengths` trains these runs")
    if selected is not None:
        from squentropy.runs.records import chosen_for

        given = dict(chosen_for(loss, selected))
    from squentropy.study.grid import GRID_KEYS

    missing = [f"--{key.replace('_', '-')}" for key in GRID_KEYS if given.get(key) is None]
    if missing:
        raise SquentropyError(f"train: give {', '.join(missing)}, or --selected")
    seed = study.sweep.seed if seed is None else seed

    from squentropy.study.params import make_cell

    return make_cell(phase, "train", loss=loss, seed=seed, **given)


def point_of(words: list[str]) -> dict[str, float | int]:
    """The values of KEY=VALUE words. Raises SquentropyError with the fix."""
    from squentropy.study.grid import GRID_KEYS

    point: dict[str, float | int] = {}
    for word in words:
        key, _, text = word.partition("=")
        if key not in GRID_KEYS:
            raise SquentropyError(f"--at {word}: name one of {', '.join(GRID_KEYS)}, as lr=0.001")
        try:
            value = float(text)
        except ValueError:
            raise SquentropyError(f"--at {word}: write a number, as {key}=0.1") from None
        point[key] = int(text) if text.strip().isdigit() else value
    return point


def _loss(text: str) -> str:
    """The loss of this name or slug. Raises SquentropyError with the fix."""
    try:
        return name_of_slug(text)
    except ValueError as error:
        raise SquentropyError(f"--loss {text}: {error}") from None
