"""Parse a text into its derivation: exact log probability, ambiguity, and the first error.

The parser searches every leftmost derivation whose output matches the text, together with its
bindings (which name, object, place …), so it finds all derivations and their total probability.
One character of lookahead (the FIRST sets of LL(1) parsing) skips alternatives that cannot match.
If no derivation reaches the end, the furthest point of the search determines the kind of error.

    from squentropy.corpus.grammar import parser
    parser.parse(text).log_prob                 # nats; StoryError if the text is not a story
    parser.check(text).valid                    # the result as a verdict, never an error
"""

from __future__ import annotations

from functools import lru_cache
from math import exp, fsum, log
from os.path import commonprefix
from typing import TYPE_CHECKING, Any, NamedTuple

from squentropy.corpus.grammar.english import article
from squentropy.corpus.grammar.grammar import (
    WORD,
    Choice,
    Draw,
    Grammar,
    Refer,
    load_grammar,
)

# Kinds of errors, in the order in which they are checked. "dropped object": another name, object or
# place is used instead of the one introduced earlier.
KINDS = ("no ending", "unknown word", "broken agreement", "dropped object", "unexpected")


# Sets of words, besides the pronouns, of which a text may use the wrong one for its neighbours.
AGREEING = tuple(map(frozenset, (("a", "an"), ("was", "were"), ("is", "are"), ("has", "have"))))


class Decision(NamedTuple):
    """One choice of a derivation, with its position in the text."""

    offset: int  # characters from the start of the text
    name: str  # the rule's location in the data, or the class of the lexicon
    log_prob: float  # nats


class Derivation(NamedTuple):
    log_prob: float  # of the text: the log of the sum over its derivations, in nats
    derivations: int  # 1 unless the grammar is ambiguous
    bindings: dict[str, str]  # variable -> text of its entry, as {"hero": "Lily"}
    decisions: tuple[Decision, ...]  # of the first derivation, from left to right


class Verdict(NamedTuple):
    valid: bool
    kind: str | None  # one of KINDS; None if valid
    offset: int | None  # characters from the start of the text; None if valid
    message: str


class StoryError(ValueError):
    """The text is not a story of the grammar: `kind` (of KINDS), `offset`, `message`."""

    def __init__(self, kind: str, offset: int, message: str):
        super().__init__(f"at character {offset}: {kind}: {message}")
        self.kind = kind
        self.offset = offset
        self.message = message


class Failure(NamedTuple):
    """The search stopped at `offset`: the text does not continue with `expected`."""

    offset: int  # where the piece begins
    expected: str
    source: Draw | Refer | None  # the item that emits the piece; None for literal text


if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from squentropy.corpus.grammar.grammar import Entry

    Bindings = dict[str, Entry]
    Stack = tuple[Any, "Stack"] | None  # the remaining items, a linked list
    Trail = tuple[tuple[int, str, float], "Trail"] | None  # decisions, the latest first


