"""Foreign text cannot control a terminal, and output that fails is one line or silent.

pytest tests/base/test_output.py
"""

import contextlib
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tty
from pathlib import Path

import pytest
import typer
import yaml

from squentropy.base import errors, output
from squentropy.base.errors import SquentropyError
from squentropy.cli import app
from squentropy.tools import endpoint
from squentropy.training.resume import Progress, StateFile

ROOT = Path(__file__).resolve().parents[2]
CONTROLS = [*range(1, 32), *range(127, 160), 0x061C, 0x200B, 0x200F, 0x2028, 0x202E, 0x2066, 0xFEFF]
FOREIGN = "a" + "".join(map(chr, CONTROLS)) + "\x1b[2J\x1b]0;title\x07\x9b31mred\r\nsecond"
BYTES = re.compile(r"[^\n\t -~\xa0-\U0010ffff]")
RUN = "checkpoints/tiny/final/cross_entropy/seed1"


def examples() -> list[tuple[str, ...]]:
    """Each command's example, with each of its words except options replaced by foreign text."""
    group, found = typer.main.get_command(app.app), []
    for command in group.commands.values():
        text = command.help.partition("Example: squentropy ")[2].replace("\\\n", " ")
        words = shlex.split(text)
        at = [i for i in range(1, len(words)) if not words[i].startswith("--")]
        found += [(*words[:i], FOREIGN, *words[i + 1 :]) for i in at] or [(*words, FOREIGN)]
    return found


@pytest.fixture
def on_terminal(monkeypatch):
    """on_terminal(*words): exit code, and the output to a terminal."""
    monkeypatch.setenv("TERM", "dumb")  # without colours
    monkeypatch.delenv("SQUENTROPY_TRACEBACKS", raising=False)

    def run(*words: str) -> tuple[int, str]:
        reader, writer = os.openpty()
        tty.setraw(writer)  # otherwise it turns "\n" into "\r\n"
        shown = []

        def read() -> None:
            with contextlib.suppress(OSError):  # the other end is closed
                while data := os.read(reader, 1 << 16):
                    shown.append(data)

        thread = threading.Thread(target=read)
        thread.start()
        with open(writer, "w", encoding="utf-8") as terminal, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            patch.setattr(sys, "stderr", terminal)
            with pytest.raises(SystemExit) as end:
                app.main(list(words))
        thread.join()
        os.close(reader)
        return end.value.code or 0, b"".join(shown).decode()

    return run


@pytest.mark.parametrize("words", examples(), ids=lambda each: f"{each[0]}-{each.index(FOREIGN)}")
def test_no_command_sends_a_foreign_word_to_the_terminal_as_it_is(
    on_terminal, tmp_path, monkeypatch, words
):
    monkeypatch.chdir(tmp_path)
    status, shown = on_terminal(*words)
    assert status in (errors.FAILED, errors.USAGE)
    assert shown
    assert not BYTES.findall(shown)
    if shown.startswith("squentropy: "):
        assert shown.count("\n") == 1


@pytest.fixture
def study(whole_study, tiny_study) -> Path:
    """A finished study in the working folder, and mine.yaml, which contains foreign text."""
    mine = tiny_study(sample={"prompts": [FOREIGN], "max_tokens": 4})
    Path("mine.yaml").write_text(mine.dump(), encoding="utf-8")
    return whole_study


def contents() -> dict[str, tuple[str, ...]]:
    return {
        "tell": ("tell", RUN, "--prompt", FOREIGN, "--max-tokens", "3"),
        "sample": ("sample", RUN, "--params", "mine.yaml"),
        "check": ("check", f"{FOREIGN}.jsonl"),
        "params": ("params", "mine.yaml"),
        "why": ("why", "--params", "mine.yaml", "--states", FOREIGN),
        "show": ("show", "results/tiny"),
        "live": ("live", "--out", FOREIGN),
        "judge": ("judge", "results/tiny", "--model", FOREIGN),
        "export": ("export", RUN, FOREIGN),
    }


@pytest.mark.parametrize("name", contents())
def test_no_command_sends_foreign_contents_to_the_terminal_as_they_are(
    on_terminal, study, monkeypatch, name
):
    story = json.dumps({"text": f"Once {FOREIGN}"})
    Path(f"{FOREIGN}.jsonl").write_text(f"{story}\n{story}\n", encoding="utf-8")
    log = Path("logs/tiny/corpus.log")
    log.parent.mkdir(parents=True)
    log.write_text(f"said\n{FOREIGN.splitlines()[-2]}{FOREIGN[:9]}", encoding="utf-8")
    Path("logs/tiny/failed").write_text(f"{log}\n")
    StateFile(Path("state"), f"tiny/{FOREIGN}", {}).save(Progress([1.0], []), {})
    monkeypatch.setenv("OPENAI_API_KEY", "key")
    answer = (400, {}, FOREIGN.encode())
    monkeypatch.setattr(endpoint, "_within", lambda *_: answer)
    status, shown = on_terminal(*contents()[name])
    assert status in (errors.OK, errors.FAILED)
    assert "this is a bug" not in shown
    assert shown.strip()
    bar = "\r" if name == "judge" else ""  # returns to the start of the line
    assert set(BYTES.findall(shown)) <= set(bar)


def test_into_a_file_a_story_goes_as_it_is_and_into_a_jobs_log_visibly(study, capsys, monkeypatch):
    def told() -> str:
        with pytest.raises(SystemExit):
            app.main(["tell", RUN, "--prompt", FOREIGN, "--max-tokens", "1"])
        return capsys.readouterr().out

    monkeypatch.delenv("SQUENTROPY_TRACEBACKS", raising=False)
    assert told().startswith(FOREIGN)
    monkeypatch.setenv("SQUENTROPY_TRACEBACKS", "1")
    assert not BYTES.findall(told())


