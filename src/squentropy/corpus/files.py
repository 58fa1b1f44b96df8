"""Stories from your own files: .txt .jsonl .csv .parquet, plain or with .gz or .zst behind.

    squentropy corpus data/mine/corpus --params params.yaml --params studies/mine.yaml

with `corpus.source: files` and paths or globs (`stories/**/*.jsonl.zst`) in `corpus.files`.

    .jsonl    one JSON object a line; the story is the value of the key `corpus.files.text`
    .csv      a header, then RFC 4180 (quotes around a story with commas or line breaks)
    .parquet  a column of strings
    .txt      stories parted by `corpus.files.separator`. Line breaks that touch a separator, or
              the start or the end of the file, belong to the layout and are taken away; nothing
              else is. With "blank line", lines without visible characters part the stories.

All text is UTF-8; a byte order mark at the start of a file is no part of the first story. Blank
lines in .jsonl and .csv hold no story. Everything else is kept byte for byte. Files are read as
streams: memory does not grow with their size.
"""

import contextlib
import csv
import glob
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from squentropy import storage
from squentropy.corpus.source import Source, Story
from squentropy.errors import SquentropyError
from squentropy.study.corpus import Files
from squentropy.study.params import SPLITS

BLANK_LINE = "blank line"
COMPRESSION = {".gz": "gzip", ".zst": "zstd"}
CHUNK = 1 << 20  # bytes read at once
BOM = b"\xef\xbb\xbf"

csv.field_size_limit(2**31 - 1)  # the default, 131,072 characters, is too small for a long story


def source(files: Files) -> Source:
    """The stories of the files that the parameters name. Raises SquentropyError."""
    paths = {split: find(getattr(files, split), f"corpus.files.{split}") for split in SPLITS}
    named = {split: found for split, found in paths.items() if found}
    counts = {"validation": files.validation_stories, "test": files.test_stories}
    return Source(
        splits={split: partial(_read_all, found, files) for split, found in named.items()},
        licence=files.licence,
        provenance={
            split: [{"file": _name(path), "sha256": _sha256(path)} for path in found]
            for split, found in named.items()
        },
        cut={split: count for split, count in counts.items() if split not in named},
        seed=files.seed,
    )


def find(patterns: list[str], key: str) -> list[Path]:
    """The files that paths and globs name: in the order given, those of a glob sorted by name."""
    found: dict[Path, None] = {}  # keeps the order, and a file that two globs match only once
    for pattern in patterns:
        path = Path(pattern).expanduser()
        try:
            exists = path.exists()
        except OSError as error:  # a folder on the way that may not be entered
            raise SquentropyError(f"{key}: {path} cannot be read: {error.strerror}") from None
        if exists:
            matches = [path]  # also where the name holds a glob's characters
        elif glob.has_magic(pattern):
            matches = sorted(Path(name) for name in glob.glob(str(path), recursive=True))
            matches = [match for match in matches if not match.is_dir()]
            if not matches:
                raise SquentropyError(
                    f"{key}: no file matches {pattern!r} below {Path.cwd()}; correct the pattern"
                )
        else:
            raise SquentropyError(f"{key}: {pattern} does not exist below {Path.cwd()}; correct it")
        for match in matches:
            _kind(match)
            if match.is_dir():
                raise SquentropyError(
                    f"{key}: {match} is a folder; name its files, for example {match}/*.jsonl"
                )
            found[match] = None
    return list(found)


