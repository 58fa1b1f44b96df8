"""The study's answer."""

from squentropy.markup import Html, interval, nats, number, paragraphs, signed
from squentropy.names import loss_info
from squentropy.params import BASELINE
from squentropy.results import Results
from squentropy.sections.pieces import about_seeds, by_verdict, compared, loss_name, names, percent


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
        answered = paragraphs(f"<strong>{verdict(r)}</strong>", lowest, _unlearned(r))
        return Html(answered + _comparison(r) + paragraphs(about_seeds(r)))
    why = "has no scored run here" if BASELINE in r.losses else "is not part of this study"
    if r.scored == [BASELINE]:
        alone = "No other loss has a scored run, so there is nothing to compare it with."
    else:
        alone = f"Cross entropy {why}, so nothing is compared with it."
    return paragraphs(lowest, _unlearned(r), alone, about_seeds(r))


def verdict(r: Results) -> str:
    """Whether a squared loss belongs in a language model, as far as this study can tell."""
    squared = [loss for loss in compared(r) if loss_info(loss).squared]
    if not squared:
        return "None of the squared losses that come with this project is compared here."
    better, same, worse = by_verdict(r, squared)
    if better:
        return f"Yes, here: {names(better)} did better than cross entropy."
    otherwise = _otherwise(r, squared)
    if not same and otherwise:
        return (
            "Not under softmax as it is: every loss with a squared term did worse than cross "
            f"entropy, beyond chance. {otherwise}"
        )
    if not same:
        return (
            "Not here: every loss with a squared term did worse than cross entropy, beyond chance."
        )
    if worse:
        return (
            f"Nothing here speaks for it: none did better than cross entropy, {names(worse)} did "
            f"worse, and {names(same)} cannot be told from it."
        )
    return "Not shown either way: none can be told from cross entropy."


def _otherwise(r: Results, losses: list[str]) -> str:
    """Which of these losses beat cross entropy where their outputs are read in another way."""
    said = []
    for column, how in (
        ("inverse_link_difference_high", "Read by the inverse link, {} did better."),
        ("tempered_difference_high", "With one temperature fitted to each loss, cross entropy "
         "too, {} did better."),
    ):  # fmt: skip
        better = [loss for loss in losses if r.metrics.at[loss, column] < 0]
        said += [how.format(names(better))] if better else []
    return " ".join([*said, "That is not corrected for the number of comparisons."] if said else [])


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
