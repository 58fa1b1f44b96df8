"""Files are read byte for byte, and whatever is wrong with one is said in one line.

pytest tests/corpus/test_files.py
"""

import csv
import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from squentropy.corpus import files
from squentropy.errors import SquentropyError

STORIES = [
    "Once upon a time.\n\nThere was a cat.",
    ' leading space, comma and "quotes"',
    "<|endoftext|> is data here",
    "â€œmojibakeâ€\x9d",
    "unit separators \u2028 \x1c and a return \r\n inside",
    "🙂 日本語",
    "trailing newline\n",
]
SEPARATOR = "<|endoftext|>"


def texts(path: Path, text: str = "text", separator: str = SEPARATOR) -> list[str]:
    return [story.text for story in files.read(path, text, separator)]


def jsonl(stories) -> bytes:
    return b"".join(json.dumps({"id": 1, "text": s}).encode() + b"\n" for s in stories)


def write(path: Path, stories: list[str]) -> Path:
    """A file of the kind that its name says."""
    kind = path.name.split(".")[1]
    plain = path.with_name("plain")
    if kind == "jsonl":
        plain.write_bytes(jsonl(stories))
    elif kind == "csv":
        with plain.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([["id", "text"], *([1, s] for s in stories)])
    elif kind == "parquet":
        pq.write_table(pa.table({"id": [1] * len(stories), "text": stories}), plain)
    else:
        plain.write_text(f"\n{SEPARATOR}\n".join(stories) + "\n", encoding="utf-8", newline="")
    data = plain.read_bytes()
    plain.unlink()
    compress = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}
    path.write_bytes(compress.get(path.suffix, bytes)(data))
    return path


def complaint(path: Path, **options) -> str:
    with pytest.raises(SquentropyError) as error:
        texts(path, **options)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    return message


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_stories_come_back_byte_for_byte(tmp_path, kind, compression):
    assert texts(write(tmp_path / f"stories.{kind}{compression}", STORIES)) == STORIES


@pytest.mark.parametrize("compression", ["", ".gz", ".zst"])
def test_a_txt_loses_only_the_newlines_that_touch_separators(tmp_path, compression):
    stories = ["One.\n\n  Two. ", "  three\r\nfour", "🙂"]
    assert texts(write(tmp_path / f"stories.txt{compression}", stories)) == stories


def test_an_empty_story_between_separators_is_a_story_and_the_ends_of_the_file_are_not(tmp_path):
    path = tmp_path / "stories.txt"
    path.write_text(f"{SEPARATOR}\nA{SEPARATOR}{SEPARATOR}B\n{SEPARATOR}\n")
    assert texts(path) == ["A", "", "B"]


def test_a_separator_that_spans_two_reads_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "CHUNK", 5)
    path = tmp_path / "stories.txt"
    path.write_text(SEPARATOR.join(f"story {i}" for i in range(50)))
    assert texts(path) == [f"story {i}" for i in range(50)]


def test_blank_lines_part_stories_and_lines_of_spaces_are_blank(tmp_path):
    path = tmp_path / "stories.txt"
    path.write_bytes(b"\n\nOne.\nStill one. \n\n \t\r\n\n  Two.\r\n\r\nThree")
    found = texts(path, separator="blank line")
    assert found == ["One.\nStill one. ", "  Two.", "Three"]


@pytest.mark.parametrize("name", ["s.txt", "s.jsonl", "s.csv"])
def test_a_byte_order_mark_is_no_part_of_a_story(tmp_path, name):
    path = write(tmp_path / name, ["A", "B"])
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert texts(path) == ["A", "B"]


def test_two_compressed_streams_in_one_file_are_both_read(tmp_path):
    path = tmp_path / "s.jsonl.zst"
    compress = zstandard.ZstdCompressor().compress
    path.write_bytes(compress(jsonl(["A"])) + compress(jsonl(["B"])))
    assert texts(path) == ["A", "B"]


def test_a_story_longer_than_the_csv_modules_default_limit_is_read(tmp_path):
    assert texts(write(tmp_path / "s.csv", ["x" * 200_000])) == ["x" * 200_000]


