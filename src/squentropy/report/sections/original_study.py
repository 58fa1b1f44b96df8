"""The original study's numbers next to ours."""

import math

from squentropy.report.format import number
from squentropy.report.markup import Html, escape, table
from squentropy.report.read import Results
from squentropy.report.sections.pieces import loss_name


def reported(r: Results) -> Html:
    """The original study's numbers next to ours."""
    rows = [
        [escape(row.measure), loss_name(row.loss), f"{row.reported:g}", number(row.reproduced),
         escape(f"{row.what}; {row.estimator}")]
        for row in r.reported.itertuples(index=False)
    ]  # fmt: skip
    head = ["measure", "loss", "reported", "here", "what ours is"]
    caption = "Reported by the original study, and measured here."
    return table(head, rows, text=2, last=True, caption=caption)


def implied(r: Results) -> Html:
    """The perplexity that each reported test loss implies, and the reverse."""
    rows = []
    for loss, group in r.reported.groupby("loss", sort=False):
        by = group.set_index("measure")["reported"]
        rows.append([
            loss_name(loss), f"{by['train loss']:g}", f"{by['test loss']:g}",
            f"{by['test perplexity']:g}", f"{math.exp(by['test loss']):.1f}",
            f"{math.log(by['test perplexity']):.3f}",
        ])  # fmt: skip
    head = ["reported", "train loss", "test loss", "test perplexity", "exp(test loss)",
            "log(test perplexity)"]  # fmt: skip
    caption = "The original study’s final table; the last two columns are ours."
    return table(head, rows, caption=caption)


def estimates(r: Results) -> Html:
    """The original study's perplexity estimator compared with the whole test split."""
    rows = [
        [loss_name(x), number(r.metrics.at[x, "original_ppl"]), number(r.metrics.at[x, "test_ppl"])]
        for x in r.scored
        if x not in r.linked
    ]
    head = ["loss", f"from {r.study.evaluate.original_batches} random batches", "whole test split"]
    caption = "Test perplexity under softmax by two estimators."
    return table(head, rows, caption=caption)
