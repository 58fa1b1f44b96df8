"""From a source of stories to train, validation and test: parquet files and a manifest.

    squentropy corpus data/grammar/corpus

Text is kept byte for byte. What is left out, and why, is counted, so that for each split

    read = kept + the sum of dropped.

Stories are judged in the order test, validation, train: whatever test holds is not in validation
or train, and whatever validation holds is not in train. Exact duplicates are always removed.
Near-duplicates are stories of two splits that are equal but for case, punctuation and white space.
That rule has no threshold and no false alarms, and costs one hash a story; similarity of shingles
(MinHash) would have a threshold to defend, and the stories of a grammar share shingles by nature.

A split that a source lacks is cut from its train: the stories whose normalised text has the
smallest keyed hash. That is a random draw which depends on the seed and on the stories, but not on
the order of files; equal stories count once in it, and no story of one cut nearly repeats another.

Texts are streamed, and a split's own repeats are found on disk (repeats.py), so that memory does
not grow with train. Of validation and test, which are small, 16-byte digests are held, and the
texts of stories that are cut from train.
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

DRAWN_AT_ONCE = 100_000  # stories of which a cut keeps the smallest hashes
ROW_GROUP_STORIES = 10_000
ROW_GROUP_BYTES = 32 << 20
DROPPED = (
    "empty", "overlong", "mojibake",
    "duplicate_within_split", "duplicate_across_splits", "near_duplicate",
)  # fmt: skip


def build(corpus: params.Corpus, folder: str | Path) -> dict[str, Any]:
    """Write the three splits and, last, `manifest.json` to `folder`; return the manifest.

    The same parameters and the same input give the same bytes. Raises SquentropyError, and leaves
    what was in the folder, where the input or the machine does not do.
    """
    folder = Path(folder)
    entries = {}
    with contextlib.ExitStack() as stack:
        # The files are opened first: better to hear of a full or read-only disk now.
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
    """Decides which stories of a split are kept, split after split, and counts them all."""

    corpus: params.Corpus
    hint: Callable[[], str] = lambda: ""  # as Source has it
    earlier: set[bytes] = field(default_factory=set)  # digests of stories kept in earlier splits
    earlier_near: set[bytes] = field(default_factory=set)  # the same of their normalised text
    own: set[bytes] = field(default_factory=set)  # of the latest split; not of train, the last
    own_near: set[bytes] = field(default_factory=set)
    dropped: Counter = field(default_factory=Counter)  # by (split, reason)
    kept: Counter = field(default_factory=Counter)  # by split; by (split, what they are kept with)

    def choose(self, split: str, stories: Iterable[Story], digests: Digests) -> Iterator[Story]:
        """The stories that a split may keep, in order, its own repeats still among them.

        Their digests go into `digests`. Raises SquentropyError where there are none.
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
            if split != SPLITS[0]:  # there is a later split to compare with this one
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
        """Of the stories that `choose` chose, those that are not `repeated`: what a split keeps."""
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
        """What became of the stories of a split, for the manifest."""
        dropped = {reason: self.dropped[split, reason] for reason in DROPPED}
        return {
            "read": self.kept[split] + sum(dropped.values()),
            "kept": self.kept[split],
            "dropped": dropped,
            "kept_with": {what: self.kept[split, what] for what in ("mojibake", "near_duplicate")},
        }


def cut(source: Source, corpus: params.Corpus) -> dict[str, Callable[[], Iterator[Story]]]:
    """All three splits of a source, those that it lacks cut from its train at random."""
    if not source.cut:
        return source.splits
    train = source.splits["train"]
    # A cut story must not be dropped later on, so it is none that a given test split holds.
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
    """What was read and dropped, in words: "12 read, 11 of them overlong by max_bytes 1000000"."""
    why = {"overlong": f" by max_bytes {corpus.max_bytes}"}
    reasons = [f"{n} of them {reason}{why.get(reason, '')}" for reason, n in dropped.items() if n]
    return ", ".join([f"{read} read", *reasons])


def draw(
    stories: Iterable[Story], taken: set[bytes], source: Source, corpus: params.Corpus, most: int,
    counts: Counter,
) -> "array[int]":  # fmt: skip
    """Indices of the different, usable stories that are not `taken`, in random order.

    The first `most` in that order: those of the smallest hashes. What is read, and not usable by
    reason, is added to `counts`.
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
    """The smallest different hashes, sorted, and the first index of each."""
    different, first = np.unique(np.asarray(hashes), return_index=True)
    indices = np.asarray(indices)[first[:most]]  # type: ignore[assignment]  # the array's array
    return array("Q", different[:most].tobytes()), array("Q", indices.tobytes())


def _all_but(stories: Callable[[], Iterator[Story]], indices: Container[int]) -> Iterator[Story]:
    return (story for index, story in enumerate(stories()) if index not in indices)


def write_distinct(
    judge: Judge, split: str, stories: Iterable[Story], path: Path, exact: bool
) -> CorpusFile:
    """`write` the stories that a split keeps; once more without its own repeats, if it has any."""
    with digests_in(path.parent) as digests:
        entry = write(judge.choose(split, stories, digests), path, exact)
        repeated = digests.repeated()
    if not repeated.any():
        return entry
    with path.open("rb") as chosen:
        path.unlink()  # so that the name is free, while what bore it is read
        return write(judge.choose_first(split, _read(chosen), repeated), path, exact)


def _read(file: BinaryIO) -> Iterator[Story]:
    """The stories that `write` wrote, a row group at a time."""
    parquet = pq.ParquetFile(file, pre_buffer=False)
    for group in range(parquet.num_row_groups):
        for row in parquet.read_row_group(group).to_pylist():
            yield Story(**row, where="")


def write(stories: Iterable[Story], path: Path, exact: bool) -> CorpusFile:
    """Stream stories to a parquet file; return their number, bytes of UTF-8 and the sha256."""
    columns = [("text", pa.string())] + [("log_prob", pa.float64())] * exact
    schema = pa.schema(columns)
    total = size = 0
    # Stories hardly repeat, so dictionaries and statistics of them would only take space.
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
    """Lists of stories small enough to hold in memory."""
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
    """Why a story cannot be used, whatever the others are; None where it can.

    Raises SquentropyError where the parameters ask for an error instead.
    """
    text = story.text
    # First, since of an overlong story there may be only the beginning.
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
