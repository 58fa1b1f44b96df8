"""Stories from a trained model.

squentropy sample checkpoints/grammar/final/mse/seed1 --tokens data/grammar/tokens
"""

from typing import TYPE_CHECKING

import numpy as np
import torch

from squentropy.model import GPT, Cache

if TYPE_CHECKING:  # only for the signature: a training run need not load it
    import tiktoken


@torch.inference_mode()
def generate(
    model: GPT,
    prompts: list[list[int]],
    *,
    end_of_text: int,
    max_tokens: int,
    temperature: float,
    top_k: int,
    seed: int,
) -> list[list[int]]:
    """Continue each prompt, all in a batch, until its end of text or `max_tokens` new tokens.

    Each prompt starts after an end-of-text token, as stories do in training. Its draws come from
    its own generator, so a story does not depend on its neighbours. Temperature 0 takes the
    likeliest token; top_k 0 keeps all. Beyond the context the window moves on by half, and what
    is left of it is read again, since learned positions cannot slide.

    Returns the new tokens of each prompt, without the end-of-text token.
    """
    model.eval()
    block = model.config.block_size
    stories = [[end_of_text, *prompt] for prompt in prompts]
    draws = [np.random.Generator(np.random.Philox(key=[seed, i])) for i in range(len(prompts))]
    new: list[list[int]] = [[] for _ in prompts]
    # Prompts of one length share a batch, which needs no padding, so positions stay right.
    lengths = [len(s) for s in stories]
    for length in sorted(set(lengths)):
        going = [i for i, n in enumerate(lengths) if n == length]
        cache, step = Cache(model.config.n_layer), None
        for _ in range(max_tokens):
            if step is None or cache.length == block:
                window = block // 2 if step is not None else block
                step = torch.tensor([stories[i][-window:] for i in going])
                cache = Cache(model.config.n_layer)
            hidden = model(step.to(model.output_weight.device), cache)[:, -1]
            logits = (hidden @ model.output_weight.T).float().cpu()
            chosen = _choose(logits, temperature, top_k, [draws[i].random() for i in going])
            keep = []
            for row, (i, token) in enumerate(zip(going, chosen, strict=True)):
                if token != end_of_text:
                    stories[i].append(token)
                    new[i].append(token)
                    keep.append(row)
            if not keep:
                break
            if len(keep) < len(going):
                going = [going[row] for row in keep]
                cache.keep(keep)
            step = torch.tensor([[stories[i][-1]] for i in going])
    return new


def _choose(
    logits: torch.Tensor, temperature: float, top_k: int, uniform: list[float]
) -> list[int]:
    """One token a row, by inverting the distribution function at a uniform draw."""
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
    max_tokens: int,
    temperature: float,
    top_k: int,
    seed: int,
) -> list[dict]:
    """A story for each prompt: {prompt, text (prompt included), tokens, ended}."""
    new = generate(
        model,
        [encoding.encode_ordinary(prompt) for prompt in prompts],
        end_of_text=encoding.eot_token,
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        seed=seed,
    )
    return [
        {
            "prompt": prompt,
            "text": prompt + encoding.decode(tokens),
            "tokens": len(tokens),
            "ended": len(tokens) < max_tokens,
        }
        for prompt, tokens in zip(prompts, new, strict=True)
    ]
