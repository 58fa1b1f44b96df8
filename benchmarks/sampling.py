"""Tokens per second of `squentropy.sampling.generate` against nanoGPT's sampling.

    python benchmarks/sampling.py --nanogpt PATH    # PATH: a checkout of karpathy/nanoGPT

Both generate eight stories of 256 new tokens at temperature 0.8 and top_k 50, with the same weights
of an untrained model: 8 layers of 128, 4 heads, block 512, vocabulary 4,096. Ours samples all
stories in a batch with a key-value cache. nanoGPT's `generate` reads the whole prefix again for
every token. It is measured with all prompts in a batch, which must have the same length, and one
after the other, as in its sample.py. The two alternate; the results are medians of rounds after a
warm-up. The embedding of end of text is zero, so its logit is never among the 50 largest and no
story ends early; the tokens that were generated are counted all the same.

Then the stories at temperature 0 are compared with those of a loop without a cache. Prints two
Markdown tables.
"""

import argparse
import contextlib
import io
import time
from collections.abc import Callable
from pathlib import Path

import shared
import torch
from torch import nn

from squentropy.lm.model import GPT, Config
from squentropy.sampling.generate import generate

SHAPE = {"n_layer": 8, "n_embd": 128, "n_head": 4, "block_size": 512, "vocab_size": 4096}
STORIES, PROMPT, TEMPERATURE, TOP_K = 8, 16, 0.8, 50
END_OF_TEXT = SHAPE["vocab_size"] - 1


def our_model() -> GPT:
    torch.manual_seed(0)
    model = GPT(Config(**SHAPE, dropout=0.0, bias=False)).eval()
    with torch.no_grad():
        model.wte.weight[END_OF_TEXT] = 0
        # An untrained model repeats its last token. With larger weights the whole prefix counts.
        for parameter in model.h.parameters():
            if parameter.dim() == 2:
                parameter.mul_(8)
    return model


def nanogpt_model(path: Path, ours: GPT) -> nn.Module:
    """nanoGPT's model with our weights; only its names differ."""
    theirs = shared.nanogpt_model(path)
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its number of parameters
        model = theirs.GPT(theirs.GPTConfig(**SHAPE, dropout=0.0, bias=False)).eval()
    weights = {f"transformer.{name}": value for name, value in ours.state_dict().items()}
    model.load_state_dict(weights | {"lm_head.weight": ours.output_weight})
    return model


def prompts() -> list[list[int]]:
    """Random tokens, all prompts of the same length."""
    draw = torch.Generator().manual_seed(0)
    return torch.randint(END_OF_TEXT, (STORIES, PROMPT), generator=draw).tolist()


def our_stories(model: GPT, tokens: int, temperature: float) -> list[list[int]]:
    return generate(
        model,
        prompts(),
        end_of_text=END_OF_TEXT,
        max_tokens=tokens,
        temperature=temperature,
        top_k=TOP_K,
        seed=0,
    )


def nanogpt_stories(model: nn.Module, tokens: int, batch_size: int) -> list[list[int]]:
    starts = torch.tensor([[END_OF_TEXT, *prompt] for prompt in prompts()])
    stories = []
    for batch in starts.split(batch_size):
        made = model.generate(batch, tokens, temperature=TEMPERATURE, top_k=TOP_K)
        stories += made[:, batch.shape[1] :].tolist()
    return stories


@torch.inference_mode()
def greedy_without_cache(model: GPT, prompt: list[int], tokens: int) -> list[int]:
    """Repeatedly append the most likely token, computed from the whole prefix."""
    ids = [END_OF_TEXT, *prompt]
    for _ in range(tokens):
        hidden = model(torch.tensor([ids]))[0, -1]
        ids.append(int((hidden @ model.output_weight.T).argmax()))
    return ids[-tokens:]


def rate(tell: Callable[[], list[list[int]]]) -> float:
    """Tokens per second."""
    start = time.perf_counter()
    stories = tell()
    return sum(map(len, stories)) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nanogpt", type=Path, required=True, help="checkout of nanoGPT")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=shared.ROUNDS)
    parser.add_argument("--tokens", type=int, default=256, help="new tokens per story")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(shared.machine(options.threads), flush=True)
    ours, tokens = our_model(), options.tokens
    theirs = nanogpt_model(options.nanogpt, ours)

    rates = shared.alternate(
        {
            "ours": lambda: rate(lambda: our_stories(ours, tokens, TEMPERATURE)),
            "nanoGPT, all in a batch": lambda: rate(
                lambda: nanogpt_stories(theirs, tokens, STORIES)
            ),
            "nanoGPT, one after the other": lambda: rate(
                lambda: nanogpt_stories(theirs, tokens, 1)
            ),
        },
        options.rounds,
    )
    shared.table(
        [f"{STORIES} stories of {tokens} new tokens", "tokens/s", "ours / this"],
        [[name, f"{of:,.0f}", f"{rates['ours'] / of:.2f}"] for name, of in rates.items()],
    )

    cached = our_stories(ours, tokens, temperature=0)
    naive = [greedy_without_cache(ours, prompt, tokens) for prompt in prompts()]
    pairs = [pair for stories in zip(cached, naive, strict=True) for pair in zip(*stories)]
    distinct = {token for story in naive for token in story}
    shared.table(
        ["temperature 0, with a cache against without", ""],
        [
            ["equal stories", f"{sum(map(list.__eq__, cached, naive))} of {STORIES}"],
            ["equal tokens", f"{sum(a == b for a, b in pairs):,} of {STORIES * tokens:,}"],
            ["distinct tokens among them", f"{len(distinct):,}"],
        ],
    )


if __name__ == "__main__":
    main()
