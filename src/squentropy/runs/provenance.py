"""Where, when and with which software a run was trained: RUN/provenance.json.

This is the only file of a run that is not determined by parameters, data and code, so neither DVC
nor the tables read it.
"""

import functools
import os
import platform
import subprocess
import time
from importlib.metadata import version
from typing import Any

import torch

from squentropy.lm.devices import arithmetic, processor
from squentropy.study.digests import SOURCE

PACKAGES = ("squentropy", "torch", "numpy", "safetensors", "tiktoken", "rustbpe", "snakemake")


def describe(device: torch.device, processes: int, started: float, resumed: bool) -> dict[str, Any]:
    """The provenance of a run that started at `started` (seconds since the epoch) and ends now."""
    return {
        **_commit(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES if _is_installed(name)},
        "platform": platform.platform(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "device": device.type,
        "arithmetic": arithmetic(device),
        "processes": processes,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "seconds": round(time.time() - started, 1),
        "resumed": resumed,
    }


@functools.cache
def _commit() -> dict[str, Any]:
    """The commit of the code and whether tracked files differ from it; None if git fails."""

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "--no-optional-locks", *words], cwd=SOURCE, capture_output=True, text=True
            )
        except OSError:
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    changed = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if changed is None else bool(changed)}


def _is_installed(name: str) -> bool:
    try:
        version(name)
    except ModuleNotFoundError:
        return False
    return True
