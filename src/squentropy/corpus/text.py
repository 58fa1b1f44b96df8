"""Checks of a story's text for build.py: is it empty, wrongly decoded, or a duplicate?"""

import hashlib
import re
import sys
import unicodedata
from functools import cache


def is_empty(text: str) -> bool:
    """Whether a text has only white space, control and format characters (such as U+200B)."""
    return all(c.isspace() or unicodedata.category(c) in ("Cc", "Cf") for c in text)


@cache
def _mojibake() -> re.Pattern[str]:
    """A pattern for UTF-8 read as Windows-1252 (quotes, dashes, emoji, a byte order mark, accented
    Latin letters) and for U+FFFD, which replaces undecodable bytes.

    Includes only sequences that no language uses, so it misses a few cases.
    """
    undefined = {0x81, 0x8D, 0x8F, 0x90, 0x9D}  # in Windows-1252; some decoders keep them
    continuation = "".join(
        chr(byte) if byte in undefined else bytes([byte]).decode("cp1252")
        for byte in range(0x80, 0xC0)
    )
    return re.compile(f"â€|ðŸ|ï»¿|[ÂÃ][{re.escape(continuation)}]|\ufffd")


def has_mojibake(text: str) -> bool:
    return not text.isascii() and _mojibake().search(text) is not None


@cache
def _unessential() -> dict[int, None]:
    """A table for `str.translate` that deletes punctuation and white space."""
    characters = map(chr, range(sys.maxunicode + 1))
    return {
        ord(c): None for c in characters if c.isspace() or unicodedata.category(c).startswith("P")
    }


def normalised(text: str) -> str:
    """Text without case, punctuation and white space; unchanged if it has nothing else."""
    return text.casefold().translate(_unessential()) or text


def digest(text: str, key: bytes = b"") -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16, key=key).digest()
