"""Record a finished study with DVC, and restore it elsewhere without training.

    squentropy record      after `make study`; then git commit, and the dvc push that it prints
    squentropy restore     in a fresh clone; then `snakemake -n` has nothing to do

The default study's record is dvc.yaml and dvc.lock. Every other study is a separate stage in
studies/dvc.yaml, so that recording one does not affect the others.
"""

import errno
import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from squentropy.base import installed, storage
from squentropy.base.errors import SquentropyError
from squentropy.corpus import given
from squentropy.study.corpus import Corpus
from squentropy.study.params import load

DEFAULT = Path("params.yaml")
OTHERS = Path("studies/dvc.yaml")
FOLDERS = ("data", "checkpoints", "results", "report")
SOURCES = ("src/squentropy", "workflow", "Snakefile", "notebooks/report.ipynb")


def record(overlays: list[Path]) -> str:
    """Put the files of a finished study under DVC; returns the target for `dvc push`.

    `overlays` are the study files laid over params.yaml; empty for the default study. Raises
    SquentropyError if the study is unfinished.
    """
    installed.check("dvc")
    study = _Recorded.of(overlays)
    if not study.is_done():
        raise SquentropyError(f"{study.name}: is not finished; run `{study.make('study')}`")
    if overlays:
        study.add_stage()
    study.dvc("commit", "--force", study.target)
    return study.target


def restore(overlays: list[Path]) -> None:
    """Restore a recorded study's files to the workspace, so that nothing of it is left to run.

    Raises SquentropyError, before the workspace changes, if a file is missing or damaged in the
    remote storage.
    """
    installed.check("dvc")
    study = _Recorded.of(overlays)
    study.check_recorded()
    remote = study.remote()
    study.check_objects(remote)
    # Without this, DVC does not verify its downloads.
    study.dvc("remote", "modify", "--local", remote, "verify", "true")
    study.dvc("fetch", study.target)
    study.check_fetched(remote)
    study.dvc("checkout", "--verbose", study.target)  # otherwise it does not report a full disk
    study.check_same()
    # The times of downloaded files are in no order, so Snakemake would remake them all. They were
    # just found to match these parameters and this code.
    study.snakemake("--touch", "--forceall", "--cores", "1")
    if not study.is_done():
        raise SquentropyError(
            f"{study.name}: restored, but it was unfinished when recorded; run "
            f"`{study.make('study')}`"
        )


