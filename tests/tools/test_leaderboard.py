"""The leaderboard's rows follow from the tables, and every loss enters by the same protocol.

pytest tests/tools/test_leaderboard.py
pytest -m slow tests/tools/test_leaderboard.py     # a user's loss, as by `make leaderboard`
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import fake_results
import pandas as pd
import pytest
import smallest
import yaml

from squentropy.base.errors import SquentropyError
from squentropy.report.read import read
from squentropy.study import params
from squentropy.study.overlays import overlay
from squentropy.tools import leaderboard

ROOT = Path(__file__).resolve().parents[2]
LOSSES = ["cross_entropy", "squentropy", "mse"]
MINE = (
    "from squentropy.losses import loss\n\n\n@loss\ndef smooth(hidden, weight, targets):\n"
    '    """Cross entropy, labels smoothed."""\n'
    "    log_p = (hidden @ weight.T).log_softmax(-1)\n"
    "    true = log_p.gather(-1, targets[:, None]).mean()\n"
    "    return -0.9 * true - 0.1 * log_p.mean()\n"
)


def make(folder: Path, name: str, losses: list[str], **changes) -> None:
    """Invented results of a study."""
    fake_results.write(folder / name, study=name, sweep={"losses": losses}, **changes)


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """The working folder, with the default study's parameters and invented results."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    values = overlay(
        params.load([ROOT / "params.yaml"]).model_dump(), {"sweep": {"losses": LOSSES}}
    )
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    make(tmp_path / "results", "grammar", LOSSES)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- rows ---------------------------------------------------------------------------------------


def test_a_row_is_what_the_tables_say(finished):
    """For trained runs and the tables that `metrics` wrote."""
    r = read(finished / "results")
    for loss in r.losses:
        found, table = leaderboard.row(r, loss), r.metrics.loc[loss]
        assert found["n_seeds"] == table["n_seeds"]
        assert found["reading"] == table["reading"]
        for name in leaderboard.COLUMNS:
            if name.startswith(("nll", "difference", "tokens_needed")):
                expected = pytest.approx(table[name], rel=1e-5, abs=1e-6, nan_ok=True)
                assert found.get(name, float("nan")) == expected, name
        assert found["flops"] == 6 * table["parameters"] * table["tokens"]


def test_form_and_agreement_are_those_of_the_middle_temperature(workplace):
    r = read("results/grammar")
    for loss in LOSSES:
        told = r.quality[(r.quality["loss"] == loss) & (r.quality["temperature"] == 0.8)].iloc[0]
        found = leaderboard.row(r, loss)
        for name in ("form", "form_high", "agreement", "agreement_low"):
            assert found[name] == told[name]


def test_the_file_holds_every_loss_of_the_protocol_once_the_best_first(workplace):
    make(
        workplace / "results", "loss-z_loss", ["cross_entropy", "z_loss"], final={"reported": None}
    )
    make(workplace / "results", "other", ["cross_entropy", "brier"], corpus={"max_bytes": 5000})
    leaderboard.write()
    table = pd.read_csv("results/leaderboard.csv")
    assert list(table.columns) == leaderboard.COLUMNS
    assert sorted(table["loss"]) == sorted([*LOSSES, "z_loss"])
    assert table["nll"].is_monotonic_increasing
    assert dict(zip(table["loss"], table["study"])) == {
        **dict.fromkeys(LOSSES, "grammar"), "z_loss": "loss-z_loss"
    }  # fmt: skip
    assert table.groupby("study")["results_sha256"].nunique().eq(1).all()


def test_without_the_default_studys_results_there_is_no_protocol(workplace):
    shutil.rmtree("results/grammar")
    with pytest.raises(SquentropyError, match="results/grammar: contains no results"):
        leaderboard.write()


def test_the_committed_file_is_that_of_the_committed_results(monkeypatch):
    monkeypatch.chdir(ROOT)
    held, expected = pd.read_csv(leaderboard.FILE), leaderboard.table(Path("results"))
    pd.testing.assert_frame_equal(held, expected, rtol=1e-9, check_dtype=False)


