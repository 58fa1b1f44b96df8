"""What `squentropy record` and `restore` refuse, before DVC is asked.

pytest tests/tools/test_dvc_versions.py
"""

from pathlib import Path

import pytest

from squentropy.errors import SquentropyError
from squentropy.tools import dvc


@pytest.fixture
def project(copy_project, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(copy_project(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "src"))  # of the Snakemake that is asked
    return tmp_path


def test_an_unfinished_study_is_not_recorded(project):
    with pytest.raises(SquentropyError, match='smoke: is not finished; run `make study STUDY="st'):
        dvc.record([Path("studies/smoke.yaml")])


def test_a_study_under_the_defaults_name_is_not_recorded_as_another(project):
    Path("studies/mine.yaml").write_text("sweep: {lr: [0.01]}\n")
    with pytest.raises(SquentropyError, match=r"mine\.yaml: has the default study's name"):
        dvc.record([Path("studies/mine.yaml")])


@pytest.mark.parametrize(
    ("overlays", "message"),
    [
        ([], r"dvc.lock: holds no record of grammar; .* `make record` makes it"),
        (
            [Path("studies/smoke.yaml")],
            r'studies/dvc.lock: holds no record of smoke; .* `make record STUDY="studies/smoke',
        ),
    ],
)
def test_a_study_that_was_not_recorded_is_not_restored(project, overlays, message):
    with pytest.raises(SquentropyError, match=message):
        dvc.restore(overlays)
