"""Shared parts of the training commands: their options, finding cells and training them."""

from collections.abc import Mapping
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
    str,
    typer.Option(help="A loss, such as mse or squentropy-0.1.", autocompletion=completion.losses),
]
GridLoss = Annotated[
    str, typer.Option(help="A loss in the study's grid.", autocompletion=completion.losses)
]
Phase = Annotated[
    str,
    typer.Option(
        help="Phase whose schedule to use: sweep, refine, final or reported.",
        autocompletion=completion.phases,
    ),
]
Stacked = Annotated[
    bool | None,
    typer.Option(
        "--stacked/--one-by-one",
        help="Train cells of the same depth at once, or one by one. Default: at once on a GPU.",
    ),
]
Resume = Annotated[
    bool, typer.Option(help="Resume from an unfinished run's state, and save states; or neither.")
]


def of_study(study: "Study", given: str) -> str:
    """The loss in the study's grid with this name or folder name."""
    loss = _loss(given)
    if loss not in study.sweep.losses:
        raise SquentropyError(f"--loss {given}: is not in the grid of {study.study}")
    return loss


def launched(study: "Study") -> bool:
    """Run this command in several processes if the study asks for it; returns whether it did."""
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
    """Train cells one by one in this process, each into its folder in CHECKPOINTS."""
    from squentropy.tokens.token_files import TokenFolder

    folder = TokenFolder.open(tokens)
    if launched(study):
        return
    for cell in cells:
        train_one(study, cell, folder, checkpoints / cell.name, states)


def train_at_once(
    study: "Study", cells: list["Cell"], tokens: Path, checkpoints: Path, states: Path | None
) -> None:
    """Train cells of the same depth at once, each into its folder in CHECKPOINTS."""
    from squentropy.tokens.token_files import TokenFolder
    from squentropy.training.stacked import train_stacks

    if study.train.processes > 1:
        raise SquentropyError(
            f"--stacked: cells are trained at once in one process, but train.processes is "
            f"{study.train.processes}; set it to 1, or use --one-by-one"
        )
    folder = TokenFolder.open(tokens)
    for cell, trained in train_stacks(study, cells, folder, checkpoints, states):
        _tell(cell, trained)


def train_one(
    study: "Study", cell: "Cell", tokens: "TokenFolder", out: Path, states: Path | None
) -> None:
    """Train a cell and print the outcome."""
    from squentropy.training.run import train_run

    _tell(cell, train_run(study, cell, tokens, out, states))


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
    """The cell that the options describe. Raises SquentropyError that names the wrong option.

    given  a value for each grid key; ignored if `selected` is given
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
    """Parse KEY=VALUE words. Raises SquentropyError with the fix."""
    from squentropy.study.grid import GRID_KEYS

    point: dict[str, float | int] = {}
    for word in words:
        key, _, text = word.partition("=")
        if key not in GRID_KEYS:
            raise SquentropyError(
                f"--at {word}: give a value for one of {', '.join(GRID_KEYS)}, such as lr=0.001"
            )
        try:
            value = float(text)
        except ValueError:
            raise SquentropyError(f"--at {word}: write a number, such as {key}=0.1") from None
        point[key] = int(text) if text.strip().isdigit() else value
    return point


def _loss(text: str) -> str:
    """The loss with this name or slug. Raises SquentropyError with the fix."""
    try:
        return name_of_slug(text)
    except ValueError as error:
        raise SquentropyError(f"--loss {text}: {error}") from None
