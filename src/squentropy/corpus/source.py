"""What every source of stories hands to build.py."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple


class Story(NamedTuple):
    text: str
    where: str  # for a message: "stories.jsonl, line 3"
    log_prob: float | None = None  # natural logarithm; known for the grammar and a teacher


@dataclass(frozen=True)
class Source:
    """The splits that a source has, and how to come by those that it lacks.

    A split is a function, because it may be read more than once; each reading gives the same
    stories in the same order.
    """

    splits: dict[str, Callable[[], Iterator[Story]]]
    licence: str
    provenance: dict  # for the manifest: what exactly was read
    cut: dict[str, int] = field(default_factory=dict)  # stories to take from train, by split
    seed: int = 0  # of the cut
    hint: Callable[[], str] = lambda: ""  # what else to say where stories are too few
    exact: bool = False  # whether stories carry log_prob
