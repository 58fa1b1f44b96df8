"""Each loss has its naive formula's value and gradient without ever allocating N x C elements.

pytest tests/test_losses.py
"""

import contextlib
import itertools
import math
import re

import numpy as np
import pytest
import scipy.optimize
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from squentropy import losses
from squentropy.base.errors import SquentropyError
from squentropy.lm import terms
from squentropy.losses import LOSSES, inverse_link, own_link


def squares(f, y, true_weight=1.0, target=1.0):
    """sum_j w_j (target * onehot_j - f_j)^2 with w_j = `true_weight` for the true class, else 1."""
    onehot = F.one_hot(y, f.shape[1]).to(f.dtype)
    return ((target * onehot - f).square() * (1 + (true_weight - 1) * onehot)).sum(-1)


def nll(f, y):
    return -f.log_softmax(-1).gather(-1, y[:, None])[:, 0]


def share(q, y):
    """-log of the true class's share of q, (N, C)."""
    return -(q / q.sum(-1, keepdim=True)).gather(-1, y[:, None])[:, 0].log()


# The definitions of the losses from whole logits, one value per position.
FORMULAS = {
    "cross_entropy": nll,
    "mse": lambda f, y: squares(f, y) / f.shape[1],
    "mse_weighted": lambda f, y: squares(f, y, 100.0) / f.shape[1],
    "mse_weighted(15)": lambda f, y: squares(f, y, 15.0) / f.shape[1],
    "squentropy": lambda f, y: nll(f, y) + squares(f, y, 0.0) / (f.shape[1] - 1),
    "squentropy(0.1)": lambda f, y: nll(f, y) + 0.1 * squares(f, y, 0.0) / (f.shape[1] - 1),
    "squentropy_weighted": lambda f, y: nll(f, y) + squares(f, y, 65.0) / f.shape[1],
    "squentropy_weighted(2.65)": lambda f, y: nll(f, y) + squares(f, y, 2.65) / f.shape[1],
    "z_loss": lambda f, y: nll(f, y) + 1e-4 * f.logsumexp(-1).square(),
    "z_loss(0.01)": lambda f, y: nll(f, y) + 0.01 * f.logsumexp(-1).square(),
    "brier": lambda f, y: squares(f.softmax(-1), y),
    "spherical": lambda f, y: share(f.square() + 0.1, y),
    "spherical(0.5)": lambda f, y: share(f.square() + 0.5, y),
    "taylor": lambda f, y: share(1 + f + f.square() / 2, y),
}
WITHOUT_SOFTMAX = (
    "mse",
    "mse_weighted",
    "mse_weighted(15)",
    "spherical",
    "spherical(0.5)",
    "taylor",
)

every_loss = pytest.mark.parametrize("name", dict.fromkeys([*LOSSES, *FORMULAS]))


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
    """The loss and its gradients times -3, so that the incoming gradient is not 1."""
    value = loss(hidden, weight, targets)
    return value, *torch.autograd.grad(-3 * value, (hidden, weight))


def assert_equals_formula(name, hidden, weight, targets, tolerance):
    """Compare with the formula in float64; the error is relative to the largest element."""
    naive = formula(name)
    exact = [t.detach().double().requires_grad_() for t in (hidden, weight)]
    expected = value_and_gradients(lambda h, w, y: naive(h @ w.T, y).mean(), *exact, targets)
    found = value_and_gradients(LOSSES[name], hidden, weight, targets)
    for ours, theirs, like in zip(found, expected, (None, hidden, weight)):
        assert like is None or ours.dtype == like.dtype
        error = (ours.double() - theirs).abs().max() / theirs.abs().max()
        assert error <= tolerance


@every_loss
@pytest.mark.parametrize("chunk", [1, 3, 10**9])  # one position, several with a remainder, all
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_a_loss_equals_its_formula_whatever_the_chunk(name, chunk, dtype, tolerance, monkeypatch):
    monkeypatch.setattr(terms, "ROWS", chunk)
    assert_equals_formula(name, *problem(17, 6, 13, dtype), tolerance)


