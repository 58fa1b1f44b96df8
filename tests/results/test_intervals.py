"""Intervals: coverage, resampling and invalid data."""

import math

import numpy as np
import pytest

from squentropy.base.errors import SquentropyError
from squentropy.results.intervals import Interval, capped, difference, holm, mean_nll

HOW = {"resamples": 500, "confidence": 0.95, "seed": 0}


def simulated(rng, seeds, stories, *, of_seed, of_story, of_both, shift=0.0):
    """(nll, tokens) with random effects of seed, story and both, in nats per token around `shift`.

    Story effects are skewed, like real ones, and stories differ in length.
    """
    tokens = rng.integers(60, 300, stories)
    effect = (
        rng.normal(0, of_seed, (seeds, 1))
        + of_story * (rng.exponential(1, stories) - 1)
        + rng.normal(0, of_both, (seeds, stories))
    )
    return (shift + effect) * tokens, tokens


def coverage(n, seeds, stories, resamples, **effects):
    """The share of n simulated studies whose 95 % interval contains the true difference."""
    rng, covered, truth = np.random.default_rng(seeds), 0, 0.05
    for i in range(n):
        nll_a, tokens = simulated(rng, seeds, stories, **effects, shift=truth)
        nll_b = rng.normal(2, 0.3, nll_a.shape) * tokens
        interval, _ = difference(
            nll_a + nll_b, nll_b, tokens, resamples=resamples, confidence=0.95, seed=i
        )
        covered += interval.low <= truth <= interval.high
    return covered / n


MIXTURES = {
    "seeds alone": {"of_seed": 0.02, "of_story": 0.0, "of_both": 0.0},
    "mostly seeds": {"of_seed": 0.02, "of_story": 0.10, "of_both": 0.05},
    "half and half": {"of_seed": 0.013, "of_story": 0.10, "of_both": 0.05},
    "mostly stories": {"of_seed": 0.004, "of_story": 0.10, "of_both": 0.05},
    "stories alone": {"of_seed": 0.0, "of_story": 0.10, "of_both": 0.0},
    "stories, each seed its own": {"of_seed": 0.0, "of_story": 0.0, "of_both": 0.10},
}


@pytest.mark.parametrize("mixture", ["seeds alone", "half and half", "stories alone"])
def test_a_95_percent_interval_covers_the_true_difference_with_three_seeds(mixture):
    assert 0.93 <= coverage(1000, 3, 200, 150, **MIXTURES[mixture]) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize("mixture", MIXTURES)
@pytest.mark.parametrize("seeds", [3, 5])
def test_coverage_is_93_to_97_percent_whatever_the_mixture(seeds, mixture):
    assert 0.93 <= coverage(2000, seeds, 250, 400, **MIXTURES[mixture]) <= 0.97


def test_a_percentile_bootstrap_over_three_seeds_would_cover_too_rarely():
    """This is why seeds are not resampled."""
    rng, covered = np.random.default_rng(0), 0
    for _ in range(500):
        ratios = rng.normal(0.05, 0.02, 3)
        means = ratios[rng.integers(3, size=(400, 3))].mean(1)
        low, high = np.quantile(means, [0.025, 0.975])
        covered += low <= 0.05 <= high
    assert covered / 500 < 0.85


def test_the_estimate_is_nats_a_token_over_all_tokens_averaged_over_seeds():
    nll, tokens = np.array([[10.0, 60.0], [20.0, 40.0]]), np.array([10, 20])
    assert mean_nll(nll, tokens, **HOW).estimate == pytest.approx((70 / 30 + 60 / 30) / 2)


def test_pairing_removes_what_both_losses_share():
    rng = np.random.default_rng(0)
    tokens = rng.integers(60, 300, 200)
    shared = rng.normal(2.0, 0.5, (3, 200))
    a, b = (shared + 0.02) * tokens, shared * tokens
    interval, p_value = difference(a, b, tokens, **HOW)
    assert interval.estimate == pytest.approx(0.02)
    assert interval.high - interval.low < 1e-9
    assert p_value < 1e-9
    alone = mean_nll(a, tokens, **HOW)
    assert alone.high - alone.low > 0.05


