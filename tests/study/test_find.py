"""A study is found by its name, its files, its results folder or one of its runs.

pytest tests/study/test_find.py
"""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from squentropy.base.errors import ParameterError, SquentropyError
from squentropy.study.find import DEFAULT, find, overlays, study_of
from squentropy.study.layout import Places

SMOKE = Path("studies/smoke.yaml")


@pytest.fixture
def project(copy_project, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(copy_project(tmp_path))
    return tmp_path


@pytest.fixture
def finished(project, tiny_study):
    """finished(**changes): a study `tiny` with results but without a file in studies/."""

    def finished(**changes):
        study = tiny_study(**changes)
        folder = project / "results/tiny"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "params.yaml").write_text(study.dump())
        (folder / "manifest.json").write_text("{}")
        return study

    return finished


def test_every_way_to_name_a_study_finds_the_same_one(project):
    assert find() == find("grammar") == find(DEFAULT) == find("params.yaml")
    assert find("smoke") == find(SMOKE) == find("studies/smoke.yaml") == find(DEFAULT, SMOKE)
    assert find("smoke")[0].study == "smoke"
    assert find("smoke")[1] == Places(Path("results/smoke"))


def test_a_file_is_laid_over_the_default_study_only_where_it_is_not_whole(project):
    study = find(SMOKE)[0]
    Path("whole.yaml").write_text(study.dump())
    DEFAULT.unlink()
    assert find("whole.yaml")[0] == study
    with pytest.raises(ParameterError, match=r"is missing; params\.yaml shows it"):
        find(SMOKE)


def test_a_name_means_the_parameters_as_they_are_and_a_folder_those_of_its_results(
    finished, project
):
    study = finished()
    assert find("tiny") == find("results/tiny") == find(project / "results/tiny/params.yaml")
    values = yaml.safe_load(study.dump()) | {"sample": study.sample.model_dump() | {"top_k": 7}}
    Path("studies/tiny.yaml").write_text(yaml.safe_dump(values))
    assert find("tiny")[0].sample.top_k == 7
    assert find("results/tiny")[0] == study


def test_what_no_study_has_is_an_error_that_names_those_there_are(project):
    with pytest.raises(SquentropyError, match=r"nix: no such study; there are: .*smoke"):
        find("nix")
    with pytest.raises(SquentropyError, match=r"none\.yaml: cannot be read"):
        find("none.yaml")


def test_snakemake_is_told_a_study_by_the_files_that_are_laid_over_the_default_one(
    project, finished
):
    finished()
    mine = Path("mine.yaml")
    assert overlays([]) == overlays(["grammar"]) == overlays(["params.yaml"]) == []
    assert overlays(["smoke"]) == overlays([SMOKE]) == [SMOKE]
    assert overlays([SMOKE, mine]) == [SMOKE, mine]
    with pytest.raises(SquentropyError, match="results/tiny: has no file in studies/"):
        overlays(["results/tiny"])


def test_a_runs_folder_names_its_study_with_the_parameters_it_was_trained_by(project, finished):
    study = finished()
    folder = Path("checkpoints/tiny/final/mse/seed1")
    assert study_of(folder, None) == study
    assert study_of(Path("mine"), None) == find()[0]
    assert study_of(Path("checkpoints/smoke/final/mse/seed1"), None) == find("smoke")[0]
    cell = study.sweep_cells()[0]
    run = json.loads(json.dumps({"cell": asdict(cell), "params": study.training_keys("sweep")}))
    assert study_of(folder, run) == study
    finished(model={"n_embd": 32})  # results with other parameters
    Path("studies/tiny.yaml").write_text(study.dump())
    assert study_of(folder, run) == study
    Path("results/tiny/params.yaml").write_text("study: damaged\n")
    assert study_of(folder, run) == study