@every_loss
@settings(max_examples=25, deadline=None, derandomize=True)
@given(n=st.integers(1, 9), d=st.integers(1, 7), c=st.integers(2, 11), seed=st.integers(0, 99))
def test_a_loss_equals_its_formula_whatever_the_shape(name, n, d, c, seed):
    assert_equals_formula(name, *problem(n, d, c, seed=seed), 1e-9)


@every_loss
def test_a_loss_is_right_in_bfloat16_to_its_precision(name):
    assert_equals_formula(name, *problem(64, 32, 50, torch.bfloat16), 2e-2)


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
    terms.mean(hidden, weight, targets, term)
    terms.mean(hidden.detach(), weight, targets, term)
    with context():
        terms.mean(hidden, weight, targets, term)
    terms.mean(hidden.detach(), weight.detach(), targets, term)
    assert asked == [True, True, False, False]


@every_loss
def test_logits_far_out_give_a_finite_loss(name):
    hidden, weight, targets = problem(5, 3, 7, torch.float32)
    found = value_and_gradients(LOSSES[name], hidden * 1e4, weight, targets)
    assert all(t.isfinite().all() for t in found)


class Largest(TorchDispatchMode):
    """Records the size of the largest tensor that any operator returns, in elements."""

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
    monkeypatch.setattr(terms, "ROWS", 5)
    with Largest() as largest:
        value_and_gradients(LOSSES[name], *problem(n, d, c))
    chunk = 0 if name in WITHOUT_SOFTMAX else 5 * c
    assert largest.elements <= max(n * d, c * d, chunk) < n * c


FUSED = ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)]


@pytest.mark.parametrize("backend", FUSED)
@pytest.mark.parametrize("name", ["squentropy", "z_loss", "brier"])
def test_fused_chunks_are_the_same_loss(name, backend, monkeypatch):
    monkeypatch.setattr(terms, "_backend", None)
    terms._fused.cache_clear()
    monkeypatch.setattr(terms, "ROWS", 7)
    terms.fuse_chunks(backend)
    assert_equals_formula(name, *problem(17, 6, 13, torch.float32), 1e-5)
    assert terms._fused.cache_info().currsize > 0


@pytest.mark.parametrize("backend", [None, "aot_eager"])
@pytest.mark.parametrize("name", ["squentropy", "squentropy_weighted", "z_loss", "brier"])
def test_columns_that_a_gpu_adds_to_the_logits_are_no_classes(name, backend, monkeypatch):
    monkeypatch.setattr(terms, "_backend", backend)
    monkeypatch.setattr(terms, "_chunk_shape", lambda *given: (7, given[2] + 3))
    assert_equals_formula(name, *problem(17, 6, 13, torch.float32), 1e-5)


def test_a_gpu_holds_as_many_logits_whatever_the_number_of_classes():
    for classes, size in itertools.product((257, 2048, 50257), (2, 4)):
        positions = 1 << 30
        rows, columns = terms._chunk_shape("cuda", positions, classes, size)
        assert columns % terms.GPU_MULTIPLE == 0 <= columns - classes < terms.GPU_MULTIPLE
        assert terms.GPU_BYTES / 4 < size * rows * columns <= terms.GPU_BYTES
        assert terms._chunk_shape("cpu", positions, classes, size) == (terms.ROWS, classes)


@pytest.mark.parametrize("positions", [1, 4096, 65536, 112 * 1024, 12 * 1024 + 1])
def test_a_gpus_chunks_are_equal_unless_that_takes_more_than_twice_as_many(positions):
    rows, columns = terms._chunk_shape("cuda", positions, 50257, 2)
    assert 2 * rows * columns <= terms.GPU_BYTES
    fewest = math.ceil(positions * 2 * columns / terms.GPU_BYTES)
    if positions % rows:
        assert all(positions % n for n in range(fewest + 1, 2 * fewest))
    else:
        assert positions // rows <= 2 * fewest + 1


LOGITLESS = ["mse", "squentropy", "spherical", "taylor"]


@pytest.mark.parametrize("name", LOGITLESS)
def test_a_loss_leaves_torchs_precision_alone_where_nothing_is_autocast_on_a_gpu(name, monkeypatch):
    """Reading it fails in programs that set it by `torch.backends.fp32_precision`."""
    monkeypatch.setattr(torch, "get_float32_matmul_precision", None)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", None)
    assert_equals_formula(name, *problem(17, 6, 13, torch.float32), 1e-5)


