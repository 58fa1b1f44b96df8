"""Writes are atomic, and a file that is not what was written is refused.

pytest tests/base/test_storage.py
"""

import contextlib
import errno
import hashlib
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.report.read import read_baselines
from squentropy.runs.weights import load_model
from squentropy.study import catalogue, lock, yaml_file
from squentropy.tokens.token_files import TokenFolder
from squentropy.tokens.tokenizer import tokenize
from squentropy.training.run import train_run


def test_a_file_written_well_is_whole_and_alone(tmp_path):
    storage.write_text(tmp_path / "new" / "a.txt", "é\n")
    assert (tmp_path / "new" / "a.txt").read_bytes() == "é\n".encode()
    assert os.listdir(tmp_path / "new") == ["a.txt"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_after_an_exception_the_old_file_stands_and_nothing_beside_it(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), storage.atomic(path) as temporary:  # noqa: PT012
        temporary.write_text("half of the n")
        raise error
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_what_a_killed_writer_left_is_removed_by_the_next_and_a_living_ones_is_not(tmp_path):
    path = tmp_path / "file[1].txt"
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left, living = (tmp_path / f".{path.name}.{pid}" for pid in (ended.pid, os.getppid()))
    left.touch()
    living.touch()
    storage.write_text(path, "new")
    assert sorted(tmp_path.iterdir()) == sorted([path, living])


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "read-only"),
        (errno.EFBIG, "ulimit -f"),
    ],
)
def test_what_the_file_system_refuses_is_one_line_with_a_fix(tmp_path, code, said):
    path = tmp_path / "a.txt"
    with pytest.raises(SquentropyError, match=f"a.txt: cannot be written: .*{said}.*; "):  # noqa: SIM117
        with storage.atomic(path):
            raise OSError(code, os.strerror(code))
    assert os.listdir(tmp_path) == []


def test_a_folder_to_work_in_lies_beside_its_file_and_is_gone_afterwards(tmp_path):
    path = tmp_path / "report" / "index.html"
    with storage.scratch(path) as folder:
        (folder / "deeper").mkdir()
        (folder / "deeper" / "a").touch()
        storage.write_text(path, "new")
        assert folder.parent == path.parent
        assert folder.stat().st_mode & 0o077 == 0
        assert folder.is_dir()
    assert os.listdir(path.parent) == ["index.html"]
    with pytest.raises(RuntimeError), storage.scratch(path) as folder:
        raise RuntimeError
    assert os.listdir(path.parent) == ["index.html"]


def test_what_a_kill_leaves_of_such_a_folder_the_next_one_removes(tmp_path):
    shared = tmp_path / "shared"
    shared.mkdir()
    program = (
        "import sys, time; from squentropy.base import storage\n"
        "with storage.scratch('index.html') as folder:\n"
        "    (folder / 'a').touch(); print('there', flush=True); time.sleep(60)"
    )
    killed = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, cwd=tmp_path,
        env=os.environ | {"TMPDIR": str(shared)},
    )  # fmt: skip
    killed.stdout.readline()
    killed.kill()
    killed.wait()
    killed.stdout.close()
    left = [path.name for path in tmp_path.iterdir()]
    assert sorted(left) == [f".index.html.folder.{killed.pid}", "shared"]
    with storage.scratch(tmp_path / "index.html"):
        assert not (tmp_path / f".index.html.folder.{killed.pid}").exists()
    assert [path.name for path in tmp_path.rglob("*")] == ["shared"]


def test_a_file_beyond_the_limit_is_named_with_the_cause(tmp_path):
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "from squentropy.base import storage; storage.write_text('a.txt', 'x' * 2000)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )
    assert "SquentropyError: a.txt: cannot be written: too large a file" in done.stderr
    assert not list(tmp_path.iterdir())


def test_an_error_that_has_no_fix_is_not_disguised(tmp_path):
    with pytest.raises(OSError, match="Input/output"), storage.atomic(tmp_path / "a"):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_a_file_where_a_folder_should_be_is_named(tmp_path):
    (tmp_path / "taken").write_text("")
    for below in ("a.txt", "deeper/a.txt"):
        with pytest.raises(SquentropyError, match="a file stands where a folder should be"):
            storage.write_text(tmp_path / "taken" / below, "")


