"""Tokens per second of a training step, ours against nanoGPT's.

    python benchmarks/training.py --nanogpt PATH    # PATH: a checkout of karpathy/nanoGPT
    python benchmarks/training.py --nanogpt PATH --only 4 5    # of SETTINGS, by number

A step is forward, backward, clipping at 1.0 and AdamW, with one thread, on random tokens drawn in
the step. It is in float32, except for our bfloat16 settings, which need a processor that supports
it. Ours is the step of training/loop.py with `cross_entropy`: written-out blocks, its own dropout
masks and AdamW, reused memory. nanoGPT's is the step of its train.py without torch.compile. Each
contestant of each setting has its own process, because allocator settings are per process; only one
process works at a time. Results are medians of rounds after a warm-up, with the same number of
steps in each. The last column is the rate of our step's matrix products relative to that of plain
float32 products (utilisation.py), which are measured as another contestant; norms, softmax and
optimizer are not counted. Prints a Markdown table.
"""

import argparse
import contextlib
import io
import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import shared
import torch
import utilisation
from torch import Tensor

from squentropy.lm.cpu_block import Noise, keep_freed_memory
from squentropy.lm.devices import pick_dtype
from squentropy.lm.model import GPT, Config
from squentropy.lm.optimizer import AdamW
from squentropy.losses import LOSSES

LR, WEIGHT_DECAY, BETAS, GRAD_CLIP = 1e-3, 0.1, (0.9, 0.95), 1.0


@dataclass(frozen=True)
class Setting:
    n_layer: int
    n_embd: int
    n_head: int
    block_size: int
    vocab_size: int
    batch_size: int
    dropout: float
    steps: int  # per round: about one second
    dtype: str = "float32"  # of our products

    def __str__(self) -> str:
        return (
            f"{self.n_layer} layers of {self.n_embd}, {self.n_head} heads, "
            f"block {self.block_size}, vocabulary {self.vocab_size:,}, "
            f"batch {self.batch_size}, dropout {self.dropout:g}, {self.dtype}"
        )

    def shape(self) -> dict[str, int | float | bool]:
        names = ("n_layer", "n_embd", "n_head", "block_size", "vocab_size", "dropout")
        return {name: getattr(self, name) for name in names} | {"bias": False}

    def tokens(self) -> int:
        """Tokens per round."""
        return self.steps * self.batch_size * self.block_size

    def operations(self) -> float:
        """Operations of a round's matrix products, as utilisation.py counts them."""
        body = self.n_layer * (24 * self.n_embd**2 + 2 * self.n_embd * self.block_size)
        return 3 * (body + 2 * self.vocab_size * self.n_embd) * self.tokens()

    def batch(self) -> Tensor:
        """Inputs and targets, (2, batch, block), both contiguous as nanoGPT requires."""
        return torch.randint(self.vocab_size, (2, self.batch_size, self.block_size))


SETTINGS = (
    Setting(8, 64, 4, 128, 2048, 4, dropout=0.1, steps=40),
    Setting(8, 64, 4, 128, 2048, 4, dropout=0.0, steps=40),
    Setting(8, 128, 4, 256, 4096, 16, dropout=0.1, steps=2),
    Setting(16, 64, 2, 64, 512, 2, dropout=0.1, steps=80),  # the first default study's largest
    Setting(2, 128, 4, 160, 2048, 4, dropout=0.1, steps=20),  # the default study's
    Setting(2, 128, 4, 160, 2048, 8, dropout=0.0, steps=12),
    Setting(2, 128, 4, 160, 2048, 8, dropout=0.0, steps=12, dtype="bfloat16"),
    Setting(4, 128, 4, 160, 2048, 8, dropout=0.1, steps=6, dtype="bfloat16"),
)
WITH_DROPOUT, WITHOUT_DROPOUT = 0, 1  # settings that differ only in dropout


