"""How many times the tokens of cross entropy a loss needs for the same nll.

A difference in nats means little to someone who pays for training; "needs 1.4 times the data"
does. Runs of several lengths, each with a schedule of its own, give nll against training tokens,
a curve per loss. All functions here take plain arrays and numbers.
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

    A number is inf if the shortest run of the baseline is still better: more than `most` times.
    It is 0 if the loss's own shortest run is still better: less than `least` times. NaN: unknown.
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

    baseline_tokens (k,), baseline_nll (k,)  the baseline's lengths in any order, each once, and
                                             its nll there; a length that diverged is NaN
    tokens (m,), nll (m,)                    the same of the loss; the longest is T for both
    difference                               of nll at T, loss minus baseline, with its interval

    A loss that is worse by d has reached what the baseline reaches after T' <= T tokens, where the
    baseline's nll is d above its last: it needs T / T'. A loss that is better reached the
    baseline's last nll after T'' < T tokens of its own: it needs T'' / T. Curves are linear in
    log tokens between lengths, and made monotone first, since a short run of one seed may by
    chance beat a longer one. At a difference of zero the answer is 1.

    The interval maps the ends of the difference's interval in the same way. So it holds the luck
    of stories and seeds at full length, but not that of the curves' own points (where shorter
    lengths have one seed, their spread is unknown), nor the error of interpolating between them.

    All is NaN if either diverged at T. Raises SquentropyError if their longest runs differ.
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
    """Slope of log excess against log tokens, by least squares: -1/3 is excess ∝ tokens^(-1/3).

    tokens (k,) and excess (k,), nll minus exact entropy. Points without a logarithm (diverged, or
    by chance not above zero) are left out; NaN if fewer than two lengths are left.
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
    """A strictly falling curve by isotonic regression.

    A run of lengths that it pools to one nll counts as the longest of them, so that the curve
    ends at full length, and a part in which more tokens win nothing claims no tokens saved.
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
    """The share of all tokens after which the nll was this far above the last, at most 1."""
    log_tokens, nll = curve
    reached = np.interp(above, (nll - nll[-1])[::-1], log_tokens[::-1])
    return float(np.exp(reached - log_tokens[-1]))
