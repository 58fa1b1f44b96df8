"""Each command refuses every damaged input in one line and handles a full disk.

make test-faults      # some minutes
"""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from squentropy.cli import app
from squentropy.report import figures, read
from squentropy.study.params import TABLES

pytestmark = pytest.mark.slow

TRAIN = ("--tokens", "data/tokens", "--loss", "cross_entropy")
GRID = ("--lr", "0.01", "--dropout", "0.1", "--n-layer", "1")
RUN = "checkpoints/final/mse/seed1"
COMMANDS = {  # name: (arguments, output folder)
    "tokenize": (("tokenize", "data/corpus", "out/tokens"), "out"),
    "train": (("train", "out/run", *TRAIN, *GRID), "out"),
    "train as selected": (
        ("train", "out/run", *TRAIN, "--phase", "final", "--selected", "results/selected.json"),
        "out",
    ),
    "sweep": (("sweep", "out/cells", *TRAIN, "--lr", "0.01"), "out"),
    "select": (("select", "checkpoints", "out/results"), "out"),
    "evaluate": (("evaluate", RUN, "--data", "data"), RUN),
    "sample": (("sample", RUN, "--tokens", "data/tokens"), RUN),
    "voices": (("voices", "data", "checkpoints", "results"), "results"),
    "metrics": (("metrics", "data", "checkpoints", "results"), "results"),
    "figures": (("figures", "results", "out/figures"), "out"),
    "report": (("report", "results", "report/figures", "out/index.html"), "out"),
}
WITHOUT_PARAMS = ("figures", "report")


@pytest.fixture(scope="module")
def project(tmp_path_factory, finished, data, tiny_study) -> Path:
    """A folder with the finished miniature study."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(data, folder / "data")
    for part in ("checkpoints", "results"):
        shutil.copytree(finished / part, folder / part)
    figures.draw(folder / "results", folder / "report/figures")
    (folder / "params.yaml").write_text(tiny_study().dump())
    (folder / "out").mkdir()
    return folder


@pytest.fixture
def call(project, monkeypatch, capsys):
    """call(name, out=None): exit code and stderr of a command, optionally with output to `out`."""
    monkeypatch.chdir(project)

    def call(name: str, out: str | None = None) -> tuple[int, str]:
        words, folder = COMMANDS[name]
        if out:
            words = [out + w[len(folder) :] if Path(w).is_relative_to(folder) else w for w in words]
        if name not in WITHOUT_PARAMS:
            words = [*words, "--params", str(project / "params.yaml")]
        with pytest.raises(SystemExit) as end:
            app.main(words)
        return end.value.code or 0, capsys.readouterr().err

    return call


OPENED: list[str] | None = None


def _note(event: str, arguments: tuple) -> None:
    if event == "open" and OPENED is not None and isinstance(arguments[0], str | os.PathLike):
        OPENED.append(os.path.abspath(arguments[0]))


sys.addaudithook(_note)


def inputs(call, name: str, project: Path) -> list[Path]:
    """The project's files that a command opens, except those that it replaces."""
    global OPENED
    before = {path: path.stat().st_ino for path in files(project)}
    OPENED = []
    status, err = call(name)
    opened, OPENED = OPENED, None
    assert status == 0, err
    kept = {path for path, inode in before.items() if path.stat().st_ino == inode}
    return sorted({Path(path) for path in opened} & kept - {project / "params.yaml"})


def files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in files(folder)}


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def damages(whole: bytes) -> Iterator[tuple[str, bytes]]:
    size = len(whole)
    yield "emptied", b""
    yield "cut in half", whole[: size // 2]
    yield "cut by a byte", whole[:-1]
    for at in sorted({0, size // 3, size // 2, size - 1}):
        yield f"bit flipped at byte {at}", whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_damaged_input_is_refused_in_one_line_that_names_it(name, project, call):
    out = project / "out"
    empty(out)
    needed = inputs(call, name, project)
    assert needed
    for path in needed:
        whole = path.read_bytes()
        for what, damaged in damages(whole):
            if path.name == "params.yaml" and what not in ("emptied", "cut in half"):
                continue  # may still be valid: see tests/study/test_params.py
            empty(out)
            path.write_bytes(damaged)
            before = contents(project)
            status, err = call(name)
            after = contents(project)
            path.write_bytes(whole)
            case = f"{path.relative_to(project)} {what}: {err!r}"
            assert status != 0, case
            assert err.startswith("squentropy: "), case
            assert err.count("\n") == 1, case
            assert path.name in err, case
            assert after == before, case


@pytest.mark.parametrize("name", TABLES)
def test_show_names_a_damaged_table_and_goes_on(project, monkeypatch, capsys, name):
    monkeypatch.chdir(project)
    path = project / "results" / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SystemExit) as end:
        app.main(["show", "results"])
    path.write_bytes(whole)
    said = capsys.readouterr().out
    assert not end.value.code
    assert f"results/{name}" in said
    assert "Progress" in said


@pytest.fixture
def small_disk(mounted):
    """A file system of 4 MB."""
    return mounted("4m")


@pytest.mark.parametrize("name", COMMANDS)
def test_on_a_full_disk_a_command_says_so_in_one_line_and_works_once_there_is_space(
    name, project, call, small_disk
):
    folder = COMMANDS[name][1]
    out = small_disk / "out"
    empty(project / "out")
    assert call(name) == (0, "") or name == "report"
    expected = {path.relative_to(project / folder) for path in files(project / folder)}
    refused = 0
    for pages in (0, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89, 144, 233):
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(project / folder, out) if folder != "out" else out.mkdir()
        before = contents(out)
        filler = small_disk / "filler"
        with filler.open("wb") as file:
            free = shutil.disk_usage(small_disk).free - 4096 * pages
            file.write(bytes(max(0, free)))
        status, err = call(name, str(out))
        filler.unlink()
        if status == 0:
            break
        refused += 1
        assert "cannot be written: the disk is full" in err, err
        assert err.count("\n") == 1, err
        assert not list(out.rglob(".*"))
        assert all(path.read_bytes() == held for path, held in before.items() if path.exists())
    assert refused
    assert call(name, str(out))[0] == 0
    assert {path.relative_to(out) for path in files(out)} == expected
    if folder == "results":
        read.read(out)
