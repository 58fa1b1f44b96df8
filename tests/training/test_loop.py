"""Runs differ only in their loss, are reproducible bit for bit, and divergence is a result.

pytest tests/training/test_loop.py
"""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from squentropy.base.errors import SquentropyError
from squentropy.lm.matmul import multiplies_bfloat16
from squentropy.lm.optimizer import AdamW
from squentropy.losses import LOSSES
from squentropy.training import setup
from squentropy.training.distributed import Group
from squentropy.training.loop import first_divergence, learning_rate, train
from squentropy.training.setup import batches, build_model

STRAIGHT = LOSSES["cross_entropy"]


def same_weights(a, b) -> bool:
    return all(x.equal(y) for x, y in zip(a.state_dict().values(), b.state_dict().values()))


@pytest.fixture
def spy(monkeypatch) -> list:
    """The gradients of each optimizer step, after clipping."""
    steps = []

    class Spy(AdamW):
        def _update(self, lr):
            steps.append([p.grad.clone() for g in self.groups for p in g.parameters])
            super()._update(lr)

    monkeypatch.setattr(setup, "AdamW", Spy)
    return steps


def test_every_loss_starts_from_the_same_weights(tiny_study, tiny_cell):
    models = [build_model(tiny_study(), tiny_cell(loss=loss), 300) for loss in LOSSES]
    assert all(same_weights(models[0], model) for model in models[1:])
    assert not same_weights(models[0], build_model(tiny_study(), tiny_cell(seed=1), 300))


def test_a_run_by_mup_trains_the_blocks_matrices_apart(tiny_study, tiny_cell, tokens):
    study = tiny_study(model={"parametrization": "mup", "n_embd": 64})
    run = setup.set_up(study, tiny_cell(n_layer=2), tokens, Group())
    *others, hidden = run.optimizer.groups
    assert hidden.multiple == 0.5
    assert list(map(id, hidden.parameters)) == list(map(id, run.model.hidden_matrices()))
    assert [(g.multiple, len(g.parameters)) for g in others] == [(1, 1), (1, 5)]  # wte, the norms
    assert len(hidden.parameters) == 8


def test_at_the_base_width_a_run_by_mup_is_a_standard_one(tiny_study, tiny_cell, tokens):
    standard, mup = (
        train(tiny_study(model={"n_embd": 128, "parametrization": kind}), tiny_cell(), tokens)
        for kind in ("standard", "mup")
    )
    assert same_weights(standard[0], mup[0])
    assert standard[1].history == mup[1].history


def test_every_loss_learns_from_the_same_batches_at_a_seed(tiny_study, tiny_cell, tokens, lossy):
    seen = {}
    for loss in ("mse", "brier"):
        for seed in (0, 1):
            log = seen[loss, seed] = []

            def logged(hidden, weight, targets, *, log=log):
                log.append(targets.tolist())
                return STRAIGHT(hidden, weight, targets)

            lossy(loss, logged)
            train(tiny_study(), tiny_cell(loss=loss, seed=seed), tokens)
    assert seen["mse", 0] == seen["brier", 0] != seen["mse", 1] == seen["brier", 1]
    assert len({str(targets) for targets in seen["mse", 0]}) == 6  # iterations


def test_targets_are_the_inputs_one_token_later(tiny_study, tokens):
    split, params = tokens.split("train"), tiny_study(train={"accumulation": 3}).train
    drawn = list(batches(split, params, 16, seed=0, iteration=5))
    assert len(drawn) == 3
    text = split.ids.astype(np.int64).tobytes()
    for inputs, targets in drawn:
        assert inputs.shape == targets.shape == (2, 16)
        assert (inputs[:, 1:] == targets[:, :-1]).all()
        assert all(np.append(x, y[-1]).tobytes() in text for x, y in zip(inputs, targets))


