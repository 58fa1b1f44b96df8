"""Intervals and p-values for means over stories and seeds.

`squentropy metrics` writes them to results/STUDY/metrics.csv.

A number such as the test nll has two sources of variance: the stories in the test split and the
training seed. Every seed is scored on the same stories, so the two are crossed. A difference
between two losses is therefore first taken per story and per seed (Koehn 2004; Miller 2024, arXiv
2411.00640).

Stories are many and are resampled: the bootstrap draws them jointly for all seeds, which estimates
each seed's sampling variance and the covariance between two seeds due to their common stories.
Seeds are few, often three, and bootstrap intervals over three values are far too narrow: the
variance is a third too low, and the tails are those of a normal distribution. So seeds are not
resampled; their observed variance is used directly, with Student's t:

    V = Var_seeds(r_s) / S  +  mean over pairs s != t of Cov_bootstrap(r_s, r_t)

This is the two-way variance of Cameron, Gelbach & Miller 2011. The variance between seeds already
includes each seed's own sampling variance, so only the covariance is added. For S seeds and I
stories, with w the first term's share of V, the degrees of freedom are
1/df = w/(S - 1) + (1 - w)/(I - 1). With three seeds, Satterthwaite's rule, which squares w, covers
92 % at worst, and Cochran and Cox, who average the two critical values, cover up to 97 %; averaging
1/df lies between the two.

Measured coverage of the 95 % interval of a difference: 94 to 97 % with three to ten seeds, for any
mixture of the two sources, and 91 to 96 % with two seeds. tests/results/test_intervals.py repeats
the simulation. With one seed, the interval reflects the stories alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri, stdtr, stdtrit

from squentropy.base.errors import SquentropyError

DEGREES_OF_FREEDOM = (
    "Student's t with 1/df = w/(S - 1) + (1 - w)/(I - 1), for S seeds and I stories, where w is "
    "the share of the variance that comes from the seeds; with one seed df = I - 1, and the "
    "interval is about stories alone"
)
"""How intervals over seeds and stories, and p-values, are computed, as text for the report."""

_CHUNK = 1 << 20  # resampled story counts per chunk: 8 MB


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its confidence interval, in the estimate's unit.

    The ends are NaN for fewer than two stories or values.
    """

    estimate: float
    low: float
    high: float


def mean_nll(
    nll: np.ndarray, tokens: np.ndarray, *, resamples: int, confidence: float, seed: int
) -> Interval:
    """The mean nll in nats per token, over all tokens of the stories and over seeds.

    nll     (seeds, stories)  the sum over a story's tokens, nats
    tokens  (stories,)        the number of tokens per story, the same for all seeds

    Raises SquentropyError if the shapes do not match, or if a number is not finite.
    """
    estimate, error, df = _estimate(nll, tokens, resamples, seed)
    return _interval(estimate, error, df, confidence)


def share(
    hits: np.ndarray,
    of: np.ndarray | None = None,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> Interval:
    """The share of hits among counted items, over stories and seeds, with Wilson's interval.

    hits    (seeds, stories)  1 or True for a hit, else 0; with `of`, the number of hits per story
    of      (seeds, stories)  the number of items per story, such as its sentences; 1 if not given

    Each story is weighted by its number of items. Seeds without any items are left out; NaN if none
    remains.

    Near 0 or 1 an interval should not be symmetric, and at 0 or 1 no spread is observed. So
    Wilson's interval is used with an effective sample size: that at which the binomial variance
    equals the two-way variance above, and at most the number of items (Korn & Graubard 1998; Dean
    & Pagano 2015 on intervals for proportions in clustered samples).
    """
    hits = np.atleast_2d(np.asarray(hits, dtype=float))
    of = np.ones_like(hits) if of is None else np.atleast_2d(np.asarray(of, dtype=float))
    counted = of.sum(axis=1) > 0
    if not counted.any():
        return Interval(math.nan, math.nan, math.nan)
    hits, of = hits[counted], of[counted]
    # A seed's share is a ratio. Linearising it gives one value per story, whose mean is the share
    # and whose variance is the ratio's, and which is defined even in resamples without items.
    shares = hits.sum(axis=1, keepdims=True) / of.sum(axis=1, keepdims=True)
    values = shares + (hits - shares * of) / of.mean(axis=1, keepdims=True)
    p, error, df = _estimate(values, np.ones(values.shape[1]), resamples, seed)
    p = min(1.0, max(0.0, p))
    n = float(of.sum())
    critical = float(ndtri((1 + confidence) / 2))
    if error > 0:
        n = min(n, p * (1 - p) / error**2)
        critical = float(stdtrit(df, (1 + confidence) / 2))
    weight = critical**2 / (n + critical**2)
    centre = (1 - weight) * p + weight / 2
    half = math.sqrt(weight * ((1 - weight) * p * (1 - p) + weight / 4))
    return Interval(p, max(0.0, centre - half), min(1.0, centre + half))


def mean(values: Sequence[float] | np.ndarray, confidence: float) -> Interval:
    """The mean of independent values, with Student's interval."""
    values = np.asarray(values, dtype=float)
    n = len(values)
    error = float(values.std(ddof=1)) / math.sqrt(n) if n > 1 else math.nan
    return _interval(float(values.mean()), error, n - 1, confidence)


def difference(
    nll_a: np.ndarray,
    nll_b: np.ndarray,
    tokens: np.ndarray,
    *,
    resamples: int,
    confidence: float,
    seed: int,
) -> tuple[Interval, float]:
    """The mean of a - b in nats per token, paired by story and by seed, and its p-value.

    nll_a, nll_b (seeds, stories) and tokens (stories,) as in `mean_nll`; row s of both must have
    the same seed. The p-value is two-sided, for the null hypothesis of no difference. It agrees
    with the interval: it is below 1 - confidence if and only if the interval excludes zero. NaN
    with fewer than two stories.
    """
    nll_a, nll_b = np.asarray(nll_a, dtype=float), np.asarray(nll_b, dtype=float)
    if nll_a.shape != nll_b.shape:
        raise SquentropyError(
            f"a paired difference needs the same seeds and stories on both sides, but the shapes "
            f"are {nll_a.shape} and {nll_b.shape}"
        )
    estimate, error, df = _estimate(nll_a - nll_b, tokens, resamples, seed)
    if math.isnan(error):
        p_value = math.nan
    elif error == 0:
        p_value = 1.0 if estimate == 0 else 0.0
    else:
        p_value = float(2 * stdtr(df, -abs(estimate) / error))
    return _interval(estimate, error, df, confidence), p_value


def holm(p_values: Sequence[float | None]) -> list[float]:
    """p-values corrected for multiple testing by Holm's step-down rule (Holm 1979).

    In the order given. None and NaN become NaN and are not counted.
    """
    values = np.array([math.nan if p is None else p for p in p_values], dtype=float)
    order = [i for i in np.argsort(values, kind="stable") if not math.isnan(values[i])]
    corrected = np.full(len(values), math.nan)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * values[i]))
        corrected[i] = largest
    return corrected.tolist()


