"""Train whole studies on one GPU in one call: many small models at once.

    python benchmarks/gpu_studies.py ROOT --studies studies/long.yaml studies/long-again.yaml
    python benchmarks/gpu_studies.py ROOT --studies tiny.yaml --device cpu --processes 2

Reads ROOT/data/STUDY/tokens. Writes ROOT/checkpoints/STUDY as the study's own commands do, so they
find the runs after these are copied to another machine. Runs from this source tree without
installation, on a machine that has torch, numpy, pandas, pydantic, safetensors, PyYAML, psutil and
tqdm; it needs no network.

One small model leaves a GPU idle, so each job has its own process, and the processes share the GPU
through CUDA's MPS if the machine has it. The jobs:

- a loss's sweep, at once, and then the runs that refine it, each of which determines the next
- the final runs of up to --cells losses at once, for each seed and length, when these are tuned

A job that fails does not affect the others; a loss whose tuning fails gets no final runs. Each
job's output is in ROOT/logs/gpu. When the time is over, the runs save their states in ROOT/state,
and the same command resumes them. ROOT/logs/gpu/jobs.csv has a line per job. Iterations are those
of the runs that it finished, added over its cells; a resumed run counts as none.
"""

import argparse
import contextlib
import csv
import itertools
import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawValue
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(SOURCE / "src"))  # the package need not be installed

from squentropy.base.errors import Interrupted, SquentropyError  # noqa: E402
from squentropy.base.kinds import RunRecord  # noqa: E402
from squentropy.runs import records  # noqa: E402
from squentropy.study.catalogue import slug  # noqa: E402
from squentropy.study.grid import Cell  # noqa: E402
from squentropy.study.layout import refine_file  # noqa: E402
from squentropy.study.params import Study, load  # noqa: E402
from squentropy.tokens.token_files import TokenFolder  # noqa: E402

COLUMNS = ("call", "study", "job", "cells", "started", "ended", "iterations", "outcome")
GRACE = 40  # seconds in which processes may save their states
OUTCOMES = {0: "done", 130: "stopped", 143: "stopped", -signal.SIGTERM: "stopped"}


@dataclass(frozen=True)
class Job:
    """Work for one process: to tune a loss, or else to train cells at once."""

    root: Path
    study: Study
    loss: str = ""
    cells: tuple[Cell, ...] = ()

    @property
    def name(self) -> str:
        if self.loss:
            return f"tune-{slug(self.loss)}"
        first = self.cells[0]
        length = f"-iters{first.iterations}" if first.iterations else ""
        return f"{first.phase}-seed{first.seed}{length}-{slug(first.loss)}"

    @property
    def size(self) -> float:
        """Iterations; infinite for tuning, which others wait for."""
        of = (self.study.schedule(c.phase, c.iterations).max_iters for c in self.cells)
        return math.inf if self.loss else sum(of)

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints" / self.study.study

    @property
    def tokens(self) -> TokenFolder:
        return TokenFolder.open(self.root / "data" / self.study.study / "tokens")

    @property
    def log(self) -> Path:
        return logs(self.root) / f"{self.study.study}-{self.name}.log"


def logs(root: Path) -> Path:
    return root / "logs/gpu"


# --- in a job's process --------------------------------------------------------------------------


def work(job: Job, processes: int, iterations: Any) -> None:
    """Do a job; adds to the shared number of iterations."""
    with job.log.open("a", encoding="utf-8") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    # Runs record neither. A process that has just ended may still hold its claim on the GPU.
    own = {"runs_per_gpu": 2 * processes, "state_interval": 2000}
    study = job.study.model_copy(update={"train": job.study.train.model_copy(update=own)})
    try:
        for cell, trained in tune(job, study) if job.loss else train(job, study, job.cells):
            about = (job.checkpoints / cell.name / "provenance.json").read_text(encoding="utf-8")
            if trained.now and '"resumed": false' in about:
                iterations.value += trained.run["iterations"]
    except Interrupted as stopped:
        sys.exit(stopped.exit_code)


def train(job: Job, study: Study, cells: tuple[Cell, ...]) -> Iterator[tuple[Cell, Any]]:
    from squentropy.training.stacked import train_stacks

    return train_stacks(study, list(cells), job.tokens, job.checkpoints, job.root / "state")


