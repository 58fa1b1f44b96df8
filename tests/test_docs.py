"""The documentation is correct: its commands exist, its code runs and its links have targets.

pytest tests/test_docs.py               # checks the pages, in seconds
pytest -m slow tests/test_docs.py       # runs the blocks marked `run`
"""

import contextlib
import functools
import json
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pages
import pandas as pd
import pytest
import typer
import yaml
from typer.exceptions import TyperException

from squentropy.cli import app
from squentropy.study import params
from squentropy.study.catalogue import PHASES

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("", "docs/**/", "benchmarks/", "config/")
PAGES = sorted(page for folder in FOLDERS for page in ROOT.glob(f"{folder}*.md"))
MODULES = sorted(ROOT.glob("src/squentropy/**/*.py"))
SOURCES = tuple(
    f"{name}/" for name in ("benchmarks", "docs", "examples", "profiles", "src", "studies", "tests")
)


slow = pytest.mark.slow


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


# --- command lines ------------------------------------------------------------------------------


def commands(text: str) -> Iterator[list[str]]:
    """The words of each command in a shell script, without prefixes such as `FOO=1 nice`."""
    text = re.sub(r"<<-?\s*(['\"]?)(\w+)\1(.*?)\n.*?^\s*\2$", r"\3", text, flags=re.M | re.S)
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.wordchars += ":"  # as in my_losses.py:smooth
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set(";&|()"):
                while words and (re.match(r"\w+=", words[0]) or words[0] in RUNNERS):
                    words = words[RUNNERS.get(words[0], 1) :]
                if words:
                    yield words
                words = []
            else:
                words.append(word)


SHELLS = ("sh", "bash", "console")
RUNNERS = {"watch": 3, "nice": 1, "time": 1, "sudo": 1, "nohup": 1}  # prefix: its number of words


def in_blocks(page: Path, program: str) -> Iterator[list[str]]:
    """The command lines of a program in the shell blocks of a page."""
    for block in pages.blocks(page):
        if block.language in SHELLS:
            text = re.sub(r"^\$ ", "", block.text, flags=re.M)
            yield from (words for words in commands(text) if words[0] == program)


def said_commands(page: Path, program: str) -> Iterator[list[str]]:
    """Like `in_blocks`, but including inline code."""
    yield from in_blocks(page, program)
    for token in pages.tokens(page):
        if token.type == "code_inline" and token.content.startswith(f"{program} "):
            yield from (words for words in commands(token.content) if words[0] == program)


AT_ONCE = {"--help", "--install-completion", "--show-completion"}  # they act during parsing


def check_squentropy(words: list[str]) -> None:
    """Raises AssertionError if the command would refuse its arguments."""
    command, name, rest = typer.main.get_command(app.app), "squentropy", words[1:]
    while hasattr(command, "commands") and rest and not rest[0].startswith("-"):
        if rest[0].isupper():  # a placeholder for any command
            return
        assert rest[0] in command.commands, f"{name} has no command {rest[0]}"
        name, command, rest = rest[0], command.commands[rest[0]], rest[1:]
    known = {option for p in command.params for option in (*p.opts, *p.secondary_opts)}
    for word in rest:
        option = word.partition("=")[0]
        assert not word.startswith("-") or word == "-" or option in known | {"--help"}, (
            f"squentropy {name} has no option {option}"
        )
    if rest and not AT_ONCE & set(rest) and "…" not in "".join(rest):
        try:
            command.make_context(name, rest)
        except TyperException as error:
            raise AssertionError(f"{shlex.join(words)}: {error.format_message()}") from None


@each_page
def test_every_squentropy_command_exists_with_its_options(page):
    for words in said_commands(page, "squentropy"):
        check_squentropy(words)


def test_so_does_every_command_in_a_docstring():
    for module in MODULES:
        docstring = module.read_text(encoding="utf-8").partition('"""')[2].partition('"""')[0]
        for line in re.findall(r"^ *(squentropy .*)$", docstring, re.M):
            for words in commands(re.split(r" {2,}", line)[0]):
                if words[0] == "squentropy":
                    check_squentropy(words)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("squentropy trian runs/mine", "no command trian"),
        ("squentropy live --states state --tensorbord", "no option --tensorbord"),
        ("squentropy pdf report/grammar/index.html", "Missing argument"),
        ("squentropy judge results/grammar --model m --stories many", "valid integer"),
    ],
)
def test_a_command_line_that_the_program_would_refuse_is_found(line, said):
    with pytest.raises(AssertionError, match=said):
        check_squentropy(line.split())