def capped(p_value: float, smallest: float) -> float:
    """The p-value, at least `smallest`: few seeds cannot support a lower one. NaN stays NaN."""
    return p_value if math.isnan(p_value) else max(p_value, smallest)


def _interval(estimate: float, error: float, df: float, confidence: float) -> Interval:
    half = float(stdtrit(df, (1 + confidence) / 2)) * error
    return Interval(estimate, estimate - half, estimate + half)


def _estimate(
    nll: np.ndarray, tokens: np.ndarray, resamples: int, seed: int
) -> tuple[float, float, float]:
    """Mean over seeds of sum(nll) / sum(tokens), its standard error and its degrees of freedom."""
    nll, tokens = np.atleast_2d(np.asarray(nll, dtype=float)), np.asarray(tokens, dtype=float)
    if nll.shape[1:] != tokens.shape or nll.size == 0:
        raise SquentropyError(
            f"nll must be (seeds, stories) and tokens (stories,), but they are {nll.shape} and "
            f"{tokens.shape}"
        )
    if not (np.isfinite(nll).all() and (tokens > 0).all()):
        raise SquentropyError(
            "a story has an nll that is not finite, or no tokens; leave diverged runs out"
        )
    seeds, stories = nll.shape
    ratios = nll.sum(axis=1) / tokens.sum()
    estimate = float(ratios.mean())
    if stories < 2:
        return estimate, math.nan, math.nan
    covariance = np.atleast_2d(np.cov(_resampled(nll, tokens, resamples, seed)))
    covariance *= stories / (stories - 1)  # the bootstrap divides by I, not by I - 1
    if seeds == 1:
        return estimate, math.sqrt(covariance[0, 0]), stories - 1
    of_seeds = ratios.var(ddof=1) / seeds
    off_diagonal = covariance.sum() - np.trace(covariance)
    of_stories = max(0.0, off_diagonal / (seeds * (seeds - 1)))
    variance = of_seeds + of_stories
    share = of_seeds / variance if variance > 0 else 1.0
    df = 1 / (share / (seeds - 1) + (1 - share) / (stories - 1))
    return estimate, math.sqrt(variance), df


def _resampled(nll: np.ndarray, tokens: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Each seed's nats per token in resamples of the stories, drawn jointly: (seeds, resamples)."""
    stories = len(tokens)
    values = np.vstack([nll, tokens]).T
    rng = np.random.default_rng(seed)
    draws = []
    rows = max(1, _CHUNK // stories)
    for start in range(0, resamples, rows):
        n = min(rows, resamples - start)
        drawn = rng.integers(stories, size=(n, stories)) + stories * np.arange(n)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=n * stories).reshape(n, stories)
        # einsum, not @: the order of BLAS's additions depends on the number of threads
        sums = np.einsum("ni,is->ns", counts.astype(float), values, optimize=False)
        draws.append(sums[:, :-1] / sums[:, -1:])
    return np.concatenate(draws).T
