"""Negative log likelihood of whole held-out stories, and fitted softmax temperatures.

    squentropy evaluate checkpoints/grammar/final/mse/seed1 --data data/grammar

Each story is scored separately, after an end-of-text token. Every token is scored once, including
the story's own end-of-text token. A story longer than the context is scored in windows that overlap
by half, so every token beyond the first window has at least half a context before it.
"""

import math
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from squentropy.lm.matmul import times_transposed
from squentropy.lm.terms import ROWS
from squentropy.tokens.token_files import Split

if TYPE_CHECKING:
    from typing import Protocol

    class Sizes(Protocol):
        @property
        def block_size(self) -> int:
            """Context length in tokens."""

    class LanguageModel(Protocol):
        """A module that can be scored: its logits are hidden states times a matrix."""

        training: bool

        @property
        def config(self) -> Sizes: ...

        @property
        def output_weight(self) -> Tensor:
            """(C, D)"""

        def __call__(self, ids: Tensor, /) -> Tensor:
            """ids (B, T) -> hidden states (B, T, D)"""

        def train(self, mode: bool = True, /) -> object: ...

        def eval(self) -> object: ...


Link = Callable[[Tensor], Tensor]

CHUNK_ELEMENTS = 1 << 22  # logits per chunk: 16 MB, which nearly fit in a processor's cache
TEMPERATURES = (1e-4, 1e3)  # the range of a fit, which ends at a bound if the optimum is beyond it
FIT_TOKENS = 1 << 16  # validation tokens: ample for fitting one number, and they fit in memory


@dataclass(frozen=True)
class Scores:
    """Scores of a split's tokens in order, arrays of shape (T,); `offsets` is (stories + 1,)."""

    nll: np.ndarray  # float32, nats
    correct: np.ndarray  # bool: the most likely token is the true one
    offsets: np.ndarray

    def mean_nll(self) -> float:
        """Nats per token."""
        return float(self.nll.mean(dtype=np.float64))


@torch.inference_mode()
def score(
    hidden: Tensor, weight: Tensor, targets: Tensor, link: Link | None = None
) -> dict[str, Tensor]:
    """The fields of `Scores` for each position, (N,), a few hundred positions at a time.

    hidden (N, D), weight (C, D), targets (N,). The nll is under softmax, or under the
    probabilities of a `link`.
    """

    def measure(logits: Tensor, y: Tensor) -> dict[str, Tensor]:
        p = None if link is None else link(logits)
        nll = logits.logsumexp(-1) - at(logits, y) if p is None else -at(p, y).log()
        return {"nll": nll, "correct": logits.argmax(-1) == y}

    return by_rows(measure, hidden, weight, targets)


