"""A lock that allows one Snakemake per study at a time and ends with the process that holds it.

Snakemake's own lock survives a kill and must then be removed manually; the kernel releases this
one.
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

_held: list[TextIO] = []  # kept open, and so locked, until this process ends


def hold(path: Path) -> None:
    """Hold the lock of a path until this process ends, however it ends.

    Raises SquentropyError if another process holds it, with that process's id and host, or if the
    path is not a regular file. Warns on stderr if the file system does not support locks, as some
    shared ones on clusters.
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
            f"{path.stem}: this study is already being run by {holder}; wait for it, or stop it"
        ) from None
    except OSError as error:
        say(
            f"{path}: cannot be locked ({error.strerror}), so nothing prevents a second Snakemake "
            "from running this study at the same time; start only one"
        )
    file.truncate(0)
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}")
    file.flush()
    _held.append(file)


def holder(path: Path) -> str | None:
    """A description of the process that holds the lock of a path; None if the lock is free."""
    try:
        with storage.plain(path).open(encoding="utf-8", errors="replace") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return file.read() or "another process"
    except (OSError, SquentropyError):  # never locked, or not a file that could be
        pass
    return None


def _lock(file: TextIO) -> None:
    """Lock a file; tries twice, because `holder` takes the lock briefly to check it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(0.1)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
