"""A run's folder records what was trained and the result, and is refused if it does not match.

pytest tests/training/test_runs.py
"""

import csv
import itertools
import json
import math
import re
import shutil
import subprocess
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.evaluation.run import evaluate_run
from squentropy.lm import scoring
from squentropy.losses import own_link
from squentropy.runs.records import read_run
from squentropy.runs.weights import load_model
from squentropy.sampling.run import sample_run
from squentropy.study import digests
from squentropy.study.grid import Cell
from squentropy.tokens.token_files import TokenFolder
from squentropy.tokens.tokenizer import read_encoding, story_bytes
from squentropy.training.loop import train
from squentropy.training.run import train_run

CPU = torch.device("cpu")
RUN = "final/mse/seed1"
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """A copy of a finished run to damage."""
    return Path(shutil.copytree(finished / "checkpoints" / RUN, tmp_path / "run"))


def test_a_run_records_all_that_it_depends_on(finished, tiny_study, tokens):
    run = read_run(finished / "checkpoints" / RUN)
    assert Cell(**run["cell"]).name == RUN
    assert run["params"] == tiny_study().training_keys("final")
    assert run["code"] == digests.by_module("training", loss="mse")
    assert run["tokens_sha256"] == storage.sha256(tokens.folder / "manifest.json")
    assert (run["status"], run["iterations"], run["diverged_at"]) == ("ok", 8, None)
    assert 0 <= run["validation_accuracy"] <= 1


def test_a_folder_holds_nothing_that_differs_between_two_runs(
    tiny_study, tiny_cell, tokens, tmp_path
):
    study, cell = tiny_study(), tiny_cell(phase="final")
    for folder in (tmp_path / "a", tmp_path / "elsewhere" / "b"):
        train_run(study, cell, tokens, folder)
        evaluate_run(study, folder, tokens, [1] * 6, "test")
        sample_run(study, folder, tokens, read_encoding(tokens))
    files = sorted(p.name for p in (tmp_path / "a").iterdir() if p.name != "provenance.json")
    assert files == ["history.csv", "model.safetensors", "run.json", "samples.json", "test.json"]
    for name in files:
        other = tmp_path / "elsewhere" / "b" / name
        assert (tmp_path / "a" / name).read_bytes() == other.read_bytes()


def test_provenance_says_where_a_run_was_trained(tiny_study, tiny_cell, tokens, tmp_path):
    train_run(tiny_study(), tiny_cell(), tokens, tmp_path)
    said = json.loads((tmp_path / "provenance.json").read_text())
    assert said["packages"]["torch"] == version("torch")
    assert (said["device"], said["resumed"]) == ("cpu", False)
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", said["started"])
    assert said["seconds"] >= 0
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    assert said["commit"] == (git.stdout.strip() or None)
    assert (said["dirty"] is None) == (said["commit"] is None)


def test_a_run_that_is_there_already_is_left_as_it_is_and_another_is_trained(
    tiny_study, tiny_cell, tokens, tmp_path, monkeypatch
):
    def trains(cell, **changes) -> bool:
        trained = train_run(tiny_study(**changes), cell, tokens, tmp_path)
        assert trained.run == read_run(tmp_path)
        assert trained.first
        return trained.now

    cell = tiny_cell(phase="final")
    assert trains(cell)
    assert not trains(cell)
    assert not trains(cell, sweep={"max_iters": 99}, sample={"top_k": 1})
    assert trains(cell, final={"max_iters": 9})
    assert trains(replace(cell, seed=5), final={"max_iters": 9})
    monkeypatch.setattr(digests, "by_module", lambda step, loss: {"losses.py": "other"})
    assert trains(replace(cell, seed=5), final={"max_iters": 9})
    for name in ("model.safetensors", "history.csv", "run.json"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-2])
        assert trains(replace(cell, seed=5), final={"max_iters": 9})
        assert not trains(replace(cell, seed=5), final={"max_iters": 9})


def test_weights_are_kept_where_the_study_asks(tiny_study, tokens, tmp_path):
    cell = tiny_study().sweep_cells()[0]
    for keep in (False, True):
        run = train_run(tiny_study(sweep={"keep_weights": keep}), cell, tokens, tmp_path).run
        assert (tmp_path / "model.safetensors").exists() == keep == bool(run["model_sha256"])
        if not keep:
            with pytest.raises(SquentropyError, match=r"kept no weights; set sweep\.keep_weights"):
                load_model(tmp_path, CPU)


def test_the_model_comes_back_to_the_bit(finished, tiny_study, tokens):
    run = finished / "checkpoints" / RUN
    model, result = train(tiny_study(), Cell(**read_run(run)["cell"]), tokens)
    back = load_model(run, CPU)
    assert not back.training
    assert all(a.equal(b) for a, b in zip(model.state_dict().values(), back.state_dict().values()))
    assert read_run(run)["validation_nll"] == result.validation.mean_nll()
    rows = list(csv.DictReader((run / "history.csv").open()))
    for row, entry in zip(rows, result.history, strict=True):
        assert {k: float(v) for k, v in row.items()} == pytest.approx(entry, rel=1e-9)


