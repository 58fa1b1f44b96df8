"""What came out."""

from pathlib import Path

import pandas as pd

from squentropy.report import figures
from squentropy.report.format import DASH, count, integer, nats, number, p_text, signed
from squentropy.report.markup import Html, escape, interval, paragraphs, table
from squentropy.report.read import Results
from squentropy.report.sections.figure import figure
from squentropy.report.sections.pieces import loss_name, names
from squentropy.report.sections.verdict import Evidence, evidence, tokens_needed


def final_table(r: Results) -> Html:
    """Every loss on test by its primary reading, the best first, and the yardsticks beneath.

    Comparisons are left out if the models have not learnt enough for them.
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
        + "Below, in italics, yardsticks: n-gram models of as many training tokens"
        + (", and the exact entropy of the stories." if len(_source(r)) else ".")
    )
    return Html(table(head, rows, caption=caption) + baseline_table(r))


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
    below = (cell.replace("<span", "<br><span") for cell in cells)  # so that all columns fit
    return [name, *below]


def baseline_table(r: Results) -> Html:
    """Other people's models beside the losses; nothing if none was scored."""
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
        "The same test stories, scored by models from elsewhere too. If a model has its own "
        "tokens, its nll and perplexity per token do not compare with the others’."
    )
    return table(head, rows, caption=caption)


def floor_sentence(r: Results) -> Html:
    """That no model is below the source's entropy, or which one is."""
    excess = r.metrics["excess"].dropna()
    if not len(excess):
        return Html()
    below = [x for x in excess.index if r.metrics.at[x, "excess_high"] < 0]
    if below:
        return paragraphs(
            f"<strong>{names(below)}: below the source’s entropy beyond chance, which no model can "
            "be. The scores or the corpus must be wrong.</strong>"
        )
    least = excess.idxmin()
    return paragraphs(
        "No loss is below the source’s entropy beyond chance. The nearest to it is "
        f"{loss_name(least)}, with {interval(r.metrics.loc[least], 'excess', signed)} nats per "
        "token."
    )


def perplexity_figure(r: Results, folder: str | Path) -> Html:
    """Test perplexity by loss."""
    lines = "an n-gram model of as many training tokens"
    if r.corpus["source_nll"] is not None:
        lines = f"the source’s own entropy, which no model can beat but by chance, and {lines}"
    return figure(
        folder,
        "perplexity",
        f"Test perplexity of {names(r.ranked)}, from the lowest to the highest, with intervals",
        f"Test perplexity by loss, each in its primary reading. Dashed: {lines}, as perplexities.",
    )


def difference_figure(r: Results, folder: str | Path) -> Html:
    """The forest plot; a sentence if nothing is compared with cross entropy."""
    if "differences" not in figures.names(r.study):
        return paragraphs("Without cross entropy and another loss there is nothing to compare.")
    return figure(
        folder,
        "differences",
        "Forest plot: test nll of each loss minus cross entropy’s, with intervals",
        "Test nll minus cross entropy’s, each loss in its primary reading. A bar that crosses the "
        "line at zero leaves open which of the two is better. The intervals are conditional on the "
        "selected hyperparameters.",
    )


def accuracy_figure(r: Results, folder: str | Path) -> Html:
    """Accuracy against perplexity."""
    return figure(
        folder,
        "accuracy",
        "Scatter plot: top-1 accuracy against test perplexity, one point per loss",
        "Top-1 accuracy against test perplexity; up and left is better. Exploratory.",
    )


def curves_figure(r: Results, folder: str | Path) -> Html:
    """Learning curves; those of a loss with its own link show train alone."""
    bands = (
        "Lines are means over seeds, bands reach from the lowest seed to the highest."
        if len(r.study.final.seeds) > 1
        else "One seed."
    )
    linked = [loss for loss in r.losses if loss in r.linked]
    left_out = (
        f" {names(linked)}: left out, since training records nll under softmax alone, which says "
        "nothing about outputs with a link of their own."
        if linked
        else ""
    )
    return figure(
        folder,
        "learning_curves",
        "Learning curves: train and validation nll by iteration, one panel per loss",
        "The final runs under softmax, whatever the training objective; the last part of each "
        f"curve is the end of the learning rate’s cosine. {bands}{left_out}",
    )