@pytest.mark.parametrize("newer", [False, True])
def test_products_autocast_on_a_gpu_are_tf32_and_the_precision_is_restored(newer, monkeypatch):
    """A program that has set the precision by torch's newer interface keeps it."""
    said = []

    def get() -> str:
        if newer:
            raise RuntimeError("mix of the legacy and new APIs")
        return "highest"

    monkeypatch.setattr(torch, "get_float32_matmul_precision", get)
    monkeypatch.setattr(torch, "set_float32_matmul_precision", said.append)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: device == "cuda")
    monkeypatch.setattr(torch, "autocast", lambda device, enabled: contextlib.nullcontext())
    with terms._float32_products("cuda"):
        said.append("inside")
    assert said == (["inside"] if newer else ["high", "inside", "highest"])
    said.clear()
    with pytest.raises(KeyError), terms._float32_products("cuda"):
        raise KeyError
    assert said == ([] if newer else ["high", "highest"])


@pytest.mark.parametrize("name", [*LOGITLESS, "cross_entropy", "brier"])
def test_a_loss_compiles_as_a_whole(name):
    hidden, weight, targets = problem(17, 6, 13, torch.float32)
    whole = torch.compile(LOSSES[name], backend="aot_eager", fullgraph=True)
    found, expected = (loss(hidden, weight, targets) for loss in (whole, LOSSES[name]))
    torch.testing.assert_close(found, expected)


def frequencies(classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Targets of one context, and their exact distribution."""
    counts = torch.arange(1, classes + 1) ** 2
    targets = torch.repeat_interleave(torch.arange(classes), counts)
    return targets, counts.double() / counts.sum()


def gradient_at(name: str, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Gradient of the loss with respect to the logits of a single context with all targets."""
    weight = logits.double()[:, None].requires_grad_()
    hidden = torch.ones(len(targets), 1, dtype=torch.float64)
    return torch.autograd.grad(LOSSES[name](hidden, weight, targets), weight)[0]


@pytest.mark.parametrize(("name", "scale"), [("squentropy", 1.0), ("squentropy(0.1)", 0.1)])
def test_the_gradient_of_squentropy_vanishes_at_its_improper_optimum(name, scale):
    """p_j - pi_j + 2 f_j (1 - pi_j) / (C - 1) = 0, which is not where p = pi."""
    targets, true = frequencies(12)
    pi = true.numpy()

    def equation(f: np.ndarray) -> np.ndarray:
        p = np.exp(f - f.max())
        return p / p.sum() - pi + scale * 2 * f * (1 - pi) / (len(f) - 1)

    optimum = torch.from_numpy(scipy.optimize.root(equation, np.log(pi), tol=1e-14).x)
    assert gradient_at(name, optimum, targets).abs().max() < 1e-12
    assert gradient_at("cross_entropy", optimum, targets).abs().max() > 1e-3
    assert gradient_at(name, true.log(), targets).abs().max() > 1e-3


@pytest.mark.parametrize("name", ["cross_entropy", "brier"])
def test_a_proper_loss_is_at_rest_at_the_true_distribution(name):
    targets, true = frequencies(12)
    assert gradient_at(name, true.log(), targets).abs().max() < 1e-12


# --- probabilities from outputs -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "k"), [("mse", 1.0), ("mse_weighted", 100.0), ("mse_weighted(15)", 15.0)]
)
def test_the_inverse_link_recovers_the_true_distribution_from_the_minimiser(name, k):
    targets, true = frequencies(12)
    minimiser = k * true / (k * true + 1 - true)
    assert gradient_at(name, minimiser, targets).abs().max() < 1e-12
    found = own_link(name, 1e-9)(minimiser[None])[0]
    torch.testing.assert_close(found, true, rtol=1e-9, atol=0)


