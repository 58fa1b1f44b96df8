"""Training losses of a language model's last layer, one function each.

Every loss takes the last hidden states and the output matrix instead of logits, so that none has
to hold N x C numbers:

    LOSSES["squentropy"](hidden, weight, targets) -> scalar

    hidden   (N, D) float    last hidden states
    weight   (C, D) float    output matrix; the logits would be f = hidden @ weight.T
    targets  (N,)   int64    true classes y

The square terms need no logits at all: over all positions, the sum of f_j^2 is the inner product
of two D x D Gram matrices (Vincent et al. 2015, arXiv 1412.7091). The terms with a softmax go
through the logits in chunks of positions and form their gradient on the way.

To add a loss, write a function below, mark it `@loss`, and name it in params.yaml. It may use
`square_sum`, `true_logits` and `over_logits`, or just `hidden @ weight.T`.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]

LOSSES: dict[str, Loss] = {}
"""Every loss by its name."""

INVERSE_LINKS: dict[str, Callable[[Tensor], Tensor]] = {}
"""Logits to probabilities for losses whose minimiser is not a softmax: see `inverse_link`."""


def loss(function: Loss) -> Loss:
    """Make a function known as a training loss under its own name."""
    LOSSES[function.__name__] = function
    return function


# --- the losses ---------------------------------------------------------------------------------


@loss
def cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """-log p_y, p = softmax(f)."""
    return over_logits(_cross_entropy_chunk, hidden, weight, targets)


@loss
def mse(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """(1/C) sum_j (onehot_j - f_j)^2. The seed study's first attempt."""
    return _weighted_square(hidden, weight, targets, 1.0)


