"""What squentropy loses at its own optimum."""

from squentropy import theory
from squentropy.markup import Html, integer, nats, table
from squentropy.results import Results


def floor_table(r: Results) -> Html:
    """Squentropy's loss of nll at its own optimum, by kind of context and size of vocabulary."""
    sizes = sorted({r.corpus["vocab_size"], 50257})
    head = ["in a context where", *(f"<i>C</i> = {integer(c)}" for c in sizes)]
    head += [f"<i>C</i> = {integer(sizes[0])}, square term × 0.1"]
    rows = []
    for context, pi in theory.CONTEXTS.items():
        floors = [theory.squentropy_floor(pi, c) for c in sizes]
        floors.append(theory.squentropy_floor(pi, sizes[0], factor=0.1))
        rows.append([context, *(nats(floor) for floor in floors)])
    return table(head, rows)
