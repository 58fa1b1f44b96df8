"""The lines printed while a study runs: what has finished, and how much work and time is left.

    sweep    mse   lr 0.004  dropout 0.1  2 layers  nll 2.54   31 of 135   6 min left

Estimates of a job's seconds come from study/work.py and are corrected by the time that jobs have
taken so far, above all jobs of the same rule. A job's progress is read from its log, and a run's
outcome from its run.json, so jobs need not report anything. Callers pass times, in seconds of any
clock.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from squentropy.base import progress
from squentropy.base.errors import SquentropyError
from squentropy.base.kinds import RunRecord
from squentropy.base.progress import Come
from squentropy.runs import records
from squentropy.study import work
from squentropy.study.catalogue import PHASES
from squentropy.study.grid import GRID_KEYS
from squentropy.study.params import Study

PARTS = {
    "corpus": "corpus",
    "tokens": "tokens",
    "select": "selected",
    "evaluate_final": "scores",
    "evaluate_reported": "scores",
    "sample_final": "stories",
    "sample_reported": "stories",
    "voices": "models",
    "metrics": "tables",
    "draw": "figures",
    "page": "report",
}
"""What a job without training makes, by rule."""
TRAINING = (*PHASES, "grid")
TELLING = 0.05  # share of a job after which its time predicts how long the rest takes


@dataclass
class _Running:
    """A job that has started and not ended."""

    rule: str
    loss: str
    log: Path | None
    since: float
    stale: object = None
    """Signature of the log as last seen; at the job's start, that of an earlier job's log."""
    runs: dict[str, Come] = field(default_factory=dict)
    """By name, from the log."""

    def look(self) -> list[str]:
        """Read the log if it has changed; returns the runs that have ended since."""
        if self.log is None or _signature(self.log) in (None, self.stale):
            return []
        self.stale = _signature(self.log)
        known, self.runs = self.runs, progress.of_log(self.log)
        before = {name for name, come in known.items() if come.over}
        return [name for name, come in self.runs.items() if come.over and name not in before]

    def done(self) -> float:
        """Runs done, including fractions."""
        return sum(come.done / come.of for come in self.runs.values())

    def trained(self) -> float:
        """Runs trained by this job, including fractions."""
        return sum(come.trained for come in self.runs.values())

    def begun(self) -> int:
        """Minimum number of its runs: if all known ones are over, there is one more to come."""
        return len(self.runs) + all(come.over for come in self.runs.values())


class Waiting:
    """The progress of a running study."""

    def __init__(self, study: Study, counts: Mapping[str, int], slots: int = 1, gpu: bool = False):
        """
        counts  number of jobs to run, by rule
        slots   maximum number of concurrent jobs
        """
        self.study, self.slots = study, max(slots, 1)
        self.jobs = work.jobs(study, gpu)
        if "grid" in counts:  # it trains the cells, so the rows find them finished
            self.jobs["sweep"] = work.Job(work.START)
        self.total = {rule: n for rule, n in counts.items() if rule in self.jobs}
        self.started: Counter[str] = Counter()
        self.running: dict[int, _Running] = {}
        self.ended: Counter[str] = Counter()
        self.taken: dict[str, tuple[float, float]] = {}
        """By rule: the seconds that jobs took, and those that were estimated."""
        self.found: list[int] = []
        """Number of refining runs of each loss that has been refined."""
        self.over: set[str] = set()
        """Names of the runs that have ended."""
        self.unseen = 0.0
        """Number of further runs that have ended, whose jobs' logs are not accessible."""

    def start(self, job: int, rule: str, of: Mapping[str, str], log: str, now: float) -> None:
        """Record that a job has started; `of` contains its wildcards."""
        if rule not in self.jobs:
            return
        path = Path(log) if log and rule in TRAINING else None
        stale = _signature(path) if path is not None else None
        self.running[job] = _Running(rule, of.get("loss", ""), path, now, stale)
        self.started[rule] += 1

    def look(self) -> list[str]:
        """Lines for the runs that have ended since the last call."""
        return [self._line(name) for job in self.running.values() for name in self._look(job)]

    def _look(self, job: _Running) -> list[str]:
        over = job.look()
        self.over.update(over)
        return [name for name in over if job.runs[name].now]

    def end(self, job: int, now: float) -> list[str]:
        """Record that a job has succeeded; returns the lines for its results."""
        ended = self.running.pop(job, None)
        if ended is None:
            return []
        lines = [self._line(name) for name in self._look(ended)]
        trains = ended.rule in TRAINING
        if trains and not ended.runs:
            self.unseen += self.jobs[ended.rule].runs
        if ended.rule == "refine" and ended.runs:
            self.found.append(len(ended.runs))
        if (worth := self._worth(ended, 1.0)) >= TELLING:
            self.taken[ended.rule] = self._added(self.taken, ended, worth, now)
        self.ended[ended.rule] += 1
        if not ended.runs:
            made = ended.rule if trains else PARTS[ended.rule]
            lines.append(f"{made:<8}  {ended.loss}".rstrip())
        return lines

    def fail(self, job: int) -> None:
        """Record that a job has failed; it may be started again."""
        failed = self.running.pop(job, None)
        if failed is not None:
            self.started[failed.rule] -= 1

    # --- how much -------------------------------------------------------------------------------

    @property
    def share(self) -> float:
        """Share of the estimated work that is done, 0 to 1."""
        whole = sum(n * self.jobs[rule].seconds for rule, n in self.total.items())
        done = sum(n * self.jobs[rule].seconds for rule, n in self.ended.items())
        done += sum(self._share(job) * self.jobs[job.rule].seconds for job in self.running.values())
        return min(done / whole, 1.0) if whole else 1.0

    def counted(self) -> str:
        """Number of finished runs and of all runs; the total is uncertain during refining."""
        left = self.total.get("refine", 0) - len(self.found)
        runs = sum(n * self.jobs[rule].runs for rule, n in self.total.items() if rule != "refine")
        total = round(runs + sum(self.found) + max(left, 0) * self._refining)
        about = "about " if left > 0 else ""
        over = round(len(self.over) + self.unseen)
        return f"{over:,} of {about}{max(total, over):,}"

    @property
    def _refining(self) -> float:
        """Expected number of runs for refining another loss."""
        return (self.jobs["refine"].runs + sum(self.found)) / (1 + len(self.found))

    def _share(self, job: _Running) -> float:
        """Share of a job that is done."""
        runs = self.jobs[job.rule].runs
        if job.rule == "refine":
            runs = max(self._refining, job.begun())
        return min(job.done() / runs, 0.99) if job.runs and runs else 0.0

    def _worth(self, job: _Running, unknown: float) -> float:
        """Runs that a job has trained, as a share of the estimated number."""
        runs = self.jobs[job.rule].runs
        return job.trained() / runs if job.runs and runs else unknown

    # --- how long -------------------------------------------------------------------------------

    def seconds_left(self, now: float) -> float:
        """Estimated seconds until the study ends.

        Remaining work is divided among the concurrent jobs, except that the last jobs run one after
        the other, and that no stage ends before its longest job.
        """
        price = self._prices(now)
        each: dict[str, list[float]] = {rule: [] for rule in self.jobs}
        for job in self.running.values():
            each[job.rule].append(self._left(job, price[job.rule], now))
        for rule, n in self.total.items():
            each[rule] += [price[rule]] * (n - self.started[rule])
        everything = sum(map(sum, each.values()))
        last = sum(sum(each[rule]) for rule in work.LEFT_LAST)
        longest = sum(
            max((seconds for rule in stage for seconds in each[rule]), default=0.0)
            for stage in work.STAGES
        )
        return max(longest, (everything + (self.slots - 1) * last) / self.slots)

    def _left(self, job: _Running, whole: float, now: float) -> float:
        if share := self._share(job):
            # The further a job is, the more its own pace counts.
            worth = min(self._worth(job, 0.0), 1.0)
            return (1 - share) * ((1 - worth) * whole + (now - job.since) * (worth > 0))
        return max(whole - (now - job.since), whole / 10)

    def _prices(self, now: float) -> dict[str, float]:
        """Estimated seconds per job of each rule, corrected by the time that jobs have taken."""
        taken = dict(self.taken)
        for job in self.running.values():
            if (worth := self._worth(job, 0.0)) >= TELLING:
                taken[job.rule] = self._added(taken, job, worth, now)
        pace = _ratio([both for rule, both in taken.items() if rule not in work.FIXED], 1.0, 4.0)
        prices = {}
        for rule, each in self.jobs.items():
            before = 1.0 if rule in work.FIXED else pace
            own = [taken[rule]] if rule in taken else []
            prices[rule] = each.seconds * _ratio(own, before, each.seconds / 2)
        prices["refine"] *= self._refining / self.jobs["refine"].runs
        return prices

    def _added(
        self, taken: Mapping[str, tuple[float, float]], job: _Running, worth: float, now: float
    ) -> tuple[float, float]:
        seconds, thought = taken.get(job.rule, (0.0, 0.0))
        return seconds + now - job.since, thought + worth * self.jobs[job.rule].seconds

    # --- in words -------------------------------------------------------------------------------

    def status(self, now: float) -> str:
        counted, left = self.counted(), progress.left(self.seconds_left(now))
        return f"{left} left" if counted == "0 of 0" else f"{counted}   {left} left"

    def _line(self, name: str) -> str:
        """The line for a run that has ended."""
        path = Path("checkpoints", self.study.study, name)
        try:
            return described(records.read_run(path))
        except SquentropyError:  # its files are in remote storage
            return name


