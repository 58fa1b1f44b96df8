"""The commands. Each does one step of the study and works by hand; Snakemake calls the same."""

import copy
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from typer.core import TyperGroup

import squentropy
from squentropy import errors, installed
from squentropy.catalogue import PHASES, SPLITS, name_of_slug
from squentropy.cli import completion
from squentropy.errors import SquentropyError

if TYPE_CHECKING:
    from squentropy.study.params import Cell, Study
    from squentropy.tokens.token_files import TokenFolder


class ReaderGone(Exception):
    """Nobody reads our output any more, as in `squentropy show | head -1`."""


class Commands(TyperGroup):
    """Typer's group, but for two things."""

    def invoke(self, ctx):
        """Not Typer's exit code where the reader has gone, which is that of a failure."""
        try:
            try:
                return super().invoke(ctx)
            finally:
                sys.stdout.flush()
        except BrokenPipeError as error:
            raise ReaderGone from error

    def resolve_command(self, ctx, args):
        """The lines of an example stay as they are written, however narrow the terminal."""
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and command.help:
            command = copy.copy(command)
            command.help = command.help.replace("\nExample:", "\n\b\nExample:")
        return name, command, rest


app = typer.Typer(
    cls=Commands,
    help="Does a squared loss belong in a language model? The study's steps, one command each.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Params = Annotated[
    list[Path],
    typer.Option(
        help="Parameter file; give it again for each overlay, in order.",
        autocompletion=completion.parameters,
    ),
]
DEFAULT_PARAMS = [Path("params.yaml")]
States = Annotated[Path, typer.Option(help="Folder of the states of unfinished runs.")]
DEFAULT_STATES = Path("state")
Runs = Annotated[list[Path], typer.Argument(help="Run folders.", autocompletion=completion.runs)]
Results = Annotated[
    Path, typer.Argument(help="A study's folder of tables.", autocompletion=completion.results)
]
Tokens = Annotated[Path, typer.Option(help="Folder of token files.")]
GridLoss = Annotated[
    str, typer.Option(help="A loss of the study's grid.", autocompletion=completion.losses)
]
Resume = Annotated[
    bool, typer.Option(help="Go on from an unfinished run's state, and save one; or do neither.")
]


def load(paths: Iterable[Path]) -> "Study":
    """`params.load`, imported when it is called: the shell's completion does without pydantic."""
    from squentropy.study.params import load

    return load(paths)


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show tracebacks; also after a command.")
    ] = False,
) -> None:
    if version:
        print(f"squentropy {squentropy.__version__}")
        raise typer.Exit
    installed.check_own(Path.cwd())


@app.command()
def params(params: Params = DEFAULT_PARAMS) -> None:
    """Check the parameters and print them resolved.

    Example: squentropy params --params params.yaml --params studies/smoke.yaml
    """
    print(load(params).dump(), end="")


@app.command()
def corpus(out: Path, params: Params = DEFAULT_PARAMS) -> None:
    """Make the splits train, validation and test as parquet, with a manifest, in OUT.

    Example: squentropy corpus data/grammar/corpus
    """
    from squentropy.corpus.build import build

    manifest = build(load(params).corpus, out)
    for split, entry in manifest["splits"].items():
        print(f"{split}: {entry['stories']:,} stories, {entry['bytes']:,} bytes")


