"""Score external models on the study's test stories, as baselines for its losses.

    squentropy score MODEL --data data/grammar       into results/grammar/baselines.csv

MODEL is a folder that Hugging Face's `transformers` loads as a causal language model like GPT-2 or
MPT. It is scored like a run (lm/scoring.py), but in its own tokens: each story separately, with its
end. Nats per token are only comparable for the same tokenizer; bits per byte and nats per story are
always comparable.

In a row, `parameters` excludes the positions, as for runs; `same_tokens` is whether the test
stories have the same ids as in the study; `tokens`, `nll` (nats per token) and `ppl` (its exp) are
for the model's own tokens; `stories` and `bytes` identify the test stories.
"""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from squentropy.base.errors import SquentropyError
from squentropy.base.kinds import Row
from squentropy.lm import scoring
from squentropy.lm.devices import pick_device
from squentropy.report.read import BASELINES, read_baselines
from squentropy.runs.huggingface import load
from squentropy.study.params import Study
from squentropy.tokens.token_files import Split, TokenFolder
from squentropy.tokens.tokenizer import read_stories, story_bytes
from squentropy.tuning.outcomes import ppl, write_csv

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def score(study: Study, folder: Path, data: Path, results: Path, name: str) -> Row:
    """Score a model's folder on the test stories; writes its row to baselines.csv and returns it.

    A row with the same name is replaced. Raises SquentropyError if the folder contains no such
    model, or if transformers is not installed.
    """
    model, tokenizer = load(folder)
    tokens = TokenFolder.open(data / "tokens")
    sizes = story_bytes(data / "corpus", "test", tokens)
    stories = [text for part in read_stories(data / "corpus" / "test.parquet") for text in part]
    split, start = encoded(stories, tokenizer, folder)
    if int(split.ids.max()) >= len(model.output_weight):
        raise SquentropyError(f"{folder}: its tokenizer has more tokens than its model")
    study_split = tokens.split("test")
    torch.set_num_threads(study.train.threads)
    model.to(pick_device(study.train.device, study.train.runs_per_gpu)).eval()
    context = model.config.block_size
    model.check(torch.from_numpy(split.story(0)[None, :context]).to(model.output_weight.device))
    scores = scoring.score_split(model, split, start, batch_tokens=study.evaluate.batch_tokens)
    total, count = float(scores.nll.sum(dtype=np.float64)), len(split.ids)
    row = {
        "name": name,
        "model": type(model.model).__name__,
        "parameters": model.parameter_count(),
        "context": context,
        "vocab_size": len(model.output_weight),
        "same_tokens": np.array_equal(split.ids, study_split.ids),
        "stories": len(split),
        "bytes": sum(sizes),
        "tokens": count,
        "nll": total / count,
        "ppl": ppl(total / count),
        "bits_per_byte": total / math.log(2) / sum(sizes),
        "nats_per_story": total / len(split),
    }
    others = [held for held in read_baselines(results).to_dict("records") if held["name"] != name]
    write_csv(results / "baselines.csv", [*others, row], BASELINES)
    return row


def encoded(
    stories: list[str], tokenizer: "PreTrainedTokenizerBase", folder: Path
) -> tuple[Split, int]:
    """Stories in a tokenizer's ids, each with its end, and the token to put before each story.

    A control token that is written out in a story is encoded as text. Raises SquentropyError if the
    tokenizer changes the text, because bits per byte would then be those of another text.
    """
    end, start = tokenizer.eos_token_id, tokenizer.bos_token_id
    if end is None:
        raise SquentropyError(f"{folder}: its tokenizer has no end-of-text token to end a story")
    each = [
        tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        for text in stories
    ]
    lost = sum(
        tokenizer.decode(ids, clean_up_tokenization_spaces=False) != text
        for ids, text in zip(each, stories, strict=True)
    )
    if lost:
        raise SquentropyError(
            f"{folder}: its tokenizer does not reproduce {lost} of {len(stories)} stories exactly; "
            "add the model's own tokenizer files, such as tokenizer.json, or leave the model out"
        )
    offsets = np.cumsum([0, *(len(ids) + 1 for ids in each)])
    ids = np.array([token for ids in each for token in (*ids, end)], dtype=np.int64)
    return Split(ids, offsets), end if start is None else start
