"""The output while a study runs: its progress and the time left.

pytest tests/tools/test_waiting.py
"""

import csv
import itertools
from collections import Counter
from pathlib import Path

import pytest

from squentropy.base import progress
from squentropy.runs import records
from squentropy.study.overlays import overlay
from squentropy.study.params import Study, load, parse
from squentropy.tools.waiting import Waiting, described, ends

ROOT = Path(__file__).resolve().parents[2]
AS_IT_WAS = {  # at the recording of "disturbed" in tests/golden/timelines.csv
    "refine": {"max_iters": 425},
    "final": {"max_iters": 1700, "lengths": [425, 850]},
}
STUDIES = {
    "default": (["params.yaml"], {}),
    "disturbed": (["params.yaml"], AS_IT_WAS),  # by other programs on the machine
    "smoke": (["params.yaml", "studies/smoke.yaml"], {}),
    "quick": (["params.yaml", "studies/stories.yaml", "studies/quick.yaml"], {}),
}


def recorded(name: str) -> tuple[Study, list[dict]]:
    """A study recorded on two cores, and its jobs: start, end and number of runs."""
    paths, changes = STUDIES[name]
    study = parse(overlay(load(ROOT / path for path in paths).model_dump(), changes))
    with (ROOT / "tests/golden/timelines.csv").open(encoding="utf-8") as file:
        jobs = [row for row in csv.DictReader(file) if row["study"] == name]
    for number, job in enumerate(jobs):
        job |= {"id": number, "start": float(job["start"]), "runs": int(job["runs"])}
        job["end"] = job["start"] + float(job["seconds"])
    return study, jobs


def write_log(folder: Path, job: dict, now: float) -> Path:
    """Write a job's log as it is at `now`, with one run after the other."""
    log = folder / f"{job['id']}.log"
    done = min((now - job["start"]) / (job["end"] - job["start"]), 1.0) * job["runs"]
    name = f"{job['rule']}/{job['of']}"
    lines = [f"{name}/{k}: 400 iterations, validation nll 2.5" for k in range(int(done))]
    if (part := round(done % 1 * 400)) and int(done) < job["runs"]:
        lines.append(f"{name}/{int(done)}: {part} of 400 iterations, loss 3.1, 00:05 left")
    log.write_text("".join(f"{line}\n" for line in lines))
    return log


def replay(study: Study, jobs: list[dict], folder: Path, step: float):
    """Replay a study: (seconds since its start, Waiting) at each step."""
    waiting = Waiting(study, Counter(job["rule"] for job in jobs), slots=2)
    events = [(job["start"], 1, job) for job in jobs] + [(job["end"], 0, job) for job in jobs]
    events.sort(key=lambda event: event[:2])
    running: dict[int, dict] = {}
    for now in itertools.count(0.0, step):
        while events and events[0][0] <= now:
            at, starts, job = events.pop(0)
            if starts:
                loss, log = job["of"].split("/")[0], str(folder / f"{job['id']}.log")
                waiting.start(job["id"], job["rule"], {"loss": loss}, log, at)
                running[job["id"]] = job
            else:
                write_log(folder, running.pop(job["id"]), at)
                waiting.end(job["id"], at)
        if not events:
            return
        for job in running.values():
            if job["runs"] and now - job["start"] > 10:
                write_log(folder, job, now)
        waiting.look()
        yield now, waiting


@pytest.mark.parametrize("name", STUDIES)
def test_from_a_quarter_on_the_studys_end_is_foreseen(name, tmp_path):
    study, jobs = recorded(name)
    whole = max(job["end"] for job in jobs)
    share = 0.0
    for now, waiting in replay(study, jobs, tmp_path, whole / 100):
        left, said = whole - now, waiting.seconds_left(now)
        if now >= whole / 4:
            assert said == pytest.approx(left, abs=0.2 * whole)
            if name == "default":
                assert said == pytest.approx(left, rel=0.2, abs=5)
        assert share <= waiting.share <= 1 or waiting.running
        share = waiting.share
    runs = sum(job["runs"] for job in jobs)
    assert waiting.counted() == f"{runs} of {runs}"


def test_a_time_that_is_left_is_rounded_by_little():
    units = {"s": 1, "min": 60, "h": 3600}
    for seconds in range(30, 40_000):
        number, unit = progress.left(seconds).split()
        assert float(number) * units[unit] == pytest.approx(seconds, rel=0.15)


def test_before_any_job_has_ended_there_is_an_estimate(tiny_study):
    study = tiny_study()
    waiting = Waiting(study, {"sweep": 9, "refine": 3, "final": 6, "all": 1}, slots=2)
    assert waiting.seconds_left(0.0) > 0
    assert waiting.counted() == "0 of about 24"  # 9 cells, 3 x 3, 6
    faster = Waiting(study, waiting.total, slots=6)
    assert faster.seconds_left(0.0) < waiting.seconds_left(0.0)


