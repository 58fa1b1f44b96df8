"""How far squentropy's optimum lies from the truth in contexts of the corpus: theory.csv.

`squentropy metrics` writes it. Two kinds of contexts are looked at:

    bigram   what follows a token in the train split, whatever stands before it. Tokens are drawn
             by their frequency; the split's own frequencies are taken for the truth.
    whole    what follows all that stands before a token of a test story. The grammar knows it
             exactly (corpus/prediction.py), so this is the grammar corpus' alone. Its entropy is
             the source's, and entropy and divergence together are the nll at which a model
             arrives that sees whole stories and learns all that the loss asks for.

In a vocabulary larger than the corpus' own, the tokens that are more never follow.
"""

from pathlib import Path

import numpy as np

from squentropy import statistics, storage, theory
from squentropy.corpus.grammar import load_grammar
from squentropy.corpus.prediction import predict
from squentropy.params import Study
from squentropy.tokenizer import read_encoding
from squentropy.tokens import Split, TokenFolder

THEORY = [
    "contexts", "loss", "weight", "classes", "n", "entropy",
    "kl", "kl_low", "kl_high", "kl_10", "kl_50", "kl_90",
]  # fmt: skip
"""
contexts         bigram or whole
loss             the form of the loss (theory.FORMS); `weight` multiplies its square term
classes          size of the vocabulary
n                number of contexts
entropy          mean entropy of what follows, nats a token
kl               mean divergence of the loss's optimum from it, nats a token, with its interval
kl_10, …, kl_90  its quantiles over contexts
"""

LARGEST = 4**9
"""Of the vocabularies, which go on from the corpus' own by powers of 4. Gemma's has that size."""

CHUNK = 1 << 22  # tokens counted at once


def theory_rows(study: Study, data: Path) -> list[dict]:
    """The rows of theory.csv, from a folder with corpus/ and tokens/."""
    tokens = TokenFolder.open(data / "tokens")
    pi, place = bigram_contexts(
        tokens.split("train"), tokens.vocab_size, study.theory.contexts, study.theory.seed
    )
    kinds = {"bigram": (pi, place, np.ones(len(place), dtype=int))}
    if storage.read_sealed(data / "corpus" / "manifest.json")["source"] == "grammar":
        kinds["whole"] = whole_contexts(tokens)
    return [
        {"contexts": kind, "loss": loss, "weight": weight, "classes": classes}
        | _row(study, *contexts, classes, weight, loss)
        for kind, contexts in kinds.items()
        for loss, weight in forms(study)
        for classes in vocabularies(tokens.vocab_size)
    ]


def forms(study: Study) -> list[tuple[str, float]]:
    """(form, weight of the square term): squentropy with each weight, the seed's code as it is."""
    return [
        *(("squentropy", weight) for weight in study.theory.weights),
        ("squentropy_weighted", 1.0),
    ]


def vocabularies(own: int) -> list[int]:
    return [own, *(4**i for i in range(10) if own < 4**i <= LARGEST)]


def _row(
    study: Study,
    pi: np.ndarray,
    place: np.ndarray,
    lengths: np.ndarray,
    classes: int,
    weight: float,
    form: str,
) -> dict:
    """Of contexts that are rows `place` of pi, `lengths` of them from one story after another."""
    kl = theory.floor(pi, classes, weight, form)[place]
    entropy = -theory.entropy_terms(pi, pi).sum(1)[place]
    by_story = np.add.reduceat(kl, np.cumsum(lengths) - lengths)
    interval = statistics.mean_nll(
        by_story,
        lengths,
        resamples=study.evaluate.bootstrap,
        confidence=study.evaluate.confidence,
        seed=0,
    )
    quantiles = dict(zip(("kl_10", "kl_50", "kl_90"), np.quantile(kl, (0.1, 0.5, 0.9))))
    return {
        "n": len(kl),
        "entropy": float(entropy.mean()),
        "kl": interval.estimate,
        "kl_low": interval.low,
        "kl_high": interval.high,
    } | quantiles


def bigram_contexts(
    train: Split, classes: int, contexts: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(pi, place): what follows each distinct token that was drawn, and each draw's row of pi."""
    drawn = np.random.Generator(np.random.Philox(key=seed)).integers(
        0, len(train.ids) - 1, size=contexts
    )
    distinct, place = np.unique(train.ids[drawn], return_inverse=True)
    row_of = np.full(classes, -1)
    row_of[distinct] = np.arange(len(distinct))
    counts = np.zeros(len(distinct) * classes)
    for start in range(0, len(train.ids) - 1, CHUNK):
        ids = train.ids[start : start + CHUNK + 1].astype(np.int64)
        rows = row_of[ids[:-1]]
        pairs = rows[rows >= 0] * classes + ids[1:][rows >= 0]
        counts += np.bincount(pairs, minlength=len(counts))
    pi = -np.sort(-counts.reshape(len(distinct), classes))
    pi = pi[:, : np.count_nonzero(pi, axis=1).max()]
    return pi / pi.sum(1, keepdims=True), place


def whole_contexts(tokens: TokenFolder) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(pi, place, lengths) of all tokens of the grammar's test stories, one after the other."""
    test, grammar, encoding = tokens.split("test"), load_grammar(), read_encoding(tokens)
    distributions = [
        tuple(sorted((round(p, 12) for p in following), reverse=True))
        for index in range(len(test))
        for following in predict(test.story(index), grammar, encoding)
    ]
    number = {distribution: i for i, distribution in enumerate(dict.fromkeys(distributions))}
    pi = np.zeros((len(number), max(map(len, number))))
    for distribution, i in number.items():
        pi[i, : len(distribution)] = distribution
    place = np.array([number[distribution] for distribution in distributions])
    return pi, place, np.diff(test.offsets)
