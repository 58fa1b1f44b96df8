"""What squentropy loses at its own optimum."""

from pathlib import Path

from squentropy import theory
from squentropy.markup import Html, integer, interval, listed, nats, paragraphs, signed, table
from squentropy.results import Results
from squentropy.sections.figure import figure
from squentropy.sections.pieces import compared, loss_name

_CONTEXTS = {"bigram": "one token of context", "whole": "the whole story before"}


def floor_table(r: Results) -> Html:
    """Squentropy's loss of nll at its own optimum, by kind of context and size of vocabulary."""
    sizes = sorted({r.corpus["vocab_size"], 50257})
    head = ["in a context where", *(f"<i>C</i> = {integer(c)}" for c in sizes)]
    head += [f"<i>C</i> = {integer(sizes[0])}, square term × 0.1"]
    rows = []
    for context, pi in theory.CONTEXTS.items():
        floors = [theory.floor(pi, c)[0] for c in sizes]
        floors.append(theory.floor(pi, sizes[0], scale=0.1)[0])
        rows.append([context, *(nats(floor) for floor in floors)])
    return table(head, rows)


def contexts_sentence(r: Results) -> Html:
    """Which contexts of the corpus were looked at, and what is exact about them."""
    n = {kind: rows["n"].iloc[0] for kind, rows in r.theory.groupby("contexts")}
    texts = [
        f"One token of context: what follows each of the {integer(n['bigram'])} tokens that occur "
        "in the train split, whose own frequencies are taken for the truth."
    ]
    if "whole" in n:
        texts.append(
            f"The whole story before: what follows each of {integer(n['whole'])} tokens of the "
            "test stories, which the grammar knows exactly. There, the source’s entropy and the "
            "loss at the optimum together are the nll at which a model arrives that sees whole "
            "stories and learns all that squentropy asks for."
        )
    return paragraphs(" ".join(texts))


def contexts_table(r: Results) -> Html:
    """The same in contexts of the corpus, in the study's own vocabulary."""
    own = r.theory[r.theory["classes"] == r.corpus["vocab_size"]]
    kinds = [kind for kind in _CONTEXTS if kind in set(own["contexts"])]
    rows = []
    for loss, kinds_of in own.groupby("loss", sort=False):
        by = kinds_of.set_index("contexts")
        cells = [interval(by.loc[kind], "kl", nats) for kind in kinds]
        rows.append([loss_name(loss), *cells])
    return table(["nats a token lost at the optimum", *(_CONTEXTS[kind] for kind in kinds)], rows)


def gap_sentence(r: Results) -> Html:
    """How much of the measured difference to cross entropy the optimum accounts for."""
    texts, beyond = [], False
    for loss in compared(r):
        gap = r.metrics.at[loss, "difference"]
        floors = {kind: r.floor(loss, kind) for kind in _CONTEXTS}
        floors = {kind: row["kl"] for kind, row in floors.items() if row is not None}
        if not floors:
            continue
        measured = interval(r.metrics.loc[loss], "difference", signed)
        lost = [f"{nats(kl)} with {_CONTEXTS[kind]}{_of(kl, gap)}" for kind, kl in floors.items()]
        texts.append(
            f"The difference of {loss_name(loss)} to cross entropy is {measured} nats a token; at "
            f"its optimum it would lose {listed(lost)}."
        )
        beyond |= any(kl > gap for kl in floors.values())
    if beyond:
        texts.append(
            "Where more would be lost than was measured, training ended before the loss had its "
            "way: the optimum is where it leads, not a bound on what is met before."
        )
    return paragraphs(" ".join(texts))


def _of(kl: float, gap: float) -> str:
    """How much of a gap is lost, where there is one to explain."""
    if not gap > 0:
        return ""
    return f" ({100 * kl / gap:.0f} % of that)" if kl <= gap else " (more than that)"


def improperness_figure(r: Results, folder: str | Path) -> Html:
    """The loss at the optimum by size of the vocabulary."""
    return figure(
        folder,
        "improperness",
        "Log-log lines: nll that squentropy loses at its optimum against the size of the "
        "vocabulary, a line a weight of its square term",
        "Nll lost at the optimum by size of the vocabulary, in contexts of this corpus. The tokens "
        "by which a vocabulary is larger than the corpus’ own never follow. Hollow: measured.",
    )