def test_where_the_whole_grid_is_one_job_its_cells_count_once(tiny_study, tmp_path):
    waiting = Waiting(tiny_study(), {"grid": 1, "sweep": 9}, slots=2)
    assert waiting.counted() == "0 of 9"
    logs = [tmp_path / "whole.log", tmp_path / "row.log"]
    for job, (rule, log, said) in enumerate(
        [("grid", logs[0], "6 iterations, validation nll 5.0"), ("sweep", logs[1], "already there")]
    ):
        waiting.start(job, rule, {}, str(log), 0.0)
        log.write_text("".join(f"sweep/mse/lr{k}/x: {said}\n" for k in range(9)))
        waiting.end(job, 5.0)
        assert waiting.counted() == "9 of 9"


@pytest.fixture
def sweep(tiny_study, tmp_path):
    """sweep(text): a sweep job, whose log contained `text` at its start, and the log."""

    def begin(text: str) -> tuple[Waiting, Path]:
        log = tmp_path / "job.log"
        log.write_text(text)
        waiting = Waiting(tiny_study(), {"sweep": 2})
        waiting.start(1, "sweep", {"loss": "mse", "lr": "0.01"}, str(log), 0.0)
        return waiting, log

    return begin


def test_a_run_that_is_over_is_a_line_with_what_came_of_it(sweep, whole_study):
    waiting, log = sweep("")
    name = "sweep/mse/lr0.01/dropout0.1_layers1"
    log.write_text(f"{name}: 3 of 6 iterations, loss 5.000, 00:01 left\n")
    assert waiting.look() == []
    assert 0 < waiting.share < 0.5
    log.write_text(log.read_text() + f"{name}: 6 iterations, validation nll 5.0\n")
    run = records.read_run(Path("checkpoints/tiny", name))
    line = f"sweep     mse  lr 0.01  dropout 0.1  1 layer  nll {run['validation_nll']:.2f}"
    assert waiting.look() == [line] == [described(run)]
    assert waiting.look() == waiting.end(1, 9.0) == []
    assert waiting.counted() == "1 of 2"
    assert waiting.share == 0.5


def test_what_an_earlier_job_has_left_in_a_log_is_not_this_ones(sweep):
    waiting, log = sweep("sweep/mse/lr0.01/dropout0.1_layers1: 6 iterations, validation nll 5.0\n")
    assert waiting.look() == []
    assert waiting.share == 0
    log.write_text("sweep/mse/lr0.01/dropout0.1_layers1: already there\n")
    assert waiting.look() == []  # not reported, but counted
    assert waiting.counted() == "1 of 2"


def test_runs_that_were_there_do_not_tell_how_long_others_take(sweep):
    waiting, log = sweep("")
    before = waiting.seconds_left(0.0)
    log.write_text("sweep/mse/lr0.01/dropout0.1_layers1: already there\n")
    waiting.end(1, 1.0)
    assert waiting.seconds_left(1.0) == pytest.approx(before / 2, rel=0.2)


def test_what_a_run_was_resumed_from_does_not_tell_how_fast_it_is(sweep, capsys):
    """A job that begins with half of a run and has three quarters of it 10 seconds later."""
    waiting, log = sweep("")
    name = "sweep/mse/lr0.01/dropout0.1_layers1"
    for _ in progress.bar(range(300, 450), name, "iterations"):
        pass
    resumed = capsys.readouterr().err.splitlines()[0]
    assert resumed == f"{name}: 300 of 450 iterations, resumed"
    resumed = resumed.replace("of 450", "of 600")
    log.write_text(f"{resumed}\n{name}: 450 of 600 iterations, loss 5.0, 00:10 left\n")
    waiting.look()
    come = progress.of_log(log)[name]
    assert (come.done, come.before, come.trained) == (450, 300, 0.25)
    resumed_left = waiting.seconds_left(10.0)
    log.write_text(f"{name}: 450 of 600 iterations, loss 5.0, 00:10 left\n")
    waiting.look()
    assert resumed_left > 1.5 * waiting.seconds_left(10.0)  # as if all of it were this job's


def test_a_failed_job_is_still_to_be_done_and_its_logs_end_is_said(sweep):
    waiting, log = sweep("")
    before = waiting.seconds_left(0.0)
    waiting.fail(1)
    assert waiting.seconds_left(5.0) == before
    log.write_text("1\n2\n3\n4\n5\nsquentropy: the disk is full\n")
    assert ends(log) == f"{log} ends:\n2\n3\n4\n5\nsquentropy: the disk is full"
    assert ends("no.log") == "no.log: cannot be read: No such file or directory"
