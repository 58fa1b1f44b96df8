"""Test results of the final runs."""

import pandas as pd

from squentropy.report import markup
from squentropy.report.format import DASH, count, integer, nats, number, p_text, signed
from squentropy.report.markup import Html, escape, interval, paragraphs
from squentropy.report.read import Results
from squentropy.report.sections.pieces import loss_name, names
from squentropy.report.sections.verdict import Evidence, evidence, tokens_needed


def table(r: Results) -> Html:
    """Every loss on test in its primary reading, best first, followed by the yardsticks.

    Comparisons are omitted if the models have not learnt enough.
    """
    e = evidence(r)
    head = ["loss", "nll, nats per token"]
    if e.enough:
        head += ["nll − cross entropy’s", "p", "tokens needed"]
    rows = [_loss_row(r, e, loss) for loss in r.ranked]
    dashes = [DASH] * (len(head) - 2)
    for name, row in r.yardsticks.iterrows():
        what = f"{name} counts" if row["kind"] == "ngram" else name
        rows.append([f"<i>{escape(what)}</i>", nats(row["nll"]), *dashes])
    caption = (
        f"Whole test stories, the best loss first, each in its primary reading, "
        f"{count(len(r.study.final.seeds), 'seed')} each, with {r.confidence} intervals that are "
        "conditional on the selected hyperparameters. "
        + (
            "p is corrected by Holm’s rule. Tokens needed: how many times the training tokens of "
            "cross entropy the loss needs for the same nll. "
            if e.enough
            else ""
        )
        + "Below, in italics, yardsticks: n-gram models counted on as many training tokens, xz "
        "packing the test stories after the same text"
        + (", and the exact entropy of the stories." if len(_source(r)) else ".")
    )
    return Html(markup.table(head, rows, caption=caption) + baseline_table(r))


def _source(r: Results) -> pd.DataFrame:
    return r.yardsticks[r.yardsticks["kind"] == "source"]


def _loss_row(r: Results, e: Evidence, loss: str) -> list[str]:
    row = r.metrics.loc[loss]
    name = loss_name(loss)
    if row["diverged"]:
        name += f" ({row['diverged']:.0f} of {row['diverged'] + row['n_seeds']:.0f} diverged)"
    against = [DASH] * (3 if e.enough else 0)
    if loss not in r.scored:
        return [loss_name(loss), "diverged", *against]
    if e.enough and pd.notna(row["difference"]):
        p = DASH if pd.isna(row["p_value"]) else p_text(row["p_value"], e.smallest_p)
        needed, _, ends = tokens_needed(e, loss).partition(" (")
        if ends:
            needed += f' <span class="ci">{ends.removesuffix(")")}</span>'
        against = [interval(row, "difference", signed), escape(p.removeprefix("= ")), needed]
    cells = [interval(row, "nll", nats), *against]
    below = (cell.replace("<span", "<br><span") for cell in cells)  # to fit all columns
    return [name, *below]


def baseline_table(r: Results) -> Html:
    """External models next to the losses; empty if none was scored."""
    if r.baselines.empty:
        return Html()
    head = ["model", "bits per byte", "nats per story", "tokens", "nll, nats per token",
            "perplexity", "parameters"]  # fmt: skip
    rows = [
        [
            escape(row.name), nats(row.bits_per_byte), number(row.nats_per_story),
            "the study’s" if row.same_tokens else "its own", nats(row.nll), number(row.ppl),
            integer(row.parameters),
        ]
        for row in r.side_by_side.itertuples(index=False)
    ]  # fmt: skip
    caption = (
        "The same test stories, also scored by models from elsewhere. If a model has its "
        "own tokenizer, its nll and perplexity per token are not comparable with the others’."
    )
    return markup.table(head, rows, caption=caption)


def entropy(r: Results) -> Html:
    """Which model, if any, is below the source's entropy."""
    excess = r.metrics["excess"].dropna()
    if not len(excess):
        return Html()
    below = [x for x in excess.index if r.metrics.at[x, "excess_high"] < 0]
    if below:
        return paragraphs(
            f"<strong>{names(below)}: below the source’s entropy by more than chance, which is "
            "impossible. The scores or the corpus must be wrong.</strong>"
        )
    least = excess.idxmin()
    return paragraphs(
        "No loss is below the source’s entropy by more than chance. The closest is "
        f"{loss_name(least)}, at {interval(r.metrics.loc[least], 'excess', signed)} nats per "
        "token."
    )
