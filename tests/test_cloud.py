"""A study with files in S3 and jobs in pods gives the same tables as in a local folder.

pytest -m slow tests/test_cloud.py      # some minutes

The storage is an S3 server on loopback. The pods are local processes, each in an empty folder,
started by a Kubernetes API on loopback as Snakemake requests. An image in a real cluster is not
tested; see docs/howto/kubernetes.md.
"""

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import boto3
import pytest
import smallest
import yaml
from kubernetes_api import Cluster, Ended

from squentropy.report.read import read

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
STUDY = smallest.STUDY | {"study": "mine"}
PROFILE = ("--workflow-profile", "profiles/kubernetes")
MINE = ("--configfile", "studies/mine.yaml")
FOLDERS = itertools.count()
HERE_PERHAPS = {"select", "page"}  # rules that Snakemake may run locally
GPU_RULES = {"sweep", "refine", "lengths", "final", "evaluate_final", "sample_final"}


class Project:
    """A copy of the repository with a small study and its own folder in the storage."""

    def __init__(self, folder: Path, s3: tuple[str, dict[str, str]]):
        address, keys = s3
        self.folder, self.prefix = folder, f"s3://studies/cloud{next(FOLDERS)}"
        (folder / "studies/mine.yaml").write_text(yaml.safe_dump(STUDY))
        self.nvidia_smi = folder.parent / f"{folder.name}-bin/nvidia-smi"
        self.nvidia_smi.parent.mkdir()
        self.nvidia_smi.write_text("#!/bin/sh\n")
        self.nvidia_smi.chmod(0o755)
        self.environment = os.environ | {
            "PYTHONPATH": str(folder / "src"),
            "PATH": os.pathsep.join([str(BIN), str(self.nvidia_smi.parent), os.environ["PATH"]]),
            "STUDY_IMAGE": "registry.example/squentropy:1",
            "STUDY_STORAGE": self.prefix,
            "SNAKEMAKE_STORAGE_S3_ENDPOINT_URL": address,
            "SNAKEMAKE_STORAGE_S3_ACCESS_KEY": keys["AWS_ACCESS_KEY_ID"],
            "SNAKEMAKE_STORAGE_S3_SECRET_KEY": keys["AWS_SECRET_ACCESS_KEY"],
        }
        self.bucket = boto3.resource(
            "s3",
            endpoint_url=address,
            region_name="us-east-1",
            **{name.lower(): value for name, value in keys.items()},
        ).Bucket("studies")

    def snakemake(self, *words: str, fails: bool = False) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "snakemake", *words],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
        )
        said = done.stdout + done.stderr
        assert bool(done.returncode) == fails, said
        return said

    def planned(self) -> str:
        """Snakemake's plan for the cluster, without rule messages, which hide a job's details."""
        for path in self.folder.glob("workflow/rules/*.smk"):
            text = re.sub(r"^( +)message:\n\1 +.*\n", "", path.read_text(), flags=re.MULTILINE)
            path.write_text(text)
        return self.snakemake(*MINE, *PROFILE, "--dry-run", "--quiet", "host")

    def stored(self, below: str) -> dict[str, bytes]:
        """The storage's contents below a folder of the project, by path in the project."""
        start = self.prefix.removeprefix("s3://studies/") + "/"
        return {
            item.key.removeprefix(start): item.get()["Body"].read()
            for item in self.bucket.objects.filter(Prefix=start + below + "/")
        }

    def here(self, below: str) -> dict[str, bytes]:
        """The same for the local project."""
        return {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in (self.folder / below).rglob("*")
            if path.is_file()
        }


@pytest.fixture
def project(copy_project, s3, tmp_path) -> Project:
    (tmp_path / "project").mkdir()
    return Project(copy_project(tmp_path / "project"), s3)


@pytest.fixture
def nowhere(project, tmp_path) -> Project:
    """A project that is a git repository, as Kubernetes jobs require."""
    for words in (["init", "--quiet"], ["add", "--all"]):
        subprocess.run(["git", *words], cwd=project.folder, check=True)
    (project.folder / ".git/info/exclude").write_text("__pycache__/\n")
    return project


