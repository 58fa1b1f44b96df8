"""Train many small cells at once, because one alone leaves most of a GPU idle.

    squentropy sweep checkpoints/grammar --tokens data/grammar/tokens --loss mse --stacked

Cells with the same shape and seed see the same batches. One forward and one backward pass serve
them all: each of their parameters is a slice of one tensor, and matrix products are batched. Each
cell has its own loss, optimizer, clipping, learning rate and end. Results equal those of loop.py up
to rounding, except that dropout masks are drawn differently, as in a compiled model.
"""

import itertools
import math
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from squentropy.base import progress as shown
from squentropy.base import storage
from squentropy.base.errors import Interrupted
from squentropy.lm.model import GPT, alibi
from squentropy.runs import provenance, records
from squentropy.study.grid import Cell
from squentropy.study.params import Schedule, Study
from squentropy.tokens.token_files import TokenFolder
from squentropy.training.distributed import Group
from squentropy.training.loop import (
    CHECK_EVERY,
    Result,
    _diverged,
    _look,
    _result,
    first_divergence,
    learning_rate,
)
from squentropy.training.resume import Progress, StateFile, Stop, stop_on_signal
from squentropy.training.run import Trained, _state, _write_run, train_run
from squentropy.training.setup import Setup, _autocast, _to_device, batches, set_up


