"""N-gram models agree with a dictionary of counts and are distributions."""

import itertools
import math
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squentropy.results import ngrams

C, END = 5, 4
stories = st.lists(st.lists(st.integers(0, END - 1), max_size=12), min_size=1, max_size=8)


def split(texts: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """(ids, offsets) of stories, each with its end of text, as in a Split."""
    ended = [[*text, END] for text in texts]
    offsets = np.cumsum([0, *map(len, ended)])
    return np.array(list(itertools.chain.from_iterable(ended)), dtype=np.uint16), offsets


def by_dictionary(order: int, train: list[list[int]], test: list[list[int]]) -> list[float]:
    """The nll of each story by the Witten-Bell formula."""
    followers: defaultdict[tuple, Counter] = defaultdict(Counter)

    def windows(story: list[int]):
        padded = [END] * (order - 1) + [*story, END]
        for i in range(order - 1, len(padded)):
            yield padded[i], [tuple(padded[i - length : i]) for length in range(order)]

    for story in train:
        for token, histories in windows(story):
            for history in histories:
                followers[history][token] += 1
    nll = []
    for story in test:
        nll.append(0.0)
        for token, histories in windows(story):
            p = 1 / C
            for history in histories:
                if seen := followers.get(history):
                    p = (seen[token] + len(seen) * p) / (seen.total() + len(seen))
            nll[-1] -= math.log(p)
    return nll


@settings(max_examples=100, deadline=None, derandomize=True)
@given(train=stories, test=stories)
def test_a_story_scores_as_a_dictionary_of_counts_says(train, test):
    scored = ngrams.story_nll(*split(train), *split(test), END, C)
    assert list(scored) == [1, 2, 3, 4, 5]
    for order, nll in scored.items():
        assert nll.tolist() == pytest.approx(by_dictionary(order, train, test), rel=1e-12)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(train=stories)
def test_probabilities_sum_to_one_after_every_context(train):
    for length in range(4):
        contexts = list(itertools.product(range(END), repeat=length))
        # One story per context and next token; its last token has the nll in question.
        ids = [[*context, w] for context in contexts for w in range(C)]
        test = np.array(ids, dtype=np.uint16).ravel(), np.arange(len(ids) + 1) * (length + 1)
        for order, nll in ngrams.token_nll(*split(train), *test, END, C, range(1, 6)).items():
            p = np.exp(-nll.reshape(-1, C, length + 1)[:, :, -1])
            assert p.sum(1) == pytest.approx(np.ones(len(contexts)), abs=1e-12), order
            assert (p > 0).all()


@settings(max_examples=50, deadline=None, derandomize=True)
@given(train=stories, test=stories)
def test_a_story_scores_the_same_alone_and_whatever_orders_are_asked_for(train, test):
    together = ngrams.story_nll(*split(train), *split(test), END, C)
    for i, story in enumerate(test):
        alone = ngrams.story_nll(*split(train), *split([story]), END, C, orders=(5, 2))
        assert list(alone) == [2, 5]
        assert all(alone[n][0] == pytest.approx(together[n][i], rel=1e-12) for n in alone)


def test_every_token_is_scored_once_its_stories_end_included():
    test = split([[0, 1], [], [2, 2, 2]])
    tokens = ngrams.token_nll(*split([[0, 1]]), *test, END, C)
    by_story = ngrams.story_nll(*split([[0, 1]]), *test, END, C)
    for order, nll in tokens.items():
        assert nll.shape == (3 + 1 + 4,)
        sums = [nll[:3].sum(), nll[3], nll[4:].sum()]
        assert by_story[order].tolist() == pytest.approx(sums)


def test_without_a_training_token_every_model_is_uniform():
    none = ngrams.first_tokens(*split([[0, 1]]), 0)
    for nll in ngrams.token_nll(*none, *split([[0, 3]]), END, C).values():
        assert nll.tolist() == pytest.approx([math.log(C)] * 3)


def test_longer_contexts_tell_more_where_there_is_more_to_know():
    cycle = [[0, 0, 1, 0, 0, 2, 0, 0, 1, 0, 0, 2, 3]] * 50
    nll = [v.sum() for v in ngrams.story_nll(*split(cycle), *split(cycle[:1]), END, C).values()]
    assert nll == sorted(nll, reverse=True)
    assert nll[-1] < 1.5 < 13 < nll[0]


def test_a_split_is_cut_to_its_first_tokens():
    ids, offsets = split([[0, 1], [], [2, 2, 2]])
    for most, expected in [(0, [0]), (2, [0, 2]), (3, [0, 3]), (5, [0, 3, 4, 5]), (99, offsets)]:
        cut, ends = ngrams.first_tokens(ids, offsets, most)
        assert cut.tolist() == ids[:most].tolist()
        assert ends.tolist() == list(expected)


def test_memory_stays_below_a_hundred_bytes_per_token(peak_memory):
    draw = np.random.default_rng(0)
    n, length = 400_000, 100
    ids = (2000 * draw.random(n) ** 4).astype(np.uint16)
    ids[length - 1 :: length] = 2000
    offsets = np.arange(0, n + 1, length)
    test = ids[: n // 20], offsets[: len(offsets) // 20 + 1]
    assert peak_memory(lambda: ngrams.story_nll(ids, offsets, *test, 2000, 2001)) < 100 * n


def test_models_have_names():
    names = [ngrams.name(order) for order in ngrams.ORDERS]
    assert names == ["unigram", "bigram", "trigram", "4-gram", "5-gram"]
