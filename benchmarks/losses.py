"""Time and peak memory of the losses, forward and backward, against whole logits.

    python benchmarks/losses.py                    # GPT-2's vocabulary, two threads
    python benchmarks/losses.py --rounds 1 --classes 4096
    python benchmarks/losses.py --threads 1 --busy --no-growth      # beside other work

Ours are the functions of `squentropy.losses`. The comparators form the logits of all positions: the
naive formulas with a one-hot matrix, as tests/test_losses.py defines the losses, and
`F.cross_entropy`; if torch has `F.linear_cross_entropy`, that too, in chunks. Inputs are random, in
float32. Times are medians of rounds in which all take turns, after a warm-up; with --busy they are
processor time instead of wall time. Peak memory is measured in a process that does a single pass;
start is its memory before that pass: torch, hidden states, output matrix and targets. Prints three
Markdown tables, and writes the first to benchmarks/results/losses.csv, which benchmarks/cost.py
draws.
"""

import argparse
import csv
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import shared
import torch
import torch.nn.functional as F
from torch import Tensor

from squentropy.losses import LOSSES

POSITIONS = (2048, 4096, 8192, 16384)  # in the table of memory by N
COMPARED = ("mse_weighted", "squentropy", "squentropy_weighted")
WITHOUT_LOGITS = ("spherical", "taylor")
OURS = ("cross_entropy", *COMPARED, "z_loss", "brier", *WITHOUT_LOGITS)


def naive_squares(logits: Tensor, targets: Tensor, true_weight: float) -> Tensor:
    """sum_j (onehot_j - f_j)^2 with the true class's term times `true_weight`, (N,)."""
    onehot = F.one_hot(targets, logits.shape[1]).to(logits.dtype)
    return ((onehot - logits).square() * (1 + (true_weight - 1) * onehot)).sum(-1)


