"""Find the study that a command names, and its folders.

A study is named by

    smoke                           its name: that of params.yaml or studies/NAME.yaml, as they are
                                    now; without such a file, the parameters in results/NAME
    studies/smoke.yaml              its file, overlaid on params.yaml unless complete; or several
    results/smoke                   its folder of results, with the parameters that produced them
    checkpoints/smoke/final/...     one of its runs, if a run is expected
"""

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from squentropy.base.errors import ParameterError, SquentropyError
from squentropy.base.kinds import RunRecord
from squentropy.study import known
from squentropy.study.grid import Cell
from squentropy.study.layout import Places
from squentropy.study.overlays import differences
from squentropy.study.params import Study, load
from squentropy.study.yaml_file import clone_wanted, read

DEFAULT = Path("params.yaml")


def find(*words: str | Path) -> tuple[Study, Places]:
    """The study of this name, these files or this folder of results; by default, params.yaml's.

    Raises SquentropyError if there is no such study.
    """
    files: list[Path] = []
    results = None
    for word in words or [DEFAULT]:
        results = _results(Path(word)) if len(words) == 1 else None
        files += [Path(word)] if _is_file(word) else _files(str(word))
    if not _is_whole(files[0]) and DEFAULT.is_file():
        files.insert(0, DEFAULT)
    study = load(files)
    return study, Places(results or Path("results", study.study))


def overlays(words: Iterable[str | Path]) -> list[Path]:
    """The files to overlay on params.yaml to obtain a study; empty for the default study.

    For commands that run Snakemake, which takes a study's files.
    """
    found: list[Path] = []
    for word in words:
        if _is_file(word):
            found += [Path(word)] if Path(word) != DEFAULT else []
        else:
            study, _ = find(word)
            named = _named(study.study)
            if named is None:
                raise SquentropyError(
                    f"{word}: has no file in studies/; name the files to overlay on {DEFAULT}"
                )
            found += named[1:]
    return found


def study_of(folder: Path, run: RunRecord | None) -> Study:
    """The study of a run in checkpoints/STUDY, with the parameters that trained the run.

    Looks for them in results/STUDY, the study's file and params.yaml. If none of these fit, or if
    `run` is None, returns the first one found. For a run elsewhere, only params.yaml is read.
    """
    first = None
    for files in filter(None, _candidates(folder.resolve())):
        with contextlib.suppress(ParameterError):  # another candidate may fit the run
            study = load(files)
            first = first or study
            if run is None or _fits(study, run):
                return study
    return first or load([DEFAULT])


def _fits(study: Study, run: RunRecord) -> bool:
    cell = run["cell"]
    return not differences(run["params"], study.training_keys(cell["phase"], cell["iterations"]))


def _candidates(folder: Path) -> Iterator[list[Path]]:
    """The files that may contain the parameters of a run's study."""
    for parent in folder.parents:
        if parent.name == "checkpoints":
            root, name = parent.parent, folder.relative_to(parent).parts[0]
            yield [root / "results" / name / DEFAULT]
            with contextlib.suppress(ParameterError):
                yield _named(name, root) or []
    yield [DEFAULT]


def _files(what: str) -> list[Path]:
    """The files of a study that is given by its name or a folder."""
    if (folder := _results(Path(what))) is not None:
        return [folder / DEFAULT]
    if (named := _named(what)) is not None:
        return named
    if (folder := _results(Path("results", what))) is not None:
        return [folder / DEFAULT]
    if Path(what).is_dir():
        raise SquentropyError(f"{what}: contains no results (manifest.json); name results/STUDY")
    there = ", ".join(known.names()) or "none"
    raise SquentropyError(f"{what}: no such study; there are: {there}{clone_wanted()}")


def _named(name: str, root: Path = Path()) -> list[Path] | None:
    """The files of the study of this name, params.yaml first; None if no file has it."""
    for files in ([root / DEFAULT], [root / DEFAULT, root / "studies" / f"{name}.yaml"]):
        if all(path.is_file() for path in files) and load(files).study == name:
            return files
    return None


def _results(folder: Path) -> Path | None:
    """This folder, with its parent's name, if it is a folder of results; otherwise None."""
    place = folder if len(folder.parts) > 1 else folder.resolve()
    is_results = (folder / "manifest.json").is_file() or place.parent.name == "results"
    return place if is_results and (folder / DEFAULT).is_file() else None


def _is_file(word: str | Path) -> bool:
    path = Path(word)
    return path.suffix in (".yaml", ".yml") or (path.exists() and not path.is_dir())


def _is_whole(path: Path) -> bool:
    """Whether a file defines a complete study; True if unreadable, which `load` reports."""
    try:
        values = read(path)
    except SquentropyError:
        return True
    required = {key for key, field in Study.model_fields.items() if field.is_required()}
    return required <= values.keys()


def data_of(folder: Path, run: RunRecord, study: Study) -> Path:
    """data/STUDY beside checkpoints/STUDY if the run is in that folder, otherwise that of `study`.

    Whether the tokens there are those of the run is checked by records.check_tokens.
    """
    name, here = Path(Cell(**run["cell"]).name), folder.resolve()
    if here.parts[-len(name.parts) :] == name.parts:
        checkpoints = here.parents[len(name.parts) - 1]
        data = checkpoints.parents[1] / "data" / checkpoints.name
        if data.is_dir():
            return data
    return Path("data", study.study)
