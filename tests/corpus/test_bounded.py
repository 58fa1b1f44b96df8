"""Reading any story file takes bounded memory and time, even if it is a decompression bomb.

pytest tests/corpus/test_bounded.py          small files that expand to 1 GB or more
pytest -m slow tests/corpus/test_bounded.py  uncompressed files of 256 MB
"""

import gzip
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

BLOCK = 1 << 20
MB = 500
SECONDS = 20

COMPRESS = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor(3).compress}
Parts = list[tuple[bytes, int]]  # a file's content: bytes and how often they repeat


def contents(size: int) -> dict[str, Parts]:
    """Hostile text files of `size` MB, or at most 16 MB if they consist of millions of lines."""
    line, quote = b"x" * BLOCK, b'"'
    return {
        "one line": [(line, size)],
        "line breaks": [(b"\n" * BLOCK, min(size, 16))],
        "returns": [(b"\r" * BLOCK, size)],
        "spaces": [(b" " * BLOCK, size)],
        "nuls": [(b"\0" * BLOCK, size)],
        "nuls within": [(b"text\n", 1), (b"\0" * BLOCK, size)],
        "a long key": [(b'{"', 1), (line, size), (b'": 1}\n', 1)],
        "a long story": [(b'{"text": "', 1), (line, size), (b'"}\n', 1)],
        "an open quote": [(b"text\n" + quote, 1), (line, size)],
        "quoted lines": [(b"text\n" + quote, 1), (b"lo\n" * (BLOCK // 3), min(size, 16))],
        "a row of fields": [(b"text\n", 1), (b"ab," * (BLOCK // 3), size)],
        "a row of quoted line breaks": [(b"text\n", 1), (b'"\n",' * (BLOCK // 4), min(size, 16))],
        "brackets": [(b"[" * BLOCK, size)],
        "braces": [(b'{"text":' * (BLOCK // 8), size)],
        "a list": [(b'{"text": [', 1), (b"[]," * (BLOCK // 3), size)],
        "digits": [(b'{"text": ', 1), (b"9" * BLOCK, size), (b"}", 1)],
        "utf-16": [("Once upon a time\n".encode("utf-16-le") * 30_000, size)],
        "half characters": [(b"text\n", 1), (b"\xf0\x9f" * (BLOCK // 2), size)],
        "nothing": [],
    }


def write(path: Path, parts: Parts) -> None:
    """Write a file, compressing each part only once, so that a gigabyte takes a moment."""
    compress = COMPRESS[path.suffix if path.suffix in COMPRESS else ""]
    with path.open("wb") as file:
        for data, times in parts:
            packed = compress(data)
            for _ in range(times):
                file.write(packed)


def parquets() -> dict[str, tuple[pa.Table, dict]]:
    """Large tables that become small files, with their write options."""
    story = "x" * BLOCK
    return {
        "one story many times": (repeated(story, 100_000), {}),
        "one long story many times": (repeated(story * 20, 5000), {}),
        "stories without a dictionary": (repeated(story, 100), {"use_dictionary": False}),
        "one long story": (pa.table({"text": [story * 100]}), {"use_dictionary": False}),
        "no text": (repeated("", 20_000_000), {}),
    }


def repeated(story: str, times: int) -> pa.Table:
    numbers = pa.array(np.zeros(times, np.int32))
    return pa.table({"text": pa.DictionaryArray.from_arrays(numbers, pa.array([story]))})


def run(paths: Iterable[Path]) -> dict[str, dict]:
    script = Path(__file__).with_name("bounded.py")
    done = subprocess.run(
        [sys.executable, str(script), *map(str, paths)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return {row["file"]: row for row in map(json.loads, done.stdout.splitlines())}


def check(row: dict) -> None:
    """Assert that a file was read, or refused in one line, within the time and memory limits."""
    assert row["status"] == 0, row
    assert row["said"] == "read" or row["said"].startswith("/"), row
    assert row["said"].isprintable(), row
    assert row["mb"] < MB, row
    assert row["seconds"] < SECONDS, row


TEXTS = ("txt", "blank.txt", "jsonl", "csv")
BOMBS = [  # about a megabyte each, a gigabyte when decompressed
    (name, f"{name}.{kind}{compression}", parts)
    for number, (name, parts) in enumerate(contents(1000).items())
    for kind, compression in zip(TEXTS, [".gz", ".zst", ".gz", ".zst", ".gz"][number % 2 :])
]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("hostile")
    for _, name, parts in BOMBS:
        write(folder / name, parts)
    for name, (table, options) in parquets().items():
        path = folder / f"{name}.parquet"
        pq.write_table(table, path, compression="zstd", store_schema=False, **options)
        (folder / f"{name}.parquet.gz").write_bytes(gzip.compress(path.read_bytes()))
    return run(sorted(folder.iterdir()))


@pytest.mark.parametrize("name", [name for _, name, _ in BOMBS])
def test_a_small_file_that_becomes_a_gigabyte_is_bounded(outcomes, name):
    check(outcomes[name])


@pytest.mark.parametrize("compression", ["", ".gz"])
@pytest.mark.parametrize("name", parquets())
def test_a_small_parquet_file_of_a_great_table_is_bounded(outcomes, name, compression):
    check(outcomes[f"{name}.parquet{compression}"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", TEXTS)
def test_a_long_file_is_bounded(tmp_path, kind):
    for name, parts in contents(256).items():
        path = tmp_path / f"{name}.{kind}"
        write(path, parts)
        (row,) = run([path]).values()
        check(row)
        path.unlink()
