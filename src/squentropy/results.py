"""A study's results, read back from results/STUDY: what the figures and the report are made of.

Nothing else is read, so a visitor with the small tables alone can redraw and rewrite everything.
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd

from squentropy import params, storage
from squentropy.errors import SquentropyError

FEWEST = 50  # tokens of a bin that is shown: fewer say little

_LABELS = {
    "cross_entropy": "cross entropy",
    "mse": "MSE",
    "mse_weighted": "weighted MSE",
    "squentropy": "squentropy",
    "squentropy_tenth": "squentropy × 0.1",
    "squentropy_weighted": "weighted squentropy",
    "z_loss": "z-loss",
    "brier": "Brier",
}


def label(loss: str) -> str:
    """A loss's name for a reader; an unknown one is its own name with spaces."""
    return _LABELS.get(loss, loss.replace("_", " "))


@dataclass(frozen=True)
class Results:
    """The tables of a study as data frames, the rest as plain values; units are in tables.py."""

    study: params.Study
    corpus: dict
    selected: dict[str, dict]
    samples: list[dict]
    sweep: pd.DataFrame
    history: pd.DataFrame
    metrics: pd.DataFrame
    """Indexed by loss, in the order of the parameters."""
    reported: pd.DataFrame
    stories: pd.DataFrame
    calibration: pd.DataFrame
    profile: pd.DataFrame

    @property
    def losses(self) -> list[str]:
        return list(self.study.sweep.losses)

    @cached_property
    def ranked(self) -> list[str]:
        """The losses from the lowest test nll to the highest; those without one last."""
        return list(self.metrics["test_nll"].sort_values(kind="stable").index)

    @cached_property
    def scored(self) -> list[str]:
        """The ranked losses that have a test nll: at least one final run did not diverge."""
        return [loss for loss in self.ranked if pd.notna(self.metrics.at[loss, "test_nll"])]

    def readings(self, loss: str) -> list[str]:
        """The ways in which a loss's final runs were read: none where all of them diverged."""
        return list(dict.fromkeys(self.calibration["reading"][self.calibration["loss"] == loss]))

    def own_reading(self, loss: str) -> str:
        """The reading that a loss's cell was selected by: inverse_link where it has one."""
        return self.selected[loss]["selected_by"]

    def by_story(self, loss: str, column: str) -> pd.DataFrame:
        """A column of stories.csv for a loss's final runs, (seeds, stories)."""
        rows = self.stories[(self.stories["phase"] == "final") & (self.stories["loss"] == loss)]
        return rows.pivot(index="seed", columns="story", values=column)

    def by_bin(self, loss: str, reading: str, by: str, fewest: int = FEWEST) -> pd.DataFrame:
        """nll of a loss's final runs, nats a token: (bins of position or frequency, seeds).

        Indexed by the bins' lower ends, without those of too few tokens in all runs together.
        """
        p = self.profile
        rows = p[(p["loss"] == loss) & (p["reading"] == reading) & (p["by"] == by)]
        rows = rows[rows.groupby("low")["tokens"].transform("sum") >= fewest]
        rows = rows.assign(nll=rows["nll"] / rows["tokens"])
        return rows.pivot(index="low", columns="seed", values="nll")

    def by_seed(self, loss: str) -> pd.DataFrame:
        """A loss's final runs on test, indexed by seed: nll (nats a token) and accuracy."""
        sums = {c: self.by_story(loss, c).sum(axis=1) for c in ("nll", "correct", "tokens")}
        return pd.DataFrame(
            {"nll": sums["nll"] / sums["tokens"], "accuracy": sums["correct"] / sums["tokens"]}
        )


def read(folder: str | Path) -> Results:
    """The results in a folder.

    Raises SquentropyError where a file is missing or damaged, or the tables are of other
    parameters than params.yaml beside them.
    """
    folder = Path(folder)
    if not (folder / "manifest.json").exists():
        raise SquentropyError(f"{folder}: holds no manifest.json of results; run the study first")
    study = params.load([folder / "params.yaml"])
    manifest = storage.read_sealed(folder / "manifest.json")
    changed = params.differences(manifest["params"], study.table_keys())
    if changed:
        raise SquentropyError(
            f"{folder}: the tables were made with other {', '.join(changed)} than params.yaml "
            "beside them says; run the study again"
        )
    for name in params.TABLES:
        storage.verified(folder / name, manifest["sha256"][name])

    def table(name: str) -> pd.DataFrame:
        return pd.read_csv(folder / f"{name}.csv")

    return Results(
        study=study,
        corpus=storage.read_sealed(folder / "corpus.json"),
        selected=storage.read_sealed(folder / "selected.json")["losses"],
        samples=json.loads(storage.read_bytes(folder / "samples.json")),
        sweep=table("sweep"),
        history=table("history"),
        metrics=table("metrics").set_index("loss"),
        reported=table("reported"),
        stories=table("stories"),
        calibration=table("calibration"),
        profile=table("profile"),
    )
