"""Names of a study's parts, without importing pydantic or torch; also used by shell completion.

A loss is named by a function of losses.py, with or without arguments: `squentropy(0.1)`. Each loss
has one canonical name, which omits default arguments, and a slug for folder names:
`squentropy-0.1`.

Information about a loss is read from the source of losses.py. Importing it would import torch,
which takes one of the three seconds in which Snakemake should find that nothing needs to be done.
"""

import ast
import functools
import html
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from squentropy.base import storage

SPLITS = ("train", "validation", "test")
PHASES = ("sweep", "refine", "lengths", "final", "reported")


@dataclass(frozen=True)
class Squares:
    """Cross entropy plus factor/(C - less) (sum_{j != y} f_j^2 + true_weight (f_y - 1)^2).

    The optimum of such a loss is known; factor and true_weight are non-negative.
    """

    factor: float
    true_weight: float
    less: float


@dataclass(frozen=True)
class LossInfo:
    """The description of a loss in losses.py; see `loss` there."""

    name: str
    function: str
    arguments: dict[str, float]
    """By name, including defaults."""
    label: str
    formula: str
    """HTML; by default the first line of the docstring."""
    source: str
    """HTML."""
    squared: bool
    link: bool
    """Whether its outputs become probabilities by its own link instead of a softmax."""
    squares: Squares | None


@functools.cache
def known_losses() -> tuple[str, ...]:
    """The names of the functions marked `@loss` in losses.py."""
    return tuple(_functions())


@functools.cache
def loss_info(name: str) -> LossInfo:
    """The description of a loss, by any spelling of its name. Raises ValueError with the fix."""
    function, values = parse(name)
    node = _function(function)
    arguments = bind(function, _defaults(node), values)
    shown = [_text(value) for value in _given(arguments, _defaults(node))]
    said = _declared(node)

    def in_full(text: str) -> str:
        for argument, value in arguments.items():
            text = text.replace(f"{{{argument}}}", _text(value))
        return text

    label = said.get("label") or function.replace("_", " ")
    return LossInfo(
        name=f"{function}({', '.join(shown)})" if shown else function,
        function=function,
        arguments=arguments,
        label=f"{label} ({', '.join(shown)})" if shown else label,
        formula=in_full(said.get("formula") or html.escape(_summary(node))),
        source=said.get("source", ""),
        squared=said.get("squared", False),
        link="link" in _keywords(node),
        squares=_squares(said.get("squares"), arguments),
    )


def label(name: str) -> str:
    """A loss's display name; for an unknown loss, the name with spaces for underscores."""
    try:
        return loss_info(name).label
    except ValueError:
        return name.replace("_", " ")


def slug(name: str) -> str:
    """The folder name of a loss: squentropy-0.1 for squentropy(0.1)."""
    name = loss_info(name).name.replace("/", "+")
    return name.replace("(", "-").replace(", ", ",").removesuffix(")")


def name_of_slug(slug: str) -> str:
    """The canonical name of a loss, from its slug or name."""
    function, dash, arguments = slug.partition("-")
    if "(" in function:
        return loss_info(slug).name
    function = function.replace("+", "/")
    return loss_info(f"{function}({arguments})" if dash else function).name


def function_of(name: str) -> str:
    """The function in a loss's name or slug, whether or not it exists."""
    return re.split(r"[(-]", name, maxsplit=1)[0].replace("+", "/")


def file_of(function: str) -> tuple[str, str] | None:
    """(file, function) of a loss in a user's file, as my_losses.py:smooth; None for others."""
    file, colon, name = function.rpartition(":")
    return (file, name) if colon else None


