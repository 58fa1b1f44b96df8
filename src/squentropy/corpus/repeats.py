"""Find stories that repeat an earlier one, on disk, so that memory hardly grows with their number.

Digests are partitioned by their first byte, so equal ones are in the same part. Parts are sorted in
memory, one at a time. A story takes 24 bytes on disk and one byte of memory for the result.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

PARTS = 64  # files open at once; for 21 million stories, each has 8 MB
RECORD = np.dtype([("digest", "S16"), ("number", "<u8")])


@dataclass
class Digests:
    """The digests of stories, in the order of the stories."""

    parts: list[BinaryIO]
    count: int = 0

    def add(self, digest: bytes) -> None:
        """Add a story's digest of 16 bytes."""
        self.parts[digest[0] % PARTS].write(digest + self.count.to_bytes(8, "little"))
        self.count += 1

    def repeated(self) -> np.ndarray:
        """Whether each digest occurred before: (count,) bool."""
        repeated = np.zeros(self.count, bool)
        for part in self.parts:
            part.seek(0)
            records = np.frombuffer(part.read(), RECORD)
            _, first = np.unique(records["digest"], return_index=True)
            repeated[np.delete(records["number"], first)] = True
        return repeated


@contextlib.contextmanager
def digests_in(folder: Path) -> Iterator[Digests]:
    """Digests in unnamed temporary files in `folder`, so that a kill leaves nothing behind."""
    with contextlib.ExitStack() as stack:
        yield Digests(
            [stack.enter_context(tempfile.TemporaryFile(dir=folder)) for _ in range(PARTS)]
        )
