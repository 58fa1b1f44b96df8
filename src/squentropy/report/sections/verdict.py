"""The verdict of a study in plain sentences, for README, terminal and page.

Sentences are generated from the table for every loss of the study. Each loss declares whether it is
squared; only the answer to the study's question depends on that: does a squared loss belong in a
language model?
"""

import math
from dataclasses import dataclass

import pandas as pd

from squentropy.report.format import DASH, listed, p_text, signed, upper
from squentropy.report.read import Results, label
from squentropy.results import adequacy
from squentropy.study.catalogue import loss_info
from squentropy.study.params import BASELINE

NOT_ENOUGH = upper(adequacy.NOT_ENOUGH)
MOST_LISTED = 4  # losses whose tokens needed are listed individually


@dataclass(frozen=True)
class Evidence:
    """Everything the verdict depends on.

    metrics     indexed by loss: nll, difference, p_value and tokens_needed with _low and _high, in
                the primary reading, as in metrics.csv
    labels      display name of each loss
    squared     losses declared as squared
    at_edge     losses whose best learning rate is at an edge of the tried range
    reasons     why the models have not learnt enough to be ranked; empty if they have
    confidence  level of the intervals; two losses differ if the corrected p < 1 - confidence
    smallest_p  p-values at or below this are reported as "< smallest_p"
    least, most range of tokens needed that the study's lengths can resolve, `least` by loss;
                values beyond it are 0 and inf
    """

    metrics: pd.DataFrame
    labels: dict[str, str]
    squared: frozenset[str]
    at_edge: frozenset[str]
    reasons: tuple[str, ...]
    confidence: float
    smallest_p: float
    least: dict[str, float]
    most: float

    @property
    def compares(self) -> bool:
        """Whether cross entropy, the baseline, has a finished run."""
        return BASELINE in self.metrics.index[self.metrics["nll"].notna()]

    @property
    def ranked(self) -> list[str]:
        """Losses with a difference to cross entropy, by ascending nll."""
        known = (
            self.metrics[self.metrics["difference"].notna()] if self.compares else self.metrics[:0]
        )
        return list(known["nll"].sort_values(kind="stable").index)

    @property
    def enough(self) -> bool:
        return not self.reasons

    def names(self, losses: list[str]) -> str:
        return listed(self.labels[loss] for loss in losses)


def evidence(r: Results) -> Evidence:
    shown = {loss: _shortest(r.curve(loss)) for loss in r.scored}
    return Evidence(
        metrics=r.metrics,
        labels={loss: label(loss) for loss in r.losses},
        squared=frozenset(loss for loss in r.losses if loss_info(loss).squared),
        at_edge=frozenset(loss for loss in r.losses if not r.selected[loss]["inside"]),
        reasons=() if r.adequacy.enough else tuple(r.adequacy.reasons),
        confidence=r.study.evaluate.confidence,
        smallest_p=r.study.plan.smallest_p,
        least=shown,
        most=1 / shown.get(BASELINE, 1.0),
    )


def _shortest(curve: dict[int, float]) -> float:
    """The shortest run of a falling curve, as a fraction of the longest.

    Shorter runs that beat longer ones by chance are pooled with them, as in scaling.py.
    """
    tokens = sorted(curve)
    means = [sum(curve[t] for t in tokens[: i + 1]) / (i + 1) for i in range(len(tokens))]
    first = max(range(len(tokens)), key=lambda i: (means[i], i))
    return tokens[first] / tokens[-1]


@dataclass(frozen=True)
class Groups:
    """Losses by how they compare with cross entropy."""

    better: list[str]
    same: list[str]
    worse: list[str]


def groups(e: Evidence, losses: list[str]) -> Groups:
    """Group losses by the sign of the difference, if the corrected p-value is significant."""
    found = Groups([], [], [])
    for loss in losses:
        gap, p = e.metrics.at[loss, "difference"], e.metrics.at[loss, "p_value"]
        told_apart = p < 1 - e.confidence and gap != 0  # False if p is missing
        group = found.same if not told_apart else found.better if gap < 0 else found.worse
        group.append(loss)
    return found


def headline(e: Evidence) -> str:
    """The answer in one clause or sentence."""
    if e.metrics["nll"].isna().all():
        return "Every final run diverged, so this study has no answer."
    if not e.compares:
        why = "has no finished run" if BASELINE in e.metrics.index else "is not part of this study"
        return f"Cross entropy {why}, so no loss is compared with it."
    if not e.enough:
        return NOT_ENOUGH
    if not e.ranked:
        return "No other loss has a run to compare with cross entropy."
    squared = [loss for loss in e.ranked if loss in e.squared]
    return _of_squared(e, squared) if squared else "No squared loss is compared here."


def _of_squared(e: Evidence, squared: list[str]) -> str:
    found = groups(e, squared)
    if found.better:
        return f"Yes: {_are(e, found.better)} better than cross entropy."
    if not found.same:
        if len(squared) == 1:
            return f"No: {_are(e, squared)} worse than cross entropy."
        tried = e.squared & set(e.metrics.index)
        which = "tried" if len(squared) == len(tried) else "that is compared"
        return f"No: every squared loss {which} is worse than cross entropy."
    if found.worse:
        return "Not shown: no squared loss can be said to be better than cross entropy."
    return "Not shown either way: no squared loss can be told apart from cross entropy."


