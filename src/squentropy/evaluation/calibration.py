"""Metrics of a model on a split, for each way to read its outputs as probabilities.

    softmax        softmax of the outputs
    tempered       softmax of the outputs / T, with a temperature T fitted on the validation split
    own            the loss's own link, for losses that have one (losses.own_link);
                   `own 0.0001` is the same link with another floor

Each reading has its nll, its Brier score, and its calibration: how often the most likely token is
the true one, by its predicted probability (Guo et al. 2017, arXiv 1706.04599). Logits are computed
for a few hundred positions at a time, as in lm/scoring.py. Training does not compute these metrics.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from squentropy.lm.model import GPT
from squentropy.lm.scoring import Link, at, by_rows, by_token
from squentropy.tokens.token_files import Split

Reading = Callable[[Tensor], Tensor]
"""From outputs (n, C) to log probabilities (n, C)."""


def readings(temperature: float, links: Mapping[str, Link]) -> dict[str, Reading]:
    """All readings of a model's outputs, by name: softmax, tempered, and each of the links."""
    ways: dict[str, Reading] = {
        "softmax": lambda logits: logits.log_softmax(-1),
        "tempered": lambda logits: (logits / temperature).log_softmax(-1),
    }
    return ways | {name: _read_by(link) for name, link in links.items()}


def _read_by(link: Link) -> Reading:
    return lambda outputs: link(outputs).log()


@torch.inference_mode()
def measure(
    hidden: Tensor, weight: Tensor, targets: Tensor, ways: dict[str, Reading]
) -> dict[str, Tensor]:
    """hidden (N, D), weight (C, D), targets (N,) -> columns (N,).

    correct, top5                  whether the true token is the most likely, in the top five
    READING/nll                    nats
    READING/brier                  sum_j (onehot_j - p_j)^2, 0 to 2
    READING/confidence             the probability of the most likely token
    """

    def of_rows(logits: Tensor, y: Tensor) -> dict[str, Tensor]:
        true = at(logits, y).unsqueeze(-1)
        columns = {"correct": logits.argmax(-1) == y, "top5": (logits > true).sum(-1) < 5}
        for name, read in ways.items():
            log_p = read(logits)
            nll = -at(log_p, y)
            p = log_p.exp()
            columns[f"{name}/nll"] = nll
            columns[f"{name}/brier"] = p.square().sum(-1) - 2 * (-nll).exp() + 1
            columns[f"{name}/confidence"] = p.amax(-1)
        return columns

    return by_rows(of_rows, hidden, weight, targets)


# --- sums over a split's tokens -----------------------------------------------------------------


def measure_split(
    model: GPT,
    split: Split,
    end_of_text: int,
    frequency: np.ndarray,
    *,
    temperature: float,
    links: Mapping[str, Link],
    batch_tokens: int,
    bins: int,
) -> dict[str, Any]:
    """A split's metrics as sums over stories and bins, for a JSON file.

    frequency (C,): how often each token occurs per million tokens of train.

    stories     tokens, correct, top5: one number per story
    readings    by name: nll (sum per story, nats), brier (mean), ece, calibration
    profile     by position and by frequency, in bins that double: tokens, and each reading's nll
    """
    ways = readings(temperature, links)
    columns = by_token(
        model,
        split,
        end_of_text,
        lambda hidden, targets: measure(hidden, model.output_weight, targets, ways),
        batch_tokens=batch_tokens,
    )
    sizes = np.diff(split.offsets)
    measured: dict[str, Any] = {
        "stories": {
            "tokens": sizes.tolist(),
            **{c: by_story(columns[c], split).astype(int).tolist() for c in ("correct", "top5")},
        },
        "readings": {},
    }
    for name in ways:
        counted = calibration(columns[f"{name}/confidence"], columns["correct"], bins)
        measured["readings"][name] = {
            "nll": _rounded(by_story(columns[f"{name}/nll"], split)),
            "brier": float(columns[f"{name}/brier"].mean(dtype=np.float64)),
            "ece": calibration_error(counted),
            "calibration": counted,
        }
    nll = {name: columns[f"{name}/nll"] for name in ways}
    position = np.arange(len(split.ids)) - np.repeat(split.offsets[:-1], sizes)
    measured["profile"] = {
        "position": profile(position, nll),
        "frequency": profile(frequency[split.ids], nll),
    }
    return measured


def per_million(split: Split, vocab_size: int) -> np.ndarray:
    """How often each token occurs per million tokens of a split, rounded down: (C,) int64."""
    counts = split.counts(vocab_size)
    return counts * 1_000_000 // counts.sum()


def by_story(values: np.ndarray, split: Split) -> np.ndarray:
    """Sums over each story's tokens: (T,) -> (stories,) float64."""
    return np.add.reduceat(values.astype(np.float64), split.offsets[:-1])


def calibration(confidence: np.ndarray, correct: np.ndarray, bins: int) -> dict[str, list[Any]]:
    """Per confidence bin of equal width: the number of tokens, and sums of the two columns."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return {
        "tokens": np.bincount(place, minlength=bins).tolist(),
        "correct": np.bincount(place, correct, minlength=bins).astype(int).tolist(),
        "confidence": _rounded(np.bincount(place, confidence, minlength=bins)),
    }


def calibration_error(counted: dict[str, list[Any]]) -> float:
    """ECE: the mean over tokens of |accuracy - confidence| in their bin (Guo et al. 2017)."""
    gaps = np.abs(np.array(counted["correct"]) - np.array(counted["confidence"]))
    return float(gaps.sum() / np.sum(counted["tokens"]))


def profile(values: np.ndarray, columns: dict[str, np.ndarray]) -> dict[str, list[Any]]:
    """Tokens by a non-negative value, in the bins [0, 1), [1, 2), [2, 4), [4, 8), ...

    For each non-empty bin: its ends, the number of tokens, and sums of the columns.
    """
    exponents, place = np.unique(np.frexp(np.floor(values))[1], return_inverse=True)
    ends = 2 ** exponents.astype(np.int64)
    counted = {"low": (ends // 2).tolist(), "high": ends.tolist()}
    counted["tokens"] = np.bincount(place).tolist()
    return counted | {name: _rounded(np.bincount(place, c)) for name, c in columns.items()}


def _rounded(values: np.ndarray) -> list[float]:
    """Round to six decimals, 1e-6 nats per story: well below the error of float32."""
    return np.round(values, 6).tolist()
