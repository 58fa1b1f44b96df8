"""How near a text comes to a story of the grammar, where `parser.check` only says yes or no.

    form               The grammar could have written the text if every reference ({hero},
                       {hero.his}, "but hero") might take any entry of its class.
    agreement          The share of the references that fit what was bound before, in a text that
                       is in form; in another, in the whole sentences that it begins in form with.
    sentences in form  The share of sentences that the grammar could have written, wherever they
                       stand and whatever their references.

    from squentropy.corpus.grading import grade
    grade(text).form, grade(text).agreement, grade(text).sentences_in_form

With free references the grammar is a finite automaton, for it has no recursion: every rule is
written out where it is used, and a node is a place between two pieces of text. A reference reads
the same pieces whatever was bound, so a search needs to remember no more than its place in the
text and its node. Agreement carries the bindings along as well; of the readings of a text it takes
the one with the fewest references that do not fit, and among those the one with the most that do.
So a text is a story of the grammar exactly if it is in form and all its references fit.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import lru_cache
from heapq import heappop, heappush
from typing import NamedTuple

from .grammar import Choice, Draw, Entry, Grammar, Refer, Words, load_grammar


class Grade(NamedTuple):
    """What was counted in a text; the shares are NaN where there is nothing to count."""

    valid: bool  # a story of the grammar, as parser.check has it
    form: bool
    sentences: int
    in_form: int  # of the sentences
    references: int  # read, see `agreement` above
    matches: int  # of the references

    @property
    def agreement(self) -> float:
        return self.matches / self.references if self.references else math.nan

    @property
    def sentences_in_form(self) -> float:
        return self.in_form / self.sentences if self.sentences else math.nan


def grade(text: str, grammar: Grammar | None = None) -> Grade:
    """Form, agreement and sentences in form of a text."""
    return _grader(grammar or load_grammar()).grade(text)


# --- sentences ----------------------------------------------------------------------------------

# A sentence ends with a mark, or with the quotation that a mark closes, if white space follows.
# A quotation that opens a sentence does not end it, for who says it comes after ("Why?" Tim
# asked.), and within a quotation nothing ends. A paragraph ends every sentence.
#
# State, and the state after a line feed, white space, a mark (.!?), a quote and anything else.
_KINDS = ("line", "space", "mark", "quote", "other")
_NEXT = {
    state: dict(zip(_KINDS, after.split()))
    for state, after in {
        "start": "start start ended opening plain",  # between sentences
        "plain": "start plain ended inner plain",
        "ended": "start start ended inner plain",  # after a mark
        "opening": "start opening opening plain opening",  # in a quotation that opens a sentence
        "inner": "start inner inner_ended plain inner",  # in another
        "inner_ended": "start inner inner_ended ended inner",
    }.items()
}
_RUN = re.compile(r'(?P<line>\n)|(?P<space>[^\S\n]+)|(?P<mark>[.!?]+)|(?P<quote>")|[^\s.!?"]+')
_QUOTATION = re.compile(r'"((?=\S)[^"\n]*(?<=\S))"')
_COMPLETE = re.compile(r'[.!?]"?$')

# Where a literal is taken apart, so that every place between sentences is a node.
_BETWEEN = re.compile(r'(^\s+|(?<=[.!?"])\s+|\n\s*)')


def _scan(state: str, text: str) -> Iterator[tuple[int, str]]:
    """The state after each run of characters of one kind, with where the run begins."""
    for run in _RUN.finditer(text):
        state = _NEXT[state][run.lastgroup or "other"]
        yield run.start(), state


def _without_stray_quotes(text: str) -> str:
    """The same text, as long as before, in which a quote that has no partner is a letter."""
    paired = _QUOTATION.sub("\0\\1\0", text)
    return paired.replace('"', "x").replace("\0", '"')


# --- the automaton ------------------------------------------------------------------------------


class _Node:
    """A place between two pieces. An arc is (item, pieces, target): what reads one of the pieces
    and leads on; the item is None where nothing is bound and nothing referred to."""

    __slots__ = ("_moves", "arcs", "final")

    def __init__(self, arcs: tuple, final: bool = False):
        self.arcs = arcs
        self.final = final  # a story may end here
        self._moves: dict[str, list] | None = None

    @property
    def ends(self) -> bool:
        """Whether white space or the end of the story may follow."""
        return self.final or any(pieces[0].isspace() for _, pieces, _ in self.arcs)

    def moves(self) -> dict[str, list]:
        """(piece, item, entry, target) by the first character of the piece."""
        if self._moves is None:
            self._moves = defaultdict(list)
            for item, pieces, target in self.arcs:
                if isinstance(item, Draw):
                    read = [(entry.forms[item.form], entry) for entry in item.words.entries]
                else:
                    read = [(piece, None) for piece in pieces]
                for piece, entry in read:
                    self._moves[piece[0]].append((piece, item, entry, target))
            self._moves.default_factory = None
        return self._moves


class _Plot:
    """Writes out one plot, from its end to its beginning."""

    def __init__(self, items: tuple):
        self.items = items
        self.classes: dict[str, list[Words]] = {}  # that a variable is drawn from in this plot
        self.nodes: dict[tuple, _Node] = {}
        self.pieces: dict[tuple, tuple[str, ...]] = {}
        self._find_draws(items, set())

    def first(self) -> _Node:
        return self._sequence(self.items, _Node((), final=True))

    def _find_draws(self, items: tuple, seen: set) -> None:
        for item in items:
            if isinstance(item, Draw) and item.variable is not None:
                classes = self.classes.setdefault(item.variable, [])
                if item.words not in classes:
                    classes.append(item.words)
            elif isinstance(item, Choice) and item not in seen:
                seen.add(item)
                for alternative in item.alternatives:
                    self._find_draws(alternative, seen)

    def _sequence(self, items: tuple, node: _Node) -> _Node:
        for item in reversed(items):
            key = (item, node)
            if key not in self.nodes:
                self.nodes[key] = self._before(item, node)
            node = self.nodes[key]
        return node

    def _before(self, item, node: _Node) -> _Node:
        if isinstance(item, str):
            for piece in reversed([piece for piece in _BETWEEN.split(item) if piece]):
                node = _Node(((None, (piece,), node),))
            return node
        if isinstance(item, Choice):
            firsts = [self._sequence(items, node) for items in item.alternatives]
            arcs = dict.fromkeys(arc for first in firsts for arc in first.arcs)
            return _Node(tuple(arcs), any(first.final for first in firsts))
        if isinstance(item, Refer):
            return _Node(((item, self._forms(self.classes[item.variable], item.form), node),))
        binds = item.variable is not None or item.excluded
        return _Node(((item if binds else None, self._forms([item.words], item.form), node),))

    def _forms(self, classes: list[Words], form: str) -> tuple[str, ...]:
        key = (form, *classes)
        if key not in self.pieces:
            entries = [entry for words in classes for entry in words.entries]
            self.pieces[key] = tuple(sorted({e.forms[form] for e in entries if form in e.forms}))
        return self.pieces[key]


class _State:
    """Nodes that texts have led to that differ in their references alone."""

    __slots__ = ("_moves", "ends", "known", "nodes")

    def __init__(self, nodes: frozenset[_Node], known: dict):
        self.nodes = nodes
        self.ends = any(node.ends for node in nodes)
        self.known = known  # every state by its nodes
        self._moves: dict[str, list] | None = None

    def moves(self) -> dict[str, list]:
        """(piece, state that it leads to) by the first character of the piece."""
        if self._moves is None:
            targets: dict[tuple, set] = defaultdict(set)
            for node in self.nodes:
                for _, pieces, target in node.arcs:
                    targets[pieces].add(target)
            self._moves = {}
            for pieces, nodes in targets.items():
                key = frozenset(nodes)
                if key not in self.known:
                    self.known[key] = _State(key, self.known)
                for piece in pieces:
                    self._moves.setdefault(piece[0], []).append((piece, self.known[key]))
        return self._moves


# --- grades -------------------------------------------------------------------------------------


class _Grader:
    def __init__(self, grammar: Grammar):
        plots = [_Plot(items) for items in grammar.start.alternatives]
        firsts = [plot.first() for plot in plots]
        variables = {variable for plot in plots for variable in plot.classes}
        self.slots = {variable: i for i, variable in enumerate(sorted(variables))}
        self.first = _Node(
            tuple(arc for first in firsts for arc in first.arcs),
            any(first.final for first in firsts),
        )
        forms = {f for w in grammar.classes.values() for e in w.entries for f in e.forms.values()}
        shortened = {word for form in forms for word in re.findall(r"(\S+\.)\s", form)}
        self.shortened = re.compile("|".join(map(re.escape, sorted(shortened))) or r"(?!)")
        self.starts = _State(self._starts(), {})
        self._is_sentence = lru_cache(maxsize=100_000)(self._reads_sentence)

    def grade(self, text: str) -> Grade:
        spans = self._sentences(text)
        in_form = sum(self._is_sentence(text[start:end]) for start, end in spans)
        form, wrong, matches = self._references(text, {end for _, end in spans})
        return Grade(form and not wrong, form, len(spans), in_form, wrong + matches, matches)

    # Sentences.

    def _masked(self, text: str) -> str:
        """The same text, as long as before, without the dot of "Mr."."""
        return self.shortened.sub(lambda match: match[0][:-1] + "x", text)

    def _sentences(self, text: str) -> list[tuple[int, int]]:
        """Where each sentence begins and ends."""
        masked = self._masked(_without_stray_quotes(text))
        spans = []
        begin = None
        for position, state in _scan("start", masked):
            if state != "start" and begin is None:
                begin = position
            elif state == "start" and begin is not None:
                spans.append((begin, position))
                begin = None
        return spans if begin is None else [*spans, (begin, len(text))]

    def _starts(self) -> frozenset[_Node]:
        """The nodes where a sentence may begin: all places of all stories are visited, each with
        the states of `_NEXT` that lead there."""
        agenda = [(self.first, "start")]
        seen = set(agenda)
        after: dict[tuple, frozenset[str]] = {}
        while agenda:
            node, state = agenda.pop()
            for _, pieces, target in node.arcs:
                if (key := (state, pieces)) not in after:
                    masked = map(self._masked, pieces)
                    after[key] = frozenset([*_scan(state, piece)][-1][1] for piece in masked)
                for place in {(target, new) for new in after[key]} - seen:
                    seen.add(place)
                    agenda.append(place)
        return frozenset(node for node, state in seen if state == "start")

    def _reads_sentence(self, sentence: str) -> bool:
        """Whether some reading goes from where a sentence may begin to where one may end."""
        if not _COMPLETE.search(sentence):
            return False
        agenda = [(0, self.starts)]
        seen = set(agenda)
        while agenda:
            position, state = agenda.pop()
            if position == len(sentence):
                if state.ends:
                    return True
                continue
            for piece, target in state.moves().get(sentence[position], ()):
                place = (position + len(piece), target)
                if place not in seen and sentence.startswith(piece, position):
                    seen.add(place)
                    agenda.append(place)
        return False

    # References.

    def _references(self, text: str, ends: set[int]) -> tuple[bool, int, int]:
        """Whether the text is in form; its references that do not fit, and those that do. If it
        is not in form, they are counted up to the last of `ends` that a reading comes to.

        Every piece is longer than nothing, so the places are worked off in the order of the text,
        and at each place only the best way to every node and bindings is kept. A cost is (wrong,
        -right), the least is the best.
        """
        costs = {0: {(self.first, (None,) * len(self.slots)): (0, 0)}}
        positions = [0]
        prefix = (0, 0)
        while positions:
            position = heappop(positions)
            here = costs.pop(position)
            if position == len(text):
                whole = [cost for (node, _), cost in here.items() if node.final]
                if whole:
                    return True, min(whole)[0], -min(whole)[1]
            if position in ends:
                prefix = min(
                    (cost for (node, _), cost in here.items() if node.ends), default=prefix
                )
            for (node, bound), cost in here.items():
                for piece, item, entry, target in node.moves().get(
                    text[position : position + 1], ()
                ):
                    if not text.startswith(piece, position):
                        continue
                    now, new = (bound, cost)
                    if item is not None:
                        now, new = self._read(item, piece, entry, bound, cost)
                    end = position + len(piece)
                    if end not in costs:
                        costs[end] = {}
                        heappush(positions, end)
                    key = (target, now)
                    if key not in costs[end] or new < costs[end][key]:
                        costs[end][key] = new
        return False, prefix[0], -prefix[1]

    def _read(self, item: Draw | Refer, piece: str, entry: Entry | None, bound: tuple, cost: tuple):
        """Bindings and cost after a piece that binds or refers."""
        wrong, left = cost
        if isinstance(item, Refer):
            fits = bound[self.slots[item.variable]].forms.get(item.form) == piece
            return bound, ((wrong, left - 1) if fits else (wrong + 1, left))
        if item.excluded:
            fits = all(entry is not bound[self.slots[other]] for other in item.excluded)
            cost = (wrong, left - 1) if fits else (wrong + 1, left)
        if item.variable is not None:
            slot = self.slots[item.variable]
            bound = (*bound[:slot], entry, *bound[slot + 1 :])
        return bound, cost


@lru_cache(maxsize=4)
def _grader(grammar: Grammar) -> _Grader:
    return _Grader(grammar)
