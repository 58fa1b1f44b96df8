"""What a perfect model would do under squentropy: the floor that no training can pass.

Squentropy is not a proper scoring rule. In a context whose next token has the distribution pi,
the best that its loss can be is not reached at softmax(f) = pi, because the square term holds the
wrong logits near zero. The Kullback-Leibler divergence from pi to where it is reached is nll that
a model of any size loses.
"""

import numpy as np

CONTEXTS = {
    "one token is certain": np.ones(1),
    "two tokens, equally likely": np.full(2, 1 / 2),
    "10 tokens, Zipf's law": 1 / np.arange(1, 11) / np.sum(1 / np.arange(1, 11)),
    "100 tokens, Zipf's law": 1 / np.arange(1, 101) / np.sum(1 / np.arange(1, 101)),
}
"""Kinds of contexts: the probabilities of the tokens that can follow, each array summing to 1."""


def squentropy_floor(pi: np.ndarray, classes: int, factor: float = 1.0) -> float:
    """KL from pi to the minimiser of the expected squentropy loss, in nats.

    pi       (k,)  probabilities of the k possible tokens; the other classes - k never follow
    classes        C, the size of the vocabulary, above k
    factor         multiplies the square term: 1 is squentropy, 0 cross entropy

    The expected loss of logits f is
        -sum_j pi_j f_j + log sum_j exp f_j + factor/(C - 1) sum_j (1 - pi_j) f_j^2.
    It is convex, and equal for all classes that never follow, so these share one logit and
    Newton's method has k + 1 unknowns.
    """
    pi = np.append(np.asarray(pi, dtype=float), 0.0)
    count = np.append(np.ones(len(pi) - 1), classes - len(pi) + 1)
    square = factor * count * (1 - pi) / (classes - 1)

    def expected_loss(f: np.ndarray) -> float:
        return -pi @ f + _log_sum(count, f) + square @ f**2

    f = np.zeros(len(pi))
    for _ in range(200):
        p = count * np.exp(f - _log_sum(count, f))
        gradient = p - pi + 2 * square * f
        diagonal = p + 2 * square + 1e-12  # the Hessian is this minus p p^T: Sherman & Morrison
        scaled = p / diagonal
        step = gradient / diagonal + scaled * (scaled @ gradient) / (1 - p @ scaled)
        if gradient @ step < 1e-14:  # twice what there is still to gain, in nats
            break
        size = 1.0
        while size > 1e-8 and expected_loss(f - size * step) > expected_loss(f):
            size /= 2
        f = f - size * step
    log_p = f - _log_sum(count, f)
    possible = pi > 0
    return float(pi[possible] @ (np.log(pi[possible]) - log_p[possible]))


def _log_sum(count: np.ndarray, f: np.ndarray) -> float:
    """log sum_j count_j exp f_j."""
    return float(f.max() + np.log(count @ np.exp(f - f.max())))
