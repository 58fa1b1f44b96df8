"""Stories are drawn from the model's distribution, with or without a cache, alone or in batches.

pytest tests/sampling/test_sampling.py
"""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch

from squentropy.lm.model import GPT, Config
from squentropy.losses import own_link
from squentropy.runs.weights import load_model
from squentropy.sampling import terminal
from squentropy.sampling.generate import _choose, generate, stream, tell
from squentropy.tokens.tokenizer import gpt2_encoding, read_encoding

END, BLOCK = 29, 8
PROMPTS = [[1, 2], [3], [4, 5], list(range(7)), list(range(8)), list(range(20))]


@pytest.fixture(scope="module")
def model(sharp_model) -> GPT:
    return sharp_model(30, BLOCK)


def run(model, prompts=PROMPTS, *, max_tokens=30, temperature=1.0, top_k=0, seed=0):
    return generate(
        model, prompts, end_of_text=END, max_tokens=max_tokens,
        temperature=temperature, top_k=top_k, seed=seed,
    )  # fmt: skip


@torch.no_grad()
def greedy(model, prompt, max_tokens) -> list[int]:
    """A greedy story without a cache: the whole window is evaluated for each token.

    The window grows to BLOCK tokens and then restarts with its last half.
    """
    story, start = [END, *prompt], max(0, len(prompt) + 1 - BLOCK)
    for _ in range(max_tokens):
        if len(story) - start > BLOCK:
            start = len(story) - BLOCK // 2
        hidden = model(torch.tensor([story[start:]]))[0, -1]
        token = (hidden @ model.output_weight.T).argmax().item()
        if token == END:
            break
        story.append(token)
    return story[len(prompt) + 1 :]


def test_greedy_stories_are_those_of_reading_all_anew_beyond_the_context_too(model):
    stories = run(model, temperature=0)
    assert stories == [greedy(model, prompt, 30) for prompt in PROMPTS]
    assert max(map(len, stories)) == 30
    assert len({tuple(story[-5:]) for story in stories}) > 1


def test_the_likeliest_of_one_is_greedy_and_so_is_a_vanishing_temperature(model):
    assert run(model, top_k=1) == run(model, temperature=0)
    assert run(model, temperature=5e-324) == run(model, temperature=0)


def test_a_story_does_not_depend_on_the_other_prompts(model):
    stories = run(model)
    assert run(model, PROMPTS[:2]) == stories[:2]
    assert run(model, [PROMPTS[0], [9], PROMPTS[2]])[::2] == [stories[0], stories[2]]


def test_stories_are_a_function_of_the_seed(model):
    assert run(model, seed=1) == run(model, seed=1)
    assert run(model, seed=1) != run(model, seed=2)
    one, other = run(model, [[1], [1]])
    assert one != other


def test_dropout_is_off(model):
    model.train()
    assert run(model, temperature=0) == run(model, temperature=0)


def test_stories_stop_before_the_end_of_text_or_at_the_limit(model):
    stories = run(model, PROMPTS * 5, max_tokens=12)
    lengths = Counter(map(len, stories))
    assert max(lengths) == 12
    assert len(lengths) > 1
    assert all(END not in story for story in stories)


def test_draws_follow_the_distribution_that_temperature_and_top_k_leave():
    logits = torch.tensor([[0.3, 2.0, 1.0, -1.0, 1.5]])
    draws = 20_000
    uniform = [(i + 0.5) / draws for i in range(draws)]
    for temperature, top_k in [(1.0, 0), (0.5, 3), (2.0, 2), (1.0, 99)]:
        chosen = Counter(_choose(logits.expand(draws, -1), temperature, top_k, uniform))
        scaled = logits[0].double() / temperature
        if 0 < top_k < 5:
            scaled[scaled.argsort()[:-top_k]] = -torch.inf
        for token, p in enumerate(scaled.softmax(-1).tolist()):
            assert chosen[token] / draws == pytest.approx(p, abs=1 / draws)


def test_the_ends_of_the_unit_interval_choose_possible_tokens():
    logits = torch.tensor([[-1e4, 0.0, 1.0, -1e4]])
    almost = 1 - 2**-53
    assert _choose(logits, 1.0, 0, [0.0]) == [1]
    assert _choose(logits, 1.0, 0, [almost]) == [2]


def test_a_story_that_has_ended_stays_so_when_it_is_as_long_as_a_later_prompt(model):
    alone = run(model, [[1, 2]], max_tokens=7, temperature=0)
    beside = run(model, [[1, 2], list(range(9))], max_tokens=7, temperature=0)
    assert beside[0] == alone[0]
    assert len(alone[0]) == 7


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_a_long_prompt_is_read_on_when_the_stories_of_short_ones_have_ended(model, temperature):
    prompts = [[1], list(range(6)), list(range(20))]
    stories = run(model, prompts, max_tokens=1, temperature=temperature)
    assert list(map(len, stories)) == [1, 1, 1]
    if temperature == 0:
        assert stories == [greedy(model, prompt, 1) for prompt in prompts]


def test_all_prompts_share_one_batch_whatever_their_lengths(model, monkeypatch):
    """The number of passes depends on the longest prompt with its story, not on their sum."""
    sizes, forward = [], GPT.forward

    def counted(self, ids, *others):
        sizes.append(tuple(ids.shape))
        return forward(self, ids, *others)

    monkeypatch.setattr(GPT, "forward", counted)
    prompts = [[1], [1, 2, 3], [4, 5]]
    stories = run(model, prompts, max_tokens=5, temperature=0)
    assert sizes[0] == (3, 2)  # the shortest prompt after its end of text
    longest = max(len(prompt) + min(len(story) + 1, 5) for prompt, story in zip(prompts, stories))
    assert len(sizes) == longest - 1
    assert all(rows <= 3 for rows, _ in sizes)