@pytest.mark.parametrize("name", ["spherical", "spherical(0.5)", "taylor"])
def test_a_proper_loss_without_softmax_is_at_rest_where_its_link_gives_the_truth(name):
    targets, true = frequencies(12)
    shares = true / true.min() * 2  # taylor needs q_j >= 1/2, spherical q_j >= epsilon
    outputs = {
        "spherical": (shares - 0.1).sqrt(),
        "spherical(0.5)": -(shares - 0.5).sqrt(),
        "taylor": (2 * shares - 1).sqrt() - 1,
    }[name]
    torch.testing.assert_close(own_link(name, 1e-6)(outputs[None])[0], true, rtol=1e-9, atol=0)
    assert gradient_at(name, outputs, targets).abs().max() < 1e-12
    assert gradient_at(name, outputs + 0.1, targets).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["spherical", "spherical(0.5)", "taylor"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_these_losses_are_minus_the_log_of_what_their_links_give(name, dtype):
    hidden, weight, targets = problem(40, 8, 30, dtype)
    p = own_link(name, 1e-6)((hidden @ weight.T).detach())
    expected = -p.gather(-1, targets[:, None]).log().mean()
    torch.testing.assert_close(LOSSES[name](hidden, weight, targets).detach(), expected)


@pytest.mark.parametrize("name", [name for name in LOSSES if "mse" not in name and name != "brier"])
def test_equal_outputs_cost_log_c(name):
    """So each log loss of an untrained model starts near it, except for what two of them add."""
    hidden, weight, targets = torch.zeros(9, 4), torch.randn(50, 4), torch.randint(50, (9,))
    square = {"squentropy_weighted": 65 / 50, "z_loss": 1e-4 * math.log(50) ** 2}.get(name, 0.0)
    value = LOSSES[name](hidden, weight, targets).item()
    assert value == pytest.approx(math.log(50) + square, rel=1e-6)


def test_the_spherical_loss_knows_no_sign_and_no_scale_beside_epsilons():
    hidden, weight, targets = problem(17, 6, 13)
    loss = LOSSES["spherical(0.04)"](hidden, weight, targets)
    torch.testing.assert_close(LOSSES["spherical(0.04)"](-hidden, weight, targets), loss)
    torch.testing.assert_close(LOSSES["spherical(0.01)"](hidden / 2, weight, targets), loss)


def test_shares_that_are_lost_in_rounding_stay_positive():
    """If all outputs are nearly zero, h^T (W^T W) h can round to a negative number."""
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(40, 1, generator=draw) @ torch.randn(1, 8, generator=draw)
    hidden = torch.randn(200, 8, generator=draw) * 1e3
    hidden -= (hidden @ weight[0] / weight[0].square().sum()).unsqueeze(-1) * weight[0]
    targets = torch.randint(40, (200,), generator=draw)
    for name in ("spherical(0.000001)", "taylor"):
        found = value_and_gradients(
            LOSSES[name], hidden.requires_grad_(), weight.requires_grad_(), targets
        )
        assert all(t.isfinite().all() for t in found)


def test_shares_that_could_be_nought_are_refused():
    hidden, weight, targets = problem(5, 3, 7)
    with pytest.raises(SquentropyError, match="begin at 0; they have to be above 0"):
        LOSSES["spherical(0)"](hidden, weight, targets)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    logits=st.lists(st.floats(-1e9, 1e9, width=32), min_size=2, max_size=9),
    k=st.sampled_from([1.0, 100.0]),
    floor=st.sampled_from([1e-4, 1e-6, 1e-8]),
)
def test_the_inverse_link_of_any_logits_is_a_distribution_above_its_floor(logits, k, floor):
    p = inverse_link(torch.tensor([logits], dtype=torch.float32), floor, k)[0]
    assert math.isclose(p.sum(), 1, rel_tol=1e-5)
    assert p.min() >= floor / len(logits) * 0.99


@settings(max_examples=50, deadline=None, derandomize=True)
@given(outputs=st.lists(st.floats(-1e9, 1e9, width=32), min_size=2, max_size=9))
@pytest.mark.parametrize("name", ["spherical", "taylor"])
def test_the_other_links_of_any_outputs_are_distributions_without_a_zero(name, outputs):
    p = own_link(name, 1e-6)(torch.tensor([outputs], dtype=torch.float32))[0]
    assert math.isclose(p.sum(), 1, rel_tol=1e-5)
    assert p.min() > 0


