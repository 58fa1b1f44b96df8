"""An unfinished run's state, from which the same command goes on.

    state/grammar/final/mse/seed1/8a3f90c2d1e4.safetensors

Its name holds a digest of all that the run's bits depend on, so a run finds its own state and no
other's. One file, written whole or not at all: weights and optimizer as tensors, and beside them
the losses and the history so far. Batches and dropout masks are functions of the seed and the
iteration, so there is no generator's state to keep. The folder lies apart from the runs' own,
which Snakemake empties and DVC tracks.
"""

import contextlib
import hashlib
import json
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.base.output import say
from squentropy.study.overlays import differences

FORMAT = "1"
"""Of a state file; a change of what it holds raises it."""


class _OtherFormat(Exception):
    """A file that holds a state of another format, or none."""


@dataclass
class Progress:
    """How far a run has come: the loss of each iteration done, and the history so far."""

    losses: list[float] = field(default_factory=list)
    history: list[dict] = field(default_factory=list)


@dataclass(frozen=True)
class StateFile:
    """The state of the run of a name, below a folder of states; `origin` is what it depends on."""

    states: Path
    name: str
    origin: dict

    @property
    def folder(self) -> Path:
        return self.states / self.name

    @property
    def path(self) -> Path:
        digest = hashlib.sha256(json.dumps(self.origin, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{digest[:12]}.safetensors"

    def save(self, progress: Progress, tensors: dict[str, Tensor]) -> None:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        state = json.dumps(vars(progress) | {"origin": self.origin})
        metadata = {"format": FORMAT, "state": state, "sha256": _digest(state, tensors)}
        with storage.atomic(self.path) as path:
            path.write_bytes(safetensors.torch.save(tensors, metadata))

    def load(self, tensors: dict[str, Tensor]) -> Progress:
        """The progress that is kept, its numbers put into `tensors`; none where none is kept.

        States of the folder that are damaged, or another run's, are left alone and named on stderr.
        """
        progress = Progress()
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                state, kept = _read(storage.plain(path), whole=path == self.path)
            except SquentropyError as error:
                say(f"{error}; it is not used")
                continue
            except _OtherFormat as error:
                say(f"{path}: is of format {error}, not {FORMAT}, so it is not used; delete it")
                continue
            except (safetensors.SafetensorError, KeyError, TypeError, ValueError):
                say(f"{path}: is damaged, so it is not used; delete it")
                continue
            except OSError as error:
                raise SquentropyError(f"{path}: cannot be read: {error}") from None
            origin = state.pop("origin")
            if origin != self.origin:
                changed = ", ".join(differences(origin, self.origin))
                say(f"{path}: belongs to a run with other {changed}, so it is not used")
                continue
            for name, tensor in tensors.items():
                tensor.detach().copy_(kept[name])
            progress = Progress(**state)
        return progress

    def remove(self) -> None:
        """And the folders of its name that it leaves empty."""
        self.path.unlink(missing_ok=True)
        names = Path(self.name, "_").parents
        with contextlib.suppress(OSError):  # not empty, or not there
            for name in [name for name in names if name != Path()]:
                (self.states / name).rmdir()


def _read(path: Path, whole: bool) -> tuple[dict, dict[str, Tensor]]:
    """What is kept in a file; without its tensors, and unverified, where not `whole`."""
    with safetensors.safe_open(path, "pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise _OtherFormat(metadata.get("format", "unknown"))
        kept = {name: file.get_tensor(name) for name in file.keys()} if whole else {}  # noqa: SIM118
    if whole and metadata["sha256"] != _digest(metadata["state"], kept):
        raise ValueError
    return json.loads(metadata["state"]), kept


def _digest(state: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().data)
    return digest.hexdigest()


class Stop:
    """Whether this process was asked to end, as a scheduler or Ctrl-C does; `signal` says how."""

    signal: int | None = None


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """SIGTERM and SIGINT are noted, for a run to save its state or to end; then SIGINT acts.

    More SIGTERM change nothing: a job that is out of time gets two of Slurm at once, and in time
    SIGKILL. Where the block ends by itself, the signal that was noted acts after it.
    """
    stop = Stop()
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number, frame) -> None:
        if stop.signal is None:
            stop.signal = number
        elif number == signal.SIGINT:
            restore()
            signal.raise_signal(number)

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):  # ignored, or not Python's to restore
                before[number] = signal.signal(number, note)
    try:
        yield stop
    finally:
        restore()
    if stop.signal is not None:
        signal.raise_signal(stop.signal)
