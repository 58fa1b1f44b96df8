"""The grammar with free references, expanded into a finite automaton.

The grammar has no recursion, so every rule can be expanded where it is used: a node is a position
between two pieces of text, and an arc reads a piece. A reference may read the form of any entry in
the classes from which its plot draws the variable, whatever was bound. Used by grading.py.
"""

from __future__ import annotations

import re
from collections import defaultdict

from squentropy.corpus.grammar.grammar import Choice, Draw, Entry, Grammar, Refer, Words

# Splits literals so that every position between sentences is a node.
_BETWEEN = re.compile(r'(^\s+|(?<=[.!?"])\s+|\n\s*)')


class Node:
    """A position between two pieces. An arc is (item, pieces, target): the item reads one of the
    pieces and leads to the target; it is None if it neither binds nor refers to anything."""

    __slots__ = ("_moves", "arcs", "ends", "final", "later")

    def __init__(self, arcs: tuple, final: bool = False):
        self.arcs = arcs
        self.final = final  # a story may end here
        self.ends = final  # a sentence may end here; set by grading.py, as is `later`:
        self.later: frozenset[Node] = frozenset()  # nodes from here on where a sentence may begin
        self._moves: dict[str, list] | None = None

    def moves(self) -> dict[str, list]:
        """(piece, item, entry, target), by the first character of the piece."""
        read: list[tuple[str, Entry | None]]
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
    """Expands one plot, from its end to its beginning."""

    def __init__(self, items: tuple):
        self.items = items
        self.classes: dict[str, list[Words]] = {}  # from which this plot draws a variable
        self.nodes: dict[tuple, Node] = {}
        self.order: list[Node] = []  # in order of creation, each after its arcs' targets
        self.pieces: dict[tuple, tuple[str, ...]] = {}
        self._find_draws(items, set())

    def first(self) -> Node:
        return self._sequence(self.items, self._node((), final=True))

    def _node(self, arcs: tuple, final: bool = False) -> Node:
        self.order.append(Node(arcs, final))
        return self.order[-1]

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

    def _sequence(self, items: tuple, node: Node) -> Node:
        for item in reversed(items):
            key = (item, node)
            if key not in self.nodes:
                self.nodes[key] = self._before(item, node)
            node = self.nodes[key]
        return node

    def _before(self, item, node: Node) -> Node:
        if isinstance(item, str):
            for piece in reversed([piece for piece in _BETWEEN.split(item) if piece]):
                node = self._node(((None, (piece,), node),))
            return node
        if isinstance(item, Choice):
            firsts = [self._sequence(items, node) for items in item.alternatives]
            arcs = dict.fromkeys(arc for first in firsts for arc in first.arcs)
            return self._node(tuple(arcs), any(first.final for first in firsts))
        if isinstance(item, Refer):
            return self._node(((item, self._forms(self.classes[item.variable], item.form), node),))
        binds = item.variable is not None or item.excluded
        return self._node(((item if binds else None, self._forms([item.words], item.form), node),))

    def _forms(self, classes: list[Words], form: str) -> tuple[str, ...]:
        key = (form, *classes)
        if key not in self.pieces:
            entries = [entry for words in classes for entry in words.entries]
            self.pieces[key] = tuple(sorted({e.forms[form] for e in entries if form in e.forms}))
        return self.pieces[key]


class State:
    """All nodes that a text may lead to, regardless of what its references read."""

    __slots__ = ("_moves", "ends", "known", "nodes")

    def __init__(self, nodes: frozenset[Node], known: dict):
        self.nodes = nodes
        self.ends = any(node.ends for node in nodes)
        self.known = known  # every state, by its nodes
        self._moves: dict[str, list] | None = None

    def moves(self) -> dict[str, list]:
        """(piece, next state), by the first character of the piece."""
        if self._moves is None:
            targets: dict[tuple, set] = defaultdict(set)
            for node in self.nodes:
                for _, pieces, target in node.arcs:
                    targets[pieces].add(target)
            self._moves = {}
            for pieces, nodes in targets.items():
                key = frozenset(nodes)
                if key not in self.known:
                    self.known[key] = State(key, self.known)
                for piece in pieces:
                    self._moves.setdefault(piece[0], []).append((piece, self.known[key]))
        return self._moves


class Automaton:
    """`first` is the node where stories begin; `nodes` are all nodes, each after its arcs' targets;
    `variables` are the names of the variables that plots bind."""

    def __init__(self, grammar: Grammar):
        plots = [_Plot(items) for items in grammar.start.alternatives]
        firsts = [plot.first() for plot in plots]
        arcs = tuple(arc for first in firsts for arc in first.arcs)
        self.first = Node(arcs, any(first.final for first in firsts))
        self.nodes = [*(node for plot in plots for node in plot.order), self.first]
        self.variables = sorted({variable for plot in plots for variable in plot.classes})