def described(run: RunRecord) -> str:
    """A run in one line: its cell and its outcome."""
    cell: dict[str, Any] = dict(run["cell"])
    tuned, layers = cell["phase"] in ("sweep", "refine"), cell["n_layer"]
    said = [f"{key} {cell[key]:g}" for key in GRID_KEYS if key != "n_layer"]
    said.append(f"{layers} layer{'s' * (layers != 1)}")
    said += [f"{run['iterations']:,} iterations"] if cell["phase"] == "lengths" else []
    said += [] if tuned else [f"seed {cell['seed']}"]
    nll = run["validation_nll"]
    said.append("diverged" if nll is None else f"nll {nll:.2f}")
    return "  ".join([f"{cell['phase']:<8}", cell["loss"], *said])


def ends(log: str | Path) -> str:
    """The name of a failed job's log, followed by its last lines."""
    try:
        lines = Path(log).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return f"{log}: cannot be read: {error.strerror}"
    return "\n".join([f"{log} ends:", *lines[-5:]])


def _ratio(taken: Iterable[tuple[float, float]], before: float, weight: float) -> float:
    """Ratio of seconds taken to seconds estimated, shrunk towards `before` with `weight`."""
    seconds, thought = (sum(values) for values in zip(*taken, (weight * before, weight)))
    return seconds / thought


def _signature(path: Path) -> object:
    """Identifies a version of a file by its time and size; None if it does not exist."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size