class Parser:
    def __init__(self, grammar: Grammar):
        self.grammar = grammar
        self.vocabulary = frozenset(grammar.words())
        self.drawn: dict[str, list] = {}  # variable -> classes from which it is drawn
        for item in grammar.items():
            if isinstance(item, Draw) and item.variable is not None:
                classes = self.drawn.setdefault(item.variable, [])
                if item.words not in classes:
                    classes.append(item.words)
        self._firsts: dict[int, frozenset | None] = {}  # of each Choice, by id
        self._choices: dict[int, tuple[dict, tuple]] = {}
        self._draws: dict[int, dict] = {}
        for item in grammar.items():
            if isinstance(item, Choice):
                self._choices[id(item)] = self._alternatives_by_first(item)
            elif isinstance(item, Draw) and id(item) not in self._draws:
                self._draws[id(item)] = self._entries_by_first(item)

    def parse(self, text: str) -> Derivation:
        found, reached = self._search(text)
        if not found:
            raise self._diagnose(text, reached)
        log_probs = [log_prob for log_prob, _, _ in found]
        best = max(log_probs)
        # A single derivation keeps its exact log p, without the rounding of exp and log.
        spread = log(fsum(exp(lp - best) for lp in log_probs)) if len(found) > 1 else 0.0
        _, bindings, trail = found[0]
        decisions = []
        while trail is not None:
            decision, trail = trail
            decisions.append(Decision(*decision))
        return Derivation(
            best + spread,
            len(found),
            {variable: entry.forms["text"] for variable, entry in bindings.items()},
            tuple(reversed(decisions)),
        )

    def check(self, text: str) -> Verdict:
        try:
            self.parse(text)
        except StoryError as error:
            return Verdict(False, error.kind, error.offset, str(error))
        return Verdict(True, None, None, "a story of the grammar")

    def _search(
        self, text: str, failures: list[Failure] | None = None, reached: int = 0
    ) -> tuple[list[tuple[float, Bindings, Trail]], int]:
        """All derivations of `text` as (log_prob, bindings, trail of decisions), and the furthest
        position that the search reached.

        Depth-first search with an agenda of configurations: the position in the text, the stack of
        items still to match (a linked list), the bindings, log p and the decisions so far. Given
        `failures`, records each piece that does not match, and searches without lookahead from
        position `reached`, so as not to miss any there.
        """
        found: list[tuple[float, Bindings, Trail]] = []
        furthest = 0
        item: Any  # one of four kinds, see `kind`
        agenda: list[tuple[int, Stack, Bindings, float, Trail]]
        agenda = [(0, (self.grammar.start, None), {}, 0.0, None)]
        while agenda:
            position, stack, bindings, log_prob, trail = agenda.pop()
            while stack is not None:
                item, stack = stack
                kind = type(item)
                if kind is str or kind is Refer:
                    piece = item if kind is str else bindings[item.variable].forms[item.form]
                    if text.startswith(piece, position):
                        position += len(piece)
                        continue
                    if failures is not None:
                        failures.append(Failure(position, piece, None if kind is str else item))
                    break
                blind = failures is not None and position >= reached
                ahead = None if blind else text[position : position + 1]
                if kind is Choice:
                    for items, lp in self._alternatives(item, ahead):
                        rest = stack
                        for following in reversed(items):
                            rest = (following, rest)
                        decision = (position, item.name, lp)
                        agenda.append((position, rest, bindings, log_prob + lp, (decision, trail)))
                    break
                for piece, entry, lp in self._entries(item, bindings, ahead):
                    if text.startswith(piece, position):
                        now = bindings
                        if item.variable is not None:
                            now = {**bindings, item.variable: entry}
                        decision = (position, item.words.name, lp)
                        end = position + len(piece)
                        agenda.append((end, stack, now, log_prob + lp, (decision, trail)))
                    elif failures is not None:
                        failures.append(Failure(position, piece, item))
                break
            else:
                if position == len(text):
                    found.append((log_prob, bindings, trail))
                elif failures is not None:
                    failures.append(Failure(position, "", None))
            furthest = max(furthest, position)
        return found, furthest

    def _alternatives(self, item: Choice, ahead: str | None) -> Iterable[tuple]:
        """(items, log p) of a choice's alternatives that may begin with `ahead`; all if None."""
        if ahead is None:
            return zip(item.alternatives, item.log_probs)
        by_first, others = self._choices[id(item)]
        return by_first.get(ahead, others)

    def _entries(
        self, item: Draw, bindings: Bindings, ahead: str | None
    ) -> Iterator[tuple[str, Entry, float]]:
        """(piece, entry, log p) of drawable entries that begin with `ahead`; of all if None."""
        taken = item.taken(bindings) if item.excluded else ()
        share = item.log_share(taken) if taken else 0.0
        entries = self._draws[id(item)]
        if ahead is None:
            candidates = [pair for pairs in entries.values() for pair in pairs]
        else:
            candidates = entries.get(ahead, ())
        for piece, entry in candidates:
            if entry not in taken:
                yield piece, entry, item.words.log_probs[entry.index] - share

    # Lookahead.

    def _first(self, item) -> frozenset | None:
        """The characters that can begin the item; None if it can be empty."""
        if isinstance(item, str):
            return frozenset(item[0])
        if isinstance(item, Draw):
            return frozenset(entry.forms[item.form][0] for entry in item.words.entries)
        if isinstance(item, Refer):
            classes = self.drawn[item.variable]
            entries = (entry for words in classes for entry in words.entries)
            return frozenset(e.forms[item.form][0] for e in entries if item.form in e.forms)
        if id(item) not in self._firsts:
            firsts = [self._first_of_sequence(items) for items in item.alternatives]
            union: frozenset[str] | None
            union = None if None in firsts else frozenset().union(*firsts)  # type: ignore[arg-type]  # contains no None
            self._firsts[id(item)] = union
        return self._firsts[id(item)]

    def _first_of_sequence(self, items: tuple) -> frozenset | None:
        # If the first item can be empty, this gives up: the alternative is then always tried.
        return self._first(items[0]) if items else None

    def _alternatives_by_first(self, choice: Choice) -> tuple[dict, tuple]:
        """The candidates (items, log p) by next character, and those for any other character."""
        pairs = list(zip(choice.alternatives, choice.log_probs))
        firsts = [self._first_of_sequence(items) for items in choice.alternatives]
        characters = set().union(*(first for first in firsts if first is not None))
        table = {
            character: tuple(
                pair for pair, first in zip(pairs, firsts) if first is None or character in first
            )
            for character in characters
        }
        return table, tuple(pair for pair, first in zip(pairs, firsts) if first is None)

    @staticmethod
    def _entries_by_first(draw: Draw) -> dict[str, list[tuple]]:
        table: dict[str, list[tuple]] = {}
        for entry in draw.words.entries:
            piece = entry.forms[draw.form]
            table.setdefault(piece[0], []).append((piece, entry))
        return table

    # Diagnosis.

    def _diagnose(self, text: str, reached: int) -> StoryError:
        """The error at the furthest point that any derivation reached, which is at `reached` or in
        the piece that begins there."""
        failures: list[Failure] = []
        self._search(text, failures, _word_start(text, reached))
        ends = [f.offset + len(commonprefix([f.expected, text[f.offset :]])) for f in failures]
        if max(ends) == len(text):
            return StoryError("no ending", len(text), f"the text stops after '{text[-30:]}'")
        # Progress counts whole words: "He" is no closer to "Her" than to "She".
        starts = [_wrong_word(text, end, f) for f, end in zip(failures, ends)]
        start = max(starts)
        here = [failure for failure, begin in zip(failures, starts) if begin == start]
        match = WORD.match(text, start)
        word = match[0] if match else text[start]
        context = text[max(0, start - 40) : start + 40].replace("\n", " ")
        # Texts expected at `start`: the rest of a piece, or the text up to a piece and the piece.
        expected = {
            (text[start : f.offset] + f.expected[max(0, start - f.offset) :]).strip() for f in here
        } - {""}
        before = text[_word_start(text, start - 1) : start].strip() if start > 1 else ""
        if match and word.lower() not in self.vocabulary:
            kind = "unknown word"
        elif match and before.lower() in ("a", "an") and before.lower() != article(word):
            # "an brave …" matches up to "an", as in "an honest …".
            kind, start, expected = "broken agreement", start - len(before) - 1, {article(word)}
        elif self._disagrees(text, word, expected, here):
            kind = "broken agreement"
        elif entities := {f.expected for f in here if self._is_other_entity(text, f)}:
            kind, expected = "dropped object", entities
        else:
            kind = "unexpected"
        hint = " or ".join(f"'{piece[:30]}'" for piece in sorted(expected)[:3])
        message = f"'{word}' in '…{context}…'; expected {hint or 'the end of the text'}"
        return StoryError(kind, start, message)

    def _disagrees(self, text: str, word: str, expected: set[str], here: list[Failure]) -> bool:
        """Whether the text has the other word of a pair (a, an), or another entity's pronoun."""
        for pair in AGREEING:
            others = pair - {word.lower()}
            if len(others) < len(pair):
                return any(piece.split()[0].lower() in others for piece in expected)
        for failure in here:
            source = failure.source
            if isinstance(source, Refer) and source.form.lower() in self.grammar.agreement:
                for words in self.drawn[source.variable]:
                    for entry in words.entries:
                        pronoun = entry.forms.get(source.form, "")
                        if pronoun and _stands(text, pronoun, failure.offset):
                            return True
        return False

    def _is_other_entity(self, text: str, failure: Failure) -> bool:
        """Whether the text has another word of the lexicon instead of a reference to an entity."""
        source = failure.source
        return isinstance(source, Refer) and any(
            _stands(text, entry.forms[source.form], failure.offset)
            for words in self.grammar.classes.values()
            if source.form in words.asked
            for entry in words.entries
            if entry.forms[source.form] != failure.expected
        )


