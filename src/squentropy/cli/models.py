"""Commands for trained models and for stories. They are not steps of a study."""

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
        typer.Option(help="Beginning of a story; repeatable. Default: the study's prompts."),
    ] = None,
    tokens: RunTokens = None,
    params: RunParams = None,
    temperature: Annotated[
        float | None, typer.Option(help="0: greedy. Default: the middle one of the study's.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="0: all tokens. Default: the study's.")] = None,
    max_tokens: Annotated[
        int | None, typer.Option(help="New tokens per story. Default: the study's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Sampling seed. Default: the study's.")] = None,
    stories: Annotated[int, typer.Option(help="Stories per prompt.")] = 1,
) -> None:
    """Generate stories in the terminal from your own prompts.

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
    text: Annotated[str, typer.Option(help="Key or column of the story text.")] = "text",
    separator: Annotated[str, typer.Option(help="Separator between the stories of a .txt.")] = (
        "<|endoftext|>"
    ),
) -> None:
    """Check whether stories follow the grammar.

    Reads FILE, or standard input as .txt if FILE is -. Writes nothing.

    For each story that does not, prints where it leaves the grammar and why; the exit code is then
    1. The last line counts stories, references and sentences as in quality.csv.

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
        f"{valid:,} of {total:,} stories follow the grammar; in form: {counted['form']:,} stories, "
        f"{counted['in_form']:,} of {counted['sentences']:,} sentences; "
        f"{counted['matches']:,} of {counted['references']:,} references agree"
    )
    if valid < total:
        raise typer.Exit(1)


def export(run: Run, out: Path, tokens: RunTokens = None, params: RunParams = None) -> None:
    """Export a run as a model for Hugging Face's transformers.

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
        Path | None,
        typer.Option(help="Folder of baselines.csv. Default: results/NAME for data/NAME."),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name in the table. Default: the folder's name.")
    ] = None,
    params: Params = None,
) -> None:
    """Score a Hugging Face model on the test stories.

    Reads the folders MODEL and DATA. Writes a row of RESULTS/baselines.csv.

    `show` and the report list it as a baseline next to the losses. To update the report, run
    snakemake --cores all report. Requires transformers: pip install 'squentropy[hf]'.

    Example: squentropy score exported --data data/grammar
    """
    study = load(params)

    from squentropy.tools.huggingface.score import score

    results = results or Path("results", data.resolve().name)
    row = score(study, model, data, results, name or model.resolve().name)
    print(
        f"{row['name']}: test nll {row['nll']:.4f} nats per token "
        f"({'the study' if row['same_tokens'] else 'the model'}'s tokens), "
        f"{row['bits_per_byte']:.4f} bits per byte, {row['nats_per_story']:.2f} nats per story"
    )


def judge(
    results: Results,
    model: Annotated[str, typer.Option(help="The judge's name at the endpoint.")],
    stories: Annotated[int, typer.Option(min=1, help="Stories per loss and temperature.")] = 12,
) -> None:
    """Grade a study's stories with a language model.

    Reads the stories of RESULTS. Writes RESULTS/judge.csv, and each answer into
    RESULTS/judge.jsonl, from which the same command resumes.

    Requires OPENAI_API_KEY in the environment, and OPENAI_BASE_URL for endpoints other than
    OpenAI's. Not a step of the study, but the next report shows the grades.

    Example: squentropy judge results/grammar --model gpt-4o
    """
    from squentropy.report.read import GRADES
    from squentropy.tools.judge import judge

    for row in judge(results_of(results), model, stories):
        grades = ", ".join(f"{grade} {row[grade]:.1f}" for grade in GRADES)
        print(f"{row['loss']}, temperature {row['temperature']:g}: {grades}")