def sentences(e: Evidence) -> list[str]:
    """Sentences after the headline: the reasons, or the other losses and their token cost."""
    if not e.compares:
        return []
    if not e.enough:
        return [f"{'; '.join(e.reasons)}."]
    squared = [loss for loss in e.ranked if loss in e.squared]
    others = [loss for loss in e.ranked if loss not in e.squared]
    said = [_rest(e, squared), _clauses(e, groups(e, others)), _tokens(e, squared or others)]
    edge = [loss for loss in e.ranked if loss in e.at_edge]
    if edge:
        said.append(
            f"The best learning rate of {e.names(edge)} lies at an edge of those tried, "
            "so a better one may exist."
        )
    missing = [loss for loss in e.metrics.index if loss not in (*e.ranked, BASELINE)]
    if missing:
        said.append(f"Not compared, since no run finished: {e.names(missing)}.")
    return [upper(text) for text in said if text]


def _rest(e: Evidence, squared: list[str]) -> str:
    """The squared losses that the headline omits."""
    found = groups(e, squared)
    if found.better:
        return _clauses(e, Groups([], found.same, found.worse))
    return _clauses(e, found) if found.same and found.worse else ""


def _clauses(e: Evidence, found: Groups) -> str:
    parts = []
    if found.better:
        parts.append(f"{_are(e, found.better)} better than cross entropy")
    if found.worse:
        parts.append(f"{_are(e, found.worse)} worse than cross entropy")
    if found.same:
        parts.append(f"{e.names(found.same)} cannot be told apart from cross entropy")
    return f"{'; '.join(parts)}." if parts else ""


def _are(e: Evidence, losses: list[str]) -> str:
    return f"{e.names(losses)} {'is' if len(losses) == 1 else 'are'}"


def _tokens(e: Evidence, losses: list[str]) -> str:
    """The tokens that losses need for the same nll, relative to cross entropy."""
    needs = e.metrics.loc[losses, "tokens_needed"].dropna().sort_values(kind="stable")
    if needs.empty:
        return ""
    if len(needs) > MOST_LISTED:
        least, most = needs.index[0], needs.index[-1]
        beyond = [loss for loss, times in needs.items() if math.isinf(times)]
        rest = (
            f"{e.names(beyond)} more than {e.most:.2g}, the most that these lengths can show"
            if beyond
            else f"{e.labels[most]} most, {tokens_needed(e, most)}"
        )
        return (
            f"For the same nll, {e.labels[least]} needs fewest, {tokens_needed(e, least)} times "
            f"the tokens of cross entropy, and {rest}."
        )
    first, *more = needs.index
    times = f"{_factor(e, first, needs[first])} times the tokens of cross entropy"
    parts = [f"{e.labels[first]} needs {times}{_between(e, first)}"]
    parts += [f"{e.labels[loss]} {tokens_needed(e, loss)}" for loss in more]
    return f"For the same nll, {listed(parts)}."


def tokens_needed(e: Evidence, loss: str) -> str:
    """A factor with its interval, as "1.42 (1.29 to 1.51)"; a dash if unknown."""
    value = e.metrics.at[loss, "tokens_needed"]
    return DASH if pd.isna(value) else f"{_factor(e, loss, value)}{_between(e, loss)}"


def _between(e: Evidence, loss: str) -> str:
    low, high = e.metrics.loc[loss, ["tokens_needed_low", "tokens_needed_high"]]
    if pd.isna(low) or pd.isna(high) or math.isinf(low) or high == 0:
        return ""
    return f" ({_factor(e, loss, low)} to {_factor(e, loss, high)})"


def _factor(e: Evidence, loss: str, value: float) -> str:
    if math.isinf(value):
        return f"more than {e.most:.2g}"
    if value == 0:
        return f"less than {e.least.get(loss, 1.0):.2g}"
    return f"{value:.2f}" if 0.1 <= value < 9.995 else f"{value:.2g}"


def comparison(e: Evidence) -> list[str]:
    """Every compared loss with its difference, one line per group; empty if unranked."""
    if not e.enough:
        return []
    found = groups(e, e.ranked)
    lines = (
        (found.better, "Better than cross entropy"),
        (found.same, "Not told apart from cross entropy"),
        (found.worse, "Worse than cross entropy"),
    )
    return [
        f"{what}: {', '.join(_with_difference(e, loss) for loss in losses)}"
        for losses, what in lines
        if losses
    ]


def _with_difference(e: Evidence, loss: str) -> str:
    row = e.metrics.loc[loss]
    low, high = row["difference_low"], row["difference_high"]
    ends = "" if pd.isna(low) or pd.isna(high) else f" [{signed(low)}, {signed(high)}]"
    p = "" if pd.isna(row["p_value"]) else f", p {p_text(row['p_value'], e.smallest_p)}"
    return f"{e.labels[loss]} {signed(row['difference'])}{ends}{p}"
