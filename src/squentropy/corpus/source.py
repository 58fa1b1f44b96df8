"""The interface between sources of stories and build.py."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple


class Story(NamedTuple):
    text: str
    where: str  # for error messages: "stories.jsonl, line 3"
    log_prob: float | None = None  # natural log; known for the grammar and a teacher


@dataclass(frozen=True)
class Source:
    """The splits of a source, and how to cut missing ones from train.

    A split is a function, because it may be read more than once; each call yields the same stories
    in the same order.
    """

    splits: dict[str, Callable[[], Iterator[Story]]]
    licence: str
    provenance: dict  # for the manifest: what exactly was read
    cut: dict[str, int] = field(default_factory=dict)  # stories to take from train, by split
    seed: int = 0  # of the cut
    hint: Callable[[], str] = lambda: ""  # added to the error if there are too few stories
    exact: bool = False  # whether stories carry log_prob