def by_rows(
    measure: Callable[[Tensor, Tensor], dict[str, Tensor]],
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
) -> dict[str, Tensor]:
    """`measure(logits, targets)` over all positions, a few hundred at a time; each value (N,)."""
    parts: dict[str, list[Tensor]] = defaultdict(list)
    rows = max(1, min(ROWS, CHUNK_ELEMENTS // len(weight)))
    weight = weight.to(hidden.dtype)
    for h, y in zip(hidden.split(rows), targets.split(rows), strict=True):
        for name, values in measure(times_transposed(h, weight), y).items():
            parts[name].append(values)
    return {name: torch.cat(values) for name, values in parts.items()}


def at(values: Tensor, targets: Tensor) -> Tensor:
    """Each row's value at its target: (n, C), (n,) -> (n,)."""
    return values.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def windows(length: int, block: int) -> list[tuple[int, int, int]]:
    """The windows of a story of `length` tokens: (start, first scored, end) of each."""
    cut = [(0, 0, min(length, block))]
    step = max(1, block // 2)
    while cut[-1][2] < length:
        end = min(cut[-1][2] + step, length)
        cut.append((end - block, cut[-1][2], end))
    return cut


def score_split(
    model: "LanguageModel",
    split: Split,
    end_of_text: int,
    *,
    batch_tokens: int,
    link: Link | None = None,
    temperature: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Scores:
    """Score every token of `split` once, `batch_tokens` inputs at a time, longest stories first.

    The outputs are divided by `temperature`; probabilities are their softmax, or those of `link`.
    """

    def measure(hidden: Tensor, targets: Tensor) -> dict[str, Tensor]:
        return score(hidden / temperature, model.output_weight, targets, link)

    columns = by_token(model, split, end_of_text, measure, batch_tokens=batch_tokens, dtype=dtype)
    return Scores(**columns, offsets=split.offsets)


@torch.inference_mode()
def fit_temperature(hidden: Tensor, weight: Tensor, targets: Tensor) -> float:
    """The temperature T within `TEMPERATURES` that minimises the nll of softmax(f / T).

    f = hidden @ weight.T; hidden (N, D), weight (C, D), targets (N,). The nll is convex in b = 1/T:
    with p = softmax(b f), its first derivative is the mean of E_p[f] - f_y and its second the mean
    of Var_p[f]. Uses Newton's method in log b, safeguarded by a bracket around the root.
    """

    def slopes(log_b: float) -> tuple[float, float]:
        def of_rows(logits: Tensor, y: Tensor) -> dict[str, Tensor]:
            logits = logits - at(logits, y).unsqueeze(-1)
            p = (math.exp(log_b) * logits).softmax(-1)
            first = (p * logits).sum(-1)
            return {"first": first, "second": (p * logits.square()).sum(-1) - first.square()}

        sums = by_rows(of_rows, hidden, weight, targets)
        first, second = (sums[key].double().mean().item() for key in ("first", "second"))
        return first, math.exp(log_b) * second

    coldest, hottest = TEMPERATURES
    low, high = -math.log(hottest), -math.log(coldest)
    if slopes(low)[0] >= 0:
        return hottest
    if slopes(high)[0] <= 0:
        return coldest
    log_b = 0.0
    for _ in range(100):
        first, second = slopes(log_b)
        low, high = (log_b, high) if first < 0 else (low, log_b)
        step = first / second if second > 0 else math.inf
        new = log_b - step if low < log_b - step < high else (low + high) / 2
        if abs(new - log_b) < 1e-7:  # relative error of T, the resolution of float32
            return math.exp(-new)
        log_b = new
    return math.exp(-log_b)


def fit_on(
    model: "LanguageModel",
    split: Split,
    end_of_text: int,
    *,
    batch_tokens: int,
    dtype: torch.dtype = torch.float32,
) -> float:
    """The temperature that minimises the nll of a split's first stories.

    Uses as many stories as fit in `FIT_TOKENS` tokens, and at least one.
    """
    stories = np.searchsorted(split.offsets, FIT_TOKENS, side="right") - 1
    held = by_token(
        model,
        split.head(max(1, int(stories))),
        end_of_text,
        lambda hidden, targets: {"hidden": hidden.float(), "targets": targets},
        batch_tokens=batch_tokens,
        dtype=dtype,
    )
    weight = model.output_weight
    hidden, targets = (torch.from_numpy(held[x]).to(weight.device) for x in ("hidden", "targets"))
    return fit_temperature(hidden, weight, targets)


@torch.inference_mode()
def by_token(
    model: "LanguageModel",
    split: Split,
    end_of_text: int,
    measure: Callable[[Tensor, Tensor], dict[str, Tensor]],
    *,
    batch_tokens: int,
    dtype: torch.dtype = torch.float32,
) -> dict[str, np.ndarray]:
    """`measure(hidden (n, D), targets (n,))` for every token of `split` once.

    Each value (n, ...) is returned as (T, ...), in the order of the tokens. Runs on `batch_tokens`
    inputs at a time, the longest stories first.
    """
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
        for name, values in measure(hidden[mask], answers).items():
            column = values.cpu().numpy()
            if name not in columns:
                columns[name] = np.empty((total, *column.shape[1:]), column.dtype)
            columns[name][places[scored]] = column
    model.train(training)
    return columns


@torch.inference_mode()
def random_batch_estimate(
    model: "LanguageModel",
    split: Split,
    loss: Callable[[Tensor, Tensor, Tensor], Tensor],
    *,
    batches: int,
    batch_size: int,
    seed: int,
) -> tuple[float, float]:
    """The original study's estimator: mean nll and mean loss of random blocks across stories."""
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
