"""Measurements of the story grammar: speed, sizes, exact entropy, and n-gram models of it.

    python benchmarks/grammar.py                      # 100,000 stories, about two minutes
    python benchmarks/grammar.py --stories 1000000    # the same over a million

Prints one Markdown table. Wall time depends on the machine's other work, so processor time is
listed too.
"""

from __future__ import annotations

import argparse
import re
import time
from concurrent.futures import ProcessPoolExecutor
from hashlib import blake2b
from math import log, sqrt
from random import Random
from statistics import fmean, stdev

import numpy as np

from squentropy.corpus.grammar import parser
from squentropy.corpus.grammar.grammar import WORD, load_grammar
from squentropy.results import ngrams

SEED = 0
TRAIN, TEST = 20_000, 2_000  # stories of the n-gram models; indices from the far end of the stream
FAR = 10_000_000
TOKEN = re.compile(r"\w+(?:'\w+)?|[^\w ]")  # words, marks and the end of a paragraph
END = "<end>"


def generate(bounds: tuple[int, int]) -> tuple[float, list[tuple[int, int, float, bytes]]]:
    """Processor seconds, and each story's words, bytes, log p and 16-byte hash."""
    load_grammar()
    start = time.process_time()
    stories = list(load_grammar().stories(SEED, *bounds))
    seconds = time.process_time() - start
    return seconds, [
        (
            len(story.text.split()),
            len(story.text.encode()),
            story.log_prob,
            blake2b(story.text.encode(), digest_size=16).digest(),
        )
        for story in stories
    ]


def speed(processes: int, number: int) -> float:
    """Stories per second of wall time, with warm workers."""
    share = number // processes
    with ProcessPoolExecutor(processes) as pool:
        list(pool.map(_write, [(i, i + 1) for i in range(processes)]))
        start = time.perf_counter()
        list(pool.map(_write, [(i * share, (i + 1) * share) for i in range(processes)]))
        return processes * share / (time.perf_counter() - start)


def _write(bounds: tuple[int, int]) -> None:
    for _ in load_grammar().stories(SEED, *bounds):
        pass


def tokens(text: str) -> list[str]:
    return [*TOKEN.findall(text), END]


