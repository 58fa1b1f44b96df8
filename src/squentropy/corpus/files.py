"""Stories from your own files: .txt .jsonl .csv .parquet, plain or compressed as .gz or .zst.

    squentropy corpus data/mine/corpus --params params.yaml --params studies/mine.yaml

with `corpus.source: files` and paths or globs (`stories/**/*.jsonl.zst`) in `corpus.files`.

    .jsonl    one JSON object per line; the story is the value of the key `corpus.files.text`
    .csv      a header, then RFC 4180 (quotes around a story with commas or line breaks)
    .parquet  a column of strings
    .txt      stories separated by `corpus.files.separator`. Line breaks next to a separator, or at
              the start or end of the file, are layout and are removed; nothing else is. With
              "blank line", lines without visible characters separate the stories.

All text is UTF-8; a byte order mark at the start of a file is not part of the first story. Blank
lines in .jsonl and .csv are skipped. Everything else is kept byte for byte. Files are streamed:
memory does not grow with their size, nor with the length of a story, because only the beginning of
one that exceeds `corpus.max_bytes` is read into memory.
"""

import csv
import io
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.corpus.source import Source, Story
from squentropy.corpus.story_files import StoryFile, entries, hashed, kind
from squentropy.corpus.streams import (
    CHUNK,
    SNIFFED,
    Decompressed,
    check_encoding,
    check_expansion,
    decoded,
    is_full_of_nuls,
    lines,
    pieces,
)
from squentropy.study.corpus import Corpus, Files
from squentropy.study.parameter_errors import one_line

BLANK_LINE = "blank line"
LONGEST = 1_000_000  # bytes of a story, if no parameters set it

FEWEST_ROWS, MOST_ROWS = 8, 1024  # of a Parquet file, read at once
AT_ONCE = 64 << 20  # bytes of these rows, if each has the maximum length
LEAST = 32  # bytes counted for each row, in addition to its story

csv.field_size_limit(2**31 - 1)  # rows are limited below


def source(corpus: Corpus) -> Source:
    """The stories of the files that the parameters name. Raises SquentropyError."""
    files = corpus.files
    named = hashed(files)
    counts = {"validation": files.validation_stories, "test": files.test_stories}
    every = [file for found in named.values() for file in found]
    return Source(
        splits={
            split: partial(_read_all, found, files, corpus.max_bytes)
            for split, found in named.items()
        },
        licence=files.licence,
        provenance=entries(named),
        cut={split: count for split, count in counts.items() if split not in named},
        seed=files.seed,
        hint=partial(_unparted, every, files),
    )


def read(
    file: StoryFile | Path, text: str, separator: str, longest: int = LONGEST
) -> Iterator[Story]:
    """The stories of one file, in order. `text` is their key or column.

    A story of more than `longest` bytes may be cut to a beginning that still exceeds `longest`.
    Raises SquentropyError, with the line, row or byte, if the file is malformed.
    """
    path = file.path if isinstance(file, StoryFile) else file
    shown = Path(one_line(str(path)))
    sort, compression = kind(path)
    empty = True
    try:
        with file.open() if isinstance(file, StoryFile) else storage.plain(file).open("rb") as raw:
            stream: Any = raw
            if compression:
                stream = io.BufferedReader(Decompressed(raw, compression, shown), CHUNK)
            for story in _stories(stream, sort, shown, text, separator, longest):
                empty = False
                if "\0" in story.text and is_full_of_nuls(story.text):
                    raise SquentropyError(
                        f"{story.where}: is full of NULs, as a text of UTF-16 is that was read as "
                        "something else; convert it where it comes from"
                    )
                yield story
    except OSError as error:
        if compression and error.errno is None:  # raised by pyarrow for damaged content
            raise SquentropyError(f"{shown}: {_badly_compressed(error)}") from None
        raise SquentropyError(f"{shown}: cannot be read: {error.strerror or error}") from None
    if empty:
        raise SquentropyError(f"{shown}: holds no stories; fill it, or take it out of corpus.files")


