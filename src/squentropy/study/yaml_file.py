"""A file of parameters, read so that it says what it seems to say.

YAML 1.1 takes the last of two keys of one name, 0150 for 104, and 1:30 for 90. Such a line is an
error here. So is a file that is long, or would be with its aliases written out, as a few lines can
stand for more than any memory holds.
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
"""Numbers as a reader takes them; YAML has others, by rules that few know."""


class _Loader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: dict[str, int] = {}
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen and key.value != "<<":
                first = seen[key.value]
                said = f"the key {key.value!r} stands here and in line {first}; write it once"
                raise yaml.MarkedYAMLError(problem=said, problem_mark=key.start_mark)
            seen[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        read = super().construct_object(node, deep)
        number = isinstance(read, int | float) and not isinstance(read, bool)
        if number and not _PLAIN.fullmatch(node.value):
            said = f"{node.value} is {read} to YAML; write that, or text in quotes"
            raise yaml.MarkedYAMLError(problem=said, problem_mark=node.start_mark)
        return read


def clone_wanted() -> str:
    """What else there is to say where something is missing: that this folder is no clone."""
    here = Path("params.yaml").is_file()
    return "" if here else "; this is no clone of the repository, so go to the folder of one"


def read(path: str | Path) -> dict[str, Any]:
    """The keys of a file of parameters. Raises ParameterError with the file, line and fix."""
    try:
        with storage.plain(path).open("rb") as file:
            data = file.read(MOST_BYTES + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise ParameterError(f"{path}: cannot be read: {error.strerror}{clone_wanted()}") from None
    except SquentropyError as error:  # it is no plain file
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
            f"{path}, line {number}: holds the line end U+{ord(hidden[0]):04X}, which looks like "
            "none; begin a new line, or write it as \\u in quotes"
        )
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None and _length(node, {}) > MOST_BYTES:
            raise ParameterError(
                f"{path}: is longer than {MOST_BYTES:,} bytes with its aliases (*name) written "
                "out, too long for parameters"
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
        raise ParameterError(f"{path}: holds no keys; a study starts with 'study: NAME'")
    return values


def _length(node: yaml.Node, known: dict[int, float]) -> float:
    """Of a node with its aliases written out; infinite where it holds itself."""
    if isinstance(node, yaml.ScalarNode):
        return 1 + len(node.value)
    if id(node) not in known:
        known[id(node)] = math.inf  # while its parts are counted
        pairs = isinstance(node, yaml.MappingNode)
        parts = [part for pair in node.value for part in pair] if pairs else node.value
        known[id(node)] = 1 + sum(_length(part, known) for part in parts)
    return known[id(node)]
