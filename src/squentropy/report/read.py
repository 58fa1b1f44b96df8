"""Read a study's results from results/STUDY: the only source of figures and report.

Nothing else is read, so the small committed tables suffice to regenerate both.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypedDict, cast

import pandas as pd

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.base.kinds import Chosen, VoicesRecord
from squentropy.report.catalogue import FEWEST
from squentropy.report.format import percent
from squentropy.results import adequacy
from squentropy.study import params
from squentropy.study.catalogue import label as label
from squentropy.study.catalogue import loss_info
from squentropy.study.overlays import differences
from squentropy.study.params import BASELINE

BASELINES = [  # of baselines.csv, written by `squentropy score`; units: tools/huggingface/score.py
    "name", "model", "parameters", "context", "vocab_size", "same_tokens", "stories", "bytes",
    "tokens", "nll", "ppl", "bits_per_byte", "nats_per_story",
]  # fmt: skip

GRADES = ("grammar", "creativity", "consistency", "plot")
JUDGE = [  # of judge.csv, written by `squentropy judge`: grades from 1 to 10, with intervals
    "loss", "temperature", "model", "stories",
    *(f"{grade}{end}" for grade in GRADES for end in ("", "_low", "_high")),
    "samples_sha256",
]  # fmt: skip

NGRAMS = {"unigram": 1, "bigram": 2, "trigram": 3, "4-gram": 4, "5-gram": 5}
"""The yardsticks of kind "ngram" in metrics.csv, and their orders."""


class Split(TypedDict):
    stories: int
    bytes: int
    tokens: int


class Corpus(TypedDict):
    """corpus.json; nll in nats per token."""

    source: str
    licence: str
    splits: dict[str, Split]
    vocab_size: int
    unigram_nll: float
    source_nll: float | None
    source_nll_se: float | None


class Sample(TypedDict):
    """A story of samples.json."""

    phase: str
    loss: str
    seed: int
    prompt: str
    temperature: float
    top_k: int | None
    reading: str
    number: int
    text: str
    tokens: int
    ended: bool


@dataclass(frozen=True)
class Results:
    """The tables of a study as data frames, the rest as plain values; units are in tables.py."""

    study: params.Study
    corpus: Corpus
    selected: dict[str, Chosen]
    samples: list[Sample]
    voices: VoicesRecord
    sweep: pd.DataFrame
    refine: pd.DataFrame
    history: pd.DataFrame
    metrics: pd.DataFrame
    """The losses of metrics.csv, indexed by loss, in the order of the parameters."""
    yardsticks: pd.DataFrame
    """The other rows of metrics.csv, indexed by name: n-gram models, xz and the source entropy."""
    readings: pd.DataFrame
    lengths: pd.DataFrame
    reported: pd.DataFrame
    stories: pd.DataFrame
    calibration: pd.DataFrame
    profile: pd.DataFrame
    certainty: pd.DataFrame
    """Empty if the source's next-token distribution is unknown."""
    quality: pd.DataFrame
    theory: pd.DataFrame
    baselines: pd.DataFrame
    """External models on the same test stories; empty if none was scored."""
    judged: pd.DataFrame
    """A language model's grades of the sampled stories; empty if there are none."""

    @property
    def confidence(self) -> str:
        """Confidence level of the intervals, as "95 %"."""
        return percent(self.study.evaluate.confidence)

    @property
    def losses(self) -> list[str]:
        return list(self.study.sweep.losses)

    @cached_property
    def ranked(self) -> list[str]:
        """Losses by ascending test nll; those without one come last."""
        return list(self.metrics["nll"].sort_values(kind="stable").index)

    @cached_property
    def scored(self) -> list[str]:
        """Ranked losses with a test nll: at least one final run did not diverge."""
        return [loss for loss in self.ranked if pd.notna(self.metrics.at[loss, "nll"])]

    @cached_property
    def compared(self) -> list[str]:
        """Ranked losses with at least one seed that finished for cross entropy too."""
        return [loss for loss in self.ranked if pd.notna(self.metrics.at[loss, "difference"])]

    @cached_property
    def linked(self) -> list[str]:
        """Losses of the study that have their own link."""
        return [loss for loss in self.losses if loss_info(loss).link]

    @cached_property
    def adequacy(self) -> adequacy.Adequacy:
        """Whether the models have learnt enough to rank the losses, and if not, why."""
        scored = BASELINE in self.scored
        return adequacy.judge(
            float(self.metrics.at[BASELINE, "nll"]) if scored else None,
            self.ngrams,
            order=self.study.plan.ngram,
            unigram=self.ngrams[1],
            limit=self.corpus["source_nll"],
            by_tokens=self.curve(BASELINE),
            steepest=self.study.plan.steepest,
        )

    @cached_property
    def ngrams(self) -> dict[int, float]:
        """{order: test nll, nats per token} of the n-gram models of the train split."""
        return {
            NGRAMS[name]: float(nll)
            for name, nll in self.yardsticks["nll"].items()
            if name in NGRAMS and pd.notna(nll)
        }

    def curve(self, loss: str) -> dict[int, float]:
        """{training tokens: test nll, nats per token}, each length with its own schedule."""
        rows = self.lengths[self.lengths["loss"] == loss]
        return rows.groupby("tokens")["nll"].mean().to_dict()

    def reading(self, loss: str) -> str:
        """A loss's primary reading: own, or the plan's."""
        return self.selected[loss]["reading"]

    def readings_of(self, loss: str) -> list[str]:
        """The readings of a loss's final runs; empty if all diverged."""
        return list(dict.fromkeys(self.calibration["reading"][self.calibration["loss"] == loss]))

    def read_as(self, loss: str, reading: str) -> pd.Series | None:
        """The row of readings.csv, at the plan's floor if the reading has one."""
        rows = self.readings
        rows = rows[(rows["loss"] == loss) & (rows["reading"] == reading)]
        rows = rows[rows["floor"].isna() | (rows["floor"] == self.study.evaluate.link_floor)]
        return None if rows.empty else rows.iloc[0]

    @property
    def side_by_side(self) -> pd.DataFrame:
        """Baselines and losses by ascending bits per byte; columns as in baselines.csv.

        Empty if there are no baselines.
        """
        if self.baselines.empty:
            return self.baselines
        m, test = self.metrics.loc[self.scored], self.corpus["splits"]["test"]
        # no temperature, as for the other models
        own = m["reading"] == "own"
        nll, ppl, bits = (
            m[name].where(own, m[f"test_{name}"]) for name in ("nll", "ppl", "bits_per_byte")
        )
        losses = pd.DataFrame({
            "name": [label(loss) for loss in m.index],
            "parameters": m["parameters"],
            "same_tokens": True,
            "nll": nll,
            "ppl": ppl,
            "bits_per_byte": bits,
            "nats_per_story": nll * test["tokens"] / test["stories"],
        })  # fmt: skip
        return pd.concat([self.baselines, losses]).sort_values("bits_per_byte", kind="stable")

    @property
    def test_stories(self) -> pd.Series:
        """The row of quality.csv for the test stories."""
        return self.quality[self.quality["temperature"].isna()].iloc[0]

    def floor(self, loss: str, contexts: str) -> pd.Series | None:
        """The row of theory.csv for a loss at the study's vocabulary size, if there is one."""
        rows = self.theory[
            (self.theory["loss"] == loss)
            & (self.theory["contexts"] == contexts)
            & (self.theory["classes"] == self.corpus["vocab_size"])
        ]
        return None if rows.empty else rows.iloc[0]

    @cached_property
    def doses(self) -> dict[str, dict[str, float]]:
        """{function: {loss: weight of its square term}} of compared losses, by rising weight.

        Only functions with two or more compared weights.
        """
        known = self.theory.drop_duplicates("loss").set_index("loss")["weight"]
        families: dict[str, dict[str, float]] = {}
        for loss, weight in known.sort_values(kind="stable").items():
            if loss in self.compared:
                families.setdefault(loss_info(loss).function, {})[loss] = float(weight)
        return {name: family for name, family in families.items() if len(family) > 1}

    def optimum(self, loss: str) -> float | None:
        """Test nll at the optimum of a form of squentropy, nats per token, if known.

        Under plain softmax, for a model that sees whole stories and reaches the optimum.
        """
        floor = self.floor(loss, "whole")
        return None if floor is None else self.corpus["source_nll"] + floor["kl"]

    def by_story(self, loss: str, column: str) -> pd.DataFrame:
        """A column of stories.csv for a loss's final runs, (seeds, stories)."""
        rows = self.stories[(self.stories["phase"] == "final") & (self.stories["loss"] == loss)]
        return rows.pivot(index="seed", columns="story", values=column)

    def by_bin(self, loss: str, reading: str, by: str, fewest: int = FEWEST) -> pd.DataFrame:
        """nll of a loss's final runs, nats per token: (bins of position or frequency, seeds).

        Indexed by lower edge, without bins that have too few tokens over all runs.
        """
        p = self.profile
        rows = p[(p["loss"] == loss) & (p["reading"] == reading) & (p["by"] == by)]
        rows = rows[rows.groupby("low")["tokens"].transform("sum") >= fewest]
        rows = rows.assign(nll=rows["nll"] / rows["tokens"])
        return rows.pivot(index="low", columns="seed", values="nll")

    def by_certainty(self, loss: str, column: str) -> pd.DataFrame:
        """Sums over token positions per bin of the source's entropy: (bins, seeds).

        Indexed by lower edge, nats.
        """
        rows = self.certainty[self.certainty["loss"] == loss]
        return rows.pivot(index="low", columns="seed", values=column)

    def by_seed(self, loss: str) -> pd.DataFrame:
        """A loss's final runs on test, indexed by seed: nll (nats per token) and accuracy."""
        sums = {c: self.by_story(loss, c).sum(axis=1) for c in ("nll", "correct", "tokens")}
        return pd.DataFrame(
            {"nll": sums["nll"] / sums["tokens"], "accuracy": sums["correct"] / sums["tokens"]}
        )


