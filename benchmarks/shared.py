"""Shared by the benchmark programs: the line about the machine, tables, rounds, nanoGPT."""

import importlib.util
import os
import platform
import statistics
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

ROUNDS = 5


def machine(threads: int | str) -> str:
    """Processor and versions, for a line before the tables.

    The load is the average of the last minute, so it shows other work; it should be near 0.
    """
    return (
        f"{processor()}; Python {platform.python_version()}, torch {version('torch')}, "
        f"threads: {threads}, load before: {os.getloadavg()[0]:.1f}\n"
    )


def versions() -> dict[str, str]:
    """The processor and the versions behind a table of measurements."""
    python = platform.python_version()
    return {"processor": processor(), "python": python, "torch": version("torch")}


def processor() -> str:
    """The processor's name according to Linux."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a Markdown table."""
    for row in (head, ["---"] * len(head), *rows):
        print(f"| {' | '.join(row)} |", flush=True)
    print()


def alternate(
    contestants: Mapping[Hashable, Callable[[], float]], rounds: int
) -> dict[Hashable, float]:
    """The median of each contestant's values; they take turns, and the first round is ignored."""
    values: dict[Hashable, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            value = run()
            if turn > 0:
                values[name].append(value)
    return {name: statistics.median(of) for name, of in values.items()}


def nanogpt_model(path: Path) -> ModuleType:
    """Import model.py from a checkout of karpathy/nanoGPT."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", path / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
