"""A training step of a transformer block on a CPU, with explicit forward and backward passes.

Small models spend a third of each step in autograd's bookkeeping, copies and `bernoulli_`. Here a
block is a single autograd node and uses the matrix products of matmul.py. Dropout masks come from
numpy's SFC64 with 16 bits per element, ten times as fast as `bernoulli_`. Attention processes
`SPAN` queries at a time, with only the keys that they may see, in a quarter less time than torch's
fused kernel.

Under autocast, matrix products take and return bfloat16, and each weight is rounded once per
micro-batch. The residual stream, norms, softmax and weight gradients are float32. GELU is computed
in float32 and rounded, because only matrix products use its output.
"""

import ctypes
import functools
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from squentropy.lm.matmul import product, transposed_times

_gelu_backward = torch.ops.aten.gelu_backward.default
_layer_norm_backward = torch.ops.aten.native_layer_norm_backward.default
NORM_EPS = 1e-5
SPAN = 64
"""Queries per sequence whose scores are computed at once: the fewest that keep products fast."""


class Noise:
    """Dropout masks as a function of a seed and the number of the micro-batch in the run."""

    def __init__(self, seed: int, number: int):
        self.bits = np.random.SFC64([seed, number])

    def mask(self, shape: tuple[int, ...], dropout: float) -> Tensor:
        """float32: 0 with probability `dropout` (to within 2^-17), else 1 / (1 - dropout)."""
        size = math.prod(shape)
        draws = self.bits.random_raw((size + 3) // 4).view(np.uint16)[:size]
        kept = draws >= round(dropout * 2**16)
        scale = np.float32(1 / (1 - dropout))
        return torch.from_numpy(np.multiply(kept, scale, dtype=np.float32)).view(shape)


def dropped(x: Tensor, noise: Noise, dropout: float) -> Tensor:
    """`F.dropout` with a mask from `noise`."""
    return x * noise.mask(x.shape, dropout) if dropout else x


def keep_freed_memory() -> None:
    """Make glibc keep memory that a step frees, so the next one need not fault it in again.

    No effect with other C libraries.
    """
    trim_threshold, mmap_threshold = -1, -3
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(trim_threshold, 1 << 30)
    mallopt(mmap_threshold, 1 << 25)  # the maximum allowed


def block(
    x: Tensor, bias: Tensor | None, noise: Noise, heads: int, dropout: float,
    *parameters: Tensor | None,
) -> Tensor:  # fmt: skip
    """A pre-norm transformer block in training: (B, T, D) -> (B, T, D).

    bias         (heads, T, T), added to the attention scores, minus infinity if the key comes after
                 the query; None for a causal mask alone
    parameters   weight and bias of ln_1, c_attn, attn.c_proj, ln_2, c_fc, mlp.c_proj; biases may
                 be None
    """
    return _Block.apply(x, bias, noise, heads, dropout, *parameters)


class _Block(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, x: Tensor, bias: Tensor | None, noise: Noise, heads: int, dropout: float, *parameters
    ) -> Tensor:
        half = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else x.dtype
        with torch.autocast("cpu", enabled=False):
            w1, b1, _, b_qkv, _, b_mix, w2, b2, _, b_in, _, b_out = parameters
            w_qkv, w_mix, w_in, w_out = (parameters[i].to(half) for i in (2, 4, 8, 10))
            rows = x.reshape(-1, x.shape[-1])
            h1, mean1, rstd1 = torch.native_layer_norm(rows, w1.shape, w1, b1, NORM_EPS)
            h1 = h1.to(half)
            qkv = _linear(h1, w_qkv, b_qkv).view(*x.shape[:2], 3, heads, -1)
            mixed, attended = _attend(qkv, bias, noise, dropout)
            middle = _linear(mixed, w_mix, b_mix).to(x.dtype)
            mask1 = _drop_(middle, noise, dropout)
            middle.add_(rows)
            h2, mean2, rstd2 = torch.native_layer_norm(middle, w2.shape, w2, b2, NORM_EPS)
            h2 = h2.to(half)
            inner = _linear(h2, w_in, b_in)
            active = F.gelu(inner)
            out = _linear(active, w_out, b_out).to(x.dtype)
            mask2 = _drop_(out, noise, dropout)
            out.add_(middle)
        ctx.save_for_backward(
            w1, b1, w_qkv, b_qkv, w_mix, b_mix, w2, b2, w_in, b_in, w_out, b_out,
            rows, mean1, rstd1, h1, mixed, mask1, middle, mean2, rstd2, h2, inner, active, mask2,
            *attended,
        )  # fmt: skip
        ctx.heads = heads
        return out.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, d_out: Tensor):
        saved = ctx.saved_tensors
        w1, b1, w_qkv, b_qkv, w_mix, b_mix, w2, b2, w_in, b_in, w_out, b_out = saved[:12]
        rows, mean1, rstd1, h1, mixed, mask1, middle, mean2, rstd2 = saved[12:21]
        h2, inner, active, mask2, *attended = saved[21:]
        shape, d_out = d_out.shape, d_out.reshape_as(rows)

        d_active, *d_output = _linear_backward(_times(d_out, mask2), active, w_out, b_out)
        d_inner = _gelu_backward(d_active, inner)
        d_h2, *d_input = _linear_backward(d_inner, h2, w_in, b_in)
        d_middle, *d_norm2 = _norm_backward(d_h2, middle, mean2, rstd2, w2, b2)
        d_middle.add_(d_out)

        d_mixed, *d_mix = _linear_backward(_times(d_middle, mask1), mixed, w_mix, b_mix)
        d_mixed = d_mixed.view(*shape[:2], ctx.heads, -1)
        d_qkv = _attend_backward(d_mixed, attended)
        d_h1, *d_attn = _linear_backward(d_qkv, h1, w_qkv, b_qkv)
        d_rows, *d_norm1 = _norm_backward(d_h1, rows, mean1, rstd1, w1, b1)
        d_rows.add_(d_middle)
        return (
            d_rows.view(shape), None, None, None, None,
            *d_norm1, *d_attn, *d_mix, *d_norm2, *d_input, *d_output,
        )  # fmt: skip


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """In the dtype of x and the weight; the bias may have another."""
    y = product(x, weight.T)
    return y if bias is None else y.add_(bias)


