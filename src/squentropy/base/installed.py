"""Checks of the installation: the package belongs to this clone; optional packages are there."""

import warnings
from importlib.util import find_spec
from pathlib import Path

from squentropy.base import errors
from squentropy.base.errors import SquentropyError

EXTRAS = {"dvc": "dvc", "datasets": "hub", "huggingface_hub": "hub"}
"""The extra that installs a package, if not `pipeline`; a make target has the same name."""


class ForeignPackage(SquentropyError):
    """The imported package does not belong to the clone in which it is used."""

    exit_code = errors.USAGE


def check_own(folder: Path) -> None:
    """Raises ForeignPackage if `folder` is in a clone whose package is not the imported one.

    This happens if a clone is copied with its .venv, which still points to the original; if
    PYTHONPATH names another clone; and after `pip install .`, which installs a copy. Training would
    then run other code than the clone contains.
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
                    fix = f"`{editable}` replaces it with this clone's"
                raise ForeignPackage(
                    f"{clone}: the imported package is not this clone's but {mine}; {fix}"
                )
            return


def warn_of_another() -> None:
    """Warn if the working folder is in a clone whose package is not the imported one.

    For the library, which works anyway but lacks losses that were added to the clone.
    """
    try:
        check_own(Path.cwd())
    except ForeignPackage as foreign:
        warnings.warn(str(foreign), stacklevel=3)


def check(module: str) -> None:
    """Raises SquentropyError, with the install command, if a module is not installed."""
    if find_spec(module) is None:
        raise SquentropyError(missing(module))


def missing(module: str) -> str:
    """The message for a module that is not installed, with the command that installs it."""
    extra = EXTRAS.get(module.partition(".")[0])
    if extra is None:
        fix = "`pip install 'squentropy[pipeline]'` installs what the study needs"
    else:
        fix = f"`make {extra}` installs it, or `pip install 'squentropy[{extra}]'`"
    return f"{module}: is not installed; {fix}"
