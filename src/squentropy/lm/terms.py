"""The terms of the losses: sums over positions, with their gradients.

Terms of degree two in the logits f do not need the logits: over all positions, the sum of f_j^2 is
the inner product of two D x D Gram matrices (Vincent et al. 2015, arXiv 1412.7091). Softmax terms
process the logits in chunks of positions and compute their gradients along the way.

Shapes: hidden (N, D), weight (C, D), targets (N,) int64; the logits would be hidden @ weight.T.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from squentropy.base.errors import SquentropyError
from squentropy.lm.matmul import multiplies, product, times_transposed, transposed_times

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
        with _float32_products(hidden.device.type):
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
        with _float32_products(hidden.device.type):
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


@contextlib.contextmanager
def _float32_products(device: str) -> Iterator[None]:
    """No autocast inside; products that a GPU would autocast are in TF32.

    TF32 is more exact than autocast's half precision and several times as fast as float32. Not if
    compiled, nor if the program has set the precision by torch's newer interface.
    """
    on_gpu = device == "cuda" and torch.is_autocast_enabled(device)
    before = _matmul_precision() if on_gpu and not torch.compiler.is_compiling() else None
    try:
        if before is not None:
            torch.set_float32_matmul_precision("high")
        with torch.autocast(device, enabled=False):
            yield
    finally:
        if before is not None:
            torch.set_float32_matmul_precision(before)


def _matmul_precision() -> str | None:
    """None if it was set by `fp32_precision`, which torch does not let mix with this interface."""
    try:
        return torch.get_float32_matmul_precision()
    except RuntimeError:
        return None


# --- softmax terms, a chunk of positions at a time ----------------------------------------------

Chunk = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""(logits (n, C), targets (n,)) -> the sum of the loss, and its gradient in two parts.

The parts are the gradient with respect to the logits (n, C), which may overwrite `logits` and is
ignored at the true classes, and that at the true classes (n, 1). Logits are float32 or float64. On
a GPU there may be more columns than classes; their logits are `NEVER`, their gradient must be 0.
"""

NEVER = -1e30
"""A logit whose softmax is 0."""

ROWS = 512
"""Positions per chunk: enough for fast matrix products."""

GPU_BYTES = 1 << 30
"""Memory for a chunk's logits on a GPU; less would leave most of the GPU idle."""

GPU_MULTIPLE = 64
"""Matrix products on a GPU are several times faster if row lengths are a multiple of this."""

_backend: str | None = None  # of torch.compile, if chunks are fused


def fuse_chunks(backend: str = "inductor") -> None:
    """From now on, fuse each chunk's passes over its logits with torch.compile.

    For GPUs, on which these passes cost as much as the matrix products; a CPU gains nothing. Logits
    are then in autocast's dtype, as F.cross_entropy's would be; without this, in float32.
    """
    global _backend
    _backend = backend


@functools.cache
def _fused(chunk: Chunk, backend: str) -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    def passes(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        value, gradient, at_true = chunk(_at_least_float32(logits), targets)
        return value, logits.copy_(gradient), at_true

    return torch.compile(passes, backend=backend)


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
        size = hidden.element_size() if _backend else max(4, hidden.element_size())
        rows, columns = _chunk_shape(device, len(hidden), classes, size)
        if columns > classes:
            weight = F.pad(weight, (0, 0, 0, columns - classes))
        work = _fused(chunk, _backend) if _backend else chunk
        with torch.autocast(device, enabled=False):
            for h, y in zip(hidden.split(rows), targets.split(rows), strict=True):
                logits = product(h, weight.T) if _backend else times_transposed(h, weight)
                if columns > classes:
                    logits[:, classes:] = NEVER
                value, gradient, at_true = work(logits, y)
                total = total + value
                if with_gradients:
                    gradient = gradient.to(h.dtype)
                    gradient.scatter_(-1, y.unsqueeze(-1), at_true.to(h.dtype))
                    d_hidden.append(times_transposed(gradient, weight.T))
                    part = transposed_times(h, gradient)
                    d_weight = part if d_weight is None else d_weight.add_(part)
        if d_weight is None:
            return total, None, None
        return total, torch.cat(d_hidden), d_weight[:, :classes]

    return term


def _chunk_shape(device: str, positions: int, classes: int, size: int) -> tuple[int, int]:
    """Positions and columns of a chunk of logits on a device type, `size` bytes each.

    On a GPU, chunks are of one size if that costs at most twice as many, because the compiler's
    code for several sizes is slower.
    """
    if device != "cuda":
        return ROWS, classes
    columns = classes + -classes % GPU_MULTIPLE
    most = max(ROWS, GPU_BYTES // (size * columns) // ROWS * ROWS)
    count = -(-positions // most)
    even = (positions // n for n in range(count, 2 * count) if positions % n == 0)
    return next(even, most), columns


# torch.compile fuses out-of-place expressions; without it, in-place operations are faster.


def _softmax_(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The softmax, in place unless compiled, and log Z, (n, 1)."""
    largest = logits.amax(-1, keepdim=True)
    if torch.compiler.is_compiling():
        log_z = largest + (logits - largest).exp().sum(-1, keepdim=True).log()
        return (logits - log_z).exp(), log_z
    torch.softmax(logits, -1, out=logits)
    return logits, largest - logits.amax(-1, keepdim=True).log_()  # the maximum is exp(largest) / Z


def cross_entropy_chunk(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    column = targets.unsqueeze(-1)
    true = logits.gather(-1, column)
    shares, log_z = _softmax_(logits)
    return (log_z - true).sum(), shares, shares.gather(-1, column) - 1


@functools.cache
def z_loss_chunk(scale: float) -> Chunk:
    def chunk(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        column = targets.unsqueeze(-1)
        true = logits.gather(-1, column)
        shares, log_z = _softmax_(logits)
        shares.mul_(1 + 2 * scale * log_z)
        value = (log_z - true).sum() + scale * log_z.square().sum()
        return value, shares, shares.gather(-1, column) - 1

    return chunk


def brier_chunk(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """With q_j = p_j - onehot_j, the gradient of sum q_j^2 is 2 p_j (q_j - sum_k p_k q_k)."""
    shares, _ = _softmax_(logits)
    true = shares.gather(-1, targets.unsqueeze(-1))
    own = shares.square().sum(-1, keepdim=True)
    inner = own - true
    value = (own - 2 * true + 1).sum()
    return value, shares.mul_(2 * (shares - inner)), 2 * true * (true - 1 - inner)
