"""The output of `make study`, which replaces Snakemake's: `snakemake --logger squentropy`.

Snakemake finds this package by its name. A terminal shows lines and a bar below them, a log only
the lines. squentropy/tools/waiting.py writes them. The Snakefile passes the study and the message
for its end.
"""

import logging
import shutil
import sys
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TextIO

from snakemake.common import NOTHING_TO_BE_DONE_MSG
from snakemake_interface_logger_plugins.base import LogHandlerBase
from snakemake_interface_logger_plugins.common import LogEvent
from tqdm import tqdm

if TYPE_CHECKING:
    from squentropy.study.params import Study
    from squentropy.tools.waiting import Waiting

SILENCE = 60.0
"""Seconds without output after which a status line is added to a log."""
STOPPING = ("Will exit", "Terminating")  # beginnings of Snakemake's messages
SAID_ALREADY = (
    "CalledProcessError",
    "At least one job did not",
    "Exiting because a job",
    "Cannot restore",
    "--keep-incomplete",
)
"""Parts of Snakemake's messages that add nothing to the last lines of a failed job's log."""


class LogHandler(LogHandlerBase):
    """Handles Snakemake's log records one at a time."""

    def __post_init__(self) -> None:
        self.waiting: Waiting | None = None
        self.bar: tqdm | None = None
        self.study: Study | None = None
        self.ending: Callable[[], str] | None = None
        self.slots, self.gpu, self.stopping, self.width = 1, False, False, 0
        self.has_gpus = shutil.which("nvidia-smi") is not None
        self.spoke = time.monotonic()
        self.turn, self.over = threading.RLock(), threading.Event()
        if not self.common_settings.dryrun:
            if sys.stdout.isatty():
                self._draw(self.spoke)
            threading.Thread(target=self._watch, daemon=True).start()

    @property
    def writes_to_stream(self) -> bool:
        """If false, Snakemake writes its own output."""
        return not self.common_settings.dryrun

    writes_to_file = needs_rulegraph = False
    has_filter = has_formatter = True

    def emit(self, record: logging.LogRecord) -> None:
        try:
            with self.turn:
                if not self.over.is_set() and not self.common_settings.dryrun:
                    self._hear(record, getattr(record, "event", None), time.monotonic())
        except BrokenPipeError:  # the reader is gone, but the study continues
            self.over.set()
        except Exception:
            self.handleError(record)

    def close(self) -> None:
        with self.turn:
            self._end()
        super().close()

    def _end(self) -> None:
        self.over.set()
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    # --- Snakemake's records --------------------------------------------------------------------

    def _hear(self, record: logging.LogRecord, event: LogEvent | None, now: float) -> None:
        about, waiting = record.__dict__, self.waiting
        if "study" in about:
            self.study, self.ending = about["study"], about["ending"]
        elif "said" in about:
            self._say(record.getMessage())
        elif event is LogEvent.RESOURCES_INFO:
            self._have(about)
        elif event is LogEvent.RUN_INFO:
            self._begin(about["stats"], now)
        elif event is LogEvent.JOB_INFO and waiting:
            log = next(iter(about["log"]), "")
            waiting.start(about["jobid"], about["rule_name"], about["wildcards"], log, now)
        elif event is LogEvent.JOB_FINISHED and waiting:
            self._report(waiting, waiting.end(about["job_id"], now), now)
        elif event is LogEvent.JOB_ERROR:
            self._failed(about)
        elif record.levelno >= logging.WARNING:
            self._warn(record.getMessage())
        elif event is None:
            self._note(record.getMessage())

    def _have(self, about: dict[str, Any]) -> None:
        """Read how many jobs can run at once; Snakemake reports it before the jobs."""
        if self.study is None:
            return
        train = self.study.train
        if "cores" in about:
            self.slots = about["cores"] // (train.threads * train.processes)
        elif "nodes" in about:
            self.slots, self.has_gpus = about["nodes"], True  # trust the reported GPUs
        elif self.has_gpus and train.device != "cpu" and "provided_resources" in about:
            gpus = about["provided_resources"].get("gpu")
            if gpus is not None and gpus.value:
                self.slots, self.gpu = gpus.value // train.processes, True

    def _begin(self, counts: dict[str, int], now: float) -> None:
        if self.study is not None:
            from squentropy.tools.waiting import Waiting

            self.waiting = Waiting(self.study, counts, self.slots, self.gpu)
            self._report(self.waiting, [f"{counts['total']:,} jobs are to be done"], now)

    def _failed(self, about: dict[str, Any]) -> None:
        from squentropy.tools.waiting import ends

        if self.waiting is not None:
            self.waiting.fail(about["jobid"])
        for log in about["log"]:
            self._say(f"\n{ends(log)}\n", sys.stderr)

    def _warn(self, message: str) -> None:
        if not any(part in message for part in SAID_ALREADY):
            self._say(message, sys.stderr)

    def _note(self, message: str) -> None:
        if message == NOTHING_TO_BE_DONE_MSG:
            self._end()
            self._say(message)
            self._say(self.ending() if self.ending else "")
        elif message.startswith(STOPPING) and not self.stopping:
            self.stopping = True
            self._say("Stopping: each run saves its state first, and resumes from it next time.")

    # --- output ---------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Once a second, update the bar and print finished runs of jobs that are still running."""
        terminal = sys.stdout.isatty()
        while not self.over.wait(1.0):
            with self.turn:
                if self.over.is_set():
                    return
                now = time.monotonic()
                if self.waiting is not None:
                    self._report(self.waiting, self.waiting.look(), now)
                if terminal:
                    self._draw(now)
                elif self.waiting is not None and now - self.spoke >= SILENCE:
                    self._say(self.waiting.status(now))

    def _draw(self, now: float) -> None:
        if self.bar is None:
            shape = "{bar:24} {desc}"
            self.bar = tqdm(
                total=1.0, bar_format=shape, leave=False, file=sys.stdout, dynamic_ncols=True
            )
        if self.waiting is None:
            self.bar.set_description_str("finding out what is to be done")
        else:
            self.bar.n = max(self.bar.n, self.waiting.share)
            self.bar.set_description_str(f"{self.bar.n:.0%}   {self.waiting.status(now)}")

    def _report(self, waiting: "Waiting", lines: list[str], now: float) -> None:
        for line in lines:
            self.width = max(self.width, len(line))
            self._say(f"{line:<{self.width}}   {waiting.status(now)}")

    def _say(self, text: str, stream: TextIO | None = None) -> None:
        if text:
            self.spoke = time.monotonic()
            tqdm.write(text, file=stream or sys.stdout)
            (stream or sys.stdout).flush()
