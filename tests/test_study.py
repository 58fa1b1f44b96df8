"""The smoke study from end to end, as Snakemake runs it.

pytest -m slow tests/test_study.py      # some minutes
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PARTS = ("Snakefile", "workflow", "params.yaml", "studies", "src", "notebooks", "profiles")

pytestmark = pytest.mark.slow


def copy_project(folder: Path) -> Path:
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, folder / part)
    return folder


def snakemake(project: Path, *words: str) -> str:
    """Run it on the smoke study; returns what it said."""
    environment = os.environ | {"PYTHONPATH": str(project / "src")}
    command = [sys.executable, "-m", "snakemake", *words, "--configfile", "studies/smoke.yaml"]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A copy of the project in which the smoke study was run on one core."""
    folder = copy_project(tmp_path_factory.mktemp("one_core"))
    snakemake(folder, "--cores", "1")
    return folder


def test_one_core_and_two_give_the_same_bytes(project, tmp_path):
    other = copy_project(tmp_path)
    snakemake(other, "--cores", "2")
    for part in ("data", "checkpoints", "results", "report"):
        assert contents(project / part) == contents(other / part)


def test_a_second_time_nothing_is_to_be_done(project):
    assert "Nothing to be done" in snakemake(project, "--cores", "1", "--dry-run")


def test_figures_come_back_without_training(project):
    figures = project / "report/smoke/figures"
    before = contents(figures)
    shutil.rmtree(figures)
    said = snakemake(project, "--cores", "1", "figures")
    assert set(re.findall(r"\(Rule: (\w+)\)", said)) == {"figures"}
    assert contents(figures) == before


def test_a_new_value_in_the_grid_trains_the_new_cells_alone(project, tmp_path):
    folder = tmp_path / "project"
    shutil.copytree(project, folder)
    study = folder / "studies/smoke.yaml"
    study.write_text(study.read_text().replace("dropout: [0.1]", "dropout: [0.1, 0.3]"))
    cells = {path: path.read_bytes() for path in folder.glob("checkpoints/*/sweep/**/run.json")}
    snakemake(folder, "--cores", "1", "results/smoke/sweep.csv")
    assert all(path.read_bytes() == before for path, before in cells.items())
    logs = "".join(path.read_text() for path in folder.glob("logs/smoke/sweep/**/*.log"))
    trained = re.findall(r"^(\S+): \d+ iterations", logs, flags=re.MULTILINE)
    assert len(trained) == len(cells)
    assert all("dropout0.3" in name for name in trained)
