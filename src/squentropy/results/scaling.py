"""How many times the tokens of cross entropy a loss needs for the same nll.

A difference in nats is hard to interpret; "needs 1.4 times the data" is not. Runs of several
lengths, each with its own schedule, give a curve of nll against training tokens per loss. All
functions here take plain arrays and numbers.
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import isotonic_regression

from squentropy.base.errors import SquentropyError
from squentropy.results.intervals import Interval

Curve = tuple[np.ndarray, np.ndarray]  # log tokens, rising; nll, strictly falling


@dataclass(frozen=True)
class Needed:
    """Tokens needed relative to the baseline, with the ends of the interval.

    A value is inf if even the baseline's shortest run is better (more than `most` times), 0 if even
    the loss's own shortest run is better than the baseline (less than `least` times), and NaN if
    unknown.
    """

    estimate: float
    low: float
    high: float
    least: float
    most: float


def tokens_needed(
    baseline_tokens: np.ndarray,
    baseline_nll: np.ndarray,
    tokens: np.ndarray,
    nll: np.ndarray,
    difference: Interval,
) -> Needed:
    """How many times the baseline's tokens a loss needs for the same nll, at full length T.

    baseline_tokens (k,), baseline_nll (k,)  distinct lengths of the baseline, in any order, and
                                             the nll at each; NaN if it diverged
    tokens (m,), nll (m,)                    the same for the loss; the longest is T for both
    difference                               nll at T, loss minus baseline, with its interval

    If the loss is worse by d, the baseline reaches the loss's final nll after T' <= T tokens, where
    its own nll is d above its final one; the loss needs T / T'. If the loss is better, it reaches
    the baseline's final nll after T'' < T tokens and needs T'' / T. With no difference, the ratio
    is 1. Curves are first made monotone, because a short run may by chance beat a longer one, and
    are then interpolated linearly in log tokens.

    The ends of the interval are the same function of the ends of the difference's interval. They
    reflect the variation over stories and seeds at full length, but not the noise of the curve's
    points (the spread at lengths with a single seed is unknown) or the interpolation error.

    All values are NaN if either run diverged at T. Raises SquentropyError if the longest runs of
    the two differ in length.
    """
    if max(baseline_tokens) != max(tokens):
        raise SquentropyError(
            f"tokens needed are read at one full length, but the longest runs have "
            f"{max(baseline_tokens):,} and {max(tokens):,} tokens"
        )
    if not (_ends_finite(baseline_tokens, baseline_nll) and _ends_finite(tokens, nll)):
        return Needed(*[math.nan] * 5)
    baseline, own = _monotone(baseline_tokens, baseline_nll), _monotone(tokens, nll)

    def needed(d: float) -> float:
        if math.isnan(d):
            return math.nan
        if d >= 0:
            return 1 / _share_of_tokens(baseline, d) if d <= _span(baseline) else math.inf
        return _share_of_tokens(own, -d) if -d <= _span(own) else 0.0

    return Needed(
        needed(difference.estimate),
        needed(difference.low),
        needed(difference.high),
        least=_share_of_tokens(own, _span(own)),
        most=1 / _share_of_tokens(baseline, _span(baseline)),
    )


def slope(tokens: np.ndarray, excess: np.ndarray) -> float:
    """Least-squares slope of log excess against log tokens: -1/3 means excess ∝ tokens^(-1/3).

    tokens (k,); excess (k,), the nll minus the exact entropy. Points without a logarithm (diverged,
    or by chance not above zero) are left out. NaN if fewer than two lengths remain.
    """
    tokens, excess = np.asarray(tokens, dtype=float), np.asarray(excess, dtype=float)
    usable = np.isfinite(excess) & (excess > 0)
    x, y = np.log(tokens[usable]), np.log(excess[usable])
    if len(np.unique(x)) < 2:
        return math.nan
    x -= x.mean()
    return float((x * y).sum() / (x * x).sum())


def _ends_finite(tokens: np.ndarray, nll: np.ndarray) -> bool:
    return bool(np.isfinite(np.asarray(nll, dtype=float)[np.argmax(tokens)]))


def _monotone(tokens: np.ndarray, nll: np.ndarray) -> Curve:
    """A strictly decreasing curve, by isotonic regression.

    Lengths pooled to the same nll are represented by the longest of them. The curve thus ends at
    full length, and stretches without improvement do not count as tokens saved.
    """
    tokens, nll = np.asarray(tokens, dtype=float), np.asarray(nll, dtype=float)
    order = np.argsort(tokens)
    order = order[np.isfinite(nll[order])]
    pooled = isotonic_regression(nll[order], increasing=False).x
    last = np.append(pooled[:-1] > pooled[1:], True)
    return np.log(tokens[order][last]), pooled[last]


def _span(curve: Curve) -> float:
    """The nll of the shortest run minus that of the longest."""
    return curve[1][0] - curve[1][-1]


def _share_of_tokens(curve: Curve, above: float) -> float:
    """The share of all tokens (at most 1) after which the nll was this far above the final one."""
    log_tokens, nll = curve
    reached = np.interp(above, (nll - nll[-1])[::-1], log_tokens[::-1])
    return float(np.exp(reached - log_tokens[-1]))
