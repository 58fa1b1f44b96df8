"""What is done with a trained model, or with stories, by hand: no step of a study."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from squentropy.base.output import one_line, say
from squentropy.cli.options import (
    Data,
    Params,
    Results,
    Run,
    RunParams,
    Runs,
    RunTokens,
    load,
    results_of,
    study_of,
    tokens_of,
)


def tell(
    runs: Runs,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="Beginning of a story; may be given again. Else the study's own."),
    ] = None,
    tokens: RunTokens = None,
    params: RunParams = None,
    temperature: Annotated[
        float | None, typer.Option(help="0: greedy. Else the middle one of the study.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="0: all tokens. Else the study's.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="A story. Else the study's.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the draws. Else the study's.")] = None,
    stories: Annotated[int, typer.Option(help="Stories a prompt.")] = 1,
) -> None:
    """Tell stories here, word by word, from prompts of your own.

    Reads the RUNS with their weights, and the tokens of their study. Writes nothing.

    Example: squentropy tell checkpoints/grammar/final/mse/seed1 --prompt "Once upon a time"
    """
    options = {
        "temperatures": None if temperature is None else [temperature], "top_k": top_k,
        "max_tokens": max_tokens, "seed": seed, "stories": stories,
    }  # fmt: skip
    given = {key: value for key, value in options.items() if value is not None}

    from squentropy.study.params import with_sample

    for run in runs:
        study = with_sample(study_of(run, params), given)
        folder = tokens_of(run, tokens, study)

        from squentropy.sampling.terminal import tell

        how = study.sample.model_dump(exclude={"prompts", "temperatures"})
        prompts = prompt or study.sample.prompts
        for story in tell(run, folder, prompts, temperature=study.sample.middle, **how):
            for piece in story:
                print(piece, end="", flush=True)
            print("\n")


def check(
    file: Path,
    text: Annotated[str, typer.Option(help="Key or column of the story.")] = "text",
    separator: Annotated[str, typer.Option(help="What parts the stories of a .txt.")] = (
        "<|endoftext|>"
    ),
) -> None:
    """Check that stories are the grammar's.

    Reads FILE, or standard input as .txt where it is -. Writes nothing.

    Prints one line per story that is not: where it leaves the grammar, and why. Exit code 1 if any
    does. The last line counts stories, references and sentences as quality.csv does.

    Example: squentropy check data/grammar/corpus/test.parquet
    """
    from squentropy.corpus.files import read, stories_of_text
    from squentropy.corpus.grammar.grading import Grade, grade
    from squentropy.corpus.grammar.parser import check

    told = (
        stories_of_text(sys.stdin.buffer, separator)
        if str(file) == "-"
        else read(file, text, separator)
    )
    total = valid = 0
    counted = dict.fromkeys(Grade._fields, 0)
    for story in told:
        verdict = check(story.text)
        total += 1
        valid += verdict.valid
        for key, value in grade(story.text)._asdict().items():
            counted[key] += value
        if not verdict.valid:
            print(one_line(f"{story.where}: {verdict.message}"))
    print(
        f"{valid:,} of {total:,} stories are the grammar's; in form: {counted['form']:,} stories, "
        f"{counted['in_form']:,} of {counted['sentences']:,} sentences; "
        f"{counted['matches']:,} of {counted['references']:,} references agree"
    )
    if valid < total:
        raise typer.Exit(1)


def export(run: Run, out: Path, tokens: RunTokens = None, params: RunParams = None) -> None:
    """Write a run as a model of Hugging Face's transformers.

    Reads RUN with its weights, and the folder TOKENS. Writes the model and its tokenizer
    into the folder OUT.

    Example: squentropy export checkpoints/grammar/final/cross_entropy/seed1 exported
    """
    study = study_of(run, params)

    from squentropy.tools.huggingface.export import export

    for warning in export(study, run, tokens_of(run, tokens, study), out):
        say(f"{run}: {warning}")
    print(out)


def score(
    model: Path,
    data: Data,
    results: Annotated[
        Path | None, typer.Option(help="Folder of baselines.csv; else results/NAME of data/NAME.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the row; else the folder's.")] = None,
    params: Params = None,
) -> None:
    """Score a model of Hugging Face's on the test stories.

    Reads the folders MODEL and DATA. Writes a row of RESULTS/baselines.csv.

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


def judge(
    results: Results,
    model: Annotated[str, typer.Option(help="The judge, as its endpoint calls it.")],
    stories: Annotated[int, typer.Option(min=1, help="Stories a loss and temperature.")] = 12,
) -> None:
    """Let a language model grade a study's stories.

    Reads the stories of RESULTS. Writes RESULTS/judge.csv, and each answer into
    RESULTS/judge.jsonl, from where the same command goes on.

    Needs OPENAI_API_KEY in the environment, and OPENAI_BASE_URL for an endpoint that is not
    OpenAI's. No part of the study; its report, made anew, shows the grades.

    Example: squentropy judge results/grammar --model gpt-4o
    """
    from squentropy.report.read import GRADES
    from squentropy.tools.judge import judge

    for row in judge(results_of(results), model, stories):
        grades = ", ".join(f"{grade} {row[grade]:.1f}" for grade in GRADES)
        print(f"{row['loss']}, temperature {row['temperature']:g}: {grades}")