def test_every_block_can_be_drawn_the_last_one_too(tiny_study, tokens):
    split, params = tokens.split("train").head(1), tiny_study().train
    block = len(split.ids) - 3  # three starts
    starts = {
        tuple(x) for i in range(40) for x in next(batches(split, params, block, 0, i))[0].tolist()
    }
    assert len(starts) == 3


def test_a_run_repeats_to_the_bit(tiny_study, tiny_cell, tokens):
    torch.manual_seed(7)
    model, result = train(tiny_study(), tiny_cell(), tokens)
    torch.rand(5)
    again, same = train(tiny_study(), tiny_cell(), tokens)
    assert same_weights(model, again)
    assert result.history == same.history
    assert result.validation.nll.tobytes() == same.validation.nll.tobytes()


def test_dropout_changes_a_run(tiny_study, tiny_cell, tokens):
    losses = [train(tiny_study(), tiny_cell(dropout=p), tokens)[1].train_loss for p in (0.0, 0.3)]
    assert losses[0] != losses[1]


def test_the_threads_are_those_of_the_parameters(tiny_study, tiny_cell, tokens):
    for threads in (2, 1):
        train(tiny_study(train={"threads": threads}), tiny_cell(), tokens)
        assert torch.get_num_threads() == threads


def test_training_lowers_every_objective_and_the_nll(tiny_study, tiny_cell, tokens):
    schedule = {"max_iters": 40, "eval_interval": 20, "warmup_iters": 2}
    for loss in LOSSES:
        result = train(tiny_study(sweep=schedule), tiny_cell(loss=loss), tokens)[1]
        start, end = result.history
        assert end["train_loss"] < start["train_loss"]
        assert end["validation_nll"] < math.log(300)


def test_the_history_holds_the_mean_loss_since_the_entry_before(
    tiny_study, tiny_cell, tokens, lossy
):
    values = iter(range(1, 8))
    lossy("mse", lambda h, w, y: STRAIGHT(h, w, y) * 0 + next(values))
    schedule = {"max_iters": 7, "eval_interval": 3, "warmup_iters": 2}
    _, result = train(tiny_study(sweep=schedule), tiny_cell(loss="mse"), tokens)
    assert [(row["iteration"], row["train_loss"]) for row in result.history] == [
        (3, 2.0),
        (6, 5.0),
        (7, 7.0),
    ]
    assert (result.status, result.iterations, result.train_loss) == ("ok", 7, 7.0)


def test_the_last_score_takes_the_whole_validation_split(tiny_study, tiny_cell, tokens):
    _, result = train(tiny_study(sweep={"eval_stories": 1}), tiny_cell(), tokens)
    assert len(result.validation.nll) == len(tokens.split("validation").ids)
    assert result.validation.mean_nll() != result.history[-1]["validation_nll"]


@pytest.mark.parametrize("loss", ["cross_entropy", "mse_weighted"])
def test_the_history_is_scored_like_the_run(loss, tiny_study, tiny_cell, tokens):
    """Under the loss's own link if it has one: the learning curves of all losses can be drawn."""
    everything = {"eval_stories": len(tokens.split("validation"))}
    _, result = train(tiny_study(sweep=everything), tiny_cell(loss=loss), tokens)
    assert result.history[-1]["validation_nll"] == pytest.approx(result.validation.mean_nll())


def test_the_learning_rate_warms_up_and_ends_at_its_least(tiny_study):
    schedule = tiny_study(sweep={"max_iters": 100, "warmup_iters": 9}).sweep
    rates = [learning_rate(i, schedule, 2.0, 0.1) for i in range(100)]
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert max(rates) == rates[9] == 2.0
    assert rates[-1] == pytest.approx(0.2)
    assert rates[54] == pytest.approx((2.0 + 0.2) / 2)
    assert all(a > b for a, b in itertools.pairwise(rates[9:]))


def test_the_shortest_schedule_has_its_full_rate(tiny_study):
    schedule = tiny_study(sweep={"max_iters": 1, "warmup_iters": 0}).sweep
    assert learning_rate(0, schedule, 2.0, 0.1) == 2.0


