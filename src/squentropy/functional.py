"""The losses as functions of logits, in a line or two of plain PyTorch each.

    logits   (..., C)  float  outputs f of the last layer, its bias included
    targets  (...)     int64  true classes y; positions equal to `ignore_index` are ignored
    returns  a scalar: the mean over the other positions, or their sum with reduction="sum";
             with reduction="none" one value per position, (...), 0 for ignored ones

Half-precision logits are converted to float32. If all positions are ignored, mean and sum are 0.
`squentropy.losses` computes the same losses from hidden states, without materialising the logits
and in a fraction of the memory. `over_hidden` calls them and adds a bias and `ignore_index`.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from squentropy.base.errors import SquentropyError
from squentropy.losses import LOSSES, own_link

Reduction = Literal["mean", "sum", "none"]
IGNORED = -100
"""The target that PyTorch's losses ignore by default."""


def cross_entropy(
    logits: Tensor,
    targets: Tensor,
    *,
    ignore_index: int = IGNORED,
    reduction: Reduction = "mean",
) -> Tensor:
    """-log p_y, p = softmax(f)."""
    return _reduced(_nll, logits, targets, ignore_index, reduction)


def mse(
    logits: Tensor,
    targets: Tensor,
    *,
    ignore_index: int = IGNORED,
    reduction: Reduction = "mean",
) -> Tensor:
    """(1/C) sum_j (onehot_j - f_j)^2; for probabilities use `probabilities("mse", logits)`."""
    return mse_weighted(logits, targets, 1.0, ignore_index=ignore_index, reduction=reduction)


def mse_weighted(
    logits: Tensor,
    targets: Tensor,
    true_weight: float = 100.0,
    *,
    ignore_index: int = IGNORED,
    reduction: Reduction = "mean",
) -> Tensor:
    """(1/C) (true_weight (f_y - 1)^2 + sum_{j != y} f_j^2)."""

    def each(f: Tensor, y: Tensor) -> Tensor:
        return _squares(f, y, true_weight) / f.shape[-1]

    return _reduced(each, logits, targets, ignore_index, reduction)


def squentropy(
    logits: Tensor,
    targets: Tensor,
    scale: float = 1.0,
    *,
    ignore_index: int = IGNORED,
    reduction: Reduction = "mean",
) -> Tensor:
    """-log p_y + scale/(C-1) sum_{j != y} f_j^2. Hui, Belkin, Wright 2023 (arXiv 2302.03952)."""

    def each(f: Tensor, y: Tensor) -> Tensor:
        return _nll(f, y) + scale / (f.shape[-1] - 1) * _squares(f, y, 0.0)

    return _reduced(each, logits, targets, ignore_index, reduction)


def squentropy_weighted(
    logits: Tensor,
    targets: Tensor,
    true_weight: float = 65.0,
    *,
    ignore_index: int = IGNORED,
    reduction: Reduction = "mean",
) -> Tensor:
    """-log p_y + (1/C) (true_weight (f_y - 1)^2 + sum_{j != y} f_j^2)."""

    def each(f: Tensor, y: Tensor) -> Tensor:
        return _nll(f, y) + _squares(f, y, true_weight) / f.shape[-1]

    return _reduced(each, logits, targets, ignore_index, reduction)


def z_loss(
    logits: Tensor,
    targets: Tensor,
    scale: float = 1e-4,
    *,
    ignore_index: int = IGNORED,
    reduction: Reduction = "mean",
) -> Tensor:
    """-log p_y + scale log^2 Z, Z = sum_j exp f_j. Chowdhery et al. 2022 (arXiv 2204.02311)."""

    def each(f: Tensor, y: Tensor) -> Tensor:
        return _nll(f, y) + scale * f.logsumexp(-1).square()

    return _reduced(each, logits, targets, ignore_index, reduction)


def brier(
    logits: Tensor,
    targets: Tensor,
    *,
    ignore_index: int = IGNORED,
    reduction: Reduction = "mean",
) -> Tensor:
    """sum_j (onehot_j - p_j)^2, p = softmax(f)."""

    def each(f: Tensor, y: Tensor) -> Tensor:
        return _squares(f.softmax(-1), y, 1.0)

    return _reduced(each, logits, targets, ignore_index, reduction)