def test_a_model_file_that_changed_or_is_gone_is_refused(copy):
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(SquentropyError, match=r"model\.safetensors: is not what"):
        load_model(copy, CPU)
    weights.unlink()
    with pytest.raises(SquentropyError, match=r"model\.safetensors: does not exist"):
        load_model(copy, CPU)


def test_a_folder_without_a_run_is_named(tmp_path):
    with pytest.raises(SquentropyError, match=r"run\.json: does not exist"):
        read_run(tmp_path)


def test_a_run_on_other_tokens_is_refused(copy, tokens, tiny_study, tmp_path):
    other = Path(shutil.copytree(tokens.folder, tmp_path / "tokens"))
    storage.write_sealed(other / "manifest.json", tokens.manifest | {"corpus_sha256": "0"})
    folder = TokenFolder.open(other)
    with pytest.raises(SquentropyError, match="was trained on other tokens"):
        evaluate_run(tiny_study(), copy, folder, [], "test")
    with pytest.raises(SquentropyError, match="was trained on other tokens"):
        sample_run(tiny_study(), copy, folder, read_encoding(folder))


def test_a_run_of_other_parameters_is_refused_before_anything_is_written(copy, tokens, tiny_study):
    before = (copy / "test.json").read_bytes()
    study = tiny_study(model={"n_embd": 32}, final={"max_iters": 9})
    said = r"other parameters \(model\.n_embd, schedule\.max_iters\) than the study's"
    with pytest.raises(SquentropyError, match=said):
        evaluate_run(study, copy, tokens, [1] * 6, "test")
    with pytest.raises(SquentropyError, match=said):
        sample_run(study, copy, tokens, read_encoding(tokens))
    assert (copy / "test.json").read_bytes() == before


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_scores_add_up_story_by_story(finished, data, tokens, loss):
    run = finished / f"checkpoints/final/{loss}/seed1"
    scores = storage.read_sealed(run / "test.json")
    split = tokens.split("test")
    model, how = load_model(run, CPU), {"batch_tokens": 64}
    expected = scoring.score_split(model, split, tokens.end_of_text, **how)
    stories = scores["stories"]
    assert stories["tokens"] == np.diff(split.offsets).tolist()
    assert stories["bytes"] == story_bytes(data / "corpus", "test", tokens)
    assert sum(stories["correct"]) == expected.correct.sum()
    readings = scores["readings"]
    nll = np.add.reduceat(expected.nll.astype(float), split.offsets[:-1])
    assert readings["softmax"]["nll"] == pytest.approx(nll.tolist(), rel=1e-5)
    assert ("own" in readings) == (loss == "mse")
    if loss == "mse":
        link = own_link(loss, 1e-6)
        linked = scoring.score_split(model, split, tokens.end_of_text, link=link, **how)
        assert sum(readings["own"]["nll"]) == pytest.approx(linked.nll.sum())
        assert [name for name in readings if name.startswith("own ")] == ["own 0.0001", "own 1e-08"]

    assert scores["run_sha256"] == storage.sha256(run / "run.json")
    assert all(map(math.isfinite, scores["original_estimate"].values()))


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_a_shorter_run_is_scored_by_its_primary_reading_alone(finished, data, tokens, loss):
    run = finished / f"checkpoints/lengths/{loss}/iters4/seed1"
    scores = storage.read_sealed(run / "test.json")
    full = storage.read_sealed(finished / f"checkpoints/final/{loss}/seed1/test.json")
    assert list(scores["readings"]) == [{"cross_entropy": "tempered", "mse": "own"}[loss]]
    assert scores["stories"]["tokens"] == full["stories"]["tokens"]
    assert not (run / "samples.json").exists()


def test_a_diverged_run_is_a_result_without_scores_or_stories(finished):
    run = finished / "checkpoints/final/brier/seed1"
    outcome, scores = read_run(run), storage.read_sealed(run / "test.json")
    assert outcome["status"] == scores["status"] == "diverged"
    assert outcome["diverged_at"] == 0
    for key in ("train_loss", "train_nll", "validation_nll", "validation_accuracy"):
        assert outcome[key] is None
    assert "stories" not in scores
    assert storage.read_sealed(run / "samples.json")["stories"] == []
    assert len((run / "history.csv").read_text().splitlines()) == 1


def test_samples_say_where_they_are_from(finished, tiny_study):
    samples = storage.read_sealed(finished / "checkpoints" / RUN / "samples.json")["stories"]
    asked, told = tiny_study().sample, ("temperature", "number", "prompt")
    assert [tuple(s[key] for key in told) for s in samples] == list(
        itertools.product(asked.temperatures, range(asked.stories), asked.prompts)
    )
    origin = {"phase": "final", "loss": "mse", "seed": 1, "top_k": 50, "reading": "own"}
    assert all(s.items() >= origin.items() for s in samples)


def test_a_cell_is_written_whole(tiny_cell):
    assert Cell(**asdict(tiny_cell())) == tiny_cell() != replace(tiny_cell(), seed=9)
