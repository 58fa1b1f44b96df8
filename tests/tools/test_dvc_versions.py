"""What `squentropy record` and `restore` refuse before they run DVC.

pytest tests/tools/test_dvc_versions.py
"""

import itertools
import os
import subprocess
from pathlib import Path

import pytest

from squentropy.base.errors import SquentropyError
from squentropy.tools import dvc


@pytest.fixture
def project(copy_project, tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(copy_project(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "src"))  # for Snakemake
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
        ([], r"dvc.lock: contains no record of grammar; create it with `make record` "),
        (
            [Path("studies/smoke.yaml")],
            r'studies/dvc.lock: contains no record of smoke; .* `make record STUDY="studies/smoke',
        ),
    ],
)
def test_a_study_that_was_not_recorded_is_not_restored(project, overlays, message):
    with pytest.raises(SquentropyError, match=message):
        dvc.restore(overlays)


SAID = [  # output of DVC or Snakemake, reported reason
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
    ("one line\nand an unrelated one\n", "it failed without an error message"),
    (
        "ERROR: unexpected error - [Errno 13] Permission denied: 'a'\nHaving any troubles?",
        "[Errno 13] Permission denied: 'a'",
    ),
]


@pytest.mark.parametrize(("said", "reason"), SAID)
def test_the_reason_of_a_failure_is_the_line_that_names_it(said, reason):
    assert dvc.reason_in(said.replace("{here}", str(Path.cwd()))) == reason


# --- user stories -------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch) -> list[tuple[str, ...]]:
    """The DVC commands that were run; each prints the folder of a remote storage."""
    every = []

    def dvc_answers(self, *words, folder=None):
        every.append(words)
        return "../remote\n"

    monkeypatch.setattr(dvc._Recorded, "dvc", dvc_answers)
    return every


def test_the_stage_of_a_study_of_own_stories_lists_where_they_lie(project, asked):
    """Otherwise `dvc status` would not notice that one has changed."""
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


def test_the_stage_of_a_study_of_a_teachers_stories_lists_what_it_was_told_by(project, asked):
    run = Path("checkpoints/old/final/mse/seed1")
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    model = f"{{source: model, model: {{run: {run}}}}}"
    Path("studies/mine.yaml").write_text(f"study: mine\ncorpus: {model}\n")
    dvc._Recorded.of([Path("studies/mine.yaml")]).add_stage()
    (words,) = asked
    deps = [word for option, word in itertools.pairwise(words) if option == "--deps"]
    told_by = [f"{run}/run.json", f"{run}/model.safetensors"]
    tokens = ["data/old/tokens/manifest.json", "data/old/tokens/encoding.tiktoken"]
    assert deps == [*dvc.SOURCES, *told_by, *tokens]


def test_what_git_keeps_of_a_study_is_not_put_into_the_cache(project, asked):
    Path("studies/mine.yaml").write_text("study: mine\n")
    for folder in ("results/mine", "report/mine", "checkpoints/mine"):
        Path(folder).mkdir(parents=True)
        Path(folder, "one.csv").write_text("1\n")
    subprocess.run(["git", "init", "--quiet"], check=True)
    subprocess.run(["git", "add", "results/mine"], check=True)
    dvc._Recorded.of([Path("studies/mine.yaml")]).add_stage()
    (words,) = asked
    kept = [w for o, w in itertools.pairwise(words) if o == "--outs-persist-no-cache"]
    assert kept == ["results/mine"]
    cached = [w for o, w in itertools.pairwise(words) if o == "--outs-persist"]
    assert cached == ["data/mine", "checkpoints/mine", "report/mine"]


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
    assert dvc._is_of_missing_files(change) == missing


def test_a_pipe_in_a_remote_storage_is_named_and_not_waited_for(project, asked):
    study = dvc._Recorded.of([])
    Path(".dvc").mkdir()
    study.check_objects("storage")  # which does not exist yet
    folder = Path("remote/files/md5/ab")
    folder.mkdir(parents=True)
    (folder / "cd").write_text("an object")
    study.check_objects("storage")
    os.mkfifo(folder / "ef")
    with pytest.raises(SquentropyError, match=r"remote/files/md5/ab/ef: is a pipe, not a file"):
        study.check_objects("storage")
