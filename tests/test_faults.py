"""After processes are killed at random moments, nothing is lost and no result changes.

make test-faults      # some minutes
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

TRIES = 20


@pytest.fixture
def command(tiny_study, tokens, tmp_path):
    """command(name): starts `squentropy train` on a run of a few seconds, in a folder `name`."""
    study = tiny_study(
        sweep={"max_iters": 400, "eval_interval": 50, "keep_weights": True},
        train={"state_interval": 20},
    )
    (tmp_path / "params.yaml").write_text(study.dump())

    def start(name: str) -> subprocess.Popen:
        words = ["train", name, "--tokens", str(tokens.folder), "--loss", "cross_entropy"]
        cell = ["--lr", "0.01", "--dropout", "0.1", "--n-layer", "2"]
        return subprocess.Popen(
            [sys.executable, "-m", "squentropy.cli.app", *words, *cell], cwd=tmp_path,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    return start


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.iterdir() if path.name != "provenance.json")
    return {path.name: path.read_bytes() for path in files}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_killed_at_random_moments_ends_in_the_same_bits(command, number, tmp_path):
    start = time.monotonic()
    straight = command("straight")
    assert straight.wait() == 0, straight.stdout.read()
    seconds = time.monotonic() - start
    expected, draw = contents(tmp_path / "straight"), random.Random(number)
    resumed, states = 0, tmp_path / "state"
    for attempt in range(TRIES):
        run = command(f"run{attempt}")
        time.sleep(draw.uniform(0.3, 0.95) * seconds)
        run.send_signal(number)
        run.wait()
        resumed += any(states.rglob("*.safetensors"))
        again = command(f"run{attempt}")
        assert again.wait() == 0, again.stdout.read()
        assert contents(tmp_path / f"run{attempt}") == expected
        assert not any(states.glob("*"))
    assert resumed  # at least one signal came after the first save


def test_a_study_that_is_interrupted_keeps_the_cells_of_the_row_that_it_was_at(
    copy_project, snakemake_group, tmp_path
):
    project = copy_project(tmp_path)
    row = project / "checkpoints/faults/sweep/cross_entropy/lr0.003"
    study = snakemake_group(project, slow_cells=True)
    while not (first := list(row.glob("*/run.json"))):
        assert study.poll() is None, study.stdout.read()
        time.sleep(0.02)
    os.killpg(study.pid, signal.SIGINT)
    study.wait()
    assert all(path.exists() for path in first)


@pytest.mark.parametrize("attempt", range(10))
def test_a_study_killed_at_a_random_moment_gives_the_same_tables(
    attempt, whole, copy_project, snakemake_group, tmp_path
):
    """Snakemake and all its children die at once, as when a machine goes down."""
    project, (seconds, expected) = copy_project(tmp_path), whole
    study = snakemake_group(project)
    time.sleep(random.Random(attempt).uniform(0.1, 0.9) * seconds)
    os.killpg(study.pid, signal.SIGKILL)
    study.wait()
    again = snakemake_group(project)
    assert again.wait() == 0, again.stdout.read()
    assert contents(project / "results/faults") == expected


def test_a_second_study_at_once_is_told_who_holds_the_lock(copy_project, snakemake_group, tmp_path):
    project = copy_project(tmp_path)
    first = snakemake_group(project)
    lock = project / ".snakemake/squentropy/faults.lock"
    while not (lock.exists() and lock.read_text()):
        assert first.poll() is None, first.stdout.read()
        time.sleep(0.02)
    second = snakemake_group(project)
    said, _ = second.communicate()
    assert second.returncode == 1
    last = said.splitlines()[-1]
    assert last.startswith(
        f"squentropy: faults: this study is already being run by process {first.pid}"
    )
    assert first.wait() == 0, first.stdout.read()


def show(project: Path) -> str:
    """The output of `squentropy show` for the study."""
    command = [sys.executable, "-m", "squentropy.cli.app", "show", "results/faults"]
    environment = os.environ | {"PYTHONPATH": str(project / "src")}
    return subprocess.check_output(command, cwd=project, env=environment, text=True)


def test_a_failed_cell_stops_no_other_and_is_named_at_the_end(
    copy_project, snakemake_group, tmp_path
):
    project = copy_project(tmp_path)
    losses = project / "src/squentropy/losses.py"
    whole = losses.read_text()
    broken = "def mse(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:\n"
    assert broken in whole
    losses.write_text(whole.replace(broken, f'{broken}    raise RuntimeError("no luck")\n'))
    study = snakemake_group(project)
    said, _ = study.communicate()
    assert study.returncode != 0
    end = said[said.index("logs/faults/sweep/mse/lr0.003.log ends:") :]
    assert "RuntimeError: no luck" in end
    assert "the same command resumes from here" in end
    log = (project / "logs/faults/sweep/mse/lr0.003.log").read_text()
    assert 'raise RuntimeError("no luck")' in log  # the whole traceback
    assert f"| logs/faults/sweep/mse/lr0.003.log | {log.splitlines()[-1]} |" in show(project)
    row = "checkpoints/faults/sweep/{}/lr0.003/dropout0.1_layers1/run.json"
    done = project / row.format("cross_entropy")
    before = done.stat().st_mtime_ns
    losses.write_text(whole)
    again = snakemake_group(project)
    assert again.wait() == 0, again.stdout.read()
    assert done.stat().st_mtime_ns == before
    assert (project / row.format("mse")).exists()
    assert "Failed:" not in show(project)


@pytest.fixture(scope="session")
def snakemake_group():
    """Starts Snakemake on a study of half a minute, in its own process group."""

    def start(project: Path, *words: str, slow_cells: bool = False) -> subprocess.Popen:
        smallest = {
            "study": "faults",
            "sweep": {"losses": ["cross_entropy", "mse"], "lr": [0.003], "n_layer": [1]},
            "final": {"seeds": [1], "reported": None},
        }
        if slow_cells:
            smallest["sweep"] |= {"n_layer": [1, 2, 3], "max_iters": 500}
        overlay = project / "studies/faults.yaml"
        overlay.write_text(yaml.safe_dump(smallest))
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *words]
        studies = ["--configfile", "studies/smoke.yaml", "studies/faults.yaml"]
        return subprocess.Popen(
            [*command, *studies], cwd=project, start_new_session=True,
            env=os.environ | {"PYTHONPATH": str(project / "src")},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            # As from a terminal: a background process may ignore Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip

    return start


@pytest.fixture(scope="session")
def whole(tmp_path_factory, copy_project, snakemake_group) -> tuple[float, dict[str, bytes]]:
    """The duration of the undisturbed study in seconds, and its results."""
    project = copy_project(tmp_path_factory.mktemp("whole"))
    start = time.monotonic()
    study = snakemake_group(project)
    assert study.wait() == 0, study.stdout.read()
    return time.monotonic() - start, contents(project / "results/faults")
