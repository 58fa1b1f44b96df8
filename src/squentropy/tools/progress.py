"""A study's progress, from the files on disk. Fast, because large files are not hashed.

checkpoints/STUDY/RUN                run.json, once the run is trained
state/STUDY/RUN                      exists until then, with the last saved state
logs/STUDY/JOB.log                   the iterations of a job's runs, every ten seconds
logs/STUDY/failed                    the logs of the jobs that failed since the last start
.snakemake/squentropy/STUDY.lock     who is running the study
"""

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors

from squentropy.base import progress as shown
from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.runs import records
from squentropy.study import digests, lock
from squentropy.study.catalogue import slug
from squentropy.study.grid import Cell
from squentropy.study.layout import Places, refine_file
from squentropy.study.params import PHASES, Study
from squentropy.tools import tracking

MadeFrom = Callable[[Study, Path, records.OfLoss], records.Origin]

OVER = ("done", "diverged")
STATES = (*OVER, "running", "unfinished", "failed", "outdated", "waiting")


@dataclass(frozen=True)
class Run:
    """A run of the study, which may not exist yet."""

    name: str
    """Its folder below checkpoints/STUDY."""
    phase: str
    loss: str
    lr: float | None
    """None until it is selected."""
    state: str
    """One of STATES."""
    iterations: int = 0
    """Iterations done; for an unfinished run, those in its last state or log line."""
    last_loss: float | None = None
    nll: float | None = None
    """Validation nll in nats per token, under the probabilities that the loss is trained for."""
    note: str = ""
    """Why the run is outdated, or what is wrong with its state, in one line."""


@dataclass(frozen=True)
class Step:
    """A step of the study: how many of its folders, runs or files exist."""

    name: str
    done: int
    of: int


@dataclass(frozen=True)
class Progress:
    holder: str | None
    """Who is running the study now; None if it is not running."""
    runs: list[Run]
    steps: list[Step]
    failed: dict[Path, str]
    """The log of each failed job whose runs are still missing, with its last line."""

    def of(self, state: str) -> list[Run]:
        return [run for run in self.runs if run.state == state]

    @property
    def begun(self) -> bool:
        """Whether any run exists, in any state."""
        return any(run.state != "waiting" for run in self.runs)


def progress(study: Study, places: Places) -> Progress:
    """A study's progress. Damaged files are reported as notes and never raise an error."""
    holder = lock.holder(places.lock)
    logs = _failed_logs(places)
    runs = list(_runs(study, places, holder is not None, logs))
    failed = {}
    for job, (log, line) in logs.items():
        concerned = [run for run in runs if _is_of(job, run.name)]
        if not concerned or any(run.state == "failed" for run in concerned):
            failed[log] = line
    return Progress(holder, runs, list(_steps(study, places, runs)), failed)


def _runs(study: Study, places: Places, running: bool, failed: Iterable[str]) -> Iterator[Run]:
    logged = _logged(places, failed) if running else {}
    trained_by = functools.cache(lambda loss: digests.by_module("training", loss=loss))
    for name, phase, loss, cell in _expected(study, places):
        length = cell.iterations if cell is not None else None
        origin = {"params": study.training_keys(phase, length), "code": trained_by(loss)}
        if cell is not None:
            origin["cell"] = asdict(cell)
        known = _finished(places, name, origin)
        if known["state"] not in OVER:
            known |= _unfinished(places, name, origin, running) | logged.get(name, {})
        if known["state"] not in (*OVER, "running") and any(_is_of(job, name) for job in failed):
            known["state"] = "failed"
        yield Run(name, phase, loss, cell.lr if cell is not None else None, **known)


def _expected(study: Study, places: Places) -> Iterator[tuple[str, str, str, Cell | None]]:
    """Every run of the study: its name, phase and loss, and its cell if that is known."""
    chosen = {}
    for loss in study.sweep.losses:
        with contextlib.suppress(SquentropyError):
            chosen[loss] = records.chosen_for(loss, places.results / "selected.json")
    for cell in study.sweep_cells():
        yield cell.name, "sweep", cell.loss, cell
    for loss in study.sweep.losses:
        for name in _refining(places, loss):
            yield name, "refine", loss, None
    for cell in [*study.length_cells(chosen), *study.final_cells(chosen)]:
        yield cell.name, cell.phase, cell.loss, cell if cell.loss in chosen else None
    for cell in study.reported_cells():
        yield cell.name, "reported", cell.loss, cell


def _refining(places: Places, loss: str) -> list[str]:
    """A loss's refining runs that exist or have begun; the parameters do not list them."""
    folder = Path("refine", slug(loss))
    kinds = [places.of(kind) / folder for kind in ("checkpoints", "state")]
    names = {
        path.name for kind in kinds if kind.is_dir() for path in kind.iterdir() if path.is_dir()
    }
    return [(folder / name).as_posix() for name in sorted(names)]


