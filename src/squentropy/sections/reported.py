"""The seed study's numbers beside ours."""

import math

from squentropy.markup import Html, escape, number, table
from squentropy.results import Results
from squentropy.sections.pieces import loss_name


def reported_table(r: Results) -> Html:
    """The seed study's numbers beside ours."""
    rows = [
        [escape(row.measure), loss_name(row.loss), f"{row.reported:g}", number(row.reproduced),
         escape(row.what)]
        for row in r.reported.itertuples(index=False)
    ]  # fmt: skip
    return table(["measure", "loss", "reported", "here", "what ours is"], rows, text=2, last=True)


def implied_table(r: Results) -> Html:
    """The perplexity that each reported test loss implies, beside the reported one."""
    rows = []
    for loss, group in r.reported.groupby("loss", sort=False):
        by = group.set_index("measure")["reported"]
        rows.append([
            loss_name(loss), f"{by['train loss']:g}", f"{by['test loss']:g}",
            f"{by['test perplexity']:g}", f"{math.exp(by['test loss']):.1f}",
        ])  # fmt: skip
    head = ["reported", "train loss", "test loss", "test perplexity", "exp(test loss)"]
    return table(head, rows)


def seed_estimate_table(r: Results) -> Html:
    """The seed study's estimator of perplexity beside the whole test split."""
    rows = [
        [loss_name(x), number(r.metrics.at[x, "seed_ppl"]), number(r.metrics.at[x, "test_ppl"])]
        for x in r.scored
    ]
    head = ["loss", f"from {r.study.evaluate.seed_batches} random batches", "whole test split"]
    return table(head, rows)
