"""Stories are data: any content passes through corpus, tokens, samples and tables unchanged.

pytest tests/test_hostile.py       tests/report/test_page.py checks them in a browser
"""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.corpus.build import build
from squentropy.results import tables
from squentropy.study.params import Tokens
from squentropy.tokens.token_files import TokenFolder
from squentropy.tokens.tokenizer import LONGEST_SPACE, read_encoding, tokenize

HOSTILE = {
    "script": "<script>window.pwned = 1</script>",
    "end of script": "</script><script>window.pwned = 1</script>",
    "image": "<img src=x onerror='window.pwned = 1'>",
    "style": "</style><style>body { display: none }</style>",
    "comment": "<!-- and no end",
    "entity": "&lt;b&gt; &amp; &#0; &quot;",
    "markdown": "# A heading\n\n![x](https://example.org/x.png) [y](javascript:pwned=1)\n\n---\n",
    "fence": "```\n````text\n~~~\n```",
    "template": "{{ 7 * 7 }} {% raw %} ${window.pwned = 1} `window.pwned = 1`",
    "formula": '=HYPERLINK("https://example.org") $x^2$ \\(x\\)',
    "csv": 'a,"b",\n"c""d";\te\r\nf',
    "json": '{"a": "b\\u0000", "c": [1e999]}\n{"text": "x"}',
    "null": "before\0after",
    "control": "".join(map(chr, [*range(1, 9), 11, 12, *range(14, 32), 127, *range(128, 160)])),
    "escape": "\x1b[2J\x1b[31mred\x1b]0;title\x07",
    "end of text": "<|endoftext|>",
    "end of text inside": "a<|endoftext|><|endoftext|>b",
    "right to left": "abc \u202eevil\u202c \u2066x\u2069 שלום עולם مرحبا",
    "line separators": "a\u2028b\u2029c\u0085d\x0be\x0cf",
    "emoji": "👩‍👩‍👧 🏳️‍🌈 👍🏽 " * 9,
    "combining": "e" + "\u0301" * 500,
    "noncharacters": "\ufffe \uffff \U0010ffff \ue000 \ufeff",
    "byte order mark": "\ufeffOnce",
    "one long line": "lo" + "o" * 1_000_000 + "ng",
    "only symbols": "%s %d %n {0} $(rm -rf x) ; ' \" \\ --",
    "path": "../../../etc/passwd",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_study):
    """A folder with corpus/ and tokens/; each split has a variant of every hostile story."""
    folder = tmp_path_factory.mktemp("hostile")
    paths = {}
    for split in ("train", "validation", "test"):
        paths[split] = folder / f"{split}.jsonl"
        lines = (json.dumps({"text": f"{text}{split}"}) for text in HOSTILE.values())
        paths[split].write_text("\n".join(lines), encoding="utf-8")
    files = {split: [str(path)] for split, path in paths.items()}
    corpus = {"source": "files", "files": files, "max_bytes": 2_000_000}
    build(tiny_study(corpus=corpus).corpus, folder / "corpus")
    tokenize(Tokens(encoding="bpe", vocab_size=300), folder / "corpus", folder / "tokens")
    return folder


@pytest.fixture
def corpus_of(tmp_path) -> Callable[..., Path]:
    """corpus_of(train, test=...): a folder with a corpus of these stories."""

    def make(train: list[str], **others: list[str]) -> Path:
        entries = {}
        for split, stories in (
            {"train": train, "validation": ["v"], "test": ["t"]} | others
        ).items():
            path = tmp_path / "corpus" / f"{split}.parquet"
            path.parent.mkdir(exist_ok=True)
            pq.write_table(pa.table({"text": stories}), path)
            entries[split] = {"sha256": storage.sha256(path)}
        storage.write_sealed(path.with_name("manifest.json"), {"splits": entries})
        return path.parent

    return make


