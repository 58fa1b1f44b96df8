"""Interpolated n-gram models over token ids: yardsticks for what a trained model has learnt.

A model that does not beat a trigram model of its own training tokens has learnt too little to be
compared with others (adequacy.py). With a context h, h' the same without its first token, counts c,
and k(h) the number of distinct tokens seen after h (Witten & Bell 1991):

    p(w|h) = (c(hw) + k(h) p(w|h')) / (c(h) + k(h)),   and p(w|h') = 1/C below the unigrams

For a context that was never seen, p(w|h) = p(w|h'). Every distribution sums to 1 over the C tokens
of the vocabulary, and no token has probability zero.

Modified Kneser-Ney smoothing needs more code (counts of counts and continuation counts of every
order) and is hardly better at the order that matters: with 1.5 M tokens of the grammar and a
vocabulary of 2,048, its trigrams reach 1.609 nats per token and Witten-Bell's 1.612. Only higher
orders gain: 1.200 against 1.223 for 4-grams, 1.076 against 1.133 for 5-grams.

We use our own code because nltk.lm counts in Python dictionaries, and kenlm's Python package only
queries models that a separate program estimates. Only contexts that occur in the test tokens are
counted, so higher orders cost less: 5 million training tokens and five orders take three seconds
and 300 MB.
"""

from collections.abc import Iterable

import numpy as np

ORDERS = (1, 2, 3, 4, 5)


def name(order: int) -> str:
    """A model's name in the tables: unigram, bigram, trigram, 4-gram, …"""
    return {1: "unigram", 2: "bigram", 3: "trigram"}.get(order, f"{order}-gram")


def first_tokens(ids: np.ndarray, offsets: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """(ids, offsets) of the first `most` tokens of a split, or of all if there are fewer.

    The last story may be truncated.
    """
    total = min(most, int(offsets[-1]))
    return ids[:total], np.append(offsets[offsets < total], total)


def story_nll(
    train_ids: np.ndarray,
    train_offsets: np.ndarray,
    test_ids: np.ndarray,
    test_offsets: np.ndarray,
    end_of_text: int,
    vocab_size: int,
    orders: Iterable[int] = ORDERS,
) -> dict[int, np.ndarray]:
    """The nll of each test story under a model of each order: order -> (stories,), nats.

    The sum of `token_nll` over a story's tokens, of which there is at least one, the end of text.
    """
    nll = token_nll(
        train_ids, train_offsets, test_ids, test_offsets, end_of_text, vocab_size, orders
    )
    return {order: np.add.reduceat(values, test_offsets[:-1]) for order, values in nll.items()}


def token_nll(
    train_ids: np.ndarray,
    train_offsets: np.ndarray,
    test_ids: np.ndarray,
    test_offsets: np.ndarray,
    end_of_text: int,
    vocab_size: int,
    orders: Iterable[int] = ORDERS,
) -> dict[int, np.ndarray]:
    """The nll of each test token under a model of each order: order -> (test tokens,), nats.

    ids      (tokens,)        integers below vocab_size, as in token_files.Split
    offsets  (stories + 1,)   story i is ids[offsets[i]:offsets[i + 1]], including its end of text

    As in lm/scoring.py, every token is scored once, and each story separately, after an
    end-of-text token. Contexts are padded with end of text and never reach into the previous story.
    """
    orders = sorted(orders)
    train, kept = _padded(train_ids, train_offsets, end_of_text, orders[-1] - 1)
    test, scored = _padded(test_ids, test_offsets, end_of_text, orders[-1] - 1)
    context, test_context = np.zeros_like(kept), np.zeros_like(scored)  # the empty context
    contexts = 1
    p, nll = np.full(len(scored), 1 / vocab_size), {}
    for order in range(1, orders[-1] + 1):
        if order > 1:  # add a token on the left; drop contexts that the test does not have
            longer = test_context * vocab_size + test[scored - order + 1]
            known, test_context = np.unique(longer, return_inverse=True)
            contexts = len(known)
            place, found = _find(known, context * vocab_size + train[kept - order + 1])
            kept, context = kept[found], place[found]
        pairs, counts = np.unique(context * vocab_size + train[kept], return_counts=True)
        seen = np.bincount(context, minlength=contexts)[test_context]
        kinds = np.bincount(pairs // vocab_size, minlength=contexts)[test_context]
        place, found = _find(pairs, test_context * vocab_size + test[scored])
        hits = np.zeros(len(scored))
        hits[found] = counts[place[found]]
        p = np.where(seen > 0, (hits + kinds * p) / np.maximum(seen + kinds, 1), p)
        if order in orders:
            nll[order] = -np.log(p)
    return nll


def _padded(
    ids: np.ndarray, offsets: np.ndarray, end_of_text: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """The ids with `width` end-of-text tokens before each story, and each id's place in them."""
    story = np.repeat(np.arange(1, len(offsets)), np.diff(offsets))
    places = np.arange(len(ids)) + width * story
    padded = np.full(len(ids) + width * (len(offsets) - 1), end_of_text, dtype=ids.dtype)
    padded[places] = ids
    return padded, places


def _find(table: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(place, found): the index of each value in a sorted table, and whether it is there."""
    if not len(table):
        return np.zeros(len(values), dtype=np.int64), np.zeros(len(values), dtype=bool)
    place = np.minimum(np.searchsorted(table, values), len(table) - 1)
    return place, table[place] == values
