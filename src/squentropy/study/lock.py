"""One study, one Snakemake at a time: a lock that ends with the process that holds it.

Snakemake's own outlives a kill, and has then to be removed by hand; the kernel frees this one.
"""

import fcntl
import os
import socket
import time
from pathlib import Path
from typing import TextIO

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.base.output import say

_held: list[TextIO] = []  # open, and so locked, until this process ends


def hold(path: Path) -> None:
    """Hold the lock of a path until this process ends, however it ends.

    Raises SquentropyError with the holder's name where another process holds it, and where the path
    is no plain file's. Says so on stderr
    where the file system has no locks, as some that clusters share.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = storage.plain(path).open("a+", encoding="utf-8")
    except OSError as error:
        raise SquentropyError(f"{path}: cannot be opened: {error.strerror}") from None
    try:
        _lock(file)
    except BlockingIOError:
        file.seek(0)
        holder = file.read()
        file.close()
        raise SquentropyError(
            f"{path.stem}: this study is being run already, by {holder}; wait for it, or stop it"
        ) from None
    except OSError as error:
        say(
            f"{path}: cannot be locked ({error.strerror}), so nothing keeps a second Snakemake "
            "from running this study at the same time; start only one"
        )
    file.truncate(0)
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}")
    file.flush()
    _held.append(file)


def holder(path: Path) -> str | None:
    """Who holds the lock of a path, in words; None where nobody does."""
    try:
        with storage.plain(path).open(encoding="utf-8", errors="replace") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read() or "another process"
    except (OSError, SquentropyError):  # never held, or no file that could be
        pass
    return None


def _lock(file: TextIO) -> None:
    """Tried twice, since `holder` has the lock for a moment while it looks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(0.1)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
