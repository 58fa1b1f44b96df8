"""AdamW on torch's fused kernel.

`torch.optim.AdamW(fused=True)` runs the same kernel to the same bits (tested), but making one
imports torch's compiler, which takes longer than a small cell of the sweep trains.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

NORM_DECAY = 0.95


class AdamW:
    """Loshchilov & Hutter 2019 (arXiv 1711.05101), with nanoGPT's grouping.

    Matrices and embeddings decay, biases and norms do not. `step(lr)` requires all gradients and
    clears them.

    clip  longest that a gradient may be, in lengths of the usual one: the running mean of the
          norms so far, the last some 20 counting most; 0: no clipping. Relative, so that a loss
          whose gradients are long or short on the whole is not treated otherwise than another.
    hidden, multiple  parameters that muP gives the learning rate lr / multiple
    """

    def __init__(
        self,
        parameters,
        *,
        beta1: float,
        beta2: float,
        weight_decay: float,
        clip: float = 0.0,
        hidden: Iterable[Tensor] = (),
        multiple: float = 1.0,
    ):
        parameters, hidden = list(parameters), list(hidden) if multiple != 1 else []
        apart = {id(p) for p in hidden}
        self.betas, self.clip = (beta1, beta2), clip
        self.usual_norm = torch.zeros((), device=parameters[0].device)
        self.groups = [
            _Group([p for p in parameters if p.dim() >= 2 and id(p) not in apart], weight_decay),
            _Group([p for p in parameters if p.dim() < 2], 0.0),
        ]
        if hidden:
            # A step's decay, rate times weight_decay, is that of any width, as in muP's MuAdamW.
            self.groups.append(_Group(hidden, weight_decay * multiple, multiple))

    def state(self) -> dict[str, Tensor]:
        """Every tensor of the optimizer's own by a name, to save and to restore."""
        return {"usual_norm": self.usual_norm} | {
            f"{kind}.{number}.{i}": tensor
            for number, group in enumerate(self.groups)
            for kind in ("means", "squares", "steps")
            for i, tensor in enumerate(getattr(group, kind))
        }

    @torch.no_grad()
    def step(self, lr: float) -> None:
        if self.clip:
            self._clip()
        self._update(lr)

    def _update(self, lr: float) -> None:
        for group in self.groups:
            if group.parameters:
                group.count.add_(1)
                torch._fused_adamw_(
                    group.parameters,
                    group.gradients(),
                    group.means,
                    group.squares,
                    [],
                    group.steps,
                    lr=lr / group.multiple,
                    beta1=self.betas[0],
                    beta2=self.betas[1],
                    weight_decay=group.weight_decay,
                    eps=1e-8,
                    amsgrad=False,
                    maximize=False,
                )
            for parameter in group.parameters:
                parameter.grad = None

    def _clip(self) -> None:
        """Shorten a gradient longer than `clip` usual ones, without waiting for a GPU."""
        gradients = [gradient for group in self.groups for gradient in group.gradients()]
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
        usual = torch.where(self.usual_norm > 0, self.usual_norm, norm)
        self.usual_norm.copy_(torch.lerp(usual, norm, 1 - NORM_DECAY))
        longest = self.clip * self.usual_norm
        torch._foreach_mul_(gradients, (longest / norm.clamp(min=1e-30)).clamp_(max=1.0))


class _Group:
    def __init__(self, parameters: list[Tensor], weight_decay: float, multiple: float = 1.0):
        self.parameters = parameters
        self.weight_decay, self.multiple = weight_decay, multiple
        self.means = [torch.zeros_like(p) for p in parameters]
        self.squares = [torch.zeros_like(p) for p in parameters]
        device = parameters[0].device if parameters else None
        self.count = torch.zeros(len(parameters), device=device)
        self.steps = list(self.count.unbind())  # views: all are counted at once

    def gradients(self) -> list[Tensor]:
        return [p.grad for p in self.parameters if p.grad is not None]
