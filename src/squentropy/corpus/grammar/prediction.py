"""What the grammar says comes next: the exact distribution of every token of a story.

A model that knew the grammar would give each token the probability that it has among all stories
whose tokens begin alike. That is a sum over derivations: those that agree with the tokens so far
are carried along, and each is expanded until its next word is whole, since an encoding splits a
text into words before it looks at them. The product over a story's tokens is the probability that
the grammar gives the story; tests/results/test_theory.py holds it to that.
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
"""Characters beyond a word after which tokenizer.PATTERN would not split it differently."""


def predicts(corpus: Path) -> bool:
    """Whether the stories of a folder with a corpus are the grammar's."""
    return storage.read_sealed(corpus / "manifest.json")["source"] == "grammar"


class Partial(NamedTuple):
    """A derivation as far as it goes."""

    probability: float  # given the tokens so far
    tokens: tuple[int, ...]  # of its current word, those to come
    text: str  # beyond that word
    stack: tuple[Any, Any] | None  # items to come, a linked list
    bindings: dict[str, Entry]


def predictions(split: Split, encoding: tiktoken.Encoding) -> Exact:
    """The grammar's prediction of every token of a split's first `STORIES` stories."""
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
    """For each token of a story, end of text included, those that can stand there: {id: p}.

    The true token comes first; the probabilities sum to 1. Raises SquentropyError where the
    grammar cannot have written the story.
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
    """Every way to go on with a derivation until its next word, or the story's end, is whole."""
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
        item, rest = stack  # type: ignore[misc]  # None, after the last item, was seen to above
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
