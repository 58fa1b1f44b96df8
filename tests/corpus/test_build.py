"""Splits account for every story, are disjoint and are byte-identical on every build.

pytest tests/corpus/test_build.py
"""

import json
import random
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.corpus import build as build_module
from squentropy.corpus import text
from squentropy.corpus.build import build
from squentropy.corpus.repeats import digests_in
from squentropy.study import params
from squentropy.study.corpus import Grammar
from squentropy.study.params import SPLITS

ROOT = Path(__file__).parents[2]
SHARED = ROOT / "../shared/data/tinystories"
CORPUS = params.load([ROOT / "params.yaml"]).corpus


def corpus(rules: dict | None = None, **of_files) -> params.Corpus:
    """The default parameters with `source: files` and these changes."""
    of_files = {"validation_stories": 2, "test_stories": 3} | of_files
    files = CORPUS.files.model_copy(update=of_files)
    return CORPUS.model_copy(update={"source": "files", "files": files} | (rules or {}))


def jsonl(path: Path, stories) -> str:
    path.write_text("".join(json.dumps({"text": s}) + "\n" for s in stories), encoding="utf-8")
    return str(path)


def three(folder: Path, train, validation=("V",), test=("T",)) -> dict:
    """Parameters with one file per split."""
    splits = {"train": train, "validation": validation, "test": test}
    return {split: [jsonl(folder / f"{split}.jsonl", s)] for split, s in splits.items()}


def stories(folder: Path, split: str) -> list[str]:
    return pq.read_table(folder / f"{split}.parquet")["text"].to_pylist()


def check_accounts(manifest: dict, folder: Path) -> None:
    for split, entry in manifest["splits"].items():
        counts = entry["counts"]
        assert counts["read"] == counts["kept"] + sum(counts["dropped"].values())
        kept = stories(folder, split)
        assert len(kept) == counts["kept"] == entry["stories"]
        assert sum(len(story.encode()) for story in kept) == entry["bytes"]
        assert storage.sha256(folder / f"{split}.parquet") == entry["sha256"]


@settings(max_examples=30, deadline=None)
@given(train=st.lists(st.text(), min_size=1))
def test_any_texts_come_back_unchanged_and_in_order(train, tmp_path_factory):
    folder = tmp_path_factory.mktemp("build")
    train = [*train, "at least one"]
    manifest = build(corpus(**three(folder, train, ["<v>"], ["<t>"])), folder / "out")
    seen = {"<v>", "<t>"}
    expected = [s for s in train if not text.is_empty(s) and not (s in seen or seen.add(s))]
    assert stories(folder / "out", "train") == expected
    assert manifest["splits"]["train"]["counts"]["read"] == len(train)
    check_accounts(manifest, folder / "out")