def run_pod(folder: Path, job: dict, environment: dict[str, str]) -> Ended:
    """Run a pod's command as a local process in an empty folder.

    It has this environment's Python, the code that was sent to it, and a pip that does nothing.
    """
    (folder / "bin").mkdir(parents=True)
    (folder / "workdir").mkdir()
    (folder / "bin/pip").write_text("#!/bin/sh\n")
    (folder / "bin/pip").chmod(0o755)
    container = job["spec"]["template"]["spec"]["containers"][0]
    done = subprocess.run(
        [*container["command"], *container["args"]],
        cwd=folder / "workdir",
        env={
            "PATH": f"{folder / 'bin'}:{BIN}:/usr/bin:/bin",
            "HOME": str(folder),
            "PYTHONPATH": str(folder / "workdir/src"),
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return done.returncode, done.stdout


def rule_of(job: dict) -> str:
    [command] = job["spec"]["template"]["spec"]["containers"][0]["args"][1:]
    return re.search(r"--allowed-rules (\w+)", command)[1]


@pytest.mark.slow
def test_with_its_files_in_s3_the_smoke_study_has_the_same_tables(project):
    """A second run, which finds only the storage, has nothing to do."""
    smoke = ("--cores", "2", "--configfile", "studies/smoke.yaml")
    s3 = ("--default-storage-provider", "s3", "--default-storage-prefix", project.prefix)
    project.snakemake(*smoke, *s3)
    assert not (project.folder / "results").exists()
    project.snakemake(*smoke)
    for folder in ("data", "results", "report"):
        assert project.stored(folder) == project.here(folder)
    weights = [name for name in project.stored("checkpoints") if name.endswith(".safetensors")]
    assert {name.split("/")[2] for name in weights} == {"lengths", "final", "reported"}
    shutil.rmtree(project.folder / ".snakemake")  # as from another machine
    assert "Nothing to be done" in project.snakemake(*smoke, *s3)


@pytest.mark.slow
def test_what_was_fetched_from_s3_is_a_finished_study_here(project):
    project.snakemake("--cores", "2", *MINE, *PROFILE, "--executor", "local")
    for folder in ("data", "checkpoints", "results", "report"):
        for name, content in project.stored(folder).items():
            (project.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (project.folder / name).write_bytes(content)
    project.snakemake("--cores", "2", *MINE, "--touch")
    assert "Nothing to be done" in project.snakemake("--cores", "2", *MINE)
    assert read(project.folder / "results/mine").losses == ["cross_entropy"]


@pytest.mark.slow
def test_another_depth_trains_again_what_lies_in_s3(project):
    """The runs of its rows are not local files, so none is continued."""
    local = ("--cores", "2", *MINE, *PROFILE, "--executor", "local")
    project.snakemake(*local, "--until", "sweep")
    before = project.stored("checkpoints")
    changed = STUDY | {"sweep": STUDY["sweep"] | {"n_layer": [1, 2]}}
    (project.folder / "studies/mine.yaml").write_text(yaml.safe_dump(changed))
    project.snakemake(*local, "--until", "sweep")
    after = project.stored("checkpoints")
    assert len(after) == 2 * len(before)
    assert {name: after[name] for name in before} == before


@pytest.mark.slow
def test_in_pods_the_study_has_the_same_tables(nowhere, tmp_path):
    """If a pod is lost, its job is retried. Each pod starts in an empty folder."""
    project, pods, lost = nowhere, itertools.count(), []

    def pod(job: dict, environment: dict[str, str]) -> Ended:
        if rule_of(job) == "tokens" and not lost:
            lost.append(job)
            return 137, "the node was taken away\n"
        return run_pod(tmp_path / f"pod{next(pods)}", job, environment)

    with Cluster(pod) as cluster:
        cluster.write_kubeconfig(tmp_path / "kubeconfig")
        project.environment["KUBECONFIG"] = str(tmp_path / "kubeconfig")
        often = ("--seconds-between-status-checks", "1")
        said = project.snakemake(*MINE, *PROFILE, *often)
        assert "Trying to restart job" in said
        assert f"The study mine is in {project.prefix}" in said
        assert "Nothing to be done" in project.snakemake(*MINE, *PROFILE)
    assert lost
    rules = [rule_of(job) for job in cluster.jobs if rule_of(job) not in HERE_PERHAPS]
    assert sorted(rules) == sorted(
        ["corpus", "tokens", "tokens", "voices", "metrics", "draw", *GPU_RULES]
    )
    for job in cluster.jobs:
        [container] = job["spec"]["template"]["spec"]["containers"]
        assert container["image"] == "registry.example/squentropy:1"
        names = {variable["name"] for variable in container["env"]}
        assert {f"SNAKEMAKE_STORAGE_S3_{name}" for name in ("ACCESS_KEY", "SECRET_KEY")} <= names
        limits, requests = container["resources"]["limits"], container["resources"]["requests"]
        assert requests["cpu"] == "900m"
        assert limits["memory"] == requests["memory"]
        gpus = int(limits.get("nvidia.com/gpu", 0))
        assert gpus == (rule_of(job) in GPU_RULES)
    assert not (project.folder / "results").exists()
    project.snakemake("--cores", "2", *MINE)
    for folder in ("data", "results", "report"):
        assert project.stored(folder) == project.here(folder)


@pytest.mark.slow
def test_a_pod_that_fails_is_reported(nowhere, tmp_path):
    project = nowhere
    with Cluster(lambda job, environment: (1, "no space left on the node\n")) as cluster:
        cluster.write_kubeconfig(tmp_path / "kubeconfig")
        project.environment["KUBECONFIG"] = str(tmp_path / "kubeconfig")
        often = ("--seconds-between-status-checks", "1")
        said = project.snakemake(*MINE, *PROFILE, *often, "--retries", "1", fails=True)
    assert [rule_of(job) for job in cluster.jobs] == ["corpus", "corpus"]
    assert "Error in rule corpus" in said
    log = re.search(r"/\S*kubernetes-logs/\S*\.log", said)[0]
    assert Path(log).read_text().strip() == "no space left on the node"
    assert "the same command resumes from here" in said


@pytest.mark.slow
@pytest.mark.parametrize(("device", "gpus"), [("auto", 1), ("cpu", 0)])
def test_the_plan_for_a_cluster_asks_for_gpus_where_the_study_wants_them(project, device, gpus):
    changed = STUDY | {"train": {"device": device}}
    (project.folder / "studies/mine.yaml").write_text(yaml.safe_dump(changed))
    said = project.planned()
    jobs = re.findall(r"^(?:local)?rule (\w+):\n((?: .*\n)+)", said, flags=re.MULTILINE)
    plan = {rule: re.search(r"resources: .*\bgpu=(\d+)", text) for rule, text in jobs}
    assert set(plan) == {
        *("corpus", "tokens", "select", "voices", "metrics", "draw", "page", "all", *GPU_RULES)
    }
    assert {rule for rule, found in plan.items() if found} == GPU_RULES
    assert {int(found[1]) for found in plan.values() if found} == {gpus}


def instructions() -> list[tuple[str, str]]:
    """The Containerfile's instructions in order: name and arguments, on one line."""
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [tuple(" ".join(line.split()).split(" ", 1)) for line in lines if line.strip()]


def test_the_image_copies_what_is_there_and_is_not_ignored():
    ignored = (ROOT / ".containerignore").read_text().splitlines()
    assert (ROOT / ".dockerignore").read_text().splitlines() == ignored
    copied = [
        source for name, rest in instructions() if name == "COPY" for source in rest.split()[:-1]
    ]
    assert sorted(copied) == sorted(line[1:] for line in ignored if line.startswith("!"))
    assert all((ROOT / source).exists() for source in copied)


def test_the_image_does_not_run_as_root():
    assert [rest for name, rest in instructions() if name == "USER"] == ["1000"]


def test_what_a_pod_installs_is_pinned_and_comes_from_the_image():
    runs = [rest for name, rest in instructions() if name == "RUN"]
    [plugin] = [run for run in runs if "pip wheel" in run]
    assert "\nsnakemake-storage-plugin-s3==" in (ROOT / "requirements-kubernetes.lock").read_text()
    assert "--require-hashes --requirement requirements-kubernetes.lock" in plugin
    [environment] = [rest for name, rest in instructions() if name == "ENV"]
    assert "PIP_NO_INDEX=1" in environment
    assert "PIP_FIND_LINKS=/opt/squentropy/wheels" in environment


@pytest.mark.slow
def test_a_corpus_of_story_files_of_this_machine_is_made_on_it(nowhere, tmp_path):
    project = nowhere
    stories = [f"Once there were {number} cats, and they slept." for number in range(40)]
    (project.folder / "stories.txt").write_text("<|endoftext|>".join(stories))
    cut = {"validation_stories": 3, "test_stories": 3}
    corpus = {"source": "files", "files": {"train": ["stories.txt"], **cut}}
    (project.folder / "studies/mine.yaml").write_text(yaml.safe_dump(STUDY | {"corpus": corpus}))
    with Cluster(lambda job, environment: (1, "has no such file\n")) as cluster:
        cluster.write_kubeconfig(tmp_path / "kubeconfig")
        project.environment["KUBECONFIG"] = str(tmp_path / "kubeconfig")
        project.snakemake(*MINE, *PROFILE, "--until", "corpus")
    assert cluster.jobs == []
    assert "data/mine/corpus/manifest.json" in project.stored("data")
