"""A study's parameters, typed and checked, and its grid as a list of cells.

`params.yaml` contains the complete default study; the files in `studies/` override parts of it.
Parameters have no defaults: a missing key is an error, so the files show everything that a study
uses. The exception is `model.parametrization`, which older studies and runs, all standard, lack.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator

from squentropy.base.errors import ParameterError
from squentropy.study.catalogue import PHASES as PHASES
from squentropy.study.catalogue import SPLITS as SPLITS
from squentropy.study.catalogue import known_losses as known_losses
from squentropy.study.catalogue import loss_info
from squentropy.study.corpus import Corpus as Corpus
from squentropy.study.grid import GRID_KEYS, Cell, Grid, Point
from squentropy.study.kinds import (
    Loss,
    NaturalInt,
    Positive,
    PositiveInt,
    Section,
    Seed,
    Temperature,
    Text,
    Threads,
    Values,
    Width,
    distinct,
)
from squentropy.study.overlays import overlay
from squentropy.study.parameter_errors import explain
from squentropy.study.yaml_file import read

BASELINE = "cross_entropy"  # the loss with which the others are compared
SELECTION_TABLES = ("sweep.csv", "refine.csv", "selected.json")
"""Written by `select`, before any final run."""
VOICES = "voices.json"
"""Written by `voices`, from final runs."""
TABLES = (  # of results/STUDY
    *SELECTION_TABLES, "metrics.csv", "metrics.json", "readings.csv",
    "lengths.csv", "reported.csv", "history.csv", "stories.csv", "calibration.csv", "profile.csv",
    "certainty.csv", "corpus.json", "samples.json", "samples.md", "quality.csv", "theory.csv",
    VOICES,
)  # fmt: skip
TEXTS = ("samples.json", "samples.md", VOICES)
"""The `TABLES` with generated stories, left out if the corpus's licence forbids showing them."""


class Tokens(Section):
    encoding: Literal["bpe", "gpt2"]
    vocab_size: Annotated[int, Field(ge=257, le=65536)]


class Model(Section):
    n_embd: Width
    n_head: Width
    block_size: Annotated[int, Field(ge=2, le=1_000_000)]
    bias: bool
    positions: Literal["learned", "alibi"]
    parametrization: Literal["standard", "mup"] = "standard"

    @model_validator(mode="after")
    def _heads_divide(self) -> "Model":
        if self.n_embd % self.n_head:
            most = min(self.n_head, self.n_embd)
            fits = next(h for h in range(most, 0, -1) if self.n_embd % h == 0)
            raise ValueError(
                f"n_embd {self.n_embd} is not divisible by n_head {self.n_head}; "
                f"n_head {fits} would do"
            )
        return self

    def keys(self) -> dict:
        """The keys that weights depend on, without defaults, which runs older than a key lack."""
        return self.model_dump(exclude_defaults=True)


class Train(Section):
    device: Literal["auto", "cpu", "cuda", "mps"]
    dtype: Literal["auto", "float32", "bfloat16"]
    compile: Literal["auto", "always", "never"]
    processes: PositiveInt
    runs_per_gpu: PositiveInt
    threads: Threads
    batch_size: PositiveInt
    accumulation: PositiveInt
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    beta1: Annotated[float, Field(ge=0, lt=1)]
    beta2: Annotated[float, Field(ge=0, lt=1)]
    grad_clip: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    min_lr_ratio: Annotated[float, Field(ge=0, le=1)]
    divergence: Annotated[float, Field(gt=1, allow_inf_nan=False)]
    state_interval: PositiveInt

    @model_validator(mode="after")
    def _processes_share(self) -> "Train":
        if self.accumulation % self.processes:
            raise ValueError(
                f"accumulation {self.accumulation} is not divisible by processes {self.processes}; "
                f"write a multiple of {self.processes}, the number of batches per iteration"
            )
        if self.processes > 1 and self.runs_per_gpu > 1:
            raise ValueError(
                "processes and runs_per_gpu are both more than 1; a run uses either several GPUs "
                "or part of one, so write 1 for one of them"
            )
        return self

    def keys(self) -> dict:
        """The keys that weights depend on."""
        return self.model_dump(exclude={"runs_per_gpu", "state_interval"})


