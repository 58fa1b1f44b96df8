"""Under muP, models of all widths learn alike at one learning rate; at 128 nothing changes.

pytest tests/lm/test_mup.py
"""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from squentropy.lm.cpu_block import Noise
from squentropy.lm.model import GPT, Cache, Config
from squentropy.lm.optimizer import AdamW
from squentropy.losses import cross_entropy

CLASSES, LENGTH, LAYERS = 32, 16, 2


def make(width: int, parametrization="mup", positions="alibi", bias=False) -> GPT:
    torch.manual_seed(0)
    shape = (CLASSES, LENGTH, LAYERS, width // 32, width, 0.0, bias, positions)
    return GPT(Config(*shape, parametrization))


def decided(*given) -> GPT:
    """A model whose norms and biases are not at their initial 1 and 0."""
    model = make(*given)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def ids() -> tuple[Tensor, Tensor]:
    """Inputs and targets."""
    drawn = torch.randint(CLASSES, (2, 8, LENGTH), generator=torch.Generator().manual_seed(0))
    return drawn[0], drawn[1]


@torch.no_grad()
def logits(model: GPT) -> Tensor:
    return model(ids()[0]) @ model.output_weight.T


def learn(model: GPT, steps: int, lr: float) -> None:
    optimizer = AdamW(
        model.parameters(), beta1=0.9, beta2=0.99, weight_decay=0.1, clip=0.7,
        hidden=model.hidden_matrices(), multiple=model.config.multiple,
    )  # fmt: skip
    x, y = ids()
    for _ in range(steps):
        cross_entropy(model(x).flatten(0, 1), model.output_weight, y.flatten()).backward()
        optimizer.step(lr)


def moved(width: int, parametrization: str) -> list[float]:
    """Mean absolute change of the logits and of each block's outputs after ten steps."""
    model, seen = make(width, parametrization), []
    for block in model.h:
        block.register_forward_hook(lambda *given: seen.append(given[-1].detach()))
    before = [logits(model), *seen]
    learn(model, 10, 0.001)
    seen.clear()
    after = [logits(model), *seen]
    return [(a - b).abs().mean().item() for a, b in zip(after, before, strict=True)]


@pytest.mark.parametrize("parametrization", ["standard", "mup"])
def test_steps_move_every_width_as_far_under_mup_and_wide_ones_further_without(parametrization):
    """The coordinate check of Yang et al. 2022, appendix D.1."""
    by_width = [moved(width, parametrization) for width in (64, 128, 256, 512)]
    for each in zip(*by_width, strict=True):  # the logits, then each block
        if parametrization == "mup":
            assert max(each) < 1.5 * min(each)
        else:
            assert list(each) == sorted(each)
            assert each[-1] > 4 * each[0]


def test_at_the_base_width_mup_is_the_standard_to_the_bit():
    models = [make(128, parametrization) for parametrization in ("standard", "mup")]
    for model in models:
        learn(model, 5, 0.01)
    standard, mup = models
    assert logits(mup).equal(logits(standard))
    for one, other in zip(mup.parameters(), standard.parameters(), strict=True):
        assert one.equal(other)


@pytest.mark.parametrize("width", [32, 512])
def test_only_the_blocks_matrices_start_otherwise(width):
    for (name, p), q in zip(make(width).named_parameters(), make(width, "standard").parameters()):
        hidden = name.startswith("h.") and p.dim() == 2
        expected = q * math.sqrt(128 / width) if hidden else q
        torch.testing.assert_close(p, expected, msg=name)


def test_every_way_through_a_model_ends_alike():
    """In one pass, with the CPU's training blocks, compiled, token by token; here m = 1/4."""
    model, (x, _) = decided(32), ids()
    plain = model(x)
    standard = GPT(replace(model.config, parametrization="standard")).eval()
    standard.load_state_dict(model.state_dict())
    assert plain.equal(standard(x) * 4)
    torch.testing.assert_close(model(x, noise=Noise(0, 0)), plain)
    torch.testing.assert_close(torch.compile(model, backend="eager", fullgraph=True)(x), plain)
    cache = Cache(LAYERS)
    parts = [model(x[:, :5], cache), *(model(x[:, t : t + 1], cache) for t in range(5, LENGTH))]
    torch.testing.assert_close(torch.cat(parts, 1), plain)


@pytest.mark.parametrize(("positions", "bias"), [("alibi", False), ("learned", True)])
def test_a_folded_model_is_the_same_function_without_mup(positions, bias):
    model = decided(64, "mup", positions, bias)
    before, folded = logits(model), model.folded()
    assert folded.config == replace(model.config, parametrization="standard")
    torch.testing.assert_close(logits(folded), before)
    assert logits(model).equal(before)  # unchanged
    assert folded.folded() is folded