NO_VOICES: VoicesRecord = {"pattern": "", "vocabulary": [], "voices": [], "story": None}


def read(folder: str | Path, texts: bool = True) -> Results:
    """Read a results folder; with `texts`, also the stories and models that the report shows.

    Raises SquentropyError if a file is missing or damaged, or if the tables and params.yaml
    disagree.
    """
    folder = Path(folder)
    if not (folder / "manifest.json").exists():
        raise SquentropyError(f"{folder}: holds no manifest.json of results; run the study first")
    study = params.load([folder / "params.yaml"])
    manifest = storage.read_sealed(folder / "manifest.json")
    changed = differences(manifest["params"], study.table_keys())
    if changed:
        raise SquentropyError(
            f"{folder}: the tables were made with other {', '.join(changed)} than params.yaml "
            "beside them says; run the study again"
        )
    names = [name for name in params.TABLES if texts or name not in params.TEXTS]
    for name in names:
        if name not in manifest["sha256"]:
            raise SquentropyError(
                f"{folder}: is of an earlier version, which made no {name}; run the study again"
            )
        storage.verified(folder / name, manifest["sha256"][name])

    def table(name: str) -> pd.DataFrame:
        return pd.read_csv(folder / f"{name}.csv")

    corpus = cast(Corpus, storage.read_sealed(folder / "corpus.json"))
    metrics = table("metrics").set_index("loss")
    losses = metrics["kind"] == "loss"
    return Results(
        study=study,
        corpus=corpus,
        selected=storage.read_sealed(folder / "selected.json")["losses"],
        samples=json.loads(storage.read_bytes(folder / "samples.json")) if texts else [],
        voices=storage.read_sealed(folder / params.VOICES) if texts else NO_VOICES,
        sweep=table("sweep"),
        refine=table("refine"),
        history=table("history"),
        metrics=metrics[losses],
        yardsticks=metrics[~losses],
        readings=table("readings"),
        lengths=table("lengths"),
        reported=table("reported"),
        stories=table("stories"),
        calibration=table("calibration"),
        profile=table("profile"),
        certainty=table("certainty"),
        quality=table("quality"),
        theory=table("theory"),
        baselines=_baselines(folder, corpus["splits"]["test"]),
        judged=_judged(folder, manifest["sha256"]["samples.json"]),
    )


