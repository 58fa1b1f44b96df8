"""The second phase of tuning, with functions of the cell instead of training."""

import math
from dataclasses import replace

import numpy as np
import pytest

from squentropy.study.grid import Cell
from squentropy.tuning.refinement import neighbours, refine, simplest, tied

GRID = [(d, n) for d in (0.0, 0.1) for n in (1, 2)]


@pytest.fixture
def study(tiny_study):
    def make(**refine):
        grid = {"lr": [0.001, 0.01], "dropout": [0.0, 0.1], "n_layer": [1, 2]}
        return tiny_study(sweep=grid, refine=refine)

    return make


def cell(lr=0.01, dropout=0.0, n_layer=1, phase="sweep"):
    return Cell(phase, "mse", lr, dropout, n_layer, 0)


def bowl(best_lr, per_dropout=1.0, per_layer=1.0):
    """An nll function with its minimum at `best_lr`, dropout 0 and one layer."""

    def nll(c):
        off = math.log2(c.lr / best_lr) ** 2
        return 1 + off + per_dropout * c.dropout + per_layer * (c.n_layer - 1)

    return nll


def swept(nll, lrs=(0.001, 0.01)):
    return {cell(lr, d, n): nll(cell(lr, d, n)) for lr in lrs for d, n in GRID}


@pytest.mark.parametrize("best_lr", [0.0003, 0.0017, 0.01, 0.06, 0.4])
def test_the_best_learning_rate_lies_between_two_that_were_tried(study, best_lr):
    s, nll = study(max_runs=30), bowl(best_lr)
    found = refine(s, swept(nll), nll)
    rates = sorted(c.lr for c in found.trials)
    assert found.inside
    assert not found.max_runs_reached
    assert min(rates) < found.best.lr < max(rates)
    assert abs(math.log2(found.best.lr / best_lr)) <= 0.5
    assert "lr" not in found.edge


def test_neighbouring_learning_rates_are_one_factor_apart(study):
    for factor in (1.3, math.sqrt(2), 2.0, 2.5):
        s, nll = study(factor=factor, max_runs=100), bowl(0.3)
        found = refine(s, swept(nll), nll)
        rates = np.sort([c.lr for c in found.trials])
        assert np.allclose(rates[1:] / rates[:-1], factor, rtol=1e-5)


def test_a_step_up_and_a_step_down_come_back_to_the_same_cell(study):
    for factor in (1.3, math.sqrt(2), 2.0, 2.5):
        s, start = study(factor=factor), 0.01
        c = cell(start)
        for _ in range(5):
            above = neighbours(s, c, start)[1]
            assert neighbours(s, above, start)[0] == c
            c = above
        for _ in range(20):
            c = neighbours(s, c, start)[0]
        assert neighbours(s, c, start)[1].lr < start


def test_no_more_runs_than_allowed_are_trained_and_the_end_is_told(study):
    s, nll = study(max_runs=4), bowl(8.0)
    found = refine(s, swept(nll), nll)
    assert len(found.trials) == 4
    assert found.max_runs_reached
    assert not found.inside
    assert "lr" in found.edge


def test_a_dropout_that_the_sweep_cannot_tell_apart_is_tried_again(study):
    short, longer = bowl(0.01, per_dropout=0.1), bowl(0.01, per_dropout=-5)
    s = study(tie=0.02, max_runs=30)
    found = refine(s, swept(short), longer)
    assert found.best.dropout == 0.1
    assert {c.dropout for c in found.trials} == {0.0, 0.1}
    # Both neighbours of the new best were tried too.
    assert found.inside


def test_it_starts_from_the_simplest_cell_that_the_sweep_cannot_tell_from_the_best(study):
    best = cell(0.01, 0.1, 2)
    nll = {cell(lr, d, n): 3.0 for lr in (0.001, 0.01) for d, n in GRID} | {best: 1.0}
    assert simplest(study(tie=0.02), nll) == best
    nll[cell(0.01, 0.0, 2)] = nll[cell(0.001, 0.0, 1)] = 1.01  # the latter at another rate
    assert simplest(study(tie=0.02), nll) == cell(0.01, 0.0, 2)
    nll[cell(0.01, 0.1, 1)] = 1.01  # less dropout counts more than fewer layers
    assert simplest(study(tie=0.02), nll) == cell(0.01, 0.0, 2)
    nll[cell(0.01, 0.0, 1)] = 1.03
    assert simplest(study(tie=0.02), nll) == cell(0.01, 0.0, 2)


def test_a_depth_that_the_sweep_does_tell_apart_is_not_tried_again(study):
    s, nll = study(tie=0.02, max_runs=30), bowl(0.01, per_dropout=1, per_layer=1)
    found = refine(s, swept(nll), nll)
    assert {(c.dropout, c.n_layer) for c in found.trials} == {(0.0, 1)}


def test_a_tie_is_judged_by_the_best_cell_with_that_value(study):
    s = study(tie=0.02)
    nll = dict.fromkeys((cell(lr, d, n) for lr in (0.001, 0.01) for d, n in GRID), 3.0)
    nll[cell(0.01, 0.0, 1)] = 1.0
    nll[cell(0.001, 0.1, 2)] = 1.01
    own = [("dropout", 0.0), ("n_layer", 1)]
    assert sorted(tied(s, nll)) == sorted([*own, ("dropout", 0.1), ("n_layer", 2)])
    nll[cell(0.001, 0.1, 2)] = 1.03
    assert sorted(tied(s, nll)) == own


def test_where_every_run_diverges_the_learning_rate_goes_down(study):
    s = study(max_runs=6)

    def nll(c):
        return 2.0 if c.lr < 0.0002 else math.inf

    found = refine(s, swept(lambda c: math.inf), nll)
    assert found.best.lr < 0.0002
    assert min(found.trials.values()) == 2.0


def test_the_order_of_the_sweep_does_not_matter(study):
    s, nll = study(max_runs=30), bowl(0.05, per_dropout=-0.1, per_layer=-0.2)
    there = refine(s, swept(nll), nll)
    back = refine(s, dict(reversed(swept(nll).items())), nll)
    assert list(there.trials) == list(back.trials)
    assert all(c.phase == "refine" for c in there.trials)


def test_a_run_is_trained_once(study):
    s, nll, asked = study(max_runs=30), bowl(0.05, per_dropout=-0.1, per_layer=-0.2), []

    def counted(c):
        asked.append(c)
        return nll(c)

    refine(s, swept(nll), counted)
    assert len(asked) == len(set(asked))


def test_a_cell_s_other_keys_are_kept(study):
    c = replace(cell(), seed=7)
    assert {n.seed for n in neighbours(study(), c, 0.01)} == {7}
