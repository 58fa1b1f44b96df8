"""The grammar as a source of stories: `corpus.source: grammar`."""

import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from itertools import chain
from typing import Any, TypeVar

from squentropy.corpus.source import Source, Story
from squentropy.study.corpus import Corpus
from squentropy.study.params import SPLITS

A = TypeVar("A")
R = TypeVar("R")

BLOCK = 5_000  # stories per task of a process


def source(corpus: Corpus) -> Source:
    """Stories of the grammar: consecutive ranges of one numbered sequence, train first."""
    from squentropy.corpus.grammar.grammar import load_grammar

    section, grammar = corpus.grammar, load_grammar()

    def stories(start: int, stop: int) -> Iterator[Story]:
        blocks = [(s, min(s + BLOCK, stop)) for s in range(start, stop, BLOCK)]
        made = _in_order(partial(_write_stories, section.seed), blocks)
        for number, (text, log_prob) in enumerate(chain.from_iterable(made), start):
            yield Story(text, f"story {number} of the grammar", log_prob)

    splits: dict[str, Callable[[], Iterator[Story]]]
    splits, start = {}, 0
    for split in SPLITS:
        stop = start + getattr(section, split)
        splits[split] = partial(stories, start, stop)
        start = stop
    return Source(
        splits=splits,
        licence="MIT",
        provenance={"grammar_sha256": grammar.digest, "seed": section.seed},
        exact=True,
    )


def _write_stories(seed: int, bounds: tuple[int, int]) -> list[tuple[str, float]]:
    """Stories of the grammar by number; each depends only on the seed and its number."""
    from squentropy.corpus.grammar.grammar import load_grammar

    return [(story.text, story.log_prob) for story in load_grammar().stories(seed, *bounds)]


def _in_order(function: Callable[[A], R], arguments: list[A]) -> Iterator[R]:
    """`map(function, arguments)` on this machine's cores, with few results in memory at a time."""
    workers: Any  # os.cpu_count may return None by its type
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if len(arguments) < 2 or workers == 1:
        yield from map(function, arguments)
        return
    with ProcessPoolExecutor(min(workers, len(arguments))) as pool:
        waiting: deque[Future[R]] = deque()
        for argument in arguments:
            waiting.append(pool.submit(function, argument))
            if len(waiting) > 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
