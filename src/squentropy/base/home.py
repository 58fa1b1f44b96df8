"""A home for what other programs keep: caches of Snakemake, matplotlib and DVC."""

import contextlib
import os
from pathlib import Path

BASES = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")


def ensure(folder: Path) -> None:
    """Where the person's home is missing or cannot be written to, one below `folder` is it instead.

    For this process and those that it starts. So it is for users without a home, as in containers.
    """
    home = Path(os.path.expanduser("~"))
    if home.is_absolute() and home.is_dir() and os.access(home, os.W_OK):
        return
    mine = folder.absolute() / ".snakemake" / "squentropy" / "home"
    with contextlib.suppress(OSError):  # whoever needs it will say so
        mine.mkdir(parents=True, exist_ok=True)
    os.environ["HOME"] = str(mine)
    os.environ.setdefault("USER", "nobody")  # a user without a home may have no name either
    for base in BASES:
        if not os.access(os.environ.get(base, "/"), os.W_OK):
            os.environ.pop(base, None)
