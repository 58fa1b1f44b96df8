"""The verdict never contradicts the table it is based on, whatever the names of the losses.

pytest tests/report/test_answer.py
"""

import math
import random
import re
import string
from dataclasses import replace

import fake_results
import numpy as np
import pandas as pd
import pytest

from squentropy.report import read, sections
from squentropy.report.sections import verdict
from squentropy.report.sections.verdict import NOT_ENOUGH, Evidence
from squentropy.report.summary import with_results

# --- the claims of a text, parsed independently of the code that writes it ------------------------

BETTER, SAME, WORSE = "better", "same", "worse"
CLAUSES = (
    (BETTER, re.compile(r"^(?:Yes: )?(?P<names>.+?) (?:is|are) better than cross entropy$")),
    (WORSE, re.compile(r"^(?:No: )?(?P<names>.+?) (?:is|are) worse than cross entropy$")),
    (SAME, re.compile(r"^(?P<names>.+?) cannot be told apart from cross entropy$")),
)
LISTS = {
    "Better than cross entropy": BETTER,
    "Not told apart from cross entropy": SAME,
    "Worse than cross entropy": WORSE,
}


def names_in(text: str, e: Evidence) -> list[str]:
    """The losses in a prose list of labels, ignoring case, as one may start a sentence."""
    by_label = {label.casefold(): loss for loss, label in e.labels.items()}
    return [by_label[name.casefold()] for name in re.split(r", | and ", text)]


def claims(e: Evidence) -> list[tuple[str, str]]:
    """Every (loss, better | same | worse) that the headline, sentences and lists state."""
    found = []
    prose = " ".join([verdict.headline(e), *verdict.sentences(e)])
    for clause in re.split(r"(?<=\.) |; ", prose):
        clause = clause.rstrip(".")
        for kind, pattern in CLAUSES:
            match = pattern.match(clause)
            if match and not re.search(r"no squared loss|every squared loss", clause):
                found += [(loss, kind) for loss in names_in(match["names"], e)]
        match = re.match(r"^No: every squared loss (tried|that is compared) is worse", clause)
        if match:
            squared = e.squared & set(e.metrics.index)
            known = {x for x in squared if pd.notna(e.metrics.at[x, "difference"])}
            assert match[1] != "tried" or known == squared
            found += [(loss, WORSE) for loss in known]
        if "no squared loss can be told apart" in clause:
            found += [(loss, SAME) for loss in e.squared if loss in e.ranked]
    for line in verdict.comparison(e):
        what, _, rest = line.partition(": ")
        for item in re.split(r", (?![^\[]*\]|p )", rest):
            name, *numbers = re.match(
                r"(.+?) ([+−]?[\d.]+)(?: \[([+−]?[\d.]+), ([+−]?[\d.]+)\])?", item
            ).groups()
            (loss,) = names_in(name, e)
            for end, number in zip(("", "_low", "_high"), numbers, strict=True):
                value = e.metrics.at[loss, f"difference{end}"]
                if number is not None:
                    assert float(number.replace("−", "-")) == pytest.approx(value, abs=6e-4)
            found.append((loss, LISTS[what]))
    return found


def truth(e: Evidence, loss: str) -> str:
    gap, p = e.metrics.at[loss, "difference"], e.metrics.at[loss, "p_value"]
    if math.isnan(p) or not p < 1 - e.confidence or gap == 0:
        return SAME
    return BETTER if gap < 0 else WORSE


