"""A trained run's tokenizer for who has no tiktoken: the same ids, by `regex` and a few lines.

tiktoken encodes a corpus in seconds, in Rust, and brings six packages along; this encodes a
story in a millisecond or two.
"""

import base64
from itertools import pairwise

import regex

from squentropy.base import storage
from squentropy.tokens.token_files import TokenFolder

END_OF_TEXT = "<|endoftext|>"
# Both as in tokenizer.py, which imports what only the making of tokens needs.
PATTERN = r"""'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""


class Encoding:
    """A byte-level BPE, with the names that tiktoken's has for the same.

    eot_token  the id of the end of text, which stands before and after every story
    n_vocab    the number of tokens, that one included
    """

    def __init__(self, ranks: dict[bytes, int]):
        self._ranks = ranks
        self._bytes = {rank: token for token, rank in ranks.items()}
        self.eot_token = len(ranks)
        self.n_vocab = len(ranks) + 1
        self._bytes[self.eot_token] = END_OF_TEXT.encode()

    def encode_ordinary(self, text: str) -> list[int]:
        """The ids of a text, in which a written end of text is text."""
        pieces = regex.findall(PATTERN, text)
        return [rank for piece in pieces for rank in self._ids(piece.encode())]

    def decode(self, ids: list[int]) -> str:
        """The text of ids; a character that is cut in two becomes U+FFFD."""
        return b"".join(map(self._bytes.__getitem__, ids)).decode("utf-8", "replace")

    def _ids(self, piece: bytes) -> list[int]:
        """Of neighbours that make a token, those of the least rank are merged, time and again."""
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
    """The encoding that a token folder was made with. Raises SquentropyError if it is damaged."""
    path = tokens.folder / "encoding.tiktoken"
    storage.verified(path, tokens.manifest["encoding_sha256"])
    lines = (line.split() for line in path.read_bytes().splitlines())
    return Encoding({base64.b64decode(token): int(rank) for token, rank in lines})
