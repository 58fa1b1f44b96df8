"""Cells trained at once give the same results as cells trained alone.

pytest tests/training/test_stacked.py
"""

import json
import math
import signal
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

from squentropy.base.errors import Interrupted
from squentropy.cli import app
from squentropy.losses import LOSSES
from squentropy.runs.records import read_run
from squentropy.training import loop, stacked
from squentropy.training.resume import Stop
from squentropy.training.run import train_run
from squentropy.training.stacked import StackedGPT, train_stack, train_stacks

STRAIGHT = LOSSES["cross_entropy"]


@pytest.fixture
def double() -> Iterator[None]:
    """Use float64, so that rounding hides no difference and Adam amplifies none."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def cells(tiny_cell) -> list:
    return [
        tiny_cell(loss=loss, lr=lr, dropout=0.0, n_layer=2)
        for loss, lr in [("cross_entropy", 0.01), ("mse", 0.02), ("squentropy(0.1)", 0.001)]
    ]


def at_once(*given) -> dict:
    return {cell: (model, result) for cell, model, result in train_stack(*given)}


def assert_same(one, other) -> None:
    """Assert that two (model, result) agree up to rounding: float64's, or float32's for scores."""
    (model, result), (by_itself, alone) = one, other
    for name, expected in by_itself.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], expected, rtol=1e-9, atol=1e-12)
    assert (result.status, result.iterations) == (alone.status, alone.iterations)
    for row, expected in zip(result.history, alone.history, strict=True):
        assert row["train_loss"] == pytest.approx(expected["train_loss"], rel=1e-9)
        assert row == pytest.approx(expected, rel=1e-6)
    ends = ((each.validation.mean_nll(), each.tempered_nll or 0.0) for each in (result, alone))
    assert next(ends) == pytest.approx(next(ends), rel=1e-6)


@pytest.mark.parametrize(
    ("positions", "bias", "phase", "changes"),
    [
        ("alibi", False, "sweep", {}),
        ("learned", True, "sweep", {}),
        ("alibi", True, "final", {}),
        ("alibi", False, "sweep", {"parametrization": "mup", "n_embd": 64}),
    ],
)
def test_cells_at_once_are_cells_one_by_one(
    tiny_study, cells, tokens, double, positions, bias, phase, changes
):
    study = tiny_study(
        model={"positions": positions, "bias": bias} | changes,
        train={"accumulation": 2, "grad_clip": 0.5},
    )
    cells = [replace(cell, phase=phase) for cell in cells]
    together = at_once(study, cells, tokens)
    assert list(together) == cells
    for cell in cells:
        assert_same(together[cell], loop.train(study, cell, tokens))


def test_in_float32_they_differ_by_rounding_alone(tiny_study, cells, tokens):
    together = at_once(tiny_study(), cells, tokens)
    for cell in cells:
        (_, result), (_, alone) = together[cell], loop.train(tiny_study(), cell, tokens)
        assert result.train_loss == pytest.approx(alone.train_loss, rel=1e-4)
        assert result.validation.mean_nll() == pytest.approx(alone.validation.mean_nll(), rel=1e-4)


@pytest.mark.parametrize("factor", [math.nan, math.inf, 100.0])
def test_a_cell_that_diverges_ends_alone(tiny_study, cells, tokens, double, lossy, factor):
    cells[1] = replace(cells[1], loss="brier")

    def train(run) -> dict:
        seen = iter(range(10**6))
        lossy("brier", lambda h, w, y: STRAIGHT(h, w, y) * (factor if next(seen) == 3 else 1))
        return run()

    together = train(lambda: at_once(tiny_study(), cells, tokens))
    assert next(iter(together)) == cells[1]  # as soon as it has diverged
    assert together[cells[1]][1].diverged_at == 3
    for cell in cells:
        alone = train(lambda cell=cell: loop.train(tiny_study(), cell, tokens))
        assert together[cell][1].status == alone[1].status
        if cell != cells[1]:
            assert_same(together[cell], alone)


def test_a_stack_whose_cells_have_all_diverged_ends(tiny_study, cells, tokens, lossy):
    seen = []

    def fails(hidden, weight, targets):
        seen.append(len(seen))
        return STRAIGHT(hidden, weight, targets) * math.nan

    lossy("brier", fails)
    cells = [replace(cell, loss="brier") for cell in cells]
    ended = at_once(tiny_study(), cells, tokens)
    assert {result.status for _, result in ended.values()} == {"diverged"}
    assert len(seen) == len(cells)


def test_dropout_is_each_cells_own(tiny_study, cells, tokens, double):
    """A cell without dropout gives the same result as alone, whatever its neighbours' dropout."""
    dropouts = (0.0, 0.2, 0.5)
    cells = [replace(cells[0], dropout=dropout) for dropout in dropouts]
    together, again = (at_once(tiny_study(), cells, tokens) for _ in range(2))
    assert_same(together[cells[0]], loop.train(tiny_study(), cells[0], tokens))
    losses = [together[cell][1].train_loss for cell in cells]
    assert losses == [again[cell][1].train_loss for cell in cells]
    assert len(set(losses)) == 3


