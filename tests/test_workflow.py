"""Adding a loss takes one function and one name; the workflow then trains only that loss.

pytest tests/test_workflow.py
"""

import itertools
import os
import re
import shutil
from pathlib import Path

import pytest
import yaml

from squentropy.study import digests
from squentropy.study.params import load

ROOT = Path(__file__).resolve().parents[1]

MINE = '''

@loss
def huber(hidden, weight, targets):
    """Of the true logit alone."""
    return torch.nn.functional.huber_loss((hidden * weight[targets]).sum(-1), hidden.new_ones(()))
'''


@pytest.fixture(scope="module")
def project(tmp_path_factory, copy_project) -> Path:
    """A copy of the project in which a user has added a loss."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    with (folder / "src/squentropy/losses.py").open("a") as file:
        file.write(MINE)
    study = yaml.safe_load((folder / "studies/smoke.yaml").read_text())
    study["sweep"]["losses"].append("huber")
    (folder / "studies/mine.yaml").write_text(yaml.safe_dump(study))
    return folder


def test_the_workflow_trains_scores_and_samples_a_users_own_loss(project, snakemake):
    done = snakemake(
        project, "--cores", "1", "--dry-run", "--configfile", "studies/mine.yaml", "--quiet", "host"
    )
    assert done.returncode == 0, done.stderr
    files = set(re.findall(r"checkpoints/[^\s,;]+", done.stdout))
    study = yaml.safe_load((project / "studies/mine.yaml").read_text())
    grid = [study["sweep"][key] for key in ("lr", "dropout", "n_layer")]
    for lr, dropout, n_layer in itertools.product(*grid):
        folder = f"checkpoints/smoke/sweep/huber/lr{lr}/dropout{dropout}_layers{n_layer}"
        assert f"{folder}/run.json" in files
    for seed in study["final"]["seeds"]:
        for name in ("run.json", "test.json", "samples.json"):
            assert f"checkpoints/smoke/final/huber/seed{seed}/{name}" in files
    assert {name.replace("huber", "mse") for name in files if "/huber/" in name} == {
        name for name in files if "/mse/" in name
    }


@pytest.mark.parametrize("gpus", [0, 1, 2])
def test_on_one_gpu_the_whole_grid_goes_before_its_rows(
    project, snakemake, tmp_path, monkeypatch, gpus
):
    """With several GPUs, each trains one row; without a GPU, the rows are independent jobs."""
    if gpus:
        (tmp_path / "nvidia-smi").write_text("#!/bin/sh\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    words = ("--cores", "1", "--dry-run", "--configfile", "studies/smoke.yaml", "--quiet", "host")
    done = snakemake(project, *words, "--resources", f"gpu={gpus}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": The whole grid at once\n") == (gpus == 1)
    waiting = re.findall(r"checkpoints/smoke/sweep/.* updated by .*whole\.done", done.stdout)
    assert len(waiting) == (6 if gpus == 1 else 0)


def test_a_users_own_loss_retrains_no_other(project, monkeypatch):
    before = [digests.digest("training", loss=loss) for loss in ("mse", "squentropy")]
    monkeypatch.setattr(digests, "SOURCE", project / "src/squentropy")
    assert before == [digests.digest("training", loss=loss) for loss in ("mse", "squentropy")]


def test_a_mistake_in_a_study_is_one_line_without_snakemakes_traceback(project, snakemake):
    (project / "studies/wrong.yaml").write_text("sweep: {losses: [hubr]}\n")
    done = snakemake(project, "--cores", "1", "--dry-run", "--configfile", "studies/wrong.yaml")
    assert done.returncode != 0
    assert (
        "squentropy: parameters: sweep.losses[0] = \"hubr\": no such loss; did you mean 'huber'?"
        in done.stderr
    )
    assert "Traceback" not in done.stderr


def test_what_a_failed_command_says_is_shown(project, snakemake):
    done = snakemake(project, "--cores", "1", "--configfile", "studies/stories.yaml")
    assert done.returncode != 0
    assert "no file matches 'stories/*'" in done.stdout + done.stderr
    assert "the same command resumes from here" in done.stdout + done.stderr


def test_from_tables_alone_figures_are_drawn_without_training_and_the_study_trains(
    copy_project, snakemake, tmp_path
):
    """As in a fresh clone, which contains the default study's tables, but no data or runs."""
    project = copy_project(tmp_path)
    for part in ("report/grammar", "results/grammar"):
        shutil.copytree(ROOT / part, project / part)
    shutil.rmtree(project / "report/grammar/figures")
    done = snakemake(project, "--cores", "1", "--dry-run", "figures", "--quiet", "host")
    planned = r"^(\w+) +\d+$"  # in the table of jobs
    assert set(re.findall(planned, done.stdout, flags=re.MULTILINE)) == {"figures", "total"}
    done = snakemake(project, "--cores", "1", "--dry-run", "--quiet", "host")
    rules = set(re.findall(planned, done.stdout, flags=re.MULTILINE))
    assert rules >= {"corpus", "tokens", "sweep", "final", "metrics"}


def test_the_committed_results_are_of_the_default_study():
    committed = (ROOT / "results/grammar/params.yaml").read_text(encoding="utf-8")
    assert committed == load([ROOT / "params.yaml"]).dump()


@pytest.mark.parametrize(
    "ended",
    [
        "os.write(2, b'libgomp: Out of memory allocating 9 bytes\\n'); os._exit(1)",
        "os.kill(os.getpid(), 9)",
    ],
)
def test_a_job_that_the_machine_ends_says_what_may_help(copy_project, snakemake, tmp_path, ended):
    """Neither OpenMP nor the kernel lets the program report anything itself."""
    project = copy_project(tmp_path / "project")
    program = f"import os, sys\nif 'corpus' in sys.orig_argv[2:3]:\n    {ended}\n"
    (project / "src/sitecustomize.py").write_text(program)
    done = snakemake(project, "--cores", "1", "--configfile", "studies/smoke.yaml")
    assert done.returncode == 1
    end = done.stdout[done.stdout.index("logs/smoke/corpus.log ends:") :]
    said = (project / "logs/smoke/corpus.log").read_text().splitlines()[-1]
    assert said.startswith(
        "squentropy: was killed by the system, probably for lack of memory or threads"
    )
    assert said in end


def test_a_study_that_cannot_fit_ends_before_work_begins(copy_project, snakemake, tmp_path):
    project = copy_project(tmp_path / "project")
    (project / "mine.yaml").write_text("study: mine\nmodel: {n_embd: 65536}\n")
    done = snakemake(project, "--cores", "1", "--configfile", "mine.yaml")
    assert done.returncode == 2
    line = done.stderr.splitlines()[-1]
    assert line.startswith("squentropy: mine: training needs at least ")
    assert "model.n_embd" in line
    assert "Traceback" not in done.stderr
    assert not list((project / "logs").rglob("*.log"))
