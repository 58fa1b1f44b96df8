"""The user's story files that a study names, and their hashes.

Names and times do not identify a file's content: `mv`, `cp -p` and `unzip` can replace it by other
bytes with an older time. So changes are detected by hash. The hash is recomputed only if the file's
stamp has changed: device, inode, size, modification time and inode change time (ctime), which
programs cannot set.
"""

import contextlib
import glob
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.study.corpus import Files
from squentropy.study.parameter_errors import one_line
from squentropy.study.params import SPLITS

KINDS = (".txt", ".jsonl", ".csv", ".parquet")
COMPRESSION = {".gz": "gzip", ".zst": "zstd"}
SETTLED = 2_000_000_000  # ns after which another change gets a new time on any file system
Stamp = tuple[int, ...]
Hashes = dict[str, str]
"""The sha256 of files, by stamp."""


@dataclass(frozen=True)
class StoryFile:
    """A file as it was when it was hashed."""

    path: Path
    sha256: str
    stamp: Stamp

    @property
    def entry(self) -> dict[str, str]:
        """The manifest entry: the path as in the parameters; if absolute, only the name."""
        shown = self.path.name if self.path.is_absolute() else self.path.as_posix()
        return {"file": one_line(shown), "sha256": self.sha256}

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Open the file. Raises SquentropyError if it has changed since it was hashed."""
        with storage.plain(self.path).open("rb") as file:
            self._check(file)
            yield file
            self._check(file)

    def _check(self, file: BinaryIO) -> None:
        if _stamp(file) != self.stamp:
            raise SquentropyError(
                f"{self.path}: was changed while it was read; run the same command again"
            )


def digest(files: Files, known: Path) -> str:
    """Hex digest of the manifest entries of a corpus's files; empty if they cannot be read.

    known  a file with the hashes of the last call, which is updated
    """
    return digest_of(partial(hashed, files), known)


def digest_of(find: Callable[[Hashes], dict[str, list[StoryFile]]], known: Path) -> str:
    """As `digest`, for the files that `find` returns, given the known hashes."""
    before = _read_hashes(known)
    try:
        found = find(before)
    except SquentropyError:  # `squentropy corpus` reports it
        return ""
    now = time.time_ns()
    each = [file for split in found.values() for file in split]
    # A file that has just changed could change again within the same clock tick.
    hashes = {_key(f.stamp): f.sha256 for f in each if f.stamp[-1] + SETTLED < now}
    if hashes != before:
        with contextlib.suppress(SquentropyError, OSError):  # a read-only folder
            storage.write_json(known, hashes)
    return hashlib.sha256(json.dumps(entries(found)).encode()).hexdigest()[:16]


def entries(found: dict[str, list[StoryFile]]) -> dict[str, list[dict[str, str]]]:
    """The manifest entries of the files of each split."""
    return {split: [file.entry for file in files] for split, files in found.items()}


def hashed(files: Files, known: Hashes | None = None) -> dict[str, list[StoryFile]]:
    """The files of each split that has any.

    Raises SquentropyError if a file cannot be read, or if a glob matches a folder of which no split
    names a file.
    """
    patterns = {split: getattr(files, split) for split in SPLITS}
    paths = {split: find(patterns[split], f"corpus.files.{split}") for split in SPLITS}
    entered = {folder for found in paths.values() for path in found for folder in path.parents}
    for split in SPLITS:
        passed_over = [each for p in patterns[split] for each in _folders(p) if each not in entered]
        for folder in passed_over:
            raise SquentropyError(
                f"corpus.files.{split}: {folder} is a folder, and its files are not named; write "
                f"'{folder.parent}/**/*' for all below {folder.parent}, or move it away"
            )
    found = {split: [hashed_file(path, known or {}) for path in paths[split]] for split in SPLITS}
    return {split: files for split, files in found.items() if files}


def find(patterns: list[str], key: str) -> list[Path]:
    """The files that paths and globs name: in the given order; the matches of a glob are sorted."""
    found: dict[Path, None] = {}  # ordered, with each file only once
    for pattern in patterns:
        try:
            matches = _matches(pattern)
        except OSError as error:  # a folder of the path may not be entered
            raise SquentropyError(f"{key}: {pattern} cannot be read: {error.strerror}") from None
        except (RuntimeError, ValueError) as error:  # no such user's home; a name with a NUL
            raise SquentropyError(f"{key}: {one_line(pattern)}: {error}; correct it") from None
        except SquentropyError as error:
            raise SquentropyError(f"{key}: {one_line(str(error))}") from None
        for match in matches:
            if match.is_dir():
                raise SquentropyError(
                    f"{key}: {match} is a folder; name its files, for example {match}/*.jsonl"
                )
            kind(match)
            found[storage.plain(match)] = None
    return list(found)


def places(files: Files) -> list[str]:
    """The folders and files to watch for changes: the leading folder of each glob that has one,
    and all other files themselves."""
    found: dict[str, None] = {}
    for pattern in (pattern for split in SPLITS for pattern in getattr(files, split)):
        matches = find([pattern], pattern)
        folder = Path()
        if matches != [Path(pattern).expanduser()]:
            for part in Path(pattern).parts:
                if glob.has_magic(part):
                    break
                folder /= part
        folder = folder.expanduser()
        found |= dict.fromkeys(map(str, [folder] if folder != Path() else matches))
    return list(found)


def kind(path: Path) -> tuple[str, str | None]:
    """The kind of a file and its compression, by its name."""
    compression = COMPRESSION.get(path.suffix)
    kind = path.with_suffix("").suffix if compression else path.suffix
    if kind not in KINDS:
        raise SquentropyError(
            f"{path}: is of an unknown kind; names end in {' '.join(KINDS)}, "
            "with .gz or .zst behind where compressed"
        )
    return kind, compression


def _matches(pattern: str) -> list[Path]:
    """The files of a glob, or the file or folder of a path."""
    path = Path(pattern).expanduser()
    if path.exists():
        return [path]  # even if its name contains glob characters
    if not glob.has_magic(pattern):
        raise SquentropyError(f"{pattern} does not exist below {Path.cwd()}; correct it")
    files = [match for match in _glob(pattern) if not match.is_dir()]
    if not files:
        raise SquentropyError(
            f"no file matches {pattern!r} below {Path.cwd()}; correct the pattern"
        )
    return files


def _folders(pattern: str) -> list[Path]:
    """The folders that a glob matches and that contain anything not hidden."""
    if not glob.has_magic(pattern) or Path(pattern).expanduser().exists():
        return []
    folders = [match for match in _glob(pattern) if match.is_dir()]
    return [each for each in folders if glob.glob("*", root_dir=each)]


def _glob(pattern: str) -> list[Path]:
    first, *rest = Path(pattern).parts
    if first.startswith("~"):  # the name of the home is not part of the pattern
        first = glob.escape(str(Path(first).expanduser()))
    return sorted(Path(name) for name in glob.glob(os.path.join(first, *rest), recursive=True))


def hashed_file(path: Path, known: Hashes) -> StoryFile:
    """A file in its current state. Raises SquentropyError if it cannot be read."""
    try:
        with storage.plain(path).open("rb") as file:
            stamp = _stamp(file)
            sha256 = known.get(_key(stamp)) or hashlib.file_digest(file, "sha256").hexdigest()
            found = StoryFile(path, sha256, stamp)
            found._check(file)
    except OSError as error:
        raise SquentropyError(f"{path}: cannot be read: {error.strerror}") from None
    return found


def _stamp(file: BinaryIO) -> Stamp:
    of = os.fstat(file.fileno())
    return of.st_dev, of.st_ino, of.st_size, of.st_mtime_ns, of.st_ctime_ns


def _key(stamp: Stamp) -> str:
    return " ".join(map(str, stamp))


def _read_hashes(path: Path) -> Hashes:
    """The hashes of the last call; empty if there was none or its file is damaged."""
    try:
        read = json.loads(storage.read_bytes(path))
        return {str(stamp): str(sha256) for stamp, sha256 in read.items()}
    except (SquentropyError, ValueError, AttributeError):
        return {}
