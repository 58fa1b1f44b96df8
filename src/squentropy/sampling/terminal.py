"""Generate stories in the terminal, token by token.

    squentropy tell checkpoints/grammar/final/cross_entropy/seed1 --prompt "Once upon a time"

For the same prompts and settings, the stories are identical to those of `generate.tell`.
"""

import codecs
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from squentropy.base.errors import SquentropyError
from squentropy.lm.devices import pick_device
from squentropy.losses import own_link
from squentropy.runs import records
from squentropy.runs.weights import load_model
from squentropy.sampling import generate
from squentropy.tokens.token_files import TokenFolder
from squentropy.tokens.tokenizer import read_encoding

if TYPE_CHECKING:
    import tiktoken


def tell(
    folder: Path,
    tokens: TokenFolder,
    prompts: list[str],
    *,
    temperature: float,
    stories: int,
    top_k: int,
    max_tokens: int,
    seed: int,
) -> Iterator[Iterator[str]]:
    """Yield stories of a run as pieces of text: `stories` per prompt, or one at temperature 0.

    Raises SquentropyError if the run diverged, kept no weights, or was trained on other tokens.
    """
    run = records.read_run(folder)
    records.check_tokens(run, folder, tokens)
    if run["status"] != "ok":
        raise SquentropyError(f"{folder}: has {run['status']}, and tells no stories")
    torch.set_num_threads(run["params"]["train"]["threads"])
    model = load_model(folder, pick_device(run["params"]["train"]["device"]))
    encoding = read_encoding(tokens)
    asked = [prompt for _ in range(stories if temperature > 0 else 1) for prompt in prompts]
    for number, prompt in enumerate(asked):
        drawn = generate.stream(
            model,
            [encoding.encode_ordinary(prompt)],
            end_of_text=encoding.eot_token,
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            seed=seed,
            link=own_link(run["cell"]["loss"], run["params"]["evaluate"]["link_floor"]),
            first=number,
        )
        yield pieces(prompt, (token for _, token in drawn), encoding)


def pieces(prompt: str, tokens: Iterable[int], encoding: "tiktoken.Encoding") -> Iterator[str]:
    """The prompt, then the text of each token; incomplete characters wait for their last byte."""
    yield prompt
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for token in tokens:
        if token != encoding.eot_token:
            yield decoder.decode(encoding.decode_single_token_bytes(token))
    yield decoder.decode(b"", final=True)
