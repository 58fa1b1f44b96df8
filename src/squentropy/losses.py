"""Training losses for the last layer of a language model, one function each.

Every loss takes the last hidden states and the output matrix instead of the logits, so it need not
hold N x C numbers:

    LOSSES["squentropy"](hidden, weight, targets) -> scalar
    LOSSES["squentropy(0.1)"](hidden, weight, targets)      with an argument

    hidden   (N, D) float    last hidden states
    weight   (C, D) float    output matrix; the logits would be f = hidden @ weight.T
    targets  (N,)   int64    true classes y

To add a loss, write a function below, decorate it with `@loss`, and list it in params.yaml. It may
return a `mean` of terms from lm/terms.py, such as `squares` and `over_logits(...)`, or just use
`hidden @ weight.T`. It may also live in a separate file, with `from squentropy.losses import loss`;
its name is then `my_losses.py:smooth`, with a path relative to the working folder.
"""

import functools
import importlib.util
import inspect
from collections.abc import Callable

import torch
from torch import Tensor

from squentropy.lm.terms import (
    brier_chunk,
    cross_entropy_chunk,
    log_share,
    mean,
    over_logits,
    squares,
    z_loss_chunk,
)
from squentropy.lm.terms import fuse_chunks as fuse_chunks
from squentropy.study import catalogue

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


class _Losses(dict[str, Callable[..., Tensor]]):
    def __missing__(self, name: str) -> Loss:
        function, arguments = _bound(name)
        return functools.partial(self[function], **arguments)


LOSSES = _Losses()
"""Every loss by name. A name may include arguments, but iteration yields only the plain names.

Raises ValueError if there is no such loss, or if it does not take these arguments.
"""

_LINKS: dict[str, Callable[..., Tensor] | None] = {}


