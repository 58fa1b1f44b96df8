"""Have the models of a study learnt enough for their losses to be ranked?

A ranking of undertrained models shows which loss learns fastest at first, not which is better. So
before any comparison, cross entropy must beat an n-gram model, and its curve of nll against
training tokens must be past its steep part. `judge` decides this and gives the reasons. All
functions here are pure; every nll is in nats per token on the test split.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from squentropy.results import ngrams

BASELINE = "cross_entropy"
NOT_ENOUGH = "not trained enough to rank the losses"
"""The verdict if `Adequacy.enough` is false."""


@dataclass(frozen=True)
class Adequacy:
    """Whether the losses can be ranked; if not, the reasons, as sentences without a full stop."""

    enough: bool
    reasons: list[str] = field(default_factory=list)
    learnt: float = math.nan
    """Share of the range from unigram to limit that cross entropy has covered."""
    last_doubling: float = math.nan
    """Share of that range gained per doubling between the two longest runs; NaN for one run."""


def share_learnt(nll: float, unigram: float, limit: float) -> float:
    """(unigram - nll) / (unigram - limit): 0 without context, 1 if everything has been learnt.

    NaN if the limit is not below the unigram nll.
    """
    return (unigram - nll) / (unigram - limit) if unigram > limit else math.nan


def judge(
    nll: float | None,
    counted: Mapping[int, float],
    *,
    order: int,
    unigram: float,
    limit: float | None,
    by_tokens: Mapping[int, float],
    steepest: float,
) -> Adequacy:
    """Judge a study by its cross entropy.

    nll        of cross entropy in its primary reading, at full length; None if the study has none
    counted    nll by order of n-gram models of the same number of training tokens
    order      of the n-gram model that cross entropy must beat
    unigram    nll without context: the entropy of the token frequencies
    limit      the exact entropy; if None, the nll of the best n-gram model is used instead
    by_tokens  nll of cross entropy by training tokens, each run with its own schedule, including
               full length; with a single length the slope is not checked
    steepest   largest share of the range from unigram to limit that the last doubling may gain
    """
    if nll is None:
        return Adequacy(False, ["the study has no cross entropy to compare with"])
    if not math.isfinite(nll):
        return Adequacy(False, ["cross entropy diverged"])
    what = "exact entropy" if limit is not None else "best n-gram model"
    limit = min(counted.values()) if limit is None else limit
    reasons = []
    if not nll < counted[order]:
        reasons.append(
            f"cross entropy ({nll:.3f} nats per token) does not beat the {ngrams.name(order)} "
            f"model of the tokens it was trained on ({counted[order]:.3f})"
        )
    won, shorter, longer = _last_doubling(by_tokens, unigram, limit)
    if won > steepest:
        reasons.append(
            f"cross entropy's curve is still steep: from {shorter:,} to {longer:,} tokens it won "
            f"{won:.0%} of the range from unigram to {what} per doubling, and {steepest:.0%} is "
            f"the most allowed"
        )
    return Adequacy(not reasons, reasons, share_learnt(nll, unigram, limit), won)


def _last_doubling(
    by_tokens: Mapping[int, float], unigram: float, limit: float
) -> tuple[float, int, int]:
    """(share of the range gained per doubling, tokens of the shorter run, tokens of the longer)."""
    lengths = sorted(tokens for tokens, nll in by_tokens.items() if math.isfinite(nll))
    if len(lengths) < 2:
        return math.nan, 0, 0
    shorter, longer = lengths[-2:]
    learnt = [share_learnt(by_tokens[tokens], unigram, limit) for tokens in (shorter, longer)]
    return (learnt[1] - learnt[0]) / math.log2(longer / shorter), shorter, longer


def sign_changes(curves: Mapping[str, Mapping[int, float]], baseline: str = BASELINE) -> list[str]:
    """The losses that are better than the baseline at one length and worse at another.

    curves: loss -> training tokens -> nll in the loss's primary reading. Lengths that the baseline
    lacks, or at which either diverged, are ignored.
    """
    changing = []
    for loss, curve in curves.items():
        differences = [
            nll - curves[baseline][tokens]
            for tokens, nll in curve.items()
            if tokens in curves[baseline]
        ]
        # NaN is neither above nor below
        if any(d > 0 for d in differences) and any(d < 0 for d in differences):
            changing.append(loss)
    return changing
