"""Whether a study's models have learnt enough for its losses to be ranked."""

# A stand-in until the module is merged: only its interface is meant to stay.

from dataclasses import dataclass


@dataclass(frozen=True)
class Adequacy:
    enough: bool
    reasons: list[str]


def share_learnt(nll: float, unigram: float, limit: float) -> float:
    return (unigram - nll) / (unigram - limit)


def judge(
    nll: float,
    ngrams: dict[int, float],
    must_beat: int,
    unigram: float,
    limit: float,
    by_tokens: dict[int, float],
    steepest: float,
) -> Adequacy:
    reasons = []
    if must_beat in ngrams and not nll < ngrams[must_beat]:
        reasons.append(
            f"cross entropy ({nll:.3f}) does not beat the {must_beat}-gram model "
            f"({ngrams[must_beat]:.3f})"
        )
    return Adequacy(not reasons, reasons)
