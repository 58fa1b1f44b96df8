"""A study restored from remote storage is identical, and nothing is trained again.

pytest -m slow tests/test_restore.py      # some minutes
"""

import hashlib
import os
import re
import shutil
from pathlib import Path

import pytest
import smallest
import yaml
from recorded import commit, put_under_dvc, run

pytestmark = pytest.mark.slow

GRID = {"losses": ["cross_entropy", "mse"], "lr": [0.003, 0.03], "keep_weights": True}
SMALL = smallest.STUDY | {"sweep": smallest.STUDY["sweep"] | GRID}
OVERLAY = {"study": "mine", "sweep": {"losses": ["mse"], "lr": [0.003]}}
HELD = ("data", "checkpoints", "results", "report")


def squentropy(project: Path, *words: str, **options) -> str:
    return run(project, "squentropy.cli.app", *words, **options)


def hashes(project: Path) -> dict[str, str]:
    """SHA-256 of each file that a study makes, except provenance.json, which is not restored."""
    return {
        str(path.relative_to(project)): hashlib.sha256(path.read_bytes()).hexdigest()
        for folder in HELD
        for path in (project / folder).rglob("*")
        if path.is_file() and path.name not in (".gitignore", "provenance.json")
    }


def clone(project: Path, folder: Path, remote: str) -> Path:
    run(project, "git", "clone", "--quiet", str(project), str(folder))
    run(folder, "dvc", "remote", "add", "--local", "--default", "storage", remote)
    return folder


def object_of(file: Path, store: Path) -> Path:
    """The path of a file's content in a DVC store."""
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    return store / "files/md5" / md5[:2] / md5[2:]


def damage(file: Path) -> None:
    """Change every byte of a file but not its size."""
    file.chmod(0o644)
    file.write_bytes(bytes(byte ^ 1 for byte in file.read_bytes()))


@pytest.fixture(scope="module")
def origin(tmp_path_factory, copy_project) -> Path:
    """A repository with two tiny studies, one the default, both run, recorded and pushed."""
    project = copy_project(tmp_path_factory.mktemp("origin"))
    (project / "studies/mine.yaml").write_text(yaml.safe_dump(OVERLAY))
    put_under_dvc(project, SMALL)
    run(project, "snakemake", "--cores", "2")
    assert "`dvc push dvc.yaml`" in squentropy(project, "record")
    commit(project)
    run(project, "snakemake", "--cores", "2", "--configfile", "studies/mine.yaml")
    assert "`dvc push studies/dvc.yaml:mine`" in squentropy(project, "record", "studies/mine.yaml")
    commit(project)
    remote = project.parent / f"{project.name}-remote"
    run(project, "dvc", "remote", "add", "--local", "--default", "storage", str(remote))
    run(project, "dvc", "push")
    return project


@pytest.fixture(scope="module")
def remote(origin) -> Path:
    return origin.parent / f"{origin.name}-remote"


@pytest.fixture(scope="module")
def restored(origin, remote, tmp_path_factory) -> Path:
    """A fresh clone of `origin` with the default study restored."""
    folder = clone(origin, tmp_path_factory.mktemp("clone") / "project", str(remote))
    squentropy(folder, "restore")
    return folder


def test_nothing_is_left_to_run_and_every_file_is_the_same(origin, restored):
    assert "Nothing to be done" in run(restored, "snakemake", "--dry-run")
    assert "up to date" in run(restored, "dvc", "status", "dvc.yaml")
    assert not run(restored, "git", "status", "--short")
    expected = {name: h for name, h in hashes(origin).items() if "/mine" not in name}
    assert hashes(restored) == expected


def test_a_change_of_the_corpus_is_noticed(restored, tmp_path):
    """A clone does not contain Snakemake's metadata; restoring writes it."""
    project = shutil.copytree(restored, tmp_path / "project")
    params = project / "params.yaml"
    values = yaml.safe_load(params.read_text())
    values["corpus"]["grammar"]["seed"] += 1
    params.write_text(yaml.safe_dump(values, sort_keys=False))
    said = run(project, "snakemake", "--dry-run", "--quiet", "host")
    assert {"corpus", "tokens", "sweep", "final"} <= set(re.findall(r"^(\w+) +\d+$", said, re.M))


def test_dvc_repro_runs_nothing(restored):
    said = run(restored, "dvc", "repro")
    assert len(re.findall("didn't change, skipping", said)) == 4
    assert "Running" not in said


def test_stories_and_figures_are_made_from_what_was_restored(restored):
    before = hashes(restored)
    run(restored, "snakemake", "--cores", "1", "report")
    squentropy(
        restored, "sample", "checkpoints/grammar/final/mse/seed1", "--tokens", "data/grammar/tokens"
    )
    assert hashes(restored) == before


def test_a_changed_learning_rate_trains_its_cells_alone(restored, tmp_path):
    project = shutil.copytree(restored, tmp_path / "project")
    shutil.rmtree(project / "logs")
    params = project / "params.yaml"
    params.write_text(params.read_text().replace("- 0.03\n", "- 0.06\n"))
    run(project, "dvc", "repro", "sweep")
    logs = {
        str(path.relative_to(project / "logs/grammar")) for path in project.rglob("logs/**/*.log")
    }
    losses = ("cross_entropy", "mse")
    assert logs == {
        "select.log",
        *(f"sweep/{loss}/lr0.06.log" for loss in losses),
        *(f"refine/{loss}.log" for loss in losses),
    }
    # Later steps may need new runs because of the new cells, but no cell is trained again.
    said = "".join(path.read_text() for path in project.rglob("logs/**/sweep/**/*.log"))
    assert said.count(" iterations, validation") == 2