def _linear_backward(d_y: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple:
    """d_x in the dtype of x and the weight; the gradients of weight and bias in float32."""
    d_bias = None if bias is None else d_y.sum(0, dtype=bias.dtype)
    d_y = d_y.to(x.dtype)
    return product(d_y, weight), transposed_times(d_y, x), d_bias


def _norm_backward(d_y: Tensor, x, mean, rstd, weight, bias) -> tuple:
    wanted = [True, True, bias is not None]
    d_y = d_y.to(x.dtype)
    return _layer_norm_backward(d_y, x, weight.shape, mean, rstd, weight, bias, wanted)


def _drop_(x: Tensor, noise: Noise, dropout: float) -> Tensor | None:
    """Apply dropout in place; returns the mask, or None if `dropout` is 0."""
    if not dropout:
        return None
    mask = noise.mask(x.shape, dropout).to(x.dtype)
    x.mul_(mask)
    return mask


def _times(x: Tensor, mask: Tensor | None) -> Tensor:
    return x if mask is None else x * mask


def _attend(
    qkv: Tensor, bias: Tensor | None, noise: Noise, dropout: float
) -> tuple[Tensor, list[Any]]:
    """Causal attention: qkv (B, T, 3, heads, width) -> (B T, heads width), and tensors to save."""
    batch, length, _, heads, width = qkv.shape
    query, key, value = qkv.permute(2, 0, 3, 1, 4).reshape(3, batch * heads, length, width)
    query.mul_(width**-0.5)
    full = torch.promote_types(qkv.dtype, torch.float32)
    mask = noise.mask((batch * heads, length, length), dropout).to(full) if dropout else None
    mixed, kept = torch.empty_like(value), []
    for rows, seen in _spans(length):
        weights = torch.bmm(query[:, rows], key[:, seen].mT).to(full)
        if bias is None:
            weights[..., rows].add_(_later(rows.stop - rows.start, full))
        else:
            weights.unflatten(0, (batch, heads)).add_(bias[:, rows, seen])
        torch.softmax(weights, -1, out=weights)
        shares = _times(weights, mask if mask is None else mask[:, rows, seen]).to(qkv.dtype)
        torch.bmm(shares, value[:, seen], out=mixed[:, rows])
        kept += [weights, shares]
    mixed = mixed.view(batch, heads, length, width).transpose(1, 2)
    return mixed.reshape(batch * length, -1), [query, key, value, mask, *kept]


def _attend_backward(d_mixed: Tensor, attended: list[Any]) -> Tensor:
    """d_mixed (B, T, heads, width) -> the gradient with respect to qkv, (B T, 3 heads width)."""
    batch, length, heads, width = d_mixed.shape
    query, key, value, mask, *kept = attended
    d_mixed = d_mixed.transpose(1, 2).reshape(value.shape)
    d_query, d_key, d_value = d_qkv = value.new_zeros(3, *value.shape)
    for (rows, seen), weights, shares in zip(_spans(length), kept[::2], kept[1::2], strict=True):
        d_weights = torch.bmm(d_mixed[:, rows], value[:, seen].mT).to(weights.dtype)
        if mask is not None:
            d_weights.mul_(mask[:, rows, seen])
        d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
        d_scores = d_scores.to(value.dtype)
        torch.bmm(d_scores, key[:, seen], out=d_query[:, rows])
        d_key[:, seen].baddbmm_(d_scores.mT, query[:, rows])
        d_value[:, seen].baddbmm_(shares.mT, d_mixed[:, rows])
    d_query.mul_(width**-0.5)
    d_qkv = d_qkv.view(3, batch, heads, length, width).permute(1, 3, 0, 2, 4)
    return d_qkv.reshape(batch * length, -1)


def _spans(length: int) -> list[tuple[slice, slice]]:
    """Slices (queries, keys that they may see) of a sequence, `SPAN` queries at a time."""
    ends = [min(start + SPAN, length) for start in range(0, length, SPAN)]
    return [(slice(start, end), slice(end)) for start, end in zip(range(0, length, SPAN), ends)]


@functools.cache
def _later(length: int, dtype: torch.dtype) -> Tensor:
    """The causal mask (length, length): minus infinity for keys after the query, else 0."""
    return torch.full((length, length), -torch.inf, dtype=dtype).triu_(1)
