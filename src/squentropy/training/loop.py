"""The training loop of one run.

    squentropy train runs/mine --tokens TOKENS --loss mse --lr 0.0006 --dropout 0.1 --n-layer 8

Every draw is a function of the seed and the micro-batch's number alone: the same seed gives the
same initial weights and the same batches for every loss, and nothing of it depends on what ran
before, or on how many processes share the micro-batches.
"""

import contextlib
import math
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from squentropy.errors import SquentropyError
from squentropy.lm.cpu_block import Noise, keep_freed_memory
from squentropy.lm.devices import pick_device, pick_dtype
from squentropy.lm.model import GPT, Config
from squentropy.lm.optimizer import AdamW
from squentropy.lm.scoring import Scores, fit_on, score_split
from squentropy.losses import LOSSES, fuse_chunks, own_link
from squentropy.study.params import Cell, Schedule, Study, Train
from squentropy.tokens.token_files import Split, TokenFolder
from squentropy.training.distributed import Group
from squentropy.training.resume import Progress, StateFile, Stop

# Losses are looked at in groups on an accelerator, so that it never waits for the host.
CHECK_EVERY = 20


@dataclass
class Result:
    """What a run came to. `status` is ok or diverged; nll in nats per token, None if diverged.

    nll is that of the probabilities that the loss is trained for: softmax, or its inverse link.
    `tempered_nll` is validation's after one temperature fitted on it; None for losses with an
    inverse link, and for the sweep, whose cells are too short to be worth it.
    """

    status: str
    iterations: int
    diverged_at: int | None
    train_loss: float | None
    train_nll: float | None
    validation: Scores | None
    history: list[dict] = field(default_factory=list)
    tempered_nll: float | None = None


def build_model(study: Study, cell: Cell, vocab_size: int) -> GPT:
    """A fresh model; its weights depend on the seed and the shape, never on the loss."""
    torch.manual_seed(cell.seed)
    shape = study.model.model_dump()
    return GPT(Config(vocab_size, n_layer=cell.n_layer, dropout=cell.dropout, **shape))


def learning_rate(iteration: int, schedule: Schedule, lr: float, min_ratio: float) -> float:
    """Linear warm-up, then a cosine from `lr` to `min_ratio * lr` at the last iteration."""
    if iteration < schedule.warmup_iters:
        return lr * (iteration + 1) / (schedule.warmup_iters + 1)
    span = max(1, schedule.max_iters - 1 - schedule.warmup_iters)
    progress = (iteration - schedule.warmup_iters) / span
    return lr * (min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * progress)))


