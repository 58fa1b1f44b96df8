"""AdamW with torch's fused kernel.

`torch.optim.AdamW(fused=True)` runs the same kernel with bit-identical results (tested), but
creating one imports torch's compiler, which takes longer than training a small cell of the sweep.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

NORM_DECAY = 0.95


class AdamW:
    """Loshchilov & Hutter 2019 (arXiv 1711.05101), with nanoGPT's parameter groups.

    Weight decay applies to matrices and embeddings, not to biases and norms. `step(lr)` requires
    all gradients and clears them.

    clip  largest gradient norm, as a multiple of the usual norm, which is an exponential moving
          average over about 20 steps; 0 disables clipping. Clipping is relative so that losses
          with large and with small gradients are treated alike.
    hidden, multiple  parameters to which muP gives the learning rate lr / multiple
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
            # Decay per step, lr times weight_decay, is independent of width, as in muP's MuAdamW.
            self.groups.append(_Group(hidden, weight_decay * multiple, multiple))

    def state(self) -> dict[str, Tensor]:
        """The optimizer's tensors by name, to save and restore."""
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
        """Scale the gradient down to at most `clip` usual norms, without a GPU sync."""
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
        self.steps = list(self.count.unbind())  # views, so one addition counts for all

    def gradients(self) -> list[Tensor]:
        return [p.grad for p in self.parameters if p.grad is not None]