def test_the_corpus_holds_them_as_they_were(folder):
    held = pq.read_table(folder / "corpus" / "test.parquet")["text"].to_pylist()
    assert held == [f"{text}test" for text in HOSTILE.values()]


def test_tokens_give_them_back_and_none_is_an_end_of_text(folder):
    tokens = TokenFolder.open(folder / "tokens")
    encoding, split = read_encoding(tokens), tokens.split("train")
    assert len(split) == len(HOSTILE)
    for story, text in enumerate(HOSTILE.values()):
        *ids, end = split.story(story).tolist()
        assert end == tokens.end_of_text
        assert tokens.end_of_text not in ids
        assert encoding.decode_bytes(ids) == f"{text}train".encode()


RUNS = ["a", "1", "!", "'", "é", "字", "🙂", "\u0301", "\x01", "\u200b"]


def told_back(corpus: Path, encoding: str) -> bytes:
    """The first training story, decoded from its tokens."""
    tokens = corpus.parent / "tokens"
    tokenize(Tokens(encoding=encoding, vocab_size=260), corpus, tokens)
    folder = TokenFolder.open(tokens)
    ids = folder.split("train").story(0).tolist()[:-1]
    return read_encoding(folder).decode_bytes(ids)


@pytest.mark.parametrize(
    ("encoding", "character"),
    [
        ("bpe", "a"),
        ("gpt2", "!"),
        *(pytest.param(e, c, marks=pytest.mark.slow) for e in ("bpe", "gpt2") for c in RUNS),
    ],
)
def test_three_million_bytes_of_a_character_are_tokenized_if_no_white_space(
    corpus_of, encoding, character
):
    text = character * (3_000_000 // len(character.encode()))
    assert told_back(corpus_of([text, *HOSTILE]), encoding) == text.encode()


@pytest.mark.parametrize(
    ("encoding", "split", "space"),
    [
        ("bpe", "train", " "),
        ("bpe", "test", "\n"),
        ("gpt2", "train", "\u3000"),
        ("gpt2", "test", " \t"),
    ],
)
def test_a_longer_run_of_white_space_than_tokenizers_take_is_named_with_its_story(
    corpus_of, encoding, space, split
):
    corpus = corpus_of(**{"train": list(HOSTILE)} | {split: ["d", f"e{space * 3_000_000}f"]})
    said = rf"{split}\.parquet: story 2 holds 500,000 white spaces in a row, more than a tokenizer"
    with pytest.raises(SquentropyError, match=said) as error:
        tokenize(Tokens(encoding=encoding, vocab_size=260), corpus, corpus.parent / "tokens")
    assert "\n" not in str(error.value)


@pytest.mark.slow  # minutes: tokenizers are quadratic in the length of a run
@pytest.mark.parametrize("encoding", ["bpe", "gpt2"])
def test_as_much_white_space_as_is_taken_is_tokenized(corpus_of, encoding):
    text = "a" + " " * (LONGEST_SPACE - 1) + "b" + "\n" * (LONGEST_SPACE - 1)
    assert told_back(corpus_of([text, *HOSTILE]), encoding) == text.encode()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_sample_of_it_stays_inside_its_fence(name, tiny_study):
    sample = {
        "phase": "final", "loss": "mse", "seed": 1, "prompt": "Once", "text": HOSTILE[name],
        "tokens": 3, "ended": True, "temperature": 0.8, "number": 0, "reading": "softmax",
    }  # fmt: skip
    text = tables._samples_markdown(tiny_study(), [sample])
    fence = re.search(r"^(`{3,})text$", text, re.MULTILINE)[1]
    before, inside, after = text.split(fence)
    assert inside == f"text\n{HOSTILE[name]}\n"
    assert "HOSTILE" not in before + after


def test_a_table_gives_it_back(tmp_path):
    rows = [{"name": name, "text": text} for name, text in HOSTILE.items()]
    tables.write_csv(tmp_path / "a.csv", rows, ["name", "text"])
    csv.field_size_limit(2_000_000)
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == rows