def test_micro_batches_add_up_to_the_batch(tiny_study, tiny_cell, tokens, spy):
    """Two micro-batches of two have the same blocks as one of four: both are the same draw."""
    for batch_size, accumulation in ((4, 1), (2, 2)):
        sizes = {"batch_size": batch_size, "accumulation": accumulation}
        train(tiny_study(train=sizes), tiny_cell(dropout=0.0), tokens)
    whole, parts = spy[0], spy[6]
    for a, b in zip(whole, parts):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_gradients_are_clipped_to_the_usual_norm_or_left_alone(tiny_study, tiny_cell, tokens, spy):
    for clip in (0.01, 0.0):
        train(tiny_study(train={"grad_clip": clip}), tiny_cell(), tokens)
    norms = [sum(g.square().sum().item() for g in step) ** 0.5 for step in spy]
    assert norms[0] == pytest.approx(0.01 * norms[6], rel=1e-3)  # the first norm is the usual norm
    assert max(norms[:6]) < 0.02 * norms[6]
    assert min(norms[6:]) > 0.1


def explodes(at: int, factor: float):
    """Cross entropy, multiplied by `factor` at iteration `at`."""
    seen = iter(range(10**6))
    return lambda h, w, y: STRAIGHT(h, w, y) * (factor if next(seen) == at else 1)


@pytest.mark.parametrize(
    ("at", "factor"),
    [
        *itertools.product([0, 3, 5], [math.nan, math.inf, -math.inf]),
        *itertools.product([3, 5], [100.0]),  # the first loss is the reference
    ],
)
def test_a_run_that_blows_up_has_diverged_at_that_iteration(
    tiny_study, tiny_cell, tokens, lossy, at, factor
):
    lossy("mse", explodes(at, factor))
    _, result = train(tiny_study(), tiny_cell(loss="mse"), tokens)
    assert (result.status, result.diverged_at, result.iterations) == ("diverged", at, at)
    assert (result.validation, result.train_nll) == (None, None)
    assert len(result.history) == (at >= 3)
    if at == 0:
        assert result.train_loss is None
    else:
        assert result.train_loss == pytest.approx(math.log(300), rel=0.1)


def test_weights_that_blow_up_behind_a_finite_loss_have_diverged_too(
    tiny_study, tiny_cell, tokens, lossy
):
    """The last step's gradient is not finite, so no later loss can show it."""
    seen = iter(range(10**6))

    def fails(hidden, weight, targets):
        loss = STRAIGHT(hidden, weight, targets)
        return loss + (0 * hidden.sum()).sqrt() if next(seen) == 5 else loss

    lossy("mse", fails)
    _, result = train(tiny_study(), tiny_cell(loss="mse"), tokens)
    assert (result.status, result.diverged_at, result.iterations) == ("diverged", 6, 6)
    assert math.isfinite(result.train_loss)
    assert [row["iteration"] for row in result.history] == [3]


def test_a_validation_score_that_is_not_finite_is_a_divergence(
    tiny_study, tiny_cell, tokens, monkeypatch
):
    """On the whole split, although the scores of the few stories in the history were finite."""
    plain, whole = setup.score_split, len(tokens.split("validation"))

    def score_split(model, split, *given, **options):
        scores = plain(model, split, *given, **options)
        return replace(scores, nll=scores.nll * np.inf) if len(split) == whole else scores

    monkeypatch.setattr(setup, "score_split", score_split)
    _, result = train(tiny_study(sweep={"eval_stories": 1}), tiny_cell(), tokens)
    assert (result.status, result.diverged_at, result.iterations) == ("diverged", 6, 6)
    assert len(result.history) == 2


