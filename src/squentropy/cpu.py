"""What a processor does faster than torch's own operators while training a small model.

Dropout masks come from numpy's SFC64, 16 bits an element, ten times the rate of `bernoulli_`. And
short-context attention with dropout, for which torch has no fused kernel on a CPU, is one function
that keeps the probabilities of the forward pass for the backward one.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Noise:
    """Dropout masks that are a function of a seed and an iteration."""

    def __init__(self, seed: int, iteration: int):
        self.bits = np.random.SFC64([seed, iteration])

    def keep(self, shape: tuple[int, ...], dropout: float) -> Tensor:
        """float32 ones, and zeros with probability `dropout`, to within 2^-17."""
        size = math.prod(shape)
        draws = self.bits.random_raw((size + 3) // 4).view(np.uint16)[:size]
        return torch.from_numpy((draws >= round(dropout * 2**16)).astype(np.float32)).view(shape)


def dropped(x: Tensor, noise: Noise, dropout: float) -> Tensor:
    """`F.dropout` with a mask of `noise`."""
    if dropout == 0:
        return x
    return x * noise.keep(x.shape, dropout).mul_(1 / (1 - dropout))


def causal_attention(qkv: Tensor, noise: Noise, dropout: float) -> Tensor:
    """Causal self-attention with dropout of its probabilities.

    qkv (B, T, 3, heads, width) -> (B, T, heads, width).
    """
    return _CausalAttention.apply(qkv, noise, dropout)


class _CausalAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, qkv: Tensor, noise: Noise, dropout: float) -> Tensor:
        batch, length, _, heads, width = qkv.shape
        query, key, value = qkv.permute(2, 0, 3, 1, 4).reshape(3, batch * heads, length, width)
        bias = torch.full((length, length), -torch.inf, dtype=qkv.dtype).triu_(1)
        scale = width**-0.5
        weights = torch.baddbmm(bias, query, key.transpose(1, 2), alpha=scale).softmax(-1)
        keep = noise.keep(weights.shape, dropout).to(weights.dtype) if dropout else None
        kept = weights * keep if keep is not None else weights
        mixed = torch.bmm(kept, value)
        if keep is not None:
            mixed.div_(1 - dropout)
        ctx.save_for_backward(query, key, value, weights, keep, kept)
        ctx.scale, ctx.dropout = scale, dropout
        return mixed.view(batch, heads, length, width).transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream: Tensor):
        query, key, value, weights, keep, kept = ctx.saved_tensors
        batch, length, heads, width = upstream.shape
        d_mixed = upstream.transpose(1, 2).reshape(batch * heads, length, width)
        d_qkv = torch.empty(3, batch * heads, length, width, dtype=upstream.dtype)
        if keep is not None:
            d_mixed = d_mixed / (1 - ctx.dropout)
        torch.bmm(kept.transpose(1, 2), d_mixed, out=d_qkv[2])
        d_weights = torch.bmm(d_mixed, value.transpose(1, 2))
        if keep is not None:
            d_weights.mul_(keep)
        d_scores = torch._softmax_backward_data(d_weights, weights, -1, weights.dtype)
        d_scores.mul_(ctx.scale)
        torch.bmm(d_scores, key, out=d_qkv[0])
        torch.bmm(d_scores.transpose(1, 2), query, out=d_qkv[1])
        d_qkv = d_qkv.view(3, batch, heads, length, width)
        return d_qkv.permute(1, 3, 0, 2, 4), None, None