def test_so_many_are_dropped_and_the_rest_is_scaled(tiny_study, tiny_cell, tokens):
    dropouts = (0.0, 0.1, 0.6)
    cells = [tiny_cell(dropout=dropout) for dropout in dropouts]
    stack = StackedGPT([stacked.set_up(tiny_study(), c, tokens, loop.Group()).model for c in cells])
    torch.manual_seed(0)
    dropped = stack._dropped(torch.ones(3, 500, 100))
    for values, dropout in zip(dropped, dropouts):
        assert values[values > 0].min() == values.max() == pytest.approx(1 / (1 - dropout))
        assert (values == 0).float().mean().item() == pytest.approx(dropout, abs=0.01)
    assert (dropped[1] == 0)[dropped[2] > 0].sum() == 0  # all cells share one draw


def test_a_cell_that_is_ahead_hears_of_its_own_losses_alone(tiny_study, tiny_cell, tokens):
    """As on a GPU, where losses are checked in groups."""
    run = stacked.set_up(tiny_study(), tiny_cell(), tokens, loop.Group())
    member = stacked._Member(run, None, stacked.Progress([2.0] * 5), 5)
    member.hear([9.0, 9.0, 9.0, 3.0, 4.0], 7)  # of the iterations 2 to 6
    assert member.progress.losses == [2.0] * 5 + [3.0, 4.0]
    member.hear([5.0, 50.0, 5.0], 10)
    assert (member.result.status, member.result.diverged_at) == ("diverged", 8)
    assert member.result.train_loss == 5.0


def test_a_compiled_stack_comes_near_a_plain_one(tiny_study, cells, tokens, monkeypatch):
    compile_it, graphs = torch.compile, []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda f: compile_it(f, backend=backend, fullgraph=True))
    plain, compiled = (
        at_once(tiny_study(train={"compile": when}), cells, tokens) for when in ("never", "always")
    )
    assert len(graphs) == 1
    for cell in cells:
        (_, result), (_, expected) = compiled[cell], plain[cell]
        assert result.train_loss == pytest.approx(expected.train_loss, rel=1e-4)


# --- folders ------------------------------------------------------------------------------------


@pytest.fixture
def study(tiny_study):
    schedule = {"max_iters": 8, "eval_interval": 3, "keep_weights": True}
    return tiny_study(sweep=schedule, train={"state_interval": 2})


def outcome(folder) -> dict:
    """The numbers in a run's record; a diverged run lacks some."""
    return {k: v for k, v in read_run(folder).items() if isinstance(v, int | float)}


def test_the_folders_are_those_of_single_runs(study, cells, tokens, tmp_path):
    cells.append(replace(cells[0], n_layer=1))  # another shape, so another stack
    done = list(train_stacks(study, cells, tokens, tmp_path / "at once", tmp_path / "state"))
    assert [cell for cell, _ in done] == cells
    assert all(trained.now for _, trained in done)
    assert not list((tmp_path / "state").rglob("*.safetensors"))
    for cell in cells:
        alone, folder = tmp_path / "alone" / cell.name, tmp_path / "at once" / cell.name
        train_run(study, cell, tokens, alone)
        assert {path.name for path in folder.iterdir()} == {path.name for path in alone.iterdir()}
        assert outcome(folder) == pytest.approx(outcome(alone), rel=1e-4)
    said = [json.loads((tmp_path / "at once" / c.name / "provenance.json").read_text())
            for c in cells]  # fmt: skip
    assert [each.get("stacked") for each in said] == [3, 3, 3, None]
    again = list(train_stacks(study, cells, tokens, tmp_path / "at once", tmp_path / "state"))
    assert {cell for cell, _ in again} == set(cells)
    assert not any(trained.now for _, trained in again)


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


