"""Speed of `squentropy tokenize` against tiktoken alone on texts in memory.

    python benchmarks/tokenizing.py data/grammar/corpus                 # speed
    python benchmarks/tokenizing.py data/grammar/corpus --encoding gpt2

The comparator is `encode_ordinary_batch` on all the train split's texts at once, already in memory.
Ours reads them from parquet, encodes them, and writes token file, offsets and hash. The two
alternate; results are medians of five after a warm-up, from one run. Prints a Markdown table.
"""

import argparse
import json
import resource
import tempfile
import time
from itertools import chain
from pathlib import Path

import shared

from squentropy.tokens import tokenizer


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
    with tempfile.TemporaryDirectory() as folder:

        def ours() -> float:
            start = time.perf_counter()
            tokenizer.write_split(encoding, options.corpus, Path(folder), "train")
            return time.perf_counter() - start

        def theirs() -> float:
            start = time.perf_counter()
            encoding.encode_ordinary_batch(texts)
            return time.perf_counter() - start

        seconds = shared.alternate({"ours": ours, "theirs": theirs}, shared.ROUNDS)

    train = json.loads((options.corpus / "manifest.json").read_text())["splits"]["train"]
    megabytes = train["bytes"] / 1e6
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(shared.machine("all"))
    shared.table(
        [f"{train['stories']:,} stories, {encoding.name}", "seconds", "MB a second"],
        [
            [name, f"{seconds[key]:.2f}", f"{megabytes / seconds[key]:.1f}"]
            for key, name in [
                ("ours", "`squentropy tokenize`, one split"),
                ("theirs", "`encode_ordinary_batch` in memory"),
            ]
        ]
        + [
            ["ratio of the rates", f"{seconds['theirs'] / seconds['ours']:.2f}", ""],
            ["peak memory of this process, MB", f"{peak:.0f}", ""],
        ],
    )


if __name__ == "__main__":
    main()
