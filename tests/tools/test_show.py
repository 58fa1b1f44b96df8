"""`squentropy show` reports, in every phase of a study, what exists, runs, waits or failed.

pytest tests/tools/test_show.py
"""

import io
import os
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import fake_results
import pandas as pd
import pytest
from rich.console import Console

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.runs import records
from squentropy.study import digests, lock
from squentropy.study.find import find
from squentropy.study.layout import Places
from squentropy.tools import show
from squentropy.tools.progress import STATES, progress
from squentropy.training.resume import Progress, StateFile

FINAL = Path("checkpoints/tiny/final/mse/seed1")
ROW = "sweep/mse/lr0.01"
SWEPT = Path("checkpoints/tiny", ROW, "dropout0.1_layers1")
GRID = "The grid: lowest validation nll of 1 cells each"
PLACES = Places(Path("results/tiny"))


@pytest.fixture
def shown(whole_study, tiny_study):
    """shown(width=None, **changes): the output; with a width, that to a terminal."""

    def shown(width: int | None = None, **changes) -> str:
        file = io.StringIO()
        console = Console(
            file=file, force_terminal=width is not None, width=width, highlight=False,
            color_system="standard" if width else None,
        )  # fmt: skip
        show.print_page(show.page(tiny_study(**changes), PLACES), console)
        return file.getvalue()

    return shown


@pytest.fixture
def begun(whole_study, tiny_study):
    """begun(folder, losses): replaces a finished run with a saved training state; its path."""

    def begun(folder: Path, losses: list[float]) -> Path:
        run = records.read_run(folder)
        shutil.rmtree(folder)
        origin = {key: run[key] for key in ("cell", "params", "code")} | {"device": "cpu"}
        name = "/".join(("tiny", *folder.parts[2:]))
        state = StateFile(Path("state"), name, origin)
        state.save(Progress(losses, []), {})
        return state.path

    return begun


@pytest.fixture
def failed(whole_study):
    """failed(job, text): leaves the log of a failed job; its path."""

    def failed(job: str, text: str) -> str:
        log = Path("logs/tiny", f"{job}.log")
        log.parent.mkdir(parents=True, exist_ok=True)
        log.write_text(text)
        with Path("logs/tiny/failed").open("a") as file:
            file.write(f"{log}\n")
        return str(log)

    return failed


def cells(text: str, title: str) -> list[list[str]]:
    """The rows of the Markdown table below a title, header first."""
    block = text.partition(f"{title}:\n\n")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines()]
    return [rows[0], *rows[2:]] if rows else []


def steps(text: str) -> dict[str, tuple[str, str]]:
    return {step: (done, more) for step, done, more in cells(text, "Progress")[1:]}


def test_a_whole_study_has_its_tables_and_nothing_left_to_do(shown, finished):
    text = shown()
    assert "The study tiny is not being run." in text
    final = [row[0] for row in cells(text, "Final runs, on test")[1:]]
    assert sorted(final[:3]) == ["brier", "cross_entropy", "mse"]
    assert final[2] == "brier"  # the best first, the diverged last
    assert final[3:] == ["trigram counts", "source entropy"]
    chosen = storage.read_sealed(finished / "results/selected.json")["losses"]["mse"]
    (mse,) = [row for row in cells(text, "Selected hyperparameters") if row[0] == "mse"]
    nll = chosen["selection_nll"]
    assert mse[1:5] == [f"{chosen['lr']:g}", "0.1", "1", f"{nll:.3f} (own link)"]
    grid = {loss: row for loss, *row in cells(text, GRID)}
    assert grid["brier"] == ["— (1 diverged)"] * 3
    sweep = pd.read_csv(finished / "results/sweep.csv")
    assert f"{sweep['selection_nll'][sweep['loss'] == 'mse'].min():.3f}" in grid["mse"]
    gone = (pd.read_csv(finished / "results/refine.csv")["status"] == "diverged").sum()
    assert steps(text) == {
        "corpus": ("1 of 1", ""), "tokens": ("1 of 1", ""), "sweep": ("9 of 9", "3 diverged"),
        "refine": ("3 of 3", f"{gone} diverged"), "lengths": ("3 of 3", "1 diverged"),
        "final": ("6 of 6", "2 diverged"), "reported": ("1 of 1", ""),
        "scores": ("10 of 10", ""), "stories": ("7 of 7", ""),
        "tables": ("1 of 1", ""), "report": ("0 of 1", ""),
    }  # fmt: skip
    assert [row[0] for row in cells(text, "Diverged")[1:]] == [
        "lengths/brier/iters4/seed1",
        "final/brier/seed1",
        "final/brier/seed2",
    ]
    for title in ("Running", "Unfinished", "Failed", "Outdated"):
        assert f"{title}:" not in text


