"""The study on a real Slurm: to the same bytes, also after what happens to jobs on a cluster.

make test-slurm     # some minutes; as root, with Debian's slurm-wlm and munge
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import slurm_cluster
import yaml

pytestmark = pytest.mark.slow

SECONDS = 600  # for what a test waits for
PROFILE = ["--workflow-profile", "profiles/slurm", "--slurm-status-command", "squeue"]
OFTEN = ["--slurm-init-seconds-before-status-checks", "3"]
RUN = "final/cross_entropy/seed1"
SMALL = {  # one cell, then a final run of a quarter of a minute
    "study": "small",
    "sweep": {"losses": ["cross_entropy"], "lr": [0.003], "n_layer": [1], "max_iters": 10},
    "final": {"seeds": [1], "max_iters": 6000, "eval_interval": 1000, "reported": None},
    "train": {"state_interval": 1000},
}


def tables(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def wait(what: str, done: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not done():
        assert time.monotonic() < end, f"waited {SECONDS} seconds for {what}"
        time.sleep(0.1)


class Study:
    """A study under way as Slurm jobs, by the profile, in a copy of the project."""

    def __init__(self, project: Path, *words: str):
        self.project, self.said = project, project / "said.log"
        command = [sys.executable, "-m", "snakemake", *PROFILE, *OFTEN, *words]
        with self.said.open("w") as said:
            self.process = subprocess.Popen(
                command, cwd=project, env=os.environ | {"PYTHONPATH": str(project / "src")},
                stdout=said, stderr=subprocess.STDOUT,
            )  # fmt: skip

    def ends(self, code: int = 0) -> str:
        """What it said, once it has ended as expected."""
        assert self.process.wait(SECONDS) == code, self.said.read_text()
        return self.said.read_text()

    def jobs(self) -> list[dict[str, str]]:
        """Its jobs as Slurm knows them, in the order of their submission; also those at an end."""
        said = subprocess.run(["scontrol", "show", "job", "-o"], capture_output=True, text=True)
        run = re.search(r"SLURM run ID: (\S+)", self.said.read_text())
        jobs = [dict(re.findall(r"(\S+?)=(\S+)", line)) for line in said.stdout.splitlines()]
        return [job for job in jobs if run and job["JobName"] == run[1]]

    def job(self, rule: str) -> dict[str, str]:
        """The last job of a rule; without any key where there is none yet."""
        found = [job for job in self.jobs() if job.get("Comment", "").startswith(f"rule_{rule}")]
        return found[-1] if found else {}

    def training(self) -> str:
        """The id of the job of the final run, once that has saved a state."""
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


@pytest.fixture(scope="session")
def whole(tmp_path_factory, copy_project, snakemake) -> Path:
    """A copy of the project in which the small study was run without Slurm."""
    project = copy_project(tmp_path_factory.mktemp("whole"))
    (project / "studies/small.yaml").write_text(yaml.safe_dump(SMALL))
    done = snakemake(project, "--cores", "2", *small())
    assert done.returncode == 0, done.stdout + done.stderr
    return project


def small() -> list[str]:
    return ["results/small/metrics.csv", "--configfile", "studies/smoke.yaml", "studies/small.yaml"]


@pytest.fixture
def swept(whole, tmp_path) -> Path:
    """A copy of that project in which the final run has still to be trained."""
    project = Path(shutil.copytree(whole, tmp_path / "project"))
    shutil.rmtree(project / "checkpoints/small/final")
    for path in (project / "results/small").iterdir():
        if path.name not in ("params.yaml", "sweep.csv", "selected.json"):
            path.unlink()
    return project


def test_the_smoke_study_gives_the_bytes_that_it_gives_without_slurm(
    cluster, copy_project, snakemake, tmp_path
):
    words = ["--configfile", "studies/smoke.yaml"]
    ours, theirs = (copy_project(tmp_path / name) for name in ("ours", "theirs"))
    study = Study(theirs, *words)
    study.ends()
    assert {job["JobState"] for job in study.jobs()} == {"COMPLETED"}
    done = snakemake(ours, "--cores", "2", *words)
    assert done.returncode == 0, done.stderr
    for folder in ("results/smoke", "report/smoke/figures"):
        assert tables(theirs / folder) == tables(ours / folder)
    again = Study(theirs, *words, "--dry-run")
    assert "Nothing to be done" in again.ends()


def test_a_cancelled_job_is_named_and_the_same_command_goes_on_from_its_state(
    cluster, whole, swept
):
    study = Study(swept, *small(), "--restart-times", "0")
    subprocess.run(["scancel", study.training()], check=True)
    said = study.ends(1)
    assert "rule final" in said
    assert "CANCELLED" in said
    assert f"logs/small/{RUN}.log ends:" in said
    assert "SIGTERM after iteration" in said
    assert "the same command goes on from here" in said
    Study(swept, *small()).ends()
    assert_resumed(swept, whole)


def assert_resumed(project: Path, whole: Path) -> None:
    """The final run went on from a state, and it does not show in any table."""
    provenance = json.loads((project / "checkpoints/small" / RUN / "provenance.json").read_text())
    assert provenance["resumed"]
    assert tables(project / "results/small") == tables(whole / "results/small")


def test_a_requeued_job_saves_its_state_and_goes_on_from_it(cluster, whole, swept):
    study = Study(swept, *small())
    job = study.training()
    scontrol("requeuehold", job)  # held, so that what it said last can be read
    wait("the job to end", lambda: study.job("final")["JobState"] == "PENDING")
    assert "SIGTERM after iteration" in (swept / f"logs/small/{RUN}.log").read_text()
    scontrol("release", job)
    study.ends()
    assert study.job("final")["Restarts"] == "1"
    assert_resumed(swept, whole)


def test_a_preempted_job_saves_its_state_and_goes_on_from_it(cluster, whole, swept):
    study = Study(swept, *small())
    job = study.training()
    more = ["sbatch", "--parsable", "--partition=urgent", "--nodes=2", "--exclusive"]
    urgent = subprocess.run(
        [*more, "--output=/dev/null", "--wrap", "sleep 600"], capture_output=True, text=True
    ).stdout.strip()
    wait("the preemption", lambda: study.job("final")["JobState"] == "PENDING")
    assert "SIGTERM after iteration" in (swept / f"logs/small/{RUN}.log").read_text()
    subprocess.run(["scancel", urgent], check=True)
    study.ends()
    assert study.job("final")["JobId"] == job
    assert study.job("final")["Restarts"] == "1"
    assert_resumed(swept, whole)


def test_a_job_whose_node_fails_goes_on_at_another(cluster, whole, swept):
    study = Study(swept, *small())
    job = study.training()
    node = study.job("final")["NodeList"]
    scontrol("update", f"NodeName={node}", "State=DOWN", "Reason=test")
    try:
        study.ends()
    finally:
        scontrol("update", f"NodeName={node}", "State=RESUME")
    assert study.job("final")["JobId"] == job
    assert study.job("final")["NodeList"] != node
    assert_resumed(swept, whole)


def test_jobs_wait_for_drained_nodes_and_keep_off_one_that_stays_so(cluster, whole, swept):
    scontrol("update", "NodeName=n[1-2]", "State=DRAIN", "Reason=test")
    try:
        study = Study(swept, *small())
        wait(
            "a job to wait",
            lambda: study.job("final").get("Reason") == "Nodes_required_for_job_are_DOWN",
        )
        scontrol("update", "NodeName=n2", "State=RESUME")
        study.ends()
    finally:
        scontrol("update", "NodeName=n[1-2]", "State=RESUME")
    assert {job["NodeList"] for job in study.jobs()} == {"n2"}
    assert tables(swept / "results/small") == tables(whole / "results/small")


def test_a_job_killed_for_its_memory_is_given_more(cluster, whole, swept):
    study = Study(swept, *small(), "--set-resources", "final:mem_mb=250*attempt**3")
    study.ends()
    jobs = [job for job in study.jobs() if job["Comment"].startswith("rule_final")]
    assert [job["MinMemoryNode"] for job in jobs] == ["250M", "2000M"]
    assert jobs[0]["JobState"] != "COMPLETED"
    assert tables(swept / "results/small") == tables(whole / "results/small")
