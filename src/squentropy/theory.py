"""What a perfect model would do under squentropy, which is not to tell the truth.

Squentropy is not a proper scoring rule. In a context whose next token has the distribution pi,
the best that its loss can be is not reached at softmax(f) = pi, because the square term holds the
wrong logits near zero. The Kullback-Leibler divergence from pi to where it is reached is the nll
that a model of any size loses once it has learnt what the loss asks for.
"""

import numpy as np

FORMS = {"squentropy": (0.0, 1), "squentropy_weighted": (65.0, 0)}
"""The weight of the true class's square, and how much less than C the squares are divided by."""

CONTEXTS = {
    "one token is certain": np.ones(1),
    "two tokens, equally likely": np.full(2, 1 / 2),
    "10 tokens, Zipf's law": 1 / np.arange(1, 11) / np.sum(1 / np.arange(1, 11)),
    "100 tokens, Zipf's law": 1 / np.arange(1, 101) / np.sum(1 / np.arange(1, 101)),
}
"""Kinds of contexts: the probabilities of the tokens that can follow, each array summing to 1."""


def floor(
    pi: np.ndarray, classes: int, weight: float = 1.0, form: str = "squentropy"
) -> np.ndarray:
    """KL from each row of pi to the minimiser of the expected loss, in nats: (n, k) -> (n,).

    pi       probabilities of k tokens, each row summing to 1; the other classes - k never follow
    classes  C, the size of the vocabulary, at least k
    weight   multiplies the square term: 1 is the loss itself, 0 cross entropy
    form     of FORMS: squentropy, or squentropy_weighted, which pulls the true logit to 1

    With true_weight w and s = weight/(C - 1) or weight/C, the expected loss of logits f is
        -sum_j pi_j f_j + log sum_j exp f_j + s sum_j [(1 - pi_j) f_j^2 + w pi_j (f_j - 1)^2].
    It is convex, and equal for all classes that never follow, so these share one logit, the last,
    and Newton's method has k + 1 unknowns a row.
    """
    true_weight, less = FORMS[form]
    pi = np.atleast_2d(np.asarray(pi, dtype=float))
    known = pi.shape[1]
    pi = np.hstack([pi, np.zeros((len(pi), 1))])
    count = np.append(np.ones(known), classes - known)
    scale = weight / (classes - less)
    pull = scale * true_weight * pi
    square = scale * count * (1 - pi) + pull

    def expected_loss(f: np.ndarray) -> np.ndarray:
        return _log_sum(count, f) + ((square * f - pi - 2 * pull) * f).sum(1)

    f = np.zeros_like(pi)
    for _ in range(200):
        p = count * np.exp(f - _log_sum(count, f)[:, None])
        gradient = p - pi + 2 * (square * f - pull)
        diagonal = p + 2 * square + 1e-12  # the Hessian is this minus p p^T: Sherman & Morrison
        scaled = p / diagonal
        along = (scaled * gradient).sum(1) / (1 - (p * scaled).sum(1))
        step = gradient / diagonal + scaled * along[:, None]
        if (gradient * step).sum(1).max() < 1e-14:  # twice what there is still to gain, in nats
            break
        size, now = np.ones(len(f)), expected_loss(f)
        while (worse := (expected_loss(f - size[:, None] * step) > now) & (size > 1e-8)).any():
            size[worse] /= 2
        f = f - size[:, None] * step
    log_p = f - _log_sum(count, f)[:, None]
    return entropy_terms(pi, pi).sum(1) - (pi * log_p).sum(1)


def entropy_terms(pi: np.ndarray, of: np.ndarray) -> np.ndarray:
    """pi log of, 0 where pi is."""
    return pi * np.log(np.where(pi > 0, of, 1.0))


def _log_sum(count: np.ndarray, f: np.ndarray) -> np.ndarray:
    """log sum_j count_j exp f_j of each row: (n, k + 1) -> (n,)."""
    largest = f.max(1)
    return largest + np.log((count * np.exp(f - largest[:, None])).sum(1))
