"""Commands that show a study's progress, and that share it."""

import os
import sys
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from squentropy.base.output import one_line, unchanged
from squentropy.cli import completion
from squentropy.cli.options import (
    DEFAULT_STATES,
    Params,
    Results,
    Runs,
    States,
    Studies,
    load,
    results_of,
)


def params(study: Studies = None, params: Params = None) -> None:
    """Check a study's parameters and print the resolved values.

    Reads the parameter files of STUDY. Writes nothing.

    Example: squentropy params studies/smoke.yaml
    """
    print(load([*(study or []), *(params or [])]).dump(), end="")


def show(
    study: Annotated[
        str | None,
        typer.Argument(
            help="Its name, its file or its results folder. Default: the default study.",
            autocompletion=completion.studies,
        ),
    ] = None,
    table: Annotated[
        bool, typer.Option("--table", help="Only the final table, as Markdown; or an error.")
    ] = False,
    watch: Annotated[
        bool,
        typer.Option("--watch", help="Show the progress every few seconds while the study runs."),
    ] = False,
) -> None:
    """Show a study's tables and progress.

    Reads whatever files of STUDY exist. Writes nothing.

    Shows which runs are done, running, waiting or failed. If standard output is not a terminal,
    prints plain text with tables in Markdown.

    Example: squentropy show results/grammar
    """
    from squentropy.study.find import find

    found, places = find(*([study] if study is not None else []))
    if table:
        from squentropy.report.summary import metrics_table

        print(metrics_table(places.results))
        return

    from rich.console import Console

    from squentropy.tools import show

    console = Console(file=unchanged(sys.stdout), highlight=False)
    if watch:
        show.watch(found, places, console)
    else:
        show.print_page(show.page(found, places), console)


def why(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Run folders. Default: all.", autocompletion=completion.runs),
    ] = None,
    params: Params = None,
    states: States = DEFAULT_STATES,
) -> None:
    """Explain why runs are not up to date.

    Reads the RUNS, or every run of the study, and their states. Writes nothing.

    Example: squentropy why checkpoints/grammar/final/mse/seed1
    """
    from squentropy.tools.why import stale_runs, study_of

    runs = [Path(os.path.relpath(run)) for run in runs or []]
    groups = [(load(params), runs or None)]
    if runs and not params:
        groups = [(load(name), list(of)) for name, of in groupby(runs, study_of)]
    stale = [found for study, of in groups for found in stale_runs(study, of, states)]
    for folder, reasons in stale:
        for reason in reasons or ["is up to date"]:
            print(one_line(f"{folder}: {reason}"))
    if not stale:
        print("every run is up to date")


def live(
    states: States = DEFAULT_STATES,
    out: Annotated[Path, typer.Option(help="Output folder, with a folder per run.")] = Path("live"),
    tensorboard: Annotated[bool, typer.Option(help="Also write TensorBoard events.")] = False,
) -> None:
    """Write the losses of unfinished runs.

    Reads the last state of each in the folder STATES. Writes their losses as .tsv, and optionally
    as TensorBoard events, into OUT.

    Example: squentropy live --tensorboard
    """
    from squentropy.tools.tracking import export

    folders = export(states, out, tensorboard)
    for folder in folders:
        print(folder)
    if not folders:
        print(f"no unfinished runs: no run has saved a state in {states}")


def tensorboard(
    runs: Runs,
    out: Annotated[Path, typer.Option(help="Output folder, with a folder per run.")] = Path(
        "events"
    ),
) -> None:
    """Write finished runs for TensorBoard.

    Reads the RUNS. Writes events, with the hyperparameters, into OUT.

    Example: squentropy tensorboard checkpoints/grammar/final/mse/seed1
    """
    from squentropy.tools.hosted import write_events

    for folder in write_events(runs, out):
        print(folder)


def wandb(
    runs: Runs,
    project: Annotated[str, typer.Option(help="Project in Weights & Biases.")] = "squentropy",
) -> None:
    """Log finished runs for Weights & Biases.

    Reads the RUNS. Writes the folder wandb, which is only uploaded if WANDB_MODE=online.

    Example: squentropy wandb checkpoints/grammar/final/mse/seed1
    """
    from squentropy.tools.hosted import log

    for folder, place in log(runs, project):
        print(f"{folder}: {place}")


def record(study: Studies = None) -> None:
    """Put the files of a finished study under DVC.

    Reads data, checkpoints, results and report of STUDY. Writes DVC's cache, and dvc.lock or
    studies/dvc.yaml and studies/dvc.lock.

    Example: squentropy record studies/smoke.yaml
    """
    from squentropy.study.find import overlays
    from squentropy.tools import dvc

    target = dvc.record(overlays(study or []))
    print(f"recorded; to share it: `git add --all`, `git commit`, `dvc push {target}`")


def restore(study: Studies = None) -> None:
    """Restore a recorded study from the remote storage.

    Reads dvc.lock or studies/dvc.lock, and the remote storage. Writes data, checkpoints, results
    and report of STUDY, so that nothing of it is left to run.

    Example: squentropy restore studies/smoke.yaml
    """
    from squentropy.study.find import overlays
    from squentropy.tools import dvc

    dvc.restore(overlays(study or []))
    print("restored: nothing is left to run")


def readme(file: Path, results: Results, report: Path) -> None:
    """Put a study's main figure and final table into a README.

    Reads RESULTS, and links to the figures below REPORT. Writes FILE, between its marks.

    Example: squentropy readme README.md results/grammar report/grammar
    """
    from squentropy.base.storage import plain, write_text
    from squentropy.report.summary import with_results

    text = plain(file).read_text(encoding="utf-8")
    write_text(file, with_results(text, results_of(results), report))


def leaderboard(
    enter: Annotated[
        str | None,
        typer.Option(
            help="Prepare a study of this loss, such as my_losses.py:smooth, and print the path of "
            "its file.",
            autocompletion=completion.losses,
        ),
    ] = None,
) -> None:
    """Compare all losses trained by the default study's protocol.

    Reads results/ and params.yaml. Writes results/leaderboard.csv. With --enter, writes a study
    file instead, and links what that study shares with the default one.

    Example: squentropy leaderboard --enter my_losses.py:smooth
    """
    from squentropy.tools import leaderboard

    if enter is not None:
        print(leaderboard.enter(enter))
        return
    print(leaderboard.markdown(leaderboard.write()))
    print(f"\n{leaderboard.FILE}")


def claims(file: Path, results: list[Path]) -> None:
    """Put the studies' findings on published claims into a page.

    Reads each folder of RESULTS. Writes FILE, between its marks.

    Example: squentropy claims docs/explanation/claims.md results/grammar
    """
    from squentropy.base.storage import write_text
    from squentropy.report.claims import with_claims

    write_text(file, with_claims(file.read_text(encoding="utf-8"), results))


def pdf(page: Path, out: Path) -> None:
    """Print a report as a PDF.

    Reads PAGE. Writes OUT, using Chromium, which must be installed.

    Example: squentropy pdf report/grammar/index.html report/grammar/report.pdf
    """
    from squentropy.report.pdf import print_page

    print_page(page, out)
    print(out)
