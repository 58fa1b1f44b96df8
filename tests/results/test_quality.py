"""The measures of stories follow their definitions, and true stories score best.

pytest tests/results/test_quality.py
"""

import itertools
import math
import random

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from squentropy.corpus.grammar.grammar import load_grammar
from squentropy.results import intervals, quality
from squentropy.results.quality import distinct, quality_rows, repetition, self_bleu, split_words

STORIES = st.lists(st.lists(st.sampled_from("abcd"), max_size=12), min_size=2, max_size=6)


@given(STORIES, st.integers(1, 3))
def test_distinct_is_a_share_of_ngrams(stories, n):
    grams = [tuple(s[i : i + n]) for s in stories for i in range(len(s)) if i + n <= len(s)]
    expected = len(set(grams)) / len(grams) if grams else math.nan
    assert distinct(stories, n) == pytest.approx(expected, nan_ok=True)


@given(st.lists(st.sampled_from("ab"), max_size=30))
def test_repetition_counts_what_stood_there_before(words):
    grams = [tuple(words[i : i + 4]) for i in range(len(words) - 3)]
    again = sum(gram in grams[:i] for i, gram in enumerate(grams))
    assert repetition(words) == pytest.approx(again / len(grams) if grams else 0)


@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=12), min_size=2, max_size=6))
def test_self_bleu_is_nltks(stories):
    smooth = SmoothingFunction().method1
    scores = []
    for i, story in enumerate(stories):
        others = stories[:i] + stories[i + 1 :]
        matched = set(story) & set(itertools.chain.from_iterable(others))
        # without a common word, nltk returns 0 regardless of the smoothing
        scores.append(sentence_bleu(others, story, smoothing_function=smooth) if matched else None)
    if None not in scores:
        assert self_bleu(stories) == pytest.approx(np.mean(scores))


def test_stories_that_are_alike_have_a_self_bleu_of_1_and_strangers_next_to_none():
    story = [str(i) for i in range(30)]
    assert self_bleu([story, story, story]) == pytest.approx(1)
    assert self_bleu([story, [f"x{i}" for i in range(30)]]) < 0.01
    assert math.isnan(self_bleu([story]))


def test_words_are_words_and_marks():
    assert split_words("“Oh, Tim!” He ran.") == ["“", "oh", ",", "tim", "!", "”", "he", "ran", "."]


# --- the table ----------------------------------------------------------------------------------


def told(study, texts, *, ended=True):
    """Samples of cross entropy at one temperature, with the same `texts` for every seed."""
    prompts, places = study.sample.prompts, range(len(texts))
    return [
        {"phase": "final", "loss": "cross_entropy", "seed": seed, "temperature": 0.8, "top_k": 0,
         "reading": "softmax", "prompt": prompts[i % len(prompts)], "number": i // len(prompts),
         "text": texts[i], "tokens": 10, "ended": ended}
        for seed in study.final.seeds for i in places
    ]  # fmt: skip


def shuffled(text: str) -> str:
    words = text.split()
    random.Random(0).shuffle(words)
    return " ".join(words)


