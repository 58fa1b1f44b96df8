"""Every command works on the command line, and a user's mistake is one line.

pytest tests/cli/test_cli.py
"""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import typer

import squentropy
from squentropy.base import errors
from squentropy.base.storage import read_sealed, write_sealed
from squentropy.cli import app
from squentropy.cli.explain import explain
from squentropy.study import find, params

ROOT = Path(__file__).resolve().parents[2]
COMMANDS = sorted(typer.main.get_command(app.app).commands)


@pytest.fixture
def run(capsys):
    """run(*words): exit code, stdout and stderr."""

    def run(*words) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            app.main([str(word) for word in words])
        captured = capsys.readouterr()
        return end.value.code or 0, captured.out, captured.err

    return run


def example(text: str) -> str:
    """The command in the example of a help text, with its lines joined as by the shell."""
    lines = text[text.index("Example: ") + len("Example: ") :].split("\n\n")[0]
    return " ".join(lines.replace("\\\n", " ").split())


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("columns", ["40", "200"])
def test_every_command_has_an_example_that_is_a_command_line_at_any_width(
    run, monkeypatch, command, columns
):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("TERMINAL_WIDTH", columns)
    status, out, _ = run(command, "--help")
    assert status == 0
    name, *words = shlex.split(example(out))
    assert name == "squentropy"
    assert words[0] == command
    group = typer.main.get_command(app.app)
    with group.make_context("squentropy", list(words)) as context:
        parsed = group.commands[command].make_context(command, words[1:], parent=context)
    assert parsed.params


def test_the_help_lists_every_command_with_what_it_does(run):
    status, out, _ = run("--help")
    assert status == 0
    for command in COMMANDS:
        assert re.search(rf"^  {command}\s+[A-Z].*\.$", out, re.MULTILINE)


def test_every_command_is_in_one_panel_of_the_help(run):
    listed = [command.__name__ for commands in app.PANELS.values() for command in commands]
    assert sorted(listed) == COMMANDS
    out = run("--help")[1]
    panels = re.split(r"^(\w.*):\n", out, flags=re.MULTILINE)[1:]
    shown = dict(zip(panels[::2], panels[1::2], strict=True))
    assert list(shown) == ["Options", *app.PANELS]
    for panel, commands in app.PANELS.items():
        names = re.findall(r"^  (\w+)", shown[panel], re.MULTILINE)
        assert names == [command.__name__ for command in commands]


