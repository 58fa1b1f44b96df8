"""A home folder for the caches of other programs: Snakemake, matplotlib and DVC."""

import contextlib
import os
from pathlib import Path

BASES = ("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME")


def ensure(folder: Path) -> None:
    """Use a home below `folder` if the user's own is missing or not writable, as in containers.

    This applies to the current process and its children.
    """
    home = Path(os.path.expanduser("~"))
    if home.is_absolute() and home.is_dir() and os.access(home, os.W_OK):
        return
    mine = folder.absolute() / ".snakemake" / "squentropy" / "home"
    with contextlib.suppress(OSError):  # a program that needs it reports the error
        mine.mkdir(parents=True, exist_ok=True)
    os.environ["HOME"] = str(mine)
    os.environ.setdefault("USER", "nobody")  # a user without a home may have no name either
    for base in BASES:
        if not os.access(os.environ.get(base, "/"), os.W_OK):
            os.environ.pop(base, None)
