"""What jobs ask a cluster for grows with what they do.

pytest tests/study/test_resources.py
"""

import pytest

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
