"""Fast dropout and attention on a CPU are what they stand in for.

pytest tests/test_cpu.py
"""

import pytest
import torch
import torch.nn.functional as F

from squentropy.cpu import Noise, causal_attention, dropped


@pytest.mark.parametrize("dropout", [0.1, 0.2, 0.5, 0.9])
def test_masks_keep_one_minus_dropout_to_five_standard_errors(dropout):
    n = 10**6
    share = Noise(0, 0).keep((n,), dropout).double().mean().item()
    error = (dropout * (1 - dropout) / n) ** 0.5
    assert abs(share - (1 - dropout)) < 5 * error + 2**-17


def test_masks_hold_ones_and_zeros_in_the_shape_asked_for():
    mask = Noise(0, 0).keep((3, 5, 7), 0.3)  # 105 draws: no multiple of the four to a word
    assert mask.shape == (3, 5, 7)
    assert set(mask.flatten().tolist()) == {0.0, 1.0}


def test_masks_are_a_function_of_seed_and_iteration():
    def keep(seed, iteration):
        return Noise(seed, iteration).keep((1000,), 0.5)

    assert keep(3, 4).equal(keep(3, 4))
    others = [keep(3, 5), keep(4, 4), keep(4, 3)]
    assert all((keep(3, 4) != other).float().mean() > 0.4 for other in others)


def test_successive_masks_of_one_noise_differ():
    noise = Noise(0, 0)
    assert (noise.keep((1000,), 0.5) != noise.keep((1000,), 0.5)).float().mean() > 0.4


def test_dropped_keeps_the_mean_and_zeroes_the_share():
    x = torch.ones(10**5)
    kept = dropped(x, Noise(0, 0), 0.2)
    assert kept.mean().item() == pytest.approx(1, abs=0.01)
    assert set(kept.tolist()) == {0.0, 1.25}
    assert dropped(x, Noise(0, 0), 0.0) is x


def qkv(dtype=torch.float64):
    """Batch 2, length 5, 3 heads of width 4."""
    draw = torch.Generator().manual_seed(0)
    made = torch.randn(2, 5, 3, 3, 4, generator=draw, dtype=torch.float64)
    return made.to(dtype).requires_grad_()


def with_gradient(function, x):
    value = function(x)
    (gradient,) = torch.autograd.grad((value * torch.linspace(-1, 1, 4).to(value)).sum(), x)
    return value, gradient


def naive(x, keep, dropout):
    """By the definition; keep (batch * heads, length, length)."""
    query, key, value = x.permute(2, 0, 3, 1, 4)
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    weights = scores.masked_fill(later, -torch.inf).softmax(-1)
    return (weights * keep.view_as(weights) / (1 - dropout) @ value).transpose(1, 2)


def test_attention_without_dropout_is_torchs_own():
    def torchs(x):
        query, key, value = x.permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2)

    ours = with_gradient(lambda x: causal_attention(x, Noise(0, 0), 0.0), qkv())
    torch.testing.assert_close(ours, with_gradient(torchs, qkv()), rtol=1e-12, atol=1e-12)


def test_attention_with_dropout_is_its_definition_under_the_same_mask():
    keep = Noise(1, 2).keep((2 * 3, 5, 5), 0.4).double()
    ours = with_gradient(lambda x: causal_attention(x, Noise(1, 2), 0.4), qkv())
    theirs = with_gradient(lambda x: naive(x, keep, 0.4), qkv())
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_the_gradient_of_attention_is_that_of_its_value(dropout):
    assert torch.autograd.gradcheck(lambda x: causal_attention(x, Noise(1, 2), dropout), qkv())


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_attention_under_autocast_is_that_of_float32_to_bfloat16(dropout):
    def attend(x):
        return causal_attention(x, Noise(1, 2), dropout)

    with torch.autocast("cpu", torch.bfloat16):
        found = with_gradient(attend, qkv(torch.bfloat16))
    expected = with_gradient(attend, qkv(torch.bfloat16).detach().float().requires_grad_())
    for ours, theirs in zip(found, expected):
        assert (ours.float() - theirs).abs().max() < 0.02 * theirs.abs().max()
