"""A run that is stopped goes on to the same bits, and only from a state of its own.

pytest tests/test_state.py
"""

import os
import random
import signal
import struct

import pytest
import torch

from squentropy import training
from squentropy.runs import train_run
from squentropy.state import Progress, StateFile

ITERATIONS = 8


class Killed(BaseException):
    """In place of a kill: nothing catches it."""


@pytest.fixture
def study(tiny_study):
    """Looks at the run, and saves its state, at iterations that do not coincide."""
    schedule = {"max_iters": ITERATIONS, "eval_interval": 3, "keep_weights": True}
    return tiny_study(sweep=schedule, train={"state_interval": 2})


@pytest.fixture
def disturbed(monkeypatch):
    """Calls a function once, at an iteration's optimizer step."""

    def disturb(at: int, function) -> None:
        class Disturbed(training.AdamW):
            steps = 0

            def step(self, lr):
                super().step(lr)
                Disturbed.steps += 1
                if Disturbed.steps == at:
                    function()

        monkeypatch.setattr(training, "AdamW", Disturbed)

    return disturb


def kill():
    raise Killed


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def straight(study, tiny_cell, tokens, tmp_path) -> dict[str, bytes]:
    """The files of a run that nothing stopped."""
    train_run(study, tiny_cell(), tokens, tmp_path / "straight")
    return contents(tmp_path / "straight")


@pytest.mark.parametrize("at", range(1, ITERATIONS + 1))
def test_a_killed_run_goes_on_to_the_same_bits(
    at, study, tiny_cell, tokens, tmp_path, disturbed, straight
):
    state, run = tmp_path / "state" / "run.safetensors", tmp_path / "run"
    disturbed(at, kill)
    with pytest.raises(Killed):
        train_run(study, tiny_cell(), tokens, run, state)
    assert not run.exists()
    assert state.exists() == (at > 2)
    disturbed(0, kill)
    train_run(study, tiny_cell(), tokens, run, state)
    assert training.AdamW.steps == ITERATIONS - 2 * ((at - 1) // 2)  # from the last state on
    assert contents(run) == straight
    assert not state.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("at", [1, 3, ITERATIONS])
def test_a_run_that_is_asked_to_end_saves_its_state_first(
    at, number, study, tiny_cell, tokens, tmp_path, disturbed, straight, capsys
):
    state, run = tmp_path / "run.safetensors", tmp_path / "run"
    before = signal.getsignal(number)
    disturbed(at, lambda: os.kill(os.getpid(), number))
    with pytest.raises(SystemExit) as ended:
        train_run(study, tiny_cell(), tokens, run, state)
    assert ended.value.code == 128 + number
    assert f"{number.name} after iteration {at}" in capsys.readouterr().err
    assert signal.getsignal(number) is before
    disturbed(0, kill)
    train_run(study, tiny_cell(), tokens, run, state)
    assert training.AdamW.steps == ITERATIONS - at
    assert contents(run) == straight


def test_a_state_of_other_parameters_is_named_and_not_used(
    study, tiny_study, tiny_cell, tokens, tmp_path, disturbed, straight, capsys
):
    state = tmp_path / "run.safetensors"
    disturbed(5, kill)
    other = tiny_study(
        sweep={"max_iters": 9, "eval_interval": 3}, train={"beta2": 0.9, "state_interval": 2}
    )
    with pytest.raises(Killed):
        train_run(other, tiny_cell(lr=0.02), tokens, tmp_path / "run", state)
    disturbed(0, kill)
    train_run(study, tiny_cell(), tokens, tmp_path / "run", state)
    said = capsys.readouterr().err
    changed = "cell.lr, params.schedule.max_iters, params.train.beta2"
    assert f"{state}: belongs to a run with other {changed}; training from the start" in said
    assert contents(tmp_path / "run") == straight


def test_a_damaged_state_is_named_and_not_used(tiny_study, tmp_path, capsys):
    """Any byte of it, or its end, or all."""
    state = StateFile(tmp_path / "run.safetensors", {"cell": {"lr": 0.1}})
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(2.5)}
    state.save(Progress(3, [1.0, 0.5, 0.25], [{"iteration": 2}]), tensors)
    whole = state.path.read_bytes()
    draw = random.Random(0)
    (header,) = struct.unpack("<Q", whole[:8])
    places = [*draw.sample(range(8 + header), 60), *range(8 + header, len(whole))]
    flipped = [
        whole[:i] + bytes([whole[i] ^ 1 << draw.randrange(8)]) + whole[i + 1 :] for i in places
    ]
    for damaged in [*flipped, whole[:-1], whole[: 8 + header], whole[:20], b""]:
        state.path.write_bytes(damaged)
        into = {name: torch.zeros_like(tensor) for name, tensor in tensors.items()}
        assert state.load(into) == Progress()
        assert f"{state.path}: " in capsys.readouterr().err
        assert not any(tensor.any() for tensor in into.values())
    state.path.write_bytes(whole)
    assert state.load(into).losses == [1.0, 0.5, 0.25]
    assert all(into[name].equal(tensors[name]) for name in tensors)
