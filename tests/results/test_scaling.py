"""Tokens needed relative to cross entropy, on curves with a known answer and on random ones."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squentropy.base.errors import SquentropyError
from squentropy.results.intervals import Interval
from squentropy.results.scaling import Needed, slope, tokens_needed

LENGTHS = np.array([1000, 2000, 4000, 8000])
HALVING = np.array([4.0, 3.0, 2.0, 1.0])  # a nat per doubling


def interval(d: float, half: float = 0.0) -> Interval:
    return Interval(d, d - half, d + half)


def needed(d: float, half: float = 0.0, own: np.ndarray = HALVING, base=HALVING) -> Needed:
    return tokens_needed(LENGTHS, base, LENGTHS, own, interval(d, half))


@pytest.mark.parametrize(
    ("d", "times"), [(0, 1), (1, 2), (0.5, 2**0.5), (3, 8), (3.001, math.inf), (-1, 1 / 2)]
)
def test_a_nat_that_a_doubling_wins_costs_twice_the_tokens(d, times):
    assert needed(d).estimate == pytest.approx(times)


def test_a_better_loss_is_read_from_its_own_curve():
    steep = np.array([7.0, 5.0, 3.0, 0.9])  # 2.1 nats for the last doubling
    assert needed(-0.7, own=steep).estimate == pytest.approx(2 ** (-1 / 3))
    assert needed(0.7, own=steep).estimate == pytest.approx(2**0.7)


def test_beyond_the_shortest_run_only_a_bound_is_known():
    for d, beyond in (5.0, math.inf), (-5.0, 0.0):
        found = needed(d)
        assert [found.estimate, found.low, found.high] == [beyond] * 3
        assert [found.least, found.most] == pytest.approx([1 / 8, 8])


def test_the_interval_maps_the_ends_of_the_difference():
    found = needed(0.5, half=1.0)
    assert [found.low, found.estimate, found.high] == pytest.approx([2**-0.5, 2**0.5, 2**1.5])
    alone = tokens_needed(LENGTHS, HALVING, LENGTHS, HALVING, Interval(1.0, math.nan, math.nan))
    assert alone.estimate == pytest.approx(2)
    assert math.isnan(alone.low)
    assert math.isnan(alone.high)


def test_lengths_come_in_any_order_and_a_diverged_one_is_left_out():
    shuffled = [2, 0, 3, 1]
    found = tokens_needed(LENGTHS[shuffled], HALVING[shuffled], LENGTHS, HALVING, interval(1.5))
    assert found == needed(1.5)
    gap = np.array([4.0, math.nan, 2.0, 1.0])
    assert needed(2.0, base=gap).estimate == pytest.approx(4)
    gone = np.array([4.0, 3.0, 2.0, math.nan])
    assert math.isnan(needed(math.nan, own=gone).estimate)
    assert math.isnan(needed(0.5, base=gone).most)


def test_a_stretch_that_won_nothing_claims_no_tokens_saved():
    noisy = np.array([4.0, 1.4, 1.6, 1.0])  # 1.5 pooled, reached at 4,000 tokens
    assert needed(0.5, base=noisy).estimate == pytest.approx(2)
    assert 2 < needed(0.6, base=noisy).estimate < 8
    flat = np.array([4.0, 3.0, 1.0, 1.0])
    assert needed(0.0, base=flat).estimate == 1
    assert 1 < needed(0.1, base=flat).estimate < 1.1


def test_with_one_length_nothing_but_the_side_is_known():
    one = np.array([8000]), np.array([1.0])
    found = [tokens_needed(*one, *one, interval(d)) for d in (-0.1, 0.0, 0.1)]
    assert [f.estimate for f in found] == [0, 1, math.inf]
    assert found[0].least == found[0].most == 1


def test_curves_of_other_full_lengths_are_refused():
    with pytest.raises(SquentropyError, match="8,000 and 16,000 tokens"):
        tokens_needed(LENGTHS, HALVING, 2 * LENGTHS, HALVING, interval(0))


falls = st.lists(st.floats(0.05, 3.0), min_size=1, max_size=5)


def falling(steps: list[float], last: float) -> tuple[np.ndarray, np.ndarray]:
    """A falling curve that ends at 100,000 tokens."""
    tokens = 100_000 // 2 ** np.arange(len(steps), -1, -1)
    return tokens, last + np.append(np.cumsum(steps)[::-1], 0)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(base=falls, own=falls, ds=st.lists(st.floats(-4, 4), min_size=2, max_size=6))
def test_on_falling_curves_more_tokens_are_needed_just_if_the_loss_is_worse(base, own, ds):
    curves = *falling(base, 1.0), *falling(own, 1.2)
    ds = sorted(round(d, 6) for d in ds)
    found = [tokens_needed(*curves, interval(d, 0.3)) for d in ds]
    for d, f in zip(ds, found):
        assert (f.estimate >= 1) == (d >= 0)
        assert (f.estimate > 1) == (d > 0)
        assert f.low <= f.estimate <= f.high
        assert f.least <= f.estimate <= f.most or f.estimate in (0, math.inf)
    estimates = [f.estimate for f in found]
    assert estimates == sorted(estimates)
    near = [tokens_needed(*curves, interval(d)).estimate for d in (-1e-7, 0.0, 1e-7)]
    assert near == pytest.approx([1, 1, 1], abs=1e-5)
    assert near[1] == 1


noisy = st.lists(st.floats(0.0, 6.0), min_size=1, max_size=6)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(base=noisy, own=noisy, d=st.floats(-4, 4), more=st.floats(0, 2))
def test_noise_in_the_curves_breaks_nothing(base, own, d, more):
    curves = []
    for values in (base, own):
        curves += [1000 * 2 ** np.arange(6)[-len(values) :], np.array(values)]
    d = round(d, 6)
    one, other = (tokens_needed(*curves, interval(x, 0.2)) for x in (d, d + more))
    assert (one.estimate >= 1) == (d >= 0)
    assert one.low <= one.estimate <= one.high
    assert one.estimate <= other.estimate
    assert 0 < one.least <= 1 <= one.most < math.inf


def test_the_slope_is_the_exponent_of_a_power_law():
    tokens = np.array([1e5, 3e5, 1e6, 2e6])
    excess = 7 * tokens ** (-1 / 3)
    assert slope(tokens, excess) == pytest.approx(-1 / 3)
    excess[1] = math.nan
    assert slope(tokens, excess) == pytest.approx(-1 / 3)
    noise = np.exp(np.array([0.1, -0.2, 0.05, 0.1]))
    by_numpy = np.polyfit(np.log(tokens), np.log(7 * tokens**-0.4 * noise), 1)[0]
    assert slope(tokens, 7 * tokens**-0.4 * noise) == pytest.approx(by_numpy)


@pytest.mark.parametrize(
    ("tokens", "excess"),
    [([1000], [1.0]), ([1000, 1000], [1.0, 0.9]), ([1000, 2000], [1.0, -0.1]), ([], [])],
)
def test_a_slope_needs_two_lengths(tokens, excess):
    assert math.isnan(slope(tokens, excess))
