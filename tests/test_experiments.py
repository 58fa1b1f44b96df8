"""Queued DVC experiments each remake, in their own folder, exactly what their change affects.

pytest -m slow tests/test_experiments.py      # two minutes
"""

import json
from pathlib import Path

import pytest
import smallest
import yaml
from recorded import commit, put_under_dvc, run

from squentropy.study.params import Study, parse

pytestmark = pytest.mark.slow

CHANGES = {
    "train": ("train.weight_decay", 0.01),
    "model": ("model.n_embd", 24),
    "sweep": ("sweep.lr", [0.01]),
    "final": ("final.max_iters", 7),
}
SWEPT = "results/grammar/sweep.csv"
MADE = "results/grammar/metrics.csv"


@pytest.fixture(scope="module")
def project(tmp_path_factory, copy_project) -> Path:
    """A repository with a recorded study and one finished experiment for each of CHANGES."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    put_under_dvc(folder, smallest.STUDY)
    run(folder, "snakemake", "--cores", "2")
    run(folder, "squentropy.cli.app", "record")
    commit(folder)
    for name, (key, value) in CHANGES.items():
        run(folder, "dvc", "exp", "run", "--queue", "--name", name, "-S", f"{key}={value}")
    run(folder, "dvc", "exp", "run", "--run-all", "--jobs", "2")
    for name in CHANGES:
        run(folder, "dvc", "exp", "branch", name, name)
    return folder


def of(project: Path, revision: str, path: str) -> str:
    return run(project, "git", "show", f"{revision}:{path}")


def study_of(project: Path, revision: str) -> Study:
    return parse(yaml.safe_load(of(project, revision, "params.yaml")))


def test_every_experiment_of_the_queue_ends_well(project):
    status = run(project, "dvc", "queue", "status")
    for name in CHANGES:
        (line,) = (line for line in status.splitlines() if f" {name} " in line)
        assert "Success" in line


@pytest.mark.parametrize("name", CHANGES)
def test_its_tables_are_of_its_own_parameters(project, name):
    key, value = CHANGES[name]
    section, _, key = key.partition(".")
    study = study_of(project, name)
    assert getattr(getattr(study, section), key) == value
    held = json.loads(of(project, name, "results/grammar/manifest.json"))
    assert held["params"] == study.table_keys()
    assert yaml.safe_load(of(project, name, "results/grammar/params.yaml")) == study.model_dump()
    assert of(project, name, MADE) != of(project, "HEAD", MADE)


def test_what_an_experiment_does_not_change_stays_as_it_is(project):
    assert of(project, "final", SWEPT) == of(project, "HEAD", SWEPT)
    stages = {
        revision: yaml.safe_load(of(project, revision, "dvc.lock"))["stages"]
        for revision in ("HEAD", *CHANGES)
    }
    for name in CHANGES:
        assert stages[name]["data"] == stages["HEAD"]["data"]
        assert (stages[name]["sweep"] == stages["HEAD"]["sweep"]) == (name == "final")
