"""The divergence of predictions from the source: against dense float64, and in whole studies.

pytest tests/evaluation/test_certainty.py
"""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch

from squentropy.corpus.grammar import prediction
from squentropy.corpus.grammar.grammar import load_grammar
from squentropy.evaluation import certainty
from squentropy.evaluation.calibration import readings
from squentropy.evaluation.run import evaluate_run
from squentropy.results import tables
from squentropy.tokens.token_files import TokenFolder
from squentropy.tokens.tokenizer import read_encoding, story_bytes
from squentropy.training.run import train_run

C, D = 11, 4
SOFTMAX = readings(1.0, {})["softmax"]


@pytest.fixture
def sparse(monkeypatch):
    """Predictions at 40 positions: dense (40, C), and in the format of certainty.py."""
    monkeypatch.setattr(certainty, "ROWS", 16)
    rng = np.random.default_rng(0)
    dense = rng.dirichlet(np.full(C, 0.3), 40) * (rng.random((40, C)) < 0.4)
    dense[:, 3] += 0.01
    dense[7] = np.eye(C)[5]
    dense /= dense.sum(1, keepdims=True)
    places, ids = dense.nonzero()
    starts = np.cumsum([0, *np.bincount(places, minlength=40)])
    return dense, certainty.Exact(ids, dense[places, ids], starts)


def test_columns_are_those_of_dense_float64(sparse):
    dense, exact = sparse
    torch.manual_seed(0)
    hidden, weight = torch.randn(40, D), torch.randn(C, D)
    targets = dense.argmax(1)
    found = certainty.compared(hidden, weight, targets, exact, SOFTMAX)
    log_q = (hidden.double() @ weight.double().T).log_softmax(-1)
    kl = torch.nn.functional.kl_div(log_q, torch.from_numpy(dense), reduction="none").sum(1)
    assert found["kl"] == pytest.approx(kl.numpy(), abs=1e-5)
    assert found["nll"] == pytest.approx(-log_q[range(40), targets].numpy(), abs=1e-5)
    outside = (log_q.exp().numpy() * (dense == 0)).sum(1)
    assert found["outside"] == pytest.approx(outside, abs=1e-6)
    entropy = -np.where(dense > 0, dense * np.log(np.maximum(dense, 1e-300)), 0).sum(1)
    assert found["entropy"] == pytest.approx(entropy, abs=1e-12)
    assert found["entropy"][7] == 0


def test_the_source_itself_has_no_divergence(sparse):
    dense, exact = sparse
    logits = torch.from_numpy(np.log(np.maximum(dense, 1e-30))).float()
    found = certainty.compared(logits, torch.eye(C), dense.argmax(1), exact, SOFTMAX)
    assert found["kl"] == pytest.approx(np.zeros(40), abs=1e-5)
    assert found["outside"] == pytest.approx(np.zeros(40), abs=1e-6)


def test_predictions_are_of_every_token_of_the_stories(grammar_data, monkeypatch):
    tokens = TokenFolder.open(grammar_data / "tokens")
    split = tokens.split("test").head(4)
    monkeypatch.setattr(prediction, "STORIES", 4)
    exact = prediction.predictions(tokens.split("test"), read_encoding(tokens))
    assert len(exact.entropy) == len(split.ids)
    own = [
        exact.probs[a:b][exact.ids[a:b] == token].item()
        for token, (a, b) in zip(split.ids, itertools.pairwise(exact.starts), strict=True)
    ]
    log_prob = sum(story.log_prob for story in load_grammar().stories(2, 0, 4))
    assert np.log(own).sum() == pytest.approx(log_prob, abs=1e-7)


@pytest.fixture(scope="module")
def grammar_study(grammar_data, tiny_study, tmp_path_factory):
    """A miniature study of grammar stories, its final runs' table, and its test split."""
    study = tiny_study(sweep={"losses": ["cross_entropy", "mse"]}, final={"seeds": [1, 2]})
    folder, tokens = tmp_path_factory.mktemp("study"), TokenFolder.open(grammar_data / "tokens")
    sizes = story_bytes(grammar_data / "corpus", "test", tokens)
    at = {"lr": 0.01, "dropout": 0.0, "n_layer": 1}
    exact = prediction.predictions(tokens.split("test"), read_encoding(tokens))
    scores = {}
    for cell in study.final_cells(dict.fromkeys(study.sweep.losses, at)):
        train_run(study, cell, tokens, folder / cell.name)
        scores[cell] = evaluate_run(study, folder / cell.name, tokens, sizes, "test", exact)
    rows = tables._certainty_rows(study, scores)
    return study, pd.DataFrame(rows, columns=tables.CERTAINTY), tokens.split("test")


def test_every_final_run_has_every_place_in_one_bin(grammar_study):
    study, table, split = grammar_study
    runs = table.groupby(["loss", "seed"])
    assert set(runs.groups) == {(c.loss, c.seed) for c in study.final_cells({})}
    assert set(runs["tokens"].sum()) == {len(split.ids)}
    high = table["low"].map(dict(itertools.pairwise(certainty.EDGES))).fillna(np.inf)
    mean = table["entropy"] / table["tokens"]
    assert ((mean >= table["low"]) & (mean < high)).all()
    assert (table["kl"] > 0).all()
    assert table["outside"].between(0, table["tokens"]).all()


def test_divergence_is_what_nll_exceeds_the_entropy_by(grammar_study):
    """This holds in expectation over the next token; here over the tokens of thirty stories."""
    _, table, split = grammar_study
    sums = table.groupby(["loss", "seed"])[["nll", "kl", "entropy"]].sum()
    gap = (sums["nll"] - sums["entropy"] - sums["kl"]) / len(split.ids)
    assert gap.abs().max() < 0.1 * (sums["kl"] / len(split.ids)).min()
