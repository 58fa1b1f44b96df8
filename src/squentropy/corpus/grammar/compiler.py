"""Compile the grammar's data files into a `Grammar`, checking them on the way."""

from __future__ import annotations

import hashlib
import re
from math import fsum
from pathlib import Path

import yaml

from squentropy.corpus.grammar.english import DERIVED
from squentropy.corpus.grammar.grammar import (
    Choice,
    Draw,
    Grammar,
    GrammarError,
    Refer,
    Words,
)

# Alternatives and words are listed most frequent first: rank r (from 0) has the weight
# 1 / (r + RANK_OFFSET), Zipf's law with Mandelbrot's offset. Using only divisions, no powers,
# makes the weights, and so the stories, bit-identical on every machine.
RANK_OFFSET = 3.0


def _rank_weight(rank: int) -> float:
    return 1.0 / (rank + RANK_OFFSET)


Bound = dict[str, frozenset[Words]]  # variable: the classes from which its entry may come


def compile_grammar(path: Path) -> Grammar:
    """The grammar in a folder. Raises GrammarError if it is invalid."""
    return _Compiler(path).grammar()


class _Compiler:
    """Compiles data files into a Grammar, and detects errors before the first story."""

    def __init__(self, path: Path):
        self.path = path
        self.rules: dict[str, tuple[tuple[str, ...], list[str], str]] = {}
        self.classes: dict[str, Words] = {}
        self.agreement: set[str] = set()
        self.compiled: dict[tuple, list] = {}  # (rule, arguments) -> items
        self.expanding: list[str] = []  # the rules being expanded, to refuse recursion
        self.drawn: set[str] = set()  # variables that some template binds
        self.used: set[str] = set()  # rules and classes that some plot reaches

    def grammar(self) -> Grammar:
        files = sorted(self.path.rglob("*.yaml"), key=lambda file: file.as_posix())
        if not files:
            raise GrammarError(f"{self.path}: no .yaml file; give the folder of the stories")
        sha = hashlib.sha256()
        plots = []
        for file in files:
            content = file.read_bytes()
            where = file.relative_to(self.path).as_posix()
            sha.update(f"{where} {len(content)}\n".encode() + content)
            plots += self._read(content, where)
        if not plots:
            raise GrammarError(f"{self.path}: no plot; add plots/NAME.yaml with the key 'plot'")
        alternatives = [tuple(self._template(text, where)) for _, text, where in plots]
        start = Choice("plot", alternatives, [weight for weight, _, _ in plots])
        self._require_all_used()
        self._bind(start, {}, {})
        return Grammar(start, self.classes, self.agreement, sha.hexdigest())

    # Reading.

    def _read(self, content: bytes, where: str) -> list[tuple[float, str, str]]:
        """Read one file; return its plots as (weight, template, where)."""
        try:
            # CSafeLoader, if PyYAML was built with it, gives the same data ten times faster.
            data = yaml.load(content, getattr(yaml, "CSafeLoader", yaml.SafeLoader)) or {}
        except yaml.YAMLError as error:
            raise GrammarError(f"{where}: not YAML: {' '.join(str(error).split())}") from None
        known = {"bundles", "lexicon", "rules", "weight", "plot"}
        for key in data:
            if key not in known:
                raise GrammarError(f"{where}: unknown key '{key}'; use {', '.join(sorted(known))}")
        bundles = data.get("bundles", {})
        for bundle in bundles.values():
            self.agreement.update(form for form in bundle if form != "the")
        for name, groups in data.get("lexicon", {}).items():
            self._read_class(name, groups, bundles, f"{where}: {name}")
        for head, body in data.get("rules", {}).items():
            name, _, parameters = head.partition("(")
            lines = self._lines(body, f"{where}: {name}")
            if name in self.rules:
                raise GrammarError(f"{where}: rule '{name}' is defined twice; rename one")
            self.rules[name] = (
                tuple(p.strip() for p in parameters.rstrip(")").split(",") if p.strip()),
                lines,
                f"{where}: {name}",
            )
        if "plot" not in data:
            return []
        weight = data.get("weight", 1)
        if not isinstance(weight, (int, float)) or weight <= 0:
            raise GrammarError(f"{where}: weight {weight!r} of the plot; give a number above 0")
        return [(float(weight), data["plot"].strip(), f"{where}: plot")]

    @staticmethod
    def _lines(body: str, where: str) -> list[str]:
        """One alternative per line; an indented line continues the previous one."""
        if not isinstance(body, str):
            raise GrammarError(f"{where}: not a text; write '|' and one alternative a line")
        lines: list[str] = []
        for line in body.splitlines():
            if line.startswith(" ") and lines:
                lines[-1] += " " + line.strip()
            elif line.strip():
                lines.append(line.strip())
        if not lines:
            raise GrammarError(f"{where}: empty; give at least one alternative")
        return lines

    def _read_class(self, name: str, groups, bundles: dict, where: str) -> None:
        rows: list[dict[str, str]] = []
        weights: list[float] = []
        for group in groups if isinstance(groups, list) else [groups]:
            group = dict(group) if isinstance(group, dict) else {"words": group}
            bundle = group.pop("with", None)
            if bundle is not None and bundle not in bundles:
                raise GrammarError(f"{where}: unknown bundle '{bundle}'; add it to 'bundles'")
            shared = dict(bundles.get(bundle, {}))
            columns = group.pop("columns", ["text"])
            words = group.pop("words", "")
            shared.update(group)  # any other key is a form shared by the whole group
            separator = "," if columns == ["text"] else "\n"
            listed = [word.strip() for word in words.split(separator) if word.strip()]
            for rank, word in enumerate(listed):
                cells = [" ".join(cell.split()) for cell in word.split("|")]
                if len(cells) != len(columns):
                    raise GrammarError(
                        f"{where}: '{cells[0]}' has {len(cells)} columns; "
                        f"give {len(columns)}: {' | '.join(columns)}"
                    )
                row = {**shared, **dict(zip(columns, cells))}
                if row.get("the") == "=":  # a proper name takes no article
                    row["the"] = row["text"]
                rows.append(row)
                weights.append(_rank_weight(rank))
        if not rows:
            raise GrammarError(f"{where}: no words; list them under 'words'")
        texts = [row["text"] for row in rows]
        for text in texts:
            if texts.count(text) > 1:
                raise GrammarError(f"{where}: '{text}' is listed twice; remove one")
        if name in self.classes:
            raise GrammarError(f"{where}: defined twice; rename one")
        self.classes[name] = Words(name, rows, weights)

    # Templates: `{reference}`, `[one|two|three]`, `[?.4 optional]`, `¶` for a new paragraph.

    def _alternatives(self, texts: list[str], where: str) -> tuple[list[tuple], list[float]]:
        """Compile alternatives; a prefix `NUMBER * ` replaces the weight of the rank."""
        alternatives, weights = [], []
        if len(set(texts)) < len(texts):
            twice = next(text for text in texts if texts.count(text) > 1)
            raise GrammarError(f"{where}: '{twice}' is listed twice; remove one")
        for rank, text in enumerate(texts):
            weight = _rank_weight(rank)
            if match := re.match(r"(-?[0-9.]+) \* ", text):
                weight, text = float(match[1]), text[match.end() :]
                if weight <= 0:
                    raise GrammarError(
                        f"{where}: weight {match[1]} of '{text}'; give one above 0 or remove it"
                    )
            alternatives.append(tuple(self._template(text, where)))
            weights.append(weight)
        return alternatives, weights

    def _template(self, text: str, where: str) -> list:
        """Compile one template into items, with adjacent literals joined."""
        text = re.sub(r" *(?:¶|\n) *", "\n", text)
        items: list = []
        position = 0
        while position < len(text):
            character = text[position]
            if character in "{[":
                end = _closing(text, position, where)
                inner = text[position + 1 : end]
                position = end + 1
                if character == "{":
                    items += self._reference(inner, where)
                elif inner.startswith("?"):
                    position += self._option(inner[1:], items, text[position:], where)
                else:
                    items.append(self._choice(_split(inner, "|"), where))
            elif character in "}]":
                raise GrammarError(f"{where}: '{character}' without its opening in '{text}'")
            else:
                end = position
                while end < len(text) and text[end] not in "{}[]":
                    end += 1
                items.append(text[position:end])
                position = end
        joined: list = []
        for item in items:
            if isinstance(item, str) and joined and isinstance(joined[-1], str):
                joined[-1] += item
            elif item != "":
                joined.append(item)
        return joined

    def _choice(self, texts: list[str], where: str) -> Choice:
        return Choice(where, *self._alternatives(texts, where))

    def _option(self, inner: str, items: list, rest: str, where: str) -> int:
        """Append `[?p texts]`. One adjacent space is part of the option: the one before it or,
        at the start of a paragraph or quotation, the one after it. Returns the number of characters
        of `rest` that were consumed."""
        number, _, body = inner.partition(" ")
        try:
            probability = float(number)
        except ValueError:
            probability = -1.0
        if not 0 < probability < 1:
            raise GrammarError(f"{where}: option '[?{inner}]'; write [?p text] with 0 < p < 1")
        before = after = ""
        if items and isinstance(items[-1], str) and items[-1].endswith(" "):
            items[-1] = items[-1][:-1]
            before = " "
        elif rest.startswith(" "):
            after = " "
        alternatives, weights = self._alternatives(_split(body, "|"), where)
        total = fsum(weights)
        alternatives = [tuple(filter(None, (before, *a, after))) for a in alternatives]
        weights = [probability * weight / total for weight in weights]
        items.append(Choice(where, [*alternatives, ()], [*weights, 1 - probability]))
        return len(after)

    def _reference(self, inner: str, where: str) -> list:
        """Compile `rule`, `rule(arguments)`, `class.form`, `variable=class.form but other` or
        `variable.form`. A form whose name begins with a capital is capitalised."""
        head, _, arguments = inner.partition("(")
        if head in self.rules:
            return self._rule(head, arguments.removesuffix(")"), where)
        match = re.fullmatch(r"(?:(\w+)=)?(\w+)(?:\.(\w+))?(?: but ([\w, ]+))?", inner)
        if not match:
            raise GrammarError(f"{where}: unknown rule '{head}' in '{{{inner}}}'; add it to rules")
        variable, name, form, excluded = match.groups()
        if form is None:
            form = "Text" if name[0].isupper() else "text"
            name = name[0].lower() + name[1:]
        if name in self.classes:
            if variable in self.rules or variable in self.classes:
                raise GrammarError(
                    f"{where}: variable '{variable}' has the name of a rule or class; rename it"
                )
            words = self.classes[name]
            self.used.add(name)
            others = tuple(other.strip() for other in excluded.split(",")) if excluded else ()
            if variable is not None:
                self.drawn.add(variable)
            self._form(words, form, where)
            return [Draw(variable, words, form, others)]
        if variable is not None:
            raise GrammarError(f"{where}: unknown class '{name}' in '{{{inner}}}'; add it")
        return [Refer(name, form)]

    def _rule(self, name: str, arguments: str, where: str) -> list:
        """The items of a rule with its parameters replaced; a single alternative is spliced."""
        parameters, texts, place = self.rules[name]
        values = [value.strip() for value in _split(arguments, ",", len(parameters) - 1)]
        if not parameters and not arguments.strip():
            values = []
        if len(values) != len(parameters):
            raise GrammarError(
                f"{where}: '{name}' is given {len(values)} arguments; "
                f"give {len(parameters)}: {', '.join(parameters)}"
            )
        if name in self.expanding:
            raise GrammarError(
                f"{place}: refers to itself through {' > '.join(self.expanding)}; "
                "stories must end, so break the circle"
            )
        self.used.add(name)
        key = (name, *values)
        if key not in self.compiled:
            given = dict(zip(parameters, values))
            if values:
                place += f"({', '.join(values)})"

            def value(match: re.Match) -> str:
                if match[1] not in given:
                    raise GrammarError(f"{place}: unknown parameter '${match[1]}'; declare it")
                return given[match[1]]

            self.expanding.append(name)
            alternatives, weights = self._alternatives(
                [re.sub(r"\$(\w+)", value, text) for text in texts], place
            )
            self.expanding.pop()
            single = len(alternatives) == 1
            self.compiled[key] = (
                list(alternatives[0]) if single else [Choice(place, alternatives, weights)]
            )
        return self.compiled[key]

    # Global checks.

    def _form(self, words: Words, form: str, where: str) -> None:
        """Ensure that every entry of a class has `form`, deriving it if possible."""
        words.asked.add(form)
        base = form[0].lower() + form[1:]
        for entry in words.entries:
            text = entry.forms["text"]
            if base not in entry.forms:
                if base not in DERIVED:
                    raise GrammarError(
                        f"{where}: '{text}' of class '{words.name}' has no form '{base}'; "
                        "add the column or the bundle"
                    )
                entry.forms[base] = DERIVED[base](text)
            value = entry.forms[base]
            entry.forms.setdefault(form, value[0].upper() + value[1:])

    def _require_all_used(self) -> None:
        for name in (*self.rules, *self.classes):
            if name not in self.used:
                place = self.rules[name][2] if name in self.rules else f"class '{name}'"
                raise GrammarError(f"{place}: unreachable from every plot; use it or remove it")

    def _bind(self, choice: Choice, bound: Bound, seen: dict) -> Bound:
        """Walk every derivation and check that each variable is bound before it is referred to and
        that its classes have the form. Returns the variables that are certainly bound after
        `choice`, each with the classes from which its entry may come."""
        key = (id(choice), frozenset(bound.items()))
        if key in seen:
            return seen[key]
        after = []
        for items in choice.alternatives:
            now = bound
            for item in items:
                if isinstance(item, Choice):
                    now = self._bind(item, now, seen)
                elif isinstance(item, Refer):
                    for words in self._classes_of(item.variable, now, choice):
                        self._form(words, item.form, choice.name)
                elif isinstance(item, Draw):
                    for variable in item.excluded:
                        self._classes_of(variable, now, choice)
                    if item.variable is not None:
                        now = {**now, item.variable: frozenset((item.words,))}
            after.append(now)
        common = set.intersection(*(set(now) for now in after))
        seen[key] = {v: frozenset().union(*(now[v] for now in after)) for v in common}
        return seen[key]

    def _classes_of(self, variable: str, bound: Bound, choice: Choice) -> frozenset[Words]:
        if variable in bound:
            return bound[variable]
        if variable in self.drawn:
            raise GrammarError(
                f"{choice.name}: '{variable}' is used before it is bound; "
                f"draw it first with {{{variable}=CLASS}}"
            )
        raise GrammarError(
            f"{choice.name}: unknown symbol '{variable}'; no rule, class or variable has the "
            "name: define it or mend the spelling"
        )


_PAIRS = {"{": "}", "[": "]", "(": ")"}


def _closing(text: str, start: int, where: str) -> int:
    """The position where the bracket at `start` closes."""
    expected: list[str] = []
    for position in range(start, len(text)):
        character = text[position]
        if character in _PAIRS:
            expected.append(_PAIRS[character])
        elif character in _PAIRS.values():
            if expected.pop() != character:
                break
            if not expected:
                return position
    raise GrammarError(f"{where}: '{text[start : start + 30]}' is not closed; add the bracket")


def _split(text: str, separator: str, most: int = -1) -> list[str]:
    """Split at separators outside brackets, at most `most` times (−1: no limit)."""
    parts: list[str]
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        if character in _PAIRS:
            depth += 1
        elif character in _PAIRS.values():
            depth -= 1
        elif character == separator and depth == 0 and len(parts) != most:
            parts.append(text[start:position])
            start = position + 1
    return [*parts, text[start:]]