@settings(max_examples=30, deadline=None)
@given(
    pool=st.lists(st.sampled_from(["A", "a", "b", "B!", " c", "c", "d", "e", "f", "", "g"])),
    near=st.sampled_from(["count", "drop"]),
    seed=st.integers(0, 3),
)
def test_a_cut_is_complete_and_shares_no_story(pool, near, seed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("build")
    pool = [*pool, *"uvwxyz"]
    path = jsonl(folder / "pool.jsonl", pool)
    manifest = build(corpus({"near_duplicates": near}, train=[path], seed=seed), folder / "out")
    check_accounts(manifest, folder / "out")
    kept = {split: stories(folder / "out", split) for split in SPLITS}
    assert (len(kept["validation"]), len(kept["test"])) == (2, 3)
    assert sum(manifest["splits"][s]["counts"]["read"] for s in SPLITS) == len(pool)
    everything = kept["train"] + kept["validation"] + kept["test"]
    assert len(set(everything)) == len(everything)
    normal = {split: {text.normalised(s) for s in kept[split]} for split in SPLITS}
    assert not normal["test"] & normal["validation"]
    if near == "drop":
        assert not normal["train"] & (normal["test"] | normal["validation"])


def test_a_story_of_test_is_in_no_other_split_and_one_of_validation_not_in_train(tmp_path):
    splits = three(tmp_path, ["T", "V", "A", "A", "B"], ["V", "T", "W"], ["T", "T"])
    manifest = build(corpus(**splits), tmp_path / "out")
    kept = {split: stories(tmp_path / "out", split) for split in SPLITS}
    assert kept == {"train": ["A", "B"], "validation": ["V", "W"], "test": ["T"]}
    dropped = {split: manifest["splits"][split]["counts"]["dropped"] for split in SPLITS}
    assert dropped["train"]["duplicate_across_splits"] == 2
    assert dropped["train"]["duplicate_within_split"] == 1
    assert dropped["validation"]["duplicate_across_splits"] == 1
    assert dropped["test"]["duplicate_within_split"] == 1
    check_accounts(manifest, tmp_path / "out")


@pytest.mark.parametrize("rule", ["count", "drop"])
def test_near_duplicates_across_splits_are_counted_and_dropped_if_asked(tmp_path, rule):
    train = ["Lily's cat sat.", "lilys  CAT\nsat", "A dog ran."]
    splits = three(tmp_path, train, ["V"], ["Lily’s cat, sat!"])
    manifest = build(corpus({"near_duplicates": rule}, **splits), tmp_path / "out")
    counts = manifest["splits"]["train"]["counts"]
    kept = stories(tmp_path / "out", "train")
    assert kept == (train if rule == "count" else ["A dog ran."])
    assert counts["kept_with"]["near_duplicate"] == (2 if rule == "count" else 0)
    assert counts["dropped"]["near_duplicate"] == (0 if rule == "count" else 2)


def test_empty_overlong_and_mojibake_stories_are_counted(tmp_path):
    train = ["", " \n\u200b\ufeff", "x" * 11, "é" * 6, "é" * 5, "â€œHi", "fine"]
    rules = {"max_bytes": 10, "mojibake": "drop"}
    manifest = build(corpus(rules, **three(tmp_path, train)), tmp_path / "out")
    counts = manifest["splits"]["train"]["counts"]
    assert stories(tmp_path / "out", "train") == ["é" * 5, "fine"]
    assert counts["dropped"] == {
        "empty": 2, "overlong": 2, "mojibake": 1, "duplicate_within_split": 0,
        "duplicate_across_splits": 0, "near_duplicate": 0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "story", "says"),
    [
        ({"empty": "error"}, " ", "train.jsonl, line 2: a story without a visible character"),
        ({"overlong": "error", "max_bytes": 9}, "0123456789", "line 2: a story of over 9 bytes"),
    ],
)
def test_a_story_that_the_rules_forbid_is_named(tmp_path, rules, story, says):
    with pytest.raises(SquentropyError) as error:
        build(corpus(rules, **three(tmp_path, ["fine", story])), tmp_path / "out")
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("story", "is_mojibake"),
    [
        ("â€œHello", True), ("donâ€™t", True), ("cafÃ©", True), ("Â£5", True), ("ðŸ˜€", True),
        ("ï»¿Once", True), ("caf\ufffd", True),
        ("“Hello”", False), ("café £5 – naïve", False), ("À «bientôt»", False), ("5 €", False),
        ("日本語 🙂", False), ("plain", False),
    ],
)  # fmt: skip
def test_mojibake_is_told_from_text(story, is_mojibake):
    assert text.has_mojibake(story) == is_mojibake


def test_the_same_input_gives_the_same_bytes_and_another_seed_another_cut(tmp_path):
    path = jsonl(tmp_path / "pool.jsonl", [f"story {i}" for i in range(200)])
    for out, seed in (("one", 0), ("two", 0), ("three", 1)):
        build(corpus(train=[path], seed=seed), tmp_path / out)
    names = ["manifest.json", *(f"{split}.parquet" for split in SPLITS)]
    assert all(
        (tmp_path / "one" / n).read_bytes() == (tmp_path / "two" / n).read_bytes() for n in names
    )
    assert stories(tmp_path / "one", "test") != stories(tmp_path / "three", "test")
    assert str(tmp_path) not in (tmp_path / "one/manifest.json").read_text()


def test_a_cut_does_not_depend_on_the_order_of_stories_or_files(tmp_path):
    pool = [f"story {i}" for i in range(100)]
    one = jsonl(tmp_path / "one.jsonl", pool)
    two = [jsonl(tmp_path / "b.jsonl", pool[60::-1]), jsonl(tmp_path / "a.jsonl", pool[61:])]
    build(corpus(train=[one]), tmp_path / "1")
    build(corpus(train=two), tmp_path / "2")
    for split in SPLITS:
        assert set(stories(tmp_path / "1", split)) == set(stories(tmp_path / "2", split))


def test_a_cut_validation_shares_nothing_with_a_given_test(tmp_path):
    train = jsonl(tmp_path / "train.jsonl", ["A", "B", "C", "D", "E"])
    test = jsonl(tmp_path / "test.jsonl", ["a.", "B", "c"])
    for near in ("count", "drop"):
        rules = corpus({"near_duplicates": near}, train=[train], test=[test], validation_stories=1)
        build(rules, tmp_path / near)
        assert stories(tmp_path / near, "validation") in (["D"], ["E"])


def test_too_few_stories_for_the_cut_is_an_error(tmp_path):
    path = jsonl(tmp_path / "pool.jsonl", ["A", "a", "B", "C", "D", "E"])
    with pytest.raises(
        SquentropyError, match=r"train has 5 different stories \(6 read\), too few to cut"
    ):
        build(corpus(train=[path]), tmp_path / "out")


