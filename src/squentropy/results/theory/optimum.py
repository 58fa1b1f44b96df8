"""What a perfect model would predict under squentropy, which is not the true distribution.

Squentropy is not a proper scoring rule. In a context whose next token has the distribution pi, the
expected loss is not minimal at softmax(f) = pi, because the square term pulls the wrong logits
towards zero. The Kullback-Leibler divergence from pi to the minimiser is the excess nll of a model
of any size that has fully learnt the loss's optimum.
"""

import math
from collections.abc import Callable

import numpy as np
from scipy.special import wrightomega

from squentropy.base.errors import SquentropyError

CONTEXTS = {
    "one token is certain": np.ones(1),
    "two tokens, equally likely": np.full(2, 1 / 2),
    "10 tokens, Zipf's law": 1 / np.arange(1, 11) / np.sum(1 / np.arange(1, 11)),
    "100 tokens, Zipf's law": 1 / np.arange(1, 101) / np.sum(1 / np.arange(1, 101)),
}
"""Example contexts: the probabilities of the tokens that can follow; each array sums to 1."""

STEPS = 300
"""Maximum steps of the search for each row's log normaliser; about 10 usually suffice."""


def floor(
    pi: np.ndarray, classes: int, scale: float = 1.0, true_weight: float = 0.0, less: int = 1
) -> np.ndarray:
    """KL from each row of pi to the minimiser of the expected loss, in nats: (n, k) -> (n,).

    pi           probabilities of k tokens; rows sum to 1, and the other classes never follow
    classes      C, the size of the vocabulary, at least k
    scale        factor of the square term: 1 is squentropy, 0 cross entropy
    true_weight  weight of the true logit's squared distance to 1; 0 in squentropy
    less         the square term is divided by C - less
    """
    pi = np.atleast_2d(np.asarray(pi, dtype=float))
    follows = pi > 0
    rows, starts = pi[follows], np.cumsum(follows.sum(1)) - follows.sum(1)
    return ragged_floor(rows, starts, classes, scale, true_weight, less)


def ragged_floor(
    pi: np.ndarray,
    starts: np.ndarray,
    classes: int,
    scale: float = 1.0,
    true_weight: float = 0.0,
    less: int = 1,
) -> np.ndarray:
    """`floor` for concatenated distributions of different lengths: (m,) -> (n,).

    pi      probabilities above 0
    starts  index at which each distribution begins, (n,)

    With s = scale/(C - less) and true_weight w, the expected loss of logits f is
        -sum_j pi_j f_j + log sum_j exp f_j + s sum_j [(1 - pi_j) f_j^2 + w pi_j (f_j - 1)^2].
    It is convex. At its minimum, p = softmax(f) satisfies for each class
        p_j - pi_j + 2 s (1 - pi_j + w pi_j) f_j - 2 s w pi_j = 0,    log p_j = f_j - L.
    Given L, each equation has a closed-form solution, and the sum of p decreases in L, so only one
    number has to be searched for per row. All classes that never follow have the same p.

    Raises SquentropyError, which shows the input, if the search does not converge.
    """
    if not (scale >= 0 and true_weight >= 0):
        raise SquentropyError(f"no optimum with a scale of {scale} and a weight of {true_weight}")
    lengths = np.diff(np.append(starts, len(pi)))
    # If one token is certain and its logit unpenalised, the logit grows without bound: p = pi.
    known = (lengths == 1) & (true_weight == 0) | (scale == 0)
    kl = np.zeros(len(starts))
    if not known.all():
        left = pi[~np.repeat(known, lengths)]
        s = scale / (classes - less)
        kl[~known] = _divergences(left, lengths[~known], classes, s, true_weight)
    return kl


def _divergences(
    pi: np.ndarray, lengths: np.ndarray, classes: int, s: float, true_weight: float
) -> np.ndarray:
    starts, never = np.cumsum(lengths) - lengths, classes - lengths
    pull = 2 * s * true_weight * pi
    square = 2 * s * (1 - pi) + pull

    def sums(values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(values, starts)

    def beyond(log_z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """p - pi of every class that can follow, and the p of a class that never follows."""
        each = np.repeat(log_z, lengths)
        p = _solution(square, pi + pull, each)
        # The two forms are equal; the one that subtracts smaller numbers is more accurate.
        small = square * (np.abs(np.log(p)) + np.abs(each)) < p + pi
        over = np.where(small, pull - square * (np.log(p) + each), p - pi)
        return over, _solution(2 * s, 0.0, log_z)

    def excess(log_z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Sum of p over all classes, minus 1, and its derivative."""
        over, rest = beyond(log_z)
        p = pi + over
        slope = sums(p * square / (p + square)) + never * rest * 2 * s / (rest + 2 * s)
        return sums(over) + never * rest, -slope

    log_z, converged = _roots(excess, np.full(len(lengths), math.log(classes)))
    over, rest = beyond(log_z)
    share = over / pi
    kl = sums(pi * (share - np.log1p(share))) + never * rest  # because p and pi both sum to 1
    wrong = ~(converged & (kl >= 0) & (kl <= math.log(classes) + 1e-9))
    if wrong.any():
        start = starts[wrong.argmax()]
        raise SquentropyError(
            f"the optimum of a square term of {s:g} a class, with {classes} classes, is not found "
            f"in a context whose probabilities begin with {pi[start : start + 3].tolist()}"
        )
    return kl


def _solution(a: np.ndarray | float, b: np.ndarray | float, log_z: np.ndarray) -> np.ndarray:
    """The solution p of p + a (log p + log_z) = b, for a > 0."""
    return a * wrightomega(b / a - log_z - np.log(a))


def _roots(
    function: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]], start: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The root of a decreasing function for each row, and whether it was found.

    Newton's method within a bracket, which is first widened until it contains the root. Every third
    step bisects, so the search converges for any decreasing function.

    function  (n,) -> values and derivatives, (n,) each
    """
    low, high = start - 1, start + 1
    for step in 2.0 ** np.arange(12):
        low = np.where(function(low)[0] < 0, low - step, low)
        high = np.where(function(high)[0] > 0, high + step, high)
    at, found = start, np.zeros(len(start), dtype=bool)
    for i in range(STEPS):
        value, slope = function(at)
        low, high = np.where(value >= 0, at, low), np.where(value <= 0, at, high)
        newton, near = at - value / slope, 1e-12 * np.maximum(1, np.abs(at))
        # If rounding keeps Newton's method from converging, a narrow bracket is accepted.
        found |= (np.abs(newton - at) <= near) | (high - low <= near)
        halve = (i % 3 == 2) | ~((low <= newton) & (newton <= high))
        at = np.where(found, at, np.where(halve, (low + high) / 2, newton))
        if found.all():
            break
    return at, found


def entropy_terms(pi: np.ndarray, of: np.ndarray) -> np.ndarray:
    """pi log of, or 0 if pi is 0."""
    return pi * np.log(np.where(pi > 0, of, 1.0))
