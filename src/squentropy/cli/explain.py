"""Error messages for the terminal."""

import errno
import re

from squentropy.base import errors, installed, storage
from squentropy.base.errors import SquentropyError

_NO_MEMORY = re.compile("(?:can.?t|cannot) allocate memory|not enough memory|bad_alloc", re.I)
_NO_THREADS = "no more threads or processes may be started; raise `ulimit -u`, or use fewer cores"
_WRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
"""Errors that only writing can cause."""

SMALLER = dict.fromkeys(
    ("train", "sweep", "refine", "lengths"), "reduce train.batch_size or the size of the model"
) | dict.fromkeys(("evaluate", "score"), "reduce evaluate.batch_tokens")
"""Fixes for commands whose memory use depends on a parameter."""


def explain(error: Exception, command: str) -> tuple[str, int]:
    """A command's error as one line, empty if it has been reported already, and the exit code."""
    if isinstance(error, SquentropyError):
        return str(error), error.exit_code
    if _is_memory(error):
        fix = SMALLER.get(command, "end other programs, or use a machine with more memory")
        return f"out of memory; {fix}", errors.FAILED
    if isinstance(error, OSError) and error.strerror:
        return _refused(error), errors.FAILED
    if isinstance(error, RuntimeError) and "can't start new thread" in str(error):
        return _NO_THREADS, errors.FAILED
    if isinstance(error, ModuleNotFoundError) and error.name:
        return installed.missing(error.name), errors.FAILED
    if isinstance(error, UnicodeEncodeError) and error.reason == "surrogates not allowed":
        line = f"{error.object}: is not UTF-8, so it cannot be written down; rename it"
        return line, errors.FAILED
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"this is a bug: {what} (--debug shows where)", errors.BUG


def _is_memory(error: Exception) -> bool:
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"  # torch's; its import takes a second
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or (isinstance(error, RuntimeError) and _NO_MEMORY.search(str(error)) is not None)
    )


def _refused(error: OSError) -> str:
    """What the operating system refused, for which file, and how to fix it."""
    what = error.filename if error.filename is not None else "a file"
    if error.errno in _WRITTEN:
        return f"{what}: cannot be written: {storage.HINTS[error.errno]}"
    if error.errno == errno.EAGAIN:
        return _NO_THREADS
    if error.errno == errno.ENOENT and error.filename is None:
        return "the working folder: is no longer there; go to another"
    where = f"{error.filename}: " if error.filename is not None else ""
    return f"{where}{error.strerror}"
