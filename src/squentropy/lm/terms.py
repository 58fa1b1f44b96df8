"""The terms of the losses: sums over positions, with their gradients.

Terms of degree two in the logits f do not need the logits: over all positions, the sum of f_j^2 is
the inner product of two D x D Gram matrices (Vincent et al. 2015, arXiv 1412.7091). Softmax terms
process the logits in chunks of positions and compute their gradients along the way.

Shapes: hidden (N, D), weight (C, D), targets (N,) int64; the logits would be hidden @ weight.T.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from squentropy.base.errors import SquentropyError
from squentropy.lm.matmul import multiplies, times_transposed, transposed_times

Term = Callable[[Tensor, Tensor, Tensor, bool], tuple[Tensor, Any, Any]]
"""(hidden, weight, targets, with_gradients) -> a sum over positions, and its gradients.

The gradients are with respect to hidden, (N, D), and weight, transposed to (D, C); None without
`with_gradients`. All are float32, or float64 if hidden is.
"""


def mean(hidden: Tensor, weight: Tensor, targets: Tensor, *terms: Term) -> Tensor:
    """The mean over positions of a sum of terms, as a single autograd node."""
    with_gradients = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    return _Mean.apply(hidden, weight, targets, with_gradients, *terms)


class _Mean(torch.autograd.Function):
    """Computes gradients in the forward pass, so memory grows with N D and C D, never with N C."""

    @staticmethod
    def forward(ctx, hidden, weight, targets, with_gradients: bool, *terms: Term) -> Tensor:
        first, *others = terms
        total, d_hidden, d_weight = first(hidden, weight, targets, with_gradients)
        for term in others:
            more, dh, dw = term(hidden, weight, targets, with_gradients)
            total = total + more
            if with_gradients:
                d_hidden.add_(dh)
                d_weight.add_(dw)
        if with_gradients:
            ctx.save_for_backward(d_hidden, d_weight)
            ctx.dtypes, ctx.terms = (hidden.dtype, weight.dtype), len(terms)
        return total / len(hidden)

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream: Tensor):
        d_hidden, d_weight = ctx.saved_tensors
        scale = upstream / len(d_hidden)
        # Contiguous, because autograd adds the embedding's gradient, which is slow if transposed.
        gradients = d_hidden * scale, d_weight.T.contiguous().mul_(scale)
        no_more = [None] * (2 + ctx.terms)
        return *(g.to(dtype) for g, dtype in zip(gradients, ctx.dtypes)), *no_more


def squares(true_weight: float, factor: float) -> Term:
    """factor (sum_{j != y} f_j^2 + true_weight (f_y - 1)^2), without logits: O((N + C) D^2).

    The sum of f_j^2 over all positions and classes is <W^T W, H^T H>.
    """

    def term(hidden, weight, targets, with_gradients):
        with torch.autocast(hidden.device.type, enabled=False):
            hidden, weight = _at_least_float32(hidden), _at_least_float32(weight)
            true_rows = weight[targets]
            true = (hidden * true_rows).sum(-1)
            gram_hidden, gram_weight = hidden.T @ hidden, weight.T @ weight
            at_true = true_weight * (true - 1).square() - true.square()
            total = factor * ((gram_hidden * gram_weight).sum() + at_true.sum())
            if not with_gradients:
                return total, None, None
            d_true = (2 * factor * (true_weight * (true - 1) - true)).unsqueeze(-1)
            d_hidden = times_transposed(hidden, gram_weight.mul_(2 * factor))
            d_hidden.addcmul_(d_true, true_rows)
            d_weight = times_transposed(gram_hidden.mul_(2 * factor), weight)
            d_weight.index_add_(1, targets, (d_true * hidden).T)
            return total, d_hidden, d_weight

    return term


def log_share(constant: float, slope: float, curvature: float) -> Term:
    """-log of the true class's share q_y / sum_j q_j, without logits: O((N + C) D^2).

    q_j = constant + slope f_j + curvature f_j^2, which must be positive for every f_j. At a
    position h, sum_j f_j^2 is h^T (W^T W) h, and sum_j f_j is h times the sum of W's rows.
    Raises SquentropyError if q_j can be 0 or negative.
    """
    smallest = constant - slope**2 / (4 * curvature)
    if not smallest > 0:
        raise SquentropyError(f"a loss's shares begin at {smallest:g}; they have to be above 0")

    def term(hidden, weight, targets, with_gradients):
        with torch.autocast(hidden.device.type, enabled=False):
            hidden, weight = _at_least_float32(hidden), _at_least_float32(weight)
            true_rows, summed = weight[targets], slope * weight.sum(0)
            true = (hidden * true_rows).sum(-1)
            share = constant + (slope + curvature * true) * true
            by_gram = times_transposed(hidden, curvature * (weight.T @ weight))
            whole = constant * len(weight) + ((summed + by_gram) * hidden).sum(-1)
            # Against rounding: at least the true class's q plus the others' smallest possible q.
            whole = torch.maximum(whole, share + (len(weight) - 1) * smallest)
            total = (whole.log() - share.log()).sum()
            if not with_gradients:
                return total, None, None
            over = hidden / whole.unsqueeze(-1)
            d_true = (-(slope + 2 * curvature * true) / share).unsqueeze(-1)
            d_hidden = by_gram.mul_(2).add_(summed).div_(whole.unsqueeze(-1))
            d_hidden.addcmul_(d_true, true_rows)
            d_weight = times_transposed(2 * curvature * (hidden.T @ over), weight)
            d_weight.add_(slope * over.sum(0).unsqueeze(-1))
            d_weight.index_add_(1, targets, (d_true * hidden).T)
            return total, d_hidden, d_weight

    return term


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


# --- softmax terms, a chunk of positions at a time ----------------------------------------------

Chunk = Callable[[Tensor, Tensor], Tensor]
"""(logits (n, C), targets (n,)) -> the sum of the loss; overwrites `logits` with the gradient."""

ROWS = 512
"""Positions per chunk: enough for fast matrix products."""

GPU_ELEMENTS = 1 << 28
"""Logits per chunk on a GPU, 1 GB in float32; fewer would leave most of the GPU idle."""

GPU_MULTIPLE = 64
"""Matrix products on a GPU are several times faster if row lengths are a multiple of this."""

_backend: str | None = None  # of torch.compile, if chunks are fused


def fuse_chunks(backend: str = "inductor") -> None:
    """From now on, fuse each chunk's passes over its logits with torch.compile.

    For GPUs, on which these passes cost as much as the matrix products; a CPU gains nothing.
    """
    global _backend
    _backend = backend


@functools.cache
def _fused(chunk: Chunk, backend: str) -> Callable[..., tuple[Tensor, Tensor]]:
    def passes(*given: Any) -> tuple[Tensor, Tensor]:
        return _passes(chunk, *given)

    return torch.compile(passes, backend=backend)


def _passes(
    chunk: Chunk, logits: Tensor, targets: Tensor, classes: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """The sum of a chunk's loss, and its gradient with respect to the logits, as `dtype`.

    Overwrites `logits`. Their first `classes` columns are used; the others are zero padding.
    """
    if torch.compiler.is_compiling():
        logits = logits.clone()  # or the compiled code would write them back, unused
    value = chunk(logits[:, :classes], targets)
    return value, logits.to(dtype)


def over_logits(chunk: Chunk) -> Term:
    """A term that is a function of each position's logits, computed in chunks of positions.

    Pass the same `chunk` function each time: every new one is compiled if chunks are fused.
    """

    def term(hidden, weight, targets, with_gradients):
        total, d_hidden, d_weight = hidden.new_zeros(()), [], None
        device, classes = hidden.device.type, len(weight)
        if torch.is_autocast_enabled(device):
            hidden = hidden.to(torch.get_autocast_dtype(device))
        weight = weight.to(hidden.dtype)
        if not multiplies(hidden):  # or every chunk would convert them again
            hidden, weight = _at_least_float32(hidden), _at_least_float32(weight)
        rows, columns = _chunk_shape(device, classes)
        if columns > classes:
            weight = F.pad(weight, (0, 0, 0, columns - classes))
        work = _fused(chunk, _backend) if _backend else functools.partial(_passes, chunk)
        with torch.autocast(device, enabled=False):
            for h, logits, y in logits_by_rows(hidden, weight, targets, rows):
                value, gradient = work(logits, y, classes, h.dtype)
                total = total + value
                if with_gradients:
                    d_hidden.append(times_transposed(gradient, weight.T))
                    part = transposed_times(h, gradient)
                    d_weight = part if d_weight is None else d_weight.add_(part)
        if d_weight is None:
            return total, None, None
        return total, torch.cat(d_hidden), d_weight[:, :classes]

    return term


def _chunk_shape(device: str, classes: int) -> tuple[int, int]:
    """Positions and columns of a chunk of logits on a device type."""
    if device != "cuda":
        return ROWS, classes
    columns = classes + -classes % GPU_MULTIPLE
    return max(ROWS, GPU_ELEMENTS // columns // ROWS * ROWS), columns


def logits_by_rows(hidden: Tensor, weight: Tensor, targets: Tensor, rows: int) -> Iterator[tuple]:
    """Yield (hidden, logits, targets) for `rows` positions at a time; logits in float32 or 64.

    `hidden` and `weight` have the same dtype.
    """
    for h, y in zip(hidden.split(rows), targets.split(rows), strict=True):
        yield h, times_transposed(h, weight), y


# torch.compile fuses out-of-place expressions; without it, in-place operations are faster.


def _softmax_(logits: Tensor) -> Tensor:
    """Turn logits into their softmax in place; returns log Z, (n, 1)."""
    if torch.compiler.is_compiling():
        log_z = logits.logsumexp(-1, keepdim=True)
        logits.copy_((logits - log_z).exp())
        return log_z
    largest = logits.amax(-1, keepdim=True)
    torch.softmax(logits, -1, out=logits)
    return largest - logits.amax(-1, keepdim=True).log_()  # now the maximum is exp(largest) / Z


def _minus_one_at_(probabilities: Tensor, targets: Tensor) -> None:
    """Subtract the one-hot rows in place, which leaves the gradient of cross entropy."""
    column = targets.unsqueeze(-1)
    if torch.compiler.is_compiling():
        probabilities.sub_(_one_hot(probabilities, column))
    else:
        probabilities.scatter_add_(-1, column, probabilities.new_full(column.shape, -1.0))


def _one_hot(like: Tensor, column: Tensor) -> Tensor:
    return (torch.arange(like.shape[-1], device=like.device) == column).to(like.dtype)


def cross_entropy_chunk(logits: Tensor, targets: Tensor) -> Tensor:
    true = logits.gather(-1, targets.unsqueeze(-1))
    log_z = _softmax_(logits)
    _minus_one_at_(logits, targets)
    return (log_z - true).sum()


@functools.cache
def z_loss_chunk(scale: float) -> Chunk:
    def chunk(logits: Tensor, targets: Tensor) -> Tensor:
        true = logits.gather(-1, targets.unsqueeze(-1))
        log_z = _softmax_(logits)
        logits.mul_(1 + 2 * scale * log_z)
        _minus_one_at_(logits, targets)
        return (log_z - true).sum() + scale * log_z.square().sum()

    return chunk


def brier_chunk(logits: Tensor, targets: Tensor) -> Tensor:
    """With q_j = p_j - onehot_j, the gradient of sum q_j^2 is 2 p_j (q_j - sum_k p_k q_k)."""
    _softmax_(logits)
    column = targets.unsqueeze(-1)
    one_hot = _one_hot(logits, column) if torch.compiler.is_compiling() else None
    true = logits.gather(-1, column) if one_hot is None else (logits * one_hot).sum(-1, True)
    own = logits.square().sum(-1, keepdim=True)
    inner = own - true
    value = (own - 2 * true + 1).sum()
    if one_hot is None:
        at_true = 2 * true * (true - 1 - inner)
        logits.mul_(2 * (logits - inner)).scatter_(-1, column, at_true)
    else:
        logits.mul_(2 * (logits - one_hot - inner))
    return value
