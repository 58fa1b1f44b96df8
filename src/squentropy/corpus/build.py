"""Split a source of stories into train, validation and test: parquet files and a manifest.

    squentropy corpus data/grammar/corpus

Text is kept byte for byte. Dropped stories are counted by reason, so that for each split

    read = kept + the sum of dropped.

Splits are filtered in the order test, validation, train: no story of test is in validation or
train, and no story of validation is in train. Exact duplicates are always removed. Near-duplicates
are stories of two splits that are equal up to case, punctuation and white space. This rule has no
threshold and no false positives, and costs one hash per story. Similarity of shingles (MinHash)
would need a threshold, and stories of a grammar naturally share shingles.

A split that a source lacks is cut from its train: the stories whose normalised text has the
smallest keyed hash. This random draw depends on the seed and the stories, but not on the order of
files. Equal stories count once, and no two stories of a cut are near-duplicates.

Texts are streamed, and repeats within a split are found on disk (repeats.py), so memory does not
grow with train. For validation and test, which are small, 16-byte digests are kept in memory; so
are the texts of stories cut from train.
"""

import contextlib
from array import array
from collections import Counter
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from squentropy.base import progress, storage
from squentropy.base.errors import SquentropyError
from squentropy.base.kinds import CorpusFile, Counts
from squentropy.corpus.repeats import Digests, digests_in
from squentropy.corpus.source import Source, Story
from squentropy.corpus.text import digest, has_mojibake, is_empty, normalised
from squentropy.study import params
from squentropy.study.params import SPLITS

DRAWN_AT_ONCE = 100_000  # hashes to collect before a cut drops all but the smallest
ROW_GROUP_STORIES = 10_000
ROW_GROUP_BYTES = 32 << 20
DROPPED = (
    "empty", "overlong", "mojibake",
    "duplicate_within_split", "duplicate_across_splits", "near_duplicate",
)  # fmt: skip


def build(corpus: params.Corpus, folder: str | Path) -> dict[str, Any]:
    """Write the three splits and, last, `manifest.json` to `folder`; return the manifest.

    The same parameters and input produce the same bytes. Raises SquentropyError, and leaves the
    folder's contents unchanged, if the input is unsuitable or the files cannot be written.
    """
    folder = Path(folder)
    entries = {}
    with contextlib.ExitStack() as stack:
        # Open the files first, so that a full or read-only disk is reported early.
        written = {
            split: stack.enter_context(storage.atomic(folder / f"{split}.parquet"))
            for split in reversed(SPLITS)
        }
        source = _source(corpus)
        judge = Judge(corpus, source.hint)
        splits = cut(source, corpus)
        for split in reversed(SPLITS):
            bar = progress.bar(splits[split](), split, "stories")
            entry = write_distinct(judge, split, bar, written[split], source.exact)
            entries[split] = entry | {"counts": judge.counts(split)}
    manifest = {
        "source": corpus.source,
        "licence": source.licence,
        "provenance": source.provenance,
        "cut": {"seed": source.seed, **source.cut} if source.cut else None,
        "rules": corpus.model_dump(
            include=("near_duplicates", "empty", "max_bytes", "overlong", "mojibake")  # type: ignore[arg-type]  # any container does
        ),
        "splits": {split: entries[split] for split in SPLITS},
    }
    storage.write_sealed(folder / "manifest.json", manifest)
    return manifest


def _source(corpus: params.Corpus) -> Source:
    module = import_module(f"squentropy.corpus.{corpus.source}")
    source: Source = module.source(corpus)
    return source


