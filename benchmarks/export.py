"""Compare an exported run in transformers with the run itself: logits and ids on test stories.

    python benchmarks/export.py checkpoints/grammar/final/cross_entropy/seed1 data/grammar
    python benchmarks/export.py RUN DATA --texts stories.jsonl ...     # ids of other texts, too

Exports the run, loads it with transformers, and prints a Markdown table: the largest difference in
a logit over all positions, in windows as long as the context, beside the largest logit; and the
number of texts that have different ids, or that decoding changes.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import pyarrow.parquet as pq
import shared
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from squentropy.runs.weights import load_model
from squentropy.study.params import load
from squentropy.tokens.token_files import TokenFolder
from squentropy.tokens.tokenizer import read_encoding
from squentropy.tools.huggingface.export import export

ROOT = Path(__file__).parents[1]


@torch.inference_mode()
def logits(ours, theirs, split, end_of_text: int) -> tuple[int, float, float]:
    """Number of positions compared, the largest difference, the largest logit."""
    positions, difference, largest = 0, 0.0, 0.0
    block = ours.config.block_size
    for number in range(len(split)):
        ids = torch.tensor([end_of_text, *split.story(number).tolist()])
        for window in ids.split(block):
            expected = ours(window[None]) @ ours.output_weight.T
            found = theirs(window[None]).logits
            positions += len(window)
            difference = max(difference, (expected - found).abs().max().item())
            largest = max(largest, expected.abs().max().item())
    return positions, difference, largest


def texts_that_differ(encoding, tokenizer, texts: list[str]) -> tuple[int, int]:
    """Number of texts with different ids, and number that decoding changes."""
    ids = decoded = 0
    for text in texts:
        theirs = tokenizer(text, add_special_tokens=False)["input_ids"]
        ids += theirs != encoding.encode_ordinary(text)
        decoded += tokenizer.decode(theirs) != text
    return ids, decoded


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("data", type=Path, help="folder with corpus/ and tokens/")
    parser.add_argument("--texts", type=Path, nargs="*", default=[], help=".jsonl, key text")
    options = parser.parse_args()
    print(shared.machine("one"), flush=True)
    torch.set_num_threads(1)
    tokens = TokenFolder.open(options.data / "tokens")
    ours, encoding = load_model(options.run, torch.device("cpu")), read_encoding(tokens)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        export(load([ROOT / "params.yaml"]), options.run, tokens, Path(folder))
        seconds = time.perf_counter() - start
        theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder)
    found = logits(ours, theirs, tokens.split("test"), tokens.end_of_text)
    rows = [
        ["positions of all test stories", f"{found[0]:,}"],
        ["largest difference of a logit", f"{found[1]:.1e}"],
        ["largest logit", f"{found[2]:.1f}"],
        ["seconds to export", f"{seconds:.2f}"],
    ]
    stories = pq.read_table(options.data / "corpus/test.parquet")["text"].to_pylist()
    sources = {"the study's test stories": stories} | {
        path.name: [json.loads(line)["text"] for line in path.open(encoding="utf-8")]
        for path in options.texts
    }
    for name, texts in sources.items():
        ids, decoded = texts_that_differ(encoding, tokenizer, texts)
        rows.append([f"{name}, {len(texts):,} texts: other ids", str(ids)])
        rows.append([f"{name}: not themselves when decoded", str(decoded)])
    shared.table(["measure", "value"], rows)


if __name__ == "__main__":
    main()
