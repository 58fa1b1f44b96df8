"""The training state of an unfinished run, from which the same command resumes.

    state/grammar/final/mse/seed1/8a3f90c2d1e4.safetensors

The file name contains a digest of everything that determines the run's result, so a run finds only
its own state. The file is written atomically. It contains the weights and the optimizer as tensors,
and the losses and the history so far. Batches and dropout masks are functions of the seed and the
iteration, so there is no generator state to save. States are kept apart from the run folders, which
Snakemake empties and DVC tracks.
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
"""Format version of state files; increase it when their contents change."""


class _OtherFormat(Exception):
    """A state file of another or unknown format."""


@dataclass
class Progress:
    """A run's progress: the loss of each completed iteration, and the history so far."""

    losses: list[float] = field(default_factory=list)
    history: list[dict] = field(default_factory=list)


@dataclass(frozen=True)
class StateFile:
    """The state of a run below the folder `states`; `origin` is what the run depends on."""

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
        """Restore `tensors` from the saved state and return its progress; empty without a state.

        Damaged states in the folder, and those of other runs, are reported on stderr and left as
        they are.
        """
        progress = Progress()
        for path in sorted(self.folder.glob("*.safetensors")):
            try:
                state, kept = _read(storage.plain(path), whole=path == self.path)
            except SquentropyError as error:
                say(f"{error}; it is not used")
                continue
            except _OtherFormat as error:
                say(f"{path}: has format {error}, not {FORMAT}, so it is not used; delete it")
                continue
            except (safetensors.SafetensorError, KeyError, TypeError, ValueError):
                say(f"{path}: is damaged, so it is not used; delete it")
                continue
            except OSError as error:
                raise SquentropyError(f"{path}: cannot be read: {error}") from None
            origin = state.pop("origin")
            if origin != self.origin:
                changed = ", ".join(differences(origin, self.origin))
                say(f"{path}: belongs to a run that differs in {changed}, so it is not used")
                continue
            for name, tensor in tensors.items():
                tensor.detach().copy_(kept[name])
            progress = Progress(**state)
        return progress

    def remove(self) -> None:
        """Delete the file, and the folders of its name if they are now empty."""
        self.path.unlink(missing_ok=True)
        names = Path(self.name, "_").parents
        with contextlib.suppress(OSError):  # not empty, or not there
            for name in [name for name in names if name != Path()]:
                (self.states / name).rmdir()


def _read(path: Path, whole: bool) -> tuple[dict, dict[str, Tensor]]:
    """The state and the tensors in a file; without `whole`, no tensors and no verification."""
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
    """Records the signal by which a scheduler or Ctrl-C asked this process to stop, if any."""

    signal: int | None = None


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Record the first SIGTERM or SIGINT instead of acting on it, so that a run saves its state.

    A later SIGINT acts at once. A later SIGTERM is ignored, because Slurm sends two at once to a
    job that is out of time, and SIGKILL some time later. If the block ends normally, the recorded
    signal is raised after it.
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