class StackedGPT:
    """GPTs of the same shape, trained as one model: each parameter is one tensor for all of them.

    The models' own parameters become views of these tensors, so code that reads or changes a model
    still works. Their dropouts may differ.

    weights  by parameter name, (models, ...)
    """

    def __init__(self, models: list[GPT]):
        self.weights, _ = torch.func.stack_module_state(models)
        for index, model in enumerate(models):
            for name, parameter in model.named_parameters():
                parameter.data = self.weights[name].data[index]
        self.config, self.slopes = models[0].config, models[0].slopes
        dropouts = [model.config.dropout for model in models]
        weight = models[0].output_weight
        self.dropouts = torch.tensor(dropouts, dtype=weight.dtype, device=weight.device)
        self.alike = [(p, len(list(same))) for p, same in itertools.groupby(dropouts)]

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids (B, T) to the last hidden states of each model, (models, B T, n_embd)."""
        models, (batch, length) = len(self.dropouts), ids.shape
        rows = self.config.vocab_size * torch.arange(models, device=ids.device)
        x = F.embedding(ids.flatten() + rows[:, None], self.weights["wte.weight"].flatten(0, 1))
        if self.slopes is None:
            x, bias = x + self.weights["wpe.weight"][:, :length].repeat(1, batch, 1), None
        else:
            positions = torch.arange(length, device=ids.device)
            bias = alibi(self.slopes, positions, positions)
        x = self._dropped(x)
        for layer in range(self.config.n_layer):
            attn, mlp = f"h.{layer}.attn", f"h.{layer}.mlp"
            qkv = self._linear(self._norm(x, f"h.{layer}.ln_1"), f"{attn}.c_attn")
            mixed = self._attend(qkv.reshape(models * batch, length, -1), bias, batch)
            x = x + self._dropped(self._linear(mixed.reshape(x.shape), f"{attn}.c_proj"))
            inner = F.gelu(self._linear(self._norm(x, f"h.{layer}.ln_2"), f"{mlp}.c_fc"))
            x = x + self._dropped(self._linear(inner, f"{mlp}.c_proj"))
        return self.config.output(self._norm(x, "ln_f"))

    def _linear(self, x: Tensor, name: str) -> Tensor:
        y = x @ self.weights[f"{name}.weight"].mT
        return y + self.weights[f"{name}.bias"][:, None] if self.config.bias else y

    def _norm(self, x: Tensor, name: str) -> Tensor:
        y = F.layer_norm(x, x.shape[-1:]) * self.weights[f"{name}.weight"][:, None]
        return y + self.weights[f"{name}.bias"][:, None] if self.config.bias else y

    def _dropped(self, x: Tensor) -> Tensor:
        """Dropout with one draw per element for all models, as cells with one seed use on a CPU."""
        if not any(dropout for dropout, _ in self.alike):
            return x
        dropouts = self.dropouts[:, None, None]
        kept = torch.rand(x.shape[1:], device=x.device) >= dropouts
        return x * (kept / (1 - dropouts)).to(x.dtype)

    def _attend(self, qkv: Tensor, bias: Tensor | None, batch: int) -> Tensor:
        """Causal attention, (models B, T, 3 n_embd) -> (models B, T, n_embd)."""
        rows, length, _ = qkv.shape
        parts = qkv.view(rows, length, 3, self.config.n_head, -1).permute(2, 0, 3, 1, 4)
        bias = None if bias is None else bias.to(qkv.dtype)
        sizes = [models * batch for _, models in self.alike]
        mixed = []
        for (dropout, _), part in zip(self.alike, parts.split(sizes, 1), strict=True):
            query, key, value = part
            mixed.append(
                F.scaled_dot_product_attention(query, key, value, bias, dropout, bias is None)
            )
        return torch.cat(mixed).transpose(1, 2).reshape(rows, length, -1)


@dataclass
class _Member:
    """A cell of a stack and its progress."""

    run: Setup
    state: StateFile | None
    progress: Progress
    start: int  # iterations done before this call
    result: Result | None = None

    def learns_at(self, iteration: int) -> bool:
        return self.result is None and self.start <= iteration

    def hear(self, losses: list[float], iteration: int) -> None:
        """Add the losses of the iterations just before this one, skipping any known already."""
        known = len(self.progress.losses)
        self.progress.losses += losses[known - (iteration - len(losses)) :]
        bad = first_divergence(self.progress.losses, self.run.study.train.divergence, known)
        if bad is not None:
            self.result = _diverged(bad, self.progress)

    def look(self, iteration: int, stories: int) -> None:
        """Add a row to its history."""
        entry = _look(self.run, iteration, self.progress.losses, self.progress.history, stories)
        if all(map(math.isfinite, entry.values())):
            self.progress.history.append(entry)
        else:
            self.result = _diverged(iteration, self.progress)

    def save(self) -> None:
        if self.state is not None:
            self.state.save(self.progress, self.run.tensors())


def train_stack(
    study: Study,
    cells: list[Cell],
    tokens: TokenFolder,
    states: dict[Cell, StateFile] | None = None,
    stop: Stop | None = None,
) -> Iterator[tuple[Cell, GPT, Result]]:
    """Train cells that differ only in loss, learning rate and dropout; yields each when it ends.

    Like loop.train, each cell resumes from its state if it has one; a cell that is ahead waits for
    the others. A cell that diverges ends without affecting the others. When `stop` records a
    signal, saves the states and raises Interrupted.
    """
    runs = [set_up(study, cell, tokens, Group()) for cell in cells]
    stack = StackedGPT([run.model for run in runs])
    compiled = runs[0].forward is not runs[0].model
    forward = torch.compile(stack.forward) if compiled else stack.forward
    members = []
    for run in runs:
        state = (states or {}).get(run.cell)
        progress = state.load(run.tensors()) if state is not None else Progress()
        members.append(_Member(run, state, progress, len(progress.losses)))

    schedule = study.schedule(cells[0].phase, cells[0].iterations)
    check_every = 1 if runs[0].device.type == "cpu" else CHECK_EVERY
    begun = min(member.start for member in members)
    pending: list[Tensor] = []
    title = f"{len(cells)} cells of {cells[0].n_layer} layers"
    bar = shown.bar(range(begun, schedule.max_iters), title, "iterations")
    for iteration in bar:
        pending.append(_gradients(runs, stack, forward, iteration))
        _step(members, stack, iteration, schedule)

        done, asked = iteration + 1, stop.signal if stop is not None else None
        evaluate_now = done == schedule.max_iters or done % schedule.eval_interval == 0
        save_now = asked is not None or done % study.train.state_interval == 0
        if not (evaluate_now or save_now or len(pending) >= check_every):
            continue
        heard = torch.stack(pending, 1).tolist()
        pending.clear()
        for member, losses in zip(members, heard, strict=True):
            if member.learns_at(iteration):
                member.hear(losses, done)
                if evaluate_now and member.result is None:
                    member.look(done, schedule.eval_stories)
                if member.result is not None:
                    yield member.run.cell, member.run.model, member.result
                elif save_now:
                    member.save()
        if all(member.result is not None for member in members):
            break
        if asked is not None:
            bar.close()
            name = signal.Signals(asked).name
            raise Interrupted(asked, f"{title}: {name} after iteration {done}")

    for member in members:
        if member.result is None:
            result = _result(member.run, schedule.max_iters, member.progress)
            yield member.run.cell, member.run.model, result


def _gradients(
    runs: list[Setup], stack: StackedGPT, forward: Callable[[Tensor], Tensor], iteration: int
) -> Tensor:
    """Forward and backward pass as in Setup.gradients; returns the mean losses, (cells,)."""
    first, params = runs[0], runs[0].study.train
    seed, block = first.cell.seed, first.study.model.block_size
    total = torch.zeros(len(runs), device=first.device)
    drawn = batches(first.train, params, block, seed, iteration)
    for number, (inputs, targets) in enumerate(drawn, iteration * params.accumulation):
        torch.manual_seed(seed * 2**32 + number)
        x, y = _to_device(inputs, first.device), _to_device(targets, first.device).flatten()
        with _autocast(first.device, first.dtype):
            each = zip(runs, forward(x), stack.weights["wte.weight"], strict=True)
            losses = torch.stack([run.loss(hidden, weight, y) for run, hidden, weight in each])
        (losses.sum() / params.accumulation).backward()
        total += losses.detach() / params.accumulation
    return total


def _step(members: list[_Member], stack: StackedGPT, iteration: int, schedule: Schedule) -> None:
    """Step each cell's optimizer with its slice of the gradients."""
    least = members[0].run.study.train.min_lr_ratio
    for index, member in enumerate(members):
        if member.learns_at(iteration):
            for name, parameter in member.run.model.named_parameters():
                parameter.grad = stack.weights[name].grad[index]
            member.run.optimizer.step(learning_rate(iteration, schedule, member.run.cell.lr, least))
    for weight in stack.weights.values():
        weight.grad = None