def test_a_link_is_drawn_from_as_its_probabilities_say(model):
    """As with a model whose logits are their logs; a link's scale does not matter."""

    def link(logits):
        return (1 + logits.clamp(-5, 5).square()) / 7

    linked = generate(
        model, PROMPTS, end_of_text=END, max_tokens=30, temperature=1.0, top_k=0, seed=0, link=link
    )
    story = [END, *PROMPTS[0]]
    draws = np.random.Generator(np.random.Philox(key=[0, 0]))
    for token in linked[0][: BLOCK - len(story)]:
        with torch.no_grad():
            hidden = model(torch.tensor([story]))[0, -1]
            p = link(hidden @ model.output_weight.T).double()
        assert token == int((draws.random() * p.sum() >= p.cumsum(0)).sum())
        story.append(token)
    assert linked != run(model)


def test_a_temperature_is_a_power_of_the_links_probabilities():
    p = torch.tensor([[0.5, 0.3, 0.2]])
    draws = 20_000
    uniform = [(i + 0.5) / draws for i in range(draws)]
    chosen = Counter(_choose(p.log().expand(draws, -1), 0.5, 0, uniform))
    for token, power in enumerate((p[0] ** 2 / (p[0] ** 2).sum()).tolist()):
        assert chosen[token] / draws == pytest.approx(power, abs=1 / draws)


@pytest.fixture(scope="module")
def teller(tokens):
    """teller(...): stories of a small model with two prompts."""
    encoding = read_encoding(tokens)
    torch.manual_seed(0)
    model = GPT(Config(300, BLOCK, n_layer=1, n_head=2, n_embd=16, dropout=0.0, bias=False))

    def stories(temperatures=(0.7, 1.0), stories=2, **how):
        return tell(
            model, encoding, ["Tim 🌳", "<|endoftext|>"], temperatures=list(temperatures),
            stories=stories, max_tokens=10, top_k=0, seed=0, **how,
        )  # fmt: skip

    return stories


def test_a_told_story_is_its_prompt_and_what_follows(teller):
    told = teller()
    assert [(s["temperature"], s["number"], s["prompt"]) for s in told] == list(
        itertools.product((0.7, 1.0), (0, 1), ("Tim 🌳", "<|endoftext|>"))
    )
    for story in told:
        assert story["text"].startswith(story["prompt"])
        assert story["tokens"] <= 10
        assert story["ended"] == (story["tokens"] < 10)
        assert story["reading"] == "softmax"
    assert len({story["text"] for story in told}) == len(told)


def test_more_stories_or_temperatures_leave_the_others_as_they_are(teller):
    told = teller()
    more = teller(temperatures=(0.7, 0.9, 1.0), stories=5)
    kept = [s for s in more if s["number"] < 2 and s["temperature"] != 0.9]
    assert kept == told


def test_greedy_tells_one_story_a_prompt(teller):
    assert [s["number"] for s in teller(temperatures=(0,), stories=4)] == [0, 0]


def test_a_record_says_that_the_link_was_read(teller):
    told = teller(link=lambda logits: logits.softmax(-1))
    assert {s["reading"] for s in told} == {"own"}
    assert [s["text"] for s in told] == [s["text"] for s in teller()]


def test_a_stream_is_the_batch_as_it_is_drawn(model):
    whole = run(model, max_tokens=12, seed=3)
    for first, prompt in enumerate(PROMPTS):
        drawn = [
            token
            for _, token in stream(
                model, [prompt], end_of_text=END, max_tokens=12,
                temperature=1.0, top_k=0, seed=3, first=first,
            )
        ]  # fmt: skip
        ended = drawn[-1] == END
        assert (drawn[:-1] if ended else drawn) == whole[first]
        assert ended == (len(whole[first]) < 12)


def test_a_stream_gives_a_token_before_it_draws_the_next(model, monkeypatch):
    passes, forward = [], GPT.forward
    monkeypatch.setattr(GPT, "forward", lambda self, *a: passes.append(1) or forward(self, *a))
    drawn = stream(
        model, [[1]], end_of_text=END, max_tokens=5, temperature=0, top_k=0, seed=0
    )  # fmt: skip
    for number, _ in enumerate(drawn, 1):
        assert len(passes) == number


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_told_in_the_terminal_a_story_is_that_of_a_batch(finished, tokens, loss):
    folder = finished / f"checkpoints/final/{loss}/seed1"
    how = {"stories": 2, "top_k": 5, "max_tokens": 20, "seed": 4}
    prompts = ["Tim", "The red kite"]
    streamed = [
        "".join(story) for story in terminal.tell(folder, tokens, prompts, temperature=0.7, **how)
    ]
    batch = tell(
        load_model(folder, torch.device("cpu")), read_encoding(tokens), prompts,
        temperatures=[0.7], link=own_link(loss, 1e-6), **how,
    )  # fmt: skip
    assert streamed == [story["text"] for story in batch]
    assert len(set(streamed)) == 4


def test_the_bytes_of_a_character_wait_for_its_last_one():
    encoding = gpt2_encoding()
    text = " a 🌳, “é” and 日本"
    ids = encoding.encode_ordinary(text)
    said = list(terminal.pieces("Tim", [*ids, encoding.eot_token], encoding))
    assert "".join(said) == "Tim" + text
    assert "" in said  # a token that completes no character
    assert len(said) == len(ids) + 2
    broken = list(terminal.pieces("", encoding.encode_ordinary("🌳")[:1], encoding))
    assert "".join(broken) == encoding.decode(encoding.encode_ordinary("🌳")[:1]) == "�"
