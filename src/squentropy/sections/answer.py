"""The study's answer, as the page opens with it."""

from squentropy.markup import Html, escape, paragraphs
from squentropy.results import Results
from squentropy.sections.pieces import about_seeds, percent
from squentropy.sections.verdict import comparison, evidence, headline, sentences


def answer(r: Results) -> Html:
    """The verdict; if the losses may be ranked, every difference and what the intervals say."""
    e = evidence(r)
    text = escape(" ".join(sentences(e)))
    opening = paragraphs(f"<strong>{escape(headline(e))}</strong>{' ' if e.enough else ': '}{text}")
    lines = comparison(e)
    if not lines:
        return opening
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    n = len(e.ranked)
    family = f"the {n} losses that are compared" if n > 1 else "one comparison"
    how = (
        f"Differences are test nll minus cross entropy’s in nats per token, paired by story and "
        f"seed, with {percent(r)} intervals. The intervals are conditional on the selection of "
        "hyperparameters: how much another tuning would change is not in them. Two losses are told "
        f"apart if p, corrected by Holm’s rule for {family}, is below {1 - e.confidence:.3g}. Each "
        "loss is read in the one way that the plan in the parameters names; everything else on "
        "this page is exploratory."
    )
    return Html(f"{opening}<ul>{items}</ul>{paragraphs(how, about_seeds(r))}")
