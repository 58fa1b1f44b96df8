"""An unfinished run's state, from which the same command goes on.

    state/checkpoints/grammar/final/mse/seed1.safetensors

It lies apart from the run's folder, which Snakemake empties and DVC tracks. One file, written
whole or not at all: weights and optimizer as tensors, and beside them the iteration, the losses,
the history, and what the run is a function of. Batches and dropout masks are functions of the
seed and the iteration, so there is no generator's state to keep.
"""

import contextlib
import hashlib
import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import safetensors
import safetensors.torch
from torch import Tensor

from squentropy import storage


@dataclass
class Progress:
    """How far a run has come: iterations done, their losses, the history so far."""

    iteration: int = 0
    losses: list[float] = field(default_factory=list)
    history: list[dict] = field(default_factory=list)


@dataclass(frozen=True)
class StateFile:
    """Where the state of one run is kept; `origin` is what the run is a function of."""

    path: Path
    origin: dict

    def save(self, progress: Progress, tensors: dict[str, Tensor]) -> None:
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        state = json.dumps(vars(progress) | {"origin": self.origin})
        metadata = {"state": state, "sha256": _digest(state, tensors)}
        with storage.atomic(self.path) as path:
            path.write_bytes(safetensors.torch.save(tensors, metadata))

    def load(self, tensors: dict[str, Tensor]) -> Progress:
        """The progress that is kept, its numbers put into `tensors`; none where nothing fits.

        A state that is damaged, or another run's, is left alone and named on stderr.
        """
        if not self.path.is_file():
            return Progress()
        try:
            with safetensors.safe_open(self.path, "pt") as file:
                metadata = file.metadata()
                kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if metadata["sha256"] != _digest(metadata["state"], kept):
                return self._refuse("is damaged")
            state = json.loads(metadata["state"])
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError, OSError):
            return self._refuse("is damaged")
        origin = state.pop("origin")
        if origin != self.origin:
            changed = ", ".join(_differences(origin, self.origin))
            return self._refuse(f"belongs to a run with other {changed}")
        for name, tensor in tensors.items():
            tensor.detach().copy_(kept[name])
        return Progress(**state)

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)

    def _refuse(self, why: str) -> Progress:
        print(f"squentropy: {self.path}: {why}; training from the start", file=sys.stderr)
        return Progress()


def _digest(state: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy())
    return digest.hexdigest()


def _differences(old: dict, new: dict, where: str = "") -> list[str]:
    """The keys, with dots, whose values differ."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{where}{key}.")
        elif a != b:
            found.append(f"{where}{key}")
    return found


class Stop:
    """Whether this process was asked to end, as a scheduler or Ctrl-C does; `signal` says how."""

    signal: int | None = None


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """SIGTERM and SIGINT are noted, for a run to save its state before it ends."""
    stop = Stop()

    def note(number, frame):
        stop.signal = number

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
