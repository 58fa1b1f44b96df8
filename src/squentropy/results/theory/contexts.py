"""How far squentropy's optimum is from the truth in contexts of the corpus: theory.csv.

`squentropy metrics` writes it. There are two kinds of contexts:

    bigram   the single previous token, in the train split: every token that occurs, weighted by its
             frequency. The split's bigram frequencies are taken as the truth, so the numbers are
             exact and need no interval.
    whole    everything before a token of a test story. The grammar gives the exact distribution of
             the next token (corpus/grammar/prediction.py), so only its corpus has these rows. Their
             entropy is the source's. Entropy plus divergence is the nll of a model that sees whole
             stories and reaches the loss's optimum.

In a vocabulary larger than the corpus's own, the additional tokens never follow.
"""

from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from squentropy.base.kinds import Row
from squentropy.corpus.grammar.grammar import load_grammar
from squentropy.corpus.grammar.prediction import predict, predicts
from squentropy.results import intervals
from squentropy.results.theory import optimum
from squentropy.study.catalogue import LossInfo, Squares, loss_info
from squentropy.study.params import Study
from squentropy.tokens.token_files import Split, TokenFolder
from squentropy.tokens.tokenizer import read_encoding

THEORY = [
    "contexts", "loss", "weight", "classes", "n", "entropy",
    "kl", "kl_low", "kl_high", "kl_10", "kl_50", "kl_90",
]  # fmt: skip
"""
contexts         bigram or whole
loss             squentropy with each weight in the study's parameters, and the study's losses
                 whose optimum is known (`squares` of catalogue.LossInfo)
weight           factor of the square term
classes          size of the vocabulary
n                number of contexts
entropy          mean entropy of the next token, nats per token
kl               mean divergence of the loss's optimum from the truth, nats per token; with an
                 interval for whole contexts
kl_10, …, kl_90  its quantiles over contexts
"""

LARGEST = 4**9
"""Largest vocabulary; sizes are the corpus's own, then powers of 4. Gemma's is about this large."""

CHUNK = 1 << 22  # tokens counted at once


def theory_rows(study: Study, data: Path) -> list[Row]:
    """The rows of theory.csv; `data` is a folder with corpus/ and tokens/."""
    tokens = TokenFolder.open(data / "tokens")
    kinds = {"bigram": bigram_contexts(tokens.split("train"), tokens.vocab_size)}
    if predicts(data / "corpus"):
        kinds["whole"] = whole_contexts(tokens)
    return [
        {"contexts": kind, "loss": loss.name, "weight": squares.factor, "classes": classes}
        | _row(study, contexts, classes, squares)
        for kind, contexts in kinds.items()
        for loss in improper_losses(study)
        if (squares := loss.squares) is not None
        for classes in vocabularies(tokens.vocab_size)
    ]


def improper_losses(study: Study) -> list[LossInfo]:
    """Squentropy with each weight in the parameters, and the study's losses with known optima."""
    names = [*(f"squentropy({weight!r})" for weight in study.theory.weights), *study.sweep.losses]
    losses = {info.name: info for info in map(loss_info, names) if info.squares is not None}
    return list(losses.values())


def vocabularies(own: int) -> list[int]:
    return [own, *(4**i for i in range(10) if own < 4**i <= LARGEST)]


@dataclass(frozen=True)
class Contexts:
    """Distributions of the next token, and where they occur."""

    pi: np.ndarray
    """Concatenated probabilities, all above 0, (m,)."""
    starts: np.ndarray
    """Index in `pi` at which each distribution begins, (n,)."""
    times: np.ndarray
    """How often each distribution occurs, (n,)."""
    place: np.ndarray | None = None
    """Index of the distribution at each token of the stories, if they are resampled, (tokens,)."""
    lengths: np.ndarray | None = None
    """Tokens per story, (stories,)."""

    def mean(self, values: np.ndarray) -> float:
        """Mean over contexts of a value per distribution."""
        return float((values * self.times).sum() / self.times.sum())


def _row(study: Study, contexts: Contexts, classes: int, squares: Squares) -> Row:
    kl = optimum.ragged_floor(contexts.pi, contexts.starts, classes, *astuple(squares))
    entropy = -np.add.reduceat(contexts.pi * np.log(contexts.pi), contexts.starts)
    row = {
        "n": int(contexts.times.sum()) if contexts.place is not None else len(kl),
        "entropy": contexts.mean(entropy),
        "kl": contexts.mean(kl),
    }
    if contexts.place is not None and contexts.lengths is not None:
        by_story = np.add.reduceat(
            kl[contexts.place], np.cumsum(contexts.lengths) - contexts.lengths
        )
        interval = intervals.mean_nll(
            by_story,
            contexts.lengths,
            **study.evaluate.resampling(),
        )
        row |= {"kl_low": interval.low, "kl_high": interval.high}
    quantiles = np.quantile(kl, (0.1, 0.5, 0.9), weights=contexts.times, method="inverted_cdf")
    return row | dict(zip(("kl_10", "kl_50", "kl_90"), quantiles))


def bigram_contexts(train: Split, classes: int) -> Contexts:
    """The distributions after each token that occurs, counted in chunks of the split."""
    pairs, counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
    for start in range(0, len(train.ids) - 1, CHUNK):
        ids = train.ids[start : start + CHUNK + 1].astype(np.int64)
        more, often = np.unique(ids[:-1] * classes + ids[1:], return_counts=True)
        pairs, place = np.unique(np.concatenate([pairs, more]), return_inverse=True)
        counts = np.bincount(place, np.concatenate([counts, often])).astype(np.int64)
    _, starts = np.unique(pairs // classes, return_index=True)
    times = np.add.reduceat(counts, starts)
    return Contexts(counts / np.repeat(times, np.diff(starts, append=len(pairs))), starts, times)


def whole_contexts(tokens: TokenFolder) -> Contexts:
    """The exact next-token distribution at each token of the grammar's test stories."""
    test, grammar, encoding = tokens.split("test"), load_grammar(), read_encoding(tokens)
    distributions = [
        tuple(sorted((round(p, 12) for p in following.values()), reverse=True))
        for index in range(len(test))
        for following in predict(test.story(index), grammar, encoding)
    ]
    number = {distribution: i for i, distribution in enumerate(dict.fromkeys(distributions))}
    place = np.array([number[distribution] for distribution in distributions])
    sizes = np.array([len(distribution) for distribution in number])
    return Contexts(
        np.array([p for distribution in number for p in distribution]),
        np.cumsum(sizes) - sizes,
        np.bincount(place),
        place,
        np.diff(test.offsets),
    )
