"""Which story files of your own a study names, and what they hold.

Neither a file's name nor its time says what is in it: `mv`, `cp -p` and `unzip` bring other bytes
with an older time. So files are told apart by their hash, which is worked out again only for a file
whose stamp has changed: device, inode, size, time of its bytes, and time of the last change of any
of these, which no program can set.
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
SETTLED = 2_000_000_000  # ns after which a file's next change has another time, on any file system
Stamp = tuple[int, ...]
Hashes = dict[str, str]
"""The sha256 of files by their stamp."""


@dataclass(frozen=True)
class StoryFile:
    """A file as it was when it was hashed."""

    path: Path
    sha256: str
    stamp: Stamp

    @property
    def entry(self) -> dict[str, str]:
        """For the manifest: the path as the parameters give it; of an absolute one the name."""
        shown = self.path.name if self.path.is_absolute() else self.path.as_posix()
        return {"file": one_line(shown), "sha256": self.sha256}

    @contextlib.contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """Its bytes. Raises SquentropyError where they are not those that were hashed."""
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
    """Hex digest of what a corpus's manifest says of its files; empty where they cannot be read.

    known  a file that holds the hashes of the last call, which it replaces
    """
    return digest_of(partial(hashed, files), known)


def digest_of(find: Callable[[Hashes], dict[str, list[StoryFile]]], known: Path) -> str:
    """The same of the files that `find` finds; it takes the hashes that are known."""
    before = _read_hashes(known)
    try:
        found = find(before)
    except SquentropyError:  # `squentropy corpus` says it
        return ""
    now = time.time_ns()
    each = [file for split in found.values() for file in split]
    # A file that has just been changed could be so again in the same tick of the clock.
    hashes = {_key(f.stamp): f.sha256 for f in each if f.stamp[-1] + SETTLED < now}
    if hashes != before:
        with contextlib.suppress(SquentropyError, OSError):  # of a folder that may only be read
            storage.write_json(known, hashes)
    return hashlib.sha256(json.dumps(entries(found)).encode()).hexdigest()[:16]


def entries(found: dict[str, list[StoryFile]]) -> dict[str, list[dict[str, str]]]:
    """What a manifest says of the files of each split."""
    return {split: [file.entry for file in files] for split, files in found.items()}


def hashed(files: Files, known: Hashes | None = None) -> dict[str, list[StoryFile]]:
    """The files of each split that has any.

    Raises SquentropyError for what cannot be read, and for a folder that a glob names and whose
    files no split does.
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
    """The files that paths and globs name: in the order given, those of a glob sorted by name."""
    found: dict[Path, None] = {}  # keeps the order, and a file that two globs match only once
    for pattern in patterns:
        try:
            matches = _matches(pattern)
        except OSError as error:  # a folder on the way that may not be entered
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
    """Where all the files lie, for what follows a folder or a file: the folders of globs that begin
    with one, the other files themselves."""
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
    """The kind of a file, and how it is compressed, by its name."""
    compression = COMPRESSION.get(path.suffix)
    kind = path.with_suffix("").suffix if compression else path.suffix
    if kind not in KINDS:
        raise SquentropyError(
            f"{path}: is of an unknown kind; names end in {' '.join(KINDS)}, "
            "with .gz or .zst behind where compressed"
        )
    return kind, compression


def _matches(pattern: str) -> list[Path]:
    """The files of a path or glob, and the folder of a path."""
    path = Path(pattern).expanduser()
    if path.exists():
        return [path]  # also where the name holds a glob's characters
    if not glob.has_magic(pattern):
        raise SquentropyError(f"{pattern} does not exist below {Path.cwd()}; correct it")
    files = [match for match in _glob(pattern) if not match.is_dir()]
    if not files:
        raise SquentropyError(
            f"no file matches {pattern!r} below {Path.cwd()}; correct the pattern"
        )
    return files


def _folders(pattern: str) -> list[Path]:
    """The folders of a glob that hold anything which is not hidden."""
    if not glob.has_magic(pattern) or Path(pattern).expanduser().exists():
        return []
    folders = [match for match in _glob(pattern) if match.is_dir()]
    return [each for each in folders if glob.glob("*", root_dir=each)]


def _glob(pattern: str) -> list[Path]:
    first, *rest = Path(pattern).parts
    if first.startswith("~"):  # the home's own name is none of the pattern
        first = glob.escape(str(Path(first).expanduser()))
    return sorted(Path(name) for name in glob.glob(os.path.join(first, *rest), recursive=True))


def hashed_file(path: Path, known: Hashes) -> StoryFile:
    """A file as it is now. Raises SquentropyError where it cannot be read."""
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
    """Of the last call; none where there was none, or where what it left is damaged."""
    try:
        read = json.loads(storage.read_bytes(path))
        return {str(stamp): str(sha256) for stamp, sha256 in read.items()}
    except (SquentropyError, ValueError, AttributeError):
        return {}