@dataclass(frozen=True)
class _Recorded:
    """A study as DVC and Snakemake know it."""

    name: str
    overlays: list[Path]
    corpus: Corpus

    @classmethod
    def of(cls, overlays: list[Path]) -> "_Recorded":
        study = load([DEFAULT, *overlays])
        name = study.study
        if overlays and name == load([DEFAULT]).study:
            raise SquentropyError(
                f"{overlays[-1]}: has the default study's name, {name}; "
                "to record both, give it another name, such as `study: mine`"
            )
        return cls(name, overlays, study.corpus)

    @property
    def target(self) -> str:
        return f"{OTHERS}:{self.name}" if self.overlays else "dvc.yaml"

    @property
    def folders(self) -> list[str]:
        return [f"{folder}/{self.name}" for folder in FOLDERS]

    def make(self, target: str) -> str:
        """The command line for a Makefile target."""
        words = " ".join(map(str, self.overlays))
        return f'make {target} STUDY="{words}"' if words else f"make {target}"

    def add_stage(self) -> None:
        sources = [f"{source}:" for source in (DEFAULT, *self.overlays)]
        places = given.places(self.corpus)
        places = [place.replace("${", r"\${") for place in places]  # DVC would interpolate it
        kept = [folder for folder in self.folders if _in_git(folder)]
        self.dvc(
            "stage", "add", "--force", "--name", self.name, "--wdir", "..",
            *_each("--deps", [*SOURCES, *places]), *_each("--params", sources),
            *_each("--outs-persist", [each for each in self.folders if each not in kept]),
            *_each("--outs-persist-no-cache", kept),
            f"snakemake --cores all --configfile {' '.join(map(str, self.overlays))}",
            folder=OTHERS.parent,
        )  # fmt: skip

    def check_recorded(self) -> None:
        lock = OTHERS.with_suffix(".lock") if self.overlays else Path("dvc.lock")
        text = lock.read_text(encoding="utf-8") if lock.is_file() else "stages: {}"
        recorded = yaml.safe_load(text)["stages"]
        if not recorded or (self.overlays and self.name not in recorded):
            raise SquentropyError(
                f"{lock}: contains no record of {self.name}; create it with "
                f"`{self.make('record')}` where the study was run"
            )

    def remote(self) -> str:
        """The name of the remote storage."""
        settings = self.dvc("config", "--list").splitlines()
        remote = [line.removeprefix("core.remote=") for line in settings if "core.remote=" in line]
        if not remote:
            raise SquentropyError(
                "dvc: no remote storage is configured; add a folder or a URL: "
                "`dvc remote add --local --default storage URL`"
            )
        return remote[-1]

    def check_objects(self, remote: str) -> None:
        """Refuse pipes in a folder used as remote storage, for which DVC would wait forever."""
        folder = Path(".dvc", self.dvc("config", f"remote.{remote}.url").strip())
        for path in folder.joinpath("files/md5").glob("??/*"):  # none in other storages
            storage.plain(path)

    def check_fetched(self, remote: str) -> None:
        status = json.loads(self.dvc("data", "status", "--json", "--granular", *self.folders))
        missing = sorted(status.get("not_in_cache", []))
        if missing:
            url = self.dvc("config", f"remote.{remote}.url").strip()
            raise SquentropyError(
                f"remote storage {url}: {_first(missing)} missing or damaged there, so nothing "
                "was changed here; correct the URL, or see docs/dvc.md, “A damaged object”"
            )

    def check_same(self) -> None:
        stages = json.loads(self.dvc("status", "--json", self.target))
        changes = [change for stage in stages.values() for change in stage]
        if self.corpus.source in given.SOURCES:  # a clone has the corpus, but not its source files
            changes = [change for change in changes if not _is_of_missing_files(change)]
        if changes:
            paths = {
                path
                for change in changes if isinstance(change, dict)
                for entries in change.values() for path in entries
            }  # fmt: skip
            differ = _first(sorted(paths)) if paths else "the command of a stage"
            raise SquentropyError(
                f"{self.name}: the files are restored, but this clone differs from the recorded "
                f"state: {differ}; `{self.make('study')}` makes what depends on it"
            )

    def is_done(self) -> bool:
        return "Nothing to be done" in self.snakemake("--dry-run")

    def snakemake(self, *words: str) -> str:
        configs = ["--configfile", *map(str, self.overlays)] if self.overlays else []
        done = self._run("snakemake", *words, *configs)
        return done.stdout + done.stderr

    def dvc(self, *words: str, folder: Path = Path()) -> str:
        return self._run("dvc", *words, folder=folder).stdout

    def _run(
        self, tool: str, *words: str, folder: Path = Path()
    ) -> subprocess.CompletedProcess[str]:
        """Run a tool and log its output. Raises SquentropyError with its error if it fails."""
        done = subprocess.run(
            [sys.executable, "-m", tool, *words],
            cwd=folder, stdin=subprocess.DEVNULL, capture_output=True,
            env=os.environ | {"PYTHONIOENCODING": "utf-8"}, encoding="utf-8", errors="replace",
        )  # fmt: skip
        log = Path("logs", self.name, "versions.log")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as file:
            file.write(f"$ {tool} {' '.join(words)}\n{done.stdout}{done.stderr}")
        if done.returncode:
            reason = reason_in(done.stdout + done.stderr)
            raise SquentropyError(f"{tool} {words[0]}: {reason} (more in {log})")
        return done


def _in_git(folder: str) -> bool:
    """Whether git tracks files in a folder, so that DVC does not."""
    words = ["git", "ls-files", "--", folder]
    return bool(subprocess.run(words, capture_output=True, check=False).stdout)


def _is_of_missing_files(change: dict[str, dict[str, str]] | str) -> bool:
    """Whether the only changes DVC reports are missing files that git does not track."""
    if not isinstance(change, dict) or change.keys() != {"changed deps"}:
        return False
    deps = change["changed deps"]
    return all(state == "deleted" and path not in SOURCES for path, state in deps.items())


MARKS = (
    r"squentropy: ",
    r"(?:[\d-]+ [\d:,]+ )?ERROR: (?:unexpected error - )?",
    r"(?=[\w.]*(?:Error|Exception)\b)",
)
"""Beginnings of error lines, in order of preference: ours, then DVC's, then Snakemake's."""


def reason_in(said: str) -> str:
    """The error in the output of a failed DVC or Snakemake, in one line."""
    for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        if os.strerror(number) in said:
            return storage.HINTS[number]
    for mark in MARKS:
        if found := re.search(rf"^{mark}(.+)((?:\n.*)*)", said, re.MULTILINE):
            first, more = found[1].strip(), [line.strip() for line in found[2].split("\n") if line]
            if first.startswith("Can't remove the following unsaved files"):
                files = list(dict.fromkeys(os.path.relpath(p) for p in more if os.path.isabs(p)))
                return f"{_first(files)} would be overwritten, but was never recorded; move it away"
            while first.endswith(":") and more:  # the details are on the next line
                first = f"{first} {more.pop(0)}"
            return first
    return "it failed without an error message"


def _first(names: list[str]) -> str:
    return f"{names[0]} and {len(names) - 1} more" if len(names) > 1 else names[0]


def _each(option: str, values) -> list[str]:
    return [word for value in values for word in (option, value)]