@dataclass
class Judge:
    """Decides which stories of each split are kept, one split after another, and counts them."""

    corpus: params.Corpus
    hint: Callable[[], str] = lambda: ""  # see Source
    earlier: set[bytes] = field(default_factory=set)  # digests of stories kept in earlier splits
    earlier_near: set[bytes] = field(default_factory=set)  # digests of their normalised text
    own: set[bytes] = field(default_factory=set)  # of the current split, unless it is train
    own_near: set[bytes] = field(default_factory=set)
    dropped: Counter = field(default_factory=Counter)  # by (split, reason)
    kept: Counter = field(default_factory=Counter)  # by split; flawed ones also by (split, flaw)

    def choose(self, split: str, stories: Iterable[Story], digests: Digests) -> Iterator[Story]:
        """The stories that a split may keep, in order, including repeats within the split.

        Adds their digests to `digests`. Raises SquentropyError if there are none.
        """
        self.earlier |= self.own
        self.earlier_near |= self.own_near
        for story in stories:
            reason = unusable(story, self.corpus)
            if reason is None:
                exact, near = digest(story.text), digest(normalised(story.text))
                repeats_nearly = near in self.earlier_near
                if exact in self.earlier:
                    reason = "duplicate_across_splits"
                elif repeats_nearly and self.corpus.near_duplicates == "drop":
                    reason = "near_duplicate"
            if reason is not None:
                self.dropped[split, reason] += 1
                continue
            digests.add(exact)
            if split != SPLITS[0]:  # later splits are compared with this one
                self.own.add(exact)
                self.own_near.add(near)
            self._keep(split, story, repeats_nearly, 1)
            yield story
        if not self.kept[split]:
            counts = self.counts(split)
            raise SquentropyError(
                f"corpus.{self.corpus.source}: no story is left for {split} "
                f"({_account(counts['read'], counts['dropped'], self.corpus)}){self.hint()}; "
                "give it others"
            )

    def choose_first(
        self, split: str, chosen: Iterable[Story], repeated: np.ndarray
    ) -> Iterator[Story]:
        """The stories that a split keeps: those chosen by `choose` that are not `repeated`."""
        for story, again in zip(chosen, repeated, strict=True):
            if again:
                repeats_nearly = digest(normalised(story.text)) in self.earlier_near
                self._keep(split, story, repeats_nearly, -1)
                self.dropped[split, "duplicate_within_split"] += 1
            else:
                yield story

    def _keep(self, split: str, story: Story, repeats_nearly: bool, times: int) -> None:
        self.kept[split] += times
        self.kept[split, "mojibake"] += times * has_mojibake(story.text)
        self.kept[split, "near_duplicate"] += times * repeats_nearly

    def counts(self, split: str) -> Counts:
        """The counts of a split for the manifest: stories read, kept and dropped."""
        dropped = {reason: self.dropped[split, reason] for reason in DROPPED}
        return {
            "read": self.kept[split] + sum(dropped.values()),
            "kept": self.kept[split],
            "dropped": dropped,
            "kept_with": {what: self.kept[split, what] for what in ("mojibake", "near_duplicate")},
        }


def cut(source: Source, corpus: params.Corpus) -> dict[str, Callable[[], Iterator[Story]]]:
    """All three splits of a source; those that it lacks are cut from its train at random."""
    if not source.cut:
        return source.splits
    train = source.splits["train"]
    # A cut story must not be dropped later, so exclude the stories of a given test split.
    given = source.splits["test"]() if "test" in source.splits else ()
    taken = {digest(normalised(story.text)) for story in given}
    wanted = sum(source.cut.values())
    dropped: Counter = Counter()
    drawn = draw(train(), taken, source, corpus, wanted + 1, dropped)
    if len(drawn) <= wanted:
        account = _account(dropped.pop("read", 0), dropped, corpus)
        asked = " + ".join(f"{split}_stories {count}" for split, count in source.cut.items())
        raise SquentropyError(
            f"corpus.{corpus.source}: train has {len(drawn)} different stories ({account}), too "
            f"few to cut {asked} from it and keep some{source.hint()}; lower these numbers or give "
            "more stories"
        )
    names = [split for split, count in source.cut.items() for _ in range(count)]
    destination = dict(zip(drawn[:wanted].tolist(), names, strict=True))
    held: dict[str, list[Story]] = {split: [] for split in source.cut}
    for index, story in enumerate(train()):
        if index in destination:
            held[destination[index]].append(story)
    rest = partial(_all_but, train, destination)
    return source.splits | {s: partial(iter, held[s]) for s in held} | {"train": rest}


def _account(read: int, dropped: Mapping[str, int], corpus: params.Corpus) -> str:
    """The counts in words: "12 read, 11 of them overlong by max_bytes 1000000"."""
    why = {"overlong": f" by max_bytes {corpus.max_bytes}"}
    reasons = [f"{n} of them {reason}{why.get(reason, '')}" for reason, n in dropped.items() if n]
    return ", ".join([f"{read} read", *reasons])


