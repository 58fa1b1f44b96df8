"""Every command works by hand, and a user's mistake is one line.

pytest tests/test_cli.py
"""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import typer

import squentropy
from squentropy import cli, params
from squentropy.storage import read_sealed, write_sealed

COMMANDS = sorted(typer.main.get_command(cli.app).commands)


@pytest.fixture
def run(capsys):
    """run(words) -> exit code, stdout, stderr."""

    def run(*words) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as end:
            cli.main([str(word) for word in words])
        captured = capsys.readouterr()
        return end.value.code or 0, captured.out, captured.err

    return run


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example_of_itself(run, command):
    status, out, _ = run(command, "--help")
    example = re.search(rf"Example: squentropy {command} [\w-]", " ".join(out.split()))
    assert status == 0
    assert example


def test_the_help_lists_every_command_with_what_it_does(run):
    status, out, _ = run("--help")
    assert status == 0
    for command in COMMANDS:
        assert re.search(rf"^  {command}\s+[A-Z]", out, re.MULTILINE)


def test_the_version_is_the_packages(run):
    assert run("--version") == (0, f"squentropy {squentropy.__version__}\n", "")


@pytest.fixture
def study(tiny_study, tmp_path):
    """A parameter file with one loss, smaller still."""
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
    assert "0 cells diverged" in well("select", checkpoints, results)
    chosen = ("--selected", results / "selected.json", "--phase", "final", "--seed")
    final = [checkpoints / f"final/mse/seed{seed}" for seed in (1, 2)]
    for seed, folder in enumerate(final, 1):
        well("train", folder, "--tokens", data / "tokens", "--loss", "mse", *chosen, seed)
    assert well("evaluate", *final, "--data", data).count("test nll") == 2
    assert well("sample", *final, "--tokens", data / "tokens").count("Tim") >= 2
    well("metrics", data, checkpoints, results)
    status, out, _ = run("show", results)
    nll = pd.read_csv(results / "metrics.csv").test_nll[0]
    assert status == 0
    assert f"{nll:.3f} (" in out
    assert len({len(line) for line in out.splitlines()}) == 1  # columns are aligned


