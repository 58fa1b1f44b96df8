"""The checks of gpu.py: whether the CPU tests' results hold on a GPU, and what only a GPU has.

python benchmarks/gpu.py gpu.json --parts checks
"""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from gpu_part import ROOT, Part, Trained
from torch import Tensor

from squentropy.base.errors import Interrupted
from squentropy.lm import terms
from squentropy.lm.matmul import times_transposed, transposed_times
from squentropy.lm.model import GPT, Config
from squentropy.losses import LOSSES, fuse_chunks

TINY = Config(300, 16, 2, 2, 32, 0.0, False, "alibi")
SMALL = Config(2048, 128, 2, 4, 128, 0.0, False, "alibi")


def error(got: Tensor, expected: Tensor) -> float:
    """Norm of the difference, relative to the norm of `expected`."""
    expected = expected.double().cpu()
    return ((got.double().cpu() - expected).norm() / expected.norm()).item()


def at_most(errors: dict[str, float], limits: dict[str, float]) -> dict[str, Any]:
    """The errors. Raises AssertionError if any exceeds its limit."""
    over = {name: each for name, each in errors.items() if not each <= limits[name]}
    assert not over, f"errors {over} above {limits}"
    return {"errors": {name: f"{each:.2g}" for name, each in errors.items()}}


def products(part: Part) -> dict[str, Any]:
    """Half-precision products, summed and returned in float32; a CPU rounds them to bfloat16."""
    size = 64 if part.miniature else 2048
    errors, limits = {}, {}
    for dtype in (torch.bfloat16, torch.float16):
        a, b = torch.randn(2, size, size, device=part.device).to(dtype)
        for name, got, expected in (
            ("a bT", times_transposed(a, b), a.double() @ b.double().T),
            ("aT b", transposed_times(a, b), a.double().T @ b.double()),
        ):
            assert got.dtype == torch.float32
            errors[f"{name}, {dtype}"] = error(got, expected)
            limits[f"{name}, {dtype}"] = 1e-5 if part.device.type == "cuda" else 1e-2
    return at_most(errors, limits)


