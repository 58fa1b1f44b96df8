"""Corpus and tokens at scale: time and peak memory of `squentropy corpus` and of `tokenize`.

    python benchmarks/scale.py --stories 1000000
    python benchmarks/scale.py --stories 1000000 --folder /big    # where there is room for it

Stories of the grammar as the train split, with params.yaml's validation and test splits beside;
then the tokens of a bpe of 3,072 (the grammar's words yield about 3,160, never 4,096) and of gpt2.
Each stage is a process of its own. Peak memory is the largest sum over that process and all below
it, looked at ten times a second: of PSS where there is one (Linux), so that memory which processes
share counts once, else of RSS. Prints a Markdown table.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import shared

ROOT = Path(__file__).parents[1]
INTERVAL = 0.1  # seconds
OVERLAY = """\
study: scale
corpus:
  source: grammar
  grammar:
    train: {stories}
tokens:
  encoding: {encoding}
  vocab_size: 3072
"""


def memory(process: psutil.Process) -> int:
    """Bytes that a process holds now; 0 where it has just ended."""
    try:
        held = process.memory_full_info()
    except psutil.Error:
        return 0
    return getattr(held, "pss", held.rss)


def measure(command: list[str | Path]) -> tuple[float, float]:
    """Seconds that a command takes, and the peak memory of its processes in MB."""
    peak, start = 0, time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        root = psutil.Process(child.pid)
        while child.poll() is None:
            try:
                tree = [root, *root.children(recursive=True)]
            except psutil.Error:
                break  # ended just now
            peak = max(peak, sum(map(memory, tree)))
            time.sleep(INTERVAL)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, command)
    return time.perf_counter() - start, peak / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stories", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    options = parser.parse_args()
    program = Path(sys.executable).with_name("squentropy")
    print(shared.machine("all"), flush=True)
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        corpus = folder / "corpus"
        stages = [
            ("`squentropy corpus`", "bpe", ["corpus", corpus]),
            ("`squentropy tokenize`, bpe of 3,072", "bpe", ["tokenize", corpus, folder / "bpe"]),
            ("`squentropy tokenize`, gpt2", "gpt2", ["tokenize", corpus, folder / "gpt2"]),
        ]
        for name, encoding, command in stages:
            overlay = folder / "scale.yaml"
            overlay.write_text(OVERLAY.format(stories=options.stories, encoding=encoding))
            params = ["--params", ROOT / "params.yaml", "--params", overlay]
            seconds, peak = measure([program, *command, *params])
            rate = options.stories / seconds
            rows.append([name, f"{seconds:.1f}", f"{rate:,.0f}", f"{peak:,.0f}"])
        train = json.loads((corpus / "manifest.json").read_text())["splits"]["train"]
    size = f"{train['stories']:,} stories, {train['bytes'] / 1e6:,.0f} MB"
    shared.table([size, "seconds", "stories a second", "peak memory, MB"], rows)


if __name__ == "__main__":
    main()
