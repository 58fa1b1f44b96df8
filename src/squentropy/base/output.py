"""What people read: foreign text shows what it holds there, and does nothing to a terminal.

Stories, prompts, names of files, logs and the answers of other machines may hold control sequences,
which a terminal obeys, and line breaks, which make two messages of one. All of it goes through
`visible`: a command's streams are `Stream`s, and the report's escape begins with it. What has to be
one line goes through `one_line` before.
"""

import contextlib
import io
import os
import re
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any, TextIO

from squentropy.base import errors
from squentropy.base.errors import Ended, SquentropyError

_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


class ReaderGone(Ended):
    """Nobody reads our output any more, as in `squentropy show | head -1`."""

    def __init__(self) -> None:
        super().__init__(errors.CLOSED)


def visible(text: str) -> str:
    """Text as it is, but what could hide, move or reorder other text is a visible sign."""
    return _INVISIBLE.sub("\ufffd", str(text).replace("\r\n", "\n"))


def one_line(text: object) -> str:
    """Text on one line: whatever else than a character or a space stands there by its number."""
    return "".join(
        c if c.isprintable() or unicodedata.category(c) == "Zs" else ascii(c)[1:-1]
        for c in str(text)
    )


def say(message: object) -> None:
    """A message on stderr, in one line."""
    print(f"squentropy: {one_line(message)}", file=sys.stderr, flush=True)


class Stream:
    """A text stream that people read, and what it cannot take in words.

    Raises ReaderGone where nobody reads it any more, SquentropyError where it cannot be written to.
    """

    def __init__(self, stream: TextIO, shown: bool):
        self.stream = stream
        self.shown = shown
        """Whether `visible` is what goes out; else text goes out as it is, as into a file."""

    def write(self, text: str) -> int:
        with self._explained():
            self.stream.write(visible(text) if self.shown else text)
        return len(text)

    def flush(self) -> None:
        with self._explained():
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # What is left in its buffer cannot be written either, when Python ends.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
            if isinstance(error, BrokenPipeError):
                raise ReaderGone from None
            name = self.stream.name.strip("<>")
            raise SquentropyError(f"{name}: cannot be written: {error.strerror}") from None


def unchanged(stream: Any) -> Any:
    """A stream for text whose control sequences are our own: colours, and a bar's returns."""
    return Stream(stream.stream, shown=False) if isinstance(stream, Stream) else stream


def lenient(stream: object) -> None:
    """What the locale lacks stands by its number, as \\xe4, in place of an error."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def for_people() -> Iterator[None]:
    """A command's output: closed streams take nothing, and what people read is visible.

    On stdout that is a terminal, or the log of a job, whose last lines are shown.
    """
    nothing = io.StringIO()
    out, err = sys.stdout or nothing, sys.stderr or nothing
    shown = out.isatty() or "SQUENTROPY_TRACEBACKS" in os.environ
    for stream in (out, err):
        lenient(stream)
    to_out = contextlib.redirect_stdout(Stream(out, shown))
    to_err = contextlib.redirect_stderr(Stream(err, shown=True))
    with to_out, to_err:
        yield