def losses(part: Part) -> dict[str, Any]:
    """Value and gradients against float64 on the CPU, which tests/test_losses.py checks."""
    positions, width, classes = (600, 16, 100) if part.miniature else (1100, 256, 5000)
    torch.manual_seed(0)
    hidden = torch.randn(positions, width, dtype=torch.float64)
    weight = torch.randn(classes, width, dtype=torch.float64) * width**-0.5
    targets = torch.randint(classes, (positions,))

    def passed(loss: str, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
        h, w = (t.to(device, dtype).requires_grad_() for t in (hidden, weight))
        value = LOSSES[loss](h, w, targets.to(device))
        return [value.detach(), *torch.autograd.grad(value, (h, w))]

    def largest(loss: str, exact: list[Tensor]) -> float:
        return max(map(error, passed(loss, torch.float32, part.device), exact))

    errors = dict.fromkeys(("float32", "float32, fused", "bfloat16, fused"), 0.0)
    for loss in LOSSES:
        exact = passed(loss, torch.float64, torch.device("cpu"))
        plain = largest(loss, exact)
        try:
            fuse_chunks(part.backend)
            fused = largest(loss, exact)
            with part.half():
                half = largest(loss, exact)
        finally:
            terms._backend = None
        for name, each in zip(errors, (plain, fused, half), strict=True):
            errors[name] = max(errors[name], each)
    return at_most(errors, dict(zip(errors, (1e-4, 1e-4, 2e-2), strict=True)))


def compiled_model(part: Part) -> dict[str, Any]:
    config = TINY if part.miniature else SMALL
    model = GPT(config).to(part.device)
    ids = torch.randint(config.vocab_size, (4, config.block_size), device=part.device)
    push = torch.randn(4, config.block_size, config.n_embd, device=part.device)

    def passed(forward) -> list[Tensor]:
        hidden = forward(ids)
        hidden.backward(push)
        gradients = [p.grad for p in model.parameters()]
        model.zero_grad(set_to_none=True)
        return [hidden.detach(), *gradients]

    compiled = part.compiled(model)
    plain = passed(model)
    errors = {"float32": max(map(error, passed(compiled), plain))}
    with part.half():
        errors["bfloat16"] = max(map(error, passed(compiled), plain))
    return at_most(errors, {"float32": 1e-3, "bfloat16": 5e-2})


def no_waits(part: Part) -> dict[str, Any]:
    """The host queues one step after another without waiting for any."""
    trained = Trained(part, TINY if part.miniature else SMALL)
    shape = (2, 4, trained.config.block_size)
    try:
        for loss in LOSSES:
            x, y = torch.randint(trained.config.vocab_size, shape, device=part.device)
            for _ in range(2):
                trained.step(loss, x, y)
            if part.device.type == "cuda":
                torch.cuda.set_sync_debug_mode("error")
            for _ in range(2):
                trained.step(loss, x, y)
            if part.device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")
    finally:
        if part.device.type == "cuda":
            torch.cuda.set_sync_debug_mode("default")
        terms._backend = None
    return {"losses": len(LOSSES)}


def no_whole_logits(part: Part) -> dict[str, Any]:
    """A loss's memory beyond its inputs, as a share of the whole logits' memory."""
    if part.device.type != "cuda":
        return {"skipped": "torch does not count a CPU's memory"}
    positions, width, classes = 131072, 768, 50257
    hidden = torch.randn(positions, width, device=part.device, requires_grad=True)
    weight = (torch.randn(classes, width, device=part.device) * width**-0.5).requires_grad_()
    targets = torch.randint(classes, (positions,), device=part.device)
    shares = {}
    for loss in LOSSES:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        with part.half():
            LOSSES[loss](hidden, weight, targets).backward()
        shares[loss] = (torch.cuda.max_memory_allocated() - before) / (4 * positions * classes)
        hidden.grad = weight.grad = None
    return at_most(shares, dict.fromkeys(shares, 0.25))


class _After:
    """Like resume.Stop, with a signal that arrives after `times` queries."""

    def __init__(self, times: int):
        self.times = times

    @property
    def signal(self) -> int | None:
        self.times -= 1
        return signal.SIGTERM if self.times < 0 else None


def resume(part: Part) -> dict[str, Any]:
    """Interrupt and resume a run: bit-identical on a CPU."""
    from gpu_study import study_and_tokens

    from squentropy.study.grid import Cell
    from squentropy.training.loop import train
    from squentropy.training.resume import StateFile

    with tempfile.TemporaryDirectory() as folder:
        study, tokens = study_and_tokens(Path(folder), part, compile="never")
        cell = Cell("sweep", "squentropy", 0.003, 0.1, 2, 1)
        straight, _ = train(study, cell, tokens)
        state = StateFile(Path(folder), "run", {})
        try:
            train(study, cell, tokens, state, _After(study.sweep.max_iters // 2))
            raise AssertionError("the run was not interrupted")
        except Interrupted:
            assert state.path.exists()
        resumed, _ = train(study, cell, tokens, state)
    pairs = zip(resumed.parameters(), straight.parameters(), strict=True)
    worst = max(error(a.detach(), b.detach()) for a, b in pairs)
    return at_most({"weights": worst}, {"weights": 1e-3 if part.device.type == "cuda" else 0.0})


def stacked(part: Part) -> dict[str, Any]:
    """Compiled cells trained at once against each alone; in float32, so that errors are visible."""
    from gpu_study import study_and_tokens

    from squentropy.study.grid import Cell
    from squentropy.training.loop import train
    from squentropy.training.stacked import train_stack

    cells = [
        Cell("sweep", loss, lr, 0.0, 2, 1)
        for loss, lr in (("cross_entropy", 0.003), ("mse", 0.001), ("squentropy", 0.0003))
    ]
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        study, tokens = study_and_tokens(Path(folder), part, compile="auto", dtype="float32")
        plain = study.model_copy(
            update={"train": study.train.model_copy(update={"compile": "never"})}
        )
        for cell, _, result in train_stack(study, cells, tokens):
            _, alone = train(plain, cell, tokens)
            for key in ("train_loss", "train_nll"):
                expected = getattr(alone, key)
                worst = max(worst, abs(getattr(result, key) / expected - 1))
    terms._backend = None
    return at_most({"losses": worst}, {"losses": 1e-3})


CLAIM = """
import sys
sys.path.insert(0, sys.argv[1])
from squentropy.base.errors import SquentropyError
from squentropy.lm.devices import claim, pick_device
from pathlib import Path
import torch
try:
    if sys.argv[2] == "cuda":
        print(torch.ones(9, device=pick_device("cuda", 2)).sum().item(), flush=True)
    else:
        print(9.0 + claim(["rehearsal"], Path(sys.argv[3]), 2), flush=True)
except SquentropyError as error:
    print(error, flush=True)
sys.stdin.read()
"""


def sharing(part: Part) -> dict[str, Any]:
    """With `runs_per_gpu` 2, two processes share the GPU and work on it; a third is refused."""
    with tempfile.TemporaryDirectory() as folder:
        said = list(_claims(part, folder))
    assert said[:2] == ["9.0", "9.0"], said
    assert "in use by 2 of these runs" in said[2], said
    return {"processes": 2}


def _claims(part: Part, folder: str) -> Iterator[str]:
    words = [sys.executable, "-c", CLAIM, str(ROOT / "src"), part.device.type, folder]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    environment = os.environ | {"TMPDIR": folder, "CUDA_VISIBLE_DEVICES": "0"}
    processes = []
    try:
        for _ in range(3):
            processes.append(subprocess.Popen(words, text=True, env=environment, **pipes))
            yield processes[-1].stdout.readline().strip()
    finally:
        for process in processes:
            process.communicate()  # closing its input ends it


CHECKS = {
    "the compiled model is the plain one": compiled_model,  # gpu.py uses this name
    "products of half precision come in float32": products,
    "every loss, its chunks fused, is that of float64": losses,
    "a step has the host wait for nothing": no_waits,
    "no loss holds whole logits": no_whole_logits,
    "a run that was interrupted goes on": resume,
    "cells at once are cells one by one": stacked,
    "two runs share a GPU and a third is refused": sharing,
}


def run(part: Part) -> None:
    for what, check in CHECKS.items():
        part.attempt(what, lambda check=check: check(part))