class Schedule(Section):
    """How long the runs of a phase train and how often they are evaluated, in iterations."""

    max_iters: PositiveInt
    warmup_iters: NaturalInt
    eval_interval: PositiveInt
    eval_stories: PositiveInt

    @model_validator(mode="after")
    def _warmup_ends(self) -> "Schedule":
        if self.warmup_iters >= self.max_iters:
            raise ValueError(
                f"warmup_iters {self.warmup_iters} is not below max_iters {self.max_iters}; "
                "the learning rate would never be reached"
            )
        return self


class Sweep(Grid, Schedule):
    losses: Values[Loss]
    seed: Seed
    keep_weights: bool


class Refine(Schedule):
    factor: Annotated[float, Field(ge=1.1, le=2.5)]
    max_runs: Annotated[int, Field(ge=3, le=1000)]
    tie: Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Reported(Point):
    loss: Loss


class Final(Schedule):
    seeds: Values[Seed]
    lengths: Annotated[list[PositiveInt], AfterValidator(distinct)]
    length_seeds: PositiveInt
    reported: Reported | None

    @model_validator(mode="after")
    def _lengths_are_shorter(self) -> "Final":
        for length in self.lengths:
            if length >= self.max_iters:
                raise ValueError(
                    f"lengths contains {length}, which is not below max_iters {self.max_iters}; "
                    "the full length is trained anyway"
                )
        if self.length_seeds > len(self.seeds):
            raise ValueError(
                f"length_seeds {self.length_seeds} is more than the number of seeds; write "
                f"{len(self.seeds)} or less"
            )
        return self


Floor = Annotated[float, Field(gt=0, le=0.01, allow_inf_nan=False)]


class Evaluate(Section):
    batch_tokens: PositiveInt
    original_batches: PositiveInt
    bootstrap: Annotated[int, Field(ge=100, le=10_000_000)]
    bootstrap_seed: Seed
    confidence: Annotated[float, Field(gt=0, lt=1)]
    bins: Annotated[int, Field(ge=2, le=1000)]
    link_floor: Floor
    other_floors: Annotated[list[Floor], AfterValidator(distinct)]

    def scoring_keys(self) -> dict:
        """The keys that a run's scores depend on; the others are for tables."""
        return self.model_dump(exclude={"bootstrap", "bootstrap_seed", "confidence"})

    def resampling(self) -> dict:
        """The settings of the bootstrap intervals, as arguments for results/intervals.py."""
        return {
            "resamples": self.bootstrap,
            "confidence": self.confidence,
            "seed": self.bootstrap_seed,
        }


class Plan(Section):
    """What is claimed and by which criteria, fixed before the test split is read."""

    reading: Literal["softmax", "tempered"]
    smallest_p: Annotated[float, Field(ge=0, lt=1)]
    ngram: Annotated[int, Field(ge=1, le=5)]
    steepest: Annotated[float, Field(gt=0, le=1)]


