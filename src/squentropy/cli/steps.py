"""The steps of a study, in order. Snakemake runs the same commands."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from squentropy.base.errors import SquentropyError
from squentropy.cli import completion
from squentropy.cli.options import (
    DEFAULT_STATES,
    Data,
    Params,
    Results,
    RunParams,
    Runs,
    RunTokens,
    States,
    Tokens,
    load,
    results_of,
    study_of,
    tokens_of,
)
from squentropy.cli.training import (
    GridLoss,
    Loss,
    Phase,
    Resume,
    Stacked,
    cell_of,
    launched,
    of_study,
    point_of,
    train_at_once,
    train_each,
    train_one,
)
from squentropy.study.catalogue import SPLITS

if TYPE_CHECKING:
    from squentropy.base.kinds import RunRecord
    from squentropy.study.grid import Cell


def corpus(out: Path, params: Params = None) -> None:
    """Make the splits of the study's corpus.

    Reads the corpus source named by the parameters. Writes train, validation and test as
    parquet, and a manifest, into OUT.

    Example: squentropy corpus data/grammar/corpus
    """
    from squentropy.corpus.build import build

    manifest = build(load(params).corpus, out)
    for split, entry in manifest["splits"].items():
        print(f"{split}: {entry['stories']:,} stories, {entry['bytes']:,} bytes")


def tokenize(corpus: Path, out: Path, params: Params = None) -> None:
    """Encode the splits of a corpus.

    Reads the folder CORPUS. Writes token files, the tokenizer and a manifest into OUT.

    Example: squentropy tokenize data/grammar/corpus data/grammar/tokens
    """
    from squentropy.tokens.tokenizer import tokenize

    manifest = tokenize(load(params).tokens, corpus, out)
    for split, entry in manifest["splits"].items():
        print(f"{split}: {entry['stories']:,} stories, {entry['tokens']:,} tokens")


def train(
    out: Path,
    tokens: Tokens,
    loss: Loss,
    params: Params = None,
    phase: Phase = "sweep",
    lr: Annotated[float | None, typer.Option(help="Peak learning rate.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Share of activations dropped.")] = None,
    n_layer: Annotated[int | None, typer.Option(help="Layers.")] = None,
    at: Annotated[
        list[str] | None,
        typer.Option(help="Any grid key, such as --at dropout=0.1; repeatable."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of initial weights and batches.")] = None,
    selected: Annotated[
        Path | None,
        typer.Option(help="selected.json or a refine.json, instead of lr, dropout and n_layer."),
    ] = None,
    states: States = DEFAULT_STATES,
    resume: Resume = True,
) -> None:
    """Train one cell, unless OUT already contains this run.

    Reads the folder TOKENS. Writes run.json, history.csv and the weights into the run folder OUT.

    If it is killed, the same command resumes from the last saved state; on a CPU the result is
    bit-identical. On SIGTERM and Ctrl-C it saves the state first. If train.processes is more than
    1, it starts the processes; on several machines, start it with torchrun --no-python.

    Example: squentropy train runs/mine --tokens data/grammar/tokens --phase final \\
        --loss squentropy --lr 0.0006 --dropout 0.1 --n-layer 8
    """
    study = load(params)
    given = {"lr": lr, "dropout": dropout, "n_layer": n_layer}
    cell = cell_of(study, phase, loss, given | point_of(at or []), seed, selected)

    from squentropy.tokens.token_files import TokenFolder

    folder = TokenFolder.open(tokens)
    if not launched(study):
        train_one(study, cell, folder, out, states if resume else None)


def sweep(
    checkpoints: Path,
    tokens: Tokens,
    loss: Annotated[
        str | None,
        typer.Option(
            help="A loss in the study's grid. Default: all.", autocompletion=completion.losses
        ),
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="A learning rate in the study's grid. Default: all.")
    ] = None,
    params: Params = None,
    states: States = DEFAULT_STATES,
    resume: Resume = True,
    stacked: Stacked = None,
) -> None:
    """Train the grid, or its cells at one loss or learning rate.

    Reads the folder TOKENS. Writes a run for every dropout and depth into
    CHECKPOINTS/sweep/LOSS/lrLR.

    On a GPU, cells of the same depth are trained at once, as many as fit in memory. More cells use
    it better, so omit --loss and --lr there. Otherwise they are trained one by one in one process,
    because starting a process takes as long as training a small cell. Results equal those of
    `train`; for cells trained at once, up to rounding and with other dropout masks. Finished cells
    are skipped.

    Example: squentropy sweep checkpoints/grammar --tokens data/grammar/tokens --loss mse --lr 0.06
    """
    study = load(params)
    loss = of_study(study, loss) if loss is not None else None
    cells = [cell for cell in study.sweep_cells() if loss in (None, cell.loss)]
    cells = [cell for cell in cells if lr in (None, cell.lr)]
    if not cells:
        raise SquentropyError(f"--lr {lr}: no such row in the grid of {study.study}")
    if stacked is None:
        from squentropy.training.stacked import worthwhile

        stacked = worthwhile(study)
    train = train_at_once if stacked else train_each
    train(study, cells, tokens, checkpoints, states if resume else None)


def refine(
    checkpoints: Path,
    tokens: Tokens,
    loss: GridLoss,
    params: Params = None,
    states: States = DEFAULT_STATES,
    resume: Resume = True,
) -> None:
    """Train longer runs around a loss's best cell.

    Reads the cells of the sweep, and the folder TOKENS. Writes the runs and refine.json into
    CHECKPOINTS/refine/LOSS.

    Learning rates are tried in both directions until the best one lies between two others. Dropouts
    and depths that the sweep could not distinguish are tried again.

    Example: squentropy refine checkpoints/grammar --tokens data/grammar/tokens --loss mse
    """
    study = load(params)

    from squentropy.runs.records import read_run
    from squentropy.tokens.token_files import TokenFolder
    from squentropy.tuning.selection import refine_loss

    loss = of_study(study, loss)
    folder = TokenFolder.open(tokens)
    if launched(study):
        return

    def train(cell: "Cell") -> "RunRecord":
        out = checkpoints / cell.name
        train_one(study, cell, folder, out, states if resume else None)
        return read_run(out)

    found = refine_loss(study, loss, checkpoints, train)
    print(f"{loss}: {found.best.name}, {len(found.trials)} runs")


def lengths(
    checkpoints: Path,
    tokens: Tokens,
    loss: GridLoss,
    params: Params = None,
    states: States = DEFAULT_STATES,
    resume: Resume = True,
) -> None:
    """Train a loss's shorter runs.

    Reads what `refine` selected, CHECKPOINTS/refine/LOSS/refine.json, and the folder TOKENS.
    Writes the runs, each with its own schedule, into CHECKPOINTS/lengths/LOSS.

    Example: squentropy lengths checkpoints/grammar --tokens data/grammar/tokens --loss mse
    """
    study = load(params)

    from squentropy.runs.records import chosen_for
    from squentropy.study.layout import refine_file

    loss = of_study(study, loss)
    chosen = {loss: chosen_for(loss, refine_file(checkpoints, loss))}
    cells = [cell for cell in study.length_cells(chosen) if cell.loss == loss]
    train_each(study, cells, tokens, checkpoints, states if resume else None)


def select(checkpoints: Path, results: Path, params: Params = None) -> None:
    """Select each loss's hyperparameters from the tuning runs.

    Reads the runs of CHECKPOINTS/sweep and CHECKPOINTS/refine. Writes sweep.csv, refine.csv and
    selected.json into RESULTS.

    Example: squentropy select checkpoints/grammar results/grammar
    """
    from squentropy.study.grid import GRID_KEYS
    from squentropy.tuning.selection import select

    for loss, chosen in select(load(params), checkpoints, results).items():
        values = {key: chosen[key] for key in chosen if key in GRID_KEYS}
        at = ", ".join(f"{key} {value:g}" for key, value in values.items())
        ends = "" if chosen["inside"] else " (at the end of the learning rates tried)"
        print(f"{loss}: {at}{ends}, {chosen['runs']} runs, {chosen['diverged']} cells diverged")


def evaluate(
    runs: Runs,
    data: Data,
    params: RunParams = None,
    split: Annotated[
        str, typer.Option(help="train, validation or test.", autocompletion=completion.splits)
    ] = "test",
) -> None:
    """Score runs on every story of a split.

    Reads the RUNS with their weights, and the folder DATA. Writes RUN/SPLIT.json, such as
    RUN/test.json.

    Example: squentropy evaluate checkpoints/grammar/final/mse/seed1 --data data/grammar
    """
    from squentropy.corpus.grammar.prediction import predictions, predicts
    from squentropy.evaluation.run import evaluate_run
    from squentropy.runs.records import read_run
    from squentropy.tokens.token_files import TokenFolder
    from squentropy.tokens.tokenizer import read_encoding, story_bytes

    if split not in SPLITS:
        raise SquentropyError(f"--split {split}: no such split; there are: {', '.join(SPLITS)}")
    tokens = TokenFolder.open(data / "tokens")
    sizes = story_bytes(data / "corpus", split, tokens)
    exact = None
    if predicts(data / "corpus"):
        exact = predictions(tokens.split(split), read_encoding(tokens))
    for run in runs:
        study = study_of(run, params)
        scores = evaluate_run(study, run, tokens, sizes, split, exact)
        if "stories" in scores:
            reading = study.primary(read_run(run)["cell"]["loss"])
            nll = sum(scores["readings"][reading]["nll"]) / sum(scores["stories"]["tokens"])
            print(f"{run}: {split} nll {nll:.4f} nats per token, reading {reading}")
        else:
            print(f"{run}: {scores['status']}, not scored")


def sample(runs: Runs, tokens: RunTokens = None, params: RunParams = None) -> None:
    """Generate stories from the study's prompts.

    Reads the RUNS with their weights, and the folder TOKENS. Writes RUN/samples.json.

    For your own prompts, use `squentropy tell`, which writes nothing.

    Example: squentropy sample checkpoints/grammar/final/mse/seed1
    """
    from squentropy.sampling.run import sample_run
    from squentropy.tokens.tokenizer import read_encoding

    for run in runs:
        study = study_of(run, params)
        folder = tokens_of(run, tokens, study)
        for story in sample_run(study, run, folder, read_encoding(folder)):
            print(story["text"], end="\n\n")


def voices(data: Path, checkpoints: Path, results: Path, params: Params = None) -> None:
    """Pack small models for the report to generate stories with.

    Reads the folder DATA and, for each loss whose outputs are logits, the first seed's run in
    CHECKPOINTS. Writes RESULTS/voices.json with models of up to three losses; models too large for
    the page are left out.

    Example: squentropy voices data/grammar checkpoints/grammar results/grammar
    """
    from squentropy.results.voices import write_voices

    for voice in write_voices(load(params), data, checkpoints, results):
        cost, error = voice["rounding"]["cost"], voice["rounding"]["error"]
        print(
            f"{voice['run']}: rounding costs {cost:.4f} nats per token and changes logits by up to "
            f"{error:.2f}"
        )


def metrics(data: Path, checkpoints: Path, results: Path, params: Params = None) -> None:
    """Make the study's tables from the final runs.

    Reads the folder DATA, the runs of CHECKPOINTS, and selected.json and voices.json of
    RESULTS. Writes the tables, params.yaml and manifest.json into RESULTS.

    Example: squentropy metrics data/grammar checkpoints/grammar results/grammar
    """
    from squentropy.results.tables import metrics

    metrics(load(params), data, checkpoints, results)


def figures(results: Results, out: Path) -> None:
    """Draw every figure of a study.

    Reads the tables of RESULTS. Writes the figures into OUT.

    Example: squentropy figures results/grammar report/grammar/figures
    """
    from squentropy.report.figures import draw

    for path in draw(results_of(results), out):
        print(path)


def report(results: Results, figures: Path, out: Path) -> None:
    """Write a study's report.

    Reads the tables of RESULTS and the folder FIGURES. Writes OUT, one
    self-contained page.

    Example: squentropy report results/grammar report/grammar/figures report/grammar/index.html
    """
    from squentropy.report.render import render

    render(results_of(results), figures, out)
    print(out)
