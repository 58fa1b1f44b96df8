"""The study's answer, at the top of the page."""

from squentropy.report.markup import Html, escape, paragraphs
from squentropy.report.read import Results
from squentropy.report.sections.pieces import about_seeds
from squentropy.report.sections.verdict import comparison, evidence, headline, sentences


def answer(r: Results) -> Html:
    """The verdict: headline and supporting sentences."""
    e = evidence(r)
    text = escape(" ".join(sentences(e)))
    between = " " if e.enough or not text else ": "
    return paragraphs(f"<strong>{escape(headline(e))}</strong>{between}{text}")


def comparisons(r: Results) -> Html:
    """Every difference to cross entropy, and how to read the intervals; empty if unranked."""
    e = evidence(r)
    lines = comparison(e)
    if not lines:
        return Html()
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    n = len(e.ranked)
    family = f"the {n} losses that are compared" if n > 1 else "one comparison"
    how = (
        f"Differences are test nll minus cross entropy’s in nats per token, paired by story and "
        f"seed, with {r.confidence} intervals. The intervals are conditional on the selection of "
        "hyperparameters and do not include how much another tuning would change. A loss is told "
        f"apart from cross entropy if p, corrected by Holm’s rule for {family}, is below "
        f"{1 - e.confidence:.3g}. Each loss is read as the plan in the parameters "
        "prescribes; everything else on this page is exploratory."
    )
    return Html(f"<ul>{items}</ul>{paragraphs(how, about_seeds(r))}")
