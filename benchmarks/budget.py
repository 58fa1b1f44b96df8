"""What a study would cost: work, processor and GPU hours, money, disk.

    python benchmarks/budget.py data/sample
    python benchmarks/budget.py data/sample --utilisation 0.4 --price H100=2.5 A100=1.5

data/sample contains corpus/ and tokens/ of a sample of the study's stories, from which the sizes of
the whole are estimated. The study is studies/tinystories.yaml, unless --params names others.

Work is counted from the study's parameters. The forward pass of a token costs 2 FLOPs for each
weight of a matrix, output layer included, and 4 n_layer n_embd block_size for attention over a
whole block; forward and backward cost three times that (Chowdhery et al. 2022, arXiv 2204.02311,
appendix B). Final runs are counted with the deepest model of the grid. Savings of a loss in the
output layer, as with MSE, are not subtracted; sampling stories is not included.

Processor hours are this work at the speed of a training step measured now: the study's shallowest
model, one block, cross entropy, float32, one thread, by processor time. GPU hours are not measured:
they are the work / (peak * utilisation), with the vendor's peak for bfloat16 and a utilisation that
you assume. Give the prices of a GPU hour yourself. Corpus and tokens take the times of
results/scale.csv, at the largest number of stories there. Prints Markdown tables.
"""

import argparse
import csv
import json
import math
import statistics
import time
from dataclasses import astuple, dataclass
from pathlib import Path

import shared
import torch
import training

from squentropy.corpus.repeats import RECORD
from squentropy.study import disk
from squentropy.study.params import Study, load

ROOT = Path(__file__).parents[1]
SCALE = Path(__file__).with_name("results") / "scale.csv"
TINYSTORIES = (2_114_719, 5_000, 21_990)  # from the data set's card; 5,000 taken from train
PEAKS = {"H100": 989.4e12, "A100": 312e12, "RTX4090": 165.2e12}
"""Dense bfloat16 FLOPs per second, from NVIDIA's data sheets (H100, A100 SXM) and white paper."""
STEPS = 3


@dataclass(frozen=True)
class Sample:
    """Average size of a story, in tokens and in bytes of parquet."""

    tokens: float
    corpus_bytes: float
    vocab_size: int

    @classmethod
    def read(cls, folder: Path) -> "Sample":
        manifest = json.loads((folder / "tokens/manifest.json").read_text())
        train, size = manifest["splits"]["train"], (folder / "corpus/train.parquet").stat().st_size
        stories = train["stories"]
        return cls(train["tokens"] / stories, size / stories, manifest["vocab_size"])


@dataclass(frozen=True)
class Work:
    """The work of a phase's runs: tokens trained on, tokens scored, and the FLOPs of both."""

    runs: int
    trained: float
    scored: float
    flops: float

    def __add__(self, other: "Work") -> "Work":
        sums = zip(astuple(self), astuple(other), strict=True)
        return Work(*(mine + others for mine, others in sums))


def forward_flops(study: Study, n_layer: int, vocab_size: int) -> float:
    """FLOPs per token."""
    width, block = study.model.n_embd, study.model.block_size
    return 2 * (12 * n_layer * width**2 + vocab_size * width) + 4 * n_layer * width * block


def phases(study: Study, sample: Sample, validation: int, test: int) -> dict[str, Work]:
    """The work of each phase of the study."""
    losses, deepest = len(study.sweep.losses), max(study.sweep.n_layer)
    final = study.final
    # (phase, iterations, depth of each run), with the maximum number of refining runs.
    kinds = [
        ("sweep", None, [cell.n_layer for cell in study.sweep_cells()]),
        ("refine", None, [deepest] * losses * study.refine.max_runs),
        *(("lengths", n, [deepest] * losses * final.length_seeds) for n in final.lengths),
        ("final", None, [deepest] * losses * len(final.seeds)),
        ("reported", None, [cell.n_layer for cell in study.reported_cells()]),
    ]
    done: dict[str, Work] = {}
    for phase, iterations, layers in kinds:
        schedule = study.schedule(phase, iterations)
        trained = study.tokens_trained(phase, iterations)
        looks = math.ceil(schedule.max_iters / schedule.eval_interval)
        stories = 2 * looks * schedule.eval_stories + validation
        stories += test * (phase not in ("sweep", "refine"))
        scored = stories * sample.tokens
        flops = [
            (3 * trained + scored) * forward_flops(study, n_layer, sample.vocab_size)
            for n_layer in layers
        ]
        work = Work(len(layers), len(layers) * trained, len(layers) * scored, sum(flops))
        done[phase] = work + done[phase] if phase in done else work
    return {phase: work for phase, work in done.items() if work.runs}