def test_before_the_first_run_everything_waits(shown):
    for folder in ("data", "checkpoints", "results"):
        shutil.rmtree(folder)
    text = shown()
    assert steps(text)["sweep"] == ("0 of 9", "9 waiting")
    assert steps(text)["corpus"] == ("0 of 1", "")
    assert "Final runs" not in text
    assert "Selected" not in text


def test_halfway_through_the_sweep_the_grid_says_what_is_there(shown):
    for path in (Path("results"), *Path("checkpoints/tiny").glob("final")):
        shutil.rmtree(path)
    for lr in ("0.01", "0.02"):
        shutil.rmtree(f"checkpoints/tiny/sweep/mse/lr{lr}")
    text = shown()
    assert steps(text)["sweep"] == ("7 of 9", "3 diverged, 2 waiting")
    (mse,) = [row for row in cells(text, GRID) if row[0] == "mse"]
    assert mse[2:] == ["— (1 waiting)"] * 2
    assert "Selected hyperparameters" not in text


def test_a_running_cell_is_shown_with_its_iteration_and_last_loss(shown, begun):
    begun(FINAL, [9.0, 8.0, 7.25])
    assert ["final/mse/seed1", "3 of 8 (38 %)", "7.25", ""] in cells(shown(), "Unfinished")
    lock_file = PLACES.lock
    lock_file.parent.mkdir(parents=True)
    lock_file.touch()
    os.utime(lock_file, (1, 1))  # the study was started, then the state saved
    with lock_file.open() as file:
        lock._lock(file)
        text = shown()
        assert "is being run by another process" in text
        assert ["final/mse/seed1", "3 of 8 (38 %)", "7.25", ""] in cells(text, "Running")
        os.utime(lock_file, (2**32, 2**32))  # the state is older, so its run is not running yet
        assert ["final/mse/seed1", "3 of 8 (38 %)", "7.25", ""] in cells(shown(), "Unfinished")
    assert steps(shown())["final"] == ("5 of 6", "2 diverged, 1 unfinished")


def test_while_the_study_runs_a_runs_iteration_is_what_its_jobs_log_says(shown, begun):
    begun(FINAL, [9.0, 8.0])
    log = Path("logs/tiny/final/mse/seed1.log")
    log.parent.mkdir(parents=True)
    log.write_text("final/mse/seed1: 5 of 8 iterations, loss 7.000, 00:10 left\n")
    saved = ["final/mse/seed1", "2 of 8 (25 %)", "8", ""]
    logged = ["final/mse/seed1", "5 of 8 (62 %)", "8", ""]
    assert saved in cells(shown(), "Unfinished")
    PLACES.lock.parent.mkdir(parents=True)
    PLACES.lock.touch()
    os.utime(PLACES.lock, (2, 2))
    with PLACES.lock.open() as file:
        lock._lock(file)
        assert logged in cells(shown(), "Running")
        os.utime(log, (1, 1))  # from the previous start of the study
        assert saved in cells(shown(), "Running")


