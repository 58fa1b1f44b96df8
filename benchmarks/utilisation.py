"""A whole study's processor utilisation: operations counted, relative to those possible.

    time make study                                       # prints the seconds
    python benchmarks/utilisation.py --seconds 1100       # --study, --cores

Only the matrix products that training, evaluation and sampling need are counted: per token, 2
operations per weight of a linear layer in the forward pass and 4 in the backward pass, plus the
causal half of attention's two products. For a loss whose gradient needs no logits, its Gram
matrices are counted instead. Norms, softmaxes, the optimizer, start-up and installation are not
counted. The operations possible are seconds x cores x the rate of a 512 x 512 float32 product on
one thread. That rate is measured now, so run this on an idle machine. Prints one line per phase,
then the share.
"""

import argparse
import time
from pathlib import Path

import shared
import torch

from squentropy.base import storage
from squentropy.study.catalogue import loss_info
from squentropy.study.grid import Cell
from squentropy.study.params import Study, load
from squentropy.tokens.token_files import TokenFolder


def product_rate(size: int = 512, seconds: float = 2.0) -> float:
    """Operations per second of float32 products on one thread: the faster of torch's and ours."""
    from squentropy.lm.matmul import times_transposed

    torch.set_num_threads(1)
    a, b = torch.randn(size, size), torch.randn(size, size)
    rates = []
    for product in (torch.mm, times_transposed):
        for _ in range(10):
            product(a, b)
        done, start = 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            product(a, b)
            done += 1
        rates.append(2 * size**3 * done / (time.perf_counter() - start))
    return max(rates)


def body(study: Study, n_layer: int) -> float:
    """Operations per token of the forward pass, without the output matrix."""
    width, block = study.model.n_embd, study.model.block_size
    return n_layer * (2 * 12 * width**2 + 2 * width * block)


def training(study: Study, cell: Cell, iterations: int, classes: int) -> float:
    """Operations of a run's training."""
    width, train = study.model.n_embd, study.train
    tokens = train.batch_size * train.accumulation * study.model.block_size
    head = 2 * classes * width * tokens
    if loss_info(cell.loss).link:  # Gram matrices: D x D products over classes and positions
        head = 2 * width**2 * (classes + tokens)
    return iterations * 3 * (body(study, cell.n_layer) * tokens + head)


def forward(study: Study, n_layer: int, classes: int, tokens: int) -> float:
    """Operations of scoring or sampling so many tokens."""
    return tokens * (body(study, n_layer) + 2 * classes * study.model.n_embd)


def counted(study: Study, root: Path) -> dict[str, float]:
    """Operations by phase of a finished study."""
    checkpoints = root / "checkpoints" / study.study
    tokens = TokenFolder.open(root / "data" / study.study / "tokens")
    classes = tokens.vocab_size
    size = {split: len(tokens.split(split).ids) for split in ("validation", "test")}
    runs = [storage.read_sealed(path) for path in checkpoints.glob("*/**/run.json")]
    sums: dict[str, float] = {}
    for run in runs:
        cell = Cell(**run["cell"])
        flops = training(study, cell, run["iterations"], classes)
        flops += forward(study, cell.n_layer, classes, size["validation"])
        sums[cell.phase] = sums.get(cell.phase, 0.0) + flops
        if cell.phase not in ("sweep", "refine"):
            scored = forward(study, cell.n_layer, classes, size["validation"] + size["test"])
            sums["scores"] = sums.get("scores", 0.0) + scored
        samples = checkpoints / cell.name / "samples.json"
        if samples.exists():
            told = sum(story["tokens"] for story in storage.read_sealed(samples)["stories"])
            stories = forward(study, cell.n_layer, classes, told)
            sums["stories"] = sums.get("stories", 0.0) + stories
    return sums


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--study", action="append", default=[], help="overlay; may be repeated")
    parser.add_argument("--seconds", type=float, required=True, help="wall time of make study")
    parser.add_argument("--cores", type=int, default=2)
    given = parser.parse_args()
    study = load(["params.yaml", *given.study])
    print(shared.machine(1))
    sums = counted(study, Path())
    total, rate = sum(sums.values()), product_rate()
    shared.table(
        ["phase", "TFLOP", "share"],
        [[name, f"{flops / 1e12:.2f}", f"{flops / total:.0%}"] for name, flops in sums.items()],
    )
    possible = given.seconds * given.cores * rate
    print(
        f"{total / 1e12:.1f} TFLOP in {given.seconds:.0f} s on {given.cores} cores of "
        f"{rate / 1e9:.0f} GFLOP/s: {total / possible:.1%} of what could have been done"
    )


if __name__ == "__main__":
    main()
