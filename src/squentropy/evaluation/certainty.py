"""How far a model's predictions lie from the source's own, by how certain the source is.

Of the grammar's stories the exact distribution of every next token is known, so the divergence of a
model's from it can be computed at each place, where nll needs many tokens to average out the draw.
Its mean is what nll exceeds the entropy by, in expectation over that draw.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from squentropy.evaluation.calibration import Reading
from squentropy.lm.model import GPT
from squentropy.lm.scoring import by_token
from squentropy.tokens.token_files import Split

STORIES = 100
"""Of a split, whose predictions are compared."""
EDGES = (0.0, 0.01, 0.5, 1.0, 2.0)
"""Bins of the source's entropy, nats: from one edge to below the next, the last without end."""
ROWS = 512  # places whose probabilities are held at once


class Exact(NamedTuple):
    """The source's predictions of T tokens: the i-th one's are ids[starts[i]:starts[i + 1]]."""

    ids: np.ndarray  # (S,)
    probs: np.ndarray  # (S,), each prediction's add up to 1
    starts: np.ndarray  # (T + 1,)

    @property
    def entropy(self) -> np.ndarray:
        """Nats, (T,)."""
        return -np.add.reduceat(self.probs * np.log(self.probs), self.starts[:-1])


def measure(
    model: GPT, split: Split, end_of_text: int, exact: Exact, read: Reading, *, batch_tokens: int
) -> dict[str, list[float]]:
    """`compared` of the stories of `exact`, as sums over the places of each bin that holds any.

    low, tokens     where each bin begins, and how many places it holds
    """
    head = split.head(STORIES)
    held = by_token(
        model,
        head,
        end_of_text,
        lambda hidden, targets: {"hidden": hidden},
        batch_tokens=batch_tokens,
    )
    hidden = torch.from_numpy(held["hidden"]).to(model.output_weight.device)
    columns = compared(hidden, model.output_weight, head.ids, exact, read)
    bins, place = np.unique(np.digitize(exact.entropy, EDGES[1:]), return_inverse=True)
    counted = {"low": [EDGES[each] for each in bins], "tokens": np.bincount(place).tolist()}
    sums = {key: np.bincount(place, values) for key, values in columns.items()}
    return counted | {key: np.round(values, 6).tolist() for key, values in sums.items()}


@torch.inference_mode()
def compared(
    hidden: Tensor, weight: Tensor, targets: np.ndarray, exact: Exact, read: Reading
) -> dict[str, np.ndarray]:
    """hidden (T, D), weight (C, D), targets (T,) -> columns (T,) of float64, in nats but the last.

    entropy   of the source's prediction
    nll       of the token that came
    kl        the divergence of the model's prediction from the source's
    outside   the probability that the model gives to tokens that cannot come
    """
    parts: dict[str, list[Any]] = {"nll": [], "kl": [], "outside": []}
    for first in range(0, len(hidden), ROWS):
        last = min(first + ROWS, len(hidden))
        log_q = read(hidden[first:last] @ weight.T).double().cpu().numpy()
        starts = exact.starts[first : last + 1]
        span = slice(starts[0], starts[-1])
        rows = np.repeat(np.arange(last - first), np.diff(starts))
        log_of_those, p = log_q[rows, exact.ids[span]], exact.probs[span]
        begins = starts[:-1] - starts[0]
        parts["nll"].append(-log_q[np.arange(last - first), targets[first:last]])
        parts["kl"].append(np.add.reduceat(p * (np.log(p) - log_of_those), begins))
        parts["outside"].append(1 - np.add.reduceat(np.exp(log_of_those), begins))
    columns = {name: np.concatenate(values) for name, values in parts.items()}
    return {"entropy": exact.entropy} | columns