def stories_of_text(file: BinaryIO, separator: str) -> Iterator[Story]:
    """The stories of a stream of text, such as standard input."""
    return _read_separated(file, Path("standard input"), separator.encode(), LONGEST)


def _read_all(found: list[StoryFile], files: Files, longest: int) -> Iterator[Story]:
    for file in found:
        yield from read(file, files.text, files.separator, longest)


def _unparted(found: list[StoryFile], files: Files) -> str:
    """A hint if there are too few stories: the .txt files with only one, without a separator."""
    texts = [file for file in found if kind(file.path)[0] == ".txt"]
    alone = [
        one_line(str(file.path))
        for file in texts
        if len(list(islice(_read_all([file], files, LONGEST), 2))) == 1
    ]
    if not alone:
        return ""
    more = f" and {len(alone) - 1} more hold" if len(alone) > 1 else " holds"
    return f"; {alone[0]}{more} no {files.separator!r} (corpus.files.separator), so one story"


def _stories(
    file: Any, sort: str, path: Path, text: str, separator: str, longest: int
) -> Iterator[Story]:
    """The stories of a buffered stream, by the kind of file."""
    if sort == ".parquet":
        return _read_parquet(file, path, text)
    check_encoding(file.peek(SNIFFED)[:SNIFFED], str(path))
    if sort == ".jsonl":
        return _read_jsonl(file, path, text, longest)
    if sort == ".csv":
        return _read_csv(file, path, text, longest)
    if separator == BLANK_LINE:
        return _read_paragraphs(file, path, longest)
    return _read_separated(file, path, separator.encode(), longest)


def _longest_row(longest: int) -> int:
    """Maximum bytes of a row: JSON escapes take up to six per byte; `CHUNK` is for other fields."""
    return 6 * longest + CHUNK


class _Object(tuple):
    """The pairs of a JSON object, which may contain a key twice."""

    __slots__ = ()


def _read_jsonl(file: BinaryIO, path: Path, key: str, longest: int) -> Iterator[Story]:
    for number, line, whole in lines(file, path, _longest_row(longest)):
        if line.isspace():
            continue
        where = f"{path}, line {number}"
        if not whole and line.lstrip().startswith("{"):
            yield Story(line, where)
            continue
        row = _json(line, where) if whole else None
        if not isinstance(row, _Object):
            raise SquentropyError(f'{where}: is not a JSON object like {{"{key}": "Once..."}}')
        found = [value for name, value in row if name == key]
        if not found:
            raise _no_such("key", key, where, [name for name, _ in row])
        if len(found) > 1:
            raise _twice("key", key, where)
        yield Story(_checked(found[0], where, key), where)


def _json(line: str, where: str) -> Any:
    try:
        return json.loads(line, object_pairs_hook=_Object)
    except json.JSONDecodeError as error:
        raise SquentropyError(
            f"{where}: is not JSON: {error.msg} at character {error.pos + 1}"
        ) from None
    except (ValueError, RecursionError) as error:  # a number too long, or nesting too deep
        raise SquentropyError(f"{where}: is not JSON that can be read: {error}") from None