def _wrong_word(text: str, end: int, failure: Failure) -> int:
    """The start of the word that contains the first wrong character, at `end`."""
    expected = failure.expected[end - failure.offset :][:1]
    if not _in_word(text[end]) and not _in_word(expected):
        # The previous word is complete and correct: the next one is wrong.
        return end + 1 if text[end] == " " and end + 1 < len(text) else end
    return _word_start(text, end)


def _word_start(text: str, position: int) -> int:
    while position > 0 and _in_word(text[position - 1]):
        position -= 1
    return position


def _in_word(character: str) -> bool:
    return character.isalnum() or character in ("'", "-")


def _stands(text: str, piece: str, offset: int) -> bool:
    """Whether `text` has `piece` at `offset`, as whole words."""
    end = offset + len(piece)
    return text.startswith(piece, offset) and not _in_word(text[end : end + 1] or " ")


@lru_cache(maxsize=4)
def _parser(grammar: Grammar) -> Parser:
    return Parser(grammar)


def parse(text: str, grammar: Grammar | None = None) -> Derivation:
    """The derivation of `text`. Raises StoryError if the grammar cannot generate it."""
    return _parser(grammar or load_grammar()).parse(text)


def check(text: str, grammar: Grammar | None = None) -> Verdict:
    """Whether `text` is a story of the grammar; if not, where and why not."""
    return _parser(grammar or load_grammar()).check(text)
