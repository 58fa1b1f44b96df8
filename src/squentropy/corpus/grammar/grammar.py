"""Children's stories from a probabilistic grammar, each with its exact log probability.

The grammar is a probabilistic context-free grammar without recursion, with feature binding:
an entity drawn early in a story (`{hero=girls}`) is referred to later by any of its forms
(`{hero}`, `{hero.his}`), so that names, pronouns, objects and lessons agree throughout.
Tracery (Compton et al. 2015) has the same structure, without weights and without a parser.

The data are `stories/lexicon.yaml`, `stories/phrases.yaml` and one file per plot in
`stories/plots/`; `stories/README.md` explains how to read and extend them. `compiler.py` compiles
them once into flat tuples, which this module walks. `parser.py` is the inverse, from a text to its
derivation.

    python -m squentropy.corpus.grammar.grammar 3          # print three stories
    python benchmarks/grammar.py                   # speed, entropy, n-gram comparison
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterator
from functools import lru_cache
from itertools import accumulate
from math import fsum, log, log1p
from pathlib import Path
from random import Random
from typing import NamedTuple

STORIES = Path(__file__).parent / "stories"

# A word for `Grammar.words` and the checker: contractions are one word; the possessive 's is
# excluded.
WORD = re.compile(r"(?<!')\b[A-Za-z]+(?:-[A-Za-z]+)*(?:'(?:t|m|re|ll|ve|d)\b)?")


class GrammarError(ValueError):
    """The data are invalid; the message states what, where and how to fix it."""


class Story(NamedTuple):
    text: str
    log_prob: float  # natural log of the story's probability, in nats


class Entry:
    """A word of the lexicon with its forms: text, a, the, s (plural), he, his, …"""

    __slots__ = ("forms", "index", "words")

    def __init__(self, forms: dict[str, str], index: int, words: Words):
        self.forms = forms
        self.index = index  # in `words`
        self.words = words


class Words:
    """A class of the lexicon: entries with their probabilities."""

    __slots__ = ("name", "entries", "cumulative", "log_probs", "probs", "asked")

    def __init__(self, name: str, rows: list[dict[str, str]], weights: list[float]):
        self.name = name
        self.probs, self.cumulative, self.log_probs = _distribution(weights)
        self.entries = tuple(Entry(forms, i, self) for i, forms in enumerate(rows))
        self.asked: set[str] = set()  # forms that some template emits


class Choice:
    """A choice among alternatives, each a tuple of items: str, Choice, Draw or Refer.

    `name` is its location in the data, as "plots/lost.yaml: lost_end".
    """

    __slots__ = ("name", "alternatives", "reversed", "cumulative", "log_probs")

    def __init__(self, name: str, alternatives: list[tuple], weights: list[float]):
        self.name = name
        self.alternatives = tuple(alternatives)
        self.reversed = tuple(tuple(reversed(items)) for items in alternatives)  # for a stack
        _, self.cumulative, self.log_probs = _distribution(weights)


class Draw:
    """Draw an entry of a class, bind it to a variable, if given, and emit one of its forms."""

    __slots__ = ("variable", "words", "form", "excluded")

    def __init__(self, variable: str | None, words: Words, form: str, excluded: tuple[str, ...]):
        self.variable = variable
        self.words = words
        self.form = form
        self.excluded = excluded  # variables whose entries may not be drawn again

    def taken(self, bindings: dict[str, Entry]) -> set[Entry]:
        """Entries of this class that are bound to the excluded variables."""
        held = (bindings[variable] for variable in self.excluded)
        return {entry for entry in held if entry.words is self.words}

    def log_share(self, taken: set[Entry]) -> float:
        """Log of the probability mass that remains if `taken` may not be drawn, in nats."""
        return log1p(-fsum(self.words.probs[entry.index] for entry in taken))


class Refer:
    """Emit a form of a bound entry."""

    __slots__ = ("variable", "form")

    def __init__(self, variable: str, form: str):
        self.variable = variable
        self.form = form


class Grammar:
    """A compiled grammar. `start` is the Choice of a plot; `classes` are the lexicon's, by name;
    `agreement` are the names of forms that agree (he, his, …); `digest` is the data's sha256.
    """

    def __init__(self, start: Choice, classes: dict[str, Words], agreement: set[str], digest: str):
        self.start = start
        self.classes = classes
        self.agreement = agreement
        self.digest = digest

    def story(self, seed: int | str, index: int) -> Story:
        """Story number `index` (from 0) of the stream `seed`."""
        return next(self.stories(seed, index, index + 1))

    def stories(self, seed: int | str, start: int, stop: int) -> Iterator[Story]:
        """Stories `start` … `stop` − 1 of the stream `seed`.

        Story i uses its own generator, `random.Random(f"{seed}:{i}")`, and only the method
        `random()`. Python documents both as stable, so a story depends neither on the machine nor
        on how the work is split.
        """
        if start < 0:
            raise ValueError(f"a story's index is {start}; give 0 or more")
        generator = Random()
        for index in range(start, stop):
            generator.seed(f"{seed}:{index}")
            yield self._derive(generator.random)

    def _derive(self, random) -> Story:
        """Expand `start` from left to right with an explicit stack."""
        output: list[str] = []
        bindings: dict[str, Entry] = {}
        log_prob = 0.0
        stack: list = [self.start]
        while stack:
            item = stack.pop()
            kind = type(item)
            if kind is str:
                output.append(item)
            elif kind is Choice:
                i = bisect(item.cumulative, random())
                log_prob += item.log_probs[i]
                stack.extend(item.reversed[i])
            elif kind is Refer:
                output.append(bindings[item.variable].forms[item.form])
            else:
                words = item.words
                i = bisect(words.cumulative, random())
                if item.excluded and (taken := item.taken(bindings)):
                    # Drawing until the entry is free gives p / (1 - p(taken)) exactly.
                    while words.entries[i] in taken:
                        i = bisect(words.cumulative, random())
                    log_prob -= item.log_share(taken)
                log_prob += words.log_probs[i]
                entry = words.entries[i]
                if item.variable is not None:
                    bindings[item.variable] = entry
                output.append(entry.forms[item.form])
        return Story("".join(output), log_prob)

    def words(self) -> list[str]:
        """The distinct words that can occur in stories, in lower case, sorted."""
        found: set[str] = set()
        for item in self.items():
            if isinstance(item, str):
                found.update(WORD.findall(item.lower()))
            elif isinstance(item, Draw):
                for entry in item.words.entries:
                    for form in item.words.asked:
                        found.update(WORD.findall(entry.forms[form].lower()))
        return sorted(found)

    def items(self) -> Iterator:
        """All items reachable from `start`, each Choice once."""
        seen = {id(self.start)}
        queue = [self.start]
        while queue:
            choice = queue.pop()
            yield choice
            for items in choice.alternatives:
                for item in items:
                    if not isinstance(item, Choice):
                        yield item
                    elif id(item) not in seen:
                        seen.add(id(item))
                        queue.append(item)


@lru_cache(maxsize=4)
def load_grammar(path: Path | str = STORIES) -> Grammar:
    """The grammar in the folder `path`, compiled once per process. Raises GrammarError."""
    from squentropy.corpus.grammar.compiler import compile_grammar

    return compile_grammar(Path(path))


def _distribution(weights: list[float]):
    """Probabilities, their running sums (the last exactly 1) and their logs."""
    total = fsum(weights)
    probs = tuple(weight / total for weight in weights)
    cumulative = (*list(accumulate(probs))[:-1], 1.0)
    return probs, cumulative, tuple(log(p) for p in probs)


if __name__ == "__main__":
    import sys

    for story in load_grammar().stories(0, 0, int(sys.argv[1]) if len(sys.argv) > 1 else 1):
        print(f"{story.text}\n({len(story.text.split())} words, {-story.log_prob:.1f} nats)\n")
