"""Stories that a trained model tells: `corpus.source: model`.

    squentropy corpus data/teacher/corpus --params params.yaml --params studies/teacher.yaml

The teacher, a finished run of a study or a Hugging Face folder, tells stories at temperature 1 from
all of its tokens, so its own distribution is the source: a story's `log_prob` is what the teacher
gives to the story's tokens, the end of text included, each after all that stands before it. Beyond
the teacher's context the window moves on as sampling/generate.py moves it, and the probabilities
are those of that window.

Three kinds of stories are not kept:

    unended      `max_tokens` were drawn, and no end of text among them: their probability would be
                 that of a beginning
    empty        there is no visible character, so that there would be nothing to train on
    retokenized  the text is not encoded to the tokens that were drawn, so it has more probability
                 than these tokens alone

What is kept is the teacher's distribution under the condition that a story is of none of these
kinds. Its probability is the teacher's divided by that of the condition, which is taken to be the
share of the stories drawn that were kept. The manifest has the counts, and minus the logarithm of
that share, which is added to each story's log_prob, in nats with its standard error.

All splits are of one numbered sequence, and the draws of a story are a function of the seed and its
number: more stories of train leave those of test and validation as they are, but for that share.
The same parameters give the same bytes on one machine; another may round otherwise.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from squentropy.base import progress
from squentropy.base.errors import SquentropyError
from squentropy.corpus import given
from squentropy.corpus.source import Source, Story
from squentropy.corpus.story_files import entries
from squentropy.corpus.text import is_empty
from squentropy.lm.devices import pick_device
from squentropy.losses import own_link
from squentropy.runs import huggingface, records
from squentropy.runs.weights import load_model
from squentropy.sampling.generate import Link, stream
from squentropy.study.corpus import Corpus
from squentropy.study.corpus import Teacher as Section
from squentropy.study.params import SPLITS
from squentropy.tokens.token_files import TokenFolder
from squentropy.tokens.tokenizer import read_encoding

BATCH = 512  # stories told side by side; how numbers are rounded depends on it, so it is fixed
LEAST = 0.01  # of the stories drawn have to be kept
FATES = ("kept", "unended", "empty", "retokenized")


@dataclass(frozen=True)
class Teacher:
    """A model in its own tokens: ids and a cache to hidden states, as lm/model.py's GPT."""

    model: Any
    end_of_text: int  # before and after a story
    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    link: Link | None = None  # what makes probabilities of its outputs; None: softmax


def source(corpus: Corpus) -> Source:
    """Stories of the teacher that the parameters name. Raises SquentropyError.

    They are all drawn here, since a story's log_prob depends on how many were kept, and held: about
    a kilobyte a story.
    """
    section = corpus.model
    torch.set_num_threads(1)  # how numbers are rounded depends on it
    teacher = load(section)
    files = entries(given.hashed(corpus))
    counts: Counter[str] = Counter()
    wanted = {split: getattr(section, split) for split in reversed(SPLITS)}
    every = itertools.islice(draw(teacher, section, counts), sum(wanted.values()))
    drawn = list(progress.bar(every, "draw", "stories", of=sum(wanted.values())))
    kept, total = counts["kept"], counts.total()
    correction = math.log(total / kept)
    nats = -correction - np.array([log_prob for _, log_prob in drawn])

    def stories(start: int, stop: int) -> Iterator[Story]:
        for number, (text, log_prob) in enumerate(drawn[start:stop], start):
            yield Story(text, f"story {number} of {section.run}", log_prob + correction)

    ends = list(itertools.accumulate(wanted.values()))
    splits: dict[str, Callable[[], Iterator[Story]]]
    splits = {split: partial(stories, end - wanted[split], end) for split, end in zip(wanted, ends)}
    return Source(
        splits=splits,
        licence=section.licence,
        provenance=files
        | {
            "seed": section.seed,
            "max_tokens": section.max_tokens,
            "drawn": total,
            **{fate: counts[fate] for fate in FATES},
            "correction": _measured(correction, math.sqrt((1 - kept / total) / kept)),
            "entropy": _measured(float(nats.mean()), float(nats.std(ddof=1) / math.sqrt(kept))),
        },
        exact=True,
    )


