"""Whether probabilities can be trusted, and where in a story and on which tokens a loss loses."""

from pathlib import Path

import numpy as np
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
from squentropy.results import FEWEST, Results
from squentropy.sections.figure import figure
from squentropy.sections.pieces import compared, loss_name, names

BEGINNING = 8  # tokens of a story that are left out where context is judged


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
        f"With cross entropy tempered as well, the differences to it are {listed(gaps)} nats a "
        "token, with intervals that are not corrected for the number of comparisons."
    )
    return paragraphs(text, after if gaps else "")


def position_sentence(r: Results) -> Html:
    """How much more context helps, beyond the first tokens, in which stories are alike."""
    curves = {x: r.by_bin(x, r.own_reading(x), "position").mean(axis=1) for x in r.scored}
    curves = {loss: curve[curve.index >= BEGINNING] for loss, curve in curves.items()}
    changes = [
        f"{loss_name(loss)} {signed(curve.iloc[-1] - curve.iloc[0])}"
        for loss, curve in curves.items()
        if len(curve) > 1
    ]
    if not changes:
        return Html()
    low, high = next((c.index[0], c.index[-1]) for c in curves.values() if len(c) > 1)
    return paragraphs(
        f"Does more of the story help? From tokens with {integer(low)} to {integer(2 * low - 1)} "
        f"before them to those with {integer(high)} or more, of which a model sees at most "
        f"{r.study.model.block_size}, nll changes by (nats a token): {listed(changes)}. Below "
        "zero, it helps. The first tokens are left out, since stories begin alike."
    )


def frequency_sentence(r: Results) -> Html:
    """Whether a loss loses on rare tokens or on frequent ones."""
    against = compared(r)
    if not against:
        return Html()
    tokens = (
        _frequencies(r, BASELINE)["tokens"].cumsum() / _frequencies(r, BASELINE)["tokens"].sum()
    )
    rarer = (tokens - 0.5).abs().idxmin()  # the bin that ends nearest to half of the tokens
    if tokens[rarer] == 1:
        return Html()
    end, theirs = max(1, 2 * rarer), _parts(r, BASELINE, rarer)
    parts = []
    for loss in against:
        rare, frequent = _parts(r, loss, rarer) - theirs
        parts.append(f"{loss_name(loss)} {signed(rare)} and {signed(frequent)}")
    linked = [loss for loss in against if r.own_reading(loss) == "inverse_link"]
    return paragraphs(
        f"Where does a loss lose? On the rarer tokens, which occur fewer than {integer(end)} times "
        f"in a million ({100 * tokens[rarer]:.0f} % of test), and on the others, nll minus cross "
        f"entropy’s is (nats a token): {listed(parts)}.",
        f"Read by the inverse link here and above: {names(linked)}." if linked else "",
    )


def _frequencies(r: Results, loss: str) -> pd.DataFrame:
    """Tokens and nll of a loss's runs by the lower end of their bin of frequency."""
    p = r.profile
    own = (p["loss"] == loss) & (p["reading"] == r.own_reading(loss)) & (p["by"] == "frequency")
    return p[own].groupby("low")[["tokens", "nll"]].sum()


def _parts(r: Results, loss: str, rarer: int) -> np.ndarray:
    """nll on the tokens of the bins up to `rarer`, and on the others, nats a token."""
    rows = _frequencies(r, loss)
    parts = [rows[rows.index <= rarer].sum(), rows[rows.index > rarer].sum()]
    return np.array([part["nll"] / part["tokens"] for part in parts])


def reliability_figure(r: Results, folder: str | Path) -> Html:
    """Reliability diagrams."""
    return figure(
        folder,
        "reliability",
        "Reliability diagrams: accuracy by confidence, a panel a loss, raw and tempered",
        "Test tokens by the probability of the likeliest one, in 15 bins of equal width, all seeds "
        "together; bars reach from the lowest seed to the highest. On the diagonal probabilities "
        f"are right; below it the model is too sure. Bins of fewer than {FEWEST} tokens are left "
        "out. "
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
        "lowest seed to the highest. Below, the difference to cross entropy’s softmax, of a loss "
        f"with an inverse link by it. Bins of fewer than {FEWEST} tokens are left out.",
    )
