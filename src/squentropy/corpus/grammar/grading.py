"""How near a text comes to a story of the grammar, where `parser.check` only says yes or no.

    form               The grammar could have written the text if every reference ({hero},
                       {hero.his}, "but hero") might take any entry of its class.
    agreement          The share of the references that fit what was bound before. A text that is
                       not in form is read as far as may be: a sentence that no reading goes on
                       with is looked for later in the same plot, and left out if it is not there.
                       References to what a sentence that was left out may have bound do not count.
    sentences in form  The share of sentences that the grammar could have written, wherever they
                       stand and whatever their references.

    from squentropy.corpus.grammar.grading import grade
    grade(text).form, grade(text).agreement, grade(text).sentences_in_form

With free references the grammar is a finite automaton, for it has no recursion: every rule is
written out where it is used, and a node is a place between two pieces of text. A reference reads
the same pieces whatever was bound, so the search for a sentence remembers no more than its place in
the text and its node. Agreement carries the bindings along as well; of the readings of a text it
takes the one with the fewest references that do not fit, and among those the one with the most that
do. So a text is a story of the grammar exactly if it is in form and all its references fit.
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
    """What was counted in a text; the shares are NaN where there is nothing to count."""

    valid: bool  # a story of the grammar, as parser.check has it
    form: bool
    sentences: int
    in_form: int  # of the sentences
    references: int  # that were read, see `agreement` above
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


def _scan(state: str, text: str) -> Iterator[tuple[int, str]]:
    """The state after each run of characters of one kind, with where the run begins."""
    for run in _RUN.finditer(text):
        state = _NEXT[state][run.lastgroup or "other"]
        yield run.start(), state


def _without_stray_quotes(text: str) -> str:
    """The same text, as long as before, in which a quote that has no partner is a letter, or a
    mark after a mark."""
    stray = _QUOTATION.sub("\0\\1\0", text)
    return re.sub(r'(?<=[.!?])"', ".", stray).replace('"', "x").replace("\0", '"')


# --- grades -------------------------------------------------------------------------------------

Bindings = tuple[Entry | None, ...]  # of the grammar's variables; None before the first draw
Cost = tuple[int, int]  # (wrong, -right): references that do not fit and that do; least is best
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

    def _find_sentences(self) -> frozenset[Node]:
        """The nodes where a sentence may begin; `ends` is set where one may end. All nodes are
        visited, with each of the states of `_NEXT` that stories come there in."""
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
        """Set `later` of the nodes, each given after those that its arcs lead to."""
        same: dict[frozenset, frozenset] = {}  # many nodes have the same: each is held once
        for node in nodes:
            later = (starts & {node}).union(*(target.later for _, _, target in node.arcs))
            node.later = same.setdefault(later, later)

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

    def _references(self, text: str, spans: list[tuple[int, int]]) -> tuple[bool, int, int]:
        """Whether the text is in form; its references that do not fit, and those that do.

        It is read sentence by sentence. If no reading of what came before goes on with a sentence,
        each goes on with it at any place later in its plot; if there is none, the sentence is left
        out.
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
        """The places that readings of text[begin:end] come to from the places in `costs`.

        Every piece is longer than nothing, so positions are worked off in the order of the text,
        and at each of them only the best way to a node and its bindings is kept.
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
        """Bindings and cost after a piece that binds or refers. What the reading has left out may
        have bound the variable: then nothing is counted."""
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