def test_the_end_of_a_study_shows_what_a_log_holds(copy_project, snakemake, tmp_path):
    project = copy_project(tmp_path / "project")
    (project / "stories").mkdir()
    (project / "stories/a.jsonl").write_text('{"story": "Once"}\n')
    mine = {"study": "mine", "corpus": {"source": "files", "files": {"text": FOREIGN}}}
    mine["corpus"]["files"]["train"] = ["stories/*"]
    (project / "mine.yaml").write_text(yaml.safe_dump(mine), encoding="utf-8")
    done = snakemake(project, "--cores", "1", "--configfile", "mine.yaml")
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert "has no key 'a\\x01" in said
    assert not BYTES.findall(said)


def test_one_line_and_visible_leave_every_script_as_it_is():
    for text in ("Once upon a time", "naïve “quotes” – 1\u202f000", "שלום 日本語 😀"):
        assert output.one_line(text) == output.visible(text) == text
    for code in itertools.chain(range(32), range(127, 160), (0x202E, 0xDCFF)):
        assert output.one_line(chr(code)).isprintable()
        assert output.visible(chr(code)) in ("\ufffd", "\n", "\t")


# --- output that fails --------------------------------------------------------------------------


def squentropy(words: str, **how) -> subprocess.CompletedProcess:
    """Run the program in a shell, with the redirections in `words`."""
    command = f"{shlex.quote(sys.executable)} -m squentropy.cli {words}"
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, **how)


@pytest.mark.parametrize("words", ["--help", "--version", "params --help", "params"])
def test_a_reader_that_has_gone_is_no_error(words):
    done = squentropy(f"{words} | true; exit ${{PIPESTATUS[0]}}", cwd=ROOT)
    assert (done.returncode, done.stderr) == (errors.CLOSED, "")


def test_closed_output_takes_nothing_and_is_no_error():
    for closed in (">&-", "2>&-", ">&- 2>&-"):
        done = squentropy(f"--version {closed}")
        assert (done.returncode, done.stderr) == (errors.OK, "")
    assert squentropy("params none.yaml 2>&-").returncode == errors.USAGE
    done = squentropy("params none.yaml 2>&1 | true; exit ${PIPESTATUS[0]}")
    assert done.returncode == errors.USAGE


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_output_that_cannot_be_written_is_named():
    done = squentropy("--version > /dev/full")
    assert done.returncode == errors.FAILED
    assert done.stderr == "squentropy: stdout: cannot be written: No space left on device\n"


def test_a_stream_says_what_it_cannot_write(tmp_path):
    with (tmp_path / "out").open("w") as file:
        stream = output.Stream(file, shown=True)
        print("\x1b", file=stream, end="")
        print("\x1b", file=output.unchanged(stream), end="", flush=True)
        assert (tmp_path / "out").read_bytes() == "\ufffd\x1b".encode()
    with (tmp_path / "out").open() as file, pytest.raises(SquentropyError, match="out: cannot be"):
        output.Stream(file, shown=True).write("a")


# --- other locales ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def latin_1(tmp_path_factory) -> dict[str, str]:
    """Environment variables of a locale with the encoding ISO-8859-1."""
    folder = tmp_path_factory.mktemp("locales")
    command = ["localedef", "-i", "de_DE", "-f", "ISO-8859-1", str(folder / "de_DE")]
    if not shutil.which("localedef") or subprocess.run(command, capture_output=True).returncode > 1:
        pytest.skip("there is no localedef, or no source of locales")
    return {"LOCPATH": str(folder), "LC_ALL": "de_DE", "PYTHONIOENCODING": ""}


@pytest.mark.parametrize("words", ["params", "show", "check -"])
def test_commands_print_in_a_locale_that_lacks_their_characters(latin_1, words):
    environment = os.environ | latin_1
    code = subprocess.run(
        [sys.executable, "-c", "import sys; print(sys.stdout.encoding)"],
        env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert code.stdout.lower().strip() == "iso8859-1"
    story = "Once “upon” a time – 😀"
    done = subprocess.run(
        [sys.executable, "-m", "squentropy.cli", *words.split()],
        env=environment, cwd=ROOT, input=story.encode(), capture_output=True,
    )  # fmt: skip
    assert done.returncode in (errors.OK, errors.FAILED)
    assert done.stdout
    assert b"bug" not in done.stderr


def test_a_job_fails_in_such_a_locale_as_in_any(latin_1, copy_project, tmp_path):
    project = copy_project(tmp_path / "project")
    (project / "stories").mkdir()
    (project / "stories/a.jsonl").write_text('{"“däs” 😀": "Once"}\n', encoding="utf-8")
    files = {"train": ["stories/*"]}
    mine = {"study": "mine", "corpus": {"source": "files", "files": files}}
    (project / "mine.yaml").write_text(yaml.safe_dump(mine), encoding="utf-8")
    environment = os.environ | latin_1 | {"PYTHONPATH": str(project / "src")}
    command = [sys.executable, "-m", "snakemake", "--cores", "1", "--configfile", "mine.yaml"]
    done = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, encoding="latin-1"
    )
    assert done.returncode == 1
    log = (project / "logs/mine/corpus.log").read_text(encoding="utf-8")
    assert "it has '“däs” 😀'" in log
    assert "it has '\\u201cd" in done.stdout
    assert "UnicodeEncodeError" not in done.stdout + done.stderr