def _baselines(folder: Path, test: Split) -> pd.DataFrame:
    """Raises SquentropyError if a row was scored on other test stories."""
    rows = read_baselines(folder)
    for row in rows.itertuples():
        if (row.stories, row.bytes) != (test["stories"], test["bytes"]):
            raise SquentropyError(
                f"{folder / 'baselines.csv'}: {row.name} was scored on other stories than these "
                "results; run `squentropy score` again, or delete its row"
            )
    return rows


def read_baselines(folder: Path) -> pd.DataFrame:
    """Read baselines.csv of a folder; no rows if the file does not exist.

    Raises SquentropyError if the file is not a table of baselines.
    """
    return _asked_for(folder / "baselines.csv", BASELINES, "score")


def _judged(folder: Path, samples_sha256: str) -> pd.DataFrame:
    """Raises SquentropyError if other stories were graded."""
    path = folder / "judge.csv"
    rows = _asked_for(path, JUDGE, "judge")
    if (rows["samples_sha256"] != samples_sha256).any():
        raise SquentropyError(
            f"{path}: grades other stories than these results hold; run `squentropy judge` again, "
            "or delete it"
        )
    return rows


def _asked_for(path: Path, columns: list[str], command: str) -> pd.DataFrame:
    """An optional table, written by a separate command."""
    if not path.exists():
        return pd.DataFrame(columns=columns)
    text = dict.fromkeys(("name", "model", "loss", "samples_sha256"), str)
    unknown = {column: [""] for column in columns if column not in text}
    try:  # a model may be called "nan"
        rows = pd.read_csv(
            storage.plain(path), dtype=text, keep_default_na=False, na_values=unknown
        )
    except ValueError:  # pandas' parser errors are ValueErrors
        rows = pd.DataFrame()
    if list(rows.columns) != columns:
        raise SquentropyError(
            f"{path}: is not as `squentropy {command}` writes it; delete it, and ask again"
        )
    return rows
