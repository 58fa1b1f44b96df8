"""Readings, Brier scores, calibration and temperatures equal independent libraries and formulas.

pytest tests/evaluation/test_calibration.py
"""

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import brier_score_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from squentropy.evaluation.calibration import (
    calibration,
    calibration_error,
    measure,
    measure_split,
    per_million,
    profile,
    readings,
)
from squentropy.lm import scoring
from squentropy.lm.model import GPT
from squentropy.lm.scoring import TEMPERATURES, fit_on, fit_temperature, score_split
from squentropy.losses import own_link
from squentropy.tokens.token_files import Split

END, BLOCK, CLASSES = 49, 8, 50


def drawn(classes: int, scale: float, n: int = 600) -> tuple[torch.Tensor, torch.Tensor]:
    """Random logits (n, C), float64, of standard deviation `scale`, and correlated targets."""
    draw = torch.Generator().manual_seed(classes)
    logits = torch.randn(n, classes, generator=draw, dtype=torch.float64)
    targets = torch.multinomial((1.3 * logits).softmax(-1), 1, generator=draw)[:, 0]
    return scale * logits, targets


def measured(logits: torch.Tensor, targets: torch.Tensor, **ways) -> dict[str, np.ndarray]:
    ways = ways or readings(1.0, {})
    columns = measure(logits, torch.eye(logits.shape[1]).to(logits.dtype), targets, ways)
    return {name: values.numpy() for name, values in columns.items()}


# --- against independent libraries, to 1e-6 -------------------------------------------------------

RANDOM = list(itertools.product([3, 50], [0.01, 1.0, 20.0]))  # classes, scale of the logits


@pytest.mark.parametrize(("classes", "scale"), RANDOM)
def test_the_brier_score_is_scikit_learns(classes, scale):
    logits, targets = drawn(classes, scale)
    expected = brier_score_loss(
        targets, logits.softmax(-1), labels=list(range(classes)), scale_by_half=False
    )
    assert measured(logits, targets)["softmax/brier"].mean() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("classes", "scale"), RANDOM)
def test_the_calibration_error_is_torchmetrics(classes, scale):
    logits, targets = drawn(classes, scale)
    columns = measured(logits, targets)
    ours = calibration_error(calibration(columns["softmax/confidence"], columns["correct"], 15))
    theirs = multiclass_calibration_error(logits.softmax(-1), targets, classes, n_bins=15)
    assert ours == pytest.approx(theirs.item(), abs=1e-6)


class Given(ClassifierMixin, BaseEstimator):
    """A classifier of scikit-learn whose logits are its input."""

    def fit(self, logits, targets):
        self.classes_ = np.arange(logits.shape[1])
        return self

    def decision_function(self, logits):
        return logits

    def predict(self, logits):
        return logits.argmax(1)


@pytest.mark.parametrize(("classes", "scale"), RANDOM)
def test_the_temperature_is_scikit_learns(classes, scale):
    logits, targets = drawn(classes, scale)
    given = FrozenEstimator(Given().fit(logits.numpy(), targets))
    fitted = CalibratedClassifierCV(given, method="temperature").fit(logits.numpy(), targets)
    beta = fitted.calibrated_classifiers_[0].calibrators[0].beta_
    ours = fit_temperature(logits, torch.eye(classes, dtype=torch.float64), targets)
    assert 1 / ours == pytest.approx(beta, rel=1e-6)
    assert ours == pytest.approx(scale / 1.3, rel=0.3)


# --- against naive formulas -----------------------------------------------------------------------


