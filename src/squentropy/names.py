"""Names of a study's parts, known without importing pydantic or torch: for the shell's tab, too."""

import ast
import functools
from pathlib import Path

SPLITS = ("train", "validation", "test")
PHASES = ("sweep", "refine", "lengths", "final", "reported")


@functools.cache
def known_losses() -> tuple[str, ...]:
    """Names of the functions marked `@loss` in losses.py.

    Read from the source, because importing it imports torch, and that alone takes a second of
    the three in which Snakemake should know that nothing is to be done.
    """
    tree = ast.parse(Path(__file__).with_name("losses.py").read_text(encoding="utf-8"))
    return tuple(
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any(isinstance(d, ast.Name) and d.id == "loss" for d in node.decorator_list)
    )
