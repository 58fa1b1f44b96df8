"""Every held-out token is scored exactly once, correctly and with at least half a context.

pytest tests/lm/test_scoring.py
"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st

from squentropy.lm import scoring
from squentropy.lm.model import GPT
from squentropy.lm.scoring import random_batch_estimate, score, score_split, windows
from squentropy.losses import LOSSES, own_link
from squentropy.tokens.token_files import Split

END, BLOCK = 49, 8


@pytest.fixture(scope="module")
def model(sharp_model) -> GPT:
    return sharp_model(50, BLOCK)


@pytest.fixture(scope="module")
def split() -> Split:
    """Stories of 2 to 40 tokens, not sorted by length."""
    draw = np.random.default_rng(0)
    lengths = [5, 2, 40, 8, 9, 17, 2, 12, 7, 33]
    stories = [[*draw.integers(0, END, n - 1), END] for n in lengths]
    ids = np.concatenate(stories).astype(np.uint16)
    return Split(ids, np.concatenate([[0], np.cumsum(lengths)]))


@torch.no_grad()
def one_by_one(model: GPT, split: Split) -> np.ndarray:
    """The nll of every token, each from its own forward pass."""
    nll = []
    for i in range(len(split)):
        story = [END, *split.story(i).tolist()]
        for start, first, end in windows(len(story) - 1, BLOCK):
            for token in range(first, end):
                hidden = model(torch.tensor([story[start : token + 1]]))[0, -1]
                logits = (hidden @ model.output_weight.T).double()
                nll.append(-logits.log_softmax(-1)[story[token + 1]].item())
    return np.array(nll)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(length=st.integers(1, 400), block=st.integers(2, 40))
@example(length=9, block=8)
def test_windows_score_every_token_once_with_at_least_half_a_context(length, block):
    cut = windows(length, block)
    assert [i for _, first, end in cut for i in range(first, end)] == list(range(length))
    assert all(end - start <= block for start, _, end in cut)
    assert cut[0][0] == 0
    # Token i is predicted from tokens start - 1 (the end of text if start is 0) to i - 1.
    assert all(first - start >= block // 2 for start, first, _ in cut[1:])


def test_a_score_is_the_cross_entropy_of_each_token(monkeypatch):
    monkeypatch.setattr(scoring, "CHUNK_ELEMENTS", 40)
    draw = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(17, 6, generator=draw), torch.randn(13, 6, generator=draw)
    targets = torch.randint(13, (17,), generator=draw)
    scores = score(hidden, weight, targets)
    logits = hidden.double() @ weight.double().T
    expected = F.cross_entropy(logits, targets, reduction="none")
    torch.testing.assert_close(scores["nll"].double(), expected, rtol=1e-5, atol=1e-5)
    assert scores["correct"].tolist() == (logits.argmax(-1) == targets).tolist()


@pytest.mark.parametrize("name", [name for name in LOSSES if own_link(name, 1e-6)])
def test_a_links_nll_is_that_of_its_probabilities(name):
    logits = torch.tensor([[0.5, 0.2, -0.3], [2.0, 1e9, -1e9], [0.0, 0.0, 0.0]])
    targets = torch.tensor([0, 2, 1])
    link = own_link(name, 1e-6)
    linked = score(logits, torch.eye(3), targets, link)["nll"]
    expected = [-math.log(link(row[None])[0, y]) for row, y in zip(logits, targets)]
    assert linked.tolist() == pytest.approx(expected, rel=1e-5)
    assert linked.isfinite().all()


@pytest.mark.parametrize("batch_tokens", [1, 50, 10**6])
def test_a_split_is_scored_as_token_by_token_whatever_the_batch(model, split, batch_tokens):
    scores = score_split(model, split, END, batch_tokens=batch_tokens)
    np.testing.assert_allclose(scores.nll, one_by_one(model, split), rtol=1e-4, atol=1e-4)
    assert scores.nll.std() > 1
    assert scores.correct.dtype == bool


def test_a_storys_score_does_not_depend_on_the_other_stories(model, split):
    whole = score_split(model, split, END, batch_tokens=64)
    head = score_split(model, split.head(3), END, batch_tokens=64)
    np.testing.assert_allclose(head.nll, whole.nll[: split.offsets[3]], rtol=1e-4, atol=1e-4)


def test_scoring_leaves_training_on_and_drops_nothing_out(model, split):
    before = score_split(model, split, END, batch_tokens=64)
    model.train()
    after = score_split(model, split, END, batch_tokens=64)
    assert model.training
    model.eval()
    assert before.nll.tolist() == after.nll.tolist()


def test_a_link_is_scored_in_place_of_softmax(model, split):
    plain = score_split(model, split, END, batch_tokens=64)
    softmax = score_split(model, split, END, batch_tokens=64, link=lambda f: f.softmax(-1))
    np.testing.assert_allclose(softmax.nll, plain.nll, rtol=1e-4, atol=1e-4)
    scores = score_split(model, split, END, batch_tokens=64, link=own_link("mse", 1e-6))
    assert np.isfinite(scores.nll).all()
    assert scores.nll.tolist() != plain.nll.tolist()
    assert scores.correct.tolist() == plain.correct.tolist()


def test_a_temperature_divides_the_outputs(model, split):
    halved = score_split(model, split, END, batch_tokens=64, temperature=2.0)
    link = score_split(model, split, END, batch_tokens=64, link=lambda f: (f / 2).softmax(-1))
    np.testing.assert_allclose(halved.nll, link.nll, rtol=1e-4, atol=1e-4)


def test_random_batches_estimate_the_mean_over_all_blocks(model, split):
    """With more draws than blocks, the estimate is close to the mean over all blocks."""
    nll, value = random_batch_estimate(
        model, split, LOSSES["cross_entropy"], batches=100, batch_size=8, seed=0
    )
    assert nll == pytest.approx(value, rel=1e-5)
    ids = torch.from_numpy(split.ids.astype(np.int64)).unfold(0, BLOCK + 1, 1)
    with torch.no_grad():
        hidden = model(ids[:, :-1]).flatten(0, 1)
    tokens = score(hidden, model.output_weight, ids[:, 1:].flatten())["nll"]
    every = tokens.view(-1, BLOCK).mean(1)
    assert abs(nll - every.mean()) < 4 * every.std() / math.sqrt(800)


def test_random_batches_are_a_function_of_the_seed(model, split):
    def estimate(seed):
        return random_batch_estimate(
            model, split, LOSSES["mse"], batches=3, batch_size=2, seed=seed
        )

    assert estimate(1) == estimate(1) != estimate(2)
    assert estimate(1)[0] != estimate(1)[1]


def test_a_split_shorter_than_the_context_can_be_estimated(model, split):
    nll, _ = random_batch_estimate(
        model, split.head(1), LOSSES["mse"], batches=2, batch_size=2, seed=0
    )
    assert math.isfinite(nll)
