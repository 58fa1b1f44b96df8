"""The optimizer is bit-identical to torch's fused AdamW.

pytest tests/lm/test_optimizer.py
"""

import pytest
import torch
from torch import nn

from squentropy.lm.optimizer import AdamW

SHAPES = [(7, 5), (5,), (3, 4), (9,)]


def parameters():
    draw = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=draw).requires_grad_() for shape in SHAPES]


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_steps_are_those_of_torchs_adamw_to_the_bit(weight_decay):
    ours, theirs = parameters(), parameters()
    optimizer = AdamW(ours, beta1=0.9, beta2=0.95, weight_decay=weight_decay)
    groups = [
        {"params": [p for p in theirs if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in theirs if p.dim() < 2], "weight_decay": 0.0},
    ]
    reference = torch.optim.AdamW(groups, lr=1.0, betas=(0.9, 0.95), fused=True)
    draw = torch.Generator().manual_seed(1)
    for lr in (0.1, 0.01, 0.3, 0.02, 0.005):
        for a, b in zip(ours, theirs):
            a.grad = torch.randn(a.shape, generator=draw)
            b.grad = a.grad.clone()
        optimizer.step(lr)
        for group in reference.param_groups:
            group["lr"] = lr
        reference.step()
        assert all(a.equal(b) for a, b in zip(ours, theirs))


def test_hidden_matrices_learn_and_decay_as_by_mup():
    """lr / m with the same decay per step as the others: torch's AdamW with decay times m."""
    ours, theirs = parameters(), parameters()
    optimizer = AdamW(ours, beta1=0.9, beta2=0.95, weight_decay=0.1, hidden=[ours[2]], multiple=4.0)
    shared = {"betas": (0.9, 0.95), "fused": True}
    reference = [
        torch.optim.AdamW([theirs[2]], lr=0.1 / 4, weight_decay=0.1 * 4, **shared),
        torch.optim.AdamW([theirs[0]], lr=0.1, weight_decay=0.1, **shared),
        torch.optim.AdamW([theirs[1], theirs[3]], lr=0.1, weight_decay=0.0, **shared),
    ]
    draw = torch.Generator().manual_seed(1)
    for _ in range(3):
        for a, b in zip(ours, theirs):
            a.grad = torch.randn(a.shape, generator=draw)
            b.grad = a.grad.clone()
        optimizer.step(0.1)
        for each in reference:
            each.step()
        assert all(a.equal(b) for a, b in zip(ours, theirs))


def test_without_mup_the_state_has_the_names_that_it_always_had():
    given = parameters()
    plain = AdamW(given, beta1=0.9, beta2=0.95, weight_decay=0.1)
    base = AdamW(given, beta1=0.9, beta2=0.95, weight_decay=0.1, hidden=given[:1], multiple=1.0)
    names = {f"{kind}.{g}.{i}" for kind in ("means", "squares", "steps") for g in (0, 1)
             for i in (0, 1)}  # fmt: skip
    assert plain.state().keys() == base.state().keys() == names | {"usual_norm"}


def test_a_step_forgets_the_gradients():
    given = parameters()
    for p in given:
        p.grad = torch.ones_like(p)
    AdamW(given, beta1=0.9, beta2=0.95, weight_decay=0.1).step(0.1)
    assert all(p.grad is None for p in given)


def test_matrices_decay_and_vectors_do_not():
    given, before = parameters(), parameters()
    for p in given:
        p.grad = torch.zeros_like(p)
    AdamW(given, beta1=0.9, beta2=0.95, weight_decay=0.5).step(0.1)
    for after, start in zip(given, before):
        expected = start * (1 - 0.1 * 0.5) if start.dim() >= 2 else start
        torch.testing.assert_close(after, expected)


def clipped(norms: list[float], clip: float, scale: float = 1.0) -> list[float]:
    """The norms of successive gradients of one float32 parameter after clipping."""
    weight = nn.Parameter(torch.zeros(4, 5))
    optimizer = AdamW([weight], beta1=0.9, beta2=0.99, weight_decay=0.0, clip=clip)
    direction = torch.arange(20.0).view(4, 5)
    direction /= direction.norm()
    found = []
    for norm in norms:
        weight.grad = direction * norm * scale
        optimizer._clip()
        found.append(weight.grad.norm().item() / scale)
    return found


NORMS = [1.0, 1.1, 0.9, 30.0, 1.0, 0.2, 5.0, 1.0]


def test_a_gradient_is_never_longer_than_so_many_usual_ones():
    usual, expected = NORMS[0], []
    for norm in NORMS:
        usual = 0.95 * usual + 0.05 * norm
        expected.append(min(norm, 1.5 * usual))
    assert clipped(NORMS, clip=1.5) == pytest.approx(expected, rel=1e-5)
    assert expected[3] < 4


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
def test_clipping_treats_long_and_short_gradients_alike(scale):
    assert clipped(NORMS, 1.0, scale) == pytest.approx(clipped(NORMS, 1.0), rel=1e-5)


def test_the_usual_norm_is_part_of_the_state():
    weight = nn.Parameter(torch.zeros(3))
    optimizer = AdamW([weight], beta1=0.9, beta2=0.99, weight_decay=0.0, clip=1.0)
    weight.grad = torch.tensor([3.0, 0.0, 4.0])
    optimizer.step(0.1)
    assert optimizer.state()["usual_norm"].item() == 5.0


def test_a_gradient_of_nought_stays_nought():
    assert clipped([0.0, 1.0, 0.0], clip=1.0) == [0.0, 1.0, 0.0]