def test_the_help_is_calm(run, monkeypatch):
    """No summary is cut off in a terminal of 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    lines = run("--help")[1].splitlines()[1:]
    assert not [line for line in lines if line.endswith("...") or len(line) > 80]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_says_what_it_reads_and_writes(run, command):
    out = " ".join(run(command, "--help")[1].split())
    assert re.search(r"\. Reads [^.]", out)
    assert re.search(r"\. Writes [^.]", out)


def test_the_version_is_the_packages(run):
    assert run("--version") == (0, f"squentropy {squentropy.__version__}\n", "")


@pytest.fixture
def study(tiny_study, tmp_path):
    """A parameter file of an even smaller study with one loss."""
    path = tmp_path / "params.yaml"
    path.write_text(
        tiny_study(
            sweep={"losses": ["mse"], "lr": [0.01, 0.02], "n_layer": [1, 2]},
            final={"seeds": [1, 2], "reported": None},
        ).dump()
    )
    return path


def test_the_whole_study_runs_by_hand(run, study, data, tmp_path):
    tokens, checkpoints, results = tmp_path / "tokens", tmp_path / "runs", tmp_path / "results"
    given = ("--params", study)

    def well(*words) -> str:
        status, out, err = run(*words, *given)
        assert (status, err) == (0, "")
        return out

    assert params.load([study]).dump() == well("params")
    assert "test: 6 stories" in well("tokenize", data / "corpus", tokens)
    for lr in ("0.01", "0.02"):
        row = ("--loss", "mse", "--lr", lr)
        assert well("sweep", checkpoints, "--tokens", tokens, *row).count("6 iterations") == 2
    cell = ("--loss", "mse", "--lr", "0.02", "--dropout", "0.1", "--n-layer", "2")
    out = well("train", tmp_path / "mine", "--tokens", tokens, *cell)
    nll = read_sealed(tmp_path / "mine" / "run.json")["validation_nll"]
    assert out.endswith(f"6 iterations, validation nll {nll:.4f}\n")
    swept = checkpoints / "sweep/mse/lr0.02/dropout0.1_layers2/run.json"
    assert swept.read_bytes() == (tmp_path / "mine" / "run.json").read_bytes()
    mine = ("--tokens", tokens, "--loss", "mse")
    assert "runs" in well("refine", checkpoints, *mine)
    assert "0 cells diverged" in well("select", checkpoints, results)
    assert well("lengths", checkpoints, *mine).count("4 iterations") == 1
    chosen = ("--selected", results / "selected.json", "--phase", "final", "--seed")
    final = [checkpoints / f"final/mse/seed{seed}" for seed in (1, 2)]
    for seed, folder in enumerate(final, 1):
        well("train", folder, "--tokens", data / "tokens", "--loss", "mse", *chosen, seed)
    scored = [*final, checkpoints / "lengths/mse/iters4/seed1"]
    assert well("evaluate", *scored, "--data", data).count("test nll") == 3
    assert well("sample", *final, "--tokens", data / "tokens").count("Tim") >= 2
    assert well("voices", data, checkpoints, results) == ""  # MSE's outputs are not logits
    well("metrics", data, checkpoints, results)
    status, out, _ = run("show", results, "--table")
    nll = pd.read_csv(results / "metrics.csv").nll[0]
    assert status == 0
    assert f"{nll:.3f} (" in out
    assert len({len(line) for line in out.splitlines()}) == 1  # columns are aligned


@pytest.fixture
def places(finished, data, tmp_path, monkeypatch):
    """A working directory with checkpoints/tiny, data/tiny and params.yaml."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "data").mkdir()
    shutil.copytree(finished / "checkpoints", tmp_path / "checkpoints/tiny")
    (tmp_path / "data/tiny").symlink_to(data)
    shutil.copy(Path(__file__).resolve().parents[2] / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_story_is_told_from_a_prompt_and_nothing_is_written(run, places):
    folder = places / "checkpoints/tiny/final/cross_entropy/seed1"
    before = {p: p.stat().st_mtime_ns for p in places.rglob("*")}
    words = ("tell", folder, "--max-tokens", "9", "--seed", "5")
    status, out, err = run(*words, "--prompt", "Tim", "--prompt", "")
    assert (status, err) == (0, "")
    assert out.startswith("Tim")
    assert out.endswith("\n\n")
    assert run(*words, "--prompt", "Tim", "--prompt", "")[1] == out
    assert run(*words, "--prompt", "Tim", "--stories", "2")[1].count("Tim") >= 2
    status, old, err = run("sample", *words[1:], "--prompt", "Tim", "--prompt=")
    assert (status, old) == (0, out)
    assert err == "squentropy: `sample --prompt` is now `squentropy tell`\n"
    assert {p: p.stat().st_mtime_ns for p in places.rglob("*")} == before


def test_without_a_prompt_the_studys_own_are_told(run, places):
    folder = "checkpoints/tiny/final/cross_entropy/seed1"
    status, out, _ = run("tell", folder, "--max-tokens", "3")
    assert status == 0
    prompts = params.load(["params.yaml"]).sample.prompts
    assert len(prompts) > 1
    assert all(prompt in out for prompt in prompts)


def test_a_run_elsewhere_is_of_the_studys_tokens_or_says_what_to_name(run, places):
    mine = Path(shutil.copytree(places / "checkpoints/tiny/final/mse/seed1", places / "mine"))
    status, _, err = run("tell", mine, "--prompt", "Tim")
    assert status == 1
    assert "data/grammar/tokens/manifest.json: does not exist" in err
    (places / "data/grammar").symlink_to(places / "data/tiny")
    assert run("tell", mine, "--prompt", "Tim", "--max-tokens", "3")[0] == 0


def test_a_story_is_broken_off_quietly(run, places, monkeypatch):
    def interrupted(*_, **__):
        yield iter(["Tim"])
        raise KeyboardInterrupt

    monkeypatch.setattr("squentropy.sampling.terminal.tell", interrupted)
    folder = "checkpoints/tiny/final/mse/seed1"
    assert run("tell", folder, "--prompt", "Tim") == (130, "Tim\n\n", "")


def test_a_run_is_exported_and_scored_by_hand(run, places, tiny_study):
    folder = places / "checkpoints/tiny/final/mse/seed1"
    status, out, err = run("export", folder, "exported")
    assert (status, out) == (0, "exported\n")
    link, foreign = err.splitlines()
    assert "the loss's own link" in link
    assert foreign.endswith("name its own study with --params, as results/STUDY or a file")
    (places / "results/tiny").mkdir(parents=True)
    mine = tiny_study(sample={"temperatures": [0.3], "top_k": 7})
    (places / "results/tiny/params.yaml").write_text(mine.dump())
    assert run("export", folder, "exported")[2].count("\n") == 1
    drawn = json.loads(Path("exported/generation_config.json").read_text())
    assert (drawn["temperature"], drawn["top_k"]) == (0.3, 7)
    status, out, _ = run("score", "exported", "--data", "data/tiny", "--results", "results")
    assert status == 0
    assert out.startswith("exported: test nll ")
    assert pd.read_csv("results/baselines.csv").name[0] == "exported"


def test_a_run_says_which_study_it_is_of(run, places, tiny_study):
    folder = "checkpoints/tiny/final/mse/seed1"
    assert "other parameters" in run("sample", folder)[2]
    assert "is not a run of the study grammar" in run("why", folder)[2]
    (places / "results/tiny").mkdir(parents=True)
    (places / "results/tiny/params.yaml").write_text(tiny_study().dump())
    assert run("sample", folder)[0] == 0
    assert run("why", folder)[1].startswith(f"{folder}: ")
    assert "other parameters" in run("sample", folder, "--params", "params.yaml")[2]


def test_what_is_not_under_way_and_where_a_run_was_logged_is_said(run, places, monkeypatch):
    said = "no unfinished runs: no run has saved a state in state\n"
    assert run("live") == (0, said, "")
    folder = Path("checkpoints/tiny/final/mse/seed1")
    monkeypatch.setattr("squentropy.tools.hosted.log", lambda runs, _: [(runs[0], "wandb/run-1")])
    assert run("wandb", str(folder)) == (0, f"{folder}: wandb/run-1\n", "")


@pytest.mark.parametrize("words", [["show"], ["show", "smoke"], ["params"], ["why"], ["record"]])
def test_outside_a_clone_it_says_to_go_to_one(run, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    code, out, said = run(*words)
    assert code != 0
    assert out == ""
    assert said.endswith("this folder is not a clone of the repository; go to one\n")
    assert said.count("\n") == 1


TRAIN = ("train", "{tmp}/run", "--tokens", "{data}/tokens", "--params", "{params}")
GRID = ("--lr", "0.1", "--dropout", "0.1", "--n-layer", "1")
MISTAKES = [  # arguments, part of the error message
    (("params", "--params", "{tmp}/none.yaml"), "none.yaml: cannot be read: No such file"),
    (("params", "--params", "{params}", "--params", "{tmp}/wrong.yaml"), "modle: unknown key"),
    ((*TRAIN, *GRID, "--loss", "mze"), "did you mean 'mse'?"),
    ((*TRAIN, *GRID, "--loss", "mse", "--phase", "last"), "--phase last: no such phase"),
    ((*TRAIN, *GRID[:4], "--loss", "mse"), "give --n-layer, or --selected"),
    ((*TRAIN, *GRID, "--loss", "mse", "--lr", "-1"), "train: lr = -1.0: should be greater than 0"),
    ((*TRAIN, *GRID, "--loss", "mse", "--seed", "-1"), "train: seed = -1: should be greater"),
    ((*TRAIN, "--loss", "mse", "--selected", "{tmp}/none"), "none: does not exist"),
    ((*TRAIN, "--loss", "mse", "--selected", "{tmp}/other.json"), "other.json: holds no mse"),
    (
        ("train", "{tmp}/r", "--tokens", "{tmp}", "--loss", "mse_weighted", *GRID),
        "manifest.json: does not",
    ),
    (
        ("train", "{tmp}/r", "--tokens", "{data}/corpus", "--loss", "mse_weighted", *GRID),
        "name the folder that `squentropy tokenize` wrote",
    ),
    (
        (*TRAIN[:1], "{params}/r", *TRAIN[2:], *GRID, "--loss", "mse_weighted"),
        "a file stands where",
    ),
    (
        ("sweep", "{tmp}", "--tokens", "{data}/tokens", "--loss", "mse_weighted", "--lr", "7"),
        "--lr 7.0: no such row",
    ),
    (("tokenize", "{tmp}", "{tmp}/out"), "manifest.json: does not exist"),
    (("evaluate", "{tmp}", "--data", "{data}"), "run.json: does not exist"),
    (("evaluate", "{tmp}", "--data", "{data}", "--split", "dev"), "--split dev: no such split"),
    (("evaluate", "{params}", "--data", "{data}"), "cannot be read: Not a directory"),
    (("sample", "{tmp}", "--tokens", "{data}/tokens"), "run.json: does not exist"),
    (("tell", "{tmp}", "--prompt", "a"), "run.json: does not exist"),
    (("tell", "{tmp}", "--prompt", "a", "--temperature", "nan"), "temperatures[0] = NaN: should"),
    (("tell", "{tmp}", "--prompt", "a", "--max-tokens", "0"), "max_tokens = 0: should be"),
    (("export", "{tmp}", "{tmp}/out"), "run.json: does not exist"),
    (("score", "{tmp}", "--data", "{data}"), "holds no config.json of a Hugging Face model"),
    (("select", "{tmp}", "{tmp}"), "run.json: does not exist"),
    (("voices", "{data}", "{tmp}", "{tmp}"), "run.json: does not exist"),
    (("metrics", "{data}", "{tmp}", "{tmp}"), "selected.json: does not exist"),
    (("show", "{tmp}"), "contains no results (manifest.json)"),
    (("params", "nix"), "nix: no such study; there are: "),
    (("why", "--params", "nix"), "nix: no such study; there are: "),
    (("record", "nix"), "nix: no such study; there are: "),
    (("judge", "nix", "--model", "m"), "nix: no such study; there are: "),
]


@pytest.fixture
def words(study, data, tmp_path):
    """words(template): arguments with the folders filled in."""
    (tmp_path / "wrong.yaml").write_text("modle: {}\n")
    write_sealed(tmp_path / "other.json", {})
    places = {"tmp": tmp_path, "data": data, "params": study}
    return lambda template: [word.format(**places) for word in template]


@pytest.mark.parametrize(("template", "said"), MISTAKES)
def test_a_mistake_is_one_line_on_stderr(run, words, template, said):
    status, out, err = run(*words(template))
    assert status != 0
    assert out == ""
    assert err.startswith("squentropy: ")
    assert err.count("\n") == 1
    assert said in err


@pytest.mark.parametrize("before", [True, False])
def test_debug_shows_the_traceback_before_and_after_the_command(run, words, before):
    template, said = MISTAKES[1]
    given = words(template)
    status, out, err = run(*(["--debug", *given] if before else [*given, "--debug"]))
    *trace, last = err.splitlines()
    assert (status, out) == (errors.USAGE, "")
    assert trace[0].startswith("Traceback")
    assert last.startswith("squentropy: ")
    assert said in last


def test_after_two_dashes_debug_is_a_word_like_any(run):
    status, _, err = run("check", "--", "--debug")
    assert status == errors.FAILED
    assert err.startswith("squentropy: --debug: is of an unknown kind")
    assert err.count("\n") == 1


SURROGATE = UnicodeEncodeError("utf-8", "a\udcff", 1, 2, "surrogates not allowed")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (errors.SquentropyError("a: b; c"), errors.FAILED, "a: b; c"),
        (errors.ParameterError("a: b; c"), errors.USAGE, "a: b; c"),
        (FileNotFoundError(2, "No such file", "x.csv"), errors.FAILED, "x.csv: No such file"),
        (OSError(28, "No space", "x.csv"), errors.FAILED, "x.csv: cannot be written: the disk is"),
        (
            OSError(27, "File too large"),
            errors.FAILED,
            "a file: cannot be written: too large a",
        ),
        (OSError(11, "Try again"), errors.FAILED, "no more threads or processes may be started"),
        (OSError(12, "Cannot allocate memory"), errors.FAILED, "out of memory; end other programs"),
        (FileNotFoundError(2, "No such file"), errors.FAILED, "the working folder: is no longer"),
        (MemoryError(), errors.FAILED, "out of memory"),
        (RuntimeError("std::bad_alloc"), errors.FAILED, "out of memory"),
        (RuntimeError("can't start new thread"), errors.FAILED, "raise `ulimit -u`"),
        (FileNotFoundError(2, "No such file", "a\nb"), errors.FAILED, "a\\nb: No such file"),
        (SURROGATE, errors.FAILED, "a\\udcff: is not UTF-8, so it cannot be written down; rename"),
        (ModuleNotFoundError("", name="papermill"), errors.FAILED, "papermill: is not installed"),
        (KeyError("nll"), errors.BUG, "this is a bug: KeyError: 'nll' (--debug shows where)"),
        (ValueError("two\nlines"), errors.BUG, "this is a bug: ValueError: two lines"),
    ],
)
def test_every_error_is_one_line_and_an_exit_code(run, monkeypatch, error, code, said):
    monkeypatch.delenv("SQUENTROPY_TRACEBACKS", raising=False)
    monkeypatch.setattr(find, "load", lambda paths: (_ for _ in ()).throw(error))
    status, out, err = run("params")
    assert (status, out) == (code, "")
    assert err.startswith("squentropy: ")
    assert err.count("\n") == 1
    assert said in err