def batches(
    split: Split, params: Train, block: int, seed: int, iteration: int, numbers: range | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The micro-batches of an iteration: inputs and targets, each (batch, block) int64.

    All of them, or those of these numbers.
    """
    draw = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, iteration]))
    starts = draw.integers(0, len(split.ids) - block, size=(params.accumulation, params.batch_size))
    for row in starts if numbers is None else starts[numbers]:
        blocks = np.stack([split.ids[s : s + block + 1] for s in row]).astype(np.int64)
        yield blocks[:, :-1], blocks[:, 1:]


def train(
    study: Study,
    cell: Cell,
    tokens: TokenFolder,
    state: StateFile | None = None,
    stop: Stop | None = None,
    group: Group = Group(),
) -> tuple[GPT, Result]:
    """Train one cell; returns the model and what it came to.

    From its initial weights or, where `state` holds an earlier try of the same run, from there on,
    on a CPU to the same bits. Once `stop` holds a signal, the state is saved and SystemExit raised.
    Every process of a `group` calls it alike and gets the same; the first one saves.
    """
    params, block = study.train, study.model.block_size
    schedule = study.schedule(cell.phase, cell.iterations)
    torch.set_num_threads(params.threads)
    device = pick_device(params.device, params.runs_per_gpu)
    dtype = pick_dtype(params.dtype, device)
    split, validation = tokens.split("train"), tokens.split("validation")
    if len(split.ids) <= block:
        raise SquentropyError(
            f"{tokens.folder}: the train split has {len(split.ids)} tokens, too few for one block "
            f"of {block} and its target; give more stories or a smaller model.block_size"
        )
    model = build_model(study, cell, tokens.vocab_size).to(device)
    compile_it = params.compile == "always" or (params.compile == "auto" and device.type == "cuda")
    if compile_it:
        torch.compiler.reset()  # or, after several cells in one process, it would not compile
    forward = group.wrap(torch.compile(model) if compile_it else model)
    loss_function = LOSSES[cell.loss]
    optimizer = AdamW(
        model.parameters(),
        beta1=params.beta1,
        beta2=params.beta2,
        weight_decay=params.weight_decay,
    )
    check_every = 1 if device.type == "cpu" else CHECK_EVERY
    if compile_it and device.type == "cuda":
        fuse_chunks()
    by_hand = device.type == "cpu" and not compile_it  # see cpu.py
    if by_hand:
        keep_freed_memory()

    link = own_link(cell.loss, study.evaluate.link_floor)
    scoring = {"batch_tokens": study.evaluate.batch_tokens, "dtype": dtype}

    def look(data: Split, temperature: float = 1.0) -> Scores:
        return score_split(
            model, data, tokens.end_of_text, link=link, temperature=temperature, **scoring
        )

    def diverged(at: int) -> tuple[GPT, Result]:
        last_loss = losses[at - 1] if at else None
        return model, Result("diverged", at, at, last_loss, None, None, history)

    tensors = model.state_dict() | optimizer.state()
    progress = state.load(tensors) if state is not None and group.first else Progress()
    progress = group.agree(progress)
    group.copy_from_first(tensors)
    own = group.share(params.accumulation)
    losses, history = progress.losses, progress.history
    pending: list[Tensor] = []
    iterations = range(len(losses), schedule.max_iters)
    bar = tqdm(iterations, desc=cell.name, unit="it", disable=None if group.first else True)
    for iteration in bar:
        total = torch.zeros((), device=device)
        drawn = batches(split, params, block, cell.seed, iteration, own)
        for number, (inputs, targets) in zip(own, drawn):
            since_start = iteration * params.accumulation + number
            noise = Noise(cell.seed, since_start) if by_hand else None
            torch.manual_seed(cell.seed * 2**32 + since_start)  # of dropout, without noise
            x, y = _to_device(inputs, device), _to_device(targets, device)
            with group.gathers(forward, last=number == own[-1]):
                with _autocast(device, dtype):
                    hidden = forward(x, noise=noise).flatten(0, 1)
                    loss = loss_function(hidden, model.output_weight, y.flatten())
                (loss / len(own)).backward()
            total += loss.detach() / params.accumulation
        if params.grad_clip:
            torch.nn.utils.clip_grad_norm_(model.parameters(), params.grad_clip)
        optimizer.step(learning_rate(iteration, schedule, cell.lr, params.min_lr_ratio))
        pending.append(total)

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
                return diverged(bad)
            seconds = max(bar.format_dict["elapsed"], 1e-9)
            rate = (bar.n + 1) * params.accumulation * params.batch_size * block / seconds
            bar.set_postfix_str(f"loss {losses[-1]:.3f}, {rate:,.0f} tokens/s", refresh=False)
        if evaluate_now:
            since = history[-1]["iteration"] if history else 0
            stories = schedule.eval_stories
            entry = {
                "iteration": iteration + 1,
                "train_loss": float(np.mean(losses[since:])),
                "train_nll": look(split.head(stories)).mean_nll(),
                "validation_nll": look(validation.head(stories)).mean_nll(),
            }
            if not all(map(math.isfinite, entry.values())):
                return diverged(iteration + 1)
            history.append(entry)
        if save_now and state is not None and group.first:
            state.save(progress, tensors)
        if stopping:
            bar.close()
            number = stop.signal or signal.SIGTERM  # another process was asked to end
            if group.first:
                name = signal.Signals(number).name
                print(
                    f"squentropy: {cell.name}: {name} after iteration {iteration + 1}",
                    file=sys.stderr,
                )
            raise SystemExit(128 + number)
    scores, tempered = look(validation), None
    if not math.isfinite(scores.mean_nll()):
        return diverged(schedule.max_iters)
    if link is None and cell.phase != "sweep":
        fitted = fit_on(model, validation, tokens.end_of_text, **scoring)
        tempered = look(validation, fitted).mean_nll()
    end = history[-1]
    return model, Result(
        "ok", schedule.max_iters, None, end["train_loss"], end["train_nll"], scores, history,
        tempered,
    )  # fmt: skip


def first_divergence(losses: list[float], factor: float, start: int = 0) -> int | None:
    """The first iteration whose loss is not finite or above `factor` times the first loss.

    Those before `start` are known to be well.
    """
    limit = factor * abs(losses[0])
    new = enumerate(losses[start:], start)
    return next((i for i, v in new if not math.isfinite(v) or v > limit), None)


def _to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Without waiting for a GPU, which meanwhile works on what it was given before."""
    # Contiguous, or the copy would go by way of memory that is not pinned.
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return (
        tensor.pin_memory().to(device, non_blocking=True)
        if device.type == "cuda"
        else tensor.to(device)
    )


def _autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager:
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)
