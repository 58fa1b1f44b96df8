"""Any change of a story file's bytes is detected, whatever its path and however it was made.

pytest tests/corpus/test_story_files.py     tests/test_stories.py checks that the study is remade
"""

import hashlib
import os
import shutil
import socket
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from squentropy.base.errors import SquentropyError
from squentropy.corpus import story_files
from squentropy.study import params
from squentropy.study.corpus import Files

ROOT = Path(__file__).parents[2]
FILES = params.load([ROOT / "params.yaml"]).corpus.files
OLD = (1_000_000_000, 1_000_000_000)  # access and modification time, in seconds

# Path in the parameters: file that is replaced.
FORMS = {
    "stories.txt": "stories.txt",
    "./stories.txt": "stories.txt",
    "{here}/stories.txt": "stories.txt",
    "~/stories.txt": "home/stories.txt",
    "~/*.txt": "home/stories.txt",
    "stories[1].txt": "stories[1].txt",
    "stories/*": "stories/a.txt",
    "**/*.txt": "stories/deep/a b.txt",
    "{here}/*/[ab].txt": "stories/b.txt",
    "{{x}}.txt": "{x}.txt",
    'a$b"c.txt': 'a$b"c.txt',
    "stories/?*.txt": os.fsdecode(b"stories/caf\xe9.txt"),
    "link.txt": "elsewhere/stories.txt",
    "linked/*.txt": "elsewhere/stories.txt",
}


def in_place(path: Path) -> None:
    path.write_bytes(b"others")


def in_place_with_its_time(path: Path) -> None:
    before = path.stat()
    path.write_bytes(b"others")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def appended(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def cut_short(path: Path) -> None:
    os.truncate(path, 3)


def moved_there_with_an_older_time(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"others")
    os.utime(other, OLD)
    other.replace(path)


def moved_there_with_the_same_time_and_size(path: Path) -> None:
    before, other = path.stat(), path.with_name("other")
    other.write_bytes(b"others")
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)


def copied_there_with_its_older_time(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"others")
    os.utime(other, OLD)
    shutil.copy2(other, path)
    other.unlink()


def unzipped(path: Path) -> None:
    archive = path.with_name("archive")
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr(zipfile.ZipInfo("stories", (1990, 1, 1, 0, 0, 0)), b"others")
    path.unlink()
    with zipfile.ZipFile(archive) as file:
        path.write_bytes(file.read("stories"))
    os.utime(path, OLD)
    archive.unlink()


def linked_there(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"others")
    os.utime(other, OLD)
    path.unlink()
    path.hardlink_to(other)
    other.unlink()


WAYS = [
    in_place, in_place_with_its_time, appended, cut_short, moved_there_with_an_older_time,
    moved_there_with_the_same_time_and_size, copied_there_with_its_older_time, unzipped,
    linked_there,
]  # fmt: skip


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(story_files, "SETTLED", 0)
    return tmp_path


@pytest.fixture
def hashing(monkeypatch) -> list:
    """The hashed files, one entry per call."""
    calls, digest = [], hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda file, name: calls.append(file.name) or digest(file, name)
    )
    return calls


def make(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"a tale")
    return path


def digest(*train: str, known: str = "known.json", **splits: list[str]) -> str:
    files = FILES.model_copy(update={"train": list(train), **splits})
    return story_files.digest(files, Path(known))


def next_tick(folder: Path) -> None:
    """Wait until the file system's clock has advanced."""
    probe = folder / "probe"
    probe.touch()
    before = probe.stat().st_ctime_ns
    while probe.stat().st_ctime_ns == before:
        time.sleep(0.001)
        probe.touch()


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
@pytest.mark.parametrize("form", FORMS)
def test_other_bytes_are_seen_and_the_same_are_hashed_once(form, way, folder, hashing):
    pattern, path = form.format(here=folder), make(folder / FORMS[form])
    if "link" in form:
        (folder / "link.txt").symlink_to("elsewhere/stories.txt")
        (folder / "linked").symlink_to("elsewhere")
    next_tick(folder)
    before = digest(pattern)
    assert before
    assert len(hashing) == 1
    assert digest(pattern) == before
    assert len(hashing) == 1
    way(path)
    assert digest(pattern) != before


def test_the_same_bytes_with_another_time_or_place_on_disk_are_the_same(folder, hashing):
    path = make(folder / "stories.txt")
    next_tick(folder)
    before = digest("stories.txt")
    os.utime(path, OLD)
    assert digest("stories.txt") == before
    make(folder / "copy.txt").replace(path)
    assert digest("stories.txt") == before
    assert len(hashing) == 3


def test_a_file_that_was_changed_just_now_is_hashed_again(folder, hashing, monkeypatch):
    """Its next change could have the same timestamp."""
    monkeypatch.setattr(story_files, "SETTLED", 10**15)
    make(folder / "stories.txt")
    assert digest("stories.txt") == digest("stories.txt")
    assert len(hashing) == 2