def check(e: Evidence) -> None:
    text = " ".join([verdict.headline(e), *verdict.sentences(e), *verdict.comparison(e)])
    made = claims(e)
    compared = {x for x in e.metrics.index if pd.notna(e.metrics.at[x, "difference"])}
    baseline = "cross_entropy" in e.metrics.index
    if not baseline or math.isnan(e.metrics.at["cross_entropy", "nll"]) or e.reasons:
        assert made == []
        assert not re.search(
            r"\bYes\b|\bNo:|better|worse|told apart|\bp [=<]|times the tokens", text
        )
        return
    assert {loss for loss, _ in made} == compared
    for loss, kind in made:
        assert kind == truth(e, loss), (loss, text)
    squared = [truth(e, loss) for loss in compared & e.squared]
    head = verdict.headline(e)
    assert head.startswith("Yes:") == (BETTER in squared)
    assert head.startswith("No:") == bool(squared and set(squared) == {WORSE})
    assert head.startswith("Not shown") == (SAME in squared and BETTER not in squared)
    assert ("no squared loss is compared" in head.casefold()) == (bool(compared) and not squared)
    for p in re.findall(r"p < ([\d.]+)", text):
        assert float(p) == max(e.smallest_p, 0.001)
    for p in re.findall(r"p = ([\d.]+)", text):
        assert float(p) >= e.smallest_p
    edges = re.search(r"The best learning rate of (.+?) lies at an edge", text)
    told = set(names_in(edges[1], e)) if edges else set()
    assert told == e.at_edge & compared
    missing = re.search(r"since no run finished: (.+?)\.(?= [A-Z]|$)", text)
    told = set(names_in(missing[1], e)) if missing else set()
    assert told == set(e.metrics.index) - compared - {"cross_entropy"}
    check_tokens(e, text)


def check_tokens(e: Evidence, text: str) -> None:
    """Assert that every number of tokens belongs to the loss that it is stated for."""
    said = re.search(r"For the same nll, (.+?)\.(?= [A-Z]|$)", text)
    if not said:
        return
    by_label = {label: loss for loss, label in e.labels.items()}
    if several := re.match(r"(.+?) needs fewest, .+ cross entropy, and (.+)$", said[1]):
        told = [loss for loss in e.ranked if loss in e.squared] or e.ranked
        needs = e.metrics.loc[told, "tokens_needed"].dropna()
        assert needs[by_label[several[1]]] == needs.min()
        if beyond := re.match(r"(.+) more than [\d.]+, the most that", several[2]):
            assert set(names_in(beyond[1], e)) == set(needs.index[needs == math.inf])
        else:
            assert needs[by_label[several[2].partition(" most, ")[0]]] == needs.max() < math.inf
        return
    parts = re.split(r", | and (?=[^)]*(?:\(|$))", said[1])
    for part in parts:
        label, _, number = re.match(
            r"(.+?) (needs )?((?:(?:more|less) than )?[\d.]+)(?: times| \(|$)", part
        ).groups()
        value = e.metrics.at[by_label[label], "tokens_needed"]
        if number.startswith("more"):
            assert value == math.inf
        elif number.startswith("less"):
            assert value == 0
        else:
            assert float(number) == pytest.approx(value, rel=0.05, abs=0.051)


# --- random studies -------------------------------------------------------------------------------

OURS = ["mse", "squentropy", "squentropy(0.1)", "mse_weighted", "z_loss", "brier", "spherical"]
LABELS = {"mse": "MSE", "mse_weighted": "weighted MSE", "z_loss": "z-loss", "brier": "Brier"}


def random_evidence(rng: random.Random) -> Evidence:
    losses = ["cross_entropy"] if rng.random() < 0.95 else []
    losses += rng.sample(OURS, rng.randint(0, 4))
    for _ in range(rng.randint(0, 4)):  # user losses
        name = "".join(rng.choices(string.ascii_lowercase, k=rng.randint(1, 9)))
        name += rng.choice(["", "_loss", "_of_hers", f"({rng.random():.2g})"])
        if name not in losses and name.replace("_", " ") not in ("and", "is", "are"):
            losses.append(name)
    rng.shuffle(losses)
    labels = {x: LABELS.get(x, re.sub(r"\((.*)\)", r" (\1)", x).replace("_", " ")) for x in losses}
    metrics = pd.DataFrame(index=losses, data=random_rows(rng, losses))
    reasons = ("cross entropy does not beat the trigram model",) if rng.random() < 0.15 else ()
    return Evidence(
        metrics=metrics,
        labels=labels,
        squared=frozenset(x for x in losses if x != "cross_entropy" and rng.random() < 0.6),
        at_edge=frozenset(x for x in losses if rng.random() < 0.15),
        reasons=reasons,
        confidence=rng.choice([0.9, 0.95, 0.99]),
        smallest_p=rng.choice([0.0, 0.001, 0.01, 0.05, 0.2]),
        least=dict.fromkeys(losses, 0.25),
        most=4.0,
    )