def draw(
    stories: Iterable[Story], taken: set[bytes], source: Source, corpus: params.Corpus, most: int,
    counts: Counter,
) -> "array[int]":  # fmt: skip
    """Indices of up to `most` distinct, usable stories that are not `taken`, in random order.

    These are the stories with the smallest hashes, sorted by hash. Adds the number of stories read,
    and of unusable ones by reason, to `counts`.
    """
    key = source.seed.to_bytes(8, "little")
    hashes, indices = array("Q"), array("Q")  # 64 bits: millions of stories rarely share a hash
    for index, story in enumerate(progress.bar(stories, "draw", "stories")):
        reason = unusable(story, corpus)
        counts.update(["read"] if reason is None else ["read", reason])
        if reason is None:
            text = normalised(story.text)
            if not taken or digest(text) not in taken:
                hashes.append(int.from_bytes(digest(text, key)[:8], "little"))
                indices.append(index)
        if len(hashes) == most + DRAWN_AT_ONCE:
            hashes, indices = _smallest(hashes, indices, most)
    return _smallest(hashes, indices, most)[1]


def _smallest(
    hashes: "array[int]", indices: "array[int]", most: int
) -> "tuple[array[int], array[int]]":
    """The `most` smallest distinct hashes, sorted, and the first index of each."""
    different, first = np.unique(np.asarray(hashes), return_index=True)
    indices = np.asarray(indices)[first[:most]]  # type: ignore[assignment]  # an array to numpy
    return array("Q", different[:most].tobytes()), array("Q", indices.tobytes())


def _all_but(stories: Callable[[], Iterator[Story]], indices: Container[int]) -> Iterator[Story]:
    return (story for index, story in enumerate(stories()) if index not in indices)


def write_distinct(
    judge: Judge, split: str, stories: Iterable[Story], path: Path, exact: bool
) -> CorpusFile:
    """`write` the stories that a split keeps; rewrite them without repeats if there are any."""
    with digests_in(path.parent) as digests:
        entry = write(judge.choose(split, stories, digests), path, exact)
        repeated = digests.repeated()
    if not repeated.any():
        return entry
    with path.open("rb") as chosen:
        path.unlink()  # frees the name while the old file is read
        return write(judge.choose_first(split, _read(chosen), repeated), path, exact)


def _read(file: BinaryIO) -> Iterator[Story]:
    """The stories that `write` wrote, read one row group at a time."""
    parquet = pq.ParquetFile(file, pre_buffer=False)
    for group in range(parquet.num_row_groups):
        for row in parquet.read_row_group(group).to_pylist():
            yield Story(**row, where="")


def write(stories: Iterable[Story], path: Path, exact: bool) -> CorpusFile:
    """Stream stories to a parquet file; return their number, UTF-8 bytes and the sha256."""
    columns = [("text", pa.string())] + [("log_prob", pa.float64())] * exact
    schema = pa.schema(columns)
    total = size = 0
    # Stories hardly repeat, so dictionaries and statistics would only take space.
    options = {"compression": "zstd", "use_dictionary": False, "write_statistics": False}
    with path.open("wb") as file, pq.ParquetWriter(file, schema, **options) as writer:
        for group in _groups(stories):
            table: dict[str, list[Any]] = {"text": [story.text for story in group]}
            if exact:
                table["log_prob"] = [story.log_prob for story in group]
            writer.write_table(pa.table(table, schema))
            total += len(group)
            size += sum(len(story.text.encode()) for story in group)
    return {"stories": total, "bytes": size, "sha256": storage.sha256(path)}


def _groups(stories: Iterable[Story]) -> Iterator[list[Story]]:
    """Lists of stories, each small enough for memory."""
    group, size = [], 0
    for story in stories:
        group.append(story)
        size += len(story.text)
        if len(group) >= ROW_GROUP_STORIES or size >= ROW_GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def unusable(story: Story, corpus: params.Corpus) -> str | None:
    """Why a story cannot be used, regardless of other stories; None if it can be.

    Raises SquentropyError if the parameters require an error instead.
    """
    text = story.text
    # Check this first, because an overlong story may be only a beginning.
    if len(text) > corpus.max_bytes or len(text.encode()) > corpus.max_bytes:
        if corpus.overlong == "error":
            raise SquentropyError(
                f"{story.where}: a story of over {corpus.max_bytes} bytes, which is max_bytes; "
                "shorten it, raise max_bytes, or set corpus.overlong to drop"
            )
        return "overlong"
    if is_empty(text):
        if corpus.empty == "error":
            raise SquentropyError(
                f"{story.where}: a story without a visible character; remove it, or set "
                "corpus.empty to drop"
            )
        return "empty"
    if corpus.mojibake == "drop" and has_mojibake(text):
        return "mojibake"
    return None