def tune(job: Job, study: Study) -> Iterator[tuple[Cell, Any]]:
    """A loss's sweep and refinement, as `squentropy sweep` and `squentropy refine` do them."""
    from squentropy.training.run import train_run
    from squentropy.tuning.selection import refine_loss

    yield from train(job, study, tuple(c for c in study.sweep_cells() if c.loss == job.loss))
    tokens, refined = job.tokens, {}

    def refine(cell: Cell) -> RunRecord:
        folder = job.checkpoints / cell.name
        refined[cell] = train_run(study, cell, tokens, folder, job.root / "state")
        return refined[cell].run

    path = refine_file(job.checkpoints, job.loss)
    before = (path.read_bytes(), path.stat()) if path.exists() else None
    refine_loss(study, job.loss, job.checkpoints, refine)
    if before is not None and path.read_bytes() == before[0]:
        # Otherwise it would be newer than the final runs, and these would seem out of date.
        os.utime(path, ns=(before[1].st_atime_ns, before[1].st_mtime_ns))
    yield from refined.items()


# --- all jobs ------------------------------------------------------------------------------------


class Pool:
    """Runs jobs in up to `processes` processes; `until` is by time.monotonic."""

    def __init__(self, root: Path, processes: int, cells: int, until: float):
        self.root, self.processes, self.cells, self.until = root, processes, cells, until
        self.begun, self.call = time.monotonic(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self.waiting: list[Job] = []
        self.running: dict[int, tuple[BaseProcess, Job, float, Any]] = {}
        self.groups: list[tuple[Study, list[str], set[str]]] = []  # and the losses not yet tuned
        self.iterations, self.complete = 0, True

    @property
    def now(self) -> float:
        return round(time.monotonic() - self.begun, 1)

    def add(self, study: Study) -> None:
        """Add a study's jobs. Raises SquentropyError if its tokens are missing."""
        losses = study.sweep.losses
        self.waiting += [Job(self.root, study, loss=loss) for loss in losses]
        self.add_stacks(study, study.reported_cells())
        groups = math.ceil(len(losses) / self.cells)
        for group in (losses[start::groups] for start in range(groups)):
            self.groups.append((study, group, set(group)))

    def add_stacks(self, study: Study, cells: list[Cell]) -> None:
        """Add a job for each phase, seed and length of which runs are missing."""
        from squentropy.training.stacked import _is_there

        def alike(cell: Cell) -> tuple[str, int, int]:
            return cell.phase, cell.seed, cell.iterations or 0

        job = Job(self.root, study)
        tokens, checkpoints = job.tokens, job.checkpoints
        missing = [cell for cell in cells if not _is_there(study, cell, tokens, checkpoints)]
        for _, stack in itertools.groupby(sorted(missing, key=alike), alike):
            self.waiting.append(Job(self.root, study, cells=tuple(stack)))

    def run(self) -> None:
        logs(self.root).mkdir(parents=True, exist_ok=True)
        try:
            while (self.waiting or self.running) and time.monotonic() < self.until:
                while self.waiting and len(self.running) < self.processes:
                    job = max(self.waiting, key=lambda job: job.size)
                    self.waiting.remove(job)
                    self.start(job)
                for ended in wait(list(self.running), max(0.0, self.until - time.monotonic())):
                    self.end(ended)
        finally:
            for process, *_ in self.running.values():
                process.terminate()
            over = time.monotonic() + GRACE
            for ended, (process, *_) in list(self.running.items()):
                process.join(max(0.1, over - time.monotonic()))
                process.kill()
                self.end(ended)
        self.complete = self.complete and not self.waiting

    def start(self, job: Job) -> None:
        iterations = RawValue("q", 0)
        spawn = multiprocessing.get_context("spawn")
        process = spawn.Process(target=work, args=(job, self.processes, iterations), daemon=True)
        process.start()
        self.running[process.sentinel] = process, job, self.now, iterations

    def end(self, ended: int) -> None:
        process, job, started, iterations = self.running.pop(ended)
        process.join()
        how = OUTCOMES.get(process.exitcode, f"failed with exit code {process.exitcode}")
        done, name = iterations.value, f"{job.study.study} {job.name}"
        each = done / max(self.now - started, 0.1)
        self.iterations, self.complete = self.iterations + done, self.complete and how == "done"
        row = (self.call, job.study.study, job.name, len(job.cells) or None, started, self.now)
        file = logs(self.root) / "jobs.csv"
        rows = [*([] if file.exists() else [COLUMNS]), (*row, done, how)]
        with file.open("a", newline="", encoding="utf-8") as out:
            csv.writer(out, lineterminator="\n").writerows(rows)
        print(f"{self.now:6.1f} s  {name}: {how}, {done} iterations, {each:.0f} per second")
        if how.startswith("failed"):
            lines = job.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            print(f"          {lines[-1] if lines else 'no output'}; see {job.log}")
        if job.loss and how != "stopped":
            self.tuned(job, how == "done")

    def tuned(self, job: Job, well: bool) -> None:
        """Add the final runs of the loss's group if it was the last to be tuned."""
        for study, group, left in self.groups:
            if study.study == job.study.study and job.loss in left:
                left.remove(job.loss)
                if not well:
                    group.remove(job.loss)
                if not left:
                    files = {loss: refine_file(job.checkpoints, loss) for loss in group}
                    chosen = {loss: records.chosen_for(loss, files[loss]) for loss in group}
                    cells = study.final_cells(chosen) + study.length_cells(chosen)
                    self.add_stacks(study, [cell for cell in cells if cell.loss in chosen])


def has_gpu() -> bool:
    """Whether a new process can use CUDA."""
    probe = "import torch; torch.zeros(1).cuda()"
    return subprocess.run([sys.executable, "-c", probe], capture_output=True).returncode == 0


@contextlib.contextmanager
def shared_gpu() -> Iterator[None]:
    """Start CUDA's MPS if the machine has it and it works; without it, processes take turns."""
    control = shutil.which("nvidia-cuda-mps-control")
    with tempfile.TemporaryDirectory(prefix="mps") as folder:
        own = dict.fromkeys(("CUDA_MPS_PIPE_DIRECTORY", "CUDA_MPS_LOG_DIRECTORY"), folder)
        os.environ.update(own)
        started = control is not None and subprocess.run([control, "-d"]).returncode == 0
        works = started and has_gpu()
        try:
            print(f"MPS: {'works' if works else 'does not work' if control else 'is not there'}")
            if not works:
                for name in own:
                    del os.environ[name]
                if not has_gpu():
                    sys.exit("gpu_studies.py: torch sees no CUDA GPU; --device cpu rehearses")
            yield
        finally:
            if control is not None and started:
                stop = {"input": "quit\n", "text": True, "env": os.environ | own}
                subprocess.run([control], timeout=30, **stop)


def positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="folder with data, which gets checkpoints")
    parser.add_argument("--studies", type=Path, nargs="+", required=True, help="files of studies/")
    parser.add_argument("--processes", type=positive, default=16, help="at the same time")
    parser.add_argument("--cells", type=positive, default=4, help="most final runs trained at once")
    parser.add_argument("--minutes", type=float, default=9.0, help="after which the runs stop")
    parser.add_argument("--device", choices=("auto", "cpu"), default="auto")
    options = parser.parse_args()
    until = time.monotonic() + 60 * options.minutes
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # stop the jobs and MPS first
    sys.stdout.reconfigure(line_buffering=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    if options.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # not train.device, which runs record
    pool = Pool(options.root.resolve(), options.processes, options.cells, until)
    try:
        for path in options.studies:
            pool.add(load([SOURCE / "params.yaml", path]))
    except SquentropyError as error:
        sys.exit(f"gpu_studies.py: {error}")
    with contextlib.nullcontext() if options.device == "cpu" else shared_gpu():
        pool.run()
    each = pool.iterations / max(pool.now, 0.1)
    print(f"{pool.iterations} iterations over all cells in {pool.now} s: {each:.0f} per second")
    if not pool.complete:
        sys.exit("gpu_studies.py: not complete; the same command continues")


if __name__ == "__main__":
    main()