def random_rows(rng: random.Random, losses: list[str]) -> dict[str, list[float]]:
    columns = ("nll", "difference", "difference_low", "difference_high", "p_value",
               "tokens_needed", "tokens_needed_low", "tokens_needed_high")  # fmt: skip
    rows: dict[str, list[float]] = {name: [] for name in columns}
    spread = rng.choice([0.01, 1.0])
    favour = rng.choice([-0.5, 0, 0.5])  # sometimes makes all better, or all worse
    dead = rng.random() < 0.05
    for loss in losses:
        gap = round(rng.gauss(favour, spread), 3)
        p = rng.choice([0.0, 0.01, 0.02, 0.049, 0.05, 0.3, 1.0, math.nan])
        if loss == "cross_entropy":
            values = [math.nan if dead else 2.0] + 7 * [math.nan]
        elif dead or rng.random() < 0.1:
            values = ([math.nan] if rng.random() < 0.7 else [2 + gap]) + 7 * [math.nan]
        else:
            half = abs(rng.gauss(0, spread))
            need = rng.choice([0.0, math.inf, math.exp(rng.gauss(0.2, 0.8)), math.nan])
            low, high = (need * 0.9, need * 1.1) if rng.random() < 0.8 else (math.nan, math.nan)
            ends = (gap - half, gap + half) if rng.random() < 0.9 else (math.nan, math.nan)
            values = [2 + gap, gap, *ends, p, need, low, high]
        for name, value in zip(columns, values, strict=True):
            rows[name].append(value)
    return rows


def test_no_sentence_contradicts_one_of_1000_random_tables():
    rng = random.Random(14)
    seen = set()
    for _ in range(1000):
        e = random_evidence(rng)
        check(e)
        seen.add(verdict.headline(e).partition(":")[0].partition(" is ")[0])
    kinds = ("Yes", "No", "Not shown", "Not shown either way", NOT_ENOUGH)
    assert set(kinds) < seen  # all kinds of verdicts occurred


def test_the_checker_notices_a_contradiction(monkeypatch):
    rng = random.Random(3)
    wrong = verdict.groups

    def turned(e, losses):
        found = wrong(e, losses)
        return verdict.Groups(found.worse, found.same, found.better)

    monkeypatch.setattr(verdict, "groups", turned)
    caught = 0
    for _ in range(100):
        try:
            check(random_evidence(rng))
        except AssertionError:
            caught += 1
    assert caught > 50


# --- examples -------------------------------------------------------------------------------------


def small(folder, losses=("cross_entropy", "squentropy", "mse"), **how):
    sweep = {"losses": list(losses), "dropout": [0.0], "n_layer": [2, 3]}
    return fake_results.write(folder, stories=20, sweep=sweep, final={"seeds": [1, 2, 3]}, **how)


def whole(r) -> str:
    return sections.answer.answer(r) + sections.answer.comparisons(r)


def with_differences(tmp_path, gaps, **how):
    """Results with these differences to cross entropy at 2 nats: {loss: (difference, p)}."""
    r = read.read(small(tmp_path / "results", losses=["cross_entropy", *gaps], **how))
    for loss, (gap, p) in gaps.items():
        values = [2 + gap, gap, gap - 0.01, gap + 0.01, p]
        columns = ["nll", "difference", "difference_low", "difference_high", "p_value"]
        r.metrics.loc[loss, columns] = values
    r.metrics.loc["cross_entropy", "nll"] = 2.0
    return r