def naive_mse_weighted(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    logits = hidden @ weight.T
    return naive_squares(logits, targets, 100.0).mean() / len(weight)


def naive_squentropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    logits = hidden @ weight.T
    squared = naive_squares(logits, targets, 0.0).mean() / (len(weight) - 1)
    return F.cross_entropy(logits, targets) + squared


def naive_squentropy_weighted(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    logits = hidden @ weight.T
    squared = naive_squares(logits, targets, 65.0).mean() / len(weight)
    return F.cross_entropy(logits, targets) + squared


def torch_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(hidden @ weight.T, targets)


def torch_linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    # Without options it would form the whole logits, as above.
    options = torch.nn.LinearCrossEntropyOptions()
    return F.linear_cross_entropy(hidden, weight, targets, options=options)


CONTESTANTS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "naive mse_weighted": naive_mse_weighted,
    "naive squentropy": naive_squentropy,
    "naive squentropy_weighted": naive_squentropy_weighted,
    "F.cross_entropy": torch_cross_entropy,
    **{f"our {name}": LOSSES[name] for name in OURS},
}
if hasattr(F, "linear_cross_entropy") and hasattr(torch.nn, "LinearCrossEntropyOptions"):
    CONTESTANTS["F.linear_cross_entropy, chunked"] = torch_linear_cross_entropy


def problem(positions: int, options: argparse.Namespace) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, an output matrix for which the logits have unit variance, and targets."""
    torch.manual_seed(0)
    hidden = torch.randn(positions, options.width, requires_grad=True)
    weight = torch.randn(options.classes, options.width).mul_(options.width**-0.5)
    return hidden, weight.requires_grad_(), torch.randint(options.classes, (positions,))


def forward_backward(
    name: str,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Seconds of one pass."""
    start = clock()
    torch.autograd.grad(CONTESTANTS[name](hidden, weight, targets), (hidden, weight))
    return clock() - start


def measure_memory(name: str, positions: int, options: argparse.Namespace) -> tuple[float, float]:
    """Memory of a fresh process in MB: before one pass, and at its peak."""
    shape = ["--positions", positions, "--width", options.width, "--classes", options.classes]
    arguments = ["--threads", options.threads, *shape, "--memory-of", name]
    done = subprocess.run(
        [sys.executable, __file__, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    start, peak = map(float, done.stdout.split())
    return start, peak


def print_memory(options: argparse.Namespace) -> None:
    """The work of `measure_memory`'s fresh process."""
    inputs = problem(options.positions, options)
    start = psutil.Process().memory_info().rss
    forward_backward(options.memory_of, *inputs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    print(start / 1e6, peak / 1e6)


def write(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=shared.ROUNDS)
    parser.add_argument("--positions", type=int, default=2048, help="N")
    parser.add_argument("--width", type=int, default=256, help="D")
    parser.add_argument("--classes", type=int, default=50257, help="C")
    parser.add_argument("--busy", action="store_true", help="time of the processor, not the wall")
    parser.add_argument("--no-growth", action="store_true", help="no table of memory by N")
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.busy else time.perf_counter
    if options.memory_of:
        print_memory(options)
        return

    print(shared.machine(options.threads), flush=True)
    # Memory first: on Linux children inherit a process's peak, and this one is still small.
    memory = {name: measure_memory(name, options.positions, options) for name in CONTESTANTS}
    by_positions = {
        name: [measure_memory(f"our {name}", n, options) for n in POSITIONS]
        for name in (() if options.no_growth else OURS)
    }
    inputs = problem(options.positions, options)
    seconds = shared.alternate(
        {name: (lambda name=name: forward_backward(name, *inputs, clock)) for name in CONTESTANTS},
        options.rounds,
    )

    shape = f"N = {options.positions:,}, D = {options.width:,}, C = {options.classes:,}"
    shared.table(
        [shape, "seconds", "start, MB", "peak, MB", "above start, MB"],
        [
            [name, f"{seconds[name]:.3f}", f"{start:,.0f}", f"{peak:,.0f}", f"{peak - start:,.0f}"]
            for name, (start, peak) in memory.items()
        ],
    )

    write(
        Path(__file__).with_name("results") / "losses.csv",
        [
            {"loss": name, "seconds": round(seconds[name], 4), "start_mb": round(start),
             "peak_mb": round(peak), "positions": options.positions, "width": options.width,
             "classes": options.classes, "threads": options.threads, **shared.versions()}
            for name, (start, peak) in memory.items()
        ],
    )  # fmt: skip

    pairs = [(f"naive {name}", f"our {name}") for name in COMPARED]
    pairs += [("F.cross_entropy", "our cross_entropy"), ("our squentropy", "our cross_entropy")]
    pairs += [("our cross_entropy", f"our {name}") for name in WITHOUT_LOGITS]
    if "F.linear_cross_entropy, chunked" in CONTESTANTS:
        pairs += [("F.linear_cross_entropy, chunked", "our cross_entropy")]
    rows = []
    for other, ours in pairs:
        (other_start, other_peak), (our_start, our_peak) = memory[other], memory[ours]
        above = (our_peak - our_start) / (other_peak - other_start)
        time_ratio = seconds[other] / seconds[ours]
        rows.append(
            [other, ours, f"{time_ratio:.2f}", f"{our_peak / other_peak:.3f}", f"{above:.3f}"]
        )
    shared.table(["A", "B", "time, A / B", "peak memory, B / A", "memory above start, B / A"], rows)
    if options.no_growth:
        return

    # Peak minus start is a constant that depends on D and C, plus a few times N D. The last column
    # is that factor, from the first N to the last; with whole logits it would be C / D higher.
    def matrices(megabytes: float, positions: int) -> float:
        return megabytes * 1e6 / (4 * positions * options.width)

    rows = []
    for name, measured in by_positions.items():
        above = [peak - start for start, peak in measured]
        cells = [f"{mb:,.0f} ({matrices(mb, n):.1f})" for mb, n in zip(above, POSITIONS)]
        grown = matrices(above[-1] - above[0], POSITIONS[-1] - POSITIONS[0])
        rows.append([name, *cells, f"{grown:.1f}"])
    whole = options.classes / options.width
    shared.table(
        [
            "ours, MB above start (and over N D floats)",
            *(f"N = {n:,}" for n in POSITIONS),
            f"growth over N D floats (whole logits: {whole:.0f} or more)",
        ],
        rows,
    )


if __name__ == "__main__":
    main()
