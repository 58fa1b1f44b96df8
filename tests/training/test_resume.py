"""Resuming a stopped run gives bit-identical results, and only from its own state.

pytest tests/training/test_resume.py
"""

import os
import random
import signal
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from squentropy.base.errors import Interrupted, SquentropyError
from squentropy.runs.records import read_run
from squentropy.training import loop, setup
from squentropy.training.resume import Progress, StateFile, stop_on_signal
from squentropy.training.run import train_run

ITERATIONS = 8


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.fixture
def study(tiny_study):
    """A study that evaluates and saves its state at different iterations."""
    schedule = {"max_iters": ITERATIONS, "eval_interval": 3, "keep_weights": True}
    return tiny_study(sweep=schedule, train={"state_interval": 2})


@pytest.fixture(autouse=True)
def _signals_are_heeded() -> Iterator[None]:
    """As from a terminal: a process started in the background may ignore Ctrl-C."""
    usual = {signal.SIGTERM: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def disturbed(monkeypatch):
    """disturbed(at, function): calls the function once, after the optimizer step number `at`."""

    def disturb(at: int, function) -> None:
        class Disturbed(setup.AdamW):
            steps = 0

            def step(self, lr):
                super().step(lr)
                Disturbed.steps += 1
                if Disturbed.steps == at:
                    function()

        monkeypatch.setattr(setup, "AdamW", Disturbed)

    return disturb


def kill():
    raise Killed


def kept_in(states) -> list:
    return sorted(states.rglob("*.safetensors"))


def contents(folder) -> dict[str, bytes]:
    files = (path for path in folder.iterdir() if path.name != "provenance.json")
    return {path.name: path.read_bytes() for path in files}


@pytest.fixture
def straight(study, tiny_cell, tokens, tmp_path) -> dict[str, bytes]:
    """The files of an uninterrupted run."""
    train_run(study, tiny_cell(), tokens, tmp_path / "straight")
    return contents(tmp_path / "straight")


@pytest.mark.parametrize("at", range(1, ITERATIONS + 1))
def test_a_killed_run_goes_on_to_the_same_bits(
    at, study, tiny_cell, tokens, tmp_path, disturbed, straight
):
    states, run = tmp_path / "state", tmp_path / "run"
    disturbed(at, kill)
    with pytest.raises(Killed):
        train_run(study, tiny_cell(), tokens, run, states)
    assert not run.exists()
    assert len(kept_in(states)) == (at > 2)
    disturbed(0, kill)
    train_run(study, tiny_cell(), tokens, run, states)
    assert setup.AdamW.steps == ITERATIONS - 2 * ((at - 1) // 2)  # from the last state on
    assert contents(run) == straight
    assert not any(states.glob("*"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("at", [1, 3, ITERATIONS])
def test_a_run_that_is_asked_to_end_saves_its_state_first(
    at, number, study, tiny_cell, tokens, tmp_path, disturbed, straight, capsys
):
    states, run = tmp_path / "state", tmp_path / "run"
    before = signal.getsignal(number)
    disturbed(at, lambda: os.kill(os.getpid(), number))
    with pytest.raises(Interrupted, match=f"{number.name} after iteration {at}") as ended:
        train_run(study, tiny_cell(), tokens, run, states)
    assert ended.value.exit_code == 128 + number
    assert capsys.readouterr().out == ""
    assert signal.getsignal(number) is before
    disturbed(0, kill)
    train_run(study, tiny_cell(), tokens, run, states)
    assert setup.AdamW.steps == ITERATIONS - at
    assert contents(run) == straight


def test_a_signal_acts_after_a_run_that_diverged_was_written(
    study, tiny_cell, tokens, tmp_path, disturbed, monkeypatch
):
    acted = []
    monkeypatch.setattr(signal, "raise_signal", acted.append)
    monkeypatch.setattr(loop, "first_divergence", lambda *given: 0)
    disturbed(1, lambda: os.kill(os.getpid(), signal.SIGTERM))
    train_run(study, tiny_cell(), tokens, tmp_path / "run", tmp_path / "state")
    assert read_run(tmp_path / "run")["status"] == "diverged"
    assert acted == [signal.SIGTERM]


def test_ctrl_c_after_a_signal_acts_at_once_and_an_ignored_one_stays_ignored(monkeypatch):
    acted = []
    monkeypatch.setattr(signal, "raise_signal", acted.append)
    with stop_on_signal() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        assert (stop.signal, acted) == (signal.SIGTERM, [])
        os.kill(os.getpid(), signal.SIGTERM)
        assert acted == []
        signal.getsignal(signal.SIGTERM)(signal.SIGINT, None)
        assert acted == [signal.SIGINT]
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stop_on_signal() as stop:
            os.kill(os.getpid(), signal.SIGINT)
            assert stop.signal is None
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_run_can_be_trained_in_a_thread(study, tiny_cell, tokens, tmp_path, straight):
    with ThreadPoolExecutor(1) as pool:
        given = (study, tiny_cell(), tokens, tmp_path / "run", tmp_path / "state")
        pool.submit(train_run, *given).result()
    assert contents(tmp_path / "run") == straight


def test_a_state_of_other_parameters_is_named_and_neither_used_nor_lost(
    study, tiny_study, tiny_cell, tokens, tmp_path, disturbed, straight, capsys
):
    states = tmp_path / "state"
    schedule = {"max_iters": 9, "eval_interval": 3}
    other = tiny_study(sweep=schedule, train={"beta2": 0.9, "state_interval": 2})
    disturbed(5, kill)
    with pytest.raises(Killed):
        train_run(other, tiny_cell(), tokens, tmp_path / "run", states)
    (first,) = kept_in(states)
    disturbed(0, kill)
    train_run(study, tiny_cell(), tokens, tmp_path / "run", states)
    changed = "params.schedule.max_iters, params.train.beta2"
    said = f"{first}: belongs to a run that differs in {changed}, so it is not used"
    assert said in capsys.readouterr().err
    assert contents(tmp_path / "run") == straight
    assert kept_in(states) == [first]
    disturbed(0, kill)
    train_run(other, tiny_cell(), tokens, tmp_path / "elsewhere", states)
    assert setup.AdamW.steps == 9 - 4
    assert kept_in(states) == []


@pytest.mark.parametrize("change", ["dtype", "batch_tokens"])
def test_a_state_that_would_go_on_to_other_bits_is_not_used(
    change, tiny_study, tiny_cell, tokens, tmp_path, disturbed
):
    def made(dtype="float32", batch_tokens=64):
        train = {"state_interval": 2, "dtype": dtype}
        return tiny_study(train=train, evaluate={"batch_tokens": batch_tokens})

    disturbed(5, kill)
    with pytest.raises(Killed):
        train_run(made(), tiny_cell(), tokens, tmp_path / "run", tmp_path / "state")
    disturbed(0, kill)
    other = made(**{change: {"dtype": "bfloat16", "batch_tokens": 32}[change]})
    train_run(other, tiny_cell(), tokens, tmp_path / "run", tmp_path / "state")
    assert setup.AdamW.steps == 6


def test_a_damaged_state_is_named_and_not_used(tiny_study, tmp_path, capsys):
    """A flipped bit in any byte, a missing end, or an empty file."""
    state = StateFile(tmp_path, "sweep/run", {"cell": {"lr": 0.1}})
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(2.5)}
    state.save(Progress([1.0, 0.5, 0.25], [{"iteration": 2}]), tensors)
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


@pytest.mark.parametrize("other", [False, True])
def test_a_pipe_in_place_of_a_state_is_named_and_not_waited_for(tmp_path, capsys, other):
    state = StateFile(tmp_path, "sweep/run", {"cell": {"lr": 0.1}})
    state.folder.mkdir(parents=True)
    path = state.path.with_name("other.safetensors") if other else state.path
    os.mkfifo(path)
    assert state.load({}) == Progress()
    assert f"{path}: is a pipe, not a file" in capsys.readouterr().err
    state.save(Progress([1.0]), {})
    assert state.load({}).losses == [1.0]


def test_a_folder_of_states_that_cannot_be_written_is_named_before_any_training(
    tiny_study, tiny_cell, tokens, tmp_path, monkeypatch
):
    (tmp_path / "taken").touch()
    monkeypatch.setattr("squentropy.training.run.train", None)
    with pytest.raises(SquentropyError, match=r"taken/tiny/.*: cannot be written: a file "):
        train_run(tiny_study(), tiny_cell(), tokens, tmp_path / "run", tmp_path / "taken")
