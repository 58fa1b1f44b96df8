"""The nll that squentropy loses at its own optimum."""

from squentropy.report.format import DASH, integer, listed, nats, signed
from squentropy.report.markup import Html, interval, paragraphs, table
from squentropy.report.read import Results
from squentropy.report.sections.pieces import loss_name
from squentropy.results.theory import optimum
from squentropy.study.params import BASELINE

_CONTEXTS = {"bigram": "one token of context", "whole": "the whole story before"}


def floors(r: Results) -> Html:
    """The nll lost at squentropy's optimum, by kind of context and vocabulary size."""
    sizes = sorted({r.corpus["vocab_size"], 50257})
    head = ["in a context where", *(f"<i>C</i> = {integer(c)}" for c in sizes)]
    head += [f"<i>C</i> = {integer(sizes[0])}, square term × 0.1"]
    rows = []
    for context, pi in optimum.CONTEXTS.items():
        floors = [optimum.floor(pi, c)[0] for c in sizes]
        floors.append(optimum.floor(pi, sizes[0], scale=0.1)[0])
        rows.append([context, *(nats(floor) for floor in floors)])
    return table(head, rows)


def contexts(r: Results) -> Html:
    """The contexts of the corpus that were studied, and what is known exactly about them."""
    n = {kind: rows["n"].iloc[0] for kind, rows in r.theory.groupby("contexts")}
    texts = [
        f"One token of context: what follows each of the {integer(n['bigram'])} tokens that occur "
        "in the train split, whose frequencies are taken as the truth."
    ]
    if "whole" in n:
        texts.append(
            f"The whole story before: what follows each of {integer(n['whole'])} tokens of the "
            "test stories, which the grammar knows exactly. There, the source’s entropy plus "
            "the nll lost at the optimum is the nll of a model that sees whole stories and reaches "
            "squentropy’s optimum."
        )
    return paragraphs(" ".join(texts))


def in_contexts(r: Results) -> Html:
    """The same in contexts of the corpus, at the study's vocabulary size."""
    own = r.theory[r.theory["classes"] == r.corpus["vocab_size"]]
    kinds = [kind for kind in _CONTEXTS if kind in set(own["contexts"])]
    rows = []
    for loss, forms in own.groupby("loss", sort=False):
        by = forms.set_index("contexts")
        rows.append([loss_name(loss), *(interval(by.loc[kind], "kl", nats) for kind in kinds)])
    return table(["nats per token lost at the optimum", *(_CONTEXTS[kind] for kind in kinds)], rows)


def gap(r: Results) -> Html:
    """How much of the measured difference to cross entropy the optimum explains.

    Omits models that are no better than bigrams: they are so far from any optimum that a gap of
    the same size would be a coincidence.
    """
    texts, beyond = [], False
    bigrams = r.ngrams.get(2, 0.0)
    for loss in r.compared:
        gap, nll = r.metrics.loc[loss, ["difference", "nll"]]
        rows = ((kind, r.floor(loss, kind)) for kind in _CONTEXTS)
        floors = {kind: float(row["kl"]) for kind, row in rows if row is not None}
        if not floors or max(nll, r.metrics.at[BASELINE, "nll"]) >= bigrams:
            continue
        measured = interval(r.metrics.loc[loss], "difference", signed)
        lost = [f"{nats(kl)} with {_CONTEXTS[kind]}{_of(kl, gap)}" for kind, kl in floors.items()]
        texts.append(
            f"The difference of {loss_name(loss)} to cross entropy is {measured} nats per token; "
            f"at its optimum it would lose {listed(lost)}."
        )
        beyond |= any(kl > gap for kl in floors.values())
    if beyond:
        texts.append(
            "If more would be lost than was measured, training stopped before reaching the loss’s "
            "optimum, or the temperature recovered some of it: the optimum is where a loss leads, "
            "not a bound on what comes before it."
        )
    return paragraphs(" ".join(texts))


def _of(kl: float, gap: float) -> str:
    """The share of a gap that the optimum explains, if there is a gap."""
    if not gap > 0:
        return ""
    return f" ({100 * kl / gap:.0f} % of that)" if kl <= gap else " (more than that)"


def doses(r: Results) -> Html:
    """Measured gap and predicted floor by the multiplier of the square term."""
    families = r.doses
    if not families:
        return Html()
    kinds = [kind for kind in _CONTEXTS if kind in set(r.theory["contexts"])]
    head = ["loss", "λ", "nll − cross entropy’s", "the same under softmax"]
    head += [f"floor, {_CONTEXTS[kind]}" for kind in kinds]
    rows = []
    for family in families.values():
        for loss, weight in family.items():
            raw = r.read_as(loss, "softmax")
            floors = [r.floor(loss, kind) for kind in kinds]
            rows.append([
                loss_name(loss), f"{weight:g}", interval(r.metrics.loc[loss], "difference", signed),
                DASH if raw is None else interval(raw, "difference", signed),
                *(DASH if floor is None else nats(floor["kl"]) for floor in floors),
            ])  # fmt: skip
    caption = (
        "What a smaller square term costs, and what it is predicted to cost at the loss’s optimum, "
        "in nats per token. The floors are those of plain softmax, in the study’s own "
        "vocabulary. Exploratory."
    )
    return table(head, rows, caption=caption)