def test_torchs_own_error_of_memory_is_one_with_a_fix_that_fits_the_command():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 50)
    for command, fix in (("train", "train.batch_size"), ("corpus", "end other programs")):
        line, code = explain(raised.value, command)
        assert line.startswith("out of memory; ")
        assert fix in line
        assert code == errors.FAILED


def test_a_name_that_is_not_utf_8_is_a_line_of_every_command(run, words, tmp_path):
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")
    (tmp_path / "README.md").write_text("")
    for given in (
        ("params", name), ("show", name), ("why", name), ("check", name), ("tell", name),
        ("export", name, name), ("pdf", name, name), ("score", name, "--data", name),
        ("corpus", name, "--params", name), ("record", name), ("figures", name, name),
        ("readme", name, name, name), ("judge", name, "--model", name),
    ):  # fmt: skip
        status, _, err = run(*given)
        assert status in (errors.FAILED, errors.USAGE), (given[0], err)
        assert err.count("\n") == 1
        assert "\\udcff" in err or "OPENAI" in err


def test_a_stale_backend_of_a_notebook_is_not_heeded():
    program = (
        "from squentropy.cli import app\n"
        "def draw(*_, **__):\n    import matplotlib; print(matplotlib.get_backend())\n"
        "app.app = draw; app.main([])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"MPLBACKEND": "stale"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("agg\n", "")


@pytest.mark.parametrize(("error", "shown"), [(KeyError("nll"), True), (OSError(5, "no"), False)])
def test_in_a_log_of_snakemake_a_bug_has_its_traceback_and_a_mistake_has_none(
    run, monkeypatch, error, shown
):
    monkeypatch.setenv("SQUENTROPY_TRACEBACKS", "1")
    monkeypatch.setattr(find, "load", lambda paths: (_ for _ in ()).throw(error))
    assert ("Traceback" in run("params")[2]) is shown


def test_ctrl_c_is_quiet(run, monkeypatch):
    monkeypatch.setattr(find, "load", lambda paths: signal.raise_signal(signal.SIGINT))
    assert run("params") == (errors.INTERRUPTED, "", "")


@pytest.mark.parametrize("words", [["params"], ["params", "--help"]])
def test_a_reader_that_goes_ends_it_quietly(words):
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "squentropy.cli.app", *words]
    done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (errors.CLOSED, "")


