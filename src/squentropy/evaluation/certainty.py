"""The divergence of a model's predictions from the source's own, by the source's entropy.

For the grammar's stories, the exact distribution of every next token is known. So the KL divergence
of a model can be computed at each position, whereas nll needs many tokens to average out their
randomness. In expectation over the tokens, the mean divergence is nll minus entropy.
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
"""Stories per split whose predictions are compared."""
EDGES = (0.0, 0.01, 0.5, 1.0, 2.0)
"""Lower edges of the entropy bins, in nats; the last bin is unbounded."""
ROWS = 512  # positions whose probabilities are computed at once


class Exact(NamedTuple):
    """The source's predictions of T tokens; prediction i is ids[starts[i]:starts[i + 1]]."""

    ids: np.ndarray  # (S,)
    probs: np.ndarray  # (S,); those of a prediction sum to 1
    starts: np.ndarray  # (T + 1,)

    @property
    def entropy(self) -> np.ndarray:
        """The entropy of each prediction in nats, (T,)."""
        return -np.add.reduceat(self.probs * np.log(self.probs), self.starts[:-1])


def measure(
    model: GPT, split: Split, end_of_text: int, exact: Exact, read: Reading, *, batch_tokens: int
) -> dict[str, list[float]]:
    """The columns of `compared` for the stories of `exact`, summed over each non-empty bin.

    low, tokens     the lower edge of each bin, and its number of positions
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
    """hidden (T, D), weight (C, D), targets (T,) -> columns (T,), float64, in nats but the last.

    entropy   entropy of the source's prediction
    nll       nll of the true token
    kl        KL divergence of the model's prediction from the source's
    outside   the model's total probability of tokens that are impossible under the source
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
