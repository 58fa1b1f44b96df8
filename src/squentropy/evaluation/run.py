"""Score a run on a split, story by story, into SPLIT.json beside its run.json."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from squentropy.base import storage
from squentropy.evaluation import calibration, certainty
from squentropy.evaluation.certainty import Exact
from squentropy.lm import scoring
from squentropy.lm.devices import pick_device
from squentropy.lm.model import GPT
from squentropy.losses import LOSSES, own_link
from squentropy.runs import records
from squentropy.runs.weights import load_model
from squentropy.study.grid import Cell
from squentropy.study.params import Study
from squentropy.tokens.token_files import TokenFolder


def evaluate_run(
    study: Study,
    folder: Path,
    tokens: TokenFolder,
    sizes: list[int],
    split: str,
    exact: Exact | None = None,
) -> dict[str, Any]:
    """Score a run on a split and write SPLIT.json.

    sizes  UTF-8 bytes of each story of the split
    exact  the source's own predictions, if known

    The file contains the results of `calibration.measure_split` and `certainty.measure`, the
    temperature fitted on validation, and the original study's estimate. For a shorter run, it
    contains only the nll of the primary reading; for a diverged run, only the status.
    """
    run = records.read_run(folder)
    records.check_study(run, folder, study)
    records.check_tokens(run, folder, tokens)
    scores = records.scored_from(study, folder, run) | {"split": split, "status": run["status"]}
    if run["status"] == "ok":
        torch.set_num_threads(study.train.threads)
        model = load_model(folder, pick_device(study.train.device, study.train.runs_per_gpu))
        cell = Cell(**run["cell"])
        if cell.phase == "lengths":
            scores |= _primary_score(study, cell, model, tokens, split)
        else:
            scores |= _every_score(study, cell, model, tokens, split, exact)
        scores["stories"]["bytes"] = sizes
    storage.write_sealed(folder / f"{split}.json", scores)
    return scores


def _every_score(
    study: Study, cell: Cell, model: GPT, tokens: TokenFolder, split: str, exact: Exact | None
) -> dict[str, Any]:
    params, data = study.evaluate, tokens.split(split)
    estimate = scoring.random_batch_estimate(
        model,
        data,
        LOSSES[cell.loss],
        batches=params.original_batches,
        batch_size=study.train.batch_size,
        seed=cell.seed,
    )
    temperature = _temperature(study, model, tokens)
    floors = {"own": params.link_floor} | {f"own {floor!r}": floor for floor in params.other_floors}
    links = {
        name: link
        for name, floor in floors.items()
        if (link := own_link(cell.loss, floor)) is not None
    }
    scores: dict[str, Any] = {
        "original_estimate": {"nll": estimate[0], "loss": estimate[1]},
        "temperature": temperature,
    }
    if exact is not None:
        scores["certainty"] = certainty.measure(
            model,
            data,
            tokens.end_of_text,
            exact,
            calibration.readings(temperature, links)[study.primary(cell.loss)],
            batch_tokens=params.batch_tokens,
        )
    return scores | calibration.measure_split(
        model,
        data,
        tokens.end_of_text,
        calibration.per_million(tokens.split("train"), tokens.vocab_size),
        temperature=temperature,
        links=links,
        batch_tokens=params.batch_tokens,
        bins=params.bins,
    )


def _primary_score(
    study: Study, cell: Cell, model: GPT, tokens: TokenFolder, split: str
) -> dict[str, Any]:
    reading, data = study.primary(cell.loss), tokens.split(split)
    scores = scoring.score_split(
        model,
        data,
        tokens.end_of_text,
        batch_tokens=study.evaluate.batch_tokens,
        link=own_link(cell.loss, study.evaluate.link_floor),
        temperature=_temperature(study, model, tokens) if reading == "tempered" else 1.0,
    )
    return {
        "stories": {"tokens": np.diff(data.offsets).tolist()},
        "readings": {reading: {"nll": calibration.by_story(scores.nll, data).tolist()}},
    }


def _temperature(study: Study, model: GPT, tokens: TokenFolder) -> float:
    return scoring.fit_on(
        model,
        tokens.split("validation"),
        tokens.end_of_text,
        batch_tokens=study.evaluate.batch_tokens,
    )
