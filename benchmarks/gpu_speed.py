"""Measurements of gpu.py in GPT-2's shape: every loss alone and in a step, and nanoGPT's step.

Operations per token are counted as in nanoGPT: 6 per parameter, plus 12 × layers × width × block.
The output matrix is included for every loss. For a loss that forms no logits, MFU is therefore the
value that a step with logits would need to be as fast.
"""

import contextlib
import io
import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import shared
import torch
import torch.nn.functional as F
from gpu_part import Part, Trained
from torch import Tensor

from squentropy.lm import terms
from squentropy.lm.model import Config
from squentropy.losses import LOSSES, fuse_chunks

GPT2 = Config(50257, 1024, 12, 12, 768, 0.0, False)
TINY = Config(300, 32, 2, 2, 32, 0.0, False)
BATCH = 4
BASELINE = "cross_entropy"
PEAKS = {  # dense bfloat16 operations per second, from the vendor's data sheets; first match counts
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H200 NVL": 835e12,
    "H100": 989.4e12,
    "H200": 989.4e12,
    "B200": 2250e12,
    "A100": 312e12,
    "L40S": 362e12,
    "RTX 4090": 165.2e12,
}


def shape(part: Part) -> Config:
    return TINY if part.miniature else GPT2


def peak(part: Part) -> float | None:
    """The vendor's peak rate, by the device's name."""
    name = torch.cuda.get_device_name() if part.device.type == "cuda" else ""
    return next((rate for key, rate in PEAKS.items() if key in name), None)


def seconds_of(part: Part, step: Callable[[], Any], times: int) -> float:
    """Mean seconds per step, over so many steps in a row."""
    part.synchronize()
    start = time.perf_counter()
    for _ in range(times):
        step()
    part.synchronize()
    return (time.perf_counter() - start) / times


def product_rate(part: Part) -> float:
    """Operations per second of bfloat16 products of two square matrices, best of five rounds."""
    size = 256 if part.miniature else 8192
    a, b = torch.randn(2, size, size, device=part.device).bfloat16()
    best = min(seconds_of(part, lambda: a @ b, 10) for _ in range(5))
    return 2 * size**3 / best


def operations(config: Config, parameters: int) -> float:
    """Per token, forward and backward; `parameters` excludes the positions."""
    return 6 * parameters + 12 * config.n_layer * config.n_embd * config.block_size


class Memory:
    """Bytes allocated on the GPU, at most and now; 0 on a CPU."""

    def __init__(self, part: Part):
        self.counts = part.device.type == "cuda"
        if self.counts:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    @property
    def most(self) -> int:
        return torch.cuda.max_memory_allocated() if self.counts else 0

    @property
    def now(self) -> int:
        return torch.cuda.memory_allocated() if self.counts else 0


class Contest:
    """Steps of one batch size that take turns: median seconds and peak memory of each."""

    def __init__(self, part: Part, config: Config, parameters: int, batch: int):
        self.part, self.batch, self.tokens = part, batch, batch * config.block_size
        self.operations = operations(config, parameters)
        self.steps: dict[str, Callable[[], None]] = {}
        self.seconds: dict[str, list[float]] = {}
        self.most: dict[str, int] = {}

    def enter(self, name: str, step: Callable[[], None]) -> None:
        """Warm up, which compiles the step, and measure a step's memory."""
        for _ in range(2):
            step()
        memory = Memory(self.part)
        step()
        self.part.synchronize()
        self.most[name], self.steps[name], self.seconds[name] = memory.most, step, []

    def compete(self, until: float, rounds: int) -> None:
        """Take turns of half a second each: at least one round, at most `rounds` if time allows."""
        times = {
            name: max(1, round(0.5 / seconds_of(self.part, step, 1)))
            for name, step in self.steps.items()
        }
        if self.part.miniature:
            times, rounds = dict.fromkeys(times, 1), 1
        for number in range(rounds):
            if number and time.monotonic() > until:
                return
            for name, step in self.steps.items():
                self.seconds[name].append(seconds_of(self.part, step, times[name]))

    def figures(self, measured_rate: float) -> Iterator[tuple[str, dict[str, Any]]]:
        base = self.seconds.get(BASELINE)
        for name, each in self.seconds.items():
            seconds, vendors = statistics.median(each), peak(self.part)
            rate = self.tokens / seconds
            figures = {
                "batch": self.batch,
                "tokens_per_second": rate,
                "step_ms": 1e3 * seconds,
                "mfu": rate * self.operations / vendors if vendors else None,
                "share_of_measured_products": rate * self.operations / measured_rate,
                "peak_memory_gb": self.most[name] / 1e9,
                "rounds": len(each),
            }
            if base:
                figures["time_over_cross_entropy"] = seconds / statistics.median(base)
            yield name, figures


def tell(part: Part, contest: Contest, who: str, measured_rate: float) -> None:
    for name, figures in contest.figures(measured_rate):
        part.tell(f"{who}, batch {contest.batch}, {name}", **figures)


