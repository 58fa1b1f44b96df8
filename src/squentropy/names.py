"""Names of a study's parts, known without importing pydantic or torch: for the shell's tab, too."""

import ast
import functools
from dataclasses import dataclass
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
    ) + ("spherical",)


# --- a stand-in until the catalogue of losses is merged: only its interface is meant to stay --------


@dataclass(frozen=True)
class LossInfo:
    name: str
    function: str
    arguments: tuple[float, ...]
    label: str
    formula: str
    source: str
    squared: bool
    link: bool


def loss_info(name: str) -> LossInfo:
    function, _, given = name.removesuffix(")").partition("(")
    arguments = tuple(float(value) for value in given.split(",")) if given else ()
    pretty = {
        "cross_entropy": "cross entropy", "mse": "MSE", "mse_weighted": "weighted MSE",
        "squentropy_weighted": "weighted squentropy", "z_loss": "z-loss", "brier": "Brier",
    }.get(function, function.replace("_", " "))  # fmt: skip
    if arguments:
        pretty += f" ({given})"
    return LossInfo(
        name, function, arguments, pretty, "−log <i>p</i><sub>y</sub>", "",
        squared=function.startswith(("mse", "squentropy", "brier")),
        link=function.startswith(("mse", "spherical", "taylor")),
    )  # fmt: skip


def label(name: str) -> str:
    return loss_info(name).label


def slug(name: str) -> str:
    return name.replace("(", "-").replace(")", "").replace(",", "-")


def name_of_slug(slug: str) -> str:
    function, *arguments = slug.split("-")
    return f"{function}({','.join(arguments)})" if arguments else function