@loss
def mse_weighted(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """As `mse`, the true class's squared error times 100. The seed study's second attempt.

    Hui & Belkin 2020 (arXiv 2006.07322) have the same form with a target height M; here M = 1.
    """
    return _weighted_square(hidden, weight, targets, 100.0)


@loss
def squentropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """-log p_y + 1/(C-1) sum_{j != y} f_j^2. Hui, Wright, Belkin 2023 (arXiv 2302.03952)."""
    return cross_entropy(hidden, weight, targets) + _wrong_squares(hidden, weight, targets)


@loss
def squentropy_tenth(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """`squentropy` with its square term times 0.1, which moves its optimum nearer to the truth."""
    return cross_entropy(hidden, weight, targets) + 0.1 * _wrong_squares(hidden, weight, targets)


@loss
def squentropy_weighted(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """`cross_entropy` + `mse_weighted` with weight 65: the seed study's code."""
    return cross_entropy(hidden, weight, targets) + _weighted_square(hidden, weight, targets, 65.0)


@loss
def z_loss(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """-log p_y + 1e-4 log^2 Z, Z = sum_j exp f_j. Chowdhery et al. 2022 (arXiv 2204.02311)."""
    return over_logits(_z_loss_chunk, hidden, weight, targets)


@loss
def brier(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """sum_j (onehot_j - p_j)^2, p = softmax(f): a proper squared score (arXiv 2405.18906)."""
    return over_logits(_brier_chunk, hidden, weight, targets)


# --- square terms without logits ----------------------------------------------------------------


def square_sum(hidden: Tensor, weight: Tensor) -> Tensor:
    """sum over all positions and classes of f_j^2, as <W^T W, H^T H>: O((N + C) D^2)."""
    hidden, weight = _at_least_float32(hidden), _at_least_float32(weight)
    return ((weight.T @ weight) * (hidden.T @ hidden)).sum()


def true_logits(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """f_y at every position: (N,)."""
    return (_at_least_float32(hidden) * _at_least_float32(weight[targets])).sum(-1)


def _weighted_square(hidden: Tensor, weight: Tensor, targets: Tensor, true_weight: float) -> Tensor:
    """(1/C) (sum_{j != y} f_j^2 + true_weight (f_y - 1)^2), mean over positions."""
    with torch.autocast(hidden.device.type, enabled=False):
        true = true_logits(hidden, weight, targets)
        squares = square_sum(hidden, weight) - true.square().sum()
        return (squares + true_weight * (true - 1).square().sum()) / (len(hidden) * len(weight))


def _wrong_squares(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """1/(C-1) sum_{j != y} f_j^2, mean over positions."""
    with torch.autocast(hidden.device.type, enabled=False):
        true = true_logits(hidden, weight, targets)
        squares = square_sum(hidden, weight) - true.square().sum()
        return squares / (len(hidden) * (len(weight) - 1))


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor if tensor.dtype == torch.float64 else tensor.float()


# --- softmax terms, a chunk of positions at a time ----------------------------------------------

Chunk = Callable[[Tensor, Tensor], Tensor]
"""(logits (n, C), targets (n,)) -> the sum of the loss; leaves the gradient in `logits`."""

CHUNK_ELEMENTS = 1 << 23
"""Logits held at once: 32 MB in float32, which a processor's last-level cache nearly holds."""


def over_logits(chunk: Chunk, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The mean over positions of a loss that is a function of each position's logits."""
    return _OverLogits.apply(hidden, weight, targets, chunk)


class _OverLogits(torch.autograd.Function):
    """Loss and gradients in one pass, so that memory grows with N D and C D, never with N C."""

    @staticmethod
    def forward(ctx, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: Chunk) -> Tensor:
        matrix = weight.to(hidden.dtype)
        with_gradient = any(ctx.needs_input_grad[:2])
        d_hidden = torch.empty_like(hidden) if with_gradient else None
        d_weight = torch.zeros_like(_at_least_float32(weight)) if with_gradient else None
        total = torch.zeros((), dtype=d_weight.dtype if with_gradient else torch.float32,
                            device=hidden.device)  # fmt: skip
        rows = max(1, CHUNK_ELEMENTS // len(weight))
        for h, y, i in zip(hidden.split(rows), targets.split(rows), range(0, len(hidden), rows)):
            logits = _at_least_float32(h @ matrix.T)
            total = total + chunk(logits, y)
            if with_gradient:
                gradient = logits.div_(len(hidden)).to(hidden.dtype)
                torch.mm(gradient, matrix, out=d_hidden[i : i + rows])
                d_weight.addmm_(gradient.T.to(d_weight.dtype), h.to(d_weight.dtype))
        if with_gradient:
            ctx.save_for_backward(d_hidden, d_weight.to(weight.dtype))
        return total / len(hidden)

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream: Tensor):
        d_hidden, d_weight = ctx.saved_tensors
        return d_hidden * upstream.to(d_hidden.dtype), d_weight * upstream, None, None


def _softmax_(logits: Tensor) -> Tensor:
    """Turn logits into their softmax in place; returns log Z, (n, 1)."""
    log_z = logits.logsumexp(-1, keepdim=True)
    logits.sub_(log_z).exp_()
    return log_z


def _minus_one_at_(probabilities: Tensor, targets: Tensor) -> None:
    """Subtract the one-hot rows in place: the gradient of cross entropy."""
    column = targets.unsqueeze(-1)
    probabilities.scatter_add_(-1, column, probabilities.new_full(column.shape, -1.0))


def _cross_entropy_chunk(logits: Tensor, targets: Tensor) -> Tensor:
    true = logits.gather(-1, targets.unsqueeze(-1))
    log_z = _softmax_(logits)
    _minus_one_at_(logits, targets)
    return (log_z - true).sum()


def _z_loss_chunk(logits: Tensor, targets: Tensor) -> Tensor:
    true = logits.gather(-1, targets.unsqueeze(-1))
    log_z = _softmax_(logits)
    logits.mul_(1 + 2e-4 * log_z)
    _minus_one_at_(logits, targets)
    return (log_z - true).sum() + 1e-4 * log_z.square().sum()


def _brier_chunk(logits: Tensor, targets: Tensor) -> Tensor:
    """With q_j = p_j - onehot_j, the gradient of sum q_j^2 is 2 p_j (q_j - sum_k p_k q_k)."""
    _softmax_(logits)
    true = logits.gather(-1, targets.unsqueeze(-1))
    squares = logits.square().sum(-1, keepdim=True)
    inner = squares - true
    value = (squares - 2 * true + 1).sum()
    at_true = 2 * true * (true - 1 - inner)
    logits.mul_(2 * (logits - inner)).scatter_(-1, targets.unsqueeze(-1), at_true)
    return value


# --- probabilities of the squared losses --------------------------------------------------------


def inverse_link(logits: Tensor, true_weight: float, floor: float = 1e-6) -> Tensor:
    """Probabilities from outputs trained by a weighted squared loss, (n, C) -> (n, C).

    Where pi is the true distribution, the minimiser of k (f_y - 1)^2 + sum_{j != y} f_j^2 is
    f_j = k pi_j / (k pi_j + 1 - pi_j). Solved for pi_j, kept above a floor, renormalised.
    """
    probabilities = logits / (true_weight - (true_weight - 1) * logits)
    probabilities = torch.where(logits < 1, probabilities, 1.0).clamp_(floor, 1.0)
    return probabilities / probabilities.sum(-1, keepdim=True)


INVERSE_LINKS["mse"] = lambda logits: inverse_link(logits, 1.0)
INVERSE_LINKS["mse_weighted"] = lambda logits: inverse_link(logits, 100.0)
