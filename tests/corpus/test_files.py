"""Story files are read byte for byte, and every error in one is reported in one line.

pytest tests/corpus/test_files.py
"""

import csv
import gzip
import io
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from squentropy.base.errors import SquentropyError
from squentropy.corpus import files, story_files, streams

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


def texts(path: Path, text: str = "text", separator: str = SEPARATOR, **options) -> list[str]:
    return [story.text for story in files.read(path, text, separator, **options)]


def jsonl(stories) -> bytes:
    return b"".join(json.dumps({"id": 1, "text": s}).encode() + b"\n" for s in stories)


def write(path: Path, stories: list[str]) -> Path:
    """Write a file of the kind that its name gives."""
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
    monkeypatch.setattr(streams, "CHUNK", 5)
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


TEXTS = st.text().filter(lambda text: text.count("\0") < 4)  # a text with more is refused


@settings(deadline=None)
@given(stories=st.lists(TEXTS, min_size=1))
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
        (b'{"text": "A", "text": "A"}', "line 2: has two keys 'text', of which one is the story"),
        (b'{"text": {"text": "A"}}', "line 2: 'text' is of type Object, not a story"),
        (b'[["text", "A"]]', "line 2: is not a JSON object"),
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
        (b"text,id,text\nA,1,B\n", "line 1: has two columns 'text', of which one is the story"),
        (b"id,text\n", "holds no stories"),
        (b"", "holds no stories"),
    ],
)
def test_a_broken_csv_line_is_named(tmp_path, content, says):
    path = tmp_path / "s.csv"
    path.write_bytes(content)
    assert says in complaint(path)


