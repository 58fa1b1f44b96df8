"""Learning rates by width: the six studies, the table and the figure of studies/width.py.

pytest tests/test_width.py
"""

import importlib.util
import math
from pathlib import Path

import pandas as pd
import pytest

PATH = Path(__file__).resolve().parents[1] / "studies/width.py"
TABLE = PATH.parents[1] / "results/width/width.csv"


@pytest.fixture
def width():
    spec = importlib.util.spec_from_file_location("width", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_studies_differ_in_width_and_parametrization_alone_and_heads_are_as_wide(width):
    models = [width.study_of(w, p).model for p in width.PARAMETRIZATIONS for w in width.WIDTHS]
    assert len({str(model) for model in models}) == 6
    assert {model.n_embd // model.n_head for model in models} == {width.HEAD}
    same = {"n_embd", "n_head", "parametrization"}
    assert len({str(model.model_dump(exclude=same)) for model in models}) == 1


def test_runs_are_trained_once_and_told_in_one_table(width, tokens, tmp_path, monkeypatch):
    short = {"losses": ["cross_entropy", "mse"], "lr": [0.001, 0.002], "max_iters": 2}
    sweep = width.CHANGES["sweep"] | short | {"warmup_iters": 1, "eval_interval": 2}
    train = {"device": "cpu"}
    monkeypatch.setattr(width, "WIDTHS", (32, 64))
    monkeypatch.setattr(width, "CHANGES", {"sweep": sweep, "train": train, "model": {}})
    study = width.study_of
    monkeypatch.setattr(
        width,
        "study_of",
        lambda *which: study(*which).model_copy(
            update={"model": study(*which).model.model_copy(update={"block_size": 16})}
        ),
    )
    width.main(tokens.folder, tmp_path / "runs", tmp_path / "out")
    table = pd.read_csv(tmp_path / "out/width.csv")
    assert len(table) == 2 * 2 * 2 * 2
    assert table["nll"].map(math.isfinite).all()
    assert (tmp_path / "out/width.svg").stat().st_size > 10_000
    before = sorted((p, p.stat().st_mtime_ns) for p in (tmp_path / "runs").rglob("run.json"))
    width.main(tokens.folder, tmp_path / "runs", tmp_path / "again")
    assert before == sorted(
        (p, p.stat().st_mtime_ns) for p in (tmp_path / "runs").rglob("run.json")
    )
    assert (tmp_path / "again/width.csv").read_bytes() == (tmp_path / "out/width.csv").read_bytes()


def test_the_committed_table_has_every_run(width):
    table = pd.read_csv(TABLE)
    assert len(table) == 6 * 4 * 11
    best = table[table["width"] == 128].pivot_table("nll", "loss", "parametrization", aggfunc="min")
    # At this width both are the same study, except for the order of additions on a GPU.
    assert (best["mup"] - best["standard"]).abs().max() < 0.05