def unknown(name: str, known: Iterable[str]) -> str:
    """The message for an unknown loss."""
    import difflib

    known = list(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"no such loss; {hint}there are: {', '.join(known)}"


# --- names with arguments -----------------------------------------------------------------------

_NAME = re.compile(r"(?P<function>[^()\s]+)(?:\((?P<arguments>[^()]*)\))?")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def parse(name: str) -> tuple[str, list[float]]:
    """(function, arguments) of a loss's name. Raises ValueError with the fix."""
    match = _NAME.fullmatch(name.strip())
    if match is None:
        raise ValueError("is not a valid loss name; write it as squentropy or squentropy(0.1)")
    function, arguments = match["function"], match["arguments"]
    if arguments is None or not arguments.strip():
        return function, []
    return function, [_number(text.strip(), function) for text in arguments.split(",")]


def _number(text: str, function: str) -> float:
    value = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is not a finite number; write it as {function}(0.1)")
    return value


def bind(
    function: str, defaults: dict[str, float | None], values: Sequence[float]
) -> dict[str, float]:
    """All arguments of a loss, by name. Raises ValueError with the fix.

    defaults  by argument, in order; None for a required argument
    """
    needed = sum(default is None for default in defaults.values())
    if not needed <= len(values) <= len(defaults):
        example = f"{function}({', '.join(defaults)})" if defaults else function
        raise ValueError(
            f"{len(values)} arguments do not fit; write numbers as in {example}"
            if defaults
            else f"takes no argument; write {example}"
        )
    given = {**defaults, **dict(zip(defaults, values))}
    return {name: float(value) for name, value in given.items() if value is not None}


def _given(arguments: dict[str, float], defaults: dict[str, float | None]) -> list[float]:
    """The arguments that the canonical name includes: up to the last that is not the default."""
    differing = [arguments[name] != default for name, default in defaults.items()]
    many = max((i + 1 for i, differs in enumerate(differing) if differs), default=0)
    return list(arguments.values())[:many]


def _text(value: float) -> str:
    """The canonical spelling of a number: 65, 0.1, 0.0001; 1e-12 if very small or large."""
    if value == int(value) and abs(value) < 1e15:
        return str(int(value))
    text = repr(value)
    if "e-" not in text or abs(value) < 1e-9:
        return text
    return format(Decimal(text), "f")


# --- the source of losses.py --------------------------------------------------------------------


def decorator(node: ast.AST) -> ast.expr | None:
    """The `@loss` or `@loss(...)` of a function; None for any other node."""
    for found in getattr(node, "decorator_list", []):
        called = found.func if isinstance(found, ast.Call) else found
        if isinstance(node, ast.FunctionDef) and getattr(called, "id", None) == "loss":
            return found
    return None


@functools.cache
def _functions() -> dict[str, ast.FunctionDef]:
    tree = ast.parse(Path(__file__).parents[1].joinpath("losses.py").read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {node.name: node for node in functions if decorator(node) is not None}


def _function(function: str) -> ast.FunctionDef:
    """The definition of a loss. Raises ValueError with the fix if there is none."""
    own = file_of(function)
    if own is None:
        if function not in _functions():
            raise ValueError(unknown(function, known_losses()))
        return _functions()[function]
    file, name = own
    if re.search(r"[-+\s]", file) or not file.endswith(".py"):
        raise ValueError(
            f"{file} is not a valid name for a file of losses; write it as my_losses.py:{name}"
        )
    try:
        tree = ast.parse(storage.plain(file).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from None
    found = [node for node in tree.body if decorator(node) is not None]
    for node in found:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    raise ValueError(f"{file} has no function {name} marked @loss; add it")


def _keywords(node: ast.FunctionDef) -> dict[str, ast.expr]:
    found = decorator(node)
    keywords = found.keywords if isinstance(found, ast.Call) else []
    return {k.arg: k.value for k in keywords if k.arg is not None}


def _declared(node: ast.FunctionDef) -> dict[str, Any]:
    """The literal arguments of the decorator, all but `link`."""
    said = {}
    for key, value in _keywords(node).items():
        if key != "link":
            try:
                said[key] = ast.literal_eval(value)
            except ValueError:
                raise ValueError(
                    f"losses.py: {key} of {node.name} is not a literal; write one in @loss(...)"
                ) from None
    return said


def _defaults(node: ast.FunctionDef) -> dict[str, float | None]:
    """The arguments after hidden, weight and targets, with their defaults."""
    arguments = [*node.args.posonlyargs, *node.args.args]
    defaults = [None] * (len(arguments) - len(node.args.defaults)) + node.args.defaults
    try:
        return {
            argument.arg: None if default is None else float(ast.literal_eval(default))
            for argument, default in list(zip(arguments, defaults))[3:]
        }
    except (TypeError, ValueError):
        raise ValueError(
            f"losses.py: an argument of {node.name} has a default that is not a number; write one"
        ) from None


def _squares(said: dict[str, Any] | None, arguments: dict[str, float]) -> Squares | None:
    """The declared squares of a loss, with its arguments inserted; None if no optimum exists."""
    if said is None:
        return None
    values = {key: arguments.get(value, value) for key, value in said.items()}
    return Squares(**values) if min(values.values()) >= 0 else None


def _summary(node: ast.FunctionDef) -> str:
    return (ast.get_docstring(node) or "–").splitlines()[0]