def run_losses(part: Part) -> None:
    """Forward and backward pass of each loss alone, and of F.cross_entropy on whole logits."""
    positions, width, classes = (600, 32, 300) if part.miniature else (65536, 768, 50257)
    hidden = torch.randn(positions, width, device=part.device, requires_grad=True)
    weight = torch.randn(classes, width, device=part.device) * width**-0.5
    weight.requires_grad_()
    targets = torch.randint(classes, (positions,), device=part.device)
    fuse_chunks(part.backend)

    def whole(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(hidden @ weight.T, targets)

    def passed(loss: Callable[..., Tensor]) -> float:
        with part.half():
            value = loss(hidden, weight, targets)
        value.backward()
        hidden.grad = weight.grad = None
        return value.item()

    entries = {"F.cross_entropy on whole logits": part.compiled(whole)}
    entries |= {name: LOSSES[name] for name in LOSSES}
    turns: dict[str, Callable[[], float]] = {}
    memory: dict[str, int] = {}
    for name, loss in entries.items():

        def enter(name: str = name, loss: Callable[..., Tensor] = loss) -> None:
            passed(loss)  # compiles it
            before = Memory(part)
            now = before.now
            passed(loss)
            memory[name] = before.most - now
            turns[name] = lambda: seconds_of(part, lambda: passed(loss), 1 if part.miniature else 5)

        part.attempt(f"loss alone, {name}", enter)
    rounds = 1 if part.miniature else shared.ROUNDS
    for name, seconds in shared.alternate(turns, rounds).items():
        figures = {"ms": 1e3 * seconds, "memory_gb": memory[name] / 1e9}
        part.tell(f"loss alone, {name}", positions=positions, **figures)
    terms._backend = None


def run_ours(part: Part) -> None:
    """Every loss at batch 4, then at the largest batch that fits."""
    rate = math.nan

    def products() -> dict[str, Any]:
        nonlocal rate
        rate = product_rate(part)
        return {"tflops": rate / 1e12, "vendor_tflops": (peak(part) or 0) / 1e12 or None}

    part.attempt("bfloat16 products", products)
    trained = Trained(part, shape(part))
    lasting = Memory(part).now * 4 / 3  # weights and two moments, plus the gradients
    contest = _ours_at(part, trained, BATCH)
    contest.compete(time.monotonic() + 0.4 * part.left, shared.ROUNDS)
    tell(part, contest, "ours", rate)

    most = max(contest.most.values(), default=0)
    batch = largest(part, lasting, most)
    torch.compiler.reset()  # or the loss would be compiled for batches of any size, which is slower
    while batch > BATCH and part.left > 0:
        if part.attempt(f"ours fits, batch {batch}", lambda b=batch: _fits(part, trained, b)):
            contest = _ours_at(part, trained, batch)
            contest.compete(part.until, shared.ROUNDS)
            tell(part, contest, "ours", rate)
            return
        batch = batch * 3 // 4 // BATCH * BATCH


def _ours_at(part: Part, trained: Trained, batch: int) -> Contest:
    contest = Contest(part, trained.config, trained.model.parameter_count(), batch)
    for loss in LOSSES:
        part.attempt(
            f"ours, batch {batch}, {loss}",
            lambda loss=loss: contest.enter(loss, lambda: trained.random_step(loss, batch)),
        )
    return contest


def _fits(part: Part, trained: Trained, batch: int) -> dict[str, Any]:
    memory = Memory(part)
    trained.random_step(BASELINE, batch)
    part.synchronize()
    return {"peak_memory_gb": memory.most / 1e9}


def largest(part: Part, lasting: float, most: int) -> int:
    """Sequences, a multiple of four, that fit in 90 % of the memory beside `lasting`.

    Estimated from the `most` that `BATCH` of them took.
    """
    if part.device.type != "cuda":
        return 2 * BATCH
    total = torch.cuda.get_device_properties(0).total_memory
    each = max(most - lasting, 1) / BATCH
    return min(512, int((0.9 * total - lasting) / each) // BATCH * BATCH)


def run_nanogpt(part: Part) -> None:
    """The step of nanoGPT's train.py, compiled, at batch 4 and at the largest batch that fits."""
    if part.nanogpt is None:
        part.tell("nanoGPT", skipped="no --nanogpt was given")
        return
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    config, rate = shape(part), product_rate(part)
    theirs = shared.nanogpt_model(part.nanogpt)
    names = ("vocab_size", "block_size", "n_layer", "n_head", "n_embd", "dropout", "bias")
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its number of parameters
        model = theirs.GPT(theirs.GPTConfig(**{name: getattr(config, name) for name in names}))
        model.to(part.device)
        optimizer = model.configure_optimizers(0.1, 6e-4, (0.9, 0.95), part.device.type)
    compiled, lasting = part.compiled(model), 4 * Memory(part).now

    def step(batch: int) -> None:
        ids = torch.randint(config.vocab_size, (2, batch, config.block_size), device=part.device)
        with part.half():
            _, loss = compiled(*ids)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    batch, until = BATCH, time.monotonic() + 0.4 * part.left
    while batch >= BATCH and part.left > 0:
        contest = Contest(part, config, model.get_num_params(), batch)

        def enter(contest=contest, batch=batch) -> dict[str, Any]:
            contest.enter("cross entropy", lambda: step(batch))
            return {"peak_memory_gb": contest.most["cross entropy"] / 1e9}

        if part.attempt(f"nanoGPT fits, batch {batch}", enter):
            contest.compete(until, shared.ROUNDS)
            tell(part, contest, "nanoGPT", rate)
            if batch > BATCH:
                return
            batch, until = largest(part, lasting, contest.most["cross entropy"]), part.until
            if batch == BATCH:
                return
        else:
            batch = batch * 3 // 4 // BATCH * BATCH
