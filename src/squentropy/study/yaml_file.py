"""Read a file of parameters, rejecting YAML that does not mean what it seems to mean.

YAML 1.1 uses the last of two equal keys, and reads 0150 as 104 and 1:30 as 90. Here, such a line is
an error. So is a file that is too long, before or after its aliases are expanded: a few lines of
aliases can expand to more than fits into memory.
"""

import math
import re
from pathlib import Path
from typing import Any

import yaml

from squentropy.base import storage
from squentropy.base.errors import ParameterError, SquentropyError
from squentropy.study.parameter_errors import one_line

MOST_BYTES = 100_000  # read in two seconds; params.yaml has 9,000
_PLAIN = re.compile(
    r"[-+]?((0|[1-9][0-9]*)(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?\.(inf|nan)", re.I
)
"""Numbers that YAML reads as expected; it has other notations that few know."""


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen and key.value != "<<":
                first = seen[key.value]
                said = f"the key {key.value!r} is also in line {first}; write it once"
                raise yaml.MarkedYAMLError(problem=said, problem_mark=key.start_mark)
            seen[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        read = super().construct_object(node, deep)
        number = isinstance(read, int | float) and not isinstance(read, bool)
        if number and not _PLAIN.fullmatch(node.value):
            said = f"YAML reads {node.value} as {read}; write that, or text in quotes"
            raise yaml.MarkedYAMLError(problem=said, problem_mark=node.start_mark)
        return read


def clone_wanted() -> str:
    """A hint for errors about missing files, if the working folder is not a clone."""
    here = Path("params.yaml").is_file()
    return "" if here else "; this folder is not a clone of the repository; go to one"


def read(path: str | Path) -> dict[str, Any]:
    """The contents of a file of parameters. Raises ParameterError with the file, line and fix."""
    try:
        with storage.plain(path).open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise ParameterError(f"{path}: cannot be read: {error.strerror}{clone_wanted()}") from None
    except SquentropyError as error:  # not a regular file
        raise ParameterError(str(error)) from None
    except UnicodeDecodeError as error:
        raise ParameterError(f"{path}: is not UTF-8 at byte {error.start}") from None
    if len(data) > MOST_BYTES:
        raise ParameterError(
            f"{path}: is longer than {MOST_BYTES:,} bytes, too long for parameters"
        )
    if hidden := re.search("[\x85\u2028\u2029]", text):
        number = text.count("\n", 0, hidden.start()) + 1
        raise ParameterError(
            f"{path}, line {number}: contains the invisible line break U+{ord(hidden[0]):04X}; "
            "start a new line, or write it as \\u in quotes"
        )
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None and _length(node, {}) > MOST_BYTES:
            raise ParameterError(
                f"{path}: is longer than {MOST_BYTES:,} bytes with its aliases (*name) expanded, "
                "too long for parameters"
            )
        values = node and loader.construct_document(node)
    except ParameterError:
        raise
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f", line {where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        kind = (
            ""
            if isinstance(error, yaml.MarkedYAMLError) and error.context is None
            else "is not YAML: "
        )
        raise ParameterError(f"{path}{line}: {kind}{one_line(problem)}") from None
    except Exception as error:  # PyYAML's own, for values such as 2020-13-45 or !!int x
        raise ParameterError(f"{path}: is not YAML: {one_line(str(error))}") from None
    if not isinstance(values, dict):
        raise ParameterError(f"{path}: has no keys; a study starts with 'study: NAME'")
    return values


def _length(node: yaml.Node, known: dict[int, float]) -> float:
    """The length of a node with its aliases expanded; infinite if it contains itself."""
    if isinstance(node, yaml.ScalarNode):
        return 1 + len(node.value)
    if id(node) not in known:
        known[id(node)] = math.inf  # while its parts are being counted
        pairs = isinstance(node, yaml.MappingNode)
        parts = [part for pair in node.value for part in pair] if pairs else node.value
        known[id(node)] = 1 + sum(_length(part, known) for part in parts)
    return known[id(node)]