def test_the_errors_page_names_every_exit_code():
    page = (ROOT / "docs/howto/command-line.md").read_text(encoding="utf-8")
    codes = {value for value in vars(errors).values() if isinstance(value, int)}
    assert {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} == codes


@pytest.mark.parametrize(
    "given", [["trian"], ["train"], ["show", "a", "b"], ["params", "--parms"], ["--parms"]]
)
def test_a_command_line_that_makes_no_sense_says_how_to_get_help(run, given):
    status, out, err = run(*given)
    assert status == 2
    assert out == ""
    assert "--help" in err
    assert "Error: " in err


@pytest.mark.parametrize(("typed", "meant"), [("trian", "train"), ("shw", "show")])
def test_a_mistyped_command_says_which_was_meant(run, typed, meant):
    assert f"Did you mean '{meant}'?" in " ".join(run(typed)[2].split())


# --- completion ---------------------------------------------------------------------------------

TYPED = [  # words before the tab key, completions
    (("tr",), "train"),
    (("train", "--lo"), "--loss"),
    (("train", "out", "--loss", "squ"), "squentropy squentropy_weighted"),
    (("train", "out", "--phase", ""), "sweep refine lengths final reported"),
    (("evaluate", "--split", "t"), "train test"),
    (("record", "studies/s"), "studies/smoke.yaml studies/stories.yaml"),
    (("params", "--params", "p"), "params.yaml"),
    (("show", "s"), "smoke stories"),
    (("figures", "results/g"), "results/grammar"),
    (
        ("evaluate", "checkpoints/m"),
        "checkpoints/mine/final/mse/seed1 checkpoints/mine/final/mse/seed2",
    ),
    (("why", "checkpoints/mine/sweep"), ""),
    (("tokenize", "da"), ""),  # the shell offers files
]


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A working folder with studies, runs and results to complete."""
    for name in ("smoke", "stories", "dvc"):
        (tmp_path / "studies").mkdir(exist_ok=True)
        (tmp_path / f"studies/{name}.yaml").touch()
    for run in ("final/mse/seed1", "final/mse/seed2", "sweep/mse/lr0.1/dropout0.1_layers1"):
        (tmp_path / "checkpoints/mine" / run).mkdir(parents=True)
    (tmp_path / "results/grammar").mkdir(parents=True)
    for path in ("results/grammar/params.yaml", "params.yaml"):
        (tmp_path / path).touch()
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("typed", "offered"), TYPED)
def test_the_tab_key_offers_what_there_is(run, monkeypatch, workplace, typed, offered):
    monkeypatch.setenv("_SQUENTROPY_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", " ".join(["squentropy", *typed]))
    monkeypatch.setenv("COMP_CWORD", str(len(typed)))
    assert run()[1].split() == offered.split()


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_zsh_and_fish_are_offered_the_same(run, monkeypatch, workplace, shell):
    monkeypatch.setenv("_SQUENTROPY_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", "squentropy train out --loss squ")
    words = re.findall(r"squentropy\w*", run()[1])
    assert words == ["squentropy", "squentropy_weighted"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_installed_for_each_shell(monkeypatch, tmp_path, shell):
    """With `--install-completion`, in a temporary home."""
    from typer.completion import get_completion_script

    environment = os.environ | {
        "HOME": str(tmp_path),
        "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1",
    }
    command = [sys.executable, "-m", "squentropy.cli.app", "--install-completion", shell]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    script = get_completion_script(
        prog_name="squentropy", complete_var="_SQUENTROPY_COMPLETE", shell=shell
    )
    assert any(script in path.read_text() for path in tmp_path.rglob("*") if path.is_file())


def test_bash_itself_completes(workplace):
    """With the script that `--show-completion` prints, called as by the tab key."""
    script = """
        eval "$(squentropy --show-completion bash)"
        COMP_WORDS=(squentropy train out --loss squ) COMP_CWORD=4
        _squentropy_completion squentropy
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    words = ["bash", "--norc", "-c", script]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["squentropy", "squentropy_weighted"]


def test_completion_imports_neither_torch_nor_pydantic(workplace):
    program = (
        "import sys; from squentropy.cli import app, completion; completion.losses(''); "
        "print({'torch', 'pydantic', 'pandas', 'numpy', 'yaml'} & set(sys.modules))"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "set()\n"
