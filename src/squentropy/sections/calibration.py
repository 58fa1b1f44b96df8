"""Whether probabilities can be trusted, and where in a story and on which tokens a loss loses."""

from pathlib import Path

import pandas as pd

from squentropy.markup import (
    Html,
    integer,
    interval,
    listed,
    nats,
    number,
    paragraphs,
    signed,
    table,
)
from squentropy.params import BASELINE
from squentropy.results import Results
from squentropy.sections.figure import figure
from squentropy.sections.pieces import compared, loss_name, names

RARE = 1024  # occurrences in a million tokens; the end of a bin of the profile


def calibration_table(r: Results) -> Html:
    """nll, calibration error and Brier score of every loss, by each way to read it."""
    rows = []
    for loss in r.scored:
        row = r.metrics.loc[loss]
        for reading in r.readings(loss):
            name = "test" if reading == "softmax" else reading
            how = reading.replace("_", " ")
            if reading == "tempered":
                how += f", <i>T</i> = {number(row['temperature'])}"
            rows.append([
                loss_name(loss), how, nats(row[f"{name}_nll"]),
                f"{100 * row[f'{name}_ece']:.2f} %", nats(row[f"{name}_brier"]),
            ])  # fmt: skip
    return table(["loss", "read by", "nll, nats a token", "ECE", "Brier"], rows, text=2)


def calibration_sentence(r: Results) -> Html:
    """What one temperature changes, and how the losses compare after it."""
    if not r.scored:
        return paragraphs("Every final run diverged, so there is nothing to calibrate.")
    by_error = r.metrics.loc[r.scored, "test_ece"].sort_values(kind="stable")
    best, worst = by_error.index[0], by_error.index[-1]
    text = f"Under softmax as it is, {loss_name(best)} is off by {100 * by_error[best]:.2f} %"
    text += f", {loss_name(worst)} by {100 * by_error[worst]:.2f} %." if worst != best else "."
    gain = r.metrics["tempered_nll"] - r.metrics["test_nll"]
    gains = listed(f"{loss_name(loss)} {signed(gain[loss])}" for loss in r.scored)
    text += f" The temperature changes test nll by (nats a token): {gains}."
    gaps = [
        f"{loss_name(loss)} {interval(r.metrics.loc[loss], 'tempered_difference', signed)}"
        for loss in compared(r)
    ]
    after = (
        f"With cross entropy tempered as well, what is left between them is {listed(gaps)} nats a "
        "token, with intervals that are not corrected for the number of comparisons."
    )
    return paragraphs(text, after if gaps else "")


def position_sentence(r: Results) -> Html:
    """How much context helps."""
    falls = []
    for loss in r.scored:
        curve = r.by_bin(loss, r.own_reading(loss), "position").mean(axis=1)
        if len(curve) > 1:
            falls.append((loss, curve.iloc[-1] - curve.iloc[0], curve.index[-1]))
    if not falls:
        return Html()
    changes = listed(f"{loss_name(loss)} {signed(change)}" for loss, change, _ in falls)
    return paragraphs(
        "Does context help? From a story’s first token to those with "
        f"{integer(falls[0][2])} or more before them, nll changes by (nats a token): {changes}."
    )


def frequency_sentence(r: Results) -> Html:
    """Whether a loss loses on rare tokens or on frequent ones."""
    gaps = {loss: _gaps(r, loss) for loss in compared(r)}
    gaps = {loss: gap for loss, gap in gaps.items() if gap.notna().all()}
    if not gaps:
        return Html()
    counted = _sums(r, BASELINE)["tokens"]
    share = counted["rare"] / counted.sum()
    parts = [
        f"{loss_name(loss)} {signed(gap['rare'])} and {signed(gap['frequent'])}"
        for loss, gap in gaps.items()
    ]
    return paragraphs(
        f"Where does a loss lose? On tokens that occur fewer than {integer(RARE)} times in a "
        f"million ({100 * share:.1f} % of test), and on all others, nll minus cross entropy’s is "
        f"(nats a token): {listed(parts)}.{_read(r, list(gaps))}"
    )


def _gaps(r: Results, loss: str) -> pd.Series:
    """nll minus cross entropy's on rare and on frequent tokens, nats a token."""
    ours, theirs = _sums(r, loss), _sums(r, BASELINE)
    gaps = ours["nll"] / ours["tokens"] - theirs["nll"] / theirs["tokens"]
    return gaps.reindex(["rare", "frequent"])


def _sums(r: Results, loss: str) -> pd.DataFrame:
    p = r.profile
    own = (p["loss"] == loss) & (p["reading"] == r.own_reading(loss)) & (p["by"] == "frequency")
    rows = p[own]
    group = (rows["low"] < RARE).map({True: "rare", False: "frequent"})
    return rows.groupby(group)[["tokens", "nll"]].sum()


def _read(r: Results, losses: list[str]) -> str:
    linked = [loss for loss in losses if r.own_reading(loss) == "inverse_link"]
    return f" {names(linked)}: read by the inverse link." if linked else ""


def reliability_figure(r: Results, folder: str | Path) -> Html:
    """Reliability diagrams."""
    return figure(
        folder,
        "reliability",
        "Reliability diagrams: accuracy by confidence, a panel a loss, raw and tempered",
        "Test tokens by the probability of the likeliest one, in 15 bins of equal width, all seeds "
        "together; bars reach from the lowest seed to the highest. On the diagonal probabilities "
        "are right; below it the model is too sure. Bins of fewer than 50 tokens are left out. "
        "ECE: expected calibration error.",
    )


def profile_figure(r: Results, folder: str | Path) -> Html:
    """nll by position and by frequency."""
    return figure(
        folder,
        "profile",
        "Lines: test nll by position in the story and by the token’s frequency, a line a loss",
        "Test nll by how many tokens of the story stand before it, and by how often the token "
        "occurs in a million tokens of train. Lines are means over seeds, bands reach from the "
        "lowest seed to the highest. Below, what a loss with an inverse link loses is read by it.",
    )