def test_a_folder_where_a_file_should_be_is_named(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(SquentropyError, match="a folder stands where the file should be"):
        storage.write_text(tmp_path / "a.txt", "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(SquentropyError, match="no permission"):
        storage.write_text(tmp_path / "a.txt", "")
    tmp_path.chmod(0o700)


@pytest.fixture
def small_disk(mounted):
    """A file system with sixteen pages of 4 KB."""
    return mounted("64k")


@pytest.mark.parametrize("what", ["text", "tokens", "run"])
def test_on_a_full_disk_a_file_is_whole_or_refused_in_one_line(
    small_disk, data, tokens, tiny_study, what
):
    """Whichever file fills the disk; numpy, safetensors and Python fail in different ways."""
    study = tiny_study(sweep={"keep_weights": True})
    folder = small_disk / "folder"
    write, read = {
        "text": (
            lambda: storage.write_text(folder / "a.txt", "x" * 9999),
            lambda: len((folder / "a.txt").read_text()) == 9999,
        ),
        "tokens": (
            lambda: tokenize(study.tokens, data / "corpus", folder),
            lambda: TokenFolder.open(folder).manifest == tokens.manifest,
        ),
        "run": (
            lambda: train_run(study, study.sweep_cells()[0], tokens, folder),
            lambda: load_model(folder, torch.device("cpu")),
        ),
    }[what]
    refused = 0
    for pages in range(17):
        (small_disk / "filler").write_bytes(bytes(4096 * (16 - pages)))
        try:
            write()
        except SquentropyError as error:
            refused += "cannot be written: the disk is full" in str(error)
            assert not list(small_disk.rglob(".*"))
        else:
            assert read()
        shutil.rmtree(folder, ignore_errors=True)
    assert 0 < refused < 17


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(b"\x01" + path.read_bytes()[1:]),
        lambda path: path.write_bytes(b""),
        lambda path: path.unlink(),
    ],
    ids=["cut short", "one byte changed", "empty", "missing"],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, damage):
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(100))
    digest = storage.sha256(path)
    assert storage.verified(path, digest) == path
    damage(path)
    with pytest.raises(SquentropyError, match=r"a\.bin: .*run the study again"):
        storage.verified(path, digest)


def test_sealed_json_comes_back_as_it_went_and_the_same_twice(tmp_path):
    value = {"a": [1, 2.5, None, "é\n"], "b": {"c": True}}
    for name in ("1.json", "2.json"):
        storage.write_sealed(tmp_path / name, value)
    assert storage.read_sealed(tmp_path / "1.json") == value
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_refuses_numbers_that_it_lacks(tmp_path, number):
    with pytest.raises(ValueError, match="not JSON compliant"):
        storage.write_json(tmp_path / "a.json", [number])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("content", [b"", b'{"a": ', b"\xff\xfe\x00", b"[" * 10**5, b"{'a': 1}"])
def test_json_without_a_seal_is_refused_by_name(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(SquentropyError, match=r"a\.json: is damaged"):
        storage.read_sealed(tmp_path / "a.json")


def test_sealed_json_is_refused_whichever_byte_is_flipped_and_wherever_it_is_cut(tmp_path):
    path = tmp_path / "a.json"
    storage.write_sealed(path, {"a": [1, 2.5, None, "é  \n"], "seal": "b"})
    whole = path.read_bytes()
    cut = [whole[:end] for end in range(len(whole))]
    flipped = [
        whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
        for at in range(len(whole))
        for bit in range(8)
    ]
    for content in [*cut, *flipped, whole + b"\n", whole.replace(b"  ", b"   ")]:
        path.write_bytes(content)
        with pytest.raises(SquentropyError, match=r"a\.json: is damaged \(.*\); delete it"):
            storage.read_sealed(path)


def test_json_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(SquentropyError, match=r"a\.json: does not exist"):
        storage.read_sealed(tmp_path / "a.json")
    with pytest.raises(SquentropyError, match="cannot be read: Is a directory"):
        storage.read_sealed(tmp_path)


# --- not a regular file -------------------------------------------------------------------------

READERS = {
    "read_bytes": storage.read_bytes,
    "read_sealed": storage.read_sealed,
    "sha256": storage.sha256,
    "verified": lambda path: storage.verified(path, "0"),
    "a study's lock": lock.hold,
    "parameters": yaml_file.read,
    "a loss's file": lambda path: catalogue.loss_info(f"{path}:mine"),
    "baselines": lambda path: read_baselines(path.parent),
}


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_a_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def link_to_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def unix_socket(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path.name)


@pytest.mark.parametrize("put", [pipe, link_to_a_pipe, link_to_a_device, unix_socket])
@pytest.mark.parametrize("reader", READERS)
def test_what_is_no_plain_file_is_refused_at_once(tmp_path, monkeypatch, reader, put):
    monkeypatch.chdir(tmp_path)
    path = Path("mine.py" if "loss" in reader else "baselines.csv")
    put(path)
    with pytest.raises(
        SquentropyError, match=f"{path.name}: is a (pipe|device|socket), not a file"
    ):
        READERS[reader](path)


def test_a_lock_that_is_no_plain_file_is_held_by_nobody(tmp_path):
    os.mkfifo(tmp_path / "lock")
    assert lock.holder(tmp_path / "lock") is None


def test_a_link_to_a_plain_file_and_a_missing_one_are_left_to_their_reader(tmp_path):
    (tmp_path / "file").write_text("a")
    (tmp_path / "link").symlink_to("file")
    assert storage.read_bytes(tmp_path / "link") == b"a"
    assert storage.plain(tmp_path / "missing") == tmp_path / "missing"


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "\xff", "1" * 5000])
def test_what_is_sealed_and_no_json_is_damaged(tmp_path, text):
    path = tmp_path / "a.json"
    rest = text.encode("latin-1") + b',\n  "seal": ""\n}\n'
    seal = hashlib.sha256(rest).hexdigest().encode()
    path.write_bytes(rest.replace(b'""\n}', b'"' + seal + b'"\n}'))
    with pytest.raises(SquentropyError, match=r"a\.json: is damaged \(is not JSON\)"):
        storage.read_sealed(path)