@pytest.mark.parametrize("saved", [3, 2])
def test_a_killed_stack_goes_on_where_its_cells_were(
    study, cells, tokens, tmp_path, monkeypatch, double, saved
):
    """Even if the kill comes between the saves of two cells."""
    for cell, trained in train_stacks(study, cells, tokens, tmp_path / "straight", None):
        assert trained.now, cell
    saves, save = iter(range(10**6)), stacked.StateFile.save

    def until_killed(*given):
        save(*given)
        if next(saves) == 2 * 3 + saved - 1:  # in the third round of saves
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(stacked.StateFile, "save", until_killed)
        with pytest.raises(Killed):
            list(train_stacks(study, cells, tokens, tmp_path / "runs", tmp_path / "state"))
    steps, step = [], stacked._step
    monkeypatch.setattr(stacked, "_step", lambda *given: (steps.append(given[2]), step(*given)))
    list(train_stacks(study, cells, tokens, tmp_path / "runs", tmp_path / "state"))
    assert steps == list(range(6 if saved == 3 else 4, 8))
    for cell in cells:
        straight, resumed = (outcome(tmp_path / each / cell.name) for each in ("straight", "runs"))
        assert resumed == pytest.approx(straight, rel=1e-9)


def test_a_stack_that_is_asked_to_end_saves_its_states_first(
    study, cells, tokens, tmp_path, monkeypatch
):
    stop, step = Stop(), stacked._step

    def ask(members, stack, iteration, schedule):
        step(members, stack, iteration, schedule)
        stop.signal = signal.SIGTERM if iteration == 4 else stop.signal

    monkeypatch.setattr(stacked, "_step", ask)
    saved = []
    monkeypatch.setattr(stacked._Member, "save", lambda m: saved.append(len(m.progress.losses)))
    with pytest.raises(Interrupted, match="3 cells of 2 layers: SIGTERM after iteration 5"):
        list(train_stack(study, cells, tokens, None, stop))
    assert saved[-3:] == [5, 5, 5]


def test_a_stack_too_large_for_the_memory_is_halved(
    study, cells, tokens, tmp_path, monkeypatch, capsys
):
    tried, gradients = [], stacked._gradients

    def too_many(runs, *given):
        tried.append(len(runs))
        if len(runs) > 2:
            raise torch.OutOfMemoryError
        return gradients(runs, *given)

    monkeypatch.setattr(stacked, "_gradients", too_many)
    done = list(train_stacks(study, cells, tokens, tmp_path, None))
    assert [cell for cell, _ in done] == cells
    assert tried == [3] + [2] * 8  # then the third cell alone
    assert "3 cells at once do not fit in the GPU's memory; trying half as many" in (
        capsys.readouterr().err
    )


def test_the_sweep_trains_the_grid_at_once_where_it_is_asked_to(
    tiny_study, tokens, tmp_path, capsys
):
    params = tmp_path / "params.yaml"
    params.write_text(tiny_study(sweep={"losses": ["mse", "brier"], "lr": [0.01, 0.02]}).dump())
    words = ["sweep", str(tmp_path / "runs"), "--tokens", str(tokens.folder), "--stacked"]
    words += ["--params", str(params), "--no-resume"]
    with pytest.raises(SystemExit) as end:
        app.main(words)
    assert not end.value.code
    assert capsys.readouterr().out.count("6 iterations, validation nll") == 4
    said = [json.loads(path.read_text()) for path in tmp_path.rglob("provenance.json")]
    assert [each["stacked"] for each in said] == [4] * 4


def test_cells_at_once_take_one_process(tiny_study, tokens, tmp_path, capsys):
    params = tmp_path / "params.yaml"
    params.write_text(tiny_study(train={"processes": 2, "accumulation": 2}).dump())
    words = ["sweep", str(tmp_path / "runs"), "--tokens", str(tokens.folder), "--stacked"]
    with pytest.raises(SystemExit) as end:
        app.main([*words, "--params", str(params)])
    assert end.value.code == 1
    assert "train.processes is 2; set it to 1, or use --one-by-one" in capsys.readouterr().err
