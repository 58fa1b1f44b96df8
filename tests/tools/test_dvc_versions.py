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


SAID = [  # what DVC or Snakemake says, and what a person is told
    (
        "2026-11-26 03:00:00,123 DEBUG: failed to create 'a' - [Errno 28] No space left on device\n"
        "2026-11-26 03:00:01,000 ERROR: Checkout failed for following targets:\ndata/a\n"
        "Is your cache up to date?\n",
        "the disk is full; free some space and run the same command again",
    ),
    (
        "ERROR: Checkout failed for following targets:\ndata/a\nIs your cache up to date?\n",
        "Checkout failed for following targets: data/a",
    ),
    (
        "ERROR: unexpected error - Can't remove the following unsaved files without confirmation. "
        "Use `--force` to force.\n{here}/data/a\n{here}/data/b\nTraceback (most recent call):\n"
        "{here}/data/a\n{here}/data/b\n",
        "data/a and 1 more would be overwritten, but was never recorded; move it away",
    ),
    (
        "host: here\nsquentropy: params.yaml: x: unknown key\nShutting down\n",
        "params.yaml: x: unknown key",
    ),
    (
        "Building DAG of jobs...\nMissingInputException in rule corpus in file a.smk, line 4:\n"
        "Missing input files for rule corpus:\n    stories/a.txt\n\nComplete log: x.log\n",
        "MissingInputException in rule corpus in file a.smk, line 4: Missing input files for rule "
        "corpus: stories/a.txt",
    ),
    ("one line\nand an unrelated one\n", "it failed, and does not say why"),
    (
        "ERROR: unexpected error - [Errno 13] Permission denied: 'a'\nHaving any troubles?",
        "[Errno 13] Permission denied: 'a'",
    ),
]


@pytest.mark.parametrize(("said", "reason"), SAID)
def test_the_reason_of_a_failure_is_the_line_that_names_it(said, reason):
    assert dvc.reason_in(said.replace("{here}", str(Path.cwd()))) == reason