def numbered(stories: list[list[str]], ids: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """(ids, offsets) of stories, as results/ngrams.py takes them. All unknown words share an id."""
    words = np.array([ids.get(word, len(ids)) for story in stories for word in story])
    return words, np.cumsum([0, *map(len, stories)])


def recall(texts: list[str]) -> tuple[float, list[int], float]:
    """Long-range references of the last sentence.

    Entities that it recalls per story; sorted numbers of words since the previous mention of each;
    nats per story that drawing them again would cost.
    """
    grammar = load_grammar()
    prior = {
        entry.forms["text"]: words.log_probs[entry.index]
        for words in grammar.classes.values()
        for entry in words.entries
    }
    number, distances, nats = 0, [], 0.0
    for text in texts:
        begin = 1 + max(text.rfind(mark) for mark in (". ", "! ", "? ", '" ', "\n"))
        for value in set(parser.parse(text).bindings.values()):
            piece = rf"\b{re.escape(value)}\b"
            if not (here := re.search(piece, text[begin:])):
                continue
            *_, before = [0, *(match.end() for match in re.finditer(piece, text[:begin]))]
            number += 1
            distances.append(len(text[before : begin + here.start()].split()))
            nats -= prior[value]
    return number / len(texts), sorted(distances), nats / len(texts)


def swaps_refused(texts: list[str]) -> float:
    """Share of stories that are rejected after one word is replaced by another of the lexicon."""
    random, vocabulary, refused = Random(SEED), load_grammar().words(), 0
    for text in texts:
        match = random.choice(list(WORD.finditer(text)))
        word = random.choice([word for word in vocabulary if word != match[0].lower()])
        if match[0][0].isupper():
            word = word[0].upper() + word[1:]
        refused += not parser.check(text[: match.start()] + word + text[match.end() :]).valid
    return refused / len(texts)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--stories", type=int, default=100_000)
    number = options.parse_args().stories

    def row(name: str, value: str) -> None:
        print(f"| {name} | {value} |", flush=True)

    print("| measure | value |\n|---|---|")
    start = time.perf_counter()
    load_grammar.cache_clear()
    grammar = load_grammar()
    row("load and compile", f"{time.perf_counter() - start:.2f} s")
    row("distinct words", f"{len(grammar.words()):,}")
    row("plots", f"{len(grammar.start.alternatives)}")
    for processes in (1, 2):
        row(f"stories/s, {processes} process(es)", f"{speed(processes, 20_000):,.0f}")

    block = 10_000
    blocks = [(i, min(i + block, number)) for i in range(0, number, block)]
    seconds, hashes, lengths, sizes, surprisals = 0.0, set(), [], [], []
    with ProcessPoolExecutor(2) as pool:
        for used, rows in pool.map(generate, blocks):
            seconds += used
            for words, size, log_prob, digest in rows:
                lengths.append(words)
                sizes.append(size)
                surprisals.append(-log_prob)
                hashes.add(digest)
    row("processor time a story", f"{seconds / number * 1e6:.0f} µs")
    row(f"distinct among {number:,}", f"{len(hashes) / number:.4%}")
    lengths.sort()
    quantiles = (0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1)
    values = " ".join(str(lengths[int(q * (number - 1))]) for q in quantiles)
    row("words a story: min, 1, 5, 25, 50, 75, 95, 99 %, max", values)
    entropy, error = fmean(surprisals), stdev(surprisals) / sqrt(number)
    words, size = fmean(lengths), fmean(sizes)
    row("entropy, nats per story", f"{entropy:.3f} ± {error:.3f} (standard error)")
    row("entropy, nats per word (at spaces)", f"{entropy / words:.4f} ± {error / words:.4f}")
    row("entropy, bits per byte", f"{entropy / size / log(2):.4f} ± {error / size / log(2):.4f}")

    train = [tokens(story.text) for story in grammar.stories(SEED, FAR, FAR + TRAIN)]
    held_out = list(grammar.stories(SEED, FAR + TRAIN, FAR + TRAIN + TEST))
    test = [tokens(story.text) for story in held_out]
    total_words = sum(len(story.text.split()) for story in held_out)
    total_bytes = sum(len(story.text.encode()) for story in held_out)
    exact = -sum(story.log_prob for story in held_out)
    models = [("the grammar itself", exact)]
    ids = {word: i for i, word in enumerate(sorted({word for story in train for word in story}))}
    nll = ngrams.story_nll(
        *numbered(train, ids), *numbered(test, ids), ids[END], len(ids) + 1, (1, 2, 3, 5, 8)
    )
    models += [(f"{order}-gram", nats.sum()) for order, nats in nll.items()]
    for name, nats in models:
        row(
            f"held-out {name}",
            f"{nats / TEST:.1f} nats per story, {nats / total_words:.3f} a word, "
            f"{nats / total_bytes / log(2):.3f} bits per byte",
        )

    texts = [story.text for story in held_out]
    recalled, distances, nats = recall(texts)
    row("entities that the last sentence recalls", f"{recalled:.2f} a story")
    row(
        "words since each was last mentioned: 50, 75, 95 %",
        " ".join(str(distances[int(q * len(distances))]) for q in (0.5, 0.75, 0.95)),
    )
    row("drawing them anew would cost", f"{nats:.1f} nats per story")

    start = time.process_time()
    derivations = [parser.parse(text) for text in texts]
    row("parse", f"{(time.process_time() - start) / TEST * 1e3:.2f} ms a story (processor)")
    gap = max(abs(d.log_prob - s.log_prob) for d, s in zip(derivations, held_out, strict=True))
    row("largest difference of log p, parser and generator", f"{gap:.1e} nats")
    row("stories of one derivation", f"{sum(d.derivations == 1 for d in derivations) / TEST:.2%}")
    row("one-word swaps refused", f"{swaps_refused(texts):.2%}")


if __name__ == "__main__":
    main()
