"""Every loss equals its naive formula, in value and gradient, without ever holding N x C numbers.

pytest tests/test_losses.py
"""

import math

import numpy as np
import pytest
import scipy.optimize
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from squentropy import losses
from squentropy.losses import INVERSE_LINKS, LOSSES, inverse_link


def squares(f, y, true_weight=1.0, target=1.0):
    """sum_j (onehot_j - f_j)^2, the true class's times `true_weight`; `target` in place of 1."""
    onehot = F.one_hot(y, f.shape[1]).to(f.dtype)
    return ((target * onehot - f).square() * (1 + (true_weight - 1) * onehot)).sum(-1)


def nll(f, y):
    return -f.log_softmax(-1).gather(-1, y[:, None])[:, 0]


# The definitions of the losses, a value a position, from whole logits.
FORMULAS = {
    "cross_entropy": nll,
    "mse": lambda f, y: squares(f, y) / f.shape[1],
    "mse_weighted": lambda f, y: squares(f, y, 100.0) / f.shape[1],
    "squentropy": lambda f, y: nll(f, y) + squares(f, y, 0.0) / (f.shape[1] - 1),
    "squentropy_tenth": lambda f, y: nll(f, y) + 0.1 * squares(f, y, 0.0) / (f.shape[1] - 1),
    "squentropy_weighted": lambda f, y: nll(f, y) + squares(f, y, 65.0) / f.shape[1],
    "z_loss": lambda f, y: nll(f, y) + 1e-4 * f.logsumexp(-1).square(),
    "brier": lambda f, y: squares(f.softmax(-1), y),
}
WITHOUT_SOFTMAX = ("mse", "mse_weighted")

every_loss = pytest.mark.parametrize("name", LOSSES)


def formula(name: str):
    if name not in FORMULAS:
        pytest.skip(f"no formula of {name} stands in this file")
    return FORMULAS[name]


def problem(n, d, c, dtype=torch.float64, seed=0):
    draw = torch.Generator().manual_seed(seed)
    hidden = torch.randn(n, d, generator=draw, dtype=torch.float64)
    weight = torch.randn(c, d, generator=draw, dtype=torch.float64)
    targets = torch.randint(c, (n,), generator=draw)
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), targets


def value_and_gradients(loss, hidden, weight, targets):
    """With a factor of -3, so that the gradient from above is not 1."""
    value = loss(hidden, weight, targets)
    return value, *torch.autograd.grad(-3 * value, (hidden, weight))


def assert_equals_formula(name, hidden, weight, targets, tolerance):
    """Relative to the largest entry; the reference is in float64, from the same numbers."""
    naive = formula(name)
    exact = [t.detach().double().requires_grad_() for t in (hidden, weight)]
    expected = value_and_gradients(lambda h, w, y: naive(h @ w.T, y).mean(), *exact, targets)
    found = value_and_gradients(LOSSES[name], hidden, weight, targets)
    for ours, theirs, like in zip(found, expected, (None, hidden, weight)):
        assert like is None or ours.dtype == like.dtype
        error = (ours.double() - theirs).abs().max() / theirs.abs().max()
        assert error <= tolerance


@every_loss
@pytest.mark.parametrize("chunk", [1, 3, 10**9])  # one position, several and a ragged end, all
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_a_loss_equals_its_formula_whatever_the_chunk(name, chunk, dtype, tolerance, monkeypatch):
    monkeypatch.setattr(losses, "ROWS", chunk)
    assert_equals_formula(name, *problem(17, 6, 13, dtype), tolerance)


@every_loss
@settings(max_examples=25, deadline=None, derandomize=True)
@given(n=st.integers(1, 9), d=st.integers(1, 7), c=st.integers(2, 11), seed=st.integers(0, 99))
def test_a_loss_equals_its_formula_whatever_the_shape(name, n, d, c, seed):
    assert_equals_formula(name, *problem(n, d, c, seed=seed), 1e-9)


@every_loss
def test_a_loss_is_right_in_bfloat16_to_its_precision(name):
    assert_equals_formula(name, *problem(64, 32, 50, torch.bfloat16), 1e-2)


