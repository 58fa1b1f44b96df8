"""Calibration, and nll by position, frequency and certainty."""

import math

import numpy as np
import pandas as pd

from squentropy.report.format import integer, listed, nats, number, plain, signed
from squentropy.report.markup import Html, escape, interval, paragraphs, table
from squentropy.report.read import Results
from squentropy.report.sections.pieces import loss_name, reading_name
from squentropy.study.params import BASELINE

CERTAIN, OPEN = 0.01, 1.0  # nats; bin edges of certainty.csv
_SUMS = ["tokens", "kl", "outside"]
BEGINNING = 8  # first tokens of a story, excluded when context is assessed


def readings(r: Results) -> Html:
    """nll, calibration error and Brier score of every loss under each of its readings."""
    rows = []
    for loss in r.scored:
        for _, row in r.readings[r.readings["loss"] == loss].iterrows():
            how = escape(reading_name(row["reading"]))
            if pd.notna(row["temperature"]):
                how += f", <i>T</i> = {number(row['temperature'])}"
            if pd.notna(row["floor"]):
                how += f", floor {_power(row['floor'])}"
            rows.append([
                loss_name(loss), f"<b>{how}</b>" if row["primary"] else how,
                nats(row["nll"]), interval(row, "difference", signed),
                f"{100 * row['ece']:.2f}", nats(row["brier"]),
            ])  # fmt: skip
    head = ["loss", "read by", "nll", "nll − cross entropy’s", "ECE, %", "Brier"]
    caption = (
        "Every way to read a loss’s outputs as probabilities, nll in nats per token. A softmax is "
        "compared with the softmax of cross entropy, every other reading with its primary "
        "one. The primary readings, in bold, were planned; the others are exploratory, and their "
        "intervals are not corrected for the number of comparisons."
    )
    return table(head, rows, text=2, caption=caption)


def _power(value: float) -> str:
    """A power of ten as 10^n; any other number without an exponent."""
    exponent = round(math.log10(value))
    if value == float(f"1e{exponent}"):
        return f"10<sup>{exponent}</sup>".replace("-", "−")
    return plain(value)


def floors(r: Results) -> Html:
    """How much the probability floor of an own link changes its nll."""
    own = r.readings[(r.readings["reading"] == "own") & r.readings["loss"].isin(r.scored)]
    ranges = own.groupby("loss", sort=False)["nll"].agg(["min", "max", "size"])
    ranges = ranges[ranges["size"] > 1]
    if ranges.empty:
        return Html()
    floors = listed((_power(x) for x in sorted(own["floor"].unique())), "and")
    parts = [f"{loss_name(x)} by {nats(row['max'] - row['min'])}" for x, row in ranges.iterrows()]
    return paragraphs(
        f"An own link’s probabilities are kept above a floor, {_power(r.study.evaluate.link_floor)}"
        f", and then renormalised. Does it matter? Between floors of {floors}, test nll "
        f"changes for {listed(parts)} nats per token."
    )


def errors(r: Results) -> Html:
    """The best and worst calibrated losses, and the effect of the temperature."""
    rows = {loss: r.read_as(loss, r.reading(loss)) for loss in r.scored}
    errors = pd.Series({loss: row["ece"] for loss, row in rows.items() if row is not None})
    if errors.empty:
        return paragraphs("Every final run diverged, so there is nothing to calibrate.")
    errors = errors.sort_values(kind="stable")
    best, worst = errors.index[0], errors.index[-1]
    text = f"In its primary reading, {loss_name(best)} is off by {100 * errors[best]:.2f} %"
    text += f", {loss_name(worst)} by {100 * errors[worst]:.2f} %." if worst != best else "."
    gains = []
    for loss in r.scored:
        raw, tempered = r.read_as(loss, "softmax"), r.read_as(loss, "tempered")
        if loss not in r.linked and raw is not None and tempered is not None:
            gains.append(f"{loss_name(loss)} {signed(tempered['nll'] - raw['nll'])}")
    if gains:
        text += (
            " The temperature changes the test nll of losses without their own link by (nats per "
            f"token): {listed(gains)}."
        )
    return paragraphs(text)