def test_true_stories_are_accepted_and_shuffled_ones_are_not(grammar_data, tiny_study):
    study = tiny_study()
    stories = [s.text for s in load_grammar().stories(9, 0, 4)]
    for change, accepted in ((str, 1), (shuffled, 0), (lambda s: s[: len(s) // 2], 0)):
        samples = told(study, [change(s) for s in stories])
        row, test = quality_rows(study, grammar_data, samples)
        assert (row["runs"], row["stories"], row["valid"]) == (2, 8, accepted)
        assert sum(row[column] for column in quality.KINDS.values()) == 8 * (1 - accepted)
        assert row["valid_low"] <= row["valid"] <= row["valid_high"]
        assert (test["loss"], test["valid"], test["parsed"]) == ("test stories", 1, 1)
        if change is str:
            assert row["parsed"] == 1
        elif change is shuffled:
            assert row["parsed"] < 0.2
        else:
            assert row["no_ending"] == 8
            assert row["parsed"] == 1  # each half is the beginning of a valid story


def test_form_and_sentences_hold_where_only_names_are_swapped(grammar_data, tiny_study):
    study = tiny_study()
    every = (story.text for story in load_grammar().stories(9, 0, 500))
    stories = [text for text in every if text.count("Tim") > 2][:4]
    swapped = [text[::-1].replace("miT", "maS", 1)[::-1] for text in stories]  # last Tim -> Sam
    row, test = quality_rows(study, grammar_data, told(study, swapped))
    assert (row["valid"], row["form"], row["sentences_in_form"]) == (0, 1, 1)
    assert 0.5 < row["agreement_low"] <= row["agreement"] < 1
    for name in ("form", "agreement", "sentences_in_form"):
        assert (test[name], test[f"{name}_high"]) == (1, 1)
        assert test[f"{name}_low"] < 1


def test_shuffled_words_and_halves_of_stories_have_no_form(grammar_data, tiny_study):
    study = tiny_study()
    stories = [s.text for s in load_grammar().stories(9, 0, 4)]
    row, _ = quality_rows(study, grammar_data, told(study, list(map(shuffled, stories))))
    assert (row["form"], row["sentences_in_form"]) == (0, 0)
    assert math.isnan(row["agreement"])  # no reference was read
    row, _ = quality_rows(study, grammar_data, told(study, [s[: len(s) // 2] for s in stories]))
    assert (row["form"], row["agreement"]) == (0, 1)
    assert 0.8 < row["sentences_in_form"] < 1


def test_only_the_grammar_has_a_checker(data, tiny_study):
    study = tiny_study(corpus={"source": "files", "files": {"train": ["a.txt"]}})
    rows = quality_rows(study, data, told(study, ["Tim ran. Tim ran. Tim ran."] * 4, ended=False))
    table = pd.DataFrame(rows, columns=quality.QUALITY).set_index("loss")
    checked = ["valid", "form", "agreement", "sentences_in_form", "parsed", "no_ending"]
    assert table[checked].isna().all(axis=None)
    row = table.loc["cross_entropy"]
    assert (row["ended"], row["self_bleu"]) == (0, pytest.approx(1))
    assert row["repetition"] == pytest.approx(3 / 6)  # 3 of 6 4-grams repeat earlier ones
    assert table.loc["test stories", "ended"] == 1


def test_the_table_has_a_row_a_loss_and_temperature_and_one_of_test(finished, tiny_study):
    table = pd.read_csv(finished / "results" / "quality.csv")
    assert list(table.columns) == quality.QUALITY
    asked = itertools.product(["cross_entropy", "mse"], tiny_study().sample.temperatures)
    rows = list(table[["loss", "temperature"]].itertuples(index=False, name=None))
    assert rows[:-1] == list(asked)
    assert table["loss"].iloc[-1] == quality.TEST
    assert set(table["reading"][table["loss"] == "mse"]) == {"own"}
    for name in quality.MEASURES:
        own = table.dropna(subset=[f"{name}_low", f"{name}_high"])
        assert (own[f"{name}_low"] <= own[name] + 1e-12).all()
        assert (own[name] <= own[f"{name}_high"] + 1e-12).all()


def test_test_stories_are_taken_in_groups_of_a_runs_size(grammar_data, tiny_study):
    for stories, (runs, n) in ((2, (2, 8)), (6, (2, 24)), (9, (1, 18)), (40, (1, 30))):
        study = tiny_study(sample={"stories": stories})
        row = quality_rows(study, grammar_data, [])[-1]
        assert (row["runs"], row["stories"]) == (runs, n)


def test_without_any_story_there_is_the_row_of_test_alone(grammar_data, tiny_study):
    assert [row["loss"] for row in quality_rows(tiny_study(), grammar_data, [])] == ["test stories"]


# --- the intervals ------------------------------------------------------------------------------

HOW = {"resamples": 200, "confidence": 0.95, "seed": 0}


def test_a_share_of_none_or_all_has_wilsons_interval():
    """The 95 % interval for 0 of 72 ends at z^2 / (72 + z^2)."""
    none = intervals.share(np.zeros((3, 24)), **HOW)
    assert (none.estimate, none.low) == (0, 0)
    assert none.high == pytest.approx(1.96**2 / (72 + 1.96**2), rel=1e-4)
    every = intervals.share(np.ones((3, 24)), **HOW)
    assert (every.low, every.high) == pytest.approx((1 - none.high, 1))


def test_seeds_that_differ_widen_the_interval():
    alike = np.tile([1, 0, 0, 0, 0, 0, 0, 0], (3, 3))
    apart = np.vstack([np.zeros(24), np.zeros(24), alike[0] + np.roll(alike[0], 1)])
    apart[1, :3] = 1
    one, other = intervals.share(alike, **HOW), intervals.share(apart, **HOW)
    assert one.estimate == other.estimate == 0.125
    assert other.high - other.low > one.high - one.low


@pytest.mark.parametrize(("p", "spread"), [(0.05, 0.0), (0.3, 0.0), (0.3, 0.1), (0.9, 0.03)])
def test_the_interval_of_a_share_holds_it_as_often_as_it_says(p, spread):
    """Three seeds whose true shares vary, with 24 stories each."""
    draw, held, tries = np.random.default_rng(0), 0, 400
    for _ in range(tries):
        of_seed = np.clip(p + spread * draw.standard_normal((3, 1)), 0, 1)
        interval = intervals.share(draw.random((3, 24)) < of_seed, **HOW)
        held += interval.low <= p <= interval.high
    assert held / tries > 0.92


def test_a_story_weighs_as_much_as_is_counted_in_it():
    hits, of = np.array([[9, 0, 2], [4, 1, 0]]), np.array([[10, 0, 5], [4, 2, 4]])
    interval = intervals.share(hits, of, **HOW)
    assert interval.estimate == pytest.approx((11 / 15 + 5 / 10) / 2)
    assert interval.low < interval.estimate < interval.high
    ones = np.ones((3, 8))
    assert intervals.share(ones, **HOW) == intervals.share(ones, ones, **HOW)


def test_the_same_answers_in_one_story_say_less_than_in_many():
    """72 stories, half of which have all 20 hits, compared with random hits."""
    rng = np.random.default_rng(0)
    together = 20 * (np.arange(72) % 2).reshape(3, 24)
    apart = rng.binomial(20, 0.5, (3, 24))
    of = np.full((3, 24), 20)
    one, other = (intervals.share(hits, of, **HOW) for hits in (together, apart))
    assert one.high - one.low > 2 * (other.high - other.low)


def test_seeds_without_anything_to_count_are_left_out():
    hits, of = np.array([[0, 0, 0], [1, 1, 0]]), np.array([[0, 0, 0], [1, 3, 2]])
    assert intervals.share(hits, of, **HOW).estimate == pytest.approx(2 / 6)
    none = intervals.share(0 * hits, 0 * of, **HOW)
    assert all(map(math.isnan, (none.estimate, none.low, none.high)))
    lone = intervals.share([[0, 1, 0, 0]], [[0, 2, 0, 0]], **HOW)  # most resamples count nothing
    assert 0 <= lone.low <= lone.estimate == 0.5 <= lone.high <= 1


@pytest.mark.parametrize(("p", "spread", "alike"), [(0.9, 0, 30), (0.6, 0.05, 10), (0.95, 0, 300)])
def test_the_interval_of_a_counted_share_holds_it_as_often_as_it_says(p, spread, alike):
    """Stories have 0 to 40 references; a smaller `alike` makes their true shares vary more."""
    draw, held, tries = np.random.default_rng(0), 0, 400
    for _ in range(tries):
        of_seed = np.clip(p + spread * draw.standard_normal((3, 1)), 0.01, 0.99)
        own = draw.beta(of_seed * alike, (1 - of_seed) * alike, size=(3, 24))
        of = draw.integers(0, 41, (3, 24))
        interval = intervals.share(draw.binomial(of, own), of, **HOW)
        held += interval.low <= p <= interval.high
    assert held / tries > 0.92


def test_the_interval_of_a_mean_is_students():
    interval = intervals.mean([1.0, 2.0, 4.0], 0.95)
    half = 4.302653 * np.std([1, 2, 4], ddof=1) / math.sqrt(3)
    assert (interval.low, interval.high) == pytest.approx((7 / 3 - half, 7 / 3 + half), rel=1e-6)
    assert math.isnan(intervals.mean([1.0], 0.95).low)
