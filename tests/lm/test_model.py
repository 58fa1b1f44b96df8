"""The model is GPT-2, optionally with ALiBi: shape, initialisation, causality and values.

pytest tests/lm/test_model.py
"""

import math
from dataclasses import replace

import pytest
import torch

from squentropy.lm.model import GPT, Cache, Config, Linear, alibi, alibi_slopes
from squentropy.losses import cross_entropy

CONFIG = Config(50, block_size=12, n_layer=2, n_head=2, n_embd=16, dropout=0.1, bias=True)
with_and_without_bias = pytest.mark.parametrize("bias", [True, False])
with_either_positions = pytest.mark.parametrize("positions", ["learned", "alibi"])


def make(seed=0, **changes) -> GPT:
    torch.manual_seed(seed)
    return GPT(replace(CONFIG, **changes)).eval()


def ids(batch=3, length=12) -> torch.Tensor:
    return torch.randint(50, (batch, length), generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def _no_gradient():
    with torch.no_grad():
        yield


@with_and_without_bias
def test_the_parameters_are_as_many_as_gpt2_has(bias):
    model, d, layers = make(bias=bias), 16, 2
    a_layer = 12 * d * d + 2 * d + bias * (9 * d + 2 * d)  # matrices, norms, and the biases of both
    assert model.parameter_count() == 50 * d + layers * a_layer + d * (1 + bias)
    everything = sum(p.numel() for p in model.parameters())
    assert everything - model.parameter_count() == 12 * d  # the position embedding


def test_gpt2_itself_has_124_million_parameters():
    with torch.device("meta"):
        model = GPT(Config(50257, 1024, n_layer=12, n_head=12, n_embd=768, dropout=0.0, bias=True))
    assert sum(p.numel() for p in model.parameters()) == 124_439_808


def test_the_output_matrix_is_the_token_embedding():
    model = make()
    assert model.output_weight is model.wte.weight
    assert not any("lm_head" in name for name in model.state_dict())


def test_a_fresh_model_is_as_good_as_chance():
    model = make(vocab_size=1000, n_embd=32, n_layer=3)
    inputs = torch.randint(1000, (20, 12))
    targets = torch.randint(1000, (240,))
    nll = cross_entropy(model(inputs).flatten(0, 1), model.output_weight, targets)
    assert nll.item() == pytest.approx(math.log(1000), abs=0.05)


def test_what_adds_to_the_residual_stream_starts_smaller_by_its_number_of_additions():
    model = make(n_embd=128, n_layer=8)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif parameter.dim() == 2:
            expected = 0.02 / 4 if "c_proj" in name else 0.02  # sqrt(2 * 8) = 4
            # The relative standard error of a standard deviation over n is 1 / sqrt(2 n).
            assert parameter.std().item() == pytest.approx(
                expected, rel=5 / math.sqrt(2 * parameter.numel())
            )
        else:
            assert (parameter == 1).all()


@with_and_without_bias
@pytest.mark.parametrize("shape", [(2, 3), (40, 50)])  # below and above the threshold for oneDNN
def test_a_linear_layer_is_the_same_with_a_gradient_and_without(bias, shape):
    torch.manual_seed(0)
    layer = Linear(64, 192, bias=bias)
    x = torch.randn(*shape, 64)
    with torch.no_grad():
        found = layer(x)
    torch.testing.assert_close(found, layer(x).detach(), rtol=1e-5, atol=1e-5)


@with_either_positions
def test_a_later_token_changes_no_earlier_state(positions):
    model, before = make(positions=positions), ids()
    for position in range(1, 12):
        after = before.clone()
        after[:, position] = (after[:, position] + 1) % 50
        changed = (model(before) != model(after)).any(-1)
        assert not changed[:, :position].any()
        assert changed[:, position].all()


@with_either_positions
def test_a_state_does_not_depend_on_what_follows_or_on_its_neighbours(positions):
    model, inputs = make(positions=positions), ids()
    torch.testing.assert_close(model(inputs[:1, :5]), model(inputs)[:1, :5])


@with_either_positions
@pytest.mark.parametrize("prompt", [1, 5, 12])
def test_token_by_token_with_a_cache_is_the_whole_at_once(prompt, positions):
    model, inputs, cache = make(positions=positions), ids(), Cache(2)
    pieces = [model(inputs[:, :prompt], cache)]
    pieces += [model(inputs[:, t : t + 1], cache) for t in range(prompt, 12)]
    assert cache.length == 12
    torch.testing.assert_close(torch.cat(pieces, 1), model(inputs))


@with_either_positions
def test_a_cache_can_forget_rows(positions):
    model, inputs, cache = make(positions=positions), ids(), Cache(2)
    model(inputs[:, :7], cache)
    cache.keep([2, 0])
    torch.testing.assert_close(model(inputs[[2, 0], 7:8], cache)[:, 0], model(inputs)[[2, 0], 7])


def test_dropout_acts_in_training_only():
    model = make()
    assert model(ids()).equal(model(ids()))
    model.train()
    assert not model(ids()).equal(model(ids()))


@with_and_without_bias
def test_the_numbers_are_those_of_hugging_faces_gpt2(bias):
    from transformers.models.gpt2.configuration_gpt2 import GPT2Config
    from transformers.models.gpt2.modeling_gpt2 import GPT2LMHeadModel

    model = make(bias=bias)
    for parameter in model.parameters():  # biases and norms too, which start at 0 and 1
        parameter.add_(torch.randn_like(parameter) * 0.1)
    theirs = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=50, n_positions=12, n_embd=16, n_layer=2, n_head=2,
            activation_function="gelu", bos_token_id=0, eos_token_id=0,
        )
    ).eval()  # fmt: skip
    weights = dict.fromkeys(theirs.transformer.state_dict(), torch.zeros(()))
    for name, value in model.state_dict().items():
        linear = ".c_" in name and name.endswith("weight")
        weights[name] = value.T if linear else value
    state = theirs.transformer.state_dict()
    theirs.transformer.load_state_dict(
        {name: value.expand_as(state[name]) for name, value in weights.items()}
    )
    logits = model(ids()) @ model.output_weight.T
    torch.testing.assert_close(logits, theirs(ids()).logits, rtol=1e-5, atol=1e-5)


def test_alibis_scores_fall_by_the_slope_a_token_and_never_see_ahead():
    """The definition by Press et al. 2022, in which eight heads have slopes 1/2 to 1/256."""
    slopes = alibi_slopes(8)
    assert slopes.tolist() == [2.0**-i for i in range(1, 9)]
    bias = alibi(slopes, torch.arange(2, 5), torch.arange(5))
    for head, slope in enumerate(slopes.tolist()):
        for row, query in enumerate(range(2, 5)):
            expected = [-slope * (query - k) if k <= query else -math.inf for k in range(5)]
            assert bias[head, row].tolist() == expected


def test_with_alibi_there_are_no_positions_to_learn_and_none_beyond_the_context():
    model, learned = make(positions="alibi"), make()
    assert model.wpe is None
    assert not any("wpe" in name for name in model.state_dict())
    assert model.parameter_count() == learned.parameter_count()
    longer = ids(length=30)
    torch.testing.assert_close(model(longer)[:, :12], model(longer[:, :12]))
