"""A training step of the CPU's blocks equals one of the model's layers, also with dropout.

pytest tests/lm/test_cpu_block.py
"""

import pytest
import torch
import torch.nn.functional as F

from squentropy.lm import cpu_block, matmul
from squentropy.lm.cpu_block import Noise, dropped
from squentropy.lm.matmul import times_transposed, transposed_times
from squentropy.lm.model import GPT, Config


def kept(noise: Noise, shape: tuple[int, ...], dropout: float) -> torch.Tensor:
    return noise.mask(shape, dropout) > 0


@pytest.mark.parametrize("dropout", [0.1, 0.2, 0.5, 0.9])
def test_masks_keep_one_minus_dropout_to_five_standard_errors(dropout):
    n = 10**6
    share = kept(Noise(0, 0), (n,), dropout).double().mean().item()
    error = (dropout * (1 - dropout) / n) ** 0.5
    assert abs(share - (1 - dropout)) < 5 * error + 2**-17


def test_masks_hold_zeros_and_the_inverse_of_what_is_kept_in_the_shape_asked_for():
    mask = Noise(0, 0).mask((3, 5, 7), 0.2)  # 105 draws, not a multiple of four per word
    assert mask.shape == (3, 5, 7)
    assert set(mask.flatten().tolist()) == {0.0, 1.25}


def test_masks_are_a_function_of_seed_and_iteration():
    def mask(seed, iteration):
        return kept(Noise(seed, iteration), (1000,), 0.5)

    assert mask(3, 4).equal(mask(3, 4))
    others = [mask(3, 5), mask(4, 4), mask(4, 3)]
    assert all((mask(3, 4) != other).float().mean() > 0.4 for other in others)


def test_successive_masks_of_one_noise_differ():
    noise = Noise(0, 0)
    assert (kept(noise, (1000,), 0.5) != kept(noise, (1000,), 0.5)).float().mean() > 0.4


def test_dropped_keeps_the_mean_and_zeroes_the_share():
    x = torch.ones(10**5)
    assert dropped(x, Noise(0, 0), 0.2).mean().item() == pytest.approx(1, abs=0.01)
    assert dropped(x, Noise(0, 0), 0.0) is x


WIDTH, LENGTH, HEADS, BATCH, LAYERS = 12, 5, 3, 2, 2


def model(dropout: float, bias=True, dtype=torch.float64, positions="learned") -> GPT:
    torch.manual_seed(0)
    made = GPT(Config(20, LENGTH, LAYERS, HEADS, WIDTH, dropout, bias, positions)).to(dtype)
    for parameter in made.parameters():  # biases and norms too, which start at 0 and 1
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return made.train()


def state_and_gradients(gpt: GPT, noise: Noise | None = None) -> list[torch.Tensor]:
    ids = torch.arange(BATCH * LENGTH).view(BATCH, LENGTH)
    state = gpt(ids, noise=noise)
    loss = (state * torch.linspace(-1, 1, WIDTH).to(state)).sum()
    return [state, *torch.autograd.grad(loss, list(gpt.parameters()))]


with_and_without_bias = pytest.mark.parametrize("bias", [True, False])
with_either_positions = pytest.mark.parametrize("positions", ["learned", "alibi"])


