"""What the shell offers after a tab: names that are found in a moment, without pydantic or torch.

    squentropy --install-completion      once; it finds out which shell this is
    squentropy --show-completion         the script, to be installed by hand

Each function returns the words that go on from what was typed. Where it returns none the shell
offers files.
"""

from collections.abc import Iterable
from pathlib import Path

from squentropy import catalogue


def losses(typed: str) -> list[str]:
    return _from(typed, catalogue.known_losses())


def phases(typed: str) -> list[str]:
    return _from(typed, catalogue.PHASES)


def splits(typed: str) -> list[str]:
    return _from(typed, catalogue.SPLITS)


def overlays(typed: str) -> list[str]:
    """Files to be laid over params.yaml."""
    return _from(typed, _paths("studies/*.yaml"))


def parameters(typed: str) -> list[str]:
    return _from(typed, [*_paths("params.yaml"), *_paths("studies/*.yaml")])


def runs(typed: str) -> list[str]:
    """Run folders of all studies, but those of the grid, which are too many to choose from."""
    return _from(
        typed, [*_paths("checkpoints/*/final/*/seed*"), *_paths("checkpoints/*/reported/*/seed*")]
    )


def results(typed: str) -> list[str]:
    return _from(
        typed, [path.removesuffix("/params.yaml") for path in _paths("results/*/params.yaml")]
    )


def studies(typed: str = "") -> list[str]:
    """Names of studies: of those with results, and of the files in studies/."""
    run = [path.split("/")[1] for path in _paths("results/*/params.yaml")]
    files = [Path(path).stem for path in _paths("studies/*.yaml")]
    return _from(typed, sorted({*run, *files}))


def _paths(pattern: str) -> list[str]:
    found = sorted(path.as_posix() for path in Path().glob(pattern))
    return [path for path in found if path != "studies/dvc.yaml"]  # DVC's, no study


def _from(typed: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(typed)]
