"""Whether a study's models have learnt enough for its losses to be ranked."""

# A stand-in until the module is merged: only its interface is meant to stay.

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Adequacy:
    enough: bool
    reasons: list[str] = field(default_factory=list)


def share_learnt(nll: float, unigram: float, limit: float) -> float:
    return (unigram - nll) / (unigram - limit)


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
    if nll is None:
        return Adequacy(False, ["the study has no cross entropy to compare with"])
    if nll < counted[order]:
        return Adequacy(True)
    return Adequacy(
        False,
        [
            f"cross entropy ({nll:.3f} nats per token) does not beat the {order}-gram model of the "
            f"tokens it was trained on ({counted[order]:.3f})"
        ],
    )


def sign_changes(
    curves: Mapping[str, Mapping[int, float]], baseline: str = "cross_entropy"
) -> list[str]:
    changing = []
    for loss, curve in curves.items():
        gaps = [nll - curves[baseline][n] for n, nll in curve.items() if n in curves[baseline]]
        if any(gap > 0 for gap in gaps) and any(gap < 0 for gap in gaps):
            changing.append(loss)
    return changing