@with_and_without_bias
@with_either_positions
@pytest.mark.parametrize("span", [2, 64])  # the context in parts and at once
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_a_step_without_dropout_is_that_of_the_layers(
    bias, positions, span, dtype, tolerance, monkeypatch
):
    monkeypatch.setattr(cpu_block, "SPAN", span)
    gpt = model(0.0, bias, dtype, positions)
    ours, theirs = state_and_gradients(gpt, Noise(0, 0)), state_and_gradients(gpt)
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@with_and_without_bias
@with_either_positions
def test_a_step_with_dropout_is_that_of_the_layers_under_the_same_masks(
    bias, positions, monkeypatch
):
    """The reference is torch's functions with masks from the same noise, in the same order."""
    gpt, dropout = model(0.4, bias, positions=positions), 0.4
    noise = Noise(1, 2)

    def drop(x, p, training):
        assert (p, training) == (dropout, True)
        return x * noise.mask(x.shape, p)

    def attend(query, key, value, bias=None, *, dropout_p, is_causal=False):
        assert (dropout_p, is_causal) == (dropout, bias is None)
        scores = query @ key.mT / query.shape[-1] ** 0.5 + (0 if bias is None else bias)
        later = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
        weights = scores.masked_fill(later, -torch.inf).softmax(-1)
        mask = noise.mask((BATCH * HEADS, LENGTH, LENGTH), dropout_p)
        return (weights * mask.view_as(weights)) @ value

    ours = state_and_gradients(gpt, Noise(1, 2))
    with monkeypatch.context() as patch:
        patch.setattr(F, "dropout", drop)
        patch.setattr(F, "scaled_dot_product_attention", attend)
        theirs = state_and_gradients(gpt)
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)  # masks are float32
    assert not torch.allclose(ours[0], state_and_gradients(gpt, Noise(1, 3))[0])


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_the_gradient_of_a_block_is_that_of_its_value(dropout):
    layer = model(dropout).h[0]
    layer.requires_grad_(False)
    x = torch.randn(BATCH, LENGTH, WIDTH, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: layer(x, None, None, Noise(1, 2), 0), x)


@pytest.mark.parametrize("has_bfloat16", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("smallest", [0, 1 << 60])  # oneDNN whenever possible, and never
@pytest.mark.parametrize(("n", "k", "m"), [(7, 300, 50), (50, 300, 7), (1, 2, 3), (64, 64, 64)])
def test_products_are_products_in_at_least_float32(
    has_bfloat16, dtype, smallest, n, k, m, monkeypatch
):
    """bfloat16 products have its precision if the processor multiplies it, else float32's."""
    monkeypatch.setattr(matmul, "_SMALLEST", smallest)
    monkeypatch.setattr(matmul, "multiplies_bfloat16", lambda: has_bfloat16)
    tolerance = 2**-8 if has_bfloat16 and dtype == torch.bfloat16 else 1e-4
    draw = torch.Generator().manual_seed(0)
    a = torch.randn(n, k, generator=draw, dtype=torch.float64).to(dtype)
    b = torch.randn(m, k, generator=draw, dtype=torch.float64).to(dtype)
    expected = a.double() @ b.double().T
    for found in (times_transposed(a, b), transposed_times(a.T.contiguous(), b.T.contiguous())):
        assert found.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=1e-4)


@with_and_without_bias
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("span", [2, 64])
def test_a_step_in_bfloat16_is_that_in_float32_to_its_precision(dropout, bias, span, monkeypatch):
    monkeypatch.setattr(cpu_block, "SPAN", span)
    gpt = model(dropout, bias, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        ours = state_and_gradients(gpt, Noise(1, 2))
    theirs = state_and_gradients(gpt, Noise(1, 2))
    assert not ours[0].equal(theirs[0])
    for half, full in zip(ours, theirs, strict=True):
        assert half.dtype == torch.float32
        assert (half - full).norm() < 0.02 * full.norm()


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_attention_is_the_same_however_many_queries_are_taken_at_once(dropout, monkeypatch):
    found = []
    for span in (1, 2, LENGTH):
        monkeypatch.setattr(cpu_block, "SPAN", span)
        found.append(state_and_gradients(model(dropout), Noise(1, 2)))
    torch.testing.assert_close(found[0], found[1], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found[0], found[2], rtol=1e-10, atol=1e-10)


def test_keeping_freed_memory_leaves_numbers_as_they_are():
    before = state_and_gradients(model(0.4), Noise(0, 0))
    cpu_block.keep_freed_memory()
    assert all(map(torch.equal, before, state_and_gradients(model(0.4), Noise(0, 0))))
