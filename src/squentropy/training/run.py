"""Train a cell into its folder, unless it is there already; run.json is written last.

    run.json            the cell, its parameters, the hashes of data and code, the outcome
    history.csv         train loss, train nll and validation nll by iteration
    model.safetensors   the weights, if they are kept
    provenance.json     where, when and with which software it was trained

Except for provenance.json, every file is a function of parameters, data and code: none contains a
time or a path.
"""

import csv
import io
import time
from pathlib import Path
from typing import NamedTuple

import safetensors.torch
import torch

from squentropy.base import storage
from squentropy.base.kinds import RunRecord
from squentropy.lm.devices import arithmetic, pick_device, pick_dtype
from squentropy.lm.model import GPT
from squentropy.runs import provenance, records
from squentropy.study.grid import Cell
from squentropy.study.params import Study
from squentropy.tokens.token_files import TokenFolder
from squentropy.training.distributed import join
from squentropy.training.loop import Result, train
from squentropy.training.resume import StateFile, stop_on_signal

HISTORY = ["iteration", "train_loss", "train_nll", "validation_nll"]


class Trained(NamedTuple):
    run: RunRecord  # run.json
    now: bool  # trained by this call rather than found in its folder
    first: bool  # whether this is the run's first process, which reports


def train_run(
    study: Study, cell: Cell, tokens: TokenFolder, folder: Path, states: Path | None = None
) -> Trained:
    """Train a cell and write its folder, run.json last.

    A folder that already contains this exact run is left unchanged. The state of an unfinished run
    is saved below the folder `states`, and training resumes from it; with None, no state is saved.

    If a run has several processes, all of them call this, and the first one writes.
    """
    group = join(study.train.processes)
    origin = records.origin(study, cell, tokens)
    if not group.agree(records.why_train(origin, folder, records.keeps_weights(study, cell))):
        return Trained(records.read_run(folder), False, group.first)
    state = _state(study, cell, origin, states) if states is not None else None
    if state is not None:
        storage.make_folder(state.folder)  # fail now rather than at the first save
    started, resumed = time.time(), state is not None and state.path.exists()
    with stop_on_signal() as stop, group.noticing_lost_ones():
        model, result = train(study, cell, tokens, state, stop, group)
        run = None
        if group.first:
            where = provenance.describe(model.output_weight.device, group.size, started, resumed)
            storage.write_json(folder / "provenance.json", where)
            run = _write_run(study, cell, folder, origin, model, result)
            if state is not None:
                state.remove()
        return Trained(group.agree(run), True, group.first)


def _state(study: Study, cell: Cell, origin: dict, states: Path) -> StateFile:
    """The run's state. Resuming is bit-identical only if everything in its origin is the same."""
    device = pick_device(study.train.device, study.train.runs_per_gpu)
    more = {
        "device": device.type,
        "dtype": str(pick_dtype(study.train.dtype, device)),
        "torch": torch.__version__,
        "batch_tokens": study.evaluate.batch_tokens,
        "arithmetic": arithmetic(device),
    }
    return StateFile(states, f"{study.study}/{cell.name}", origin | more)


def _write_run(
    study: Study, cell: Cell, folder: Path, origin: dict, model: GPT, result: Result
) -> dict:
    keep_weights = records.keeps_weights(study, cell)
    weights, history = folder / "model.safetensors", folder / "history.csv"
    if keep_weights:
        with storage.atomic(weights) as path:
            # Not `save_file`, which does not raise OSError when the disk is full.
            path.write_bytes(safetensors.torch.save(model.state_dict()))
    _write_history(history, result)
    validation = result.validation
    run = origin | {
        "parameters": model.parameter_count(),
        "status": result.status,
        "iterations": result.iterations,
        "diverged_at": result.diverged_at,
        "train_loss": result.train_loss,
        "train_nll": result.train_nll,
        "validation_nll": validation.mean_nll() if validation else None,
        "validation_tempered_nll": result.tempered_nll,
        "validation_accuracy": float(validation.correct.mean()) if validation else None,
        "history_sha256": storage.sha256(history),
        "model_sha256": storage.sha256(weights) if keep_weights else None,
    }
    storage.write_sealed(folder / "run.json", run)
    return run


def _write_history(path: Path, result: Result) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, HISTORY, lineterminator="\n")
    writer.writeheader()
    for row in result.history:
        writer.writerow({key: row[key] for key in HISTORY})
    storage.write_text(path, text.getvalue())