def _measured(nats_per_story: float, standard_error: float) -> dict[str, float]:
    return {"nats_per_story": nats_per_story, "standard_error": standard_error}


def draw(teacher: Teacher, section: Section, counts: Counter[str]) -> Iterator[tuple[str, float]]:
    """Stories without end that are kept, each with its log probability under the teacher.

    Counts what became of the stories drawn so far, by `FATES`. Raises SquentropyError where hardly
    any is kept.
    """
    for first in itertools.count(0, BATCH):
        for ids, log_prob in tell(teacher, first, section.seed, section.max_tokens):
            *body, last = ids
            text = teacher.decode(body)
            fate = "kept"
            if last != teacher.end_of_text:
                fate = "unended"
            elif is_empty(text):
                fate = "empty"
            elif teacher.encode(text) != body:
                fate = "retokenized"
            counts[fate] += 1
            if fate == "kept":
                yield text, log_prob
        if counts["kept"] < LEAST * counts.total():
            raise SquentropyError(
                f"{section.run}: of {counts.total()} stories that it told, {counts['unended']} did "
                f"not end within corpus.model.max_tokens {section.max_tokens}, and "
                f"{counts['retokenized']} are not its tokenizer's tokens of their text; raise "
                "max_tokens, or name a teacher that has learnt more"
            )


def tell(
    teacher: Teacher, first: int, seed: int, max_tokens: int
) -> Iterator[tuple[list[int], float]]:
    """`BATCH` stories: the tokens of each, its end of text included, and their log probability."""
    told: list[list[int]] = [[] for _ in range(BATCH)]
    log_probs = [0.0] * BATCH
    rows: Iterator[np.ndarray] = iter(())

    def read(outputs: torch.Tensor) -> torch.Tensor:
        """Probabilities, whose logarithms are kept until the step's tokens have been drawn."""
        nonlocal rows
        if teacher.link is None:
            log_p = outputs.double().log_softmax(-1)
        else:
            log_p = teacher.link(outputs).double().log()
        rows = iter(log_p.numpy())
        return log_p.exp()

    drawn = stream(
        teacher.model, [[] for _ in told], end_of_text=teacher.end_of_text, max_tokens=max_tokens,
        temperature=1.0, top_k=0, seed=seed, link=read, first=first,
    )  # fmt: skip
    for i, token in drawn:  # a step's tokens in the order of its rows
        told[i].append(token)
        log_probs[i] += float(next(rows)[token])
    return zip(told, log_probs, strict=True)


def load(section: Section) -> Teacher:
    """The teacher, on the GPU where there is one.

    Raises SquentropyError where it is no finished run with its weights and its own tokens, and no
    model that transformers loads.
    """
    return _of_run(section) if given.is_run(section) else _of_folder(Path(section.run))


def _of_run(section: Section) -> Teacher:
    folder = Path(section.run)
    run = records.read_run(folder)
    if run["status"] != "ok":
        raise SquentropyError(
            f"{folder}: has {run['status']}, so it can tell no stories; name another run in "
            "corpus.model.run"
        )
    tokens = TokenFolder.open(given.tokens_of(section))
    records.check_tokens(run, folder, tokens)
    encoding = read_encoding(tokens)
    return Teacher(
        load_model(folder, pick_device("auto")),
        encoding.eot_token,
        encoding.encode_ordinary,
        encoding.decode,
        own_link(run["cell"]["loss"], run["params"]["evaluate"]["link_floor"]),
    )


def _of_folder(folder: Path) -> Teacher:
    model, tokenizer = huggingface.load(folder)
    end, start = tokenizer.eos_token_id, tokenizer.bos_token_id
    if end is None or start not in (None, end):
        raise SquentropyError(
            f"{folder}: its stories do not begin with the token that ends them; only models like "
            "GPT-2, of one end-of-text token, can be a teacher"
        )
    model.to(pick_device("auto")).eval()
    model.check(torch.tensor([[end]], device=model.output_weight.device))
    plain = {"add_special_tokens": False, "split_special_tokens": True}
    decode: Any = partial(tokenizer.decode, clean_up_tokenization_spaces=False)
    return Teacher(model, end, partial(tokenizer.encode, **plain), decode)