def spherical(
    logits: Tensor,
    targets: Tensor,
    epsilon: float = 0.1,
    *,
    ignore_index: int = IGNORED,
    reduction: Reduction = "mean",
) -> Tensor:
    """-log p_y, p_j proportional to f_j^2 + epsilon (arXiv 1511.05042).

    Raises SquentropyError if epsilon is not above 0.
    """
    if not epsilon > 0:
        raise SquentropyError(f"a loss's shares begin at {epsilon:g}; they have to be above 0")

    def each(f: Tensor, y: Tensor) -> Tensor:
        return _minus_log_share(f.square() + epsilon, y)

    return _reduced(each, logits, targets, ignore_index, reduction)


def taylor(
    logits: Tensor,
    targets: Tensor,
    *,
    ignore_index: int = IGNORED,
    reduction: Reduction = "mean",
) -> Tensor:
    """-log p_y, p_j proportional to 1 + f_j + f_j^2/2 (arXiv 1511.05042)."""

    def each(f: Tensor, y: Tensor) -> Tensor:
        return _minus_log_share(((1 + f).square() + 1) / 2, y)

    return _reduced(each, logits, targets, ignore_index, reduction)


# --- any loss by its name -----------------------------------------------------------------------


def over_hidden(
    loss: str,
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    ignore_index: int = IGNORED,
) -> Tensor:
    """A loss by name, from the last hidden states, without materialising the logits.

    loss     a key of LOSSES, such as "squentropy(0.1)", or your own: "my_losses.py:smooth"
    hidden   (..., D), weight (C, D), bias (C,) or None: f = hidden @ weight.T + bias
    targets  (...) true classes; those equal to `ignore_index` are ignored
    returns  the mean over the other positions, 0 if there are none

    Raises ValueError if there is no such loss.
    """
    kept = targets != ignore_index
    if not kept.any():
        given = [tensor for tensor in (hidden, weight, bias) if tensor is not None]
        return 0 * torch.stack([tensor.float().sum() for tensor in given]).sum()
    hidden, targets = hidden[kept], targets[kept]
    if bias is not None:  # as the weight's last column, times a constant 1: works for any loss
        hidden = torch.cat((hidden, hidden.new_ones(len(hidden), 1)), -1)
        weight = torch.cat((weight, bias.to(weight.dtype).unsqueeze(-1)), -1)
    return LOSSES[loss](hidden, weight, targets)


def probabilities(loss: str, logits: Tensor, floor: float = 1e-6) -> Tensor:
    """Probabilities from the outputs of a model trained with a loss: (..., C) -> (..., C).

    By softmax, or by the loss's own link if it declares one. A link that could return 0 clamps at
    `floor`, then renormalises. Raises ValueError if there is no such loss.
    """
    link = own_link(loss, floor)
    logits = _at_least_float32(logits)
    return logits.softmax(-1) if link is None else link(logits)


# --- helpers ------------------------------------------------------------------------------------


def _reduced(
    each: Callable[[Tensor, Tensor], Tensor],
    logits: Tensor,
    targets: Tensor,
    ignore_index: int,
    reduction: Reduction,
) -> Tensor:
    """Reduce over positions; `each` maps logits (n, C) and targets (n,) to values (n,)."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction {reduction!r} is not known; write mean, sum or none")
    kept = targets != ignore_index
    values = each(_at_least_float32(logits[kept]), targets[kept])
    if reduction == "none":
        return values.new_zeros(targets.shape).masked_scatter(kept, values)
    return values.sum() if reduction == "sum" else values.sum() / max(1, len(values))


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _at(values: Tensor, y: Tensor) -> Tensor:
    """Each row's value at its target: (n, C), (n,) -> (n,)."""
    return values.gather(-1, y.unsqueeze(-1)).squeeze(-1)


def _nll(f: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(f, y, reduction="none")


def _squares(f: Tensor, y: Tensor, true_weight: float) -> Tensor:
    """true_weight (f_y - 1)^2 + sum_{j != y} f_j^2, without subtracting large numbers."""
    wrong = f.scatter(-1, y.unsqueeze(-1), 0.0).square().sum(-1)
    return true_weight * (_at(f, y) - 1).square() + wrong


def _minus_log_share(q: Tensor, y: Tensor) -> Tensor:
    return q.sum(-1).log() - _at(q, y).log()