class Sample(Section):
    prompts: Values[Text]
    temperatures: Values[Temperature]
    stories: Annotated[int, Field(ge=1, le=100_000)]
    top_k: NaturalInt
    max_tokens: Annotated[int, Field(ge=1, le=1_000_000)]
    seed: Seed

    @property
    def middle(self) -> float:
        """The middle temperature by size, the higher of two; used if only one is shown."""
        return sorted(self.temperatures)[len(self.temperatures) // 2]


class Theory(Section):
    weights: Values[Positive]


NOT_TUNED = dict.fromkeys(GRID_KEYS)


class Study(Section):
    """All parameters of a study."""

    study: Annotated[str, StringConstraints(max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
    corpus: Corpus
    tokens: Tokens
    model: Model
    train: Train
    sweep: Sweep
    refine: Refine
    final: Final
    evaluate: Evaluate
    plan: Plan
    sample: Sample
    theory: Theory

    def schedule(self, phase: str, iterations: int | None = None) -> Schedule:
        """A phase's schedule; a shorter length warms up for the same fraction of its iterations."""
        if phase != "lengths":
            return {"sweep": self.sweep, "refine": self.refine}.get(phase, self.final)
        full = self.final
        length = full.lengths[0] if iterations is None else iterations
        return Schedule(
            max_iters=length,
            warmup_iters=full.warmup_iters * length // full.max_iters,
            eval_interval=full.eval_interval,
            eval_stories=full.eval_stories,
        )

    def tokens_trained(self, phase: str, iterations: int | None = None) -> int:
        """The number of tokens on which a run of a phase trains."""
        each = self.train.accumulation * self.train.batch_size * self.model.block_size
        return self.schedule(phase, iterations).max_iters * each

    def primary(self, loss: str) -> str:
        """The reading by which a loss is tuned and judged: its own link, or the plan's reading."""
        return "own" if loss_info(loss).link else self.plan.reading

    def sweep_cells(self) -> list[Cell]:
        """All cells of the grid, in the order of the parameters."""
        return [
            Cell("sweep", loss, **point, seed=self.sweep.seed)
            for loss in self.sweep.losses
            for point in self.sweep.points()
        ]

    def final_cells(self, selected: dict[str, dict]) -> list[Cell]:
        """The final runs: each loss with its selected {lr, dropout, n_layer}, once per seed.

        The hyperparameters are None for a loss that is missing from `selected`.
        """
        return [
            Cell("final", loss, **selected.get(loss, NOT_TUNED), seed=seed)
            for loss in self.sweep.losses
            for seed in self.final.seeds
        ]

    def voice_cells(self) -> list[Cell]:
        """The final runs whose models the report may include: the first seed of each loss whose
        outputs are logits. Their hyperparameters are None."""
        return [
            cell
            for cell in self.final_cells({})
            if cell.seed == self.final.seeds[0] and not loss_info(cell.loss).link
        ]

    def length_cells(self, selected: dict[str, dict]) -> list[Cell]:
        """The shorter runs of the first `length_seeds` seeds; see `final_cells`."""
        return [
            Cell("lengths", loss, **selected.get(loss, NOT_TUNED), seed=seed, iterations=length)
            for loss in self.sweep.losses
            for length in self.final.lengths
            for seed in self.final.seeds[: self.final.length_seeds]
        ]

    def reported_cells(self) -> list[Cell]:
        """The original study's reported optimum, with the first seed; empty if not requested."""
        if self.final.reported is None:
            return []
        return [
            Cell("reported", **self.final.reported.model_dump(), seed=seed)
            for seed in self.final.seeds[:1]
        ]

    def training_keys(self, phase: str, iterations: int | None = None) -> dict:
        """The parameters that a run's weights depend on, besides its cell, data and code.

        Snakemake reruns a job when they change, and a run records them.
        """
        keys = set(Schedule.model_fields)
        return {
            "model": self.model.keys(),
            "train": self.train.keys(),
            "schedule": self.schedule(phase, iterations).model_dump(include=keys),
            "evaluate": self.evaluate.model_dump(include={"link_floor"}),
        }

    def table_keys(self) -> dict:
        """The parameters that the tables depend on; the tables' manifest records them."""
        return {
            "corpus": self.corpus.relevant(),
            "model": self.model.keys(),
            "train": self.train.keys(),
            "sweep": self.sweep.model_dump(exclude={"keep_weights"}),
        } | self.model_dump(
            include={
                "study",
                "tokens",
                "refine",
                "final",
                "evaluate",
                "plan",
                "sample",
                "theory",
            }
        )

    def dump(self) -> str:
        """All parameters as YAML, after overlays."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def load(paths: Iterable[str | Path]) -> Study:
    """Read a base file and its overlays, in order. Raises ParameterError."""
    merged: dict[str, Any] = {}
    paths = list(paths)
    for path in paths:
        merged = overlay(merged, read(path))
    return parse(merged, where=str(paths[-1]))


def parse(values: dict, where: str = "parameters") -> Study:
    """Check parameters that have already been read. Raises ParameterError with one line."""
    return _checked(Study, values, where)


def make_cell(phase: str, where: str, **values) -> Cell:
    """A cell from a user's values. Raises ParameterError with one line."""
    return Cell(phase, **_checked(_CellValues, values, where).model_dump())


def with_sample(study: Study, values: dict) -> Study:
    """A study with a user's sampling settings. Raises ParameterError with one line."""
    return parse(overlay(study.model_dump(), {"sample": values}), where="sample")


class _CellValues(Reported):
    seed: Seed
    iterations: PositiveInt | None = None


S = TypeVar("S", bound=Section)


def _checked(section: type[S], values: dict, where: str) -> S:
    try:
        return section.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ParameterError(f"{where}: {explain(problems[0], Study)}{more}") from None