@pytest.mark.parametrize(
    ("gaps", "said"),
    [
        ({"mse": (0.6, 0.01), "squentropy": (0.1, 0.01)},
         "No: every squared loss tried is worse than cross entropy."),
        ({"mse": (0.6, 0.01), "squentropy": (-0.1, 0.01)},
         "Yes: squentropy is better than cross entropy."),
        ({"mse": (0.6, 0.01), "squentropy": (-0.1, 0.2)},
         "Not shown: no squared loss can be said to be better than cross entropy."),
        ({"mse": (0.01, 0.5), "squentropy": (-0.1, 0.2)},
         "Not shown either way: no squared loss can be told apart from cross entropy."),
        ({"z_loss": (-0.1, 0.01)}, "Z-loss is better than cross entropy."),
    ],
)  # fmt: skip
def test_the_verdict_follows_differences_and_p_values(tmp_path, gaps, said):
    assert said in whole(with_differences(tmp_path, gaps))


def test_a_loss_that_declares_nothing_is_judged_too(tmp_path):
    """An earlier verdict only covered a fixed list of names and ignored all other losses."""
    gaps = {"mse": (0.6, 0.01), "squentropy": (0.1, 0.01), "z_loss": (-0.5, 0.01)}
    text = whole(with_differences(tmp_path, gaps))
    assert "No: every squared loss tried" in text
    assert "Z-loss is better than cross entropy." in text


def test_a_study_that_has_not_learnt_claims_nothing(tmp_path):
    folder = small(tmp_path / "results", learnt=False)
    text = whole(read.read(folder))
    assert text.startswith(f"<p><strong>{NOT_ENOUGH}</strong>: ")
    assert "does not beat the" in text
    readme = with_results("<!-- results: x -->\n<!-- end of results -->", folder, tmp_path)
    assert f"**{NOT_ENOUGH}**: " in readme
    assert "share learnt" in readme
    for claim in ("better", "worse", "told apart", " p ", "p-value", "&lt;", "tokens needed"):
        assert claim not in text + readme.replace("less is better", ""), claim


def test_intervals_are_said_once_to_be_conditional_on_the_selection(tmp_path):
    text = whole(read.read(small(tmp_path / "results")))
    assert text.count("conditional on the selection") == 1


def test_a_p_value_is_never_given_below_what_the_seeds_support(tmp_path):
    r = with_differences(tmp_path, {"mse": (0.6, 1e-9), "squentropy": (0.1, 0.0312)})
    text = whole(r)
    assert "p &lt; 0.01" in text
    assert "p = 0.031" in text


def test_the_tokens_needed_stand_in_one_sentence(tmp_path):
    r = with_differences(tmp_path, {"mse": (0.6, 0.01), "squentropy": (0.1, 0.01)})
    columns = [f"tokens_needed{end}" for end in ("", "_low", "_high")]
    r.metrics.loc["squentropy", columns] = [1.42, 1.29, 1.51]
    r.metrics.loc["mse", columns] = [np.inf, 3.1, np.inf]
    assert (
        "For the same nll, squentropy needs 1.42 times the tokens of cross entropy (1.29 to 1.51) "
        "and MSE more than 4 (3.10 to more than 4)."
    ) in whole(r)


def test_what_the_lengths_cannot_show_follows_from_the_lengths_that_finished(tmp_path):
    r = read.read(small(tmp_path / "results"))
    assert verdict.evidence(r).most == pytest.approx(4)
    shortest = r.lengths["iterations"] == r.lengths["iterations"].min()
    lengths = r.lengths[~(shortest & (r.lengths["loss"] == "cross_entropy"))]
    assert verdict.evidence(replace(r, lengths=lengths)).most == pytest.approx(2)


def test_one_seed_is_said_openly(tmp_path):
    how = {"sweep": {"losses": ["cross_entropy", "mse"]}, "final": {"seeds": [1]}}
    r = read.read(fake_results.write(tmp_path, stories=20, **how))
    assert "how much another seed would change is unknown" in whole(r)
