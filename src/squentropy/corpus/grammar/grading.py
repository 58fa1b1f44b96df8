"""Measures of how close a text is to a story of the grammar; `parser.check` only says yes or no.

    form               Whether the grammar could generate the text if every reference ({hero},
                       {hero.his}, "but hero") could take any entry of its class.
    agreement          The fraction of references that match what was bound before. A text that is
                       not in form is read as far as possible: a sentence that continues no reading
                       is searched for later in the same plot, and skipped if it is not there.
                       References to variables that may have been bound in a skipped part do not
                       count.
    sentences in form  The fraction of sentences that the grammar could generate, regardless of
                       their position and references.

    from squentropy.corpus.grammar.grading import grade
    grade(text).form, grade(text).agreement, grade(text).sentences_in_form

With free references, the grammar is a finite automaton, because it has no recursion: every rule is
expanded where it is used, and a node is a position between two pieces of text. A reference reads
the same pieces whatever was bound, so the search for a sentence only tracks the position in the
text and the node. Agreement also tracks the bindings. Among all readings of a text, it uses the one
with the fewest mismatched references and, among those, the one with the most matching references.
So a text is a story of the grammar if and only if it is in form and all its references match.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import lru_cache
from heapq import heappop, heappush
from typing import NamedTuple

from squentropy.corpus.grammar.automaton import Automaton, Node, State
from squentropy.corpus.grammar.grammar import Draw, Entry, Grammar, Refer, load_grammar


class Grade(NamedTuple):
    """The counts for a text; the fractions are NaN if there is nothing to count."""

    valid: bool  # a story of the grammar, as in parser.check
    form: bool
    sentences: int
    in_form: int  # sentences in form
    references: int  # that count, see `agreement` above
    matches: int  # references that match

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

# A sentence ends with a mark, or with a quotation that ends with a mark, if white space follows.
# A quotation at the start of a sentence does not end it, because the speaker follows ("Why?" Tim
# asked.), and no sentence ends inside a quotation. A paragraph ends every sentence.
#
# Each state, with the next state after a line feed, white space, a mark (.!?), a quote, other text.
_KINDS = ("line", "space", "mark", "quote", "other")
_NEXT = {
    state: dict(zip(_KINDS, after.split()))
    for state, after in {
        "start": "start start ended opening plain",  # between sentences
        "plain": "start plain ended inner plain",
        "ended": "start start ended inner plain",  # after a mark
        "opening": "start opening opening plain opening",  # in a quotation that begins a sentence
        "inner": "start inner inner_ended plain inner",  # in any other quotation
        "inner_ended": "start inner inner_ended ended inner",
    }.items()
}
_RUN = re.compile(r'(?P<line>\n)|(?P<space>[^\S\n]+)|(?P<mark>[.!?]+)|(?P<quote>")|[^\s.!?"]+')
_QUOTATION = re.compile(r'"((?=\S)[^"\n]*(?<=\S))"')
_COMPLETE = re.compile(r'[.!?]"?$')


def _scan(state: str, text: str) -> Iterator[tuple[int, str]]:
    """(start, state after it) of each run of characters of one kind."""
    for run in _RUN.finditer(text):
        state = _NEXT[state][run.lastgroup or "other"]
        yield run.start(), state


def _without_stray_quotes(text: str) -> str:
    """The text, at the same length, with each unpaired quote replaced by a letter, or by a mark
    after a mark."""
    stray = _QUOTATION.sub("\0\\1\0", text)
    return re.sub(r'(?<=[.!?])"', ".", stray).replace('"', "x").replace("\0", '"')


# --- grades -------------------------------------------------------------------------------------

Bindings = tuple[Entry | None, ...]  # of the grammar's variables; None before the first draw
Cost = tuple[int, int]  # (wrong, -right): references that do not match and that do; least is best
Costs = dict[tuple[Node, Bindings], Cost]


class _Grader:
    def __init__(self, grammar: Grammar):
        automaton = Automaton(grammar)
        self.first = automaton.first
        self.slots = {variable: i for i, variable in enumerate(automaton.variables)}
        forms = {f for w in grammar.classes.values() for e in w.entries for f in e.forms.values()}
        shortened = {word for form in forms for word in re.findall(r"(\S+\.)\s", form)}
        self.shortened = re.compile("|".join(map(re.escape, sorted(shortened))) or r"(?!)")
        starts = self._find_sentences()
        self._note_later(automaton.nodes, starts)
        self.starts = State(starts, {})
        self._is_sentence = lru_cache(maxsize=100_000)(self._reads_sentence)

    def grade(self, text: str) -> Grade:
        spans = self._sentences(text)
        in_form = sum(self._is_sentence(text[start:end]) for start, end in spans)
        form, wrong, matches = self._references(text, spans)
        return Grade(form and not wrong, form, len(spans), in_form, wrong + matches, matches)

    # Sentences.

    def _masked(self, text: str) -> str:
        """The text, at the same length, without the dot of "Mr."."""
        return self.shortened.sub(lambda match: match[0][:-1] + "x", text)

    def _sentences(self, text: str) -> list[tuple[int, int]]:
        """The start and end of each sentence."""
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

    def _find_sentences(self) -> frozenset[Node]:
        """The nodes where a sentence may begin; sets `ends` of the nodes where one may end. Visits
        all nodes, with each state of `_NEXT` in which stories can reach them."""
        agenda = [(self.first, "start")]
        seen = set(agenda)
        after: dict[tuple, frozenset[str]] = {}
        while agenda:
            node, state = agenda.pop()
            for _, pieces, target in node.arcs:
                if (key := (state, pieces)) not in after:
                    masked = map(self._masked, pieces)
                    after[key] = frozenset([*_scan(state, piece)][-1][1] for piece in masked)
                node.ends |= state != "start" and "start" in after[key]
                for place in {(target, new) for new in after[key]} - seen:
                    seen.add(place)
                    agenda.append(place)
        return frozenset(node for node, state in seen if state == "start")

    @staticmethod
    def _note_later(nodes: list[Node], starts: frozenset[Node]) -> None:
        """Set `later` of the nodes, each given after its arcs' targets."""
        same: dict[frozenset, frozenset] = {}  # many nodes have equal sets: store each once
        for node in nodes:
            later = (starts & {node}).union(*(target.later for _, _, target in node.arcs))
            node.later = same.setdefault(later, later)

    def _reads_sentence(self, sentence: str) -> bool:
        """Whether some reading leads from a start of a sentence to an end of one."""
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

    def _references(self, text: str, spans: list[tuple[int, int]]) -> tuple[bool, int, int]:
        """Whether the text is in form, and the numbers of mismatched and matching references.

        Reads sentence by sentence. If a sentence continues no reading of the previous text, each
        reading continues with it at any later position in its plot; if there is none, the sentence
        is skipped.
        """
        costs: Costs = {(self.first, (None,) * len(self.slots)): (0, 0)}
        form = bool(spans) and spans[-1][1] == len(text)
        done = 0
        for start, end in spans:
            after = self._read(text, done, end, costs)
            if not after:
                form = False
                if self._is_sentence(text[start:end]):
                    after = self._read(text, start, end, self._later(costs))
            costs = after or costs
            done = end
        if form:
            whole = {place: cost for place, cost in costs.items() if place[0].final}
            form, costs = bool(whole), whole or costs
        wrong, right = min(costs.values())
        return form, wrong, -right

    def _later(self, costs: Costs) -> Costs:
        later: Costs = {}
        for (node, bound), cost in costs.items():
            for start in node.later:
                key = (start, bound)
                later[key] = min(cost, later.get(key, cost))
        return later

    def _read(self, text: str, begin: int, end: int, costs: Costs) -> Costs:
        """The (node, bindings) that readings of text[begin:end] reach from those in `costs`.

        No piece is empty, so positions are processed in text order, and only the best way to each
        node and its bindings is kept at each position.
        """
        at = {begin: costs}
        positions = [begin]
        while positions and positions[0] < end:
            position = heappop(positions)
            first = text[position]
            for (node, bound), cost in at.pop(position).items():
                for piece, item, entry, target in node.moves().get(first, ()):
                    stop = position + len(piece)
                    if stop > end or not text.startswith(piece, position):
                        continue
                    place, new = (target, bound), cost
                    if item is not None:
                        now, new = self._refer(item, piece, entry, bound, cost)
                        place = (target, now)
                    if stop not in at:
                        at[stop] = {}
                        heappush(positions, stop)
                    if place not in at[stop] or new < at[stop][place]:
                        at[stop][place] = new
        return at.get(end, {})

    def _refer(
        self, item: Draw | Refer, piece: str, entry: Entry | None, bound: Bindings, cost: Cost
    ) -> tuple[Bindings, Cost]:
        """Bindings and cost after a piece that binds or refers. Nothing is counted if a variable is
        unbound, because a skipped part may have bound it."""
        wrong, right = cost
        others = item.excluded if isinstance(item, Draw) else (item.variable,)
        held = [bound[self.slots[other]] for other in others]
        if held and None not in held:
            if isinstance(item, Refer):
                fits = held[0].forms.get(item.form) == piece  # type: ignore[union-attr]  # no None
            else:
                fits = entry not in held
            cost = (wrong, right - 1) if fits else (wrong + 1, right)
        if isinstance(item, Draw) and item.variable is not None:
            slot = self.slots[item.variable]
            bound = (*bound[:slot], entry, *bound[slot + 1 :])
        return bound, cost


@lru_cache(maxsize=4)
def _grader(grammar: Grammar) -> _Grader:
    return _Grader(grammar)