MAKE = re.compile(r"^([A-Z]+) *\?=", re.M)


@each_page
def test_every_make_target_and_variable_exists(page):
    variables = MAKE.findall((ROOT / "Makefile").read_text(encoding="utf-8"))
    for words in said_commands(page, "make"):
        for word in words[1:]:
            name, equals, _ = word.partition("=")
            assert not equals or name in variables, f"{shlex.join(words)}: no variable {name}"
        targets = [word for word in words[1:] if "=" not in word]
        done = make_dry_run(*targets)
        assert done.returncode == 0, f"{shlex.join(words)}: {done.stderr}"


@functools.cache
def make_dry_run(*targets: str) -> subprocess.CompletedProcess:
    words = ["make", "--dry-run", *targets]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True)


@functools.cache
def snakemake_parser():
    from snakemake.cli import get_argument_parser

    return get_argument_parser()


@each_page
def test_every_snakemake_option_exists(page):
    for words in said_commands(page, "snakemake"):
        known = snakemake_parser()._option_string_actions
        for word in words[1:]:
            option = word.partition("=")[0]
            plugin = re.match(r"--(slurm|kubernetes|storage)-", word)
            assert not word.startswith("-") or plugin or option in known, (
                f"{shlex.join(words)}: no option {option}"
            )


@each_page
def test_every_dvc_command_is_one(page, capsys):
    from dvc.cli.parser import DvcParserError, get_main_parser

    for words in in_blocks(page, "dvc"):
        try:
            get_main_parser().parse_args(words[1:])
        except DvcParserError:
            pytest.fail(f"{shlex.join(words)}: {capsys.readouterr().err}")


@each_page
def test_every_source_file_that_a_command_names_exists_or_is_written_on_the_page(page):
    written = re.findall(r"(?:>|cp \S+) *([\w./-]+)", page.read_text(encoding="utf-8"))
    for block in pages.blocks(page):
        if block.language not in SHELLS:
            continue
        for words in commands(block.text):
            for path in (part for word in words for part in re.split("[=: ]", word)):
                if path.startswith(SOURCES) and path not in written:
                    assert list(ROOT.glob(path)), f"{name_of(page)}:{block.line}: no {path}"


# --- other blocks -------------------------------------------------------------------------------


@each_page
def test_every_block_is_of_its_language(page, tmp_path):
    for block in pages.blocks(page):
        where = f"{name_of(page)}:{block.line}"
        if block.language in ("sh", "bash"):
            done = subprocess.run(["bash", "-n", "-c", block.text], capture_output=True, text=True)
            assert done.returncode == 0, f"{where}: {done.stderr}"
        elif block.language == "python":
            compile(block.text, where, "exec")
        elif block.language == "yaml":
            for values in yaml.safe_load_all(block.text):
                if isinstance(values, dict) and values.keys() <= params.Study.model_fields.keys():
                    overlay = tmp_path / "overlay.yaml"
                    overlay.write_text(block.text, encoding="utf-8")
                    params.load([ROOT / "params.yaml", overlay])
        if "run" in block.words:
            assert block.language in ("sh", "python"), f"{where}: only sh and python run"


# --- links and tables ---------------------------------------------------------------------------


@each_page
def test_every_link_leads_to_a_file_or_is_a_whole_address(page):
    for token in pages.tokens(page):
        link = token.attrGet("href") or token.attrGet("src")
        if not link:
            continue
        address = urlsplit(str(link))
        if address.scheme == "mailto" or not (address.scheme or address.path):
            continue
        if address.scheme:
            assert address.scheme == "https", f"{link}: is not https"
            assert re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", address.netloc), f"{link}: no host"
        else:
            assert (page.parent / address.path).exists(), f"{link}: does not exist"


def described_columns() -> dict[str, list[str]]:
    """The columns that reference/tables.md describes, by table."""
    text = (ROOT / "docs/reference/tables.md").read_text(encoding="utf-8")
    sections = re.split(r"^## `?([\w.]+)`?.*$", text, flags=re.M)[1:]
    return {
        name: [
            column
            for cell in re.findall(r"^\| (`.*?) \|", body, re.M)
            for column in re.findall(r"`([^`]+)`", cell)
        ]
        for name, body in zip(sections[::2], sections[1::2], strict=True)
    }