def read(path: Path, text: str, separator: str) -> Iterator[Story]:
    """The stories of one file, in order. `text` names the key or column that holds them.

    Raises SquentropyError, with the line, row or byte, for whatever is not as it should be.
    """
    kind, compression = _kind(path)
    empty = True
    try:
        with _open(path, compression) as file:
            if kind == ".jsonl":
                stories = _read_jsonl(file, path, text)
            elif kind == ".csv":
                stories = _read_csv(file, path, text)
            elif kind == ".parquet":
                stories = _read_parquet(file, path, text)
            elif separator == BLANK_LINE:
                stories = _read_paragraphs(file, path)
            else:
                stories = _read_separated(file, path, separator.encode())
            for story in stories:
                empty = False
                yield story
    except OSError as error:
        if compression and error.errno is None:  # what pyarrow raises about the content
            raise SquentropyError(
                f"{path}: is cut short or damaged ({error}); fetch or compress it again"
            ) from None
        raise SquentropyError(f"{path}: cannot be read: {error.strerror or error}") from None
    if empty:
        raise SquentropyError(f"{path}: holds no stories; fill it, or take it out of corpus.files")


def stories_of_text(file: BinaryIO, separator: str) -> Iterator[Story]:
    """The stories of a stream of text, such as standard input."""
    return _read_separated(file, Path("standard input"), separator.encode())


def _read_all(paths: list[Path], files: Files) -> Iterator[Story]:
    for path in paths:
        yield from read(path, files.text, files.separator)


def _kind(path: Path) -> tuple[str, str | None]:
    """The kind of a file, and how it is compressed, by its name."""
    compression = COMPRESSION.get(path.suffix)
    kind = path.with_suffix("").suffix if compression else path.suffix
    if kind not in (".txt", ".jsonl", ".csv", ".parquet") and not path.is_dir():
        raise SquentropyError(
            f"{path}: is of an unknown kind; names end in .txt .jsonl .csv .parquet, "
            "with .gz or .zst behind where compressed"
        )
    return kind, compression


@contextlib.contextmanager
def _open(path: Path, compression: str | None) -> Iterator[BinaryIO]:
    """The decompressed bytes. pyarrow's stream, unlike zstandard's, notices a file cut short."""
    with path.open("rb") as file:
        if compression is None:
            yield file
        else:
            with pa.CompressedInputStream(file, compression) as stream:
                yield io.BufferedReader(stream, CHUNK)


def _lines(file: BinaryIO, path: Path) -> Iterator[str]:
    """Lines with their ends. Only a line feed ends one: U+2028 and others stay inside stories."""
    for number, line in enumerate(file, 1):
        try:
            yield (line.removeprefix(BOM) if number == 1 else line).decode()
        except UnicodeDecodeError as error:
            raise _not_utf8(f"{path}, line {number}", error) from None


def _read_jsonl(file: BinaryIO, path: Path, key: str) -> Iterator[Story]:
    for number, line in enumerate(_lines(file, path), 1):
        where = f"{path}, line {number}"
        if line.isspace():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise SquentropyError(
                f"{where}: is not JSON: {error.msg} at character {error.pos + 1}"
            ) from None
        except (ValueError, RecursionError) as error:  # a number or a nesting without end
            raise SquentropyError(f"{where}: is not JSON that can be read: {error}") from None
        if not isinstance(row, dict):
            raise SquentropyError(f'{where}: is not a JSON object like {{"{key}": "Once..."}}')
        if key not in row:
            raise _no_such("key", key, where, list(row))
        yield Story(_checked(row[key], where, key), where)


def _read_csv(file: BinaryIO, path: Path, column: str) -> Iterator[Story]:
    rows = csv.reader(_lines(file, path), strict=True)
    try:
        header = next(rows, None)
        if header is None:
            return
        if column not in header:
            raise _no_such("column", column, f"{path}, line 1", header)
        index = header.index(column)
        for row in rows:
            if not row:
                continue
            where = f"{path}, line {rows.line_num}"  # the last one of the row
            if len(row) != len(header):
                raise SquentropyError(
                    f"{where}: has {len(row)} fields, the header {len(header)}; put quotes around "
                    "stories with commas or line breaks"
                )
            yield Story(row[index], where)
    except csv.Error as error:
        raise SquentropyError(f"{path}, line {rows.line_num}: is not CSV: {error}") from None


