"""The fuzz targets: functions of bytes that may raise SquentropyError and nothing else.

run.py searches for inputs that fail; test_fuzz.py runs the kept ones.
"""

import contextlib
import functools
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.corpus import files, story_files
from squentropy.corpus.grammar import grading, parser
from squentropy.study import params, yaml_file
from squentropy.study.corpus import Files
from squentropy.study.overlays import overlay

ROOT = Path(__file__).parents[2]
KEPT = Path(__file__).with_name("kept")
NAMES = [
    f"s{kind}{compression}"
    for kind in (".txt", ".jsonl", ".csv", ".parquet")
    for compression in ("", ".gz", ".zst")
]
FOLDER = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))


@contextlib.contextmanager
def file_of(data: bytes, name: str) -> Iterator[Path]:
    path = FOLDER / name
    path.write_bytes(data)
    yield path


def parameters(data: bytes) -> None:
    """A parameter file as an overlay on params.yaml."""
    with file_of(data, "mine.yaml") as path:
        values = yaml_file.read(path)
    study = params.parse(overlay(_default(), values))
    assert params.parse(study.model_dump()) == study


def readers(data: bytes) -> None:
    """A story file; the first byte selects its kind."""
    which, data = (data[0], data[1:]) if data else (0, data)
    separator = "blank line" if which & 128 else "<|endoftext|>"
    with file_of(data, NAMES[which % 128 % len(NAMES)]) as path:
        for story in files.read(path, "text", separator, longest=1000):
            story.text.encode()


def manifests(data: bytes) -> None:
    """A manifest, without and with a matching seal, and a file of known hashes."""
    with file_of(data, "manifest.json") as path, contextlib.suppress(SquentropyError):
        storage.read_sealed(path)
    seal = hashlib.sha256(data + b',\n  "seal": ""\n}\n').hexdigest().encode()
    with file_of(data + b',\n  "seal": "' + seal + b'"\n}\n', "manifest.json") as path:
        storage.read_sealed(path)
    with file_of(data, "known.json") as path:
        story_files.digest(_files(), path)


def grammar(data: bytes) -> None:
    """A text that may be a story of the grammar."""
    text = data.decode(errors="replace")
    assert parser.check(text).valid in (True, False)
    grade = grading.grade(text)
    assert 0 <= grade.in_form <= grade.sentences
    assert 0 <= grade.matches <= grade.references


TARGETS: dict[str, Callable[[bytes], None]] = {
    function.__name__: function for function in (parameters, readers, manifests, grammar)
}


def tried(target: str, data: bytes) -> None:
    """Run a target; raises any exception but SquentropyError."""
    with contextlib.suppress(SquentropyError):
        TARGETS[target](data)


@functools.cache
def _default() -> dict:
    return yaml_file.read(ROOT / "params.yaml")


@functools.cache
def _files() -> Files:
    return params.parse(_default()).corpus.files
