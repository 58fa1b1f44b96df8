"""What build.py asks of a story's text: is there anything, was it decoded rightly, is it known?"""

import hashlib
import re
import sys
import unicodedata
from functools import cache


def is_empty(text: str) -> bool:
    """Whether a text has only white space, control and format characters (as U+200B)."""
    return all(c.isspace() or unicodedata.category(c) in ("Cc", "Cf") for c in text)


@cache
def _mojibake() -> re.Pattern[str]:
    """UTF-8 read as Windows-1252: what becomes of quotes and dashes, of emoji, of a byte order
    mark, of Latin letters with accents; and U+FFFD, which stands for what could not be decoded.

    Only sequences that no language writes are listed, so this counts a little too few.
    """
    undefined = {0x81, 0x8D, 0x8F, 0x90, 0x9D}  # in Windows-1252; decoders pass them through
    continuation = "".join(
        chr(byte) if byte in undefined else bytes([byte]).decode("cp1252")
        for byte in range(0x80, 0xC0)
    )
    return re.compile(f"â€|ðŸ|ï»¿|[ÂÃ][{re.escape(continuation)}]|\ufffd")


def has_mojibake(text: str) -> bool:
    return not text.isascii() and _mojibake().search(text) is not None


@cache
def _unessential() -> dict[int, None]:
    """Punctuation and white space, as `str.translate` takes what to leave out."""
    characters = map(chr, range(sys.maxunicode + 1))
    return {
        ord(c): None for c in characters if c.isspace() or unicodedata.category(c).startswith("P")
    }


def normalised(text: str) -> str:
    """Text without case, punctuation and white space; itself where nothing else is in it."""
    return text.casefold().translate(_unessential()) or text


def digest(text: str, key: bytes = b"") -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16, key=key).digest()