def test_the_p_value_is_below_5_percent_exactly_where_the_95_percent_interval_leaves_zero_out():
    rng = np.random.default_rng(1)
    verdicts = set()
    for shift in np.linspace(-0.1, 0.1, 41):
        nll, tokens = simulated(rng, 3, 80, of_seed=0.02, of_story=0.1, of_both=0.1, shift=shift)
        interval, p_value = difference(nll, np.zeros_like(nll), tokens, **HOW)
        outside = not interval.low <= 0 <= interval.high
        assert outside == (p_value < 0.05)
        verdicts.add(outside)
    assert verdicts == {True, False}


def test_swapping_the_losses_turns_the_difference_round():
    rng = np.random.default_rng(2)
    nll, tokens = simulated(rng, 3, 50, of_seed=0.02, of_story=0.1, of_both=0.1, shift=0.03)
    there, p_there = difference(nll, 0 * nll, tokens, **HOW)
    back, p_back = difference(0 * nll, nll, tokens, **HOW)
    assert there.low == pytest.approx(-back.high)
    assert p_there == pytest.approx(p_back)


def test_equal_losses_do_not_differ():
    nll, tokens = np.ones((3, 10)), np.ones(10)
    assert difference(nll, nll, tokens, **HOW) == (Interval(0.0, 0.0, 0.0), 1.0)


def test_the_same_seed_gives_the_same_interval_and_another_seed_another():
    nll, tokens = simulated(
        np.random.default_rng(3), 3, 40, of_seed=0.02, of_story=0.1, of_both=0.1, shift=1.0
    )
    assert mean_nll(nll, tokens, **HOW) == mean_nll(nll, tokens, **HOW)
    assert mean_nll(nll, tokens, **HOW) != mean_nll(nll, tokens, **(HOW | {"seed": 1}))


def test_one_seed_gives_the_bootstrap_interval_over_stories():
    nll, tokens = simulated(
        np.random.default_rng(4), 1, 400, of_seed=0.0, of_story=0.1, of_both=0.1, shift=2.0
    )
    interval = mean_nll(nll, tokens, **HOW)
    residual = nll[0] - interval.estimate * tokens
    error = math.sqrt((residual**2).sum()) / tokens.sum()
    assert interval.high - interval.low == pytest.approx(2 * 1.966 * error, rel=0.1)


def test_chunks_of_resamples_do_not_change_the_result(monkeypatch):
    nll, tokens = simulated(
        np.random.default_rng(5), 3, 40, of_seed=0.02, of_story=0.1, of_both=0.1, shift=1.0
    )
    whole = mean_nll(nll, tokens, **HOW)
    monkeypatch.setattr("squentropy.results.intervals._CHUNK", 400)
    chunked = mean_nll(nll, tokens, **HOW)
    assert chunked.low == pytest.approx(whole.low, rel=1e-12)


def test_one_story_has_no_interval():
    interval = mean_nll(np.array([[3.0], [4.0]]), np.array([2]), **HOW)
    assert interval.estimate == pytest.approx(1.75)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def test_holm_multiplies_the_smallest_p_value_by_their_number_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]


def test_holm_does_not_count_missing_p_values():
    corrected = holm([None, 0.02, math.nan, 0.03])
    assert corrected[1] == pytest.approx(0.04)
    assert corrected[3] == pytest.approx(0.04)
    assert math.isnan(corrected[0])
    assert math.isnan(corrected[2])
    assert holm([]) == []


@pytest.mark.parametrize(
    ("nll", "tokens"),
    [
        (np.ones((3, 4)), np.ones(5)),
        (np.array([[1.0, np.nan]]), np.ones(2)),
        (np.array([[1.0, np.inf]]), np.ones(2)),
        (np.ones((1, 2)), np.array([3, 0])),
        (np.ones((0, 2)), np.ones(2)),
    ],
)
def test_data_that_cannot_be_averaged_are_refused(nll, tokens):
    with pytest.raises(SquentropyError):
        mean_nll(nll, tokens, **HOW)


def test_unpaired_data_are_refused():
    with pytest.raises(SquentropyError, match="same seeds and stories"):
        difference(np.ones((2, 4)), np.ones((3, 4)), np.ones(4), **HOW)


def test_a_p_value_is_given_no_smaller_than_the_seeds_support():
    assert [capped(p, 0.01) for p in (2e-6, 0.01, 0.3)] == [0.01, 0.01, 0.3]
    assert math.isnan(capped(math.nan, 0.01))