def _finished(places: Places, name: str, origin: records.Origin) -> dict[str, Any]:
    """Fields of Run, from the run's folder."""
    path = places.of("checkpoints") / name / "run.json"
    if not path.exists():
        return {"state": "waiting"}
    try:
        run = records.made_from(path, origin)
    except SquentropyError as error:
        return {"state": "outdated", "note": str(error)}
    return {
        "state": "diverged" if run["status"] == "diverged" else "done",
        "iterations": run["iterations"],
        "last_loss": run["train_loss"],
        "nll": run["validation_nll"],
    }


def _unfinished(places: Places, name: str, origin: records.Origin, running: bool) -> dict[str, Any]:
    """Fields of Run for a run that has begun; its state folder exists before its first state.

    The run counts as running if the study is running and the folder changed after the study's
    start.
    """
    folder = places.of("state") / name
    if not folder.is_dir():
        return {}
    try:
        changed = max(path.stat().st_mtime for path in [folder, *folder.glob("*.safetensors")])
        now = running and changed >= places.lock.stat().st_mtime
    except FileNotFoundError:  # it has just ended
        now = running
    found: dict[str, Any] = {"state": "running" if now else "unfinished"}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            state = tracking.saved(path)
            mine = all(state["origin"].get(key) == value for key, value in origin.items())
        except FileNotFoundError:
            continue
        except SquentropyError as error:
            found["note"] = f"{error}; it is not used"
            continue
        except (safetensors.SafetensorError, KeyError, TypeError, ValueError, OSError):
            found["note"] = f"{path}: is damaged, so it is not used; delete it"
            continue
        if mine and state["losses"]:
            found |= {"iterations": len(state["losses"]), "last_loss": state["losses"][-1]}
    return found


def _logged(places: Places, failed: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Fields of Run for each running run in the logs of jobs since the study's start."""
    logs, found = places.of("logs"), {}
    for phase in PHASES:
        for log in (logs / phase).rglob("*.log"):
            job = log.relative_to(logs).as_posix().removesuffix(".log")
            with contextlib.suppress(FileNotFoundError):
                if job not in failed and log.stat().st_mtime >= places.lock.stat().st_mtime:
                    for name, come in shown.of_log(log).items():
                        if not come.over:
                            found[name] = {"state": "running", "iterations": come.done}
    return found


def _failed_logs(places: Places) -> dict[str, tuple[Path, str]]:
    """The jobs in logs/STUDY/failed, each with its log and the log's last line."""
    logs, found = places.of("logs"), {}
    if (logs / "failed").is_file():
        for line in (logs / "failed").read_text(encoding="utf-8", errors="replace").splitlines():
            path = places.root / line
            if path.is_relative_to(logs):
                job = path.relative_to(logs).as_posix().removesuffix(".log")
                found[job] = (path, _last_line(path))
    return found


def _last_line(path: Path) -> str:
    try:
        lines = storage.plain(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except SquentropyError as error:
        return str(error)
    return next((line.strip() for line in reversed(lines) if line.strip()), "is empty")


def _is_of(job: str, run: str) -> bool:
    """Whether a job trains a run; a job for a row of the grid trains several."""
    return run == job or run.startswith(f"{job}/")


def _steps(study: Study, places: Places, runs: list[Run]) -> Iterator[Step]:
    for name in ("corpus", "tokens"):
        yield Step(name, int((places.of("data") / name / "manifest.json").exists()), 1)
    for phase in PHASES:
        mine = [run for run in runs if run.phase == phase]
        if phase == "refine":
            losses = study.sweep.losses
            there = [refine_file(places.of("checkpoints"), loss).exists() for loss in losses]
            yield Step(phase, sum(there), len(losses))
        elif mine:
            yield Step(phase, sum(run.state in OVER for run in mine), len(mine))
    for step, name, made_from, phases in (
        ("scores", "test.json", records.scored_from, ("lengths", "final", "reported")),
        ("stories", "samples.json", records.told_from, ("final", "reported")),
    ):
        mine = [run for run in runs if run.phase in phases]
        made = [_is_made(study, places, run, name, made_from) for run in mine]
        yield Step(step, sum(made), len(mine))
    yield Step("tables", int((places.results / "manifest.json").exists()), 1)
    yield Step("report", int((places.of("report") / "index.html").exists()), 1)


def _is_made(study: Study, places: Places, run: Run, name: str, made_from: MadeFrom) -> bool:
    folder = places.of("checkpoints") / run.name
    if run.state not in OVER or not (folder / name).exists():
        return False
    expected = made_from(study, folder, {"cell": {"loss": run.loss}})
    return not records.why_remake(folder / name, expected)
