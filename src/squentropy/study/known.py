"""The studies in the working folder, found quickly, without pydantic.

params.yaml            the default study
studies/*.yaml         other studies, each overlaid on it
results/*/params.yaml  studies with results
"""

from pathlib import Path


def names() -> list[str]:
    """The names of the studies with results and of the files in studies/."""
    run = [Path(folder).name for folder in folders()]
    return sorted({*run, *(Path(path).stem for path in files()[1:])})


def files() -> list[str]:
    """params.yaml and its overlays in studies/."""
    found = sorted(path.as_posix() for path in Path("studies").glob("*.yaml"))
    return ["params.yaml", *(path for path in found if path != "studies/dvc.yaml")]  # DVC's


def folders() -> list[str]:
    """The folders of results."""
    return sorted(path.parent.as_posix() for path in Path("results").glob("*/params.yaml"))
