"""A copy of the project under git and DVC, for tests of recording and restoring a study."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from squentropy.study.overlays import overlay
from squentropy.study.params import load, parse

ROOT = Path(__file__).resolve().parents[1]


def put_under_dvc(project: Path, changes: dict) -> None:
    """Put a copy of the project under git and DVC, with changes to its default study."""
    shutil.copytree(
        ROOT / ".dvc",
        project / ".dvc",
        ignore=shutil.ignore_patterns("tmp", "cache", "config.local"),
    )
    for name in ("dvc.yaml", ".gitignore", ".dvcignore"):
        shutil.copy(ROOT / name, project / name)
    study = parse(overlay(load([project / "params.yaml"]).model_dump(), changes))
    (project / "params.yaml").write_text(study.dump())
    run(project, "git", "init", "--quiet")
    commit(project)


def run(project: Path, *command: str, fails: bool = False, **environment: str) -> str:
    """Run a command in a project, with its package, and return stdout and stderr.

    Fails unless the exit status is 0 or, with `fails`, another.
    """
    variables = os.environ | {
        "PYTHONPATH": str(project / "src"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "GIT_CONFIG_GLOBAL": str(project.parent / "gitconfig"),
        "GIT_CONFIG_SYSTEM": os.devnull,
    }
    if command[0] != "git":
        command = (sys.executable, "-m", *command)
    done = subprocess.run(
        command, cwd=project, env=variables | environment, capture_output=True, text=True
    )
    assert bool(done.returncode) == fails, done.stdout + done.stderr
    return done.stdout + done.stderr


def commit(project: Path) -> None:
    run(project, "git", "add", "--all")
    run(project, "git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-mt")