# --- entering a loss ----------------------------------------------------------------------------


def test_a_loss_enters_by_the_default_study_with_cross_entropy_beside_it(workplace):
    (workplace / "mine.py").write_text(MINE)
    file = leaderboard.enter("mine.py:smooth")
    study = params.load(["params.yaml", file])
    assert study.study == "loss-mine-py-smooth"
    assert study.sweep.losses == ["cross_entropy", "mine.py:smooth"]
    assert leaderboard.broken(study, params.load(["params.yaml"])) == []
    assert leaderboard.enter("squentropy( 0.01 )").name == "loss-squentropy-0-01.yaml"


def test_what_is_there_of_cross_entropy_is_taken_over_and_nothing_else(workplace):
    runs = [f"checkpoints/grammar/{run}/run.json" for run in (
        "final/cross_entropy/seed1", "refine/cross_entropy", "final/mse/seed1",
    )]  # fmt: skip
    for path in [*runs, "data/grammar/tokens/manifest.json"]:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(path)
    leaderboard.enter("brier")
    here = Path("checkpoints/loss-brier")
    assert sorted(p.as_posix() for p in here.rglob("run.json")) == [
        "checkpoints/loss-brier/final/cross_entropy/seed1/run.json",
        "checkpoints/loss-brier/refine/cross_entropy/run.json",
    ]
    assert (here / "final/cross_entropy/seed1/run.json").read_text() == runs[0]
    assert Path("data/loss-brier/tokens/manifest.json").samefile(
        "data/grammar/tokens/manifest.json"
    )
    leaderboard.enter("brier")  # again: existing files stay


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        ("squentropi", "squentropi: no such loss; did you mean 'squentropy'"),
        ("mine.py:none", "mine.py cannot be read"),
        ("mse", "mse: is already in the default study"),
    ],
)
def test_a_loss_that_cannot_enter_is_said(workplace, loss, said):
    with pytest.raises(SquentropyError, match=said):
        leaderboard.enter(loss)


def test_a_loss_does_not_enter_beside_results_of_another_protocol(workplace):
    values = yaml.safe_load(Path("params.yaml").read_text())
    values["final"]["max_iters"] += 1
    Path("params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(SquentropyError, match=r"differs from results/grammar in final\.max_iters"):
        leaderboard.enter("brier")
    shutil.rmtree("results/grammar")
    assert leaderboard.enter("brier").is_file()


@pytest.mark.slow
def test_a_loss_of_ones_own_is_a_row_after_one_command(tmp_path, copy_project, snakemake):
    """Like `make leaderboard LOSS=…`, but without an installation and in the smallest study."""
    project = copy_project(tmp_path / "project")
    values = yaml.safe_load((project / "params.yaml").read_text())
    (project / "params.yaml").write_text(yaml.safe_dump(overlay(values, smallest.STUDY)))
    (project / "mine.py").write_text(MINE)
    environment = os.environ | {"PYTHONPATH": str(project / "src")}

    def squentropy(*words: str) -> str:
        command = [sys.executable, "-m", "squentropy.cli", "leaderboard", *words]
        done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert snakemake(project, "--cores", "2").returncode == 0
    trained = project / "checkpoints/grammar/final/cross_entropy/seed1/model.safetensors"
    file = squentropy("--enter", "mine.py:smooth").strip()
    done = snakemake(project, "--cores", "2", "--configfile", file)
    assert done.returncode == 0, done.stderr
    taken = project / "checkpoints/loss-mine-py-smooth/final/cross_entropy/seed1/model.safetensors"
    assert taken.samefile(trained)  # not trained again
    assert "mine.py:smooth" in squentropy()
    table = pd.read_csv(project / "results/leaderboard.csv").set_index("loss")
    assert dict(table["study"]) == {
        "cross_entropy": "grammar", "mine.py:smooth": "loss-mine-py-smooth"
    }  # fmt: skip
    assert table.loc["mine.py:smooth", ["nll", "difference", "flops"]].notna().all()
