"""The grammar's exact next-token distribution for every token of a story.

A model that knew the grammar would assign each token its probability among all stories that begin
with the same tokens. This is a sum over derivations. Those that agree with the tokens so far are
tracked, and each is expanded until its next word is complete, because an encoding splits a text
into words before it encodes them. The product over a story's tokens is the probability of the story
under the grammar; tests/results/test_theory.py checks this.
"""

from collections.abc import Iterable, Iterator
from math import exp, fsum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import regex
import tiktoken

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.corpus.grammar.grammar import Choice, Entry, Grammar, Refer, load_grammar
from squentropy.evaluation.certainty import STORIES, Exact
from squentropy.tokens.token_files import Split
from squentropy.tokens.tokenizer import PATTERN

LOOKAHEAD = 2
"""Characters needed after a word so that tokenizer.PATTERN's split of it is final."""


def predicts(corpus: Path) -> bool:
    """Whether the stories in a corpus folder are the grammar's."""
    return storage.read_sealed(corpus / "manifest.json")["source"] == "grammar"


class Partial(NamedTuple):
    """A partial derivation."""

    probability: float  # given the tokens so far
    tokens: tuple[int, ...]  # the remaining tokens of its current word
    text: str  # after that word
    stack: tuple[Any, Any] | None  # the remaining items, a linked list
    bindings: dict[str, Entry]


def predictions(split: Split, encoding: tiktoken.Encoding) -> Exact:
    """The grammar's predictions for every token of a split's first `STORIES` stories."""
    grammar = load_grammar()
    every = [
        following
        for story in range(min(STORIES, len(split)))
        for following in predict(split.story(story), grammar, encoding)
    ]
    return Exact(
        np.array([token for following in every for token in following]),
        np.array([p for following in every for p in following.values()]),
        np.cumsum([0, *map(len, every)]),
    )


def predict(
    story: Iterable[int], grammar: Grammar, encoding: tiktoken.Encoding
) -> Iterator[dict[int, float]]:
    """For each token of a story, including the end of text, the possible tokens: {id: p}.

    The true token comes first; the probabilities sum to 1. Raises SquentropyError if the grammar
    cannot generate the story.
    """
    pattern = regex.compile(PATTERN)
    partials = [Partial(1.0, (), "", (grammar.start, None), {})]
    for token in story:
        partials = [
            whole
            for partial in partials
            for whole in ([partial] if partial.tokens else _expanded(partial, pattern, encoding))
        ]
        following = {int(token): 0.0}
        for partial in partials:
            next_token = partial.tokens[0]
            following[next_token] = following.get(next_token, 0.0) + partial.probability
        p = following[token]
        if p == 0:
            raise SquentropyError(
                "a story of the test split is none of the grammar's; make it anew"
            )
        yield following
        partials = [
            partial._replace(probability=partial.probability / p, tokens=partial.tokens[1:])
            for partial in partials
            if partial.tokens[0] == token
        ]


def _expanded(
    start: Partial, pattern: regex.Pattern, encoding: tiktoken.Encoding
) -> Iterator[Partial]:
    """All continuations of a derivation until its next word is complete or the story ends."""
    agenda = [(start.probability, start.text, start.stack, start.bindings)]
    while agenda:
        probability, text, stack, bindings = agenda.pop()
        word = pattern.match(text)
        if stack is None and not word:
            yield Partial(probability, (encoding.eot_token,), "", None, bindings)
            continue
        if word and (stack is None or word.end() + LOOKAHEAD <= len(text)):
            tokens = tuple(encoding.encode_ordinary(word[0]))
            yield Partial(probability, tokens, text[word.end() :], stack, bindings)
            continue
        item, rest = stack  # type: ignore[misc]  # None, after the last item, was handled above
        if isinstance(item, str):
            agenda.append((probability, text + item, rest, bindings))
        elif isinstance(item, Refer):
            piece = bindings[item.variable].forms[item.form]
            agenda.append((probability, text + piece, rest, bindings))
        elif isinstance(item, Choice):
            for items, log_p in zip(item.alternatives, item.log_probs):
                following = rest
                for one in reversed(items):
                    following = (one, following)
                agenda.append((probability * exp(log_p), text, following, bindings))
        else:
            taken = item.taken(bindings) if item.excluded else ()
            free = 1 - fsum(item.words.probs[entry.index] for entry in taken)
            for entry, p in zip(item.words.entries, item.words.probs):
                if entry not in taken:
                    now = bindings
                    if item.variable is not None:
                        now = {**bindings, item.variable: entry}
                    piece = text + entry.forms[item.form]
                    agenda.append((probability * p / free, piece, rest, now))