@app.command()
def check(
    file: Path,
    text: Annotated[str, typer.Option(help="Key or column of the story.")] = "text",
    separator: Annotated[str, typer.Option(help="What parts the stories of a .txt.")] = (
        "<|endoftext|>"
    ),
) -> None:
    """Check that the stories of FILE (or of standard input, as .txt: -) are the grammar's.

    One line per story that is not: where it leaves the grammar, and why. Exit code 1 if any does.
    The last line counts stories, references and sentences as quality.csv does.

    Example: squentropy check data/grammar/corpus/test.parquet
    """
    from squentropy.corpus.files import read, stories_of_text
    from squentropy.corpus.grammar.grading import Grade, grade
    from squentropy.corpus.grammar.parser import check

    stories = (
        stories_of_text(sys.stdin.buffer, separator)
        if str(file) == "-"
        else read(file, text, separator)
    )
    total = valid = 0
    counted = Grade(*[0] * len(Grade._fields))
    for story in stories:
        verdict = check(story.text)
        total += 1
        valid += verdict.valid
        counted = Grade(*map(sum, zip(counted, grade(story.text))))
        if not verdict.valid:
            print(f"{story.where}: {verdict.message}")
    print(
        f"{valid:,} of {total:,} stories are the grammar's; in form: {counted.form:,} stories, "
        f"{counted.in_form:,} of {counted.sentences:,} sentences; "
        f"{counted.matches:,} of {counted.references:,} references agree"
    )
    if valid < total:
        raise typer.Exit(1)


@app.command()
def tokenize(corpus: Path, out: Path, params: Params = DEFAULT_PARAMS) -> None:
    """Encode the splits of CORPUS into token files in OUT.

    Example: squentropy tokenize data/grammar/corpus data/grammar/tokens
    """
    from squentropy.tokens.tokenizer import tokenize

    manifest = tokenize(load(params).tokens, corpus, out)
    for split, entry in manifest["splits"].items():
        print(f"{split}: {entry['stories']:,} stories, {entry['tokens']:,} tokens")


@app.command()
def train(
    out: Path,
    tokens: Tokens,
    loss: Annotated[
        str,
        typer.Option(help="A loss, as mse or squentropy-0.1.", autocompletion=completion.losses),
    ],
    params: Params = DEFAULT_PARAMS,
    phase: Annotated[
        str,
        typer.Option(
            help="Whose schedule: sweep, refine, final or reported.",
            autocompletion=completion.phases,
        ),
    ] = "sweep",
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Share of activations dropped.")] = None,
    n_layer: Annotated[int | None, typer.Option(help="Layers.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of initial weights and batches.")] = None,
    selected: Annotated[
        Path | None,
        typer.Option(help="selected.json or a refine.json, in place of lr, dropout and n_layer."),
    ] = None,
    states: States = DEFAULT_STATES,
    resume: Resume = True,
) -> None:
    """Train one cell into the run folder OUT, unless this very run lies there already.

    Killed at any moment, the same command goes on from the last state that was saved, to the same
    bits; on SIGTERM and Ctrl-C it saves one first. Where train.processes is more than one it starts
    them; for several machines, start it there by torchrun --no-python.

    Example: squentropy train runs/mine --tokens data/grammar/tokens --phase final \\
        --loss squentropy --lr 0.0006 --dropout 0.1 --n-layer 8
    """
    study = load(params)
    cell = _cell(study, phase, loss, lr, dropout, n_layer, seed, selected)

    from squentropy.tokens.token_files import TokenFolder

    folder = TokenFolder.open(tokens)
    if not _launched(study):
        _train(study, cell, folder, out, states if resume else None)


@app.command()
def sweep(
    checkpoints: Path,
    tokens: Tokens,
    loss: GridLoss,
    lr: Annotated[float, typer.Option(help="A learning rate of the study's grid.")],
    params: Params = DEFAULT_PARAMS,
    states: States = DEFAULT_STATES,
    resume: Resume = True,
) -> None:
    """Train a row of the grid, every dropout and depth at one loss and learning rate.

    The cells go one after the other through one process, whose start costs as much as a small
    cell; each is what `train` makes of it. Those that are there already are left as they are.

    Example: squentropy sweep checkpoints/grammar --tokens data/grammar/tokens --loss mse --lr 0.06
    """
    study = load(params)
    loss = _of_study(study, loss)
    cells = [cell for cell in study.sweep_cells() if (cell.loss, cell.lr) == (loss, lr)]
    if not cells:
        raise SquentropyError(f"--loss {loss} --lr {lr}: no such row in the grid of {study.study}")
    _train_each(study, cells, tokens, checkpoints, states if resume else None)


