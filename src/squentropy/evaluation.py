"""Negative log likelihood of whole held-out stories, and what follows from it.

    squentropy evaluate checkpoints/grammar/final/mse/seed1 --data data/grammar

Each story is scored from its own start, after an end-of-text token, its own end included, every
token once. A story longer than the context is scored in windows that overlap by half, so that
every token but the first ones has at least half a context before it.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from squentropy.losses import ROWS, Loss, logits_by_rows
from squentropy.model import GPT
from squentropy.tokens import Split

Link = Callable[[Tensor], Tensor]

CHUNK_ELEMENTS = 1 << 22  # logits held at once: 16 MB, which nearly stay in a processor's cache


@dataclass(frozen=True)
class Scores:
    """A split's tokens, one after the other, each array (T,); `offsets` (stories + 1,)."""

    nll: np.ndarray  # float32, nats
    correct: np.ndarray  # bool: the likeliest token is the true one
    top5: np.ndarray  # bool: the true token is among the five likeliest
    confidence: np.ndarray  # float32: the probability of the likeliest token
    offsets: np.ndarray
    link_nll: np.ndarray | None = None  # float32, nats: of the inverse link's probabilities

    def by_story(self, values: np.ndarray) -> np.ndarray:
        """Sums over each story's tokens: (stories,) float64."""
        return np.add.reduceat(values.astype(np.float64), self.offsets[:-1])

    @property
    def tokens(self) -> np.ndarray:
        """Tokens a story, end of text included: (stories,) int64."""
        return np.diff(self.offsets)

    def mean_nll(self) -> float:
        """Nats a token."""
        return float(self.nll.mean(dtype=np.float64))

    def mean_link_nll(self) -> float | None:
        """Nats a token by the inverse link; None where the loss has none."""
        return None if self.link_nll is None else float(self.link_nll.mean(dtype=np.float64))

    def calibration(self, bins: int = 15) -> dict[str, list]:
        """Tokens by confidence in bins of equal width: their number, and sums of two columns.

        The expected calibration error follows from these (Guo et al. 2017, arXiv 1706.04599).
        """
        place = np.minimum((self.confidence * bins).astype(int), bins - 1)
        sums = {"confidence": self.confidence, "correct": self.correct}
        counted = {"tokens": np.bincount(place, minlength=bins).tolist()}
        for name, values in sums.items():
            counted[name] = np.bincount(place, values, minlength=bins).round(6).tolist()
        return counted


@torch.inference_mode()
def score(
    hidden: Tensor, weight: Tensor, targets: Tensor, link: Link | None = None
) -> dict[str, Tensor]:
    """What `Scores` holds of each position, (N,), a few hundred positions' logits at a time.

    hidden (N, D), weight (C, D), targets (N,); `link_nll` only where there is a `link`.
    """
    parts: dict[str, list[Tensor]] = defaultdict(list)
    rows = max(1, min(ROWS, CHUNK_ELEMENTS // len(weight)))
    for _, logits, y in logits_by_rows(hidden, weight.to(hidden.dtype), targets, rows):
        true = logits.gather(-1, y.unsqueeze(-1))
        log_z = logits.logsumexp(-1)
        largest, likeliest = logits.max(-1)
        parts["nll"].append(log_z - true.squeeze(-1))
        parts["correct"].append(likeliest == y)
        parts["top5"].append((logits > true).sum(-1) < 5)
        parts["confidence"].append((largest - log_z).exp())
        if link is not None:
            parts["link_nll"].append(-link(logits).gather(-1, y.unsqueeze(-1)).squeeze(-1).log())
    return {name: torch.cat(values) for name, values in parts.items()}


def windows(length: int, block: int) -> list[tuple[int, int, int]]:
    """How a story of `length` tokens is cut: (start, first scored, end) of each window."""
    cut = [(0, 0, min(length, block))]
    step = max(1, block // 2)
    while cut[-1][2] < length:
        end = min(cut[-1][2] + step, length)
        cut.append((end - block, cut[-1][2], end))
    return cut


@torch.inference_mode()
def score_split(
    model: GPT,
    split: Split,
    end_of_text: int,
    *,
    batch_tokens: int,
    link: Link | None = None,
    dtype: torch.dtype = torch.float32,
) -> Scores:
    """Score every token of `split` once; `batch_tokens` inputs at a time, the longest first."""
    device = model.output_weight.device
    training = model.training
    model.eval()
    jobs = [
        (end - start, story, start, first, end)
        for story in range(len(split))
        for start, first, end in windows(len(split.story(story)), model.config.block_size)
    ]
    jobs.sort(key=lambda job: (-job[0], job[1:]))
    total = int(split.offsets[-1])
    columns: dict[str, np.ndarray] = {}
    done = 0
    while done < len(jobs):
        width = jobs[done][0]
        batch = jobs[done : done + max(1, batch_tokens // width)]
        done += len(batch)
        inputs = np.full((len(batch), width), end_of_text, dtype=np.int64)
        targets = np.zeros((len(batch), width), dtype=np.int64)
        scored = np.zeros((len(batch), width), dtype=bool)
        places = np.zeros((len(batch), width), dtype=np.int64)
        for row, (size, story, start, first, end) in enumerate(batch):
            ids = split.story(story)
            inputs[row, (start == 0) : size] = ids[max(start - 1, 0) : end - 1]
            targets[row, :size] = ids[start:end]
            scored[row, first - start : size] = True
            places[row, :size] = split.offsets[story] + np.arange(start, end)
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            hidden = model(torch.from_numpy(inputs).to(device))
        mask = torch.from_numpy(scored).to(device)
        answers = torch.from_numpy(targets).to(device)[mask]
        for name, values in score(hidden[mask], model.output_weight, answers, link).items():
            column = values.cpu().numpy()
            columns.setdefault(name, np.empty(total, column.dtype))[places[scored]] = column
    model.train(training)
    return Scores(**columns, offsets=split.offsets)


@torch.inference_mode()
def random_batch_estimate(
    model: GPT, split: Split, loss: Loss, *, batches: int, batch_size: int, seed: int
) -> tuple[float, float]:
    """The seed study's own estimate: mean nll and mean loss of blocks drawn across stories."""
    block = min(model.config.block_size, len(split.ids) - 1)
    weight = model.output_weight
    draw = np.random.Generator(np.random.Philox(key=seed))
    starts = draw.integers(0, len(split.ids) - block, size=(batches, batch_size))
    nll, value = 0.0, 0.0
    model.eval()
    for row in starts:
        blocks = np.stack([split.ids[s : s + block + 1] for s in row]).astype(np.int64)
        ids = torch.from_numpy(blocks).to(weight.device)
        hidden, targets = model(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()
        nll += score(hidden, weight, targets)["nll"].cpu().double().mean().item() / batches
        value += loss(hidden, weight, targets).item() / batches
    return nll, value
