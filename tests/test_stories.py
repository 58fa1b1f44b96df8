"""User story files, even with unusual names, remake the corpus if and only if they change.

pytest tests/test_stories.py
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import smallest
import yaml

from squentropy.base.storage import sha256

FOLDER = '{x} a$b"c'
TOKENS = "data/mine/tokens/manifest.json"
NAMES = ["story[1].txt", "stories/{brace}.txt", 'stories/a$b"c.txt', "stories/caf\udce9.txt"]
STUDY = smallest.STUDY | {
    "study": "mine",
    "sample": {"prompts": ["Of {x} there was"], "max_tokens": 20},
    "tokens": {"vocab_size": 270},
    "corpus": {
        "source": "files",
        "files": {
            "train": ["story[1].txt", "stories/*", "~/{home}.txt"],
            "validation_stories": 3,
            "test_stories": 3,
        },
    },
}


class Project:
    """A copy of the project, with its environment, in a folder with an unusual name."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.python = folder / ".venv/bin" / Path(sys.executable).name
        (folder / ".venv").symlink_to(sys.prefix)
        (folder / "studies/mine.yaml").write_text(yaml.safe_dump(STUDY))
        (folder / "stories").mkdir()
        (folder / "home").mkdir()
        for name in [*NAMES, "home/{home}.txt"]:
            write(folder / name, f"Of {NAMES.index(name) if name in NAMES else 9}")

    def snakemake(self, *words: str) -> str:
        environment = os.environ | {
            "PYTHONPATH": str(self.folder / "src"),
            "HOME": str(self.folder / "home"),
            "XDG_CACHE_HOME": str(self.folder / "cache"),
        }
        command = [self.python, "-m", "snakemake", "--cores", "1", *words]
        done = subprocess.run(
            [*command, "--configfile", "studies/mine.yaml"],
            cwd=self.folder, env=environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    def recorded(self) -> dict[str, str]:
        """The hashes of the corpus's files according to its manifest."""
        manifest = json.loads((self.folder / "data/mine/corpus/manifest.json").read_text())
        return {file["file"]: file["sha256"] for file in manifest["provenance"]["train"]}


def write(path: Path, of: str) -> None:
    stories = [f"{of}: there was cat {number}, and it slept." for number in range(9)]
    path.write_text("<|endoftext|>".join(stories))


@pytest.fixture(scope="module")
def project(tmp_path_factory, copy_project) -> Project:
    project = Project(copy_project(tmp_path_factory.mktemp("stories") / FOLDER))
    project.snakemake(TOKENS)
    return project


def test_every_file_is_in_the_corpus_and_nothing_is_left_to_do(project):
    assert project.recorded() == {
        name.encode(errors="backslashreplace").decode(): sha256(project.folder / path)
        for name, path in [*zip(NAMES, NAMES, strict=True), ("{home}.txt", "home/{home}.txt")]
    }
    assert "Nothing to be done" in project.snakemake(TOKENS, "--dry-run")


def test_braces_in_names_and_prompts_are_no_wildcards_of_any_rule(project):
    said = project.snakemake("--dry-run")
    assert re.search(r"^page +1$", said, flags=re.MULTILINE)


def test_other_stories_with_an_older_time_make_the_corpus_anew_and_another_time_does_not(project):
    before = project.recorded()
    path, other = project.folder / "home/{home}.txt", project.folder / "other"
    write(other, "Others")
    os.utime(other, (0, 0))
    other.replace(path)
    assert "Finished jobid: 0 (Rule: tokens)" in project.snakemake(TOKENS)
    assert project.recorded() == before | {"{home}.txt": sha256(path)} != before
    os.utime(path)
    assert "Nothing to be done" in project.snakemake(TOKENS, "--dry-run")


@pytest.mark.slow
def test_a_whole_study_runs_there(project):
    said = project.snakemake()
    assert "The report: report/mine/index.html" in said
    assert (project.folder / "report/mine/index.html").is_file()
    assert "Nothing to be done" in project.snakemake("--dry-run")
