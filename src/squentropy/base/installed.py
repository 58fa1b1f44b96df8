"""What is installed: whether it is this folder's own package, and what only some studies need."""

import warnings
from importlib.util import find_spec
from pathlib import Path

from squentropy.base import errors
from squentropy.base.errors import SquentropyError

EXTRAS = {"dvc": "dvc", "datasets": "hub", "huggingface_hub": "hub"}
"""The extra that brings a package, where it is not `pipeline`; a target of make has its name."""


class ForeignPackage(SquentropyError):
    """The package that is imported is not that of the clone in which it would work."""

    exit_code = errors.USAGE


def check_own(folder: Path) -> None:
    """Raises ForeignPackage if the clone that a folder is of, if any, is not this package's own.

    So it is in a copy of a clone together with its .venv, which belongs to the original still, with
    a PYTHONPATH that names another clone, and after `pip install .`, which leaves a copy: they
    would train with other code than they show.
    """
    for clone in (folder, *folder.parents):
        package = clone / "src" / "squentropy"
        if (clone / "Snakefile").is_file() and (package / "__init__.py").is_file():
            mine = Path(__file__).resolve().parents[1]
            if mine != package.resolve():
                copied = mine.parent.name in ("site-packages", "dist-packages")
                fix = "unset PYTHONPATH, or `make clean` and `make install`, and run this again"
                if copied:
                    editable = "pip install --no-deps --no-build-isolation --editable ."
                    fix = f"`{editable}` puts this clone's in its place"
                raise ForeignPackage(
                    f"{clone}: the package that is imported is not this clone's but {mine}; {fix}"
                )
            return


def warn_of_another() -> None:
    """Warn where the working folder is of a clone whose package is not the one that is imported.

    For the library, which works all the same; a loss that is added to the clone is not in it.
    """
    try:
        check_own(Path.cwd())
    except ForeignPackage as foreign:
        warnings.warn(str(foreign), stacklevel=3)


def check(module: str) -> None:
    """Raises SquentropyError, with what brings it, where a module is not installed."""
    if find_spec(module) is None:
        raise SquentropyError(missing(module))


def missing(module: str) -> str:
    """That a module is not installed, and the command that brings it."""
    extra = EXTRAS.get(module.partition(".")[0])
    if extra is None:
        fix = "`pip install 'squentropy[pipeline]'` brings what the study needs"
    else:
        fix = f"`make {extra}` brings it, or `pip install 'squentropy[{extra}]'`"
    return f"{module}: is not installed; {fix}"