def _read_parquet(file: BinaryIO, path: Path, column: str) -> Iterator[Story]:
    with contextlib.ExitStack() as stack:
        if isinstance(file, io.BufferedReader) and not isinstance(file.raw, io.FileIO):
            # A parquet file is read from its end, which a compressed stream cannot be.
            whole = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(file, whole, CHUNK)
            file = whole
        try:
            parquet = pq.ParquetFile(file, pre_buffer=False)  # or it would keep what it has read
            names = parquet.schema_arrow.names
            if column not in names:
                raise _no_such("column", column, str(path), names)
            kind = parquet.schema_arrow.field(column).type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                raise SquentropyError(f"{path}: column {column!r} holds {kind}, not strings")
            number = 0
            for batch in parquet.iter_batches(1024, columns=[column]):
                for value in batch.column(0):
                    number += 1
                    where = f"{path}, row {number}"
                    try:
                        story = value.as_py()
                    except UnicodeDecodeError as error:
                        raise _not_utf8(where, error) from None
                    yield Story(_checked(story, where, column), where)
        except pa.ArrowException as error:
            reason = str(error).splitlines()[0]
            raise SquentropyError(f"{path}: is not a whole parquet file: {reason}") from None


def _read_separated(file: BinaryIO, path: Path, separator: bytes) -> Iterator[Story]:
    start = file.read(len(BOM))
    rest = start.removeprefix(BOM)
    position, first = len(start) - len(rest), True
    while True:
        # As much again as is waiting: a long story is then searched a few times, not thousands.
        chunk = file.read(max(CHUNK, len(rest)))
        *pieces, rest = (rest + chunk).split(separator) if chunk else (rest, b"")
        for piece in pieces:
            last = not chunk
            story = piece.strip(b"\r\n")
            if story or not (first or last):  # nothing before the first, after the last: no story
                where = f"{path}, byte {position}"
                yield Story(_decoded(story, where), where)
            first = False
            position += len(piece) + len(separator)
        if not chunk:
            return


def _read_paragraphs(file: BinaryIO, path: Path) -> Iterator[Story]:
    story: list[str] = []
    start = 1
    for number, line in enumerate(_lines(file, path), 1):
        if not line.isspace():
            start = start if story else number
            story.append(line)
        elif story:
            yield Story("".join(story).strip("\r\n"), f"{path}, line {start}")
            story = []
    if story:
        yield Story("".join(story).strip("\r\n"), f"{path}, line {start}")


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise _not_utf8(where, error) from None


def _checked(value: object, where: str, name: str) -> str:
    """The value, which must be text that UTF-8 can hold."""
    if not isinstance(value, str):
        kind = "null" if value is None else f"of type {type(value).__name__}"
        raise SquentropyError(f"{where}: {name!r} is {kind}, not a story; remove or correct it")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise SquentropyError(
                f"{where}: {name!r} holds half a surrogate pair at character {error.start + 1}, "
                "which UTF-8 cannot hold; remove or correct it"
            ) from None
    return value


def _not_utf8(where: str, error: UnicodeDecodeError) -> SquentropyError:
    byte = error.object[error.start]
    return SquentropyError(
        f"{where}: is not UTF-8 at byte {error.start} of it (0x{byte:02x}); convert the file, for "
        "example with iconv -f WINDOWS-1252 -t UTF-8"
    )


def _no_such(what: str, name: str, where: str, names: list[str]) -> SquentropyError:
    shown = ", ".join(map(repr, names[:20])) or "none"
    return SquentropyError(
        f"{where}: has no {what} {name!r}; it has {shown}; name one in corpus.files.text"
    )


def _name(path: Path) -> str:
    """The path as the parameters give it; only the file's name where that is absolute."""
    return path.name if path.is_absolute() else path.as_posix()


def _sha256(path: Path) -> str:
    try:
        return storage.sha256(path)
    except OSError as error:
        raise SquentropyError(
            f"{path}: cannot be read: {os.strerror(error.errno)}"  # type: ignore[arg-type]  # is set
        ) from None