@pytest.mark.parametrize("name", ["mse", "mse_weighted", "spherical", "taylor"])
def test_outputs_that_are_no_numbers_give_no_probabilities(name):
    """Otherwise a run with NaN weights would look fine."""
    assert own_link(name, 1e-6)(torch.tensor([[0.1, torch.nan, 2.0]])).isnan().all()


def test_a_floor_moves_what_lies_below_it():
    outputs = torch.tensor([[0.9, -0.5, 1e-7]])
    low, high = own_link("mse", 1e-8)(outputs)[0], own_link("mse", 1e-2)(outputs)[0]
    assert low[2] / low[1] == pytest.approx(10, rel=1e-4)
    assert high[1] == high[2] == pytest.approx(0.01 / 0.92, rel=1e-4)


def test_losses_of_logits_have_no_link_of_their_own():
    linked = {name for name in LOSSES if own_link(name, 1e-6)}
    assert linked == {"mse", "mse_weighted", "spherical", "taylor"}


# --- names with arguments -----------------------------------------------------------------------


def test_a_name_may_have_arguments_in_any_spelling_and_the_default_may_be_left_out():
    hidden, weight, targets = problem(5, 3, 7)

    def value(name):
        return LOSSES[name](hidden, weight, targets).item()

    assert value("squentropy(0.1)") == value("squentropy( 0.10 )") == value("squentropy(1e-1)")
    assert value("squentropy(1)") == value("squentropy()") == value("squentropy")
    half = value("cross_entropy") / 2 + value("squentropy") / 2
    assert value("squentropy(0.5)") == pytest.approx(half)
    assert "squentropy(0.1)" not in list(LOSSES)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("squentropy(a)", "'a' is not a finite number; write it as squentropy(0.1)"),
        ("squentropy(nan)", "'nan' is not a finite number"),
        ("squentropy(1e999)", "'1e999' is not a finite number"),
        ("squentropy(1_0)", "'1_0' is not a finite number"),
        ("squentropy(0x1)", "'0x1' is not a finite number"),
        ("squentropy(0.1,)", "'' is not a finite number"),
        ("squentropy(1, 2)", "2 arguments do not fit; write numbers as in squentropy(scale)"),
        ("mse(1)", "takes no argument; write mse"),
        ("squentropy(0.1", "is not a valid loss name"),
        ("squentropy(0.1)x", "is not a valid loss name"),
        ("squentrpy(0.1)", "no such loss; did you mean 'squentropy'?"),
        ("squentropy-0.1", "no such loss; did you mean 'squentropy'?"),
    ],
)
def test_a_name_that_is_wrong_says_how_to_write_it(name, said):
    for read in (LOSSES.__getitem__, lambda name: own_link(name, 1e-6)):
        with pytest.raises(ValueError, match=re.escape(said)):
            read(name)


def test_a_users_function_is_a_loss_with_arguments_and_a_link_of_its_own(monkeypatch):
    monkeypatch.setattr(losses, "LOSSES", losses._Losses(LOSSES))
    monkeypatch.setattr(losses, "_LINKS", dict(losses._LINKS))

    @losses.loss
    def mine(hidden, weight, targets, power, factor=2.0):
        return factor * (hidden @ weight.T).abs().pow(power).mean()

    @losses.loss(label="Yours", link=lambda outputs, floor, times: outputs * times + floor)
    def yours(hidden, weight, targets, times=3.0):
        return (hidden @ weight.T).mean() * times

    hidden, weight, targets = problem(5, 3, 7)
    expected = 2 * (hidden @ weight.T).square().mean()
    torch.testing.assert_close(losses.LOSSES["mine(2)"](hidden, weight, targets), expected)
    torch.testing.assert_close(losses.LOSSES["mine(2, 6)"](hidden, weight, targets), 3 * expected)
    with pytest.raises(ValueError, match=r"0 arguments do not fit; write .* mine\(power, factor\)"):
        losses.LOSSES["mine()"]
    assert own_link("mine(2)", 0.5) is None
    assert own_link("yours(4)", 0.5)(torch.ones(1)).item() == 4.5
