"""What the files of a study hold, as types. For annotations alone: nothing here is executed.

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

Whoever reads a file says by one of these what it holds, as its seal and its origin have shown that
it was written by this program.
"""

from typing import Any, NotRequired, TypedDict

Parameters = dict[str, Any]
"""Parameters as `model_dump` gives them: sections by key, down to numbers and text."""

Row = dict[str, Any]
"""A table's row: text, numbers and None by column."""


class Counts(TypedDict):
    """What became of the stories of a split."""

    read: int
    kept: int
    dropped: dict[str, int]
    kept_with: dict[str, int]


class CorpusFile(TypedDict):
    """A split of a corpus: its stories, bytes of UTF-8 and the sha256 of the file."""

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
    """What of a run's origin is known without its tokens."""

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
    """None where it diverged, as in the next two."""
    validation_tempered_nll: float | None
    """None also where no temperature was fitted."""
    validation_accuracy: float | None
    history_sha256: str
    model_sha256: str | None
    """None where the weights were not kept."""


class Made(TypedDict):
    """The origin of a file that was made of a run."""

    run_sha256: str
    params: Parameters
    code: dict[str, str]


class StoryScores(TypedDict):
    """A number a story."""

    tokens: list[int]
    bytes: list[int]
    correct: NotRequired[list[int]]
    top5: NotRequired[list[int]]


class Reading(TypedDict):
    """A run's measures by one way to read its outputs; of a shorter run, the nll alone."""

    nll: list[float]
    brier: NotRequired[float]
    ece: NotRequired[float]
    calibration: NotRequired[dict[str, list[float]]]


class Estimate(TypedDict):
    nll: float
    loss: float


class ScoresRecord(Made):
    """What was not measured, of a shorter run or a diverged one, is not there."""

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
    """What was selected for a loss, and how."""

    reading: str
    validation_nll: float | None
    selection_nll: float | None
    """None if every run diverged."""
    inside: bool
    """Whether the best learning rate lies between two that were tried."""
    edge: list[str]
    """The hyperparameters at an end of the values that were tried."""
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
    """A matrix as int8 and a scale a row, or a vector as float32: little-endian, in base64."""

    shape: list[int]
    int8: NotRequired[str]
    scales: NotRequired[str]
    float32: NotRequired[str]


class PackedModel(TypedDict):
    config: dict[str, Any]
    """The fields of a model.Config, of the standard parametrization."""
    tensors: dict[str, PackedTensor]
    """By the names of the model's parameters."""


class Rounding(TypedDict):
    """What rounding a model's weights changes, on the beginnings of some test stories."""

    error: float
    """The most by which it moves a logit."""
    cost: float
    """By how much the nll of the primary reading rises, nats per token."""
    tokens: int


class Voice(PackedModel):
    """A final run's model, for the page."""

    loss: str
    seed: int
    run: str
    """Its folder below checkpoints/STUDY."""
    run_sha256: str
    temperature: float
    """Of its primary reading; 1 where that is the softmax."""
    rounding: Rounding


class ReadStory(TypedDict):
    """A test story for the page's models to read."""

    ids: list[int]
    exact: list[tuple[float, list[tuple[int, float]]]]
    """Of each token its probability under the source, and the likeliest ones with theirs."""


class VoicesRecord(TypedDict):
    pattern: str
    """What cuts text into the words that are merged; see tokenizer.py."""
    vocabulary: list[str]
    """The bytes of each token but the end of text, in the order of ranks, as characters."""
    voices: list[Voice]
    story: ReadStory | None
    """Where the source's own predictions are known."""