def test_what_was_dropped_is_said_where_too_few_stories_are_left_for_the_cut(tmp_path):
    path = jsonl(tmp_path / "pool.jsonl", ["A", "", "x" * 11, "y" * 12, "â€œHi"])
    rules = corpus({"max_bytes": 10, "mojibake": "drop"}, train=[path])
    said = (
        r"1 different stories \(5 read, 1 of them empty, 2 of them overlong by max_bytes 10, "
        r"1 of them mojibake\), too few"
    )
    with pytest.raises(SquentropyError, match=said):
        build(rules, tmp_path / "out")


@pytest.mark.parametrize("splits", [{}, {"validation": ["C\n\nD"], "test": ["E"]}])
def test_a_txt_whose_separator_never_occurs_is_named_as_the_cause(tmp_path, splits):
    named = {}
    for split, texts in ({"train": ["A.\n\n" * 5, "B.\n\n" * 5]} | splits).items():
        paths = [tmp_path / f"{split}{number}.txt" for number, _ in enumerate(texts)]
        for path, story in zip(paths, texts, strict=True):
            path.write_text(story)
        named[split] = [str(path) for path in paths]
    said = (
        r"\(2 read.*\).*; \S*train0.txt and \d more hold no '<\|endoftext\|>' "
        r"\(corpus.files.separator\), so one story; "
    )
    with pytest.raises(SquentropyError, match=said):
        build(corpus({"max_bytes": 10}, **named), tmp_path / "out")


def test_a_txt_of_one_story_is_no_cause_where_stories_suffice(tmp_path):
    for number in range(9):
        (tmp_path / f"{number}.txt").write_text(f"story {number}")
    manifest = build(corpus(train=[str(tmp_path / "*.txt")]), tmp_path / "out")
    assert manifest["splits"]["train"]["stories"] == 4


@pytest.mark.parametrize("change", ["one byte", "another file"])
def test_a_story_file_that_changes_while_it_is_read_makes_no_corpus(tmp_path, monkeypatch, change):
    """Otherwise the manifest would contain one file's hash, and the splits another's stories."""
    path = Path(jsonl(tmp_path / "pool.jsonl", [f"story {i}" for i in range(20)]))
    other = jsonl(tmp_path / "other.jsonl", [f"tale {i}" for i in range(20)])
    draw = build_module.draw

    def then_change(*arguments):
        drawn = draw(*arguments)
        if change == "one byte":
            path.write_bytes(path.read_bytes().replace(b"19", b"91"))
        else:
            Path(other).replace(path)
        return drawn

    monkeypatch.setattr(build_module, "draw", then_change)
    with pytest.raises(SquentropyError, match=r"pool\.jsonl: was changed while it was read"):
        build(corpus(train=[str(path)]), tmp_path / "out")
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_split_without_a_story_left_is_an_error(tmp_path):
    with pytest.raises(
        SquentropyError, match=r"left for train \(2 read, 2 of them duplicate_across"
    ):
        build(corpus(**three(tmp_path, ["V", "T"])), tmp_path / "out")