class Asked(TorchDispatchMode):
    """Records operators whose results the host must wait for on an accelerator."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "_unique2")

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.overloadpacket.__name__
        if name in self.WAITING:
            self.names.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("loss", LOSSES)
def test_a_step_asks_the_device_for_nothing_that_the_host_waits_for(loss, tiny_study, tiny_cell):
    """As on a GPU: with the model's layers, not the CPU's blocks."""
    model = build_model(tiny_study(), tiny_cell(dropout=0.1), 300)
    optimizer = AdamW(model.parameters(), beta1=0.9, beta2=0.95, weight_decay=0.1, clip=1.0)
    ids = torch.arange(32).view(2, 16)
    with Asked() as asked:
        hidden = model(ids).flatten(0, 1)
        LOSSES[loss](hidden, model.output_weight, ids.flatten()).backward()
        optimizer.step(1e-3)
    assert asked.names == []
    with Asked() as asked:
        model(ids).sum().item()
    assert asked.names == ["_local_scalar_dense"]


def test_the_first_divergence_is_found():
    assert first_divergence([2.0, 19.9, 20.0], 10) is None
    assert first_divergence([2.0, 20.1, math.nan], 10) == 1
    assert first_divergence([-2.0, 19.0, -50.0, -math.inf], 10) == 3
    assert first_divergence([math.nan], 10) == 0
    assert first_divergence([2.0, 3.0, 50.0], 10, start=2) == 2


def test_a_corpus_too_small_for_one_block_is_one_line(tiny_study, tiny_cell, tokens):
    study = tiny_study(model={"block_size": 10**5})
    with pytest.raises(SquentropyError, match=r"too few for one block of 100000.*; give more"):
        train(study, tiny_cell(), tokens)


@pytest.mark.skipif(not multiplies_bfloat16(), reason="a processor without bfloat16")
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_bfloat16_comes_near_float32(tiny_study, tiny_cell, tokens, dropout):
    """With the same draws, they differ only by rounding: up to 1 % of the nll after 40 steps."""
    schedule = {"max_iters": 40, "eval_interval": 20, "warmup_iters": 2}
    studies = [
        tiny_study(train={"dtype": dtype}, sweep=schedule)
        for dtype in ("float32", "bfloat16", "bfloat16")
    ]
    runs = [train(study, tiny_cell(dropout=dropout), tokens) for study in studies]
    (_, full), (model, half), (again, _) = runs
    assert same_weights(model, again)
    assert half.train_loss == pytest.approx(full.train_loss, rel=0.01)
    assert half.validation.mean_nll() == pytest.approx(full.validation.mean_nll(), rel=0.01)
    assert half.train_loss != full.train_loss


@pytest.mark.slow
@pytest.mark.parametrize(("dropout", "tolerance"), [(0.0, 1e-4), (0.2, 0.02)])
def test_a_compiled_run_comes_near_a_plain_one(tiny_study, tiny_cell, tokens, dropout, tolerance):
    """With dropout only up to its noise, because a compiled model draws different masks."""
    plain, compiled = (
        train(tiny_study(train={"compile": c}), tiny_cell(dropout=dropout), tokens)[1]
        for c in ("never", "always")
    )
    assert compiled.train_loss == pytest.approx(plain.train_loss, rel=tolerance)


@pytest.mark.slow
def test_every_cell_of_a_process_is_compiled(tiny_study, tiny_cell, tokens, monkeypatch):
    """A row of the grid has more cells than torch's limit of recompilations per function."""
    compiled, compile_it = [], torch.compile

    def backend(graph, inputs):
        compiled.append(cell)
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda model: compile_it(model, backend=backend))
    study = tiny_study(train={"compile": "always"}, sweep={"max_iters": 3, "eval_interval": 3})
    cells = [
        tiny_cell(dropout=dropout, n_layer=n_layer)
        for dropout in (0.0, 0.1, 0.2)
        for n_layer in (1, 2, 3)
    ]
    for cell in cells:
        train(study, cell, tokens)
    assert set(compiled) == set(cells)
