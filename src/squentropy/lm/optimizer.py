"""AdamW on torch's fused kernel.

`torch.optim.AdamW(fused=True)` runs the same kernel to the same bits (tested), but making one
imports torch's compiler, which takes longer than a small cell of the sweep trains.
"""

import torch
from torch import Tensor


class AdamW:
    """Loshchilov & Hutter 2019 (arXiv 1711.05101), with nanoGPT's grouping.

    Matrices and embeddings decay, biases and norms do not. `step(lr)` wants every gradient set,
    and forgets the gradients.
    """

    def __init__(self, parameters, *, beta1: float, beta2: float, weight_decay: float):
        parameters = list(parameters)
        self.betas = (beta1, beta2)
        self.groups = [
            _Group([p for p in parameters if p.dim() >= 2], weight_decay),
            _Group([p for p in parameters if p.dim() < 2], 0.0),
        ]

    def state(self) -> dict[str, Tensor]:
        """Every tensor of the optimizer's own by a name, to save and to restore."""
        return {
            f"{kind}.{number}.{i}": tensor
            for number, group in enumerate(self.groups)
            for kind in ("means", "squares", "steps")
            for i, tensor in enumerate(getattr(group, kind))
        }

    @torch.no_grad()
    def step(self, lr: float) -> None:
        for group in self.groups:
            if group.parameters:
                group.count.add_(1)
                torch._fused_adamw_(
                    group.parameters,
                    [p.grad for p in group.parameters],
                    group.means,
                    group.squares,
                    [],
                    group.steps,
                    lr=lr,
                    beta1=self.betas[0],
                    beta2=self.betas[1],
                    weight_decay=group.weight_decay,
                    eps=1e-8,
                    amsgrad=False,
                    maximize=False,
                )
            for parameter in group.parameters:
                parameter.grad = None


class _Group:
    def __init__(self, parameters: list[Tensor], weight_decay: float):
        self.parameters = parameters
        self.weight_decay = weight_decay
        self.means = [torch.zeros_like(p) for p in parameters]
        self.squares = [torch.zeros_like(p) for p in parameters]
        device = parameters[0].device if parameters else None
        self.count = torch.zeros(len(parameters), device=device)
        self.steps = list(self.count.unbind())  # views: all are counted at once
