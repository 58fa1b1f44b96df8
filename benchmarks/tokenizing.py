"""Tokenizing measured: `squentropy tokenize` against tiktoken alone on texts in memory.

    python benchmarks/tokenizing.py data/grammar/corpus                 # speed
    python benchmarks/tokenizing.py data/grammar/corpus --encoding gpt2

The comparator is `encode_ordinary_batch` on the train split's texts, already in memory, all at
once; ours reads them from parquet, encodes, writes token file, offsets and hash. Alternating,
medians of five, one run. Prints a Markdown table.
"""

import argparse
import json
import resource
import statistics
import tempfile
import time
from itertools import chain
from pathlib import Path

from squentropy import tokenizer

ROUNDS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--encoding", choices=["bpe", "gpt2"], default="bpe")
    parser.add_argument("--vocab-size", type=int, default=512)
    options = parser.parse_args()

    path = options.corpus / "train.parquet"
    if options.encoding == "gpt2":
        encoding = tokenizer.gpt2_encoding()
    else:
        stories = chain.from_iterable(tokenizer.read_stories(path))
        encoding = tokenizer.train_encoding(stories, options.vocab_size)
    texts = list(chain.from_iterable(tokenizer.read_stories(path)))
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(ROUNDS):
            start = time.perf_counter()
            entry = tokenizer.write_split(encoding, options.corpus, Path(folder), "train")
            ours.append(time.perf_counter() - start)
            start = time.perf_counter()
            encoding.encode_ordinary_batch(texts)
            theirs.append(time.perf_counter() - start)
    own, bare = statistics.median(ours), statistics.median(theirs)
    manifest = json.loads((options.corpus / "manifest.json").read_text())
    megabytes = manifest["splits"]["train"]["bytes"] / 1e6
    print(f"| {entry['stories']:,} stories, {entry['tokens']:,} tokens | seconds | MB a second |")
    print("|---|---|---|")
    print(f"| `squentropy tokenize`, one split | {own:.2f} | {megabytes / own:.1f} |")
    print(f"| `encode_ordinary_batch` in memory | {bare:.2f} | {megabytes / bare:.1f} |")
    print(f"| ratio of the rates | {bare / own:.2f} | |")
    print(f"| peak memory of this process, MB | "
          f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} | |")  # fmt: skip


if __name__ == "__main__":
    main()
