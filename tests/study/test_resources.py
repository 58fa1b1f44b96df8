"""The resources that jobs request from a cluster grow with their work.

pytest tests/study/test_resources.py
"""

import re

import pytest

from squentropy.base.errors import ParameterError
from squentropy.lm.model import GPT, Config
from squentropy.study import disk, resources


def test_memory_holds_the_deepest_models_training_and_no_less_than_a_process(tiny_study):
    small = tiny_study()
    deep = tiny_study(sweep={"n_layer": [1, 12]}, model={"n_embd": 256})
    assert resources.training_mb(small) == pytest.approx(resources.PROCESS_MB, rel=0.01)
    states = resources.COPIES * disk.weights_bytes(deep, 12) / 1e6
    assert resources.training_mb(deep) > resources.PROCESS_MB + states


def test_the_reported_cell_may_be_the_deepest(tiny_study):
    reported = {"n_layer": 48}
    assert resources.training_mb(tiny_study(final={"reported": reported})) == resources.training_mb(
        tiny_study(sweep={"n_layer": [1, 48]})
    )


def test_a_row_of_the_grid_takes_what_its_cells_take(tiny_study):
    cell = resources.training_flops(tiny_study(), "sweep")
    row = resources.training_flops(tiny_study(sweep={"dropout": [0.0, 0.1, 0.2]}), "sweep")
    assert row == 3 * cell


def test_a_teachers_stories_take_time_and_memory_and_another_sources_none(tiny_study, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(bytes(4000))
    model = {"run": str(tmp_path), "train": 900, "validation": 40, "test": 60, "max_tokens": 50}
    told = tiny_study(corpus={"source": "model", "model": model})
    other = tiny_study(corpus={"model": model})
    assert resources.drawing_flops(told) == 1000 * 50 * 2 * 1000
    assert resources.drawing_flops(other) == 0
    more = tiny_study(corpus={"source": "model", "model": model | {"train": 1_000_900}})
    assert resources.corpus_mb(other) == resources.PROCESS_MB
    assert resources.corpus_mb(more) - resources.corpus_mb(told) == resources.STORY_BYTES


def test_minutes_grow_with_iterations_and_shrink_on_a_gpu(tiny_study):
    study = tiny_study(final={"max_iters": 20_000_000})
    flops = resources.training_flops(study, "final")
    assert resources.minutes(study, 0, gpu=False) == resources.START_MINUTES
    assert resources.minutes(study, flops, gpu=False) > resources.minutes(
        study, flops / 2, gpu=False
    )
    assert resources.minutes(study, flops, gpu=True) == resources.START_MINUTES
    threads = tiny_study(final={"max_iters": 20_000_000}, train={"threads": 2})
    assert resources.minutes(threads, flops, gpu=False) < resources.minutes(study, flops, gpu=False)


def test_what_cannot_fit_into_memory_is_refused_by_what_its_tensors_take(tiny_study, monkeypatch):
    study = tiny_study(model={"n_embd": 64}, sweep={"n_layer": [1, 3]})
    shape = study.model.model_dump()
    model = GPT(Config(study.tokens.vocab_size, n_layer=3, dropout=0.0, **shape))
    tensors = 4 * sum(tensor.numel() for tensor in model.state_dict().values())
    least = resources.least_mb(study)
    assert 4 * tensors / 1e6 <= least + 1 <= resources.training_mb(study)
    monkeypatch.setattr(resources, "machine_mb", lambda: least)
    resources.check(study, gpu=False)
    monkeypatch.setattr(resources, "machine_mb", lambda: least - 1)
    with pytest.raises(ParameterError, match=r"^tiny: training needs at least .* GB of memory, "):
        resources.check(study, gpu=False)
    resources.check(study, gpu=True)  # which has its own memory


@pytest.mark.parametrize(
    "changes",
    [
        {"sweep": {"n_layer": [1000]}, "model": {"n_embd": 65_536, "n_head": 1}},
        {"train": {"batch_size": 2_000_000_000}},
        {"model": {"n_embd": 65_536, "block_size": 1_000_000}},
    ],
)
def test_the_largest_parameters_are_refused_at_once(tiny_study, changes):
    study = tiny_study(**changes)
    with pytest.raises(ParameterError, match=r"reduce model\.n_embd, sweep\.n_layer or train\.b"):
        resources.check(study, gpu=False)
    assert "\n" not in resources.summary(study, 2, gpu=False)


def test_what_cannot_fit_on_the_disk_is_refused_unless_it_lies_there(
    tiny_study, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    study = tiny_study()
    least = disk.least_bytes(study)
    assert least <= disk.checkpoints(study)[1]
    usage = type("Usage", (), {"free": least - 1})
    monkeypatch.setattr(resources.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ParameterError, match=r"^tiny: its weights need at least .* GB on disk"):
        resources.check(study, gpu=False)
    run = tmp_path / "checkpoints/tiny/final/mse/seed1"
    run.mkdir(parents=True)
    (run / "model.safetensors").write_bytes(b"x")
    resources.check(study, gpu=False)


def test_time_and_memory_are_said_in_one_line(tiny_study):
    study = tiny_study()
    pattern = r"Training takes about a minute on 1 core at most, and 2\.0 GB of memory per run; "
    assert re.match(pattern, resources.summary(study, 1, gpu=False))
    long = tiny_study(final={"max_iters": 2_000_000_000}, train={"batch_size": 2000})
    (two,) = re.findall(r"about ([0-9,]+) days on 2 cores", resources.summary(long, 2, gpu=False))
    (four,) = re.findall(r"about ([0-9,]+) days on 4 cores", resources.summary(long, 4, gpu=False))
    assert int(two.replace(",", "")) == pytest.approx(2 * int(four.replace(",", "")), rel=0.01)
    assert "on a GPU" in resources.summary(long, 4, gpu=True)
