"""Safe output: text from outside cannot control the terminal or hide what it contains.

Stories, prompts, file names, logs and responses from other machines may contain control sequences,
which a terminal obeys, and line breaks, which split one message into two. All output goes through
`visible`: a command's streams are `Stream`s, and the report's escape calls it first. Text that must
stay on one line goes through `one_line` before.
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
    """The reader of the output has closed it, as in `squentropy show | head -1`."""

    def __init__(self) -> None:
        super().__init__(errors.CLOSED)


def visible(text: str) -> str:
    """Replace characters that could hide, move or reorder other text by U+FFFD."""
    return _INVISIBLE.sub("\ufffd", str(text).replace("\r\n", "\n"))


def one_line(text: object) -> str:
    """Text on one line: characters that are neither printable nor spaces are escaped."""
    return "".join(
        c if c.isprintable() or unicodedata.category(c) == "Zs" else ascii(c)[1:-1]
        for c in str(text)
    )


def say(message: object) -> None:
    """Print a message on stderr, on one line."""
    print(f"squentropy: {one_line(message)}", file=sys.stderr, flush=True)


class Stream:
    """A text stream for users, with readable errors.

    Raises ReaderGone if the reader has closed it, SquentropyError if it cannot be written to.
    """

    def __init__(self, stream: TextIO, shown: bool):
        self.stream = stream
        self.shown = shown
        """Whether text goes through `visible`; if not, it is written unchanged, as to a file."""

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
            # Discard what is still buffered: Python would fail to write it at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
            if isinstance(error, BrokenPipeError):
                raise ReaderGone from None
            name = self.stream.name.strip("<>")
            raise SquentropyError(f"{name}: cannot be written: {error.strerror}") from None


def unchanged(stream: Any) -> Any:
    """The stream for text with control sequences of this program: colours, progress bars."""
    return Stream(stream.stream, shown=False) if isinstance(stream, Stream) else stream


def lenient(stream: object) -> None:
    """Escape characters that the locale lacks, as \\xe4, instead of failing."""
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")


@contextlib.contextmanager
def for_people() -> Iterator[None]:
    """Route a command's stdout and stderr through `Stream`; if closed, output is discarded.

    stdout goes through `visible` on a terminal and in the log of a job, whose last lines are shown.
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
