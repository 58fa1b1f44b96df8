"""Time, memory and disk of every stage of a study, as the number of stories grows.

    python benchmarks/scale.py --stories 210000 2100000
    python benchmarks/scale.py --stories 21000000 --folder /big    # with 20 GB free

The train split is so many stories of the grammar, beside params.yaml's validation and test splits.
They are tokenized by a bpe of 3,072 (the grammar's words yield about 3,160, never 4,096) and by
gpt2. Then a study of two losses and a few iterations runs on the bpe tokens, so that the cost of a
stage beyond its start-up is due to the number of stories. Each stage is the command that the
workflow runs, in its own process. Processor seconds cover that process and its children, so they do
not depend on the machine's other work.

Peak memory is the largest sum over these processes of their PSS, sampled ten times per second, so
that shared memory counts once. It excludes the pages of mapped files, which belong to the page
cache and are reclaimed if memory is short; `mapped_mb` includes them. (This is for Linux; elsewhere
both are RSS.) benchmarks/results/scale.csv contains all measurements; the rows of the numbers given
now are replaced. It is printed as a Markdown table.
"""

import argparse
import csv
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import psutil
import shared

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results") / "scale.csv"
INTERVAL = 0.1  # seconds
LOSSES = ("cross_entropy", "squentropy")
OVERLAY = """\
study: scale
corpus: {{source: grammar, grammar: {{train: {stories}}}}}
tokens: {{encoding: {encoding}, vocab_size: 3072}}
sweep: {{losses: [{losses}], lr: [0.0006], dropout: [0.0], n_layer: [8], max_iters: 20,
  warmup_iters: 2, eval_interval: 20}}
final: {{seeds: [1], max_iters: 20, warmup_iters: 2, eval_interval: 20, reported: null}}
sample: {{stories: 1, max_tokens: 40}}
"""


@dataclass
class Stage:
    """The cost of a stage, whose commands run one after the other."""

    stories: int
    stage: str
    seconds: float = 0.0
    processor: float = 0.0  # seconds, user and system
    memory_mb: float = 0.0
    mapped_mb: float = 0.0  # the same with the pages of mapped files
    disk_mb: float = 0.0  # of the files that it wrote


def memory(process: psutil.Process) -> tuple[int, int]:
    """A process's memory now in bytes, without and with mapped files; 0 if it has just ended."""
    try:
        if not sys.platform.startswith("linux"):
            return (process.memory_info().rss,) * 2
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
    except (psutil.Error, OSError):
        return 0, 0
    held = {name: 1024 * int(value) for name, value, *_ in map(str.split, lines)}
    return held["Pss_Anon:"] + held["Pss_Shmem:"], held["Pss:"]


def measure(stage: Stage, command: list[str | Path]) -> None:
    """Run a command and add its cost."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        root = psutil.Process(child.pid)
        while child.poll() is None:
            try:
                held = [memory(process) for process in (root, *root.children(recursive=True))]
            except psutil.Error:
                break  # ended just now
            own, mapped = (sum(column) / 1e6 for column in zip(*held, strict=True))
            stage.memory_mb = max(stage.memory_mb, own)
            stage.mapped_mb = max(stage.mapped_mb, mapped)
            time.sleep(INTERVAL)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    stage.seconds += time.perf_counter() - start
    stage.processor += after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def size(path: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def stages(stories: int, folder: Path) -> Iterator[Stage]:
    """Run and measure every stage of a study of so many stories, in order."""
    program = Path(sys.executable).with_name("squentropy")
    data, runs, results = folder / "data", folder / "checkpoints", folder / "results"
    corpus, tokens, figures = data / "corpus", data / "tokens", folder / "report/figures"
    finals = [runs / "final" / loss / "seed1" for loss in LOSSES]
    reading = ["--tokens", tokens]
    training = [*reading, "--states", folder / "state"]
    final = [*training, "--phase", "final", "--seed", "1", "--selected", results / "selected.json"]
    grid = [["sweep", runs, *training, "--lr", "0.0006", "--loss", loss] for loss in LOSSES]
    train = [["train", run, *final, "--loss", loss] for run, loss in zip(finals, LOSSES)]
    steps = [
        ("corpus", "bpe", [["corpus", corpus]]),
        ("tokenize, bpe", "bpe", [["tokenize", corpus, tokens]]),
        ("sweep, two cells", "bpe", grid),
        ("select", "bpe", [["select", runs, results]]),
        ("train, two runs", "bpe", train),
        ("evaluate, two runs", "bpe", [["evaluate", *finals, "--data", data]]),
        ("sample, two runs", "bpe", [["sample", *finals, *reading]]),
        ("metrics", "bpe", [["metrics", data, runs, results]]),
        ("figures", None, [["figures", results, figures]]),
        ("report", None, [["report", results, figures, folder / "report/index.html"]]),
        ("tokenize, gpt2", "gpt2", [["tokenize", corpus, folder / "gpt2"]]),
    ]
    for name, encoding, commands in steps:
        params = []
        if encoding is not None:
            overlay = folder / f"{encoding}.yaml"
            words = {"stories": stories, "encoding": encoding, "losses": ", ".join(LOSSES)}
            overlay.write_text(OVERLAY.format(**words))
            params = ["--params", ROOT / "params.yaml", "--params", overlay]
        stage, before = Stage(stories, name), size(folder)
        for command in commands:
            measure(stage, [program, *command, *params])
        stage.disk_mb = (size(folder) - before) / 1e6
        yield stage


def read(path: Path) -> list[Stage]:
    """The measurements of earlier runs."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        rows = [list(row.values()) for row in csv.DictReader(file)]
    return [Stage(int(stories), name, *map(float, rest)) for stories, name, *rest in rows]


def write(path: Path, measured: list[Stage]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(Stage))
        for stories, name, *rest in map(astuple, measured):
            writer.writerow([stories, name, *(f"{value:.1f}" for value in rest)])


def show(measured: list[Stage]) -> None:
    """Processor seconds and memory of each stage, side by side for each number of stories."""
    numbers = sorted({stage.stories for stage in measured})
    cells = {(stage.stage, stage.stories): stage for stage in measured}
    head = [word for n in numbers for word in (f"{n:,}: processor, seconds", "memory, MB")]
    rows = []
    for name in dict.fromkeys(stage.stage for stage in measured):
        found = [cells.get((name, number)) for number in numbers]
        pairs = [(f"{x.processor:,.0f}", f"{x.memory_mb:,.0f}") if x else ("", "") for x in found]
        rows.append([name, *(word for pair in pairs for word in pair)])
    shared.table(["stage", *head], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stories", type=int, nargs="*", default=[210_000], help="none: the table")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    options = parser.parse_args()
    print(shared.machine("all"), flush=True)
    measured = [stage for stage in read(RESULTS) if stage.stories not in options.stories]
    for stories in options.stories:
        with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
            for stage in stages(stories, Path(temporary)):
                measured.append(stage)
                write(RESULTS, measured)  # at once, because the next stage may take an hour
    show(measured)


if __name__ == "__main__":
    main()
