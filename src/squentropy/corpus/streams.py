"""The bytes of story files as text: lines, and what stands between separators, none held that is
longer than it may be, however little of it there was before it was decompressed.
"""

import io
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from squentropy.base.errors import SquentropyError

CHUNK = 1 << 20  # bytes read at once
SNIFFED = 4096  # bytes from which an encoding is told
SMALL = 16 << 20  # bytes that a file may always be decompressed to
EXPANSION = 500  # times its size that a larger one may become; stories become 3 to 10 times theirs
BOM = b"\xef\xbb\xbf"
BOMS = {
    b"\xff\xfe\0\0": "UTF-32",  # before UTF-16's, with which it begins
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}


class Piece(NamedTuple):
    position: int  # of its first byte in the stream
    data: bytes
    whole: bool  # or only its beginning
    last: bool


class Decompressed(io.RawIOBase):
    """pyarrow's stream, which unlike zstandard's notices a file cut short.

    Raises SquentropyError where a file becomes so much longer that it holds no stories.
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
    """The number of each line, from 1, its text with its end, and whether it is whole.

    Of one over `most` bytes it is the beginning. Only a line feed ends one: U+2028 and others stay
    inside stories.
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
    """What separators part, of what is over `most` bytes the beginning."""
    held = file.read(len(BOM))
    position = len(BOM) if held == BOM else 0
    held = held[position:]
    head, lost = b"", 0  # of a long piece: what is kept, and how many bytes after it are not
    while True:
        # As much again as is waiting: a long story is then searched a few times, not thousands.
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
            rest = len(held) - len(separator) + 1  # the end may be a separator's beginning
            if rest > 0:
                lost, held = lost + rest, held[rest:]
    yield Piece(position, head + held, whole=not head, last=True)


def decoded(data: bytes, where: str, whole: bool = True) -> str:
    """Text of UTF-8. Raises SquentropyError, with what the encoding may be, where it is none.

    What is not whole, and may end within a character, is as long at least, whatever it holds.
    """
    try:
        return data.decode(errors="strict" if whole else "replace")
    except UnicodeDecodeError as error:
        raise SquentropyError(
            f"{where}: is not UTF-8 at byte {error.start} of it (0x{data[error.start]:02x}); "
            + _advice(data)
        ) from None


def check_expansion(length: int, size: int, path: Path) -> None:
    """Raises SquentropyError where `size` bytes become so many that they can be no stories."""
    if length > max(SMALL, EXPANSION * size):
        raise SquentropyError(
            f"{path}: becomes over {EXPANSION} times as long where it is decompressed, as no "
            "stories do; take it out of corpus.files"
        )


def check_encoding(start: bytes, where: str) -> None:
    """Raises SquentropyError where the first bytes of a file are UTF-16's or UTF-32's."""
    for mark, name in BOMS.items():
        if start.startswith(mark):
            raise SquentropyError(
                f"{where}: is {name}, as its byte order mark says; convert the file: "
                f"iconv -f {name} -t UTF-8"
            )
    if is_full_of_nuls(start):
        raise SquentropyError(f"{where}: is full of NULs, as no text is; {_advice(start)}")


def is_full_of_nuls(text: str | bytes) -> bool:
    """Whether a text holds so many NULs that it was of UTF-16 and read as something else.

    In Latin letters every second byte is one then; in others, which have none, every white space's.
    """
    nuls = text.count("\0" if isinstance(text, str) else b"\0")  # type: ignore[arg-type]  # its own
    return nuls >= 8 and nuls * 50 > len(text)


def _advice(data: bytes) -> str:
    """What may be done with bytes that are not UTF-8."""
    if b"\0" in data:
        even, odd = data[::2].count(0), data[1::2].count(0)
        name = "UTF-16LE" if odd > even else "UTF-16BE"
        return f"if it is {name}, as it seems, convert the file: iconv -f {name} -t UTF-8"
    foreign = sum(byte >= 0x80 for byte in data)
    try:
        data.decode("cp1252")
    except UnicodeDecodeError:
        foreign = len(data)
    if foreign * 4 <= len(data):  # letters with accents among others
        return "convert the file, for example with iconv -f WINDOWS-1252 -t UTF-8"
    return "find out its encoding, and convert the file: iconv -f ENCODING -t UTF-8"
