"""How far squentropy's optimum lies from the truth in contexts of the corpus: theory.csv.

`squentropy metrics` writes it. Two kinds of contexts are looked at:

    bigram   what follows a token in the train split, whatever stands before it: every token that
             occurs, counted as often as it does. The split's own frequencies are taken for the
             truth, so that the numbers are exact and need no interval.
    whole    what follows all that stands before a token of a test story. The grammar knows it
             exactly (corpus/grammar/prediction.py), so this is the grammar corpus' alone. Its
             entropy is the source's, and entropy and divergence together are the nll at which a
             model arrives that sees whole stories and learns all that the loss asks for.

In a vocabulary larger than the corpus' own, the tokens that are more never follow.
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
loss             squentropy with each weight of the study's parameters, and the study's own losses
                 whose optimum is known (`squares` of names.LossInfo)
weight           what multiplies its square term
classes          size of the vocabulary
n                number of contexts
entropy          mean entropy of what follows, nats per token
kl               mean divergence of the loss's optimum from it, nats per token; of whole contexts
                 with its interval
kl_10, …, kl_90  its quantiles over contexts
"""

LARGEST = 4**9
"""Of the vocabularies, which go on from the corpus' own by powers of 4. Gemma's has that size."""

CHUNK = 1 << 22  # tokens counted at once


def theory_rows(study: Study, data: Path) -> list[Row]:
    """The rows of theory.csv, from a folder with corpus/ and tokens/."""
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
    """Squentropy with each weight of the parameters, and the study's losses of a known optimum."""
    names = [*(f"squentropy({weight!r})" for weight in study.theory.weights), *study.sweep.losses]
    losses = {info.name: info for info in map(loss_info, names) if info.squares is not None}
    return list(losses.values())


def vocabularies(own: int) -> list[int]:
    return [own, *(4**i for i in range(10) if own < 4**i <= LARGEST)]


@dataclass(frozen=True)
class Contexts:
    """Distributions of the next token, and where they occur."""

    pi: np.ndarray
    """Probabilities above 0, one distribution after the other, (m,)."""
    starts: np.ndarray
    """Where each distribution begins, (n,)."""
    times: np.ndarray
    """How often each occurs, (n,)."""
    place: np.ndarray | None = None
    """The distribution at each token of the stories, if these are resampled, (tokens,)."""
    lengths: np.ndarray | None = None
    """The stories' tokens, (stories,)."""

    def mean(self, values: np.ndarray) -> float:
        """Over contexts, of a value per distribution."""
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
    """What follows each token that occurs, counted in chunks of the split."""
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
    """What follows all that stands before each token of the grammar's test stories."""
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
