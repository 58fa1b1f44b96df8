"""A study on a real Slurm gives the same bytes, also after a cluster's usual job failures.

make test-slurm     # some minutes; as root, with Debian's slurm-wlm and munge
"""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import slurm_cluster
import yaml

pytestmark = pytest.mark.slow

SECONDS = 1800  # timeout of each wait
TABLES = "results/small/metrics.csv"
PROFILE = ["--workflow-profile", "profiles/slurm", "--slurm-status-command", "squeue"]
OFTEN = ["--slurm-init-seconds-before-status-checks", "5"]
RUN = "final/cross_entropy/seed1"
SMALL = {  # one cell, then a final run of a few seconds
    "study": "small",
    "sweep": {"losses": ["cross_entropy"], "lr": [0.003], "n_layer": [1], "max_iters": 10},
    "final": {"seeds": [1], "max_iters": 3000, "eval_interval": 1000, "reported": None},
    "train": {"state_interval": 300},
}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def wait(what: str, done: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < end, f"waited {SECONDS} seconds for {what}"
        time.sleep(0.1)


class Study:
    """A study running as Slurm jobs, with the Slurm profile, in a copy of the project."""

    def __init__(self, project: Path, *words: str):
        self.project, self.said = project, project / "said.log"
        command = [sys.executable, "-m", "snakemake", *PROFILE, *OFTEN, *words]
        with self.said.open("w") as said:
            self.process = subprocess.Popen(
                command, cwd=project, env=os.environ | {"PYTHONPATH": str(project / "src")},
                stdout=said, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def ends(self, code: int = 0) -> str:
        """Wait for the end with the expected exit code and return the output."""
        assert self.process.wait(SECONDS) == code, self.said.read_text()
        return self.said.read_text()

    def jobs(self) -> list[dict[str, str]]:
        """Its Slurm jobs in order of submission, including finished ones."""
        said = subprocess.run(["scontrol", "show", "job", "-o"], capture_output=True, text=True)
        run = re.search(r"SLURM run ID: (\S+)", self.said.read_text())
        jobs = [dict(re.findall(r"(\S+?)=(\S+)", line)) for line in said.stdout.splitlines()]
        return [job for job in jobs if run and job["JobName"] == run[1]]

    def job(self, rule: str) -> dict[str, str]:
        """The last job of a rule, or {} if there is none yet."""
        found = [job for job in self.jobs() if job.get("Comment", "").startswith(f"rule_{rule}")]
        return found[-1] if found else {}

    def training(self) -> str:
        """Wait until the final run has saved a training state and return its job id."""
        wait("a state", lambda: any((self.project / "state/small" / RUN).glob("*.safetensors")))
        return self.job("final")["JobId"]


def scontrol(*words: str) -> None:
    subprocess.run(["scontrol", *words], check=True, capture_output=True)


@pytest.fixture(scope="session")
def cluster() -> Iterator[None]:
    reason = slurm_cluster.why_not()
    if reason:
        pytest.skip(reason)
    slurm_cluster.start()
    yield
    slurm_cluster.stop()


@pytest.fixture
def slurm(cluster) -> Iterator[Callable[..., Study]]:
    """slurm(project, *words): starts a study; afterwards no job is left and all nodes are up."""
    started = []

    def start(project: Path, *words: str) -> Study:
        started.append(Study(project, *words))
        return started[-1]

    yield start
    for study in started:
        study.process.kill()
        study.process.wait()
        for job in study.jobs():
            subprocess.run(["scancel", job["JobId"]], check=True)
        for process in psutil.process_iter():  # without cgroups, a process may outlive its job
            with contextlib.suppress(psutil.Error):
                if process.cwd() == str(study.project):
                    process.kill()
    for node in slurm_cluster.NODES:
        slurm_cluster.repair(node)


@pytest.fixture(scope="session")
def whole(tmp_path_factory, copy_project, snakemake) -> Path:
    """A copy of the project with the small study finished, without Slurm."""
    project = copy_project(tmp_path_factory.mktemp("whole"))
    (project / "studies/small.yaml").write_text(yaml.safe_dump(SMALL))
    done = snakemake(project, "--cores", "2", *small(TABLES))
    assert done.returncode == 0, done.stdout + done.stderr
    return project


def small(target: str = f"checkpoints/small/{RUN}/run.json") -> list[str]:
    return [target, "--configfile", "studies/smoke.yaml", "studies/small.yaml"]


@pytest.fixture
def swept(whole, tmp_path) -> Path:
    """A copy of `whole` without the final run and its results."""
    project = Path(shutil.copytree(whole, tmp_path / "project"))
    shutil.rmtree(project / "checkpoints/small/final")
    for path in (project / "results/small").iterdir():
        if path.name not in ("params.yaml", "sweep.csv", "refine.csv", "selected.json"):
            path.unlink()
    return project


def assert_same_run(project: Path, whole: Path) -> None:
    """Assert that the final run is bit-identical to that of an undisturbed study."""
    for name in ("run.json", "history.csv", "model.safetensors"):
        path = Path("checkpoints/small", RUN, name)
        assert (project / path).read_bytes() == (whole / path).read_bytes()


def assert_resumed(project: Path, whole: Path) -> None:
    where = project / "checkpoints/small" / RUN / "provenance.json"
    assert json.loads(where.read_text())["resumed"]
    assert_same_run(project, whole)


def test_the_smoke_study_gives_the_bytes_that_it_gives_without_slurm(
    slurm, copy_project, snakemake, tmp_path
):
    words = ["--configfile", "studies/smoke.yaml"]
    ours, theirs = (copy_project(tmp_path / name) for name in ("ours", "theirs"))
    study = slurm(theirs, *words, "--resources", "gpu=2")
    study.ends()
    assert {job["JobState"] for job in study.jobs()} == {"COMPLETED"}
    gpus = {job["Comment"].split("_")[1]: job.get("TresPerJob") for job in study.jobs()}
    assert gpus["sweep"] == gpus["final"] == gpus["evaluate"] == "gres:gpu:1"
    assert gpus["data"] is gpus["pages"] is None
    done = snakemake(ours, "--cores", "2", *words)
    assert done.returncode == 0, done.stderr
    for folder in ("results/smoke", "report/smoke/figures"):
        assert contents(theirs / folder) == contents(ours / folder)
    page = "report/smoke/index.html"
    assert (theirs / page).read_bytes() == (ours / page).read_bytes()
    again = slurm(theirs, *words, "--dry-run")
    assert "Nothing to be done" in again.ends()


def test_a_cancelled_job_is_named_and_the_same_command_goes_on_from_its_state(slurm, whole, swept):
    study = slurm(swept, *small(), "--restart-times", "0")
    subprocess.run(["scancel", study.training()], check=True)
    said = study.ends(1)
    assert "Error in rule final" in said
    assert "CANCELLED" in said
    assert f"logs/small/{RUN}.log ends:" in said
    assert "SIGTERM after iteration" in said
    assert "the same command resumes from here" in said
    slurm(swept, *small(TABLES)).ends()
    assert_resumed(swept, whole)
    assert contents(swept / "results/small") == contents(whole / "results/small")


def test_a_requeued_job_saves_its_state_and_goes_on_from_it(slurm, whole, swept):
    study = slurm(swept, *small())
    job = study.training()
    scontrol("requeuehold", job)  # held, so that its last log lines can be read
    wait("the job to end", lambda: study.job("final")["JobState"] == "PENDING")
    assert "SIGTERM after iteration" in (swept / f"logs/small/{RUN}.log").read_text()
    scontrol("release", job)
    study.ends()
    assert study.job("final")["Restarts"] == "1"
    assert_resumed(swept, whole)


def test_a_preempted_job_saves_its_state_and_goes_on_from_it(slurm, whole, swept):
    study = slurm(swept, *small())
    job = study.training()
    more = ["sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--exclusive"]
    urgent = subprocess.check_output([*more, "--output=/dev/null", "--wrap", "sleep 60"], text=True)
    wait("the preemption", lambda: study.job("final")["JobState"] == "PENDING")
    assert "SIGTERM after iteration" in (swept / f"logs/small/{RUN}.log").read_text()
    subprocess.run(["scancel", urgent.strip()], check=True)
    study.ends()
    assert study.job("final")["JobId"] == job
    assert study.job("final")["Restarts"] == "1"
    assert_resumed(swept, whole)


def test_a_job_whose_node_fails_goes_on_at_another(slurm, whole, swept):
    study = slurm(swept, *small())
    job = study.training()
    node = study.job("final")["NodeList"]
    slurm_cluster.fail(node)
    study.ends()
    assert study.job("final")["JobId"] == job
    assert study.job("final")["NodeList"] != node
    assert_resumed(swept, whole)


def test_jobs_wait_for_drained_nodes_and_keep_off_one_that_stays_so(slurm, whole, swept):
    scontrol("update", "NodeName=n[1-2]", "State=DRAIN", "Reason=test")
    study = slurm(swept, *small())
    wait("a job to wait", lambda: "DRAINED" in study.job("final").get("Reason", ""))
    scontrol("update", "NodeName=n2", "State=RESUME")
    study.ends()
    assert {job["NodeList"] for job in study.jobs()} == {"n2"}
    assert_same_run(swept, whole)


def test_a_job_killed_for_its_memory_is_given_more(slurm, whole, swept):
    study = slurm(swept, *small(), "--set-resources", "final:mem_mb=250*attempt**3")
    study.ends()
    jobs = [job for job in study.jobs() if job["Comment"].startswith("rule_final")]
    assert [job["MinMemoryNode"] for job in jobs] == ["250M", "2000M"]
    assert jobs[0]["JobState"] != "COMPLETED"
    assert_same_run(swept, whole)


def test_anothers_configuration_of_slurm_is_left_alone(tmp_path, monkeypatch):
    config = tmp_path / "slurm.conf"
    config.write_text("ClusterName=another\n")
    monkeypatch.setattr(slurm_cluster, "CONFIG", config)
    monkeypatch.setattr(slurm_cluster, "FOLDER", tmp_path / "run")
    monkeypatch.setattr(slurm_cluster, "PROGRAMS", ())
    with pytest.raises(RuntimeError, match="is another's"):
        slurm_cluster.start()
    slurm_cluster.stop()
    assert config.read_text() == "ClusterName=another\n"