@app.command()
def refine(
    checkpoints: Path,
    tokens: Tokens,
    loss: GridLoss,
    params: Params = DEFAULT_PARAMS,
    states: States = DEFAULT_STATES,
    resume: Resume = True,
) -> None:
    """Train longer runs around a loss's best cell, into CHECKPOINTS/refine/LOSS/refine.json.

    Reads the cells of the sweep. The learning rate goes up and down until the best one lies
    between two others; dropouts and depths that the sweep could not tell apart are tried again.

    Example: squentropy refine checkpoints/grammar --tokens data/grammar/tokens --loss mse
    """
    study = load(params)

    from squentropy.tokens.token_files import TokenFolder
    from squentropy.tuning.selection import refine_loss

    loss = _of_study(study, loss)
    folder = TokenFolder.open(tokens)
    if _launched(study):
        return

    def train(cell: "Cell") -> dict:
        return _train(study, cell, folder, checkpoints / cell.name, states if resume else None)

    found = refine_loss(study, loss, checkpoints, train)
    print(f"{loss}: {found.best.name}, {len(found.trials)} runs")


@app.command()
def lengths(
    checkpoints: Path,
    tokens: Tokens,
    loss: GridLoss,
    params: Params = DEFAULT_PARAMS,
    states: States = DEFAULT_STATES,
    resume: Resume = True,
) -> None:
    """Train a loss's shorter runs, each with a schedule of its own, into CHECKPOINTS/lengths/LOSS.

    Reads what `refine` has selected, in CHECKPOINTS/refine/LOSS/refine.json.

    Example: squentropy lengths checkpoints/grammar --tokens data/grammar/tokens --loss mse
    """
    study = load(params)

    from squentropy.runs.records import chosen_for
    from squentropy.tuning.selection import refine_file

    loss = _of_study(study, loss)
    chosen = {loss: chosen_for(loss, refine_file(checkpoints, loss))}
    cells = [cell for cell in study.length_cells(chosen) if cell.loss == loss]
    _train_each(study, cells, tokens, checkpoints, states if resume else None)


def _of_study(study: "Study", given: str) -> str:
    """The loss of the study's grid that is meant by its name or its folder's."""
    loss = _loss(given)
    if loss not in study.sweep.losses:
        raise SquentropyError(f"--loss {given}: is not in the grid of {study.study}")
    return loss


def _launched(study: "Study") -> bool:
    """Whether this command has been run to its end in the processes that the study asks for."""
    if study.train.processes == 1:
        return False

    from squentropy.training import distributed

    if distributed.started():
        return False
    distributed.launch(study.train.processes)
    return True


def _train_each(
    study: "Study", cells: list["Cell"], tokens: Path, checkpoints: Path, states: Path | None
) -> None:
    """Train cells one after the other in one process, each into its folder of CHECKPOINTS."""
    from squentropy.tokens.token_files import TokenFolder

    folder = TokenFolder.open(tokens)
    if _launched(study):
        return
    for cell in cells:
        _train(study, cell, folder, checkpoints / cell.name, states)


def _train(
    study: "Study", cell: "Cell", tokens: "TokenFolder", out: Path, states: Path | None
) -> dict:
    """Train a cell, say how it went, and return its run.json, which every process reads."""
    from squentropy.training.run import train_run

    run, now, first = train_run(study, cell, tokens, out, states)
    if first and not now:
        print(f"{cell.name}: already there")
    elif first:
        nll = run["validation_nll"]
        how = f"diverged at {run['diverged_at']}" if nll is None else f"validation nll {nll:.4f}"
        print(f"{cell.name}: {run['iterations']} iterations, {how}", flush=True)
    return run


