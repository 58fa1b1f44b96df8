"""The losses as modules: of logits when called, or of hidden states with `over_hidden`.

    loss = squentropy.nn.Squentropy(0.1)
    loss(model(x), y)                                      # logits (..., C), targets (...)
    loss.over_hidden(hidden, head.weight, y, head.bias)    # logits are never materialised

Each takes its loss's arguments, plus `ignore_index` and `reduction` as in functional.py.
"""

from typing import ClassVar

from torch import Tensor, nn

from squentropy import functional
from squentropy.functional import IGNORED, Reduction


class Loss(nn.Module):
    """Base class of the losses below."""

    function: ClassVar[str]
    """The loss's name in functional.py and losses.py."""

    def __init__(self, ignore_index: int, reduction: Reduction, **arguments: float) -> None:
        super().__init__()
        self.ignore_index, self.reduction, self.arguments = ignore_index, reduction, arguments

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """logits (..., C), targets (...)."""
        over_logits = getattr(functional, self.function)
        return over_logits(
            logits,
            targets,
            **self.arguments,
            ignore_index=self.ignore_index,
            reduction=self.reduction,
        )

    def over_hidden(
        self, hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        """hidden (..., D), weight (C, D), targets (...), bias (C,) or None; always the mean."""
        return functional.over_hidden(
            self.name, hidden, weight, targets, bias=bias, ignore_index=self.ignore_index
        )

    @property
    def name(self) -> str:
        """The loss's name with its arguments, as in LOSSES and in a study's parameters."""
        given = ", ".join(map(repr, self.arguments.values()))
        return f"{self.function}({given})" if given else self.function

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value!r}" for key, value in self.arguments.items())


class CrossEntropy(Loss):
    function = "cross_entropy"

    def __init__(self, *, ignore_index: int = IGNORED, reduction: Reduction = "mean") -> None:
        super().__init__(ignore_index, reduction)


class MSE(Loss):
    function = "mse"

    def __init__(self, *, ignore_index: int = IGNORED, reduction: Reduction = "mean") -> None:
        super().__init__(ignore_index, reduction)


class WeightedMSE(Loss):
    function = "mse_weighted"

    def __init__(
        self,
        true_weight: float = 100.0,
        *,
        ignore_index: int = IGNORED,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(ignore_index, reduction, true_weight=true_weight)


class Squentropy(Loss):
    function = "squentropy"

    def __init__(
        self, scale: float = 1.0, *, ignore_index: int = IGNORED, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(ignore_index, reduction, scale=scale)


class WeightedSquentropy(Loss):
    function = "squentropy_weighted"

    def __init__(
        self,
        true_weight: float = 65.0,
        *,
        ignore_index: int = IGNORED,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(ignore_index, reduction, true_weight=true_weight)


class ZLoss(Loss):
    function = "z_loss"

    def __init__(
        self, scale: float = 1e-4, *, ignore_index: int = IGNORED, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(ignore_index, reduction, scale=scale)


class Brier(Loss):
    function = "brier"

    def __init__(self, *, ignore_index: int = IGNORED, reduction: Reduction = "mean") -> None:
        super().__init__(ignore_index, reduction)


class Spherical(Loss):
    function = "spherical"

    def __init__(
        self, epsilon: float = 0.1, *, ignore_index: int = IGNORED, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(ignore_index, reduction, epsilon=epsilon)


class Taylor(Loss):
    function = "taylor"

    def __init__(self, *, ignore_index: int = IGNORED, reduction: Reduction = "mean") -> None:
        super().__init__(ignore_index, reduction)