def test_watching_goes_on_until_nobody_runs_the_study(whole_study, tiny_study, monkeypatch):
    holders = iter(["process 1", "process 1", None])
    monkeypatch.setattr(lock, "holder", lambda path: next(holders))
    file = io.StringIO()
    show.watch(tiny_study(), PLACES, Console(file=file, width=80), seconds=0.0)
    said = re.findall(r"^\d\d:\d\d:\d\d  The study tiny (.*)\.$", file.getvalue(), re.M)
    assert said == ["is being run by process 1"] * 2 + ["is not being run"]
    assert len(cells(file.getvalue(), "Progress")) == 12


def test_who_runs_the_study_is_named(shown):
    lock.hold(PLACES.lock)
    assert re.search(rf"is being run by process {os.getpid()} on \S+ since ", shown())
    lock._held.pop().close()
    assert "is not being run" in shown()


def test_a_begun_run_without_a_state_and_a_damaged_state_are_told_apart(shown, begun):
    state = begun(FINAL, [1.0])
    state.write_bytes(b"x" * 100)
    (row,) = cells(shown(), "Unfinished")[1:]
    assert row == ["final/mse/seed1", "of 8, none saved yet", "—",
                   f"{state}: is damaged, so it is not used; delete it"]  # fmt: skip
    state.unlink()
    (row,) = cells(shown(), "Unfinished")[1:]
    assert row == ["final/mse/seed1", "of 8, none saved yet", "—", ""]


def test_pipes_in_place_of_a_state_a_log_and_the_lock_are_lines_and_not_waited_for(
    shown, begun, failed
):
    state = begun(FINAL, [1.0])
    log = Path(failed(ROW, "one"))
    shutil.rmtree(SWEPT)
    PLACES.lock.parent.mkdir(parents=True)
    for path in (state, log, PLACES.lock):
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    said = shown()
    assert f"{state}: is a pipe, not a file; name another, or move it away; it is not used" in said
    assert f"{log}: is a pipe, not a file" in said
    assert "is not being run" in said


def test_a_state_of_other_parameters_is_not_its_progress(shown, begun):
    begun(FINAL, [1.0, 0.5])
    (row,) = cells(shown(train={"batch_size": 3}), "Unfinished")[1:]
    assert row[1] == "of 8, none saved yet"


def test_a_failed_job_is_named_with_its_logs_last_line(shown, failed):
    log = failed(ROW, "some output\nsquentropy: the disk is full\n\n")
    assert "Failed:" not in shown()  # all its cells exist, so it was repeated since
    shutil.rmtree(SWEPT)
    text = shown()
    assert cells(text, "Failed")[1:] == [[log, "squentropy: the disk is full"]]
    assert steps(text)["sweep"] == ("8 of 9", "3 diverged, 1 failed")
    other = failed("final/mse/evaluate", "")
    assert [other, "is empty"] in cells(shown(), "Failed")


def test_outdated_runs_of_one_reason_stand_in_one_line(shown):
    text = shown(final={"max_iters": 9})
    assert "Its tables were made with a different final.max_iters." in text
    rows = cells(text, "Outdated, to be trained again")[1:]
    assert [
        "final/cross_entropy/seed1 and 6 more",
        "params.schedule.max_iters was 8, is 9; run the study again",
    ] in rows
    assert steps(text)["final"] == ("0 of 6", "6 outdated")
    assert steps(text)["scores"] == ("0 of 10", "")


@pytest.mark.parametrize("name", ["metrics.csv", "selected.json", "manifest.json"])
def test_a_damaged_table_is_one_line_and_the_rest_is_shown(shown, name):
    path = PLACES.results / name
    path.write_bytes(path.read_bytes()[:-20])
    text = shown()
    assert len([line for line in text.splitlines() if name in line]) >= 1
    assert steps(text)["sweep"][0] == "9 of 9"
    assert "Traceback" not in text


