"""The setup of a run: model, batches, loss and optimizer, on its device.

Every random draw depends only on the seed and the number of the micro-batch. The same seed gives
the same initial weights and the same batches for every loss, whatever ran before and however many
processes share the micro-batches.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from squentropy.base.errors import SquentropyError
from squentropy.lm.cpu_block import Noise, keep_freed_memory
from squentropy.lm.devices import pick_device, pick_dtype
from squentropy.lm.model import GPT, Config
from squentropy.lm.optimizer import AdamW
from squentropy.lm.scoring import Scores, fit_on, score_split
from squentropy.losses import LOSSES, fuse_chunks, own_link
from squentropy.study.grid import Cell
from squentropy.study.params import Study, Train
from squentropy.tokens.token_files import Split, TokenFolder
from squentropy.training.distributed import Group


@dataclass(frozen=True)
class Setup:
    """A run that is ready to train.

    forward  the model, compiled or distributed over processes if the parameters ask for it
    by_hand  whether to use the blocks of lm/cpu_block.py, with their own dropout masks
    """

    study: Study
    cell: Cell
    train: Split
    validation: Split
    end_of_text: int
    group: Group
    device: torch.device
    dtype: torch.dtype
    model: GPT
    forward: Callable[..., Tensor]
    by_hand: bool
    loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    optimizer: AdamW

    def tensors(self) -> dict[str, Tensor]:
        """All tensors that a step changes, by name."""
        return self.model.state_dict() | self.optimizer.state()

    def gradients(self, iteration: int) -> Tensor:
        """Forward and backward pass; returns this process's part of the iteration's mean loss."""
        params, own = self.study.train, self.group.share(self.study.train.accumulation)
        total = torch.zeros((), device=self.device)
        block = self.study.model.block_size
        drawn = batches(self.train, params, block, self.cell.seed, iteration, own)
        for number, (inputs, targets) in zip(own, drawn):
            since_start = iteration * params.accumulation + number
            noise = Noise(self.cell.seed, since_start) if self.by_hand else None
            torch.manual_seed(self.cell.seed * 2**32 + since_start)  # for dropout without noise
            x, y = _to_device(inputs, self.device), _to_device(targets, self.device)
            with self.group.gathers(self.forward, last=number == own[-1]):
                with _autocast(self.device, self.dtype):
                    hidden = self.forward(x, noise=noise).flatten(0, 1)
                    loss = self.loss(hidden, self.model.output_weight, y.flatten())
                (loss / len(own)).backward()
            total += loss.detach() / params.accumulation
        return total

    def scores(self, split: Split, temperature: float = 1.0) -> Scores:
        """A split's scores under the loss's own link, or else softmax(logits / temperature)."""
        return score_split(
            self.model,
            split,
            self.end_of_text,
            link=own_link(self.cell.loss, self.study.evaluate.link_floor),
            temperature=temperature,
            batch_tokens=self.study.evaluate.batch_tokens,
            dtype=self.dtype,
        )

    def tempered_nll(self) -> float | None:
        """Validation nll with a temperature fitted on validation; None for a loss with a link."""
        if own_link(self.cell.loss, self.study.evaluate.link_floor) is not None:
            return None
        fitted = fit_on(
            self.model,
            self.validation,
            self.end_of_text,
            batch_tokens=self.study.evaluate.batch_tokens,
            dtype=self.dtype,
        )
        return self.scores(self.validation, fitted).mean_nll()


def set_up(study: Study, cell: Cell, tokens: TokenFolder, group: Group) -> Setup:
    """Set up a cell's run. Raises SquentropyError if the train split does not fill one block."""
    params, block = study.train, study.model.block_size
    torch.set_num_threads(params.threads)
    device = pick_device(params.device, params.runs_per_gpu)
    split = tokens.split("train")
    if len(split.ids) <= block:
        raise SquentropyError(
            f"{tokens.folder}: the train split has {len(split.ids)} tokens, too few for one block "
            f"of {block} and its target; give more stories or a smaller model.block_size"
        )
    model = build_model(study, cell, tokens.vocab_size).to(device)
    compiled = params.compile == "always" or (params.compile == "auto" and device.type == "cuda")
    if compiled:
        torch.compiler.reset()  # or compilation would stop after several cells in one process
    if compiled and device.type == "cuda":
        fuse_chunks()
    by_hand = device.type == "cpu" and not compiled
    if by_hand:
        keep_freed_memory()
    forward: nn.Module = torch.compile(model) if compiled else model  # type: ignore[assignment]
    return Setup(
        study,
        cell,
        split,
        tokens.split("validation"),
        tokens.end_of_text,
        group,
        device,
        pick_dtype(params.dtype, device),
        model,
        group.wrap(forward),
        by_hand,
        LOSSES[cell.loss],
        AdamW(
            model.parameters(),
            beta1=params.beta1,
            beta2=params.beta2,
            weight_decay=params.weight_decay,
            clip=params.grad_clip,
            hidden=model.hidden_matrices(),
            multiple=model.config.multiple,
        ),
    )


def build_model(study: Study, cell: Cell, vocab_size: int) -> GPT:
    """A new model; its weights depend on the seed and the shape, never on the loss."""
    torch.manual_seed(cell.seed)
    shape = study.model.model_dump()
    return GPT(Config(vocab_size, n_layer=cell.n_layer, dropout=cell.dropout, **shape))


def batches(
    split: Split, params: Train, block: int, seed: int, iteration: int, numbers: range | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The micro-batches of an iteration: inputs and targets, each (batch, block) int64.

    All of them, or only those in `numbers`.
    """
    draw = np.random.Generator(np.random.Philox(key=seed, counter=[0, 0, 0, iteration]))
    starts = draw.integers(0, len(split.ids) - block, size=(params.accumulation, params.batch_size))
    for row in starts if numbers is None else starts[numbers]:
        blocks = np.stack([split.ids[s : s + block + 1] for s in row]).astype(np.int64)
        yield blocks[:, :-1], blocks[:, 1:]


def _to_device(array: np.ndarray, device: torch.device) -> Tensor:
    """Non-blocking copy, so that the GPU keeps running queued work."""
    # Contiguous, or the copy would go through memory that is not pinned.
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return (
        tensor.pin_memory().to(device, non_blocking=True)
        if device.type == "cuda"
        else tensor.to(device)
    )


def _autocast(device: torch.device, dtype: torch.dtype) -> contextlib.AbstractContextManager:
    if dtype == torch.float32:
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype)
