"""Read the token files that `squentropy tokenize` writes.

The folder contains, for each split, `SPLIT.bin` (uint16 ids, each story followed by the end-of-text
token) and `SPLIT.offsets.npy` (int64; story i is ids[offsets[i]:offsets[i + 1]]);
`encoding.tiktoken`, the vocabulary; and `manifest.json`, with counts and hashes.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from squentropy.base import storage
from squentropy.base.errors import SquentropyError

CHUNK = 1 << 22  # tokens counted at once; numpy converts each to 8 bytes


@dataclass(frozen=True)
class TokenFolder:
    """A folder written by `tokenize`; each file is verified against the manifest when first opened.

    Only once, because a large split takes seconds to verify, and each cell of a grid row opens it.
    """

    folder: Path
    manifest: dict
    opened: dict[str, "Split"] = field(default_factory=dict)

    @classmethod
    def open(cls, folder: str | Path) -> "TokenFolder":
        """Open a folder. Raises SquentropyError if it does not contain tokens."""
        path = Path(folder) / "manifest.json"
        manifest = storage.read_sealed(path)
        if not isinstance(manifest, dict) or "vocab_size" not in manifest:
            raise SquentropyError(
                f"{path}: is not of tokens; name the folder that `squentropy tokenize` wrote"
            )
        return cls(Path(folder), manifest)

    @property
    def vocab_size(self) -> int:
        return self.manifest["vocab_size"]

    @property
    def end_of_text(self) -> int:
        return self.manifest["end_of_text"]

    def check_corpus(self, corpus: Path) -> None:
        """Raises SquentropyError if these are not the tokens of `corpus`."""
        if storage.sha256(corpus / "manifest.json") != self.manifest["corpus_sha256"]:
            raise SquentropyError(
                f"{self.folder}: are not the tokens of {corpus}; run `squentropy tokenize` again"
            )

    def split(self, name: str) -> "Split":
        """The tokens of a split. Raises SquentropyError if a file does not match the manifest."""
        if name not in self.opened:
            entry = self.manifest["splits"][name]
            ids = storage.verified(self.folder / f"{name}.bin", entry["sha256"])
            offsets = storage.verified(self.folder / f"{name}.offsets.npy", entry["offsets_sha256"])
            mapped = np.memmap(ids, dtype=np.uint16, mode="r"), np.load(offsets, mmap_mode="r")
            self.opened[name] = Split(*mapped)
        return self.opened[name]


@dataclass(frozen=True)
class Split:
    """The tokens of a split, memory-mapped: ids (T,) uint16, offsets (stories + 1,) int64."""

    ids: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def story(self, index: int) -> np.ndarray:
        """Story `index` with its end-of-text token."""
        return self.ids[self.offsets[index] : self.offsets[index + 1]]

    def head(self, stories: int) -> "Split":
        """The first `stories` stories, or all if there are fewer."""
        offsets = self.offsets[: stories + 1]
        return Split(self.ids[: offsets[-1]], offsets)

    def counts(self, vocab_size: int) -> np.ndarray:
        """The count of each token: (vocab_size,) int64."""
        counts = np.zeros(vocab_size, dtype=np.int64)
        for start in range(0, len(self.ids), CHUNK):
            counts += np.bincount(self.ids[start : start + CHUNK], minlength=vocab_size)
        return counts

    def unigram_nll(self) -> float:
        """Entropy of the token frequencies in nats per token: the best nll without context."""
        counts = self.counts(1 << 16).astype(np.float64)
        frequencies = counts[counts > 0] / counts.sum()
        return float(-(frequencies * np.log(frequencies)).sum())
