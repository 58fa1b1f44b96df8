"""Shell completion: names that are found quickly, without importing pydantic or torch.

    squentropy --install-completion      once; detects the shell
    squentropy --show-completion         prints the script, for manual installation

Each function returns the completions of what was typed. If there are none, the shell offers files.
"""

from collections.abc import Iterable
from pathlib import Path

from squentropy.study import catalogue, known
from squentropy.study.layout import any_run


def losses(typed: str) -> list[str]:
    return _from(typed, catalogue.known_losses())


def phases(typed: str) -> list[str]:
    return _from(typed, catalogue.PHASES)


def splits(typed: str) -> list[str]:
    return _from(typed, catalogue.SPLITS)


def studies(typed: str) -> list[str]:
    """Names of studies; if none matches, study files and results folders."""
    return _from(typed, known.names()) or [
        *_from(typed, [path for path in known.files() if Path(path).is_file()]),
        *results(typed),
    ]


def runs(typed: str) -> list[str]:
    """Final and reported runs of all studies; the other phases have too many to choose from."""
    return _from(typed, [*_paths(any_run("final")), *_paths(any_run("reported"))])


def results(typed: str) -> list[str]:
    return _from(typed, known.folders())


def _paths(pattern: str) -> list[str]:
    return sorted(path.as_posix() for path in Path().glob(pattern))


def _from(typed: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(typed)]
