"""The studies of a folder, by what lies in it: found in a moment, without pydantic.

params.yaml            the default study
studies/*.yaml         others, each laid over it
results/*/params.yaml  those that have results
"""

from pathlib import Path


def names() -> list[str]:
    """Of those with results, and of the files in studies/."""
    run = [Path(folder).name for folder in folders()]
    return sorted({*run, *(Path(path).stem for path in files()[1:])})


def files() -> list[str]:
    """params.yaml, and what is to be laid over it."""
    found = sorted(path.as_posix() for path in Path("studies").glob("*.yaml"))
    return ["params.yaml", *(path for path in found if path != "studies/dvc.yaml")]  # DVC's


def folders() -> list[str]:
    """Of results."""
    return sorted(path.parent.as_posix() for path in Path("results").glob("*/params.yaml"))
