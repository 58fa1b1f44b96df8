"""Sample stories from a trained model.

squentropy sample checkpoints/grammar/final/mse/seed1 --tokens data/grammar/tokens

Each prompt follows an end-of-text token, as stories do in training. Each has its own random
generator, so a story does not depend on the others in its batch. When the context is full, the
window moves by half and its remaining tokens are read again, because learned positions cannot
slide.

Temperature T samples from p^(1/T), renormalised, where p are the probabilities at temperature 1. A
loss with its own link needs that link (losses.own_link): the softmax of its outputs is nearly flat.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from squentropy.lm.model import GPT, Cache

if TYPE_CHECKING:  # for signatures only: training does not need to load it
    import tiktoken

Link = Callable[[torch.Tensor], torch.Tensor]


def generate(
    model: GPT, prompts: list[list[int]], *, end_of_text: int, **how: Any
) -> list[list[int]]:
    """The new tokens of each prompt, as drawn by `stream`, without the end-of-text token."""
    new: list[list[int]] = [[] for _ in prompts]
    for i, token in stream(model, prompts, end_of_text=end_of_text, **how):
        if token != end_of_text:
            new[i].append(token)
    return new


@torch.inference_mode()
def stream(
    model: GPT,
    prompts: list[list[int]],
    *,
    end_of_text: int,
    max_tokens: int,
    temperature: float,
    top_k: int,
    seed: int,
    link: Link | None = None,
    first: int = 0,
) -> Iterator[tuple[int, int]]:
    """Continue all prompts, in one batch, each until its end of text or `max_tokens` new tokens.

    Yields (prompt, token) as each token is drawn, including the end of text. Prompt i uses the
    draws of prompt `first` + i of a larger batch.

    The probabilities p at temperature 1 are the softmax of the model's outputs, or `link` of them,
    (n, C) -> (n, C). Temperature 0 takes the most likely token; top_k 0 keeps all tokens.
    """
    model.eval()
    block, device = model.config.block_size, model.output_weight.device
    stories = [[end_of_text, *prompt] for prompt in prompts]
    draws = [
        np.random.Generator(np.random.Philox(key=[seed, first + i])) for i in range(len(prompts))
    ]
    left = [max_tokens for _ in prompts]
    # First read as many tokens as the shortest prompt has. Longer prompts then consume their
    # remaining tokens, one per step, before drawing. So no row needs padding, and all rows are at
    # the same position.
    given = [story[-block:] for story in stories]
    read = min(map(len, given))
    going, step = list(range(len(prompts))), [tokens[:read] for tokens in given]
    cache = Cache(model.config.n_layer)
    while going:
        if cache.length == block:
            step = [stories[i][-(block // 2) :] for i in going]
            cache = Cache(model.config.n_layer)
        hidden = model(torch.tensor(step, device=device), cache)[:, -1]
        drawing = [row for row, i in enumerate(going) if read >= len(given[i])]
        logits = (hidden[drawing] @ model.output_weight.T).float().cpu()
        if link is not None:
            logits = link(logits).log()
        uniform = [draws[going[row]].random() for row in drawing]
        drawn = dict(zip(drawing, _choose(logits, temperature, top_k, uniform), strict=True))
        keep, step = [], []
        for row, i in enumerate(going):
            token = drawn[row] if row in drawn else given[i][read]
            if row in drawn:
                stories[i].append(token)
                left[i] -= 1
                yield i, token
            if row not in drawn or (token != end_of_text and left[i] > 0):
                keep.append(row)
                step.append([token])
        read += 1
        if len(keep) < len(going):
            going = [going[row] for row in keep]
            cache.keep(keep)


def _choose(
    logits: torch.Tensor, temperature: float, top_k: int, uniform: list[float]
) -> list[int]:
    """One token per row, by inverting the cumulative distribution at a uniform draw."""
    if temperature == 0:
        return logits.argmax(-1).tolist()
    logits = (logits - logits.amax(-1, keepdim=True)).double() / temperature  # never infinite
    if 0 < top_k < logits.shape[-1]:
        floor = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < floor, -torch.inf)
    cumulative = logits.softmax(-1).cumsum(-1)
    at = torch.tensor(uniform, dtype=torch.float64).unsqueeze(-1) * cumulative[:, -1:]
    return torch.searchsorted(cumulative, at, right=True).squeeze(-1).tolist()


def tell(
    model: GPT,
    encoding: "tiktoken.Encoding",
    prompts: list[str],
    *,
    temperatures: list[float],
    stories: int,
    top_k: int,
    max_tokens: int,
    seed: int,
    link: Link | None = None,
) -> list[dict[str, Any]]:
    """`stories` stories per temperature and prompt; one at temperature 0, where all are equal.

    Each is {prompt, temperature, top_k, reading, number, text, tokens, ended}: `reading` is how
    outputs become probabilities, "softmax" or "own"; `number` counts the stories of a prompt and
    temperature from 0; `text` begins with the prompt; `tokens` counts the tokens after it. Adding
    stories or temperatures does not change the others.
    """
    told = []
    for temperature in temperatures:
        numbers = range(stories if temperature > 0 else 1)
        asked = [(number, prompt) for number in numbers for prompt in prompts]
        new = generate(
            model,
            [encoding.encode_ordinary(prompt) for _, prompt in asked],
            end_of_text=encoding.eot_token,
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            seed=seed,
            link=link,
        )
        told += [
            {
                "prompt": prompt,
                "temperature": temperature,
                "top_k": top_k,
                "reading": "softmax" if link is None else "own",
                "number": number,
                "text": prompt + encoding.decode(tokens),
                "tokens": len(tokens),
                "ended": len(tokens) < max_tokens,
            }
            for (number, prompt), tokens in zip(asked, new, strict=True)
        ]
    return told
