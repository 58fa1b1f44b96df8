"""A trained run's tokenizer without tiktoken: the same ids, with `regex` and a few lines.

tiktoken, in Rust, encodes a corpus in seconds and has six dependencies; this module encodes a story
in one or two milliseconds.
"""

import base64
from itertools import pairwise

import regex

from squentropy.base import storage
from squentropy.tokens.token_files import TokenFolder

END_OF_TEXT = "<|endoftext|>"
# Both as in tokenizer.py, which imports packages that only tokenizing a corpus needs.
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


class Encoding:
    """A byte-level BPE with the same names as tiktoken's Encoding.

    eot_token  the id of the end of text, which precedes and ends every story
    n_vocab    the number of tokens, including the end of text
    """

    def __init__(self, ranks: dict[bytes, int]):
        self._ranks = ranks
        self._bytes = {rank: token for token, rank in ranks.items()}
        self.eot_token = len(ranks)
        self.n_vocab = len(ranks) + 1
        self._bytes[self.eot_token] = END_OF_TEXT.encode()

    def encode_ordinary(self, text: str) -> list[int]:
        """The ids of a text; "<|endoftext|>" in it is encoded as ordinary text."""
        pieces = regex.findall(PATTERN, text)
        return [rank for piece in pieces for rank in self._ids(piece.encode())]

    def decode(self, ids: list[int]) -> str:
        """The text of ids; an incomplete character becomes U+FFFD."""
        return b"".join(map(self._bytes.__getitem__, ids)).decode("utf-8", "replace")

    def _ids(self, piece: bytes) -> list[int]:
        """The ids of a piece: repeatedly merges the adjacent pair of the lowest rank."""
        if piece in self._ranks:
            return [self._ranks[piece]]
        parts = [piece[i : i + 1] for i in range(len(piece))]
        while True:
            pairs = ((self._ranks.get(a + b), i) for i, (a, b) in enumerate(pairwise(parts)))
            known = [(rank, i) for rank, i in pairs if rank is not None]
            if not known:
                return [self._ranks[part] for part in parts]
            _, i = min(known)
            parts[i : i + 2] = [parts[i] + parts[i + 1]]


def read_encoding(tokens: TokenFolder) -> Encoding:
    """The encoding of a token folder. Raises SquentropyError if it is damaged."""
    path = tokens.folder / "encoding.tiktoken"
    storage.verified(path, tokens.manifest["encoding_sha256"])
    lines = (line.split() for line in path.read_bytes().splitlines())
    return Encoding({base64.b64decode(token): int(rank) for token, rank in lines})