def test_a_damaged_run_is_named_once(shown):
    path = FINAL / "run.json"
    path.write_bytes(path.read_bytes()[:-20])
    rows = cells(shown(), "Outdated, to be trained again")[1:]
    assert rows == [
        ["final/mse/seed1", "is damaged (has no seal); delete it and run the study again"]
    ]


def test_tables_without_runs_say_that_the_runs_are_elsewhere(shown):
    shutil.rmtree("checkpoints")
    shutil.rmtree("data")
    text = shown()
    assert "not its runs: `make restore` fetches them" in text
    assert "Progress" not in text
    grid = cells(text, GRID)
    assert grid[-1] == ["brier", *["— (1 diverged)"] * 3]


# --- layout -------------------------------------------------------------------------------------


def test_in_a_file_nothing_is_coloured_or_cut_off(shown):
    text = shown()
    assert "\x1b" not in text
    assert "(own link)" in text
    assert re.search(r"\(\d\.\d{3} to \d\.\d{3}\)", text)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_in_a_terminal_no_line_is_wider_and_no_word_is_lost(shown, begun, width):
    begun(FINAL, [9.0])
    text = shown(width)
    assert "\x1b[1m" in text
    lines = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    assert max(map(len, lines)) <= width
    letters = re.sub(r"\W", "", "".join(lines))
    for word in ("cross_entropy", "diverged", "Unfinished"):
        assert word in letters or width == 40
    if width == 80:
        assert any(line.startswith("cross_entropy ") for line in lines)


@pytest.mark.parametrize("width", [80, 100])
def test_the_default_studys_tables_fold_no_name_in_80_columns(tmp_path, monkeypatch, width):
    folder = fake_results.write(tmp_path / "results/grammar")
    file = io.StringIO()
    study = fake_results.study()
    show.print_page(
        show.page(study, Places(folder)), Console(file=file, force_terminal=True, width=width)
    )
    lines = re.sub(r"\x1b\[[0-9;]*m", "", file.getvalue()).splitlines()
    assert max(map(len, lines)) <= width
    for loss in study.sweep.losses:
        assert sum(line.split("  ")[0] == loss for line in lines) == 3  # in three tables


def test_no_color_means_none(whole_study, tiny_study, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=80, color_system="standard")
    show.print_page(show.page(tiny_study(), PLACES), console)
    assert not re.search(r"\x1b\[[0-9;]*3\dm", file.getvalue())


# --- finding the study --------------------------------------------------------------------------


def test_a_study_is_found_by_its_name_its_file_and_its_folder(whole_study, copy_project, tmp_path):
    copy_project(tmp_path)
    Path("studies/dvc.yaml").write_text("stages: {}\n")
    assert find()[1] == Places(Path("results/grammar"))
    assert find("grammar")[0].study == "grammar"
    for what in ("smoke", "studies/smoke.yaml"):
        study, places = find(what)
        assert (study.study, places) == ("smoke", Places(Path("results/smoke")))
    for what in ("tiny", "results/tiny"):
        study, places = find(what)
        assert (study.study, places.of("state")) == ("tiny", Path("state/tiny"))
    os.chdir("results")
    assert find("tiny")[1].of("logs").resolve() == whole_study / "logs/tiny"
    os.chdir("..")
    with pytest.raises(SquentropyError, match="nix: no such study; there are: fairytales, long"):
        find("nix")
    for folder in (".", "studies"):
        with pytest.raises(SquentropyError, match="contains no results"):
            find(folder)


def test_progress_counts_every_run_once(whole_study, tiny_study):
    study = tiny_study()
    so_far = progress(study, PLACES)
    refined = len(pd.read_csv(PLACES.results / "refine.csv"))
    expected = 9 + refined + 3 + 6 + 1
    assert sum(len(so_far.of(state)) for state in STATES) == len(so_far.runs) == expected
    cell = study.sweep_cells()[0]
    run = records.read_run(Path("checkpoints/tiny", cell.name))
    assert run["cell"] == asdict(cell)
    assert run["code"] == digests.by_module("training", loss=cell.loss)