def _loss(text: str) -> str:
    """The loss of this name or slug. Raises SquentropyError with the fix."""
    try:
        return name_of_slug(text)
    except ValueError as error:
        raise SquentropyError(f"--loss {text}: {error}") from None


def _cell(
    study: "Study",
    phase: str,
    loss: str,
    lr: float | None,
    dropout: float | None,
    n_layer: int | None,
    seed: int | None,
    selected: Path | None,
) -> "Cell":
    """The cell that the options name. Raises SquentropyError with the option that is wrong."""
    if phase not in PHASES:
        raise SquentropyError(f"--phase {phase}: no such phase; there are: {', '.join(PHASES)}")
    loss = _loss(loss)
    if phase == "lengths":
        raise SquentropyError("--phase lengths: `squentropy lengths` trains these runs")
    given = {"lr": lr, "dropout": dropout, "n_layer": n_layer}
    if selected is not None:
        from squentropy.runs.records import chosen_for

        given = chosen_for(loss, selected)
    missing = [f"--{key.replace('_', '-')}" for key, value in given.items() if value is None]
    if missing:
        raise SquentropyError(f"train: give {', '.join(missing)}, or --selected")
    seed = study.sweep.seed if seed is None else seed

    from squentropy.study.params import make_cell

    return make_cell(phase, "train", loss=loss, seed=seed, **given)


@app.command()
def why(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Run folders; all of them if none.", autocompletion=completion.runs),
    ] = None,
    params: Params = DEFAULT_PARAMS,
    states: States = DEFAULT_STATES,
) -> None:
    """Say of each of RUNS why it is not up to date, or of every run of the study that is not.

    Example: squentropy why checkpoints/grammar/final/mse/seed1
    """
    from squentropy.tools.why import stale_runs

    stale = list(stale_runs(load(params), runs or None, states))
    for folder, reasons in stale:
        for reason in reasons or ["is up to date"]:
            print(f"{folder}: {reason}")
    if not stale:
        print("every run is up to date")


@app.command()
def select(checkpoints: Path, results: Path, params: Params = DEFAULT_PARAMS) -> None:
    """Gather the tuning runs of CHECKPOINTS into RESULTS: sweep.csv, refine.csv, selected.json.

    Example: squentropy select checkpoints/grammar results/grammar
    """
    from squentropy.tuning.selection import select

    for loss, chosen in select(load(params), checkpoints, results).items():
        at = ", ".join(f"{key} {chosen[key]:g}" for key in ("lr", "dropout", "n_layer"))
        ends = "" if chosen["inside"] else " (learning rate at the end of what was tried)"
        print(f"{loss}: {at}{ends}, {chosen['runs']} runs, {chosen['diverged']} cells diverged")


@app.command()
def evaluate(
    runs: Runs,
    data: Annotated[Path, typer.Option(help="Folder with corpus/ and tokens/.")],
    params: Params = DEFAULT_PARAMS,
    split: Annotated[
        str, typer.Option(help="train, validation or test.", autocompletion=completion.splits)
    ] = "test",
) -> None:
    """Score each of RUNS on every story of a split, into RUN/SPLIT.json.

    Example: squentropy evaluate checkpoints/grammar/final/mse/seed1 --data data/grammar
    """
    study = load(params)

    from squentropy.evaluation.run import evaluate_run
    from squentropy.runs.records import read_run
    from squentropy.tokens.token_files import TokenFolder
    from squentropy.tokens.tokenizer import story_bytes

    if split not in SPLITS:
        raise SquentropyError(f"--split {split}: no such split; there are: {', '.join(SPLITS)}")
    tokens = TokenFolder.open(data / "tokens")
    sizes = story_bytes(data / "corpus", split, tokens)
    for run in runs:
        scores = evaluate_run(study, run, tokens, sizes, split)
        if "stories" in scores:
            reading = study.primary(read_run(run)["cell"]["loss"])
            nll = sum(scores["readings"][reading]["nll"]) / sum(scores["stories"]["tokens"])
            print(f"{run}: {split} nll {nll:.4f} nats per token, read by {reading}")
        else:
            print(f"{run}: {scores['status']}, not scored")