# --- from cells to their folders -----------------------------------------------------------------


def worthwhile(study: Study) -> bool:
    """Whether to train cells at once: if one process trains on a GPU."""
    may = study.train.device in ("auto", "cuda") and study.train.processes == 1
    return may and torch.cuda.is_available()


def train_stacks(
    study: Study, cells: list[Cell], tokens: TokenFolder, checkpoints: Path, states: Path | None
) -> Iterator[tuple[Cell, Trained]]:
    """Train cells into their folders like train_run; yields each when it is finished.

    Cells that can be stacked are trained at once, or in halves if memory runs out.
    """
    stacks: dict[tuple, list[Cell]] = defaultdict(list)
    for cell in cells:
        if _is_there(study, cell, tokens, checkpoints):
            yield cell, Trained(records.read_run(checkpoints / cell.name), False, True)
        else:
            stacks[cell.phase, cell.n_layer, cell.seed, cell.iterations].append(cell)
    for alike in stacks.values():
        # Attention handles adjacent cells with the same dropout in one call.
        alike.sort(key=lambda cell: cell.dropout)
        yield from _in_halves(study, alike, tokens, checkpoints, states)


def _in_halves(
    study: Study, cells: list[Cell], tokens: TokenFolder, checkpoints: Path, states: Path | None
) -> Iterator[tuple[Cell, Trained]]:
    if len(cells) == 1:
        cell = cells[0]
        yield cell, train_run(study, cell, tokens, checkpoints / cell.name, states)
        return
    try:
        yield from _train_and_write(study, cells, tokens, checkpoints, states)
        return
    except torch.OutOfMemoryError:
        print(f"squentropy: {len(cells)} cells at once do not fit in the GPU's memory; trying half "
              "as many", file=sys.stderr)  # fmt: skip
    left = [cell for cell in cells if not _is_there(study, cell, tokens, checkpoints)]
    middle = (len(left) + 1) // 2
    for half in filter(None, (left[:middle], left[middle:])):
        yield from _in_halves(study, half, tokens, checkpoints, states)


def _is_there(study: Study, cell: Cell, tokens: TokenFolder, checkpoints: Path) -> bool:
    origin = records.origin(study, cell, tokens)
    keeps_weights = records.keeps_weights(study, cell)
    return not records.why_train(origin, checkpoints / cell.name, keeps_weights)


def _train_and_write(
    study: Study, cells: list[Cell], tokens: TokenFolder, checkpoints: Path, states: Path | None
) -> Iterator[tuple[Cell, Trained]]:
    origins = {cell: records.origin(study, cell, tokens) for cell in cells}
    kept: dict[Cell, StateFile] = {}
    if states is not None:
        # Marked as stacked, because runs trained alone must resume bit-identically.
        alone = {cell: origins[cell] | {"stacked": True} for cell in cells}
        kept = {cell: _state(study, cell, alone[cell], states) for cell in cells}
        for state in kept.values():
            storage.make_folder(state.folder)  # fail now rather than at the first save
    started, resumed = time.time(), any(state.path.exists() for state in kept.values())
    with stop_on_signal() as stop:
        ended = train_stack(study, cells, tokens, kept, stop)
        for cell, model, result in ended:
            folder, device = checkpoints / cell.name, model.output_weight.device
            where = provenance.describe(device, 1, started, resumed) | {"stacked": len(cells)}
            storage.write_json(folder / "provenance.json", where)
            _write_run(study, cell, folder, origins[cell], model, result)
            if cell in kept:
                kept[cell].remove()
            yield cell, Trained(records.read_run(folder), True, True)
