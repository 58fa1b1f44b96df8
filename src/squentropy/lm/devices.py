"""The device and precision of a run."""

import contextlib
import fcntl
import os
import platform
import stat
import tempfile
from pathlib import Path
from typing import TextIO

import torch

from squentropy.base.errors import SquentropyError
from squentropy.lm.matmul import multiplies_bfloat16

_claims: dict[str, TextIO] = {}  # by id; released when the process ends, even if it is killed


def pick_device(name: str, runs_per_gpu: int = 1) -> torch.device:
    """The device for a name from params.yaml. Raises SquentropyError if there is none.

    For cuda, a GPU that fewer than `runs_per_gpu` other runs on this machine have claimed.
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
        index = claim(ids, Path(tempfile.gettempdir()), runs_per_gpu)
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
        return device
    return torch.device(name)


def claim(ids: list[str], folder: Path, runs_per_gpu: int = 1) -> int:
    """Claim one of the ids until this process ends; returns its index.

    Chooses the id that the fewest processes have claimed. A process that already has one keeps it.
    Raises SquentropyError if every id is claimed by `runs_per_gpu` processes.
    """
    for index, name in enumerate(ids):
        if name in _claims:
            return index
    for place in range(runs_per_gpu):
        for index, name in enumerate(ids):
            file = _lock(folder / f"squentropy-{name}-{place}.lock")
            if file is not None:
                _claims[name] = file
                return index
    raise SquentropyError(
        f"train.device = cuda: each of this machine's {len(ids)} GPUs is in use by "
        f"{runs_per_gpu} of these runs; wait for one, raise train.runs_per_gpu, or write cpu"
    )


def _lock(path: Path) -> TextIO | None:
    """The open file, locked until it is closed; None if another process has locked it."""
    # Any user can write to the folder, so do not follow links or block on a pipe.
    how = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        with contextlib.suppress(FileExistsError):
            made = os.open(path, how | os.O_CREAT | os.O_EXCL)
            os.fchmod(made, 0o644)  # other users can lock it if they can read it
            os.close(made)
        number = os.open(path, how)
    except OSError as error:
        raise SquentropyError(f"{path}: cannot serve as a GPU's lock: {error}; delete it") from None
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise SquentropyError(f"{path}: cannot serve as a GPU's lock: not a plain file; delete it")
    file = os.fdopen(number)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file


def arithmetic(device: torch.device) -> dict[str, str]:
    """Everything besides the code that must be equal for bit-identical results.

    The processor and, on a CPU, the instruction sets that torch and its libraries use.
    """
    if device.type == "cuda":
        return {"processor": torch.cuda.get_device_name(device)}
    limits = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS", "MKL_CBWR")
    return {
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    } | {name: os.environ[name] for name in limits if name in os.environ}


def processor() -> str:
    """The CPU's name, or the machine's architecture if the name is unavailable."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def pick_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype for a name from params.yaml.

    Raises SquentropyError if it is bfloat16 and this CPU has no instructions for it.
    """
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name == "bfloat16" and device.type == "cpu" and not multiplies_bfloat16():
        raise SquentropyError(
            "train.dtype = bfloat16: this processor has neither AVX512_BF16 nor AMX to multiply it "
            "with; write auto or float32"
        )
    return getattr(torch, name)