@app.command()
def sample(
    runs: Runs,
    tokens: Annotated[
        Path | None, typer.Option(help="Folder of token files; else that of the run's study.")
    ] = None,
    params: Params = DEFAULT_PARAMS,
    prompt: Annotated[
        list[str] | None, typer.Option(help="Beginning of a story; may be given again.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(help="0: greedy. Else the middle one of --params.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="0: all tokens.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Tokens a story.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the draws.")] = None,
    stories: Annotated[int | None, typer.Option(help="Stories a prompt; else one.")] = None,
) -> None:
    """Let each of RUNS tell a story from each prompt of the study, into RUN/samples.json.

    With --prompt it is told here, word by word, and nothing is written. The other options go with
    --prompt; what they leave open is as in --params.

    Example: squentropy sample checkpoints/grammar/final/mse/seed1 --prompt "Once upon a time"
    """
    study = load(params)
    temperatures = None if temperature is None else [temperature]
    options = {
        "temperatures": temperatures, "top_k": top_k, "max_tokens": max_tokens,
        "seed": seed, "stories": stories,
    }  # fmt: skip
    given = {key: value for key, value in options.items() if value is not None}
    if prompt:
        from squentropy.study.params import with_sample

        _tell(with_sample(study, {"stories": 1} | given), runs, tokens, prompt)
        return
    if given:
        raise SquentropyError("sample: these options go with --prompt; the study's own stories "
                              "are told as --params says")  # fmt: skip

    from squentropy.sampling.run import sample_run
    from squentropy.tokens.tokenizer import read_encoding

    for run in runs:
        folder = _tokens(run, tokens, study)
        for story in sample_run(study, run, folder, read_encoding(folder)):
            print(story["text"], end="\n\n")


def _tell(study: "Study", runs: list[Path], tokens: Path | None, prompts: list[str]) -> None:
    from squentropy.report.markup import visible
    from squentropy.sampling.terminal import tell

    how = study.sample.model_dump(exclude={"prompts", "temperatures"})
    terminal = sys.stdout.isatty()  # which a control character of a model's could confuse
    for run in runs:
        folder = _tokens(run, tokens, study)
        for story in tell(run, folder, prompts, temperature=study.sample.middle, **how):
            for piece in story:
                print(visible(piece) if terminal else piece, end="", flush=True)
            print("\n")


def _tokens(run: Path, given: Path | None, study: "Study") -> "TokenFolder":
    """The token files given, or those of the run's study."""
    from squentropy.runs.records import read_run
    from squentropy.study.layout import data_of
    from squentropy.tokens.token_files import TokenFolder

    return TokenFolder.open(given or data_of(run, read_run(run), study) / "tokens")


@app.command()
def export(
    run: Path,
    out: Path,
    tokens: Annotated[
        Path | None, typer.Option(help="Folder of token files; else that of the run's study.")
    ] = None,
    params: Params = DEFAULT_PARAMS,
) -> None:
    """Write RUN to the folder OUT as a GPT-2 with tokenizer, for Hugging Face's transformers.

    Example: squentropy export checkpoints/grammar/final/cross_entropy/seed1 exported
    """
    study = load(params)

    from squentropy.tools.huggingface.export import export

    for warning in export(study, run, _tokens(run, tokens, study), out):
        print(f"squentropy: {run}: {warning}", file=sys.stderr)
    print(out)


