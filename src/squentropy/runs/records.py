"""The records in a run's folder: the origin of its files, and whether they are up to date.

run.json records the cell, parameters, code and tokens, and the hashes of the files beside it;
test.json and samples.json record the hash of their run.json. This module imports neither torch nor
the packages that only a study's parameters need.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.base.kinds import RunRecord
from squentropy.study import digests
from squentropy.study.overlays import differences

if TYPE_CHECKING:
    from squentropy.study.grid import Cell
    from squentropy.study.params import Study
    from squentropy.tokens.token_files import TokenFolder

Origin = dict[str, Any]
"""Everything that determines a file's content, by the keys of its record; see base/kinds.py."""

OfLoss = RunRecord | dict[str, dict[str, str]]
"""A run's record, or only its part that names the loss."""


def origin(study: "Study", cell: "Cell", tokens: "TokenFolder") -> Origin:
    """The origin of a run; run.json begins with it."""
    return origin_of(study, cell) | {
        "tokens_sha256": storage.sha256(tokens.folder / "manifest.json"),
        "vocab_size": tokens.vocab_size,
    }


def origin_of(study: "Study", cell: "Cell") -> Origin:
    """The part of a run's origin that is known without its tokens."""
    return {
        "cell": asdict(cell),
        "params": study.training_keys(cell.phase, cell.iterations),
        "code": digests.by_module("training", loss=cell.loss),
    }


def scored_from(study: "Study", folder: Path, run: OfLoss) -> Origin:
    """The origin of a run's scores; SPLIT.json begins with it."""
    return {
        "run_sha256": storage.sha256(folder / "run.json"),
        "params": study.evaluate.scoring_keys() | {"reading": study.plan.reading},
        "code": digests.by_module("evaluation", loss=run["cell"]["loss"]),
    }


def told_from(study: "Study", folder: Path, run: OfLoss) -> Origin:
    """The origin of a run's stories; samples.json begins with it."""
    return {
        "run_sha256": storage.sha256(folder / "run.json"),
        "params": study.sample.model_dump(),
        "code": digests.by_module("sampling", loss=run["cell"]["loss"]),
    }


def read_run(folder: str | Path) -> RunRecord:
    """The contents of run.json. Raises SquentropyError if it is missing or damaged."""
    return storage.read_sealed(Path(folder) / "run.json")


def keeps_weights(study: "Study", cell: "Cell") -> bool:
    return cell.phase not in ("sweep", "refine") or study.sweep.keep_weights


def why_train(expected: Origin, folder: Path, weights: bool) -> list[str]:
    """Why a folder does not contain the run of this origin, in plain words; empty if it does.

    weights  whether the run must keep its weights
    """
    if not (folder / "run.json").exists():
        return ["has not been trained"]
    try:
        run = read_run(folder)
        storage.verified(folder / "history.csv", run["history_sha256"])
        held = run["model_sha256"]
        if weights and held is None:
            return ["kept no weights, which are wanted now"]
        if weights and held is not None:
            storage.verified(folder / "model.safetensors", held)
    except SquentropyError as error:
        return [str(error)]
    return _changes(run, expected)


def why_remake(path: Path, expected: Origin) -> list[str]:
    """Why a file beside run.json does not have this origin; empty if it does."""
    if not path.exists():
        return [f"{path.name}: has not been made"]
    try:
        held = storage.read_sealed(path)
    except SquentropyError as error:
        return [str(error)]
    return [f"{path.name}: {change}" for change in _changes(held, expected)]


def made_from(path: Path, expected: Origin) -> Any:
    """The contents of a file beside run.json. Raises SquentropyError if its origin differs."""
    held = storage.read_sealed(path)
    check_origin(held, expected, path)
    return held


def check_origin(held: Mapping[str, Any], expected: Origin, path: Path) -> None:
    """Raises SquentropyError if `held`, the contents of `path`, does not have this origin."""
    changes = _changes(held, expected)
    if changes:
        raise SquentropyError(f"{path}: {'; '.join(changes)}; run the study again")


def chosen_for(loss: str, path: Path) -> dict[str, Any]:
    """The grid point of a loss in selected.json. Raises SquentropyError if it is missing."""
    from squentropy.study.grid import GRID_KEYS

    chosen = storage.read_sealed(path).get("losses", {})
    if loss not in chosen:
        raise SquentropyError(f"{path}: holds no {loss}; run the sweep with it first")
    return {key: chosen[loss][key] for key in GRID_KEYS}


def check_study(run: RunRecord, folder: Path, study: "Study") -> None:
    """Raises SquentropyError if a run was trained with other parameters than the study's."""
    cell = run["cell"]
    changed = differences(run["params"], study.training_keys(cell["phase"], cell["iterations"]))
    if changed:
        raise SquentropyError(
            f"{folder}: was trained with other parameters ({', '.join(changed)}) than the "
            "study's; name its own, as in --params results/STUDY/params.yaml"
        )


def check_tokens(run: RunRecord, folder: Path, tokens: "TokenFolder") -> None:
    """Raises SquentropyError if a run was trained on other tokens than these."""
    if run["tokens_sha256"] != storage.sha256(tokens.folder / "manifest.json"):
        raise SquentropyError(
            f"{folder}: was trained on other tokens than {tokens.folder} holds; "
            "name the tokens it was trained on, or train it again"
        )


_WORDS = {
    "tokens_sha256": "the tokens have changed",
    "run_sha256": "the run has been trained again since",
}


def _changes(written: Mapping[str, Any], expected: Origin) -> list[str]:
    """The changes of an origin since a file was written, in plain words."""
    held = {key: written.get(key) for key in expected}
    said = []
    code_of = [key for key in differences(held, expected) if key.partition(".")[0] == "code"]
    for key in differences(held, expected):
        if key in _WORDS:
            said.append(_WORDS[key])
        elif key not in code_of:
            old, new = (_at(values, key) for values in (held, expected))
            said.append(f"{key} was {old}, is {new}")
    if code_of:
        modules = (key.partition(".")[2] for key in code_of)
        said.append(f"the code has changed: {', '.join(modules)}")
    return said


def _at(values: object, key: str) -> object:
    for part in key.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values
