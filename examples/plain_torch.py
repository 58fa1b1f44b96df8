"""Train your own next-byte model with squentropy in plain PyTorch.

    python examples/plain_torch.py

Every loss in `squentropy.losses` takes the last hidden states and the output matrix, not logits, so
the model returns its hidden states and does not apply its last layer.
"""

import torch
from torch import Tensor, nn

from squentropy.losses import LOSSES

TEXT = b"Tim had a red kite. One day the kite was gone, and Tim was sad. It was in the tree! "


class Model(nn.Module):
    """A recurrent network over bytes."""

    def __init__(self, classes: int = 256, width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(classes, width)
        self.mix = nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, classes, bias=False)  # its weight is the output matrix (C, D)

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T) ids -> (B, T, D) hidden states."""
        return self.mix(self.embed(ids))[0]


def main(loss: str = "squentropy", steps: int = 60) -> list[float]:
    """Train and return the loss of each step."""
    torch.manual_seed(0)
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    ids = torch.tensor(list(TEXT * 4)).view(4, -1)
    losses = []
    for _ in range(steps):
        hidden, targets = model(ids[:, :-1]), ids[:, 1:]
        value = LOSSES[loss](hidden.flatten(0, 1), model.head.weight, targets.flatten())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return losses


if __name__ == "__main__":
    first, *_, last = main()
    print(f"squentropy: {first:.3f} at the start, {last:.3f} at the end")
