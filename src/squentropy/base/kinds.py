"""Types for the contents of a study's files. For annotations only: nothing here is executed.

    corpus/manifest.json       CorpusManifest
    tokens/manifest.json       TokensManifest
    RUN/run.json               RunRecord
    RUN/test.json              ScoresRecord
    RUN/samples.json           SamplesRecord
    refine/LOSS/refine.json    RefineRecord
    results/selected.json      SelectedRecord
    results/manifest.json      ResultsManifest
    results/corpus.json        CorpusRecord
    results/voices.json        VoicesRecord
    row of a .csv              Row

Code that reads a file annotates the result with one of these types without checking the fields: the
file's seal and origin have shown that this program wrote it.
"""

from typing import Any, NotRequired, TypedDict

Parameters = dict[str, Any]
"""Parameters as `model_dump` returns them: nested mappings down to numbers and text."""

Row = dict[str, Any]
"""A row of a table: text, numbers and None, by column."""


class Counts(TypedDict):
    """How many stories of a split were read, kept and dropped."""

    read: int
    kept: int
    dropped: dict[str, int]
    kept_with: dict[str, int]


class CorpusFile(TypedDict):
    """A split of a corpus: the number of stories, UTF-8 bytes and the sha256 of the file."""

    stories: int
    bytes: int
    sha256: str


class CorpusSplit(CorpusFile):
    counts: Counts


class CorpusManifest(TypedDict):
    source: str
    licence: str
    provenance: dict[str, Any]
    cut: dict[str, int] | None
    rules: Parameters
    splits: dict[str, CorpusSplit]


class TokensSplit(TypedDict):
    stories: int
    tokens: int
    sha256: str
    offsets_sha256: str


class TokensManifest(TypedDict):
    encoding: str
    vocab_size: int
    end_of_text: int
    encoding_sha256: str
    corpus_sha256: str
    splits: dict[str, TokensSplit]


class CellRecord(TypedDict):
    """The fields of a params.Cell."""

    phase: str
    loss: str
    lr: float
    dropout: float
    n_layer: int
    seed: int
    iterations: int | None


class CellOrigin(TypedDict):
    """The part of a run's origin that is known without its tokens."""

    cell: CellRecord
    params: Parameters
    code: dict[str, str]


class RunRecord(CellOrigin):
    tokens_sha256: str
    vocab_size: int
    parameters: int
    status: str
    """ok or diverged"""
    iterations: int
    diverged_at: int | None
    train_loss: float | None
    train_nll: float | None
    validation_nll: float | None
    """None if the run diverged, as are the next two."""
    validation_tempered_nll: float | None
    """None also if no temperature was fitted."""
    validation_accuracy: float | None
    history_sha256: str
    model_sha256: str | None
    """None if the weights were not kept."""


class Made(TypedDict):
    """The origin of a file that was made from a run."""

    run_sha256: str
    params: Parameters
    code: dict[str, str]


class StoryScores(TypedDict):
    """One number per story."""

    tokens: list[int]
    bytes: list[int]
    correct: NotRequired[list[int]]
    top5: NotRequired[list[int]]


class Reading(TypedDict):
    """A run's metrics under one reading of its outputs; for a shorter run, only the nll."""

    nll: list[float]
    brier: NotRequired[float]
    ece: NotRequired[float]
    calibration: NotRequired[dict[str, list[float]]]


class Estimate(TypedDict):
    nll: float
    loss: float


class ScoresRecord(Made):
    """Measures that were not taken, for shorter or diverged runs, are absent."""

    split: str
    status: str
    original_estimate: NotRequired[Estimate]
    temperature: NotRequired[float]
    stories: NotRequired[StoryScores]
    readings: NotRequired[dict[str, Reading]]
    profile: NotRequired[dict[str, dict[str, list[float]]]]
    certainty: NotRequired[dict[str, list[float]]]


class ToldStory(TypedDict):
    phase: str
    loss: str
    seed: int
    prompt: str
    temperature: float
    top_k: int
    reading: str
    number: int
    text: str
    tokens: int
    ended: bool


class SamplesRecord(Made):
    stories: list[ToldStory]


class Hyperparameters(TypedDict):
    lr: float
    dropout: float
    n_layer: int


class Chosen(Hyperparameters):
    """The hyperparameters selected for a loss, and how they were selected."""

    reading: str
    validation_nll: float | None
    selection_nll: float | None
    """None if every run diverged."""
    inside: bool
    """Whether the best learning rate lies between two others that were tried."""
    edge: list[str]
    """The hyperparameters at either end of the values tried."""
    runs: int
    max_runs_reached: bool
    diverged: int
    sweep: Hyperparameters


class RefineRecord(TypedDict):
    params: Parameters
    runs: list[RunRecord]
    losses: dict[str, Chosen]


class SelectedRecord(TypedDict):
    sha256: dict[str, str]
    runs_sha256: str
    code: dict[str, str]
    labels: str
    losses: dict[str, Chosen]


class ResultsManifest(TypedDict):
    params: Parameters
    code: dict[str, str]
    labels: str
    sha256: dict[str, str]


class SplitSize(TypedDict):
    stories: int
    bytes: int
    tokens: int


class CorpusRecord(TypedDict):
    source: str
    licence: str
    splits: dict[str, SplitSize]
    encoding: str
    vocab_size: int
    unigram_nll: float
    source_nll: float | None
    source_nll_se: float | None


class PackedTensor(TypedDict):
    """A matrix as int8 with one scale per row, or a vector as float32; little-endian base64."""

    shape: list[int]
    int8: NotRequired[str]
    scales: NotRequired[str]
    float32: NotRequired[str]


class PackedModel(TypedDict):
    config: dict[str, Any]
    """The fields of a model.Config, in the standard parametrization."""
    tensors: dict[str, PackedTensor]
    """By parameter name."""


class Rounding(TypedDict):
    """The effect of rounding a model's weights, measured on the beginnings of some test stories."""

    error: float
    """The largest change of a logit."""
    cost: float
    """The rise in nll under the primary reading, in nats per token."""
    tokens: int


class Voice(PackedModel):
    """The model of a final run, for the page."""

    loss: str
    seed: int
    run: str
    """Its folder below checkpoints/STUDY."""
    run_sha256: str
    temperature: float
    """Of its primary reading; 1 for the softmax."""
    rounding: Rounding


class ReadStory(TypedDict):
    """A test story for the page's models to read."""

    ids: list[int]
    exact: list[tuple[float, list[tuple[int, float]]]]
    """For each token, its probability under the source and the (id, probability) of the likeliest.
    """


class VoicesRecord(TypedDict):
    pattern: str
    """The pattern that splits text into words before merges; see tokenizer.py."""
    vocabulary: list[str]
    """The bytes of each token except the end of text, by rank, as characters."""
    voices: list[Voice]
    story: ReadStory | None
    """None if the source's own predictions are not known."""