def by_position(r: Results) -> Html:
    """How much context helps, beyond the first tokens, in which all stories are alike."""
    curves = {x: r.by_bin(x, r.reading(x), "position").mean(axis=1) for x in r.scored}
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
        f"before them to those with {integer(high)} or more (a model sees at most "
        f"{r.study.model.block_size}), nll changes by (nats per token): {listed(changes)}. A "
        "negative change means that context helps. The first tokens are left out, since all "
        "stories begin alike."
    )


def by_frequency(r: Results) -> Html:
    """nll minus that of cross entropy on rare and on frequent tokens."""
    against = [x for x in r.compared if BASELINE in r.scored]
    if not against:
        return Html()
    counts = _frequencies(r, BASELINE)["tokens"]
    tokens = counts.cumsum() / counts.sum()
    rarer = (tokens - 0.5).abs().idxmin()  # the bin that ends nearest to half of the tokens
    if tokens[rarer] == 1:
        return Html()
    end, theirs = max(1, 2 * rarer), _parts(r, BASELINE, rarer)
    parts = []
    for loss in against:
        rare, frequent = _parts(r, loss, rarer) - theirs
        parts.append(f"{loss_name(loss)} {signed(rare)} and {signed(frequent)}")
    return paragraphs(
        f"Where does a loss lose? On the rarer tokens, which occur fewer than {integer(end)} times "
        f"in a million ({100 * tokens[rarer]:.0f} % of test), and on the others, nll minus cross "
        f"entropy’s is (nats per token): {listed(parts)}. Each loss is in its primary reading."
    )


def by_certainty(r: Results) -> Html:
    """KL divergence of each loss from the source's predictions, by certainty."""
    if r.certainty.empty:
        return Html()
    parts, rows = pd.DataFrame(), []
    for loss in r.scored:
        own = r.certainty[r.certainty["loss"] == loss]
        edges = [-1, CERTAIN, OPEN, math.inf]
        parts = own.groupby(pd.cut(own["low"], edges, right=False), observed=False)[_SUMS].sum()
        parts /= parts["tokens"].sum()
        kl, outside = parts["kl"], 100 * parts["outside"].sum()
        rows.append([loss_name(loss), nats(kl.sum()), *map(nats, kl), f"{outside:.2f}"])
    certain, _, open_ = 100 * parts["tokens"]
    head = [
        "loss", "divergence", f"entropy below {CERTAIN:g}", "in between", f"{OPEN:g} or more",
        "impossible tokens, %",
    ]  # fmt: skip
    n, runs = r.certainty.groupby(["loss", "seed"])["tokens"].sum(), len(r.study.final.seeds)
    caption = (
        f"On the first test stories, a hundred at most ({integer(int(n.iloc[0]))} places), each "
        f"loss in its primary reading, {'means over seeds' if runs > 1 else 'one seed'}: "
        "Kullback-Leibler divergence of the models’ next-token distribution from the grammar’s, "
        "nats per token, and its three parts, by the grammar’s entropy at the place. It differs a "
        "little from nll − entropy over all test stories. Last: the probability that a model gives "
        "to tokens that cannot come. Exploratory, without intervals."
    )
    said = paragraphs(
        "The grammar gives every next token an exact probability, so predictions can be compared "
        f"whole, without the luck of the token that came. At {certain:.0f} % of the places it is "
        f"all but certain (entropy below {CERTAIN:g} nats), at {open_:.0f} % open ({OPEN:g} nat "
        "or more); a part grows with the number of its places."
    )
    return Html(said + table(head, rows, caption=caption))


def _frequencies(r: Results, loss: str) -> pd.DataFrame:
    """Tokens and nll of a loss's runs, by the lower edge of the frequency bin."""
    p = r.profile
    own = (p["loss"] == loss) & (p["reading"] == r.reading(loss)) & (p["by"] == "frequency")
    return p[own].groupby("low")[["tokens", "nll"]].sum()


def _parts(r: Results, loss: str, rarer: int) -> np.ndarray:
    """nll on tokens in bins up to `rarer` and on all others, nats per token."""
    rows = _frequencies(r, loss)
    parts = [rows[rows.index <= rarer].sum(), rows[rows.index > rarer].sum()]
    return np.array([part["nll"] / part["tokens"] for part in parts])