TABLES = sorted([*ROOT.glob("results/grammar/*.csv"), *ROOT.glob("results/*.csv")])


@pytest.mark.parametrize("table", TABLES, ids=lambda path: path.name)
def test_every_column_of_a_table_is_described_and_no_other(table):
    assert described_columns()[table.name] == list(pd.read_csv(table, nrows=0).columns)


# --- blocks marked `run` ------------------------------------------------------------------------

# Otherwise a make started by make, as in `make test-docs`, prints the folders that it enters.
STUDY = ("make", "--no-print-directory", "study", "STUDY=studies/smoke.yaml")
ENDING = "The report: report/smoke/index.html\nThe stories: results/smoke/samples.md\n"
RUNNING = [page for page in PAGES if any("run" in block.words for block in pages.blocks(page))]


def environment(folder: Path) -> dict[str, str]:
    """The variables of a shell in a copy of the repository with its environment activated."""
    path = os.pathsep.join([str(folder / ".venv/bin"), os.environ["PATH"]])
    return os.environ | {"PATH": path, "PYTHONPATH": str(folder / "src")}


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Path, str]:
    """A copy of the repository with the finished smoke study, and the output without a terminal.

    It uses the tests' environment.
    """
    folder = tmp_path_factory.mktemp("repository")
    git = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(git, cwd=ROOT, check=True, capture_output=True, text=True)
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").mkdir()
    for part in Path(sys.prefix).iterdir():
        (folder / ".venv" / part.name).symlink_to(part)
    for mark in ("", "-dvc", "-hub", "-kubernetes", "-slurm", "-test"):  # nothing to install
        (folder / f".venv/.installed{mark}").unlink(missing_ok=True)
        (folder / f".venv/.installed{mark}").touch()
    author = ["-c", "user.name=reader", "-c", "user.email=reader@example.org"]
    for words in (["init", "--quiet"], ["add", "--all"], [*author, "commit", "--quiet", "-m", "."]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    done = subprocess.run(
        STUDY, cwd=folder, env=environment(folder), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def repository(made) -> Path:
    return made[0]


@slow
def test_each_run_of_a_study_is_a_line_when_it_has_ended_and_the_table_the_end(made):
    folder, said = made
    runs = len(list(folder.glob("checkpoints/smoke/**/run.json")))
    lines = [line for line in said.splitlines() if line.startswith(tuple(f"{p} " for p in PHASES))]
    assert len(lines) == runs
    came = re.compile(r"  (nll \d+\.\d\d|diverged) +\d+ of (about )?\d+   [\d.]+ \w+ left$")
    assert [line for line in lines if not came.search(line)] == []
    assert f" {runs} of {runs}   " in said
    assert "Select jobs" not in said
    assert said.endswith(ENDING)


@slow
def test_a_second_time_a_terminal_shows_the_table_too(repository):
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 100))
    with subprocess.Popen(
        STUDY, cwd=repository, env=environment(repository), stdout=theirs, stderr=theirs
    ):
        os.close(theirs)
        shown = ""
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(ours, 10000):
                shown += part.decode()
    os.close(ours)
    assert "finding out what is to be done" in shown
    assert "Nothing to be done" in shown
    assert shown.replace("\r\n", "\n").rstrip("\r ").endswith(ENDING)


@slow
@pytest.mark.parametrize("page", RUNNING, ids=name_of)
def test_what_a_page_says_can_be_run_runs(page, repository, tmp_path):
    folder = Path(shutil.copytree(repository, tmp_path / "repository", symlinks=True))
    words = [sys.executable, str(ROOT / "tests/pages.py"), name_of(page)]
    done = subprocess.run(
        words, cwd=folder, env=environment(folder), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


@slow
def test_the_notebook_runs(repository, tmp_path):
    words = ["notebooks/library.ipynb", str(tmp_path / "out.ipynb"), "--no-progress-bar"]
    done = subprocess.run(
        [sys.executable, "-m", "papermill", *words], cwd=repository,
        env=environment(repository), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_notebook_is_committed_without_its_outputs():
    held = json.loads((ROOT / "notebooks/library.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in held["cells"] if cell["cell_type"] == "code"]
    assert cells
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
