"""Which processor a run uses."""

import fcntl
import tempfile
from pathlib import Path
from typing import TextIO

import torch

from squentropy.errors import SquentropyError

_claims: dict[str, TextIO] = {}  # by id; held until the process ends, however it ends


def pick_device(name: str) -> torch.device:
    """The device of a name as in params.yaml. Raises SquentropyError where it is absent.

    Of several GPUs, one that no other run of this machine has claimed.
    """
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(n for n in ("cuda", "mps", "cpu") if available[n])
    if not available[name]:
        raise SquentropyError(f"train.device = {name}: this machine has none; write auto or cpu")
    if name == "cuda":
        count = torch.cuda.device_count()
        ids = [str(torch.cuda.get_device_properties(i).uuid) for i in range(count)]
        device = torch.device("cuda", claim(ids, Path(tempfile.gettempdir())))
        torch.cuda.set_device(device)
        return device
    return torch.device(name)


def claim(ids: list[str], folder: Path) -> int:
    """The index of the first id that no other process holds, claimed until this process ends.

    A process that has one already keeps it. Where all are held the first is shared: Snakemake's
    resource `gpu` is what limits the runs.
    """
    for index, name in enumerate(ids):
        if name in _claims:
            return index
    for index, name in enumerate(ids):
        try:
            file = (folder / f"squentropy-{name}.lock").open("a")
        except PermissionError:  # another user's
            continue
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            continue
        _claims[name] = file
        return index
    return 0


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return getattr(torch, name)
