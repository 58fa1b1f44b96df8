"""Errors in parameters, each as one line that names the key, the value and the fix."""

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from pydantic import BaseModel

from squentropy.base.output import one_line as one_line

_FIXES = {
    "invalid_key": "is under a key that is not text; write the key in quotes",
    "too_short": "is empty; give at least one value",
    "list_type": "is not a list; write its values in brackets, as [a, b]",
    "string_type": "is not text; write it in quotes",
    "bool_type": "is neither true nor false",
    "string_pattern_mismatch": "may contain only letters, digits, '_' and '-'",
}


def explain(problem: Mapping[str, Any], root: type[BaseModel]) -> str:
    """One line for one of pydantic's errors about `root`: the key, the value, the fix."""
    location, given, kind = problem["loc"], problem["input"], problem["type"]
    key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in location).lstrip(".")
    key = one_line(key)
    if kind == "extra_forbidden":
        siblings = _keys_at(root, location[:-1])
        close = difflib.get_close_matches(str(location[-1]), siblings, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(siblings)}"
        return f"{key}: unknown key; {hint}"
    if kind == "missing":
        return f"{key}: is missing; params.yaml shows it with its unit"
    if kind == "model_type":
        return (
            f"{key} = {_shown(given)}: is not a section; give {', '.join(_keys_at(root, location))}"
        )
    if kind == "value_error":
        said = str(problem["ctx"]["error"])
    elif kind in ("float_type", "int_type") and isinstance(given, str):
        said = _number_in(given)
    else:
        said = _FIXES.get(kind, problem["msg"].replace("Input should be", "should be"))
    return f"{key}: {said}" if isinstance(given, dict) else f"{key} = {_shown(given)}: {said}"


def _number_in(text: str) -> str:
    """What to write instead of a text where a number is expected."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        return "is text; write a number"
    plain = int(number) if number.is_integer() else format(Decimal(repr(number)), "f")
    return f"YAML reads this as text; write {plain}"


def _shown(value: Any) -> str:
    """The beginning of a value as JSON, without encoding all of a long one."""
    text = ""
    try:
        for piece in json.JSONEncoder(default=str, ensure_ascii=False).iterencode(value):
            text += one_line(piece[:61])
            if len(text) > 60:
                return text[:57] + "..."
    except (TypeError, ValueError):  # keys that JSON lacks, a cycle, an overlong integer
        return f"a {type(value).__name__}"
    return text


def _keys_at(root: type[BaseModel], location: Sequence[str]) -> list[str]:
    """The keys of the section of `root` at a location such as ['corpus', 'hub']."""
    section: Any = root
    for part in location:
        annotation = section.model_fields[part].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        section = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
    return list(section.model_fields)
