"""The training loop of one run: step, evaluate, save.

squentropy train runs/mine --tokens TOKENS --loss mse --lr 0.0006 --dropout 0.1 --n-layer 8
"""

import math
import signal
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from squentropy.base import progress as shown
from squentropy.base.errors import Interrupted
from squentropy.lm.model import GPT
from squentropy.lm.scoring import Scores
from squentropy.study.grid import Cell
from squentropy.study.params import Schedule, Study
from squentropy.tokens.token_files import TokenFolder
from squentropy.training.distributed import Group
from squentropy.training.resume import Progress, StateFile, Stop
from squentropy.training.setup import Setup, set_up

# On an accelerator, losses are checked in groups, so that it never waits for the host.
CHECK_EVERY = 20


@dataclass
class Result:
    """The outcome of a run. `status` is ok or diverged; nll in nats per token, None if diverged.

    The nll is under the probabilities that the loss is trained for: softmax, or the loss's link.
    `tempered_nll` is the validation nll with a temperature fitted on validation; None for losses
    with a link, and for the sweep, whose cells are too short for it to be worthwhile.
    """

    status: str
    iterations: int
    diverged_at: int | None
    train_loss: float | None
    train_nll: float | None
    validation: Scores | None
    history: list[dict] = field(default_factory=list)
    tempered_nll: float | None = None


def train(
    study: Study,
    cell: Cell,
    tokens: TokenFolder,
    state: StateFile | None = None,
    stop: Stop | None = None,
    group: Group = Group(),
) -> tuple[GPT, Result]:
    """Train one cell; returns the model and its result.

    Resumes from `state`, on a CPU to a bit-identical result. All processes of a `group` call this;
    the first saves. Raises Interrupted, with the state saved, once `stop` records a signal.
    """
    run, params = set_up(study, cell, tokens, group), study.train
    schedule = study.schedule(cell.phase, cell.iterations)
    check_every = 1 if run.device.type == "cpu" else CHECK_EVERY
    tensors = run.tensors()
    progress = state.load(tensors) if state is not None and group.first else Progress()
    progress = group.agree(progress)
    group.copy_from_first(tensors)
    losses, history = progress.losses, progress.history
    pending: list[Tensor] = []

    iterations = range(len(losses), schedule.max_iters)
    bar = shown.bar(iterations, cell.name, "iterations", group.first)
    for iteration in bar:
        # --- step -----------------------------------------------------------------------------
        pending.append(run.gradients(iteration))
        run.optimizer.step(learning_rate(iteration, schedule, cell.lr, params.min_lr_ratio))

        # --- look -----------------------------------------------------------------------------
        last = iteration + 1 == schedule.max_iters
        evaluate_now = last or (iteration + 1) % schedule.eval_interval == 0
        stopping = stop is not None and group.any(stop.signal is not None or group.orphaned)
        save_now = stopping or (iteration + 1) % params.state_interval == 0
        if evaluate_now or save_now or len(pending) >= check_every:
            known = len(losses)
            losses += group.add_up(torch.stack(pending)).tolist()
            pending.clear()
            bad = first_divergence(losses, params.divergence, known)
            if bad is not None:
                return run.model, _diverged(bad, progress)
            bar.set_postfix_str(f"loss {losses[-1]:.3f}", refresh=False)
        if evaluate_now:
            entry = _look(run, iteration + 1, losses, history, schedule.eval_stories)
            if not all(map(math.isfinite, entry.values())):
                return run.model, _diverged(iteration + 1, progress)
            history.append(entry)

        # --- save -----------------------------------------------------------------------------
        if save_now and state is not None and group.first:
            state.save(progress, tensors)
        if stopping:
            bar.close()
            # Without a signal here, another process received one.
            number = (stop.signal if stop else None) or signal.SIGTERM
            name = f"{signal.Signals(number).name} after iteration {iteration + 1}"
            raise Interrupted(number, f"{cell.name}: {name}" if group.first else "")

    return run.model, _result(run, schedule.max_iters, progress)


def learning_rate(iteration: int, schedule: Schedule, lr: float, min_ratio: float) -> float:
    """Linear warm-up, then cosine decay from `lr` to `min_ratio * lr` at the last iteration."""
    if iteration < schedule.warmup_iters:
        return lr * (iteration + 1) / (schedule.warmup_iters + 1)
    span = max(1, schedule.max_iters - 1 - schedule.warmup_iters)
    progress = (iteration - schedule.warmup_iters) / span
    return lr * (min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * progress)))


def _result(run: Setup, iterations: int, progress: Progress) -> Result:
    """The result of a run that was trained to the end."""
    scores = run.scores(run.validation)
    if not math.isfinite(scores.mean_nll()):
        return _diverged(iterations, progress)
    tempered = None if run.cell.phase == "sweep" else run.tempered_nll()
    end = progress.history[-1]
    return Result(
        "ok", iterations, None, end["train_loss"], end["train_nll"], scores, progress.history,
        tempered,
    )  # fmt: skip


def _diverged(at: int, progress: Progress) -> Result:
    last_loss = progress.losses[at - 1] if at else None
    return Result("diverged", at, at, last_loss, None, None, progress.history)


def _look(
    run: Setup, iteration: int, losses: list[float], history: list[dict], stories: int
) -> dict[str, float]:
    """One row of the history: the mean loss since the last row, and the nll of a few stories."""
    since = history[-1]["iteration"] if history else 0
    return {
        "iteration": iteration,
        "train_loss": float(np.mean(losses[since:])),
        "train_nll": run.scores(run.train.head(stories)).mean_nll(),
        "validation_nll": run.scores(run.validation.head(stories)).mean_nll(),
    }


def first_divergence(losses: list[float], factor: float, start: int = 0) -> int | None:
    """The first iteration whose loss is not finite or exceeds `factor` times the first loss.

    Iterations before `start` have been checked already.
    """
    limit = factor * abs(losses[0])
    new = enumerate(losses[start:], start)
    return next((i for i, v in new if not math.isfinite(v) or v > limit), None)