@pytest.mark.parametrize("content", ["", "[]", "{", '{"a": 1}', "null", "\0"])
def test_damaged_notes_of_hashes_change_nothing(folder, content):
    make(folder / "stories.txt")
    before = digest("stories.txt")
    Path("known.json").write_text(content)
    assert digest("stories.txt") == before


def test_names_order_and_split_count_and_what_is_missing_is_nothing(folder):
    for name in "abc":
        make(folder / f"{name}.txt")
    found = [
        digest("a.txt", "b.txt"),
        digest("b.txt", "a.txt"),
        digest("a.txt", "c.txt"),
        digest("a.txt", validation=["b.txt"]),
        digest("missing.txt"),
    ]
    assert len(set(found)) == len(found)
    assert found[-1] == ""


def test_notes_that_cannot_be_written_do_not_matter(folder):
    make(folder / "stories.txt")
    next_tick(folder)
    Path("file").touch()
    assert digest("stories.txt", known="file/known.json") == digest("stories.txt")


# --- not a story file ---------------------------------------------------------------------------


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path.name)


@pytest.mark.parametrize("pattern", ["a.txt", "*.txt"])
@pytest.mark.parametrize("put", [pipe, link_to_a_device, unix_socket], ids=lambda f: f.__name__)
def test_what_is_no_plain_file_is_refused_at_once(folder, put, pattern):
    put(folder / "a.txt")
    with pytest.raises(SquentropyError, match=r"a\.txt: is a (pipe|device|socket), not a file"):
        story_files.find([pattern], "corpus.files.train")


def hashed(**splits: list[str]) -> dict[str, list[story_files.StoryFile]]:
    nothing: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    return story_files.hashed(Files(**FILES.model_dump() | nothing | splits))


def test_a_folder_of_files_that_no_split_names_is_not_passed_over(folder):
    make(folder / "stories/a.txt")
    make(folder / "stories/deep/b.txt")
    said = (
        r"corpus.files.train: stories/deep is a folder, .*; write 'stories/\*\*/\*' for all below"
    )
    with pytest.raises(SquentropyError, match=said):
        hashed(train=["stories/*"])
    assert len(hashed(train=["stories/**/*"])["train"]) == 2
    assert hashed(train=["stories/*"], test=["stories/deep/*"]).keys() == {"train", "test"}


def test_folders_without_visible_files_are_passed_over(folder):
    make(folder / "stories/a.txt")
    make(folder / "stories/empty/.hidden")
    assert len(hashed(train=["stories/*"])["train"]) == 1


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("~nobody-of-this-name/a.txt", "home directory"),
        ("a\0b.txt", "correct it"),
        ("a\0b*", "correct"),
        ("x" * 5000, "File name too long"),
        ("x" * 5000 + "*", "File name too long"),
    ],
)
def test_a_path_that_cannot_be_is_one_line(folder, pattern, said):
    with pytest.raises(SquentropyError, match=said) as error:
        story_files.find([pattern], "corpus.files.train")
    assert str(error.value).startswith("corpus.files.train: ")
    assert str(error.value).isprintable()


def test_a_home_with_a_globs_characters_is_a_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "[x]*"))
    path = make(tmp_path / "[x]*" / "a.txt")
    assert story_files.find(["~/*.txt"], "corpus.files.train") == [path]


def test_a_name_that_is_not_utf8_has_a_readable_entry(folder):
    make(folder / os.fsdecode(b"stories/caf\xe9\n.txt"))
    (entry,) = story_files.entries(hashed(train=["stories/*"]))["train"]
    assert entry["file"].isprintable()
    assert entry["file"].encode() == rb"stories/caf\udce9\n.txt"


def change(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b".")


def replace(path: Path) -> None:
    other = path.with_name("other")
    shutil.copy2(path, other)
    other.replace(path)


@pytest.mark.parametrize("how", [change, replace])
@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_file_that_changes_after_it_was_hashed_is_refused(folder, how: Callable, when):
    path = make(folder / "stories.txt")
    (file,) = hashed(train=["stories.txt"])["train"]
    next_tick(folder)
    if when == "before":
        how(path)
    with pytest.raises(SquentropyError, match=r"stories\.txt: was changed while it was read"):  # noqa: PT012, SIM117
        with file.open() as stream:
            stream.read()
            how(path)


def test_places_are_the_folders_of_globs_and_the_files_of_names(folder):
    for name in ("stories/deep/a.txt", "b.txt", "story[1].txt", "home/c.txt"):
        make(folder / name)
    files = FILES.model_copy(
        update={
            "train": ["stories/**/*", "b.txt", "story[1].txt"],
            "validation": ["stories/deep/*.txt", "b*"],
            "test": ["~/*"],
        }
    )
    assert story_files.places(files) == [
        "stories", "b.txt", "story[1].txt", "stories/deep", str(folder / "home"),
    ]  # fmt: skip
