"""Losses over logits and as modules have the values and gradients of losses.py.

pytest tests/test_functional.py
"""

import inspect

import pytest
import torch
import torch.nn.functional as F

from squentropy import functional, nn
from squentropy.base.errors import SquentropyError
from squentropy.losses import LOSSES, own_link
from squentropy.study.catalogue import known_losses, loss_info

MODULES = {
    each.function: each
    for each in vars(nn).values()
    if inspect.isclass(each) and issubclass(each, nn.Loss) and each is not nn.Loss
}
NAMES = [
    *known_losses(),
    "squentropy(0.1)",
    "mse_weighted(15)",
    "squentropy_weighted(2.65)",
    "z_loss(0.01)",
    "spherical(0.5)",
]
every_loss = pytest.mark.parametrize("name", NAMES)


def over_logits(name: str, logits, targets, **how):
    known = loss_info(name)
    return getattr(functional, known.function)(logits, targets, **known.arguments, **how)


def module(name: str, **how) -> nn.Loss:
    known = loss_info(name)
    return MODULES[known.function](**known.arguments, **how)


def problem(n=17, d=6, c=13, dtype=torch.float64):
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, d, generator=draw, dtype=torch.float64)
    weight = torch.randn(c, d, generator=draw, dtype=torch.float64)
    bias = torch.randn(c, generator=draw, dtype=torch.float64)
    targets = torch.randint(c, (n,), generator=draw)
    return *(t.to(dtype).requires_grad_() for t in (hidden, weight, bias)), targets


def gradients(value, *of):
    return torch.autograd.grad(value, of)


def assert_close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_every_loss_of_the_catalogue_has_a_function_and_a_module_with_its_own_defaults():
    assert MODULES.keys() == set(known_losses())
    for name in known_losses():
        defaults = loss_info(name).arguments
        for taken in (getattr(functional, name), MODULES[name].__init__):
            parameters = inspect.signature(taken).parameters
            assert {key: parameters[key].default for key in defaults} == defaults
            assert parameters["ignore_index"].default == -100


@every_loss
def test_over_logits_it_is_the_loss_over_hidden_states(name):
    hidden, weight, _, targets = problem()
    expected = LOSSES[name](hidden, weight, targets)
    found = over_logits(name, hidden @ weight.T, targets)
    assert_close(found, expected)
    assert_close(gradients(found, hidden, weight), gradients(expected, hidden, weight))


@every_loss
def test_positions_may_have_any_shape_and_ignored_ones_count_for_nothing(name):
    hidden, weight, _, targets = problem(n=12)
    ignored = torch.zeros(3, 4, dtype=torch.bool)
    ignored[0, 1] = ignored[2, 3] = True
    logits, targets = (hidden @ weight.T).detach().view(3, 4, -1), targets.view(3, 4)
    kept, wanted = logits[~ignored].requires_grad_(), targets[~ignored]
    logits[ignored], targets[ignored] = torch.nan, -1  # with arbitrary contents
    logits.requires_grad_()

    expected = over_logits(name, kept, wanted)
    found = over_logits(name, logits, targets, ignore_index=-1)
    assert_close(found, expected)
    [gradient] = gradients(found, logits)
    assert_close(gradient[~ignored], gradients(expected, kept)[0])
    assert gradient[ignored].eq(0).all()

    each = over_logits(name, logits, targets, ignore_index=-1, reduction="none")
    assert each.shape == targets.shape
    assert each[ignored].eq(0).all()
    assert_close(each[~ignored].mean(), expected)
    summed = over_logits(name, logits, targets, ignore_index=-1, reduction="sum")
    assert_close(summed, each.sum())


@every_loss
def test_over_hidden_states_a_bias_and_ignored_positions_are_those_of_the_logits(name):
    hidden, weight, bias, targets = problem(n=12)
    targets[[2, 5]] = -100
    states, shaped = hidden.view(3, 4, -1), targets.view(3, 4)
    found = functional.over_hidden(name, states, weight, shaped, bias=bias)
    expected = over_logits(name, hidden @ weight.T + bias, targets)
    assert_close(found, expected)
    assert_close(gradients(found, hidden, weight, bias), gradients(expected, hidden, weight, bias))


@every_loss
def test_the_module_is_the_function(name):
    hidden, weight, bias, targets = problem()
    it, logits = module(name), hidden @ weight.T + bias
    assert loss_info(it.name) == loss_info(name)
    assert_close(it(logits, targets), over_logits(name, logits, targets))
    assert_close(it.over_hidden(hidden, weight, targets, bias), it(logits, targets))
    each = module(name, ignore_index=int(targets[0]), reduction="none")(logits, targets)
    assert each[0] == 0
    assert list(it.parameters()) == []


@every_loss
def test_where_every_position_is_ignored_it_is_zero_and_so_are_its_gradients(name):
    hidden, weight, bias, targets = problem()
    targets[:] = -100
    for value in (
        over_logits(name, hidden @ weight.T + bias, targets),
        functional.over_hidden(name, hidden, weight, targets, bias=bias),
    ):
        assert value == 0
        assert all(g.eq(0).all() for g in gradients(value, hidden, weight, bias))


@every_loss
def test_half_precision_is_worked_out_in_float32(name):
    hidden, weight, _, targets = problem(dtype=torch.bfloat16)
    logits = (hidden @ weight.T).detach().requires_grad_()
    found = over_logits(name, logits, targets)
    assert found.dtype == torch.float32
    assert_close(found, over_logits(name, logits.float(), targets))
    assert gradients(found, logits)[0].dtype == torch.bfloat16


def test_a_large_true_logit_does_not_swallow_the_others():
    logits = torch.tensor([[1e6, 1e-3, 2e-3]])
    found = functional.squentropy(logits, torch.tensor([0]))
    assert found.item() == pytest.approx(5e-6 / 2, rel=1e-5)


def test_cross_entropy_is_torchs():
    hidden, weight, _, targets = problem()
    targets[3] = -100
    logits = hidden @ weight.T
    for reduction in ("mean", "sum", "none"):
        assert_close(
            functional.cross_entropy(logits, targets, reduction=reduction),
            F.cross_entropy(logits, targets, reduction=reduction),
        )


def test_a_loss_in_a_file_of_ones_own_has_a_bias_and_ignored_positions_too(tmp_path, monkeypatch):
    text = (
        "from squentropy.losses import loss\n\n\n@loss\ndef half(hidden, weight, targets):\n"
        '    """Half of the logits\' mean."""\n    return (hidden @ weight.T).mean() / 2\n'
    )
    (tmp_path / "mine.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    hidden, weight, bias, targets = problem()
    targets[:5] = -100
    found = functional.over_hidden("mine.py:half", hidden, weight, targets, bias=bias)
    assert_close(found, ((hidden @ weight.T + bias)[5:]).mean() / 2)


@pytest.mark.parametrize("name", ["squentropy", "mse", "spherical", "taylor"])
def test_probabilities_are_those_by_which_the_study_reads_the_loss(name):
    outputs = torch.rand(2, 3, 9)
    link = own_link(name, floor=1e-6)
    expected = outputs.softmax(-1) if link is None else link(outputs)
    found = functional.probabilities(name, outputs)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 3))


def test_mistakes_are_said():
    logits, targets = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match="'average' is not known; write mean, sum or none"):
        functional.mse(logits, targets, reduction="average")
    with pytest.raises(ValueError, match="did you mean 'squentropy'"):
        functional.over_hidden("squentropi", logits, torch.zeros(3, 3), targets)
    with pytest.raises(SquentropyError, match="begin at -1; they have to be above 0"):
        functional.spherical(logits, targets, epsilon=-1)
