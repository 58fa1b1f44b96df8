"""Atomic writes, and checks that a file is still what was written."""

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from squentropy.base.errors import SquentropyError

HINTS = {
    errno.ENOSPC: "the disk is full; free some space and run the same command again",
    errno.EDQUOT: "the disk quota is used up; free some space and run the same command again",
    errno.EFBIG: "too large a file for `ulimit -f` or the disk; raise that, or choose another disk",
    errno.EACCES: "no permission; make the folder writable, or choose another",
    errno.EPERM: "no permission; make the folder writable, or choose another",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOTDIR: "a file stands where a folder should be; move it away",
    errno.EEXIST: "a file stands where a folder should be; move it away",
    errno.EISDIR: "a folder stands where the file should be; move it away",
}

_AGAIN = "delete it and run the study again"

_SPECIAL = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextlib.contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; it replaces `path` if the block ends without an error.

    After an error or a kill, `path` is unchanged; the next writer removes temporary files that a
    kill left behind. Raises SquentropyError if the file system refuses.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _remove_leavings(path)
            temporary.write_bytes(b"")
            yield temporary
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):  # an error of the folder, reported already
            temporary.unlink()


@contextlib.contextmanager
def scratch(path: str | Path) -> Iterator[Path]:
    """Yield a working folder beside `path`, which is removed when the block ends.

    Not in the system's temporary folder, which is shared: here, the next call removes what a killed
    process left behind. Raises SquentropyError if the file system refuses.
    """
    path = Path(path).absolute()
    folder = path.with_name(f".{path.name}.folder.{os.getpid()}")
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leavings(path)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_folder(folder: Path) -> None:
    """Create a writable folder. Raises SquentropyError if the file system refuses."""
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn a file system's errors into SquentropyErrors that name a fix."""
    try:
        yield
    except OSError as error:
        if error.errno not in HINTS:
            raise
        raise SquentropyError(f"{path}: cannot be written: {HINTS[error.errno]}") from error


def _remove_leavings(path: Path) -> None:
    """Remove temporary files and folders of `path` whose process no longer exists."""
    import psutil  # here, because reading does not need it

    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        pid = left.suffix.removeprefix(".")
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | Path, value: Any) -> None:
    """Write indented JSON. Raises ValueError for NaN and infinity, which JSON lacks."""
    write_text(path, _json(value))


def write_sealed(path: str | Path, value: Mapping[str, Any]) -> None:
    """Write indented JSON whose last key, `seal`, is the sha256 of the file's other bytes."""
    text = _json({**value, "seal": ""})
    seal = hashlib.sha256(text.encode()).hexdigest()
    write_text(path, text.removesuffix('"\n}\n') + seal + '"\n}\n')


def read_sealed(path: str | Path) -> Any:
    """Read what `write_sealed` wrote; callers annotate it with a type of kinds.py.

    Raises SquentropyError if the file is missing, unreadable or changed by a single byte.
    """
    content = read_bytes(path)
    found = re.search(rb'"seal": "([0-9a-f]{64})"\n}\n\Z', content)
    if found is None:
        raise SquentropyError(f"{path}: is damaged (has no seal); {_AGAIN}")
    rest = content[: found.start(1)] + content[found.end(1) :]
    if hashlib.sha256(rest).hexdigest() != found[1].decode():
        raise SquentropyError(f"{path}: is damaged (its seal does not match); {_AGAIN}")
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        raise SquentropyError(f"{path}: is damaged (is not JSON); {_AGAIN}") from None
    del value["seal"]
    return value


def plain(path: str | Path) -> Path:
    """Return `path`. Raises SquentropyError if it is, or links to, a pipe, a socket or a device.

    Reading these could block or never end. Whether the file exists and is readable is left to the
    code that reads it.
    """
    try:
        kind = _SPECIAL.get(stat.S_IFMT(os.stat(path).st_mode))
    except (OSError, ValueError):  # ValueError: a name with a NUL
        kind = None
    if kind is not None:
        raise SquentropyError(f"{path}: is {kind}, not a file; name another, or move it away")
    return Path(path)


def read_bytes(path: str | Path) -> bytes:
    """Raises SquentropyError if the file is missing, unreadable or not a regular file."""
    try:
        return plain(path).read_bytes()
    except FileNotFoundError:
        raise SquentropyError(f"{path}: does not exist; make it first") from None
    except OSError as error:
        raise SquentropyError(f"{path}: cannot be read: {error.strerror}") from None


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def sha256(path: str | Path) -> str:
    """Hex digest of a file's bytes."""
    with plain(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verified(path: str | Path, expected: str) -> Path:
    """Return `path`. Raises SquentropyError if its bytes do not hash to `expected`."""
    path = plain(path)
    if not path.is_file():
        raise SquentropyError(f"{path}: does not exist; run the study again to make it")
    if sha256(path) != expected:
        raise SquentropyError(
            f"{path}: is not what its manifest says (sha256 differs): it was cut short or "
            f"changed; {_AGAIN}"
        )
    return path
