"""What `squentropy record` and `restore` refuse, before DVC is asked.

pytest tests/tools/test_dvc_versions.py
"""

import itertools
import os
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


# --- your own stories ---------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch) -> list[tuple[str, ...]]:
    """What DVC is asked, which answers with the folder of a remote storage."""
    every = []

    def dvc_answers(self, *words, folder=None):
        every.append(words)
        return "../remote\n"

    monkeypatch.setattr(dvc._Recorded, "dvc", dvc_answers)
    return every


def test_the_stage_of_a_study_of_own_stories_lists_where_they_lie(project, asked):
    """Without that, `dvc status` would not see that one has changed."""
    for name in ("stories/a.txt", "$" + "{x}.txt"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text("Once.")
    Path("studies/mine.yaml").write_text(
        "study: mine\ncorpus: {source: files, files: {train: ['stories/*', '$" + "{x}.txt']}}\n"
    )
    dvc._Recorded.of([Path("studies/mine.yaml")]).add_stage()
    (words,) = asked
    deps = [word for option, word in itertools.pairwise(words) if option == "--deps"]
    assert deps == [*dvc.SOURCES, "stories", r"\$" + "{x}.txt"]


@pytest.mark.parametrize(
    ("change", "missing"),
    [
        ({"changed deps": {"stories": "deleted"}}, True),
        ({"changed deps": {"stories": "modified"}}, False),
        ({"changed deps": {"stories": "deleted", "Snakefile": "modified"}}, False),
        ({"changed deps": {"Snakefile": "deleted"}}, False),
        ({"changed outs": {"data/mine": "deleted"}}, False),
        ("changed command", False),
    ],
)
def test_only_stories_may_be_missing_where_a_study_is_restored(change, missing):
    assert dvc._is_of_missing_stories(change) == missing


def test_a_pipe_in_a_remote_storage_is_named_and_not_waited_for(project, asked):
    study = dvc._Recorded.of([])
    Path(".dvc").mkdir()
    study.check_objects("storage")  # which is not there yet
    folder = Path("remote/files/md5/ab")
    folder.mkdir(parents=True)
    (folder / "cd").write_text("an object")
    study.check_objects("storage")
    os.mkfifo(folder / "ef")
    with pytest.raises(SquentropyError, match=r"remote/files/md5/ab/ef: is a pipe, not a file"):
        study.check_objects("storage")