def loss(
    function: Callable[..., Tensor] | None = None,
    *,
    label: str = "",
    formula: str = "",
    source: str = "",
    squared: bool = False,
    squares: dict | None = None,
    link: Callable[..., Tensor] | None = None,
):
    """Register a function as a training loss under its own name.

    Positional parameters after the first three are the loss's arguments, which are numbers. All
    values below except `link` are parsed from the source (study/catalogue.py), so they must be
    literals.

    label    display name
    formula  for one position, in HTML; an argument in braces is replaced by its value
    source   where the loss comes from, in HTML
    squared  whether it squares an error
    squares  {factor, true_weight, less}, each a number or the name of an argument: the loss is
             cross entropy plus factor/(C - less) (sum_{j != y} f_j^2 + true_weight (f_y - 1)^2),
             whose optimum can be computed (results/theory/optimum.py)
    link     (outputs (n, C), floor, **arguments) -> probabilities (n, C), for a loss whose outputs
             are not softmax logits; no probability should be far below the floor
    """

    def register(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        own = function.__module__.endswith(".py")  # `_load` names the module after its file
        name = f"{function.__module__}:{function.__name__}" if own else function.__name__
        LOSSES[name] = function
        _LINKS[name] = link
        return function

    return register if function is None else register(function)


def own_link(name: str, floor: float) -> Callable[[Tensor], Tensor] | None:
    """The function from a loss's outputs to probabilities, (n, C) -> (n, C); None for softmax.

    A link that could return 0 clamps at `floor`, then renormalises.
    """
    function, arguments = _bound(name)
    link = _LINKS.get(function)
    return link and functools.partial(link, floor=floor, **arguments)


def _bound(name: str) -> tuple[str, dict[str, float]]:
    """Parse a loss's name into (function, arguments)."""
    function, values = catalogue.parse(name)
    lives = catalogue.file_of(function)
    if lives and function not in LOSSES:
        _load(lives[0])
    if function not in LOSSES:
        raise ValueError(catalogue.unknown(function, LOSSES))
    parameters = inspect.signature(LOSSES[function]).parameters.values()
    own = [p for p in parameters if p.kind is not p.KEYWORD_ONLY][3:]
    defaults = {p.name: None if p.default is p.empty else p.default for p in own}
    return function, catalogue.bind(function, defaults, values)


def _load(file: str) -> None:
    """Run a file of losses, which registers them."""
    specification = importlib.util.spec_from_file_location(file, file)
    if specification is None or specification.loader is None:
        raise ValueError(f"{file}: is no Python file")
    specification.loader.exec_module(importlib.util.module_from_spec(specification))


# --- probabilities from outputs that are not softmax logits -------------------------------------


def inverse_link(outputs: Tensor, floor: float, true_weight: float = 1.0) -> Tensor:
    """Probabilities from outputs trained with a weighted squared loss.

    If pi is the true distribution, the minimiser of k (f_y - 1)^2 + sum_{j != y} f_j^2 is
    f_j = k pi_j / (k pi_j + 1 - pi_j). This is solved for pi_j, clamped at the floor and
    renormalised.
    """
    probabilities = outputs / (true_weight - (true_weight - 1) * outputs)
    probabilities = torch.where(outputs >= 1, 1.0, probabilities).clamp_(floor, 1.0)
    return probabilities / probabilities.sum(-1, keepdim=True)


def spherical_link(outputs: Tensor, floor: float, epsilon: float) -> Tensor:
    """p_j = (f_j^2 + epsilon) / sum_k (f_k^2 + epsilon); epsilon replaces the floor."""
    shares = outputs.square() + epsilon
    return shares / shares.sum(-1, keepdim=True)


def taylor_link(outputs: Tensor, floor: float) -> Tensor:
    """p_j = q_j / sum_k q_k, q_j = 1 + f_j + f_j^2/2; q_j >= 1/2, so no floor is needed."""
    shares = ((1 + outputs).square() + 1) / 2
    return shares / shares.sum(-1, keepdim=True)


# --- the losses ---------------------------------------------------------------------------------


@loss(
    label="cross entropy",
    formula="−log <i>p</i><sub>y</sub>",
    source="the baseline of every language model",
)
def cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """-log p_y, p = softmax(f)."""
    return mean(hidden, weight, targets, over_logits(cross_entropy_chunk))


@loss(
    label="MSE",
    formula="1/<i>C</i> ((<i>f</i><sub>y</sub> − 1)<sup>2</sup> + "
    "Σ<sub>j≠y</sub> <i>f</i><sub>j</sub><sup>2</sup>)",
    source="the original study’s first attempt",
    squared=True,
    link=inverse_link,
)
def mse(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """(1/C) sum_j (onehot_j - f_j)^2: the original study's first attempt."""
    return mean(hidden, weight, targets, squares(1.0, 1 / len(weight)))


@loss(
    label="weighted MSE",
    formula="1/<i>C</i> ({true_weight} (<i>f</i><sub>y</sub> − 1)<sup>2</sup> + "
    "Σ<sub>j≠y</sub> <i>f</i><sub>j</sub><sup>2</sup>)",
    source="the original study’s second attempt; the form of Hui &amp; Belkin 2020",
    squared=True,
    link=inverse_link,
)
def mse_weighted(
    hidden: Tensor, weight: Tensor, targets: Tensor, true_weight: float = 100.0
) -> Tensor:
    """`mse` with the true class's term weighted: the original study's second attempt.

    Hui & Belkin 2020 (arXiv 2006.07322) use the same form with a target height M; here M = 1.
    """
    return mean(hidden, weight, targets, squares(true_weight, 1 / len(weight)))


@loss(
    label="squentropy",
    formula="−log <i>p</i><sub>y</sub> + {scale}/(<i>C</i>−1) "
    "Σ<sub>j≠y</sub> <i>f</i><sub>j</sub><sup>2</sup>",
    source="Hui, Belkin &amp; Wright 2023",
    squared=True,
    squares={"factor": "scale", "true_weight": 0.0, "less": 1},
)
def squentropy(hidden: Tensor, weight: Tensor, targets: Tensor, scale: float = 1.0) -> Tensor:
    """-log p_y + scale/(C-1) sum_{j != y} f_j^2. Hui, Belkin, Wright 2023 (arXiv 2302.03952)."""
    wrong = squares(0.0, scale / (len(weight) - 1))
    return mean(hidden, weight, targets, over_logits(cross_entropy_chunk), wrong)


@loss(
    label="weighted squentropy",
    formula="−log <i>p</i><sub>y</sub> + 1/<i>C</i> ({true_weight} (<i>f</i><sub>y</sub> − 1)"
    "<sup>2</sup> + Σ<sub>j≠y</sub> <i>f</i><sub>j</sub><sup>2</sup>)",
    source="the original study’s code, which it calls squentropy, with a weight of 65",
    squared=True,
    squares={"factor": 1.0, "true_weight": "true_weight", "less": 0},
)
def squentropy_weighted(
    hidden: Tensor, weight: Tensor, targets: Tensor, true_weight: float = 65.0
) -> Tensor:
    """`cross_entropy` + `mse_weighted` with another weight, as in the original study's code."""
    squared = squares(true_weight, 1 / len(weight))
    return mean(hidden, weight, targets, over_logits(cross_entropy_chunk), squared)


@loss(
    label="z-loss",
    formula="−log <i>p</i><sub>y</sub> + {scale} log<sup>2</sup> <i>Z</i>",
    source="Chowdhery et al. 2022",
)
def z_loss(hidden: Tensor, weight: Tensor, targets: Tensor, scale: float = 1e-4) -> Tensor:
    """-log p_y + scale log^2 Z, Z = sum_j exp f_j. Chowdhery et al. 2022 (arXiv 2204.02311)."""
    return mean(hidden, weight, targets, over_logits(z_loss_chunk(scale)))


@loss(
    label="Brier",
    formula="Σ<sub>j</sub> (1[<i>j</i>=<i>y</i>] − <i>p</i><sub>j</sub>)<sup>2</sup>",
    source="Brier 1950; a proper score, Shao et al. 2024",
    squared=True,
)
def brier(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """sum_j (onehot_j - p_j)^2, p = softmax(f): a proper squared score (arXiv 2405.18906)."""
    return mean(hidden, weight, targets, over_logits(brier_chunk))


@loss(
    label="spherical",
    formula="−log <i>p</i><sub>y</sub>, <i>p</i><sub>j</sub> ∝ "
    "<i>f</i><sub>j</sub><sup>2</sup> + {epsilon}",
    source="spherical softmax, de Brébisson &amp; Vincent 2015; a proper score",
    link=spherical_link,
)
def spherical(hidden: Tensor, weight: Tensor, targets: Tensor, epsilon: float = 0.1) -> Tensor:
    """-log p_y, p_j proportional to f_j^2 + epsilon (arXiv 1511.05042), without logits."""
    return mean(hidden, weight, targets, log_share(epsilon, 0.0, 1.0))


@loss(
    label="Taylor",
    formula="−log <i>p</i><sub>y</sub>, <i>p</i><sub>j</sub> ∝ "
    "1 + <i>f</i><sub>j</sub> + <i>f</i><sub>j</sub><sup>2</sup>/2",
    source="Taylor softmax, de Brébisson &amp; Vincent 2015; a proper score",
    link=taylor_link,
)
def taylor(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """-log p_y, p_j proportional to 1 + f_j + f_j^2/2 (arXiv 1511.05042), without logits."""
    return mean(hidden, weight, targets, log_share(1.0, 1.0, 0.5))