def _read_csv(file: BinaryIO, path: Path, column: str, longest: int) -> Iterator[Story]:
    most, held = _longest_row(longest), 0

    def texts() -> Iterator[str]:
        nonlocal held
        for number, line, whole in lines(file, path, most):
            held += len(line)
            if held > most or not whole:
                raise SquentropyError(
                    f"{path}, line {number}: a row of over {most:,} characters, which has no end "
                    "yet; close its quote, shorten it, or raise corpus.max_bytes"
                )
            yield line

    rows = csv.reader(texts(), strict=True)
    try:
        header = next(rows, None)
        if header is None:
            return
        if column not in header:
            raise _no_such("column", column, f"{path}, line 1", header)
        if header.count(column) > 1:
            raise _twice("column", column, f"{path}, line 1")
        index, held = header.index(column), 0
        for row in rows:
            held = 0
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
    with ExitStack() as stack:
        if isinstance(file, io.BufferedReader) and isinstance(file.raw, Decompressed):
            # A parquet file is read from its end, so it needs a seekable, decompressed copy.
            whole = stack.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(file, whole, CHUNK)
            file = whole
        try:
            parquet = pq.ParquetFile(file, pre_buffer=False)  # pre_buffer would keep data it read
            names = parquet.schema_arrow.names
            if column not in names:
                raise _no_such("column", column, str(path), names)
            if names.count(column) > 1:
                raise _twice("column", column, str(path))
            sort = parquet.schema_arrow.field(column).type
            if not (pa.types.is_string(sort) or pa.types.is_large_string(sort)):
                raise SquentropyError(f"{path}: column {column!r} holds {sort}, not strings")
            size = file.seek(0, io.SEEK_END)
            rows = _rows_at_once(parquet.metadata, size, path)
            number = length = 0
            for batch in parquet.iter_batches(rows, columns=[column]):
                for value in batch.column(0):
                    number += 1
                    where = f"{path}, row {number}"
                    try:
                        story = value.as_py()
                    except UnicodeDecodeError as error:
                        story = decoded(error.object, where)
                    yield Story(_checked(story, where, column), where)
                    length += len(story) + LEAST
                    check_expansion(length, size, path)
        except (pa.ArrowException, ValueError) as error:  # ValueError: names that are not UTF-8
            reason = str(error).splitlines()[0]
            raise SquentropyError(f"{path}: is not a whole parquet file: {reason}") from None


def _rows_at_once(metadata: pq.FileMetaData, size: int, path: Path) -> int:
    """How many rows to read at once from a file of `size` bytes.

    In the worst case, one value is repeated in all rows and is as long as the largest row group.
    Column metadata is not read: pyarrow ends the process if its statistics are damaged.
    """
    groups = [metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups)]
    for group in groups:
        check_expansion(group, size, path)
    return min(max(AT_ONCE // max([1, *groups]), FEWEST_ROWS), MOST_ROWS)


def _read_separated(file: BinaryIO, path: Path, separator: bytes, longest: int) -> Iterator[Story]:
    first = True
    for piece in pieces(file, separator, longest + CHUNK):  # CHUNK: room for layout's line breaks
        data = piece.data.strip(b"\r\n") if piece.whole else piece.data
        if data or not (first or piece.last):  # at the start and end, an empty piece is no story
            where = f"{path}, byte {piece.position}"
            yield Story(decoded(data, where, piece.whole), where)
        first = False


def _read_paragraphs(file: BinaryIO, path: Path, longest: int) -> Iterator[Story]:
    story: list[str] = []
    start, length, cut, most = 1, 0, False, longest + CHUNK
    for number, line, whole in lines(file, path, most):
        if not (whole and line.isspace()):
            start = start if story else number
            cut = cut or not whole or length > most
            if length <= most:
                story.append(line)
            length += len(line)
        elif story:
            yield _paragraph(story, cut, f"{path}, line {start}")
            story, length, cut = [], 0, False
    if story:
        yield _paragraph(story, cut, f"{path}, line {start}")


def _paragraph(story: list[str], cut: bool, where: str) -> Story:
    text = "".join(story)
    return Story(text if cut else text.strip("\r\n"), where)


def _checked(value: object, where: str, name: str) -> str:
    """Return the value. Raises SquentropyError if it is not text that UTF-8 can encode."""
    if not isinstance(value, str):
        kind = "null" if value is None else f"of type {type(value).__name__.strip('_')}"
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


def _badly_compressed(error: OSError) -> str:
    if "too much memory" in str(error):
        return "needs too large a window (zstd --long); compress it again without --long"
    return f"is cut short or damaged ({error}); fetch or compress it again"


def _no_such(what: str, name: str, where: str, names: list[str]) -> SquentropyError:
    shown = ", ".join(map(repr, names[:20])) or "none"
    return SquentropyError(
        f"{where}: has no {what} {name!r}; it has {shown}; name one in corpus.files.text"
    )


def _twice(what: str, name: str, where: str) -> SquentropyError:
    return SquentropyError(
        f"{where}: has two {what}s {name!r}, of which one is the story; rename or remove the other"
    )