def processor_rate(study: Study, vocab_size: int) -> float:
    """FLOPs per second of processor time of a training step, with one thread."""
    torch.set_num_threads(1)
    model, n_layer = study.model, min(study.sweep.n_layer)
    step = training.our_step(
        training.Setting(
            n_layer, model.n_embd, model.n_head, model.block_size, vocab_size, 1, 0.0, STEPS
        )
    )
    step()
    seconds = []
    for _ in range(STEPS):
        start = time.process_time()
        step()
        seconds.append(time.process_time() - start)
    done = 3 * model.block_size * forward_flops(study, n_layer, vocab_size)
    return done / statistics.median(seconds)


def processor_seconds_a_story() -> dict[str, float]:
    """Per stage that makes the data, at the largest number of stories measured for it."""
    with SCALE.open(newline="") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: int(row["stories"]))
    every = {row["stage"]: float(row["processor"]) / int(row["stories"]) for row in rows}
    return {stage: every[stage] for stage in ("corpus", "tokenize, gpt2")}


def price(words: str) -> tuple[str, float]:
    """Parse GPU=PRICE."""
    name, _, value = words.partition("=")
    if name not in PEAKS:
        raise argparse.ArgumentTypeError(f"{name}: no such GPU; there are: {', '.join(PEAKS)}")
    return name, float(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", type=Path, help="folder with corpus/ and tokens/ of a sample")
    parser.add_argument(
        "--params",
        type=Path,
        nargs="+",
        default=[ROOT / "params.yaml", ROOT / "studies/tinystories.yaml"],
    )
    parser.add_argument(
        "--stories", type=int, nargs=3, default=TINYSTORIES, help="of train, validation, test"
    )
    parser.add_argument(
        "--utilisation", type=float, nargs="+", default=[0.2, 0.4], help="assumed, of the peak"
    )
    parser.add_argument(
        "--price", type=price, nargs="+", default=[], help="of a GPU's hour, as H100=2.5"
    )
    options = parser.parse_args()
    study, sample = load(options.params), Sample.read(options.data)
    train, validation, test = options.stories
    done = phases(study, sample, validation, test)
    total = sum(work.flops for work in done.values())
    passes = study.final.max_iters * study.train.accumulation * study.train.batch_size
    passes *= study.model.block_size / (train * sample.tokens)

    print(shared.machine(1))
    rate = processor_rate(study, sample.vocab_size)
    print(f"{sample.tokens:.1f} tokens per story; a final run sees train {passes:.1f} times.\n")
    rows = [
        [
            phase,
            f"{work.runs:,}",
            f"{work.trained / 1e9:,.2f}",
            f"{work.scored / 1e9:,.2f}",
            f"{work.flops / 1e15:,.0f}",
            f"{work.flops / rate / 3600:,.0f}",
        ]
        for phase, work in done.items()
    ]
    columns = ["runs", "tokens trained, 1e9", "tokens scored, 1e9", "PFLOPs", "processor hours"]
    shared.table([f"study {study.study}", *columns], rows)
    print(f"Processor hours: {rate / 1e9:.0f} GFLOPs a second, one thread, float32, measured.\n")

    prices = dict(options.price)
    shared.table(
        ["GPU, calculated", "peak, TFLOPs a second", "assumed utilisation", "GPU hours", "price"],
        [
            [
                name,
                f"{peak / 1e12:.0f}",
                f"{used:.0%}",
                f"{hours:,.1f}",
                f"{hours * prices[name]:,.2f}" if name in prices else "—",
            ]
            for name, peak in PEAKS.items()
            for used in options.utilisation
            for hours in [total / (peak * used) / 3600]
        ],
    )
    every = train + validation + test
    shared.table(
        ["data", "processor hours", "as measured for a story, microseconds"],
        [
            [stage, f"{seconds * every / 3600:,.2f}", f"{seconds * 1e6:.0f}"]
            for stage, seconds in processor_seconds_a_story().items()
        ],
    )
    runs, weights = disk.checkpoints(study)
    sizes = {
        "corpus": every * sample.corpus_bytes,
        "tokens": every * (2 * sample.tokens + 8),
        "while the corpus is made: digests of train": RECORD.itemsize * train,
        f"weights of {runs:,} runs": weights,
        "state of a run under way": 3 * disk.weights_bytes(study, max(study.sweep.n_layer)),
    }
    shared.table(["disk", "GB"], [[of, f"{size / 1e9:.2f}"] for of, size in sizes.items()])


if __name__ == "__main__":
    main()
