"""A run's folder: what was trained, what it came to, and its weights.

    run.json            the cell, its parameters, the hashes of data and code, the outcome
    history.csv         train loss, train nll and validation nll by iteration
    model.safetensors   the weights, where they are kept
    test.json           the scores of a split, story by story (squentropy evaluate)
    samples.json        stories (squentropy sample)
    provenance.json     where, when and with what it was trained

Every file but the last is a function of parameters, data and code: none holds a time or a path.
"""

import csv
import io
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import safetensors.torch
import torch

from squentropy import evaluation, measures, provenance, records, sampling, storage
from squentropy.devices import pick_device, pick_dtype
from squentropy.errors import SquentropyError
from squentropy.losses import LOSSES, own_link
from squentropy.model import GPT, Config
from squentropy.params import Cell, Study
from squentropy.processes import join
from squentropy.state import StateFile, stop_on_signal
from squentropy.tokens import TokenFolder
from squentropy.training import Result, train

if TYPE_CHECKING:
    import tiktoken

HISTORY = ["iteration", "train_loss", "train_nll", "validation_nll"]


class Trained(NamedTuple):
    run: dict  # run.json
    now: bool  # trained by this call, not found in its folder
    first: bool  # whether this process is the run's first one, which tells


def train_run(
    study: Study, cell: Cell, tokens: TokenFolder, folder: Path, states: Path | None = None
) -> Trained:
    """Train a cell and write its folder, run.json last.

    A folder that already holds this very run is left as it is. An unfinished run's state is kept
    below the folder `states`, and training goes on from it; None: no state is kept.

    If the study gives a run several processes, all call it, and the first one writes.
    """
    group = join(study.train.processes)
    origin = records.origin(study, cell, tokens)
    if not group.agree(records.why_train(origin, folder, records.keeps_weights(study, cell))):
        return Trained(records.read_run(folder), False, group.first)
    state = _state(study, cell, origin, states) if states is not None else None
    if state is not None:
        storage.make_folder(state.folder)  # better to hear now than at the first save
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
    """The run's state, which goes on to the same bits only where all of this is the same."""
    device = pick_device(study.train.device, study.train.runs_per_gpu)
    more = {
        "device": device.type,
        "dtype": str(pick_dtype(study.train.dtype, device)),
        "torch": torch.__version__,
        "batch_tokens": study.evaluate.batch_tokens,
    }
    return StateFile(states, f"{study.study}/{cell.name}", origin | more)


def _write_run(
    study: Study, cell: Cell, folder: Path, origin: dict, model: GPT, result: Result
) -> dict:
    keep_weights = records.keeps_weights(study, cell)
    weights, history = folder / "model.safetensors", folder / "history.csv"
    if keep_weights:
        with storage.atomic(weights) as path:
            # Not `save_file`, whose error for a full disk is not an OSError.
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
        writer.writerow({key: f"{row[key]:.10g}" for key in HISTORY})
    storage.write_text(path, text.getvalue())


def load_model(folder: str | Path, device: torch.device) -> GPT:
    """The trained model of a run. Raises SquentropyError where the weights are not the run's."""
    folder = Path(folder)
    run = records.read_run(folder)
    if run["model_sha256"] is None:
        raise SquentropyError(
            f"{folder}: this run kept no weights; set sweep.keep_weights to true and run again"
        )
    path = storage.verified(folder / "model.safetensors", run["model_sha256"])
    cell = run["cell"]
    config = Config(
        run["vocab_size"],
        n_layer=cell["n_layer"],
        dropout=cell["dropout"],
        **run["params"]["model"],
    )
    model = GPT(config)
    model.load_state_dict(safetensors.torch.load_file(path))
    return model.to(device).eval()


def evaluate_run(
    study: Study, folder: Path, tokens: TokenFolder, sizes: list[int], split: str
) -> dict:
    """Score a run on a split and write SPLIT.json; `sizes` are its stories' bytes of UTF-8.

    The file holds what `measures.measure_split` measures, with the temperature fitted on
    validation, and the original study's estimate; of a shorter run only the nll of its primary
    reading; of a diverged run, its status alone.
    """
    run = records.read_run(folder)
    records.check_study(run, folder, study)
    records.check_tokens(run, folder, tokens)
    scores = records.scored_from(study, folder, run) | {"split": split, "status": run["status"]}
    if run["status"] == "ok":
        torch.set_num_threads(study.train.threads)
        model = load_model(folder, pick_device(study.train.device, study.train.runs_per_gpu))
        score = _primary_score if run["cell"]["phase"] == "lengths" else _every_score
        scores |= score(study, Cell(**run["cell"]), model, tokens, split)
        scores["stories"]["bytes"] = sizes
    storage.write_sealed(folder / f"{split}.json", scores)
    return scores


def _every_score(study: Study, cell: Cell, model: GPT, tokens: TokenFolder, split: str) -> dict:
    params, data = study.evaluate, tokens.split(split)
    estimate = evaluation.random_batch_estimate(
        model,
        data,
        LOSSES[cell.loss],
        batches=params.original_batches,
        batch_size=study.train.batch_size,
        seed=cell.seed,
    )
    temperature = _temperature(study, model, tokens)
    floors = {"own": params.link_floor} | {f"own {floor!r}": floor for floor in params.other_floors}
    links = {name: own_link(cell.loss, floor) for name, floor in floors.items()}
    return {
        "original_estimate": {"nll": estimate[0], "loss": estimate[1]},
        "temperature": temperature,
    } | measures.measure_split(
        model,
        data,
        tokens.end_of_text,
        measures.per_million(tokens.split("train"), tokens.vocab_size),
        temperature=temperature,
        links={name: link for name, link in links.items() if link is not None},
        batch_tokens=params.batch_tokens,
        bins=params.bins,
    )


def _primary_score(study: Study, cell: Cell, model: GPT, tokens: TokenFolder, split: str) -> dict:
    reading, data = study.primary(cell.loss), tokens.split(split)
    scores = evaluation.score_split(
        model,
        data,
        tokens.end_of_text,
        batch_tokens=study.evaluate.batch_tokens,
        link=own_link(cell.loss, study.evaluate.link_floor),
        temperature=_temperature(study, model, tokens) if reading == "tempered" else 1.0,
    )
    return {
        "stories": {"tokens": np.diff(data.offsets).tolist()},
        "readings": {reading: {"nll": measures.by_story(scores.nll, data).tolist()}},
    }


def _temperature(study: Study, model: GPT, tokens: TokenFolder) -> float:
    return evaluation.fit_on(
        model,
        tokens.split("validation"),
        tokens.end_of_text,
        batch_tokens=study.evaluate.batch_tokens,
    )


def sample_run(
    study: Study, folder: Path, tokens: TokenFolder, encoding: "tiktoken.Encoding"
) -> list[dict]:
    """Stories of a run, as `sampling.tell` tells them, written to samples.json."""
    run = records.read_run(folder)
    records.check_study(run, folder, study)
    records.check_tokens(run, folder, tokens)
    stories: list[dict] = []
    if run["status"] == "ok":
        torch.set_num_threads(study.train.threads)
        model = load_model(folder, pick_device(study.train.device, study.train.runs_per_gpu))
        cell = run["cell"]
        link = own_link(cell["loss"], study.evaluate.link_floor)
        told = sampling.tell(model, encoding, **study.sample.model_dump(), link=link)
        origin = {key: cell[key] for key in ("phase", "loss", "seed")}
        stories = [origin | story for story in told]
    held = records.told_from(study, folder, run) | {"stories": stories}
    storage.write_sealed(folder / "samples.json", held)
    return stories
