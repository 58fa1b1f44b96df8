"""Intervals and p-values for means over stories and seeds.

Called by tables.py, so that `squentropy metrics` writes them into results/STUDY/metrics.csv.

A number such as the test nll has two sources of luck: which stories the test split happens to
hold, and which seed a model was trained with. Every seed is scored on the same stories, so the
two are crossed, and a difference of two losses is taken story by story and seed by seed before
anything else (Koehn 2004; Miller 2024, arXiv 2411.00640).

Stories are many and are resampled: the bootstrap draws them jointly for all seeds, which gives
each seed's sampling variance and, between two seeds, the covariance that their common stories
cause. Seeds are few, often three, and a bootstrap over three values is known to be far too
narrow: its variance is low by a third and its tails are those of a normal distribution. So seeds
are not resampled; their observed spread enters as it is, with Student's t:

    V = Var_seeds(r_s) / S  +  mean over pairs s != t of Cov_bootstrap(r_s, r_t)

the two-way variance of Cameron, Gelbach & Miller 2011 (the spread between seeds already holds
the part of the stories' luck that is each seed's own, so only the common part is added). With w
the share of the first term, the degrees of freedom are 1/df = w/(S - 1) + (1 - w)/(I - 1).
Satterthwaite's rule squares w and covers 92 % at worst with three seeds; Cochran and Cox average
the two critical values and cover up to 97 %; averaging 1/df lies between the two.

Measured coverage of the 95 % interval of a difference: with three to ten seeds 94 to 97 %, for
any mixture of the two sources; with two seeds 91 to 96 %. tests/results/test_intervals.py repeats
the simulation. With one seed nothing can be said about seeds: the interval is about stories alone.
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
"""How intervals over seeds and stories, and p-values, are made, in words for the report."""

_CHUNK = 1 << 20  # resampled story counts held at once: 8 MB


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its confidence interval, in the estimate's unit.

    The ends are NaN where the data hold no spread to judge by: fewer than two stories.
    """

    estimate: float
    low: float
    high: float


def mean_nll(
    nll: np.ndarray, tokens: np.ndarray, *, resamples: int, confidence: float, seed: int
) -> Interval:
    """The mean nll in nats per token over all tokens of the stories, and over seeds.

    nll     (seeds, stories)  the sum over a story's tokens, nats
    tokens  (stories,)        the number of tokens of a story, the same for all seeds

    Raises SquentropyError where the shapes do not agree or a number is not finite.
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
    """The share of hits among what is counted in stories, and over seeds, with Wilson's interval.

    hits    (seeds, stories)  1 or True for a hit, else 0; with `of` the number of hits in a story
    of      (seeds, stories)  the number counted in a story, as its sentences; one if not given

    A story weighs as much as is counted in it. Seeds in whose stories nothing is counted are left
    out; NaN if none is left.

    A share near 0 or 1 has no symmetric interval, and at 0 or 1 it shows no spread at all. So
    Wilson's interval is taken at the effective number: the one whose binomial variance would be
    the two-way variance above, and never more than are counted (Korn & Graubard 1998; Dean &
    Pagano 2015 on intervals for shares in clustered samples).
    """
    hits = np.atleast_2d(np.asarray(hits, dtype=float))
    of = np.ones_like(hits) if of is None else np.atleast_2d(np.asarray(of, dtype=float))
    counted = of.sum(axis=1) > 0
    if not counted.any():
        return Interval(math.nan, math.nan, math.nan)
    hits, of = hits[counted], of[counted]
    # The share of a seed is a ratio. Its linear part has a value a story, whose mean is the share
    # and whose spread is the ratio's; a resample without anything to count does no harm to it.
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
    """The mean of values that were drawn independently, with Student's interval."""
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

    nll_a, nll_b (seeds, stories) and tokens (stories,) as in `mean_nll`; row s of both must be
    of the same seed. The p-value is two-sided for "there is no difference" and agrees with the
    interval: it is below 1 - confidence exactly where the interval leaves zero out. NaN with
    fewer than two stories.
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
    """p-values corrected for their number by Holm's step-down rule (Holm 1979).

    Returned in the order given. None and NaN stay NaN and are not counted.
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
    """A p-value, or `smallest` if it is below: a few seeds cannot support less. NaN stays NaN."""
    return p_value if math.isnan(p_value) else max(p_value, smallest)


def _interval(estimate: float, error: float, df: float, confidence: float) -> Interval:
    half = float(stdtrit(df, (1 + confidence) / 2)) * error
    return Interval(estimate, estimate - half, estimate + half)


def _estimate(
    nll: np.ndarray, tokens: np.ndarray, resamples: int, seed: int
) -> tuple[float, float, float]:
    """Mean over seeds of sum(nll) / sum(tokens), its standard error, its degrees of freedom."""
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
    covariance *= stories / (stories - 1)  # resampling divides by I where a variance has I - 1
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
        # einsum, not @: BLAS adds in an order that depends on the machine's number of threads
        sums = np.einsum("ni,is->ns", counts.astype(float), values, optimize=False)
        draws.append(sums[:, :-1] / sums[:, -1:])
    return np.concatenate(draws).T
