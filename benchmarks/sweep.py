"""Cells per hour of the default study's sweep, against the original study's method.

    python benchmarks/sweep.py --nanogpt PATH    # PATH: a checkout of karpathy/nanoGPT

Ours is `squentropy sweep` with one process per row of the grid, one thread each, and as many at
once as there are cores, as in the workflow; --rows sets the number of rows, cross_entropy's first.
The original study's method is one process of nanoGPT's train.py per cell, one after the other, with
all threads: here a cell of each depth at --dropout, with the sizes and the schedule of params.yaml,
on random tokens of the same vocabulary. Both include start-up and evaluation. A cell of ours scores
`sweep.eval_stories` stories of train and of validation at each evaluation, and then the whole
validation split. nanoGPT evaluates two splits, before and after training; eval_iters is set so that
it scores as many tokens. nanoGPT's cells run before ours and after; the mean counts. Prints a
Markdown table.
"""

import argparse
import math
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import shared

from squentropy.study.params import Study, load
from squentropy.tokens.token_files import TokenFolder

ROOT = Path(__file__).parents[1]
NANOGPT_TOKENS = {"train": 1_000_000, "val": 100_000}
# Keep byte code, like the Makefile: without it, every process compiles torch's modules again.
ENVIRONMENT = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}


def squentropy(command: str, *arguments: str | Path) -> None:
    program = Path(sys.executable).with_name("squentropy")
    subprocess.run(
        [program, command, *arguments],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        check=True,
    )


def make_tokens(folder: Path, params: list[str | Path]) -> TokenFolder:
    squentropy("corpus", folder / "corpus", *params)
    squentropy("tokenize", folder / "corpus", folder / "tokens", *params)
    return TokenFolder.open(folder / "tokens")


def make_nanogpt_folder(folder: Path, nanogpt: Path, vocab_size: int) -> None:
    """The files that train.py needs in its folder: its configurator, and the data set x."""
    data = folder / "data" / "x"
    data.mkdir(parents=True)
    (folder / "configurator.py").symlink_to(nanogpt / "configurator.py")
    draw = np.random.default_rng(0)
    for split, tokens in NANOGPT_TOKENS.items():
        draw.integers(0, vocab_size, tokens, dtype=np.uint16).tofile(data / f"{split}.bin")
    (data / "meta.pkl").write_bytes(pickle.dumps({"vocab_size": vocab_size}))


def eval_iters(study: Study, tokens: TokenFolder) -> int:
    """nanoGPT's batches per evaluation of a split that score as many tokens as ours."""
    train, validation = tokens.split("train"), tokens.split("validation")
    stories = study.sweep.eval_stories
    looks = math.ceil(study.sweep.max_iters / study.sweep.eval_interval)
    heads = len(train.head(stories).ids) + len(validation.head(stories).ids)
    scored = looks * heads + len(validation.ids)
    evaluations, splits = 2, 2
    a_batch = study.train.batch_size * study.model.block_size
    return max(1, round(scored / (evaluations * splits * a_batch)))


def run_nanogpt(
    folder: Path, nanogpt: Path, study: Study, max_iters: int, evaluated: int, **cell: float
) -> None:
    sweep, lr = study.sweep, study.sweep.lr[-1]
    settings = {
        "dataset": "x",
        "out_dir": "out",
        "device": "cpu",
        "dtype": "float32",
        "compile": False,
        "wandb_log": False,
        "always_save_checkpoint": False,
        "n_embd": study.model.n_embd,
        "n_head": study.model.n_head,
        "block_size": study.model.block_size,
        "bias": study.model.bias,
        "batch_size": study.train.batch_size,
        "gradient_accumulation_steps": study.train.accumulation,
        "learning_rate": lr,
        "min_lr": study.train.min_lr_ratio * lr,
        "lr_decay_iters": sweep.max_iters,
        "warmup_iters": sweep.warmup_iters,
        "max_iters": max_iters,  # train.py makes one more
        "eval_interval": max_iters,
        "eval_iters": evaluated,
        **cell,
    }
    words = (f"--{key}={value}" for key, value in settings.items())
    subprocess.run(
        [sys.executable, "-W", "ignore", nanogpt / "train.py", *words],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        check=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nanogpt", type=Path, required=True, help="checkout of nanoGPT")
    parser.add_argument("--rows", type=int, default=2, help="rows of the grid that ours runs")
    parser.add_argument("--dropout", type=float, nargs="+", default=[0.1], help="nanoGPT's cells")
    parser.add_argument("--params", type=Path, nargs="+", default=[ROOT / "params.yaml"])
    options = parser.parse_args()
    nanogpt = options.nanogpt.resolve()
    params = [word for path in options.params for word in ("--params", path)]
    study, cores = load(options.params), len(os.sched_getaffinity(0))
    # Each loss's largest learning rate first.
    rows = [(loss, lr) for loss in study.sweep.losses for lr in reversed(study.sweep.lr)]
    rows = rows[: options.rows]

    threads = f"{study.train.threads} a row of ours, all {cores} for nanoGPT"
    print(shared.machine(threads), flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tokens = make_tokens(folder, params)
        make_nanogpt_folder(folder / "nanogpt", nanogpt, tokens.vocab_size)
        evaluated = eval_iters(study, tokens)
        cells = [(n, dropout) for n in study.sweep.n_layer for dropout in options.dropout]

        def theirs(max_iters: int) -> float:
            """Seconds of all of nanoGPT's cells."""
            start = time.perf_counter()
            for n_layer, dropout in cells:
                run_nanogpt(
                    folder / "nanogpt",
                    nanogpt,
                    study,
                    max_iters,
                    evaluated,
                    n_layer=n_layer,
                    dropout=dropout,
                )
            return time.perf_counter() - start

        def sweep(row: tuple[str, float]) -> None:
            loss, lr = row
            place = ("--tokens", folder / "tokens", "--loss", loss, "--lr", str(lr))
            squentropy("sweep", folder / "checkpoints", *place, *params)

        def ours() -> float:
            """Seconds of all of our rows."""
            start = time.perf_counter()
            with ThreadPoolExecutor(cores // study.train.threads) as pool:
                list(pool.map(sweep, rows))
            return time.perf_counter() - start

        # Not counted: the first start of each program on this machine.
        run_nanogpt(folder / "nanogpt", nanogpt, study, 1, 1, n_layer=1, dropout=0.0)
        subprocess.run(
            [sys.executable, "-c", "import squentropy.runs.weights"], env=ENVIRONMENT, check=True
        )

        before, own, after = theirs(study.sweep.max_iters), ours(), theirs(study.sweep.max_iters)

    our_cells = len(rows) * len(study.sweep.dropout) * len(study.sweep.n_layer)
    our_rate = 3600 * our_cells / own
    their_rate = 3600 * len(cells) / statistics.mean((before, after))
    print(
        f"eval_iters of nanoGPT: {evaluated}; its seconds before {before:.1f}, after {after:.1f}\n"
    )
    shared.table(
        [f"study {study.study}", "cells", "seconds", "cells an hour"],
        [
            ["`squentropy sweep`", str(our_cells), f"{own:.1f}", f"{our_rate:,.0f}"],
            [
                "nanoGPT's `train.py`, a process a cell",
                str(len(cells)),
                f"{statistics.mean((before, after)):.1f}",
                f"{their_rate:,.0f}",
            ],
            ["ratio", "", "", f"{our_rate / their_rate:.2f}"],
        ],
    )


if __name__ == "__main__":
    main()
