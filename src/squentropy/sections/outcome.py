"""What came out."""

import math
from pathlib import Path

import pandas as pd

from squentropy import figures
from squentropy.markup import (
    DASH,
    Html,
    escape,
    integer,
    interval,
    listed,
    nats,
    number,
    p_value,
    paragraphs,
    signed,
    table,
)
from squentropy.results import Results
from squentropy.sections.figure import figure
from squentropy.sections.pieces import compared, loss_name, names, percent


def final_table(r: Results) -> Html:
    """Every loss on test, the best first."""
    head = ["loss", "perplexity", "nll, nats a token", "bits a byte", "accuracy", "seeds"]
    rows = []
    for loss in r.ranked:
        row = r.metrics.loc[loss]
        seeds = f"{row['n_seeds']:.0f}"
        if row["diverged"]:
            seeds += f" ({row['diverged']:.0f} diverged)"
        if loss not in r.scored:
            rows.append([loss_name(loss), "diverged", DASH, DASH, DASH, seeds])
            continue
        rows.append([
            loss_name(loss), interval(row, "test_ppl", number), interval(row, "test_nll", nats),
            nats(row["test_bits_per_byte"]), f"{100 * row['test_accuracy']:.1f} %", seeds,
        ])  # fmt: skip
    caption = f"Whole test stories, the best loss first, with {percent(r)} intervals."
    return Html(table(head, rows, caption=caption) + baseline_table(r))


def baseline_table(r: Results) -> Html:
    """Other people's models beside the losses; nothing where none was scored."""
    if r.baselines.empty:
        return Html()
    head = ["model", "bits a byte", "nats a story", "tokens", "nll, nats a token", "perplexity",
            "parameters"]  # fmt: skip
    rows = [
        [
            escape(row.name), nats(row.bits_per_byte), number(row.nats_per_story),
            "the study’s" if row.same_tokens else "its own", nats(row.nll), number(row.ppl),
            integer(row.parameters),
        ]
        for row in r.side_by_side.itertuples(index=False)
    ]  # fmt: skip
    caption = (
        "The same test stories, scored by models from elsewhere too. Where a model has its own "
        "tokens, its nll and perplexity a token do not compare with the others’."
    )
    return table(head, rows, caption=caption)


def difference_table(r: Results) -> Html:
    """Difference to cross entropy and excess over the source, where there are any."""
    against, excess = compared(r), r.metrics["excess"].notna().any()
    if not against and not excess:
        return Html()
    head = ["loss"]
    head += ["nll − cross entropy’s", "p, corrected"] if against else []
    head += ["nll − source’s entropy"] if excess else []
    rows = []
    for loss in r.scored:
        row = r.metrics.loc[loss]
        cells = [loss_name(loss)]
        if against:
            cells += [interval(row, "difference", signed), p_value(row["p_value"])]
        if excess:
            cells.append(interval(row, "excess", signed))
        rows.append(cells)
    caption = f"Nats a token on test, paired by story and seed, with {percent(r)} intervals."
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
        "No loss is below the source’s entropy. The nearest is "
        f"{loss_name(least)}, with {interval(r.metrics.loc[least], 'excess', signed)} nats a token."
    )


def link_sentence(r: Results) -> Html:
    """What the inverse link makes of the outputs of the pure squared losses."""
    losses = [x for x in r.scored if pd.notna(r.metrics.at[x, "inverse_link_nll"])]
    if not losses:
        return Html()
    parts = [
        f"{loss_name(loss)} from {number(r.metrics.at[loss, 'test_ppl'])} to "
        f"{number(math.exp(r.metrics.at[loss, 'inverse_link_nll']))}"
        for loss in losses
    ]
    return paragraphs(
        "The outputs of a pure squared loss are not logits, so their softmax is nearly flat. Read "
        f"by the inverse link instead, test perplexity goes for {listed(parts)}."
        + _link_differences(r, losses)
    )


def _link_differences(r: Results, losses: list[str]) -> str:
    """How the squared losses, read by the inverse link, stand to cross entropy under softmax."""
    gaps = [
        f"{loss_name(loss)} {interval(r.metrics.loc[loss], 'inverse_link_difference', signed)}"
        for loss in losses
        if pd.notna(r.metrics.at[loss, "inverse_link_difference"])
    ]
    if not gaps:
        return ""
    return (
        f" Against cross entropy that is {listed(gaps)} nats a token, with intervals that are not "
        "corrected for the number of comparisons."
    )


def convergence(r: Results) -> Html:
    """Whether validation nll was still falling when training ended."""
    falling = []
    for loss in r.scored:
        if r.own_reading(loss) == "inverse_link":
            continue  # the history has softmax's nll, which is nearly flat
        rows = r.history[(r.history["phase"] == "final") & (r.history["loss"] == loss)]
        mean = rows.groupby("iteration")["validation_nll"].mean()
        if len(mean) > 1:
            falling.append((mean.iloc[-2] - mean.iloc[-1], loss, mean.index[-1] - mean.index[-2]))
    if not falling:
        return Html()
    parts = [f"{loss_name(loss)} {signed(-fall)}" for fall, loss, _ in falling]
    return paragraphs(
        f"Over the last {integer(falling[0][2])} iterations validation nll under softmax changed "
        f"by (nats a token): {', '.join(parts)}. A change well below zero says that more training "
        "would have lowered it further."
    )


def perplexity_figure(r: Results, folder: str | Path) -> Html:
    """Test perplexity by loss."""
    lines = "the entropy of token frequencies"
    if r.corpus["source_nll"] is not None:
        lines = f"the source’s own entropy, which no model can beat but by chance, and {lines}"
    return figure(
        folder,
        "perplexity",
        f"Test perplexity of {names(r.ranked)}, from the lowest to the highest, with intervals",
        f"Test perplexity by loss. Dashed: {lines}, as perplexities.",
    )


def difference_figure(r: Results, folder: str | Path) -> Html:
    """The forest plot; a sentence where nothing is compared with cross entropy."""
    if "differences" not in figures.names(r.study):
        return paragraphs("Without cross entropy and another loss there is nothing to compare.")
    return figure(
        folder,
        "differences",
        "Forest plot: test nll of each loss minus cross entropy’s, with intervals and p-values",
        "Test nll minus cross entropy’s. A bar that crosses the line at zero leaves open which of "
        "the two is better.",
    )


def accuracy_figure(r: Results, folder: str | Path) -> Html:
    """Accuracy against perplexity."""
    linked = r.metrics["inverse_link_nll"].notna().any()
    hollow = " Hollow: the same model read by the inverse link." if linked else ""
    return figure(
        folder,
        "accuracy",
        "Scatter plot: top-1 accuracy against test perplexity, a point a loss",
        f"Top-1 accuracy against test perplexity; up and left is better.{hollow}",
    )


def curves_figure(r: Results, folder: str | Path) -> Html:
    """Learning curves."""
    bands = (
        "Lines are means over seeds, bands reach from the lowest seed to the highest."
        if len(r.study.final.seeds) > 1
        else "One seed."
    )
    return figure(
        folder,
        "learning_curves",
        "Learning curves: train and validation nll by iteration, a panel a loss",
        f"The final runs. All curves show nll, whatever the training objective. {bands}",
    )
