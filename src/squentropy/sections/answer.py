"""The study's answer."""

from squentropy.markup import Html, interval, nats, number, paragraphs, signed
from squentropy.params import BASELINE
from squentropy.results import Results
from squentropy.sections.pieces import about_seeds, by_verdict, compared, loss_name, names, percent

SQUARED = ("mse", "mse_weighted", "squentropy", "squentropy_tenth", "squentropy_weighted", "brier")
"""The losses with a squared term among those that come with the project."""


def answer(r: Results) -> Html:
    """The study's answer: the verdict, the best loss, every difference, and what intervals say."""
    if not r.scored:
        return paragraphs("Every final run diverged, so this study has no answer.")
    best = r.scored[0]
    lowest = (
        f"The lowest test perplexity under softmax, "
        f"{interval(r.metrics.loc[best], 'test_ppl', number)}, was reached with {loss_name(best)}."
    )
    if compared(r):
        answered = paragraphs(_verdict(r), lowest, _unlearned(r))
        return Html(answered + _comparison(r) + paragraphs(about_seeds(r)))
    why = "has no scored run here" if BASELINE in r.losses else "is not part of this study"
    if r.scored == [BASELINE]:
        alone = "No other loss has a scored run, so there is nothing to compare it with."
    else:
        alone = f"Cross entropy {why}, so nothing is compared with it."
    return paragraphs(lowest, _unlearned(r), alone, about_seeds(r))


def _verdict(r: Results) -> str:
    """Whether a squared loss belongs, as far as this study can tell."""
    squared = [loss for loss in compared(r) if loss in SQUARED]
    if not squared:
        return "None of the losses compared here has a squared term."
    better, same, worse = by_verdict(r, squared)
    if better:
        verdict = f"Yes, here: {names(better)} did better than cross entropy."
    elif not same and _better_by_link(r):
        verdict = (
            "Not under softmax: every loss with a squared term did worse than cross entropy, "
            f"beyond chance. Read by the inverse link, {names(_better_by_link(r))} did better."
        )
    elif not same:
        verdict = (
            "Not here: every loss with a squared term did worse than cross entropy, beyond chance."
        )
    elif worse:
        verdict = (
            f"Nothing here speaks for it: none did better than cross entropy, {names(worse)} did "
            f"worse, and {names(same)} cannot be told from it."
        )
    else:
        verdict = "Not shown either way: none can be told from cross entropy."
    return f"<strong>Does a squared loss belong in a language model? {verdict}</strong>"


def _better_by_link(r: Results) -> list[str]:
    """The squared losses that beat cross entropy where the inverse link reads their outputs."""
    return [x for x in compared(r) if r.metrics.at[x, "inverse_link_difference_high"] < 0]


def _unlearned(r: Results) -> str:
    """The losses whose probabilities are worth no more than the tokens' frequencies."""
    unigram = r.corpus["unigram_nll"]
    above = [loss for loss in r.scored if r.metrics.at[loss, "test_nll"] >= unigram]
    level = (
        f"{nats(unigram)} nats a token, which the frequencies of tokens give without any context"
    )
    if above == r.scored:
        return (
            f"No loss got below {level}. These models have hardly learned, so the comparison says "
            "little; train longer."
        )
    return f"{names(above)} did not get below {level}." if above else ""


def _comparison(r: Results) -> str:
    """Every compared loss, with its difference in nats a token."""
    better, same, worse = by_verdict(r, compared(r))
    points = []
    for losses, what in (
        (better, "Better than cross entropy beyond chance"),
        (same, "Not told apart from cross entropy"),
        (worse, "Worse than cross entropy beyond chance"),
    ):
        gaps = (
            f"{loss_name(loss)} {interval(r.metrics.loc[loss], 'difference', signed)}"
            for loss in losses
        )
        points += [f"<li>{what}: {', '.join(gaps)}</li>"] if losses else []
    return (
        f"<ul>{''.join(points)}</ul><p>Differences are test nll in nats a token, paired by story "
        f"and seed, with {percent(r)} intervals. Beyond chance: p, corrected for the number of "
        f"losses, is below {1 - r.study.evaluate.confidence:.3g}.</p>"
    )