@every_loss
def test_a_loss_under_autocast_equals_its_formula_to_bfloat16(name):
    hidden, weight, targets = problem(64, 32, 50, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = value_and_gradients(LOSSES[name], hidden, weight, targets)
    expected = value_and_gradients(LOSSES[name], hidden, weight, targets)
    for ours, theirs in zip(found, expected):
        assert ours.dtype == theirs.dtype
        assert (ours - theirs).abs().max() <= 2e-2 * theirs.abs().max()


@every_loss
def test_the_gradient_is_that_of_the_value(name):
    hidden, weight, targets = problem(5, 3, 7)
    assert torch.autograd.gradcheck(lambda h, w: LOSSES[name](h, w, targets), (hidden, weight))


@every_loss
def test_a_loss_has_the_same_value_without_a_gradient_and_beside_one_only(name):
    hidden, weight, targets = problem(5, 3, 7)
    value, d_hidden, _ = value_and_gradients(LOSSES[name], hidden, weight, targets)
    fixed = weight.detach()
    with torch.no_grad():
        assert LOSSES[name](hidden, weight, targets) == value
    assert torch.autograd.grad(-3 * LOSSES[name](hidden, fixed, targets), hidden)[0].equal(d_hidden)


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_no_gradient_is_formed_where_none_is_asked_for(context, monkeypatch):
    asked = []

    def term(hidden, weight, targets, with_gradients):
        asked.append(with_gradients)
        return hidden.sum(), hidden * 0, weight.T * 0

    hidden, weight, targets = problem(5, 3, 7)
    losses.mean(hidden, weight, targets, term)
    losses.mean(hidden.detach(), weight, targets, term)
    with context():
        losses.mean(hidden, weight, targets, term)
    losses.mean(hidden.detach(), weight.detach(), targets, term)
    assert asked == [True, True, False, False]


@every_loss
def test_logits_far_out_give_a_finite_loss(name):
    hidden, weight, targets = problem(5, 3, 7, torch.float32)
    found = value_and_gradients(LOSSES[name], hidden * 1e4, weight, targets)
    assert all(t.isfinite().all() for t in found)


class Largest(TorchDispatchMode):
    """The most elements of any tensor that an operator made."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else (made,):
            if isinstance(tensor, torch.Tensor):
                held = tensor.untyped_storage().nbytes() // tensor.element_size()
                self.elements = max(self.elements, held)
        return made


@pytest.mark.parametrize("name", FORMULAS)
def test_no_tensor_grows_with_positions_times_classes(name, monkeypatch):
    n, d, c = 96, 4, 80
    monkeypatch.setattr(losses, "ROWS", 5)
    with Largest() as largest:
        value_and_gradients(LOSSES[name], *problem(n, d, c))
    chunk = 0 if name in WITHOUT_SOFTMAX else 5 * c
    assert largest.elements <= max(n * d, c * d, chunk) < n * c


FUSED = ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]


@pytest.mark.parametrize("backend", FUSED)
@pytest.mark.parametrize("name", ["squentropy", "z_loss", "brier"])
def test_fused_chunks_are_the_same_loss(name, backend, monkeypatch):
    monkeypatch.setattr(losses, "_backend", None)
    losses._fused.cache_clear()
    monkeypatch.setattr(losses, "ROWS", 7)
    losses.fuse_chunks(backend)
    assert_equals_formula(name, *problem(17, 6, 13, torch.float32), 1e-5)
    assert losses._fused.cache_info().currsize > 0


def frequencies(classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets of one context, and the distribution that they have exactly."""
    counts = torch.arange(1, classes + 1) ** 2
    targets = torch.repeat_interleave(torch.arange(classes), counts)
    return targets, counts.double() / counts.sum()


def gradient_at(name: str, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Of the loss by the logits, one context being seen with all targets."""
    weight = logits.double()[:, None].requires_grad_()
    hidden = torch.ones(len(targets), 1, dtype=torch.float64)
    return torch.autograd.grad(LOSSES[name](hidden, weight, targets), weight)[0]


@pytest.mark.parametrize(("name", "share"), [("squentropy", 1.0), ("squentropy_tenth", 0.1)])
def test_the_gradient_of_squentropy_vanishes_at_its_improper_optimum(name, share):
    """p_j - pi_j + 2 f_j (1 - pi_j) / (C - 1) = 0, which is not where p = pi."""
    targets, true = frequencies(12)
    pi = true.numpy()

    def equation(f: np.ndarray) -> np.ndarray:
        p = np.exp(f - f.max())
        return p / p.sum() - pi + share * 2 * f * (1 - pi) / (len(f) - 1)

    optimum = torch.from_numpy(scipy.optimize.root(equation, np.log(pi), tol=1e-14).x)
    assert gradient_at(name, optimum, targets).abs().max() < 1e-12
    assert gradient_at("cross_entropy", optimum, targets).abs().max() > 1e-3
    assert gradient_at(name, true.log(), targets).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["cross_entropy", "brier"])
def test_a_proper_loss_is_at_rest_at_the_true_distribution(name):
    targets, true = frequencies(12)
    assert gradient_at(name, true.log(), targets).abs().max() < 1e-12


@pytest.mark.parametrize(("name", "k"), [("mse", 1.0), ("mse_weighted", 100.0)])
def test_the_inverse_link_recovers_the_true_distribution_from_the_minimiser(name, k):
    targets, true = frequencies(12)
    minimiser = k * true / (k * true + 1 - true)
    assert gradient_at(name, minimiser, targets).abs().max() < 1e-12
    torch.testing.assert_close(INVERSE_LINKS[name](minimiser[None])[0], true, rtol=1e-9, atol=0)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    logits=st.lists(st.floats(-1e9, 1e9, width=32), min_size=2, max_size=9),
    k=st.sampled_from([1.0, 100.0]),
)
def test_the_inverse_link_of_any_logits_is_a_distribution_above_its_floor(logits, k):
    p = inverse_link(torch.tensor([logits], dtype=torch.float32), k)[0]
    assert math.isclose(p.sum(), 1, rel_tol=1e-5)
    assert p.min() >= 1e-6 / len(logits) * 0.99


def test_only_losses_have_an_inverse_link():
    assert set(INVERSE_LINKS) <= set(LOSSES)
