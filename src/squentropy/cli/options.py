"""What several commands take, and how they find the study that is meant.

The library is imported when a command runs: the shell's completion does without pydantic and torch.
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
        help="The study: its name, file or folder of results, else params.yaml; give it again for "
        "each file that is laid over these.",
        autocompletion=completion.studies,
    ),
]
RunParams = Annotated[
    list[str] | None,
    typer.Option(
        help="The study, by its name, file or folder of results; else that of the run's folder.",
        autocompletion=completion.studies,
    ),
]
Studies = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[STUDY]...",
        help="Its name, its file or files, or its folder of results; none: the default study.",
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
        help="A study, by its folder of tables or its name.", autocompletion=completion.results
    ),
]
Tokens = Annotated[Path, typer.Option(help="Folder of token files.")]
RunTokens = Annotated[
    Path | None, typer.Option(help="Folder of token files; else that of the run's study.")
]
Data = Annotated[Path, typer.Option(help="Folder with corpus/ and tokens/.")]


def load(words: Sequence[str] | None) -> "Study":
    """The study that is named, or the default one."""
    from squentropy.study.find import find

    return find(*(words or []))[0]


def study_of(run: Path, words: Sequence[str] | None) -> "Study":
    """The study that is named, or that of a run's folder."""
    if words:
        return load(words)

    from squentropy.runs.records import read_run
    from squentropy.study.find import study_of

    return study_of(run, read_run(run) if (run / "run.json").exists() else None)


def results_of(given: Path) -> Path:
    """A folder of results, or that of the study of this name."""
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
