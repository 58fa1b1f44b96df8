"""Parameters that several commands share, and how commands find their study.

The library is imported when a command runs, because shell completion must not import pydantic or
torch.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from squentropy.cli import completion

if TYPE_CHECKING:
    from squentropy.study.params import Study
    from squentropy.tokens.token_files import TokenFolder

Params = Annotated[
    list[str] | None,
    typer.Option(
        help="The study: its name, file or results folder. Default: params.yaml. Repeatable; each "
        "further file is overlaid on the previous ones.",
        autocompletion=completion.studies,
    ),
]
RunParams = Annotated[
    list[str] | None,
    typer.Option(
        help="The study: its name, file or results folder. Default: the study of the run's folder.",
        autocompletion=completion.studies,
    ),
]
Studies = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[STUDY]...",
        help="Its name, its file or files, or its results folder. Default: the default study.",
        autocompletion=completion.studies,
    ),
]
States = Annotated[Path, typer.Option(help="Folder of the states of unfinished runs.")]
DEFAULT_STATES = Path("state")
Runs = Annotated[list[Path], typer.Argument(help="Run folders.", autocompletion=completion.runs)]
Run = Annotated[Path, typer.Argument(help="A run folder.", autocompletion=completion.runs)]
Results = Annotated[
    Path,
    typer.Argument(
        help="A study's results folder, or its name.", autocompletion=completion.results
    ),
]
Tokens = Annotated[Path, typer.Option(help="Folder of token files.")]
RunTokens = Annotated[
    Path | None, typer.Option(help="Folder of token files. Default: that of the run's study.")
]
Data = Annotated[Path, typer.Option(help="Folder with corpus/ and tokens/.")]


def load(words: Sequence[str] | None) -> "Study":
    """The named study, or the default one."""
    from squentropy.study.find import find

    return find(*(words or []))[0]


def study_of(run: Path, words: Sequence[str] | None) -> "Study":
    """The named study, or that of a run's folder."""
    if words:
        return load(words)

    from squentropy.runs.records import read_run
    from squentropy.study.find import study_of

    return study_of(run, read_run(run) if (run / "run.json").exists() else None)


def results_of(given: Path) -> Path:
    """A results folder, given by its path or by the study's name."""
    if given.exists() or len(given.parts) > 1:
        return given

    from squentropy.study.find import find

    return find(given)[1].results


def tokens_of(run: Path, given: Path | None, study: "Study") -> "TokenFolder":
    """The token files given, or those of the run's study."""
    from squentropy.runs.records import read_run
    from squentropy.study.find import data_of
    from squentropy.tokens.token_files import TokenFolder

    return TokenFolder.open(given or data_of(run, read_run(run), study) / "tokens")