@settings(deadline=None)
@given(stories=st.lists(st.text(), min_size=1))
def test_any_texts_survive_jsonl_csv_and_parquet(stories, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for kind in ("jsonl", "csv", "parquet"):
        assert texts(write(folder / f"s.{kind}", stories)) == stories


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'{"text": "A"', "line 2: is not JSON"),
        (b'["A"]', "line 2: is not a JSON object"),
        (b'{"story": "A", "id": 3}', "line 2: has no key 'text'; it has 'story', 'id'"),
        (b'{"text": null}', "line 2: 'text' is null"),
        (b'{"text": 7}', "line 2: 'text' is of type int"),
        (b'{"text": "\\ud800"}', "line 2: 'text' holds half a surrogate pair at character 1"),
        (b'{"text": "caf\xe9"}', "line 2: is not UTF-8 at byte 13 of it (0xe9)"),
        (b"[" * 100_000, "line 2: is not JSON"),
        (b'{"text": ' + b"9" * 5000 + b"}", "line 2: is not JSON"),
    ],
)
def test_a_broken_jsonl_line_is_named(tmp_path, line, says):
    path = tmp_path / "s.jsonl"
    path.write_bytes(jsonl(["fine"]) + line + b"\n" + jsonl(["fine"]))
    assert says in complaint(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"id,story\n1,A\n", "line 1: has no column 'text'; it has 'id', 'story'"),
        (b"id,text\n1,A\n2,Hello, you\n", "line 3: has 3 fields, the header 2; put quotes"),
        (b'id,text\n1,"A\n', "is not CSV: unexpected end of data"),
        (b"id,text\n1,\xff\n", "line 2: is not UTF-8"),
        (b"id,text\n", "holds no stories"),
        (b"", "holds no stories"),
    ],
)
def test_a_broken_csv_line_is_named(tmp_path, content, says):
    path = tmp_path / "s.csv"
    path.write_bytes(content)
    assert says in complaint(path)


def test_a_txt_that_is_not_utf8_is_named_with_the_byte(tmp_path):
    path = tmp_path / "s.txt"
    path.write_bytes(b"good<|endoftext|>caf\xe9 noir<|endoftext|>")
    assert "byte 17: is not UTF-8 at byte 3 of it (0xe9)" in complaint(path)
    assert "line 1: is not UTF-8" in complaint(path, separator="blank line")


@pytest.mark.parametrize("name", ["s.jsonl.gz", "s.jsonl.zst", "s.txt.zst", "s.parquet.gz"])
def test_a_truncated_file_is_noticed(tmp_path, name):
    path = write(tmp_path / name, [f"story {i} {'x' * i}" for i in range(3000)])
    path.write_bytes(path.read_bytes()[:-5])
    assert "cut short or damaged" in complaint(path)


@pytest.mark.parametrize("name", ["s.jsonl.gz", "s.jsonl.zst"])
def test_a_file_that_is_not_compressed_as_its_name_says_is_noticed(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(jsonl(["A"]))
    assert "cut short or damaged" in complaint(path)


def test_a_damaged_parquet_file_is_noticed(tmp_path):
    path = write(tmp_path / "s.parquet", ["A"])
    path.write_bytes(path.read_bytes()[:-5])
    assert "is not a whole parquet file" in complaint(path)


def test_a_parquet_file_without_the_column_names_those_that_it_has(tmp_path):
    path = write(tmp_path / "s.parquet", ["A"])
    assert "has no column 'story'; it has 'id', 'text'" in complaint(path, text="story")
    assert "column 'id' holds int64, not strings" in complaint(path, text="id")


def test_a_null_in_a_parquet_file_is_named_with_its_row(tmp_path):
    path = write(tmp_path / "s.parquet", ["A", None])
    assert "row 2: 'text' is null" in complaint(path)


@pytest.mark.parametrize("name", ["s.txt", "s.jsonl", "s.csv", "s.parquet", "s.jsonl.gz"])
def test_an_empty_file_is_an_error(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"")
    message = complaint(path)
    assert "holds no stories" in message or "is not a whole parquet file" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_an_error(tmp_path):
    path = write(tmp_path / "s.jsonl", ["A"])
    path.chmod(0)
    assert "cannot be read: Permission denied" in complaint(path)


def test_globs_are_sorted_and_a_file_named_twice_is_read_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("b.jsonl", "a.jsonl", "deep/er/c.jsonl.gz", "notes.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = files.find(["b.jsonl", "**/*.jsonl*"], "corpus.files.train")
    assert [path.as_posix() for path in found] == ["b.jsonl", "a.jsonl", "deep/er/c.jsonl.gz"]


def test_a_name_with_a_globs_characters_is_a_name(tmp_path):
    path = write(tmp_path / "story[1].jsonl", ["A"])
    assert files.find([str(path)], "corpus.files.train") == [path]


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("missing.jsonl", "missing.jsonl does not exist"),
        ("*.jsonl", "no file matches '*.jsonl'"),
        ("folder", "folder is a folder; name its files, for example folder/*.jsonl"),
        ("story.docx", "story.docx: is of an unknown kind"),
    ],
)
def test_what_cannot_be_found_is_named_with_its_parameter(tmp_path, monkeypatch, pattern, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "story.docx").touch()
    with pytest.raises(SquentropyError) as error:
        files.find([pattern], "corpus.files.test")
    assert says in str(error.value)
