"""Decode story files into lines or separated pieces, in bounded memory.

Only the beginning of an overlong line or piece is kept, even if it decompresses from a few bytes.
"""

import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from squentropy.base.errors import SquentropyError

CHUNK = 1 << 20  # bytes read at once
SNIFFED = 4096  # bytes from which the encoding is detected
SMALL = 16 << 20  # decompressed bytes that are always allowed
EXPANSION = 500  # maximum ratio of decompression beyond that; stories have 3 to 10
BOM = b"\xef\xbb\xbf"
BOMS = {
    b"\xff\xfe\0\0": "UTF-32",  # must precede UTF-16's, with which it begins
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


class Piece(NamedTuple):
    position: int  # of the first byte in the stream
    data: bytes
    whole: bool  # False: only the beginning
    last: bool


class Decompressed(io.RawIOBase):
    """pyarrow's stream, which, unlike zstandard's, detects truncated files.

    Raises SquentropyError if a file expands so much that it cannot contain stories.
    """

    def __init__(self, file: BinaryIO, compression: str, path: Path):
        self._file, self._path, self._length = file, path, 0
        self._stream = pa.CompressedInputStream(file, compression)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer) -> int:
        read: int = self._stream.readinto(buffer)
        self._length += read
        check_expansion(self._length, self._file.tell(), self._path)
        return read


def lines(file: BinaryIO, path: Path, most: int) -> Iterator[tuple[int, str, bool]]:
    """(number from 1, text with line end, whether it is whole) of each line.

    For a line of over `most` bytes, only the beginning. Only a line feed ends a line: U+2028 and
    others stay inside stories.
    """
    for number, line in enumerate(iter(partial(file.readline, most + 1), b""), 1):
        whole = len(line) <= most
        if not whole and not line.endswith(b"\n"):
            while (more := file.readline(CHUNK)) and not more.endswith(b"\n"):
                pass
        if number == 1:
            line = line.removeprefix(BOM)
        try:
            text = line.decode()
        except UnicodeDecodeError:
            text = decoded(line, f"{path}, line {number}", whole)
        yield number, text, whole


def pieces(file: BinaryIO, separator: bytes, most: int) -> Iterator[Piece]:
    """The pieces between separators; for a piece of over `most` bytes, only the beginning."""
    held = file.read(len(BOM))
    position = len(BOM) if held == BOM else 0
    held = held[position:]
    head, lost = b"", 0  # of a long piece: its beginning, and the number of bytes dropped after it
    while True:
        # Double what is held, so that a long story is searched a few times, not thousands of times.
        chunk = file.read(max(CHUNK, len(held)))
        *found, held = (held + chunk).split(separator)
        for data in found:
            yield Piece(position, head + data, whole=not head, last=False)
            position += len(head) + lost + len(data) + len(separator)
            head, lost = b"", 0
        if not chunk:
            break
        if len(held) > most + len(separator):
            if not head:
                head, held = held[: most + 1], held[most + 1 :]
            rest = len(held) - len(separator) + 1  # the end may be the start of a separator
            if rest > 0:
                lost, held = lost + rest, held[rest:]
    yield Piece(position, head + held, whole=not head, last=True)


def decoded(data: bytes, where: str, whole: bool = True) -> str:
    """Decode UTF-8. Raises SquentropyError, with a guess at the encoding, if `data` is not UTF-8.

    If not `whole`, data may end within a character. Invalid bytes are then replaced, which does not
    shorten the text in bytes.
    """
    try:
        return data.decode(errors="strict" if whole else "replace")
    except UnicodeDecodeError as error:
        raise SquentropyError(
            f"{where}: is not UTF-8 at byte {error.start} of it (0x{data[error.start]:02x}); "
            + _advice(data)
        ) from None


def check_expansion(length: int, size: int, path: Path) -> None:
    """Raises SquentropyError if `size` bytes expand so much that they cannot be stories."""
    if length > max(SMALL, EXPANSION * size):
        raise SquentropyError(
            f"{path}: becomes over {EXPANSION} times as long where it is decompressed, as no "
            "stories do; take it out of corpus.files"
        )


def check_encoding(start: bytes, where: str) -> None:
    """Raises SquentropyError if the first bytes of a file are UTF-16 or UTF-32."""
    for mark, name in BOMS.items():
        if start.startswith(mark):
            raise SquentropyError(
                f"{where}: is {name}, as its byte order mark says; convert the file: "
                f"iconv -f {name} -t UTF-8"
            )
    if is_full_of_nuls(start):
        raise SquentropyError(f"{where}: is full of NULs, as no text is; {_advice(start)}")


def is_full_of_nuls(text: str | bytes) -> bool:
    """Whether a text has so many NULs that it must be UTF-16 read as another encoding.

    In UTF-16, every second byte of Latin text is NUL; in other scripts, one byte of each white
    space.
    """
    nuls = text.count("\0" if isinstance(text, str) else b"\0")  # type: ignore[arg-type]  # its own
    return nuls >= 8 and nuls * 50 > len(text)


def _advice(data: bytes) -> str:
    """Advice on bytes that are not UTF-8."""
    if b"\0" in data:
        even, odd = data[::2].count(0), data[1::2].count(0)
        name = "UTF-16LE" if odd > even else "UTF-16BE"
        return f"if it is {name}, as it seems, convert the file: iconv -f {name} -t UTF-8"
    foreign = sum(byte >= 0x80 for byte in data)
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:
        foreign = len(data)
    if foreign * 4 <= len(data):  # accented letters among ASCII
        return "convert the file, for example with iconv -f WINDOWS-1252 -t UTF-8"
    return "find out its encoding, and convert the file: iconv -f ENCODING -t UTF-8"
