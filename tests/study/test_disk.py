"""The disk space of a study's weights is known before it runs.

pytest tests/study/test_disk.py
"""

import pytest

from squentropy.lm.model import GPT, Config
from squentropy.study import disk


@pytest.mark.parametrize("bias", [False, True])
def test_a_run_takes_what_its_tensors_take(tiny_study, bias):
    study = tiny_study(model={"bias": bias})
    model = GPT(Config(study.tokens.vocab_size, n_layer=3, dropout=0.0, **study.model.model_dump()))
    tensors = model.state_dict().values()
    assert disk.weights_bytes(study, 3) == sum(t.numel() * t.element_size() for t in tensors)


def test_the_grid_counts_where_its_weights_are_kept(tiny_study):
    runs, size = disk.checkpoints(tiny_study())
    grid = {"lr": [0.001, 0.01], "n_layer": [1, 2]}
    more, larger = disk.checkpoints(tiny_study(sweep=grid | {"keep_weights": True}))
    without, _ = disk.checkpoints(tiny_study(sweep=grid))
    cells, refining = 3 * 2 * 2, 3 * tiny_study().refine.max_runs
    assert without == runs
    assert more == runs + cells + refining
    assert larger > size


def test_it_is_said_in_one_line(tiny_study, monkeypatch):
    monkeypatch.setattr(disk, "checkpoints", lambda study: (1234, 46_200_000_000))
    said = disk.summary(tiny_study())
    assert said.startswith("Weights of 1,234 runs: 46.20 GB at most in checkpoints/tiny, ")
    assert "\n" not in said
