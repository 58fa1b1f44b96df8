"""Several processes train the same run as one; if one is killed, all end and the run can resume.

pytest tests/test_processes.py
make test-processes           # includes the tests that start processes: a minute or two
"""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import safetensors.torch
import torch
from torch import nn
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from squentropy.base.errors import LOST, LostProcess, SquentropyError
from squentropy.training import distributed
from squentropy.training.distributed import Group, join

CELL = ["--lr", "0.01", "--dropout", "0.1", "--n-layer", "2"]


@pytest.fixture
def command(tiny_study, tokens, tmp_path):
    """command(run, processes, loss, iterations): arguments of `squentropy` that train a run."""

    def words(run: str, count: int, loss: str = "squentropy", iterations: int = 60) -> list[str]:
        train = {"accumulation": 4, "processes": count, "state_interval": 20}
        schedule = {"max_iters": iterations, "eval_interval": 20, "keep_weights": True}
        params = tmp_path / f"{run}.yaml"
        params.write_text(tiny_study(sweep=schedule, train=train).dump())
        where = [run, "--tokens", str(tokens.folder), "--params", str(params)]
        return ["train", *where, "--loss", loss, *CELL]

    return words


@pytest.fixture
def start(tmp_path):
    """start(words): runs the command in the test's folder; killed at the end of the test."""
    begun = []

    def begin(words: list[str], program=(sys.executable, "-m", "squentropy.cli.app")):
        process = subprocess.Popen(
            [*program, *words], cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        begun.append(process)
        return process

    yield begin
    for process in begun:
        process.kill()
        process.wait()
        process.stdout.close()


def done(process: subprocess.Popen, code: int = 0) -> str:
    said, _ = process.communicate()
    assert process.returncode == code, said
    return said


def history(folder: Path) -> list[list[float]]:
    rows = list(csv.reader((folder / "history.csv").open()))[1:]
    return [[float(value) for value in row] for row in rows]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")


def children_once_saved(process: subprocess.Popen, states: Path) -> list[psutil.Process]:
    """Wait until a run has saved a training state and return its processes."""
    while not any(states.rglob("*.safetensors")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    return psutil.Process(process.pid).children()


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_micro_batches_are_dealt_out_each_once(count):
    shares = [Group(rank, count).share(8) for rank in range(count)]
    assert sorted(number for share in shares for number in share) == list(range(8))
    assert len({len(share) for share in shares}) == 1


def test_a_process_alone_needs_no_wrapping_and_adds_nothing():
    group, model, tensor = join(1), nn.Linear(2, 2), torch.ones(2)
    assert group.wrap(model) is model
    assert group.add_up(tensor) is tensor
    assert group.agree("x") == "x"
    assert [group.any(flag) for flag in (True, False)] == [True, False]
    assert group.first
    assert not group.orphaned


@pytest.mark.parametrize(("started", "count"), [(None, 2), ("2", 1), ("4", 2)])
def test_a_wrong_number_of_processes_is_one_line(started, count, monkeypatch):
    if started:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
        monkeypatch.setenv("WORLD_SIZE", started)
    expected = f"^train.processes = {count}, but {started or 1} were started; "
    with pytest.raises(SquentropyError, match=expected):
        join(count)


def test_an_error_of_ones_own_is_not_taken_for_a_lost_process():
    with pytest.raises(RuntimeError, match="no luck"), Group(0, 2).noticing_lost_ones():
        raise RuntimeError("no luck")
    lost = torch.distributed.DistBackendError("NCCL error")
    with (
        pytest.raises(LostProcess, match="process 0 of the run's 2 has lost its connection"),
        Group(0, 2).noticing_lost_ones(),
    ):
        raise lost
    with pytest.raises(torch.distributed.DistBackendError), Group().noticing_lost_ones():
        raise lost


@pytest.mark.parametrize(
    ("codes", "cause"),
    [
        ({0: LOST, 1: -9}, 1),
        ({0: LOST, 1: 1}, 1),  # its own error, such as a full disk
        ({0: LOST, 2: -15, 1: -9}, 1),  # 2: ended by the launcher
        ({0: LOST, 1: -15}, 1),  # ended from outside before it heeded signals
        ({1: 1, 0: -15}, 1),
        ({1: -6, 0: -15}, 1),
        ({1: 143, 0: 143}, 1),
        ({1: LOST, 0: LOST}, 1),
        ({1: 70, 0: -9}, 1),  # 0: killed by the launcher because it did not end
    ],
)
def test_the_launcher_tells_the_lost_process_from_those_that_lost_it(codes, cause):
    failures = {rank: ProcessFailure(rank, 1, code, "") for rank, code in codes.items()}
    assert distributed._cause(failures) == (cause, failures[cause])


def test_a_process_lost_between_runs_is_noticed(monkeypatch):
    def gone(*args, **options):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection closed by peer")

    monkeypatch.setattr(torch.distributed, "broadcast_object_list", gone)
    with pytest.raises(LostProcess) as lost:
        Group(1, 2).agree("x")
    assert lost.value.exit_code == LOST


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cross_entropy", "mse_weighted", "squentropy"])
def test_two_processes_give_the_curve_of_one(loss, command, start, tmp_path):
    """Also with dropout, because the masks depend on the micro-batch and not on the process."""
    for name, count in (("one", 1), ("two", 2)):
        assert done(start(command(name, count, loss))).count("iterations, validation") == 1
    one, two = tmp_path / "one", tmp_path / "two"
    assert history(two) == [pytest.approx(row, rel=1e-6) for row in history(one)]
    for name, weight in weights(one).items():
        torch.testing.assert_close(weights(two)[name], weight, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_torchrun_starts_it_as_well(command, start, tmp_path):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    program = [*torchrun, "--nproc-per-node", "4", "-m", "squentropy.cli.app"]
    done(start(command("four", 4), program))
    done(start(command("one", 1)))
    expected = [pytest.approx(row, rel=1e-5) for row in history(tmp_path / "one")]
    assert history(tmp_path / "four") == expected


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_is_named_and_the_run_resumes(victim, command, start, tmp_path):
    done(start(command("straight", 2, iterations=600)))
    words = command("killed", 2, iterations=600)
    run = start(words)
    workers = children_once_saved(run, tmp_path / "state")
    os.kill(run.pid, signal.SIGSTOP)  # so that the other worker notices before the launcher
    workers[victim].kill()
    time.sleep(2)
    os.kill(run.pid, signal.SIGCONT)
    said = done(run, code=1)
    assert f"process {victim} of the run's 2" in said
    last = [line for line in said.splitlines() if line.startswith("squentropy: ")][-1]
    assert "was ended by SIGKILL; the same command resumes from the last saved state" in last
    assert "Traceback" not in said
    assert not any(worker.is_running() for worker in workers)
    assert not (tmp_path / "killed/run.json").exists()
    done(start(words))
    assert history(tmp_path / "killed") == history(tmp_path / "straight")
    assert weights(tmp_path / "killed").keys() == weights(tmp_path / "straight").keys()
    for name, weight in weights(tmp_path / "straight").items():
        assert weights(tmp_path / "killed")[name].equal(weight)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_the_state_first(number, command, start, tmp_path):
    done(start(command("straight", 2, iterations=600)))
    words = command("stopped", 2, iterations=600)
    run = start(words)
    workers = children_once_saved(run, tmp_path / "state")
    run.send_signal(number)
    said = done(run, code=128 + number)
    assert said.count(f"{number.name} after iteration") == 1
    assert "Traceback" not in said
    assert not any(worker.is_running() for worker in workers)
    done(start(words))
    assert history(tmp_path / "stopped") == history(tmp_path / "straight")


@pytest.mark.slow
def test_processes_whose_launcher_is_killed_save_and_end(command, start, tmp_path):
    words = command("orphans", 2, iterations=4000)
    run = start(words)
    workers = children_once_saved(run, tmp_path / "state")
    os.kill(run.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive
    assert not (tmp_path / "orphans/run.json").exists()


@pytest.mark.slow
def test_the_workflow_starts_them(copy_project, snakemake, tmp_path):
    project = copy_project(tmp_path)
    overlay = (
        "study: two\n"
        "train: {processes: 2, accumulation: 2}\n"
        "sweep: {losses: [squentropy], lr: [0.003], n_layer: [1]}\n"
    )
    (project / "two.yaml").write_text(overlay)
    studies = ["studies/smoke.yaml", "two.yaml"]
    words = ["--cores", "2", "--configfile", *studies]
    ended = snakemake(project, "results/two/selected.json", *words)
    assert ended.returncode == 0, ended.stderr
    runs = [*(project / "checkpoints/two").rglob("provenance.json")]
    assert {path.relative_to(project).parts[2] for path in runs} == {"sweep", "refine"}
    assert all('"processes": 2' in run.read_text() for run in runs)


def test_started_counts_the_launchers_processes(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "8")  # set by a scheduler that starts no processes
    assert distributed.started() == 0


@pytest.mark.parametrize(("words", "code"), [(["--version"], 0), (["nothing-of-the-kind"], 2)])
def test_a_process_of_a_group_ends_without_taking_python_down(words, code):
    """The interpreter is not finalized, which is unsafe while gloo's threads run."""
    program = (
        "import atexit, sys, torch\n"
        "from squentropy.cli.app import main\n"
        "atexit.register(print, 'taken down')\n"
        "store = torch.distributed.HashStore()\n"
        "torch.distributed.init_process_group('gloo', store=store, rank=0, world_size=1)\n"
        f"main({words})\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.returncode == code
    assert ended.stdout.startswith("squentropy ") if code == 0 else "No such" in ended.stderr
    assert "taken down" not in ended.stdout
