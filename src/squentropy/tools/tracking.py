"""Export the losses of unfinished runs as files for plotting programs.

    squentropy live
    dvc plots show live/grammar/final/mse/seed1/loss.tsv -x iteration
    tensorboard --logdir live

They are read from the states that runs save every train.state_interval iterations, so training
does no extra work. For finished runs, see hosted.py.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors

from squentropy.base import storage
from squentropy.base.errors import SquentropyError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

COLUMNS = {"loss.tsv": ("loss",), "nll.tsv": ("train_nll", "validation_nll")}


def export(states: Path, out: Path, tensorboard: bool = False) -> list[Path]:
    """Write the losses of every unfinished run below `states` into a folder with its name in `out`.

    With `tensorboard`, iterations that are new since the last call are also appended as TensorBoard
    events. Returns the runs' folders.
    """
    folders = []
    for path in sorted(states.rglob("*.safetensors")):
        folder = out / path.parent.relative_to(states)
        try:
            progress = saved(path)
        except (FileNotFoundError, safetensors.SafetensorError):
            continue  # the run has just ended, or will itself report the damage
        tables = _tables(progress)
        known = {name: _known(folder / name) for name in tables}
        if any(tables[name][: len(rows)] != rows for name, rows in known.items()):
            forget(folder)  # written for another run of this name
            known = {name: [] for name in tables}
        for name, rows in tables.items():
            if tensorboard:
                _add_events(folder, COLUMNS[name], rows[len(known[name]) :])
            head = "\t".join(("iteration", *COLUMNS[name]))
            storage.write_text(folder / name, "\n".join([head, *map("\t".join, rows)]) + "\n")
        folders.append(folder)
    return folders


def saved(path: Path) -> dict[str, Any]:
    """The metadata of a state file: losses, history, and what the run depends on.

    Raises safetensors.SafetensorError or another read error if the file is damaged, and
    SquentropyError if it is not a regular file.
    """
    with safetensors.safe_open(storage.plain(path), "numpy") as file:
        return json.loads(file.metadata()["state"])


def _tables(progress: dict[str, Any]) -> dict[str, list[list[str]]]:
    losses = enumerate(progress["losses"], start=1)
    return {
        "loss.tsv": [[str(iteration), f"{loss:.6g}"] for iteration, loss in losses],
        "nll.tsv": [
            [str(entry["iteration"]), *(f"{entry[key]:.6g}" for key in COLUMNS["nll.tsv"])]
            for entry in progress["history"]
        ],
    }


def forget(folder: Path) -> None:
    """Remove the files that were written here for another run, and no others."""
    for path in [*folder.glob("events.out.tfevents.*"), *(folder / name for name in COLUMNS)]:
        path.unlink(missing_ok=True)


def _known(path: Path) -> list[list[str]]:
    """The rows that the last call wrote."""
    if not path.is_file():
        return []
    return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]


def _add_events(folder: Path, columns: tuple[str, ...], rows: list[list[str]]) -> None:
    with summary_writer()(folder) as writer:
        for iteration, *values in rows:
            for column, value in zip(columns, values):
                writer.add_scalar(column, float(value), int(iteration))


def summary_writer() -> type["SummaryWriter"]:
    """TensorBoard's event writer. Raises SquentropyError if TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise SquentropyError("tensorboard: is not installed; `pip install tensorboard`") from None
    return SummaryWriter
