"""The smoke study from end to end, run by Snakemake.

pytest -m slow tests/test_study.py      # some minutes
"""

import json
import re
import shutil
from pathlib import Path

import pytest

from squentropy.report import catalogue
from squentropy.study.params import load

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def smoke(snakemake):
    """smoke(project, *words): runs Snakemake on the smoke study and returns its output."""

    def run(project: Path, *words: str) -> str:
        done = snakemake(project, *words, "--configfile", "studies/smoke.yaml")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def contents(folder: Path) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "provenance.json")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def project(tmp_path_factory, copy_project, smoke) -> Path:
    """A copy of the project with the smoke study finished on one core."""
    folder = copy_project(tmp_path_factory.mktemp("one_core"))
    smoke(folder, "--cores", "1")
    return folder


def test_one_core_and_two_give_the_same_bytes(project, tmp_path, copy_project, smoke):
    other = copy_project(tmp_path)
    smoke(other, "--cores", "2")
    for part in ("data", "checkpoints", "results", "report"):
        assert contents(project / part) == contents(other / part)


def test_a_second_time_nothing_is_to_be_done(project, smoke):
    assert "Nothing to be done" in smoke(project, "--cores", "1", "--dry-run")


def test_figures_come_back_without_training(project, smoke):
    figures = project / "report/smoke/figures"
    before = contents(figures)
    shutil.rmtree(figures)
    said = smoke(project, "--cores", "1", "figures")
    assert set(re.findall(r"\(Rule: (\w+)\)", said)) == {"figures"}
    assert contents(figures) == before


def test_snakemakes_own_report_holds_the_page_and_every_figure_with_its_caption(
    project, tmp_path, smoke
):
    smoke(project, "--report", str(tmp_path / "report.html"))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    for category in ("Figures", "The study"):
        assert f'"{category}"' in text
    study = load([ROOT / "params.yaml", ROOT / "studies/smoke.yaml"])
    drawn = {path.stem for path in (project / "report/smoke").glob("**/*.svg")}
    assert drawn == {figure.name for figure in catalogue.figures(study)}
    for figure in catalogue.figures(study):
        assert f"{figure.name}.svg" in text
        assert f'"{figure.title}"' in text
        assert json.dumps(figure.caption_of(study))[1:-1] in text


def test_a_new_value_in_the_grid_trains_the_new_cells_alone(project, tmp_path, smoke):
    folder = tmp_path / "project"
    shutil.copytree(project, folder)
    study = folder / "studies/smoke.yaml"
    study.write_text(study.read_text().replace("dropout: [0.1]", "dropout: [0.1, 0.3]"))
    cells = {path: path.read_bytes() for path in folder.glob("checkpoints/*/sweep/**/run.json")}
    smoke(folder, "--cores", "1", "results/smoke/sweep.csv")
    assert all(path.read_bytes() == before for path, before in cells.items())
    logs = "".join(path.read_text() for path in folder.glob("logs/smoke/sweep/**/*.log"))
    trained = re.findall(r"^(\S+): \d+ iterations", logs, flags=re.MULTILINE)
    assert len(trained) == len(cells)
    assert all("dropout0.3" in name for name in trained)