def our_step(setting: Setting) -> Callable[[], None]:
    keep_freed_memory()
    model = GPT(Config(**setting.shape()))
    optimizer = AdamW(model.parameters(), beta1=BETAS[0], beta2=BETAS[1], weight_decay=WEIGHT_DECAY)
    loss_function = LOSSES["cross_entropy"]
    iterations = itertools.count()
    dtype = pick_dtype(setting.dtype, torch.device("cpu"))

    def step() -> None:
        x, y = setting.batch()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            hidden = model(x, noise=Noise(0, next(iterations))).flatten(0, 1)
            loss = loss_function(hidden, model.output_weight, y.flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), GRAD_CLIP)
        optimizer.step(LR)
        loss.item()  # both read every loss

    return step


def nanogpt_step(setting: Setting, path: Path) -> Callable[[], None]:
    theirs = shared.nanogpt_model(path)
    model = theirs.GPT(theirs.GPTConfig(**setting.shape()))
    optimizer = model.configure_optimizers(WEIGHT_DECAY, LR, BETAS, "cpu")

    def step() -> None:
        x, y = setting.batch()
        _, loss = model(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), GRAD_CLIP)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss.item()

    return step


def serve(options: argparse.Namespace) -> None:
    """A contestant's process: for each line of input, print the seconds of a round."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    setting = SETTINGS[options.setting]
    with contextlib.redirect_stdout(io.StringIO()):  # nanoGPT prints its number of parameters
        if options.serve == "ours":
            step = our_step(setting)
        else:
            step = nanogpt_step(setting, options.nanogpt)
    for _ in sys.stdin:
        start = time.perf_counter()
        for _ in range(setting.steps):
            step()
        print(time.perf_counter() - start, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nanogpt", type=Path, required=True, help="checkout of nanoGPT")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=shared.ROUNDS)
    numbers = range(len(SETTINGS))
    parser.add_argument("--only", type=int, nargs="+", choices=numbers, default=numbers)
    parser.add_argument("--serve", choices=["ours", "nanogpt"], help=argparse.SUPPRESS)
    parser.add_argument("--setting", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options)
        return

    def start(name: str, number: int) -> subprocess.Popen:
        shared_options = ["--nanogpt", options.nanogpt, "--threads", options.threads]
        command = [__file__, "--serve", name, "--setting", number, *shared_options]
        return subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(process: subprocess.Popen) -> float:
        print(file=process.stdin, flush=True)
        return float(process.stdout.readline())

    print(shared.machine(options.threads), flush=True)
    contestants = list(itertools.product(options.only, ("ours", "nanogpt")))
    processes = {(number, name): start(name, number) for number, name in contestants}
    turns = {key: (lambda of=of: ask(of)) for key, of in processes.items()}
    turns["products"] = lambda: 1 / utilisation.product_rate(seconds=0.5)
    seconds = shared.alternate(turns, options.rounds)
    for process in processes.values():
        process.communicate()  # closing its input ends it

    rows = []
    for number in options.only:
        setting = SETTINGS[number]
        ours, theirs = seconds[number, "ours"], seconds[number, "nanogpt"]
        rates = (f"{setting.tokens() / time_of:,.0f}" for time_of in (ours, theirs))
        rows.append([str(setting), *rates, f"{theirs / ours:.2f}"])
        rows[-1].append(f"{setting.operations() / ours * seconds['products']:.2f}")
    if {WITH_DROPOUT, WITHOUT_DROPOUT} <= set(options.only):
        costs = seconds[WITH_DROPOUT, "ours"] / seconds[WITHOUT_DROPOUT, "ours"]
        rows.append(["dropout 0.1 against dropout 0, own step, time", "", "", f"{costs:.2f}", ""])
    head = ["one training step", "ours, tokens/s", "nanoGPT, tokens/s", "ratio", "share"]
    shared.table(head, rows)


if __name__ == "__main__":
    main()