@app.command()
def score(
    model: Path,
    data: Annotated[Path, typer.Option(help="Folder with corpus/ and tokens/.")],
    results: Annotated[
        Path | None, typer.Option(help="Folder of baselines.csv; else results/NAME of data/NAME.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the row; else the folder's.")] = None,
    params: Params = DEFAULT_PARAMS,
) -> None:
    """Score MODEL, a folder of Hugging Face's, on the test stories, into RESULTS/baselines.csv.

    It stands as a baseline beside the losses in `show` and in the report, which has to be made
    anew: snakemake --cores all report. Needs transformers: pip install 'squentropy[hf]'.

    Example: squentropy score exported --data data/grammar
    """
    study = load(params)

    from squentropy.tools.huggingface.score import score

    results = results or Path("results", data.resolve().name)
    row = score(study, model, data, results, name or model.resolve().name)
    print(
        f"{row['name']}: test nll {row['nll']:.4f} nats a token of "
        f"{'the study' if row['same_tokens'] else 'its own'}, {row['bits_per_byte']:.4f} bits a "
        f"byte, {row['nats_per_story']:.2f} nats a story"
    )


@app.command()
def metrics(data: Path, checkpoints: Path, results: Path, params: Params = DEFAULT_PARAMS) -> None:
    """Gather the final runs of CHECKPOINTS into the tables of RESULTS.

    Example: squentropy metrics data/grammar checkpoints/grammar results/grammar
    """
    from squentropy.results.tables import metrics

    metrics(load(params), data, checkpoints, results)


@app.command()
def judge(
    results: Results,
    model: Annotated[str, typer.Option(help="The judge, as its endpoint calls it.")],
    stories: Annotated[int, typer.Option(min=1, help="Stories a loss and temperature.")] = 12,
) -> None:
    """Let a language model grade the stories of RESULTS, into RESULTS/judge.csv.

    Needs OPENAI_API_KEY in the environment, and OPENAI_BASE_URL for an endpoint that is not
    OpenAI's. No part of the study.

    Example: squentropy judge results/grammar --model gpt-4o
    """
    from squentropy.tools.judge import GRADES, judge

    for row in judge(results, model, stories):
        grades = ", ".join(f"{grade} {row[grade]:.1f}" for grade in GRADES)
        print(f"{row['loss']}, temperature {row['temperature']:g}: {grades}")


@app.command()
def figures(results: Results, out: Path) -> None:
    """Draw every figure from the tables of RESULTS into OUT.

    Example: squentropy figures results/grammar report/grammar/figures
    """
    from squentropy.report.figures import draw

    for path in draw(results, out):
        print(path)


@app.command()
def report(results: Results, figures: Path, out: Path) -> None:
    """Write the report on RESULTS, one self-contained page, to OUT.

    Example: squentropy report results/grammar report/grammar/figures report/grammar/index.html
    """
    from squentropy.report.render import render

    render(results, figures, out)
    print(out)


@app.command()
def pdf(page: Path, out: Path) -> None:
    """Print PAGE, a report, to the PDF OUT by Chromium, which has to be installed.

    Example: squentropy pdf report/grammar/index.html report/grammar/report.pdf
    """
    from squentropy.report.pdf import print_page

    print_page(page, out)
    print(out)


@app.command()
def show(
    study: Annotated[
        str | None,
        typer.Argument(
            help="Its name, its file or its folder of results; none: the default study.",
            autocompletion=completion.studies,
        ),
    ] = None,
    table: Annotated[
        bool, typer.Option("--table", help="The final table alone, as Markdown; or an error.")
    ] = False,
) -> None:
    """Show the tables of STUDY and how far it has come: what is done, runs, waits or failed.

    Where the output is no terminal it is plain text, and its tables are Markdown.

    Example: squentropy show results/grammar
    """
    from squentropy.tools.progress import find

    found, places = find(study)
    if table:
        from squentropy.report.summary import metrics_table

        print(metrics_table(places.results))
        return

    from rich.console import Console

    from squentropy.tools.show import page, print_page

    print_page(page(found, places), Console(highlight=False))