def test_other_keys_may_stand_twice_and_the_storys_may_stand_in_another_object(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_bytes(b'{"a": {"text": "x"}, "text": "A", "a": [{"text": "y"}]}\n')
    assert texts(path) == ["A"]
    path = tmp_path / "s.csv"
    path.write_bytes(b"id,id,text\n1,2,A\n")
    assert texts(path) == ["A"]


def test_a_parquet_file_with_two_such_columns_is_refused(tmp_path):
    two = pa.Table.from_arrays([pa.array(["A"]), pa.array(["B"])], names=["text", "text"])
    pq.write_table(two, tmp_path / "s.parquet")
    assert "has two columns 'text'" in complaint(tmp_path / "s.parquet")


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
    found = story_files.find(["b.jsonl", "**/*.jsonl*"], "corpus.files.train")
    assert [path.as_posix() for path in found] == ["b.jsonl", "a.jsonl", "deep/er/c.jsonl.gz"]


def test_a_name_with_a_globs_characters_is_a_name(tmp_path):
    path = write(tmp_path / "story[1].jsonl", ["A"])
    assert story_files.find([str(path)], "corpus.files.train") == [path]


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
        story_files.find([pattern], "corpus.files.test")
    assert says in str(error.value)


# --- encodings ----------------------------------------------------------------------------------

ENGLISH = "Once upon a time there was a café.\n" * 30
RUSSIAN = "Жила-была девочка по имени Маша.\n" * 30
CHINESE = "从前有一个小女孩,名字叫小红。\n" * 30


@pytest.mark.parametrize("name", ["s.txt", "s.jsonl", "s.csv", "s.txt.gz"])
@pytest.mark.parametrize("text", [ENGLISH, RUSSIAN, CHINESE], ids=["en", "ru", "zh"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_text_of_utf16_is_refused_and_iconvs_name_for_it_said(tmp_path, encoding, text, name):
    path = tmp_path / name
    data = (f"text\n{text}" if "csv" in name else text).encode(encoding)
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    said = complaint(path)
    assert f"iconv -f {encoding.upper().replace('16-', '16')} -t UTF-8" in said
    assert "WINDOWS" not in said


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv"])
def test_a_story_full_of_nuls_is_refused_and_one_that_holds_some_is_not(tmp_path, kind):
    misread = ENGLISH.encode("utf-16-le").decode("latin-1")
    path = write(tmp_path / f"s.{kind}", ["\0 and \0", "plain " * 2000, misread])
    assert "is full of NULs" in complaint(path)
    path = write(tmp_path / f"s.{kind}", ["\0 and \0"])
    assert texts(path) == ["\0 and \0"]


@pytest.mark.parametrize(
    ("data", "advice"),
    [
        (ENGLISH.encode("cp1252"), "for example with iconv -f WINDOWS-1252 -t UTF-8"),
        (RUSSIAN.encode("cp1251"), "find out its encoding"),
        (CHINESE.encode("gb18030"), "find out its encoding"),
        (bytes(range(1, 256)) * 9, "find out its encoding"),
    ],
    ids=["western", "russian", "chinese", "binary"],
)
def test_what_is_not_utf8_is_looked_at_before_an_encoding_is_named(tmp_path, data, advice):
    path = tmp_path / "s.txt"
    path.write_bytes(data)
    assert advice in complaint(path)


# --- limits -------------------------------------------------------------------------------------


@settings(deadline=None)
@given(
    data=st.lists(st.sampled_from([b"a", b"b", b"ab", b"\n", b"\r", "é".encode()])).map(b"".join),
    chunk=st.integers(1, 5),
    most=st.integers(1, 6),
    separator=st.sampled_from([b"ab", b"a", b"aa", b"bb\n"]),
)
def test_pieces_are_what_split_gives_and_of_long_ones_the_beginning(data, chunk, most, separator):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "CHUNK", chunk)
        found = list(streams.pieces(io.BytesIO(data), separator, most))
    expected, position = data.split(separator), 0
    assert len(found) == len(expected)
    for piece, whole in zip(found, expected, strict=True):
        assert piece.position == position
        assert piece.whole or len(whole) > most
        assert piece.data == whole if piece.whole else piece.data.startswith(whole[: most + 1])
        position += len(whole) + len(separator)
    assert [piece.last for piece in found] == [False] * (len(found) - 1) + [True]


@settings(deadline=None)
@given(
    data=st.lists(st.sampled_from([b"a", b"bcd", b"\n", "é".encode()])).map(b"".join),
    chunk=st.integers(1, 5),
    most=st.integers(1, 6),
)
def test_lines_are_those_of_the_file_and_of_long_ones_the_beginning(data, chunk, most):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streams, "CHUNK", chunk)
        found = list(streams.lines(io.BytesIO(data), Path("a"), most))
    expected = io.BytesIO(data).readlines()
    assert found == [
        (number, whole[: most + 1].decode(errors="replace"), len(whole) <= most)
        for number, whole in enumerate(expected, 1)
    ]


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv", "parquet"])
@pytest.mark.parametrize("length", [99, 100, 101, 103, 110, 2_000_000, 5_000_000])
def test_a_story_is_whole_or_its_beginning_longer_than_allowed(tmp_path, kind, length):
    story = "x" * length
    path = write(tmp_path / f"s.{kind}", ["before", story, "after"])
    if kind == "csv" and length > 1_100_000:
        assert "line 3: a row of over 1,049,176 characters, which has no end yet" in complaint(
            path, longest=100
        )
        return
    before, found, after = texts(path, longest=100)
    assert (before, after) == ("before", "after")
    assert (
        found == story
        if length <= 100
        else (story.startswith(found.strip()[:100]) or kind == "jsonl")
    )
    assert (len(found.encode()) > 100) == (length > 100)


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n\n"])
@pytest.mark.parametrize("length", [99, 100, 101, 1000, 3_000_000])
def test_the_same_holds_of_paragraphs(tmp_path, length, end):
    path = tmp_path / "s.txt"
    story = "\n".join(["x" * 9] * (length // 10)) + "\n" + "y" * (length % 10 or 10)
    path.write_bytes(f"before\n\n{story}\n\nafter{end}".encode())
    before, found, after = texts(path, separator="blank line", longest=100)
    assert (before, after) == ("before", "after")
    assert (len(found) > 100) == (len(story) > 100)
    assert story.startswith(found) if len(story) > 100 else found == story


def test_white_space_before_a_story_that_is_cut_does_not_make_it_empty(tmp_path):
    path = tmp_path / "s.txt"
    path.write_bytes(b"A" + SEPARATOR.encode() + b"\n" * 5_000_000 + b"B")
    first, second = texts(path, longest=100)
    assert first == "A"
    assert len(second) > 100


def test_a_json_array_in_one_long_line_is_no_overlong_story(tmp_path):
    path = tmp_path / "s.jsonl"
    path.write_text("[" + '{"text": "A"}, ' * 200_000 + "]")
    assert "line 1: is not a JSON object" in complaint(path, longest=100)


def test_a_window_that_is_too_large_is_named_as_the_cause(tmp_path):
    path = tmp_path / "s.txt.zst"
    window = zstandard.ZstdCompressionParameters.from_level(1, window_log=30)
    with (
        path.open("wb") as file,
        zstandard.ZstdCompressor(compression_params=window).stream_writer(file) as stream,
    ):
        stream.write(b"A story.\n" * 1000)
    assert "needs too large a window (zstd --long); compress it again without" in complaint(path)


@pytest.mark.parametrize("name", ["s.txt", "s.jsonl.gz", "s.parquet"])
def test_a_pipe_is_refused_at_once(tmp_path, name):
    os.mkfifo(tmp_path / name)
    assert "is a pipe, not a file" in complaint(tmp_path / name)
