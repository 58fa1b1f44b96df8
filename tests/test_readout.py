"""Body or read-out: the refitted output matrix minimises cross entropy.

pytest tests/test_readout.py
"""

import importlib.util
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
import torch.nn.functional as F

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def readout():
    spec = importlib.util.spec_from_file_location("readout", ROOT / "studies/readout.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("length", [0.1, 10.0])
def test_a_refit_is_as_good_as_the_matrix_that_the_tokens_were_drawn_by(
    readout, length, monkeypatch
):
    """For any norm of the hidden states."""
    monkeypatch.setattr(readout, "BATCH", 256)
    monkeypatch.setattr(readout, "EPOCHS", 40)
    generator = torch.Generator().manual_seed(0)
    hidden = length * torch.randn(4000, 8, generator=generator)
    true = torch.randn(20, 8, generator=generator) / length
    targets = (hidden @ true.T).softmax(-1).multinomial(1, generator=generator).squeeze(-1)
    weight, losses = readout.refit((hidden, targets), 20)
    found = F.cross_entropy(hidden @ weight.T, targets).item()
    assert found < F.cross_entropy(hidden @ true.T, targets).item() + 0.002
    assert math.isclose(losses[-1], found, abs_tol=0.02)


def test_a_row_holds_the_nll_that_the_run_has_and_that_of_its_body(readout, finished, tokens):
    run = finished / "checkpoints/final/cross_entropy/seed1"
    before = (run / "model.safetensors").read_bytes()
    row = readout.row(run, tokens)
    assert row["loss"] == "cross_entropy"
    assert math.isfinite(row["refitted_nll"])
    assert row["nll"] < math.log(tokens.vocab_size)
    assert (run / "model.safetensors").read_bytes() == before


def test_the_committed_table_has_every_loss_of_the_long_study():
    table = pd.read_csv(ROOT / "results/readout/readout.csv")
    metrics = pd.read_csv(ROOT / "results/long/metrics.csv")
    assert set(table["loss"]) == set(metrics.loc[metrics["kind"] == "loss", "loss"])