@app.command()
def live(
    states: States = DEFAULT_STATES,
    out: Annotated[Path, typer.Option(help="Where to; runs' names are folders in it.")] = Path(
        "live"
    ),
    tensorboard: Annotated[bool, typer.Option(help="Also as events for TensorBoard.")] = False,
) -> None:
    """Write the losses of the runs under way as .tsv, up to the last state that each has saved.

    Example: squentropy live --tensorboard
    """
    from squentropy.tools.tracking import export

    for folder in export(states, out, tensorboard):
        print(folder)


@app.command()
def tensorboard(
    runs: Runs,
    out: Annotated[Path, typer.Option(help="Where to; runs' names are folders in it.")] = Path(
        "events"
    ),
) -> None:
    """Write each of RUNS, finished ones, as events for TensorBoard, with its hyperparameters.

    Example: squentropy tensorboard checkpoints/grammar/final/mse/seed1
    """
    from squentropy.tools.hosted import write_events

    for folder in write_events(runs, out):
        print(folder)


@app.command()
def wandb(
    runs: Runs,
    project: Annotated[str, typer.Option(help="Of Weights & Biases.")] = "squentropy",
) -> None:
    """Log each of RUNS for Weights & Biases: offline, unless WANDB_MODE=online.

    Example: squentropy wandb checkpoints/grammar/final/mse/seed1
    """
    from squentropy.tools.hosted import log

    log(runs, project)


Overlays = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Study files laid over params.yaml; none: the default study.",
        autocompletion=completion.overlays,
    ),
]


@app.command()
def record(overlays: Overlays = None) -> None:
    """Put what a finished study has made under DVC, to be committed and pushed.

    Example: squentropy record studies/smoke.yaml
    """
    from squentropy.tools import dvc

    dvc.record(overlays or [])
    print("recorded; to share it: `git add --all`, `git commit`, `dvc push`")


@app.command()
def restore(overlays: Overlays = None) -> None:
    """Bring a recorded study from the remote storage, so that nothing of it is left to run.

    Example: squentropy restore studies/smoke.yaml
    """
    from squentropy.tools import dvc

    dvc.restore(overlays or [])
    print("restored: nothing is left to run")


@app.command()
def readme(file: Path, results: Path, report: Path) -> None:
    """Put the main figure and the final table of RESULTS into FILE, between its marks.

    Example: squentropy readme README.md results/grammar report/grammar
    """
    from squentropy.report.summary import with_results
    from squentropy.storage import write_text

    write_text(file, with_results(file.read_text(encoding="utf-8"), results, report))


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command; whatever goes wrong is one line on stderr and an exit code of errors.py.

    `--debug`, before or after the command's name, shows the traceback too. That of a bug is also
    shown where SQUENTROPY_TRACEBACKS is set, as it is for the jobs of Snakemake, for their logs.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = given[: given.index("--")] if "--" in given else given
    debug = "--debug" in options
    words = [word for word in options if word != "--debug"] + given[len(options) :]
    try:
        app(words, prog_name="squentropy")
    except ReaderGone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(errors.CLOSED)
    except KeyboardInterrupt:
        sys.exit(errors.INTERRUPTED)
    except Exception as error:
        line, code = _explain(error)
        if debug or (code == errors.BUG and "SQUENTROPY_TRACEBACKS" in os.environ):
            traceback.print_exc()
        if line:
            print(f"squentropy: {line}", file=sys.stderr)
        sys.exit(code)
    sys.exit(errors.OK)


def _explain(error: Exception) -> tuple[str, int]:
    """What an error is to the person at the terminal: one line, and the exit code."""
    if isinstance(error, SquentropyError):
        return str(error), error.exit_code
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror}", errors.FAILED
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out of memory; make train.batch_size or the model smaller", errors.FAILED
    if isinstance(error, ModuleNotFoundError) and error.name:
        return installed.missing(error.name), errors.FAILED
    what = " ".join(f"{type(error).__name__}: {error}".split())
    return f"this is a bug: {what} (--debug shows where)", errors.BUG


if __name__ == "__main__":
    main()