@pytest.mark.parametrize("reading", ["softmax", "tempered", "own"])
def test_every_reading_is_what_its_formula_says(reading, monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK_ELEMENTS", 40)
    draw = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(17, 6, generator=draw), torch.randn(13, 6, generator=draw)
    targets = torch.randint(13, (17,), generator=draw)
    link = own_link("mse_weighted", 1e-6)
    columns = measure(hidden, weight, targets, readings(0.7, {"own": link}))
    logits = hidden.double() @ weight.double().T
    p = {
        "softmax": logits.softmax(-1),
        "tempered": (logits / 0.7).softmax(-1),
        "own": link(logits),
    }[reading]
    true = p[torch.arange(17), targets]
    onehot = torch.eye(13, dtype=torch.float64)[targets]
    near = {"rtol": 1e-4, "atol": 1e-5, "check_dtype": False}
    torch.testing.assert_close(columns[f"{reading}/nll"], -true.log(), **near)
    brier = (p - onehot).square().sum(-1)
    torch.testing.assert_close(columns[f"{reading}/brier"], brier, **near)
    torch.testing.assert_close(columns[f"{reading}/confidence"], p.amax(-1), **near)
    assert columns["correct"].tolist() == (logits.argmax(-1) == targets).tolist()
    assert columns["top5"].tolist() == [
        y in row.topk(5).indices for row, y in zip(logits, targets.tolist())
    ]


def test_only_losses_with_a_link_are_read_by_it():
    assert list(readings(1.0, {})) == ["softmax", "tempered"]
    assert list(readings(1.0, {"own": own_link("mse", 1e-6)})) == ["softmax", "tempered", "own"]


def test_calibration_counts_every_token_in_the_bin_of_its_confidence():
    rng = np.random.default_rng(0)
    confidence = np.concatenate([rng.random(1000), [0.0, 1.0]]).astype(np.float32)
    correct = rng.random(1002) < confidence**2
    counted = calibration(confidence, correct, 15)
    edges = np.linspace(0, 1, 16)
    for i, (low, high) in enumerate(itertools.pairwise(edges)):
        inside = (confidence >= low) & ((confidence < high) | (i == 14))
        assert counted["tokens"][i] == inside.sum()
        assert counted["correct"][i] == correct[inside].sum()
        assert counted["confidence"][i] == pytest.approx(confidence[inside].sum(), rel=1e-5)
    assert sum(counted["tokens"]) == 1002


def test_all_tokens_in_one_bin_leave_the_distance_of_the_means():
    counted = calibration(np.full(8, 0.25), np.arange(8) < 6, 15)
    assert calibration_error(counted) == pytest.approx(0.5)


def test_a_profiles_bins_double():
    values = np.array([0, 0.4, 1, 2, 3, 3, 4, 7, 8, 100])
    counted = profile(values, {"nll": np.arange(10.0)})
    assert counted["low"] == [0, 1, 2, 4, 8, 64]
    assert counted["high"] == [1, 2, 4, 8, 16, 128]
    assert counted["tokens"] == [2, 1, 3, 2, 1, 1]
    assert counted["nll"] == [1, 2, 12, 13, 8, 9]


def test_frequencies_are_counts_in_a_million():
    split = Split(np.array([1, 1, 3], dtype=np.uint16), np.array([0, 3]))
    assert per_million(split, 5).tolist() == [0, 666_666, 0, 333_333, 0]


# --- the temperature ------------------------------------------------------------------------------


def tempered_nll(logits, targets, temperature: float) -> float:
    return torch.nn.functional.cross_entropy(logits.double() / temperature, targets).item()


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("n", [1, 2, 300])
def test_tempered_is_never_above_softmax_on_what_it_was_fitted_to(seed, n):
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(n, 20, generator=draw) * 10.0 ** (seed % 5 - 3)
    targets = torch.randint(20, (n,), generator=draw)
    fitted = fit_temperature(logits, torch.eye(20), targets)
    assert TEMPERATURES[0] <= fitted <= TEMPERATURES[1]
    least = tempered_nll(logits, targets, fitted)
    for other in (1.0, 0.99 * fitted, 1.01 * fitted):
        if TEMPERATURES[0] <= other <= TEMPERATURES[1]:
            assert least <= tempered_nll(logits, targets, other) + 1e-6


def test_outputs_as_flat_as_those_of_squared_losses_get_a_temperature_far_below_one():
    logits, targets = drawn(50, 1.0, n=4000)
    flat = (0.001 * logits).float()
    fitted = fit_temperature(flat, torch.eye(50), targets)
    assert fitted == pytest.approx(0.001 / 1.3, rel=0.05)


def test_a_fit_ends_at_its_bound_where_the_nll_falls_beyond_it():
    logits = torch.eye(4)
    assert fit_temperature(logits, torch.eye(4), torch.arange(4)) == TEMPERATURES[0]
    assert fit_temperature(logits, torch.eye(4), torch.tensor([1, 2, 3, 0])) == TEMPERATURES[1]
    assert fit_temperature(0 * logits, torch.eye(4), torch.arange(4)) == TEMPERATURES[1]


# --- a model and a split --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(sharp_model) -> GPT:
    return sharp_model(CLASSES, BLOCK)


def stories(*lengths: int) -> Split:
    draw = np.random.default_rng(0)
    ids = np.concatenate([[*draw.integers(0, END, n - 1), END] for n in lengths])
    return Split(ids.astype(np.uint16), np.concatenate([[0], np.cumsum(lengths)]))


def measure_it(model: GPT, split: Split, **how) -> dict:
    links = {"own": own_link("mse", 1e-6)}
    how = {"temperature": 2.0, "links": links, "batch_tokens": 64, "bins": 15} | how
    return measure_split(model, split, END, per_million(split, CLASSES), **how)


@pytest.mark.parametrize("lengths", [(5, 2, 40, 8, 9, 17, 2), (1,), (30,), (1, 1)])
def test_a_splits_sums_add_up_however_odd_it_is(model, lengths):
    split = stories(*lengths)
    whole = measure_it(model, split)
    scores = score_split(model, split, END, batch_tokens=64)
    linked = score_split(model, split, END, batch_tokens=64, link=own_link("mse", 1e-6))
    assert whole["stories"]["tokens"] == list(lengths)
    assert sum(whole["stories"]["correct"]) == scores.correct.sum()
    assert all(
        0 <= first <= five <= n for n, first, five in zip(*(whole["stories"].values()), strict=True)
    )
    expected = {"softmax": scores.nll, "own": linked.nll}
    for name, measured in whole["readings"].items():
        if name in expected:
            by_story = np.add.reduceat(expected[name].astype(float), split.offsets[:-1])
            np.testing.assert_allclose(measured["nll"], by_story, rtol=1e-5)
        assert sum(measured["calibration"]["tokens"]) == sum(lengths)
        assert sum(measured["calibration"]["correct"]) == sum(whole["stories"]["correct"])
        assert 0 <= measured["brier"] <= 2
        assert 0 <= measured["ece"] <= 1
        for counted in whole["profile"].values():
            assert sum(counted["tokens"]) == sum(lengths)
            assert sum(counted[name]) == pytest.approx(sum(measured["nll"]), abs=1e-4)


def test_a_profile_by_position_begins_with_each_storys_first_token(model):
    split = stories(5, 2, 40, 1)
    by_position = measure_it(model, split)["profile"]["position"]
    nll = score_split(model, split, END, batch_tokens=64).nll
    assert by_position["tokens"][:3] == [4, 3, 4]
    assert by_position["softmax"][0] == pytest.approx(nll[split.offsets[:-1]].sum(), rel=1e-5)


def test_a_tokens_frequency_is_that_of_the_split_given(model):
    split = stories(12)
    by_frequency = measure_split(
        model,
        split,
        END,
        np.full(CLASSES, 5),
        temperature=1.0,
        links={},
        batch_tokens=64,
        bins=15,
    )["profile"]["frequency"]
    assert (by_frequency["low"], by_frequency["high"]) == ([4], [8])
    assert list(by_frequency) == ["low", "high", "tokens", "softmax", "tempered"]


def test_a_models_temperature_is_that_of_its_hidden_states(model):
    split = stories(5, 2, 40, 8, 9)
    fitted = fit_on(model, split, END, batch_tokens=16)
    plain, tempered = (
        sum(measure_it(model, split, temperature=t)["readings"]["tempered"]["nll"])
        for t in (1.0, fitted)
    )
    assert tempered < plain
    near = [
        sum(measure_it(model, split, temperature=t)["readings"]["tempered"]["nll"])
        for t in (fitted / 1.5, fitted * 1.5)  # any closer, the nll differs only by rounding
    ]
    assert tempered < min(near)


def test_a_long_split_is_fitted_on_its_first_stories_alone(model, monkeypatch):
    split = stories(5, 2, 40, 8, 9)
    monkeypatch.setattr(scoring, "FIT_TOKENS", 47)
    expected = fit_on(model, split.head(3), END, batch_tokens=16)
    assert fit_on(model, split, END, batch_tokens=16) == expected
    monkeypatch.setattr(scoring, "FIT_TOKENS", 4)
    assert math.isfinite(fit_on(model, split, END, batch_tokens=16))
