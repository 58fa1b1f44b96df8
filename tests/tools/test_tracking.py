"""The saved losses of unfinished runs are exported for other programs to plot.

pytest tests/tools/test_tracking.py
"""

import pytest

from squentropy.tools import tracking
from squentropy.training.resume import Progress, StateFile


@pytest.fixture
def save(tmp_path):
    """save(*losses, origin=0): saves a training state with these losses."""

    def save(*losses: float, origin: int = 0) -> None:
        history = [
            {"iteration": i + 1, "train_loss": loss, "train_nll": loss, "validation_nll": 2 * loss}
            for i, loss in enumerate(losses)
            if i % 2
        ]
        state = StateFile(tmp_path / "state", "tiny/final/mse/seed1", {"origin": origin})
        for path in state.folder.glob("*"):
            path.unlink()
        state.save(Progress(list(losses), history), {})

    return save


def read(folder, name):
    return [line.split("\t") for line in (folder / name).read_text().splitlines()]


def test_losses_and_history_are_written_under_the_runs_name(save, tmp_path):
    save(3.0, 2.5, 2.25)
    assert tracking.export(tmp_path / "state", tmp_path / "live") == [
        folder := tmp_path / "live/tiny/final/mse/seed1"
    ]
    assert read(folder, "loss.tsv") == [
        ["iteration", "loss"], ["1", "3"], ["2", "2.5"], ["3", "2.25"],
    ]  # fmt: skip
    assert read(folder, "nll.tsv") == [
        ["iteration", "train_nll", "validation_nll"],
        ["2", "2.5", "5"],
    ]


def events(folder, tag) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder))
    reader.Reload()
    return [(event.step, event.value) for event in reader.Scalars(tag)]


def test_tensorboard_reads_every_iteration_once(save, tmp_path):
    folder = tmp_path / "live/tiny/final/mse/seed1"
    for losses in ([3.0, 2.5], [3.0, 2.5, 2.25, 2.0]):
        save(*losses)
        tracking.export(tmp_path / "state", tmp_path / "live", tensorboard=True)
    assert sorted(events(folder, "loss")) == [(1, 3.0), (2, 2.5), (3, 2.25), (4, 2.0)]
    assert sorted(events(folder, "validation_nll")) == [(2, 5.0), (4, 4.0)]


def test_another_run_of_the_name_begins_anew(save, tmp_path):
    folder = tmp_path / "live/tiny/final/mse/seed1"
    for origin, losses in enumerate(([3.0, 2.5], [1.5])):
        save(*losses, origin=origin)
        tracking.export(tmp_path / "state", tmp_path / "live", tensorboard=True)
    assert read(folder, "loss.tsv") == [["iteration", "loss"], ["1", "1.5"]]
    assert events(folder, "loss") == [(1, 1.5)]


def test_nothing_under_way_is_nothing_written(tmp_path):
    assert tracking.export(tmp_path / "state", tmp_path / "live") == []
    assert not (tmp_path / "live").exists()