@pytest.fixture
def places(finished, data, tmp_path, monkeypatch):
    """A working directory with checkpoints/tiny and data/tiny, and params.yaml."""
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "data").mkdir()
    shutil.copytree(finished / "checkpoints", tmp_path / "checkpoints/tiny")
    (tmp_path / "data/tiny").symlink_to(data)
    shutil.copy(Path(__file__).resolve().parents[1] / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_story_is_told_from_a_prompt_and_nothing_is_written(run, places):
    folder = places / "checkpoints/tiny/final/cross_entropy/seed1"
    before = {p: p.stat().st_mtime_ns for p in places.rglob("*")}
    words = ("sample", folder, "--max-tokens", "9", "--seed", "5")
    status, out, err = run(*words, "--prompt", "Tim", "--prompt", "")
    assert (status, err) == (0, "")
    assert out.startswith("Tim")
    assert out.endswith("\n\n")
    assert run(*words, "--prompt", "Tim", "--prompt", "")[1] == out
    assert run(*words, "--prompt", "Tim", "--stories", "2")[1].count("Tim") >= 2
    assert {p: p.stat().st_mtime_ns for p in places.rglob("*")} == before


def test_a_run_elsewhere_is_of_the_studys_tokens_or_says_what_to_name(run, places):
    mine = Path(shutil.copytree(places / "checkpoints/tiny/final/mse/seed1", places / "mine"))
    status, _, err = run("sample", mine, "--prompt", "Tim")
    assert status == 1
    assert "data/grammar/tokens/manifest.json: does not exist" in err
    (places / "data/grammar").symlink_to(places / "data/tiny")
    assert run("sample", mine, "--prompt", "Tim", "--max-tokens", "3")[0] == 0


def test_a_story_is_broken_off_quietly(run, places, monkeypatch):
    def interrupted(*_, **__):
        yield iter(["Tim"])
        raise KeyboardInterrupt

    monkeypatch.setattr("squentropy.telling.tell", interrupted)
    folder = "checkpoints/tiny/final/mse/seed1"
    assert run("sample", folder, "--prompt", "Tim") == (130, "Tim\n\n", "")


def test_a_run_is_exported_and_scored_by_hand(run, places):
    folder = places / "checkpoints/tiny/final/mse/seed1"
    status, out, err = run("export", folder, "exported")
    assert (status, out) == (0, "exported\n")
    assert err.count("\n") == 1
    assert "nearly flat" in err
    status, out, _ = run("score", "exported", "--data", "data/tiny", "--results", "results")
    assert status == 0
    assert out.startswith("exported: test nll ")
    assert pd.read_csv("results/baselines.csv").name[0] == "exported"


TRAIN = ("train", "{tmp}/run", "--tokens", "{data}/tokens", "--params", "{params}")
GRID = ("--lr", "0.1", "--dropout", "0.1", "--n-layer", "1")
MISTAKES = [  # words, what the one line says
    (("params", "--params", "{tmp}/none.yaml"), "none.yaml: cannot be read: No such file"),
    (("params", "--params", "{params}", "--params", "{tmp}/wrong.yaml"), "modle: unknown key"),
    ((*TRAIN, *GRID, "--loss", "mze"), "did you mean 'mse'?"),
    ((*TRAIN, *GRID, "--loss", "mse", "--phase", "last"), "--phase last: no such phase"),
    ((*TRAIN, *GRID[:4], "--loss", "mse"), "give --n-layer, or --selected"),
    ((*TRAIN, *GRID, "--loss", "mse", "--lr", "-1"), "train: lr = -1.0: should be greater than 0"),
    ((*TRAIN, *GRID, "--loss", "mse", "--seed", "-1"), "train: seed = -1: should be greater"),
    ((*TRAIN, "--loss", "mse", "--selected", "{tmp}/none"), "none: does not exist"),
    ((*TRAIN, "--loss", "mse", "--selected", "{tmp}/other.json"), "other.json: holds no mse"),
    (("train", "{tmp}/r", "--tokens", "{tmp}", "--loss", "mse", *GRID), "manifest.json: does not"),
    (
        ("train", "{tmp}/r", "--tokens", "{data}/corpus", "--loss", "mse", *GRID),
        "name the folder that `squentropy tokenize` wrote",
    ),
    ((*TRAIN[:1], "{params}/r", *TRAIN[2:], *GRID, "--loss", "mse"), "a file stands where"),
    (
        ("sweep", "{tmp}", "--tokens", "{data}/tokens", "--loss", "mse", "--lr", "7"),
        "--loss mse --lr 7.0: no such row",
    ),
    (("tokenize", "{tmp}", "{tmp}/out"), "manifest.json: does not exist"),
    (("evaluate", "{tmp}", "--data", "{data}"), "run.json: does not exist"),
    (("evaluate", "{tmp}", "--data", "{data}", "--split", "dev"), "--split dev: no such split"),
    (("evaluate", "{params}", "--data", "{data}"), "cannot be read: Not a directory"),
    (("sample", "{tmp}", "--tokens", "{data}/tokens"), "run.json: does not exist"),
    (("sample", "{tmp}", "--prompt", "a"), "run.json: does not exist"),
    (("sample", "{tmp}", "--prompt", "a", "--temperature", "nan"), "temperatures[0] = NaN: should"),
    (("sample", "{tmp}", "--prompt", "a", "--max-tokens", "0"), "max_tokens = 0: should be"),
    (("sample", "{tmp}", "--top-k", "3"), "these options go with --prompt"),
    (("export", "{tmp}", "{tmp}/out"), "run.json: does not exist"),
    (("score", "{tmp}", "--data", "{data}"), "holds no config.json of a Hugging Face model"),
    (("select", "{tmp}", "{tmp}"), "run.json: does not exist"),
    (("metrics", "{data}", "{tmp}", "{tmp}"), "selected.json: does not exist"),
    (("show", "{tmp}"), "holds no manifest.json of results"),
]


@pytest.fixture
def words(study, data, tmp_path):
    """Fills in the folders."""
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


def test_debug_shows_the_traceback(words):
    template, said = MISTAKES[1]
    with pytest.raises(squentropy.errors.SquentropyError, match=said):
        cli.main(["--debug", *words(template)])


@pytest.mark.parametrize("given", [["trian"], ["train"], ["show", "a", "b"], ["params", "--parms"]])
def test_a_command_line_that_makes_no_sense_says_how_to_get_help(run, given):
    status, out, err = run(*given)
    assert status == 2
    assert out == ""
    assert "--help" in err
    assert "Error: " in err