def test_another_study_is_restored_without_the_default_one(origin, remote, tmp_path):
    project = clone(origin, tmp_path / "project", str(remote))
    squentropy(project, "restore", "studies/mine.yaml")
    mine = ("--configfile", "studies/mine.yaml")
    assert "Nothing to be done" in run(project, "snakemake", "--dry-run", *mine)
    assert "up to date" in run(project, "dvc", "status", "studies/dvc.yaml:mine")
    expected = {name: h for name, h in hashes(origin).items() if "/mine" in name}
    assert {name: h for name, h in hashes(project).items() if "/mine" in name} == expected
    assert not (project / "data/grammar").exists()
    assert "WARNING" not in run(project, "dvc", "push", "studies/dvc.yaml:mine")


def test_recording_another_study_touches_no_other(origin):
    changed = run(origin, "git", "diff", "--name-only", "HEAD~1").split()
    folders = ("results/.gitignore", "report/.gitignore")
    assert sorted(changed) == sorted([*folders, "studies/dvc.yaml", "studies/dvc.lock"])


def test_an_absent_remote_is_one_line(restored, tmp_path):
    project = shutil.copytree(restored, tmp_path / "project")
    before = hashes(project)
    (project / ".dvc/config.local").unlink()
    said = squentropy(project, "restore", fails=True)
    assert said.startswith("squentropy: dvc: no remote storage is configured")
    shutil.rmtree(project / ".dvc/cache")
    run(project, "dvc", "remote", "add", "--local", "--default", "storage", str(tmp_path / "no"))
    said = squentropy(project, "restore", fails=True)
    assert re.fullmatch(
        r"squentropy: remote storage .*/no: .* missing or damaged there, .*\n", said
    )
    assert hashes(project) == before


def test_a_damaged_object_is_refused_before_the_workspace_changes(restored, remote, tmp_path):
    """`dvc pull` would delete the folder that contains the file."""
    project = shutil.copytree(restored, tmp_path / "project")
    store = shutil.copytree(remote, tmp_path / "remote")
    run(project, "dvc", "remote", "modify", "--local", "storage", "url", str(store))
    file = project / "data/grammar/corpus/manifest.json"
    kept = object_of(file, project / ".dvc/cache")
    damage(object_of(file, store))
    kept.chmod(0o644)
    kept.unlink()
    file.write_text("{}")
    run(project, "dvc", "commit", "--force", "data")
    run(project, "git", "checkout", "--quiet", "dvc.lock")
    before = hashes(project)
    said = squentropy(project, "restore", fails=True)
    assert f"remote storage {store}: data/grammar/corpus/manifest.json missing or damaged" in said
    assert said.count("\n") == 1
    assert hashes(project) == before


def test_what_was_never_saved_is_not_overwritten(restored, tmp_path):
    project = shutil.copytree(restored, tmp_path / "project")
    file = project / "data/grammar/tokens/test.bin"
    file.write_bytes(b"mine")
    said = squentropy(project, "restore", fails=True)
    assert said.startswith(
        "squentropy: dvc checkout: data/grammar/tokens/test.bin would be overwritten, but was "
        "never recorded; move it away (more in "
    )
    assert said.count("\n") == 1
    assert file.read_bytes() == b"mine"


def test_other_code_than_was_recorded_is_not_called_done(restored, tmp_path):
    project = shutil.copytree(restored, tmp_path / "project")
    with (project / "src/squentropy/training/loop.py").open("a") as file:
        file.write("MORE = 1\n")
    said = squentropy(project, "restore", fails=True)
    assert "src/squentropy/training; `make study` makes what depends on it" in said


@pytest.fixture
def no_credentials(monkeypatch, tmp_path):
    nothing = tmp_path / "nothing"
    nothing.touch()
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(nothing))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(nothing))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def test_s3_restores_the_same_files(origin, tmp_path, s3, no_credentials):
    address, credentials = s3
    pushing = shutil.copytree(origin, tmp_path / "pushing")
    pulling = clone(origin, tmp_path / "pulling", "s3://studies/a")
    for project in (pushing, pulling):
        run(project, "dvc", "remote", "modify", "--local", "storage", "url", "s3://studies/a")
        run(project, "dvc", "remote", "modify", "--local", "storage", "endpointurl", address)
    run(pushing, "dvc", "push", **credentials)
    said = squentropy(pulling, "restore", fails=True)
    assert "Unable to locate credentials" in said
    assert said.count("\n") == 1
    squentropy(pulling, "restore", **credentials)
    expected = {name: h for name, h in hashes(origin).items() if "/mine" not in name}
    assert hashes(pulling) == expected
    shutil.rmtree(pulling / ".dvc/cache")
    run(pulling, "dvc", "remote", "modify", "--local", "storage", "url", "s3://elsewhere/a")
    said = squentropy(pulling, "restore", fails=True, **credentials)
    assert "The specified bucket does not exist" in said
    assert hashes(pulling) == expected