def test_after_an_error_the_folder_is_what_it_was(tmp_path):
    splits = three(tmp_path, ["A", "B"])
    build(corpus(**splits), tmp_path / "out")
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with Path(splits["train"][0]).open("a") as file:
        file.write('{"text": "cut sho')
    with pytest.raises(SquentropyError, match=r"train.jsonl, line 3: is not JSON"):
        build(corpus(**splits), tmp_path / "out")
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    class Full(pq.ParquetWriter):
        def __init__(self, _, *args, **options):
            super().__init__(open("/dev/full", "wb", buffering=0), *args, **options)  # noqa: SIM115

    monkeypatch.setattr(pq, "ParquetWriter", Full)
    with pytest.raises(SquentropyError, match="the disk is full"):
        build(corpus(**three(tmp_path, ["A"])), tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("size", ["64k", "256k"])
def test_a_disk_that_fills_up_anywhere_is_left_empty(tmp_path, mounted, size):
    disk, draw = mounted(size), random.Random(0)  # so that stories do not compress
    different = [f"{draw.getrandbits(400):x}" for _ in range(4_000)]
    with pytest.raises(SquentropyError, match="the disk is full"):
        build(corpus(**three(tmp_path, different * 2)), disk / "out")
    assert list((disk / "out").iterdir()) == []


def test_a_file_where_the_folder_should_be_is_one_line(tmp_path):
    (tmp_path / "out").touch()
    with pytest.raises(SquentropyError, match="a file stands where a folder should be"):
        build(corpus(**three(tmp_path, ["A"])), tmp_path / "out")


def test_row_groups_stay_small(tmp_path, monkeypatch):
    module = sys.modules["squentropy.corpus.build"]
    monkeypatch.setattr(module, "ROW_GROUP_STORIES", 10)
    build(corpus(**three(tmp_path, [f"story {i}" for i in range(95)])), tmp_path / "out")
    parquet = pq.ParquetFile(tmp_path / "out/train.parquet")
    assert [parquet.metadata.row_group(i).num_rows for i in range(10)] == [10] * 9 + [5]


@pytest.mark.parametrize("given", [True, False])
def test_memory_does_not_grow_with_train(tmp_path, monkeypatch, peak_memory, given):
    module = sys.modules["squentropy.corpus.build"]
    monkeypatch.setattr(module, "ROW_GROUP_STORIES", 100)
    monkeypatch.setattr(module, "DRAWN_AT_ONCE", 100)

    def needed(n: int) -> int:
        train = [f"Story {i % (n - 50)}." for i in range(n)]
        splits = (
            three(tmp_path, train) if given else {"train": [jsonl(tmp_path / "pool.jsonl", train)]}
        )
        return peak_memory(lambda: build(corpus(**splits), tmp_path / "out"))

    needed(100)  # warm-up: allocates what is cached, such as character tables
    few, many = 1_000, 10_000
    assert needed(many) - needed(few) < 2 * (many - few)


@settings(max_examples=50, deadline=None)
@given(starts=st.lists(st.binary(min_size=1, max_size=1), min_size=1))
def test_a_repeated_digest_is_told_from_the_first(starts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("repeats")
    every = [start + bytes(15) for start in starts]  # trailing zeros, which numpy's strings drop
    with digests_in(folder) as digests:
        for digest in every:
            digests.add(digest)
        repeated = digests.repeated()
    assert repeated.tolist() == [digest in every[:i] for i, digest in enumerate(every)]
    assert list(folder.iterdir()) == []


@dataclass
class FakeStory:
    text: str
    log_prob: float


class FakeGrammar:
    digest = "0" * 64

    def stories(self, seed, start, stop):
        return (FakeStory(f"story {seed} {i % 18}", -float(i)) for i in range(start, stop))


def test_the_grammars_splits_are_disjoint_ranges_with_log_probabilities(tmp_path, monkeypatch):
    fake = types.SimpleNamespace(load_grammar=FakeGrammar)
    monkeypatch.setitem(sys.modules, "squentropy.corpus.grammar.grammar", fake)
    grammar = Grammar(seed=7, train=10, validation=4, test=6)
    manifest = build(CORPUS.model_copy(update={"source": "grammar", "grammar": grammar}), tmp_path)
    train = pq.read_table(tmp_path / "train.parquet").to_pylist()
    # Stories 18 and 19 (test) repeat stories 0 and 1, which are therefore dropped from train.
    assert train == [{"text": f"story 7 {i}", "log_prob": -float(i)} for i in range(2, 10)]
    assert manifest["splits"]["train"]["counts"]["dropped"]["duplicate_across_splits"] == 2
    assert manifest["provenance"] == {"grammar_sha256": "0" * 64, "seed": 7}
    assert stories(tmp_path, "validation") == [f"story 7 {i}" for i in range(10, 14)]


@pytest.mark.skipif(not SHARED.exists(), reason="the shared data are not here")
def test_every_one_of_a_thousand_real_stories_is_accounted_for(tmp_path):
    path = SHARED / "v1_head.jsonl"
    rules = corpus(train=[str(path)], validation_stories=100, test_stories=100)
    manifest = build(rules, tmp_path)
    check_accounts(manifest, tmp_path)
    counts = [manifest["splits"][split]["counts"] for split in SPLITS]
    assert sum(c["read"] for c in counts) == 1000
    assert 60 <= sum(c["kept_with"]["mojibake"] for c in counts) <= 100  # about 8 %
    original = {json.loads(line)["text"] for line in path.open(encoding="utf-8")}
    assert {story for split in SPLITS for story in stories(tmp_path, split)} == original
    [file] = manifest["provenance"]["train"]
    assert file["sha256"] == storage.sha256(path)


def test_a_corpus_written_by_several_processes_is_the_one_written_by_one(tmp_path, monkeypatch):
    grammar = Grammar(seed=7, train=230, validation=20, test=20)
    source = CORPUS.model_copy(update={"source": "grammar", "grammar": grammar})
    module = sys.modules["squentropy.corpus.grammar"]
    build(source, tmp_path / "serial")
    monkeypatch.setattr(module, "BLOCK", 50)
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: {0, 1, 2}, raising=False)
    build(source, tmp_path / "parallel")
    for split in ("train", "validation", "test"):
        serial, parallel = (tmp_path / way / f"{split}.parquet" for way in ("serial", "parallel"))
        assert serial.read_bytes() == parallel.read_bytes()
