"""A run's folder: what was trained, what it came to, and its weights.

    run.json            the cell, its parameters, the hashes of data and code, the outcome
    history.csv         train loss, train nll and validation nll by iteration
    model.safetensors   the weights, where they are kept
    test.json           the scores of a split, story by story (squentropy evaluate)
    samples.json        stories (squentropy sample)

Every file is a function of parameters, data and code: none holds a time or a path.
"""

import csv
import io
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import safetensors.torch
import torch

from squentropy import code, evaluation, sampling, storage
from squentropy.devices import pick_device, pick_dtype
from squentropy.errors import SquentropyError
from squentropy.losses import INVERSE_LINKS, LOSSES
from squentropy.model import GPT, Config
from squentropy.params import Cell, Study, differences
from squentropy.state import StateFile, stop_on_signal
from squentropy.tokens import TokenFolder
from squentropy.training import Result, train

if TYPE_CHECKING:
    import tiktoken

HISTORY = ["iteration", "train_loss", "train_nll", "validation_nll"]


def _origin(study: Study, cell: Cell, tokens: TokenFolder) -> dict:
    """What a run is a function of; run.json begins with it."""
    return {
        "cell": asdict(cell),
        "params": study.training_keys(cell.phase),
        "code": code.digest(*code.TRAINING, loss=cell.loss),
        "tokens_sha256": storage.sha256(tokens.folder / "manifest.json"),
        "vocab_size": tokens.vocab_size,
    }


def _keeps_weights(study: Study, cell: Cell) -> bool:
    return cell.phase != "sweep" or study.sweep.keep_weights


def finished_run(study: Study, cell: Cell, tokens: TokenFolder, folder: Path) -> dict | None:
    """What run.json holds where the folder is whole and holds this very run, else None."""
    try:
        run = read_run(folder)
        storage.verified(folder / "history.csv", run["history_sha256"])
        if _keeps_weights(study, cell):
            storage.verified(folder / "model.safetensors", run["model_sha256"])
    except (SquentropyError, KeyError, TypeError):
        return None
    origin = _origin(study, cell, tokens)
    return run if {key: run.get(key) for key in origin} == origin else None


def train_run(
    study: Study, cell: Cell, tokens: TokenFolder, folder: Path, states: Path | None = None
) -> tuple[dict, bool]:
    """Train a cell and write its folder, run.json last.

    Returns what run.json holds, and whether it was trained now: a folder that already holds this
    very run is left as it is. An unfinished run's state is kept below the folder `states`, and
    gone on from; nowhere where that is None.
    """
    finished = finished_run(study, cell, tokens, folder)
    if finished is not None:
        return finished, False
    origin = _origin(study, cell, tokens)
    state = _state(study, cell, origin, states) if states is not None else None
    with stop_on_signal() as stop:
        model, result = train(study, cell, tokens, state, stop)
        run = _write_run(study, cell, folder, origin, model, result)
        if state is not None:
            state.remove()
    return run, True


def _state(study: Study, cell: Cell, origin: dict, states: Path) -> StateFile:
    """The run's state, which goes on to the same bits only where all of this is the same."""
    device = pick_device(study.train.device)
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
    keep_weights = _keeps_weights(study, cell)
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
        "validation_link_nll": validation.mean_link_nll() if validation else None,
        "validation_accuracy": float(validation.correct.mean()) if validation else None,
        "history_sha256": storage.sha256(history),
        "model_sha256": storage.sha256(weights) if keep_weights else None,
    }
    storage.write_json(folder / "run.json", run)
    return run


def _write_history(path: Path, result: Result) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, HISTORY, lineterminator="\n")
    writer.writeheader()
    for row in result.history:
        writer.writerow({key: f"{row[key]:.10g}" for key in HISTORY})
    storage.write_text(path, text.getvalue())


def read_run(folder: str | Path) -> dict:
    return storage.read_json(Path(folder) / "run.json")


def load_model(folder: str | Path, device: torch.device) -> GPT:
    """The trained model of a run. Raises SquentropyError where the weights are not the run's."""
    folder = Path(folder)
    run = read_run(folder)
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


def _check_study(run: dict, folder: Path, study: Study) -> None:
    phase = run["cell"]["phase"]
    changed = differences(run["params"], study.training_keys(phase))
    if changed:
        raise SquentropyError(
            f"{folder}: was trained with other parameters ({', '.join(changed)}) than --params "
            "gives; name its own, as in --params results/STUDY/params.yaml"
        )


def _check_tokens(run: dict, folder: Path, tokens: TokenFolder) -> None:
    if run["tokens_sha256"] != storage.sha256(tokens.folder / "manifest.json"):
        raise SquentropyError(
            f"{folder}: was trained on other tokens than {tokens.folder} holds; "
            "name the tokens it was trained on, or train it again"
        )


def evaluate_run(
    study: Study, folder: Path, tokens: TokenFolder, sizes: list[int], split: str
) -> dict:
    """Score a run on a split and write SPLIT.json; `sizes` are its stories' bytes of UTF-8."""
    run = read_run(folder)
    _check_study(run, folder, study)
    _check_tokens(run, folder, tokens)
    scores: dict[str, Any] = {"run_sha256": storage.sha256(folder / "run.json")}
    scores |= {"split": split, "status": run["status"]}
    if run["status"] == "ok":
        torch.set_num_threads(study.train.threads)
        cell, params = Cell(**run["cell"]), study.evaluate
        model = load_model(folder, pick_device(study.train.device))
        data = tokens.split(split)
        link = INVERSE_LINKS.get(cell.loss)
        result = evaluation.score_split(
            model, data, tokens.end_of_text, batch_tokens=params.batch_tokens, link=link
        )
        estimate = evaluation.random_batch_estimate(
            model,
            data,
            LOSSES[cell.loss],
            batches=params.seed_batches,
            batch_size=study.train.batch_size,
            seed=cell.seed,
        )
        scores["seed_estimate"] = {"nll": estimate[0], "loss": estimate[1]}
        scores["calibration"] = result.calibration()
        linked = result.link_nll
        scores["stories"] = {
            "tokens": result.tokens.tolist(),
            "bytes": sizes,
            "nll": _rounded(result.by_story(result.nll)),
            "correct": result.by_story(result.correct).astype(int).tolist(),
            "top5": result.by_story(result.top5).astype(int).tolist(),
            "link_nll": None if linked is None else _rounded(result.by_story(linked)),
        }
    storage.write_json(folder / f"{split}.json", scores)
    return scores


def _rounded(values: np.ndarray) -> list[float]:
    """Six decimals, 1e-6 nats a story: well below float32's own error."""
    return np.round(values, 6).tolist()


def sample_run(
    study: Study, folder: Path, tokens: TokenFolder, encoding: "tiktoken.Encoding"
) -> list[dict]:
    """Stories of a run, as `sampling.tell` tells them, written to samples.json."""
    run = read_run(folder)
    _check_study(run, folder, study)
    _check_tokens(run, folder, tokens)
    stories: list[dict] = []
    if run["status"] == "ok":
        torch.set_num_threads(study.train.threads)
        model = load_model(folder, pick_device(study.train.device))
        cell = run["cell"]
        link = INVERSE_LINKS.get(cell["loss"])
        told = sampling.tell(model, encoding, **study.sample.model_dump(), link=link)
        origin = {key: cell[key] for key in ("phase", "loss", "seed")}
        stories = [origin | story for story in told]
    storage.write_json(folder / "samples.json", stories)
    return stories
