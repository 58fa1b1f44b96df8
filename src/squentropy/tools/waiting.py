"""What is said to a person while a study runs: what has come, how much is left, and how long.

    sweep    mse   lr 0.004  dropout 0.1  2 layers  nll 2.54   31 of 135   6 min left

A job's seconds are those of study/work.py, corrected by what jobs have taken so far, its own
rule's before all. How far a job has come is read from its log, and a run's outcome from its
run.json; nothing is asked of the jobs themselves. Times are handed in, in seconds of any clock.
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
"""What a job that trains nothing has made, by its rule."""
TRAINING = (*PHASES, "grid")
TELLING = 0.05  # share of a job from which on its time tells how long the rest takes


@dataclass
class _Running:
    """A job that was started and has not ended."""

    rule: str
    loss: str
    log: Path | None
    since: float
    stale: object = None
    """What the log was when the job was started: of an earlier one."""
    runs: dict[str, Come] = field(default_factory=dict)
    """By name, as the log tells."""

    def look(self) -> list[str]:
        """Reads the log if it is another than it was; returns the runs that are over since."""
        if self.log is None or _signature(self.log) in (None, self.stale):
            return []
        self.stale = _signature(self.log)
        known, self.runs = self.runs, progress.of_log(self.log)
        before = {name for name, come in known.items() if come.over}
        return [name for name, come in self.runs.items() if come.over and name not in before]

    def done(self, trained: bool = False) -> float:
        """How many of its runs are done, in parts too; with `trained`, by this job."""
        return sum(come.done / come.of for come in self.runs.values() if come.now or not trained)

    def begun(self) -> int:
        """How many runs it has at least: one more than are over, before it has ended."""
        return len(self.runs) + all(come.over for come in self.runs.values())


class Waiting:
    """A study under way."""

    def __init__(self, study: Study, counts: Mapping[str, int], slots: int = 1, gpu: bool = False):
        """
        counts  how many jobs of each rule are to be run
        slots   how many jobs run at once at most
        """
        self.study, self.slots = study, max(slots, 1)
        self.jobs = work.jobs(study, gpu)
        if "grid" in counts:  # whose cells the rows then find
            self.jobs["sweep"] = work.Job(work.START)
        self.total = {rule: n for rule, n in counts.items() if rule in self.jobs}
        self.started: Counter[str] = Counter()
        self.running: dict[int, _Running] = {}
        self.ended: Counter[str] = Counter()
        self.taken: dict[str, tuple[float, float]] = {}
        """By rule: the seconds that jobs took, and those that they were thought to take."""
        self.found: list[int] = []
        """Of each loss that was refined, the number of its runs."""
        self.over: set[str] = set()
        """The runs that are, by name."""
        self.unseen = 0.0
        """How many more there are whose jobs' logs lie elsewhere."""

    def start(self, job: int, rule: str, of: Mapping[str, str], log: str, now: float) -> None:
        """A job was started; `of` are its wildcards."""
        if rule not in self.jobs:
            return
        path = Path(log) if log and rule in TRAINING else None
        stale = _signature(path) if path is not None else None
        self.running[job] = _Running(rule, of.get("loss", ""), path, now, stale)
        self.started[rule] += 1

    def look(self) -> list[str]:
        """The lines of the runs that are over since the last look."""
        return [self._line(name) for job in self.running.values() for name in self._look(job)]

    def _look(self, job: _Running) -> list[str]:
        over = job.look()
        self.over.update(over)
        return [name for name in over if job.runs[name].now]

    def end(self, job: int, now: float) -> list[str]:
        """The lines of what a job has made that has ended well."""
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
        """A job has failed: it is started again, or never will be."""
        failed = self.running.pop(job, None)
        if failed is not None:
            self.started[failed.rule] -= 1

    # --- how much -------------------------------------------------------------------------------

    @property
    def share(self) -> float:
        """How much of the work is done, 0 to 1, by what it was thought to take."""
        whole = sum(n * self.jobs[rule].seconds for rule, n in self.total.items())
        done = sum(n * self.jobs[rule].seconds for rule, n in self.ended.items())
        done += sum(self._share(job) * self.jobs[job.rule].seconds for job in self.running.values())
        return min(done / whole, 1.0) if whole else 1.0

    def counted(self) -> str:
        """How many runs are there of how many; these are not certain while losses are refined."""
        left = self.total.get("refine", 0) - len(self.found)
        runs = sum(n * self.jobs[rule].runs for rule, n in self.total.items() if rule != "refine")
        total = round(runs + sum(self.found) + max(left, 0) * self._refining)
        about = "about " if left > 0 else ""
        over = round(len(self.over) + self.unseen)
        return f"{over:,} of {about}{max(total, over):,}"

    @property
    def _refining(self) -> float:
        """Runs that refining one more loss takes."""
        return (self.jobs["refine"].runs + sum(self.found)) / (1 + len(self.found))

    def _share(self, job: _Running) -> float:
        """How much of a job is done."""
        runs = self.jobs[job.rule].runs
        if job.rule == "refine":
            runs = max(self._refining, job.begun())
        return min(job.done() / runs, 0.99) if job.runs and runs else 0.0

    def _worth(self, job: _Running, unknown: float) -> float:
        """What a job has done, as a share of what it was thought to do."""
        runs = self.jobs[job.rule].runs
        return job.done(trained=True) / runs if job.runs and runs else unknown

    # --- how long -------------------------------------------------------------------------------

    def seconds_left(self, now: float) -> float:
        """Until the study has ended: what is left, shared by the jobs that run at once; but the
        last jobs wait for one another, and no stage ends before its longest job."""
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
            return (1 - share) * whole
        return max(whole - (now - job.since), whole / 10)

    def _prices(self, now: float) -> dict[str, float]:
        """Seconds of a job of each rule, by what they were thought to take and have taken."""
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
        """A run that is over."""
        path = Path("checkpoints", self.study.study, name)
        try:
            return described(records.read_run(path))
        except SquentropyError:  # it lies in a storage elsewhere
            return name


def described(run: RunRecord) -> str:
    """A run in a line: what it trained, and what came of it."""
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
    """The last lines of a failed job's log, below its name."""
    try:
        lines = Path(log).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        return f"{log}: cannot be read: {error.strerror}"
    return "\n".join([f"{log} ends:", *lines[-5:]])


def _ratio(taken: Iterable[tuple[float, float]], before: float, weight: float) -> float:
    """Of seconds taken to those thought; near what it was `before`, where these are few beside
    `weight`."""
    seconds, thought = (sum(values) for values in zip(*taken, (weight * before, weight)))
    return seconds / thought


def _signature(path: Path) -> object:
    """What tells a file from an earlier one of its name; None where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size
