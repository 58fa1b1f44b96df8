"""The rows of metrics.csv and readings.csv: each loss's test metrics, with intervals.

Claims about a loss are based on its primary reading (`Study.primary`). The paired differences from
cross entropy in that reading, one per loss, are the family for Holm's correction. All other rows of
readings.csv are exploratory and have no p-value.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from squentropy.base.kinds import Row, RunRecord, ScoresRecord
from squentropy.results import adequacy, compression, intervals, ngrams, scaling
from squentropy.results.intervals import Interval
from squentropy.study.grid import GRID_KEYS, Cell
from squentropy.study.params import BASELINE, Study
from squentropy.tokens.token_files import TokenFolder
from squentropy.tokens.tokenizer import read_encoding
from squentropy.tuning.outcomes import ppl

ENDS = ("", "_low", "_high")
METRICS = [
    "kind", "loss", *GRID_KEYS, "n_seeds", "diverged", "parameters", "tokens",
    "train_loss", "train_nll", "validation_nll",
    "reading", *(f"nll{end}" for end in ENDS), *(f"ppl{end}" for end in ENDS), "bits_per_byte",
    *(f"difference{end}" for end in ENDS), "p_value", "learnt",
    *(f"tokens_needed{end}" for end in ENDS), *(f"excess{end}" for end in ENDS),
    *(f"test_nll{end}" for end in ENDS), *(f"test_ppl{end}" for end in ENDS),
    "test_bits_per_byte", "test_accuracy", "test_top5_accuracy", "original_ppl",
]  # fmt: skip
READINGS = [
    "loss", "reading", "floor", "primary", "temperature", *(f"nll{end}" for end in ENDS),
    *(f"difference{end}" for end in ENDS), "ece", "brier",
]  # fmt: skip
ORDERS = {order: ngrams.name(order) for order in range(1, 6)}


@dataclass(frozen=True)
class Scored:
    """The final and shorter runs of a study, with their test scores.

    runs, scores  run.json and test.json by cell
    entropy       (stories,), -log p of the test stories under their source, nats; None if unknown
    """

    study: Study
    runs: dict[Cell, RunRecord]
    scores: dict[Cell, ScoresRecord]
    entropy: np.ndarray | None

    def ok(self, loss: str, phase: str = "final") -> list[Cell]:
        """A loss's runs of a phase that did not diverge."""
        return [
            cell
            for cell, run in self.runs.items()
            if (cell.loss, cell.phase, run["status"]) == (loss, phase, "ok")
        ]

    @property
    def tokens(self) -> np.ndarray:
        """(stories,), tokens of each test story."""
        return np.array(self._any["stories"]["tokens"])

    @property
    def bytes(self) -> int:
        return sum(self._any["stories"]["bytes"])

    @property
    def _any(self) -> ScoresRecord:
        return next(score for score in self.scores.values() if "stories" in score)

    def nll(self, cells: list[Cell], reading: str) -> np.ndarray:
        """(seeds, stories), nats."""
        return np.array([self.scores[cell]["readings"][reading]["nll"] for cell in cells])

    def mean_nll(self, cell: Cell) -> float:
        """A run's nll in its primary reading, nats per token."""
        reading = self.study.primary(cell.loss)
        return float(self.nll([cell], reading).sum() / self.tokens.sum())

    def curve(self, loss: str) -> dict[int, float]:
        """Mean primary nll in nats per token, by number of training tokens; NaN if diverged.

        Only over seeds that the shorter lengths also have, so that all points use the same seeds.
        """
        study, final = self.study, self.study.final
        seeds = final.seeds[: final.length_seeds] if final.lengths else final.seeds
        found: dict[int, list[float]] = {
            **{study.tokens_trained("lengths", length): [] for length in sorted(final.lengths)},
            study.tokens_trained("final"): [],
        }
        for cell in [*self.ok(loss, "lengths"), *self.ok(loss)]:
            if cell.seed in seeds:
                tokens = study.tokens_trained(cell.phase, cell.iterations)
                found[tokens].append(self.mean_nll(cell))
        return {tokens: float(np.mean(nll)) if nll else math.nan for tokens, nll in found.items()}


def metric_rows(scored: Scored, yardsticks: list[Row]) -> list[Row]:
    """The rows of metrics.csv: the losses, then the yardsticks."""
    study = scored.study
    unigram, limit = _range(yardsticks)
    rows = []
    for loss in study.sweep.losses:
        cells = [c for c in scored.runs if (c.loss, c.phase) == (loss, "final")]
        ok, first = scored.ok(loss), cells[0]
        row = {
            "kind": "loss",
            "loss": loss,
            **first.point,
            "n_seeds": len(ok),
            "diverged": len(cells) - len(ok),
            "parameters": scored.runs[first]["parameters"],
            "tokens": study.tokens_trained("final"),
            "reading": study.primary(loss),
        }
        if ok:
            row |= _one_loss(scored, loss)
            row["learnt"] = adequacy.share_learnt(row["nll"], unigram, limit)
            if loss != BASELINE:
                row |= _against_baseline(scored, loss)
        rows.append(row)
    compared = [row for row in rows if "p_value" in row]
    corrected = intervals.holm([row["p_value"] for row in compared]) if compared else []
    for row, p_value in zip(compared, corrected, strict=True):
        row["p_value"] = intervals.capped(p_value, study.plan.smallest_p)
    return rows + yardsticks


def yardstick_rows(
    study: Study, tokens: TokenFolder, entropy: np.ndarray | None, sizes: int
) -> list[Row]:
    """n-gram models and xz, given as many train tokens as a final run; and the source's entropy.

    sizes  UTF-8 bytes of the test stories
    """
    train, test, trained = (
        tokens.split("train"),
        tokens.split("test"),
        study.tokens_trained("final"),
    )
    ids, offsets = ngrams.first_tokens(train.ids, train.offsets, trained)
    by_order = ngrams.story_nll(
        ids, offsets, test.ids, test.offsets, tokens.end_of_text, tokens.vocab_size, tuple(ORDERS)
    )
    settings, counts = study.evaluate.resampling(), np.diff(test.offsets)

    def row(kind: str, name: str, nll: np.ndarray, seen: int | None) -> Row:
        interval = intervals.mean_nll(nll[None], counts, **settings)
        return {
            "kind": kind,
            "loss": name,
            "tokens": seen,
            **_columns("nll", interval),
            **{f"ppl{end}": ppl(value) for end, value in zip(ENDS, _ends(interval), strict=True)},
            "bits_per_byte": nll.sum() / math.log(2) / sizes,
        }

    rows = [row("ngram", ORDERS[n], nll, len(ids)) for n, nll in by_order.items()]
    texts = [read_encoding(tokens).decode_bytes(some.tolist()) for some in (ids, test.ids)]
    bits = compression.xz_bits(*texts)
    nll = bits * math.log(2) / len(test.ids)
    xz: Row = {"kind": "compressor", "loss": "xz", "tokens": len(ids), "nll": nll}
    rows.append(xz | {"ppl": ppl(nll), "bits_per_byte": bits / sizes})
    return rows if entropy is None else [*rows, row("source", "source entropy", entropy, None)]


def reading_rows(scored: Scored) -> list[Row]:
    """The rows of readings.csv: every loss in every reading, at every floor."""
    study, rows = scored.study, []
    for loss in study.sweep.losses:
        cells = scored.ok(loss)
        for reading in scored.scores[cells[0]]["readings"] if cells else []:
            name, floor = split_reading(study, reading)
            nll = intervals.mean_nll(
                scored.nll(cells, reading), scored.tokens, **study.evaluate.resampling()
            )
            row: Row = {
                "loss": loss,
                "reading": name,
                "floor": floor,
                "primary": reading == study.primary(loss),
                **_columns("nll", nll),
            }
            if name == "tempered":
                row["temperature"] = np.mean([scored.scores[c]["temperature"] for c in cells])
            for key in ("ece", "brier"):
                values = [scored.scores[cell]["readings"][reading][key] for cell in cells]
                row[key] = np.mean(values)
            other = "softmax" if name == "softmax" else study.plan.reading
            if loss != BASELINE and (pair := difference(scored, loss, reading, other)):
                row |= _columns("difference", pair[0])
            rows.append(row)
    return rows


def split_reading(study: Study, reading: str) -> tuple[str, float | None]:
    """("own", floor) for an own reading's name in test.json; (name, None) for other readings."""
    name, _, floor = reading.partition(" ")
    if name != "own":
        return name, None
    return name, float(floor) if floor else study.evaluate.link_floor


def difference(
    scored: Scored, loss: str, reading: str, other: str
) -> tuple[Interval, float] | None:
    """A loss's nll in `reading` minus cross entropy's in `other`, with its p-value.

    Over the seeds that both finished; None if they have no seed in common.
    """
    by_seed = {cell.seed: cell for cell in scored.ok(BASELINE)}
    pairs = [(cell, by_seed[cell.seed]) for cell in scored.ok(loss) if cell.seed in by_seed]
    if not pairs:
        return None
    ours, theirs = (list(side) for side in zip(*pairs, strict=True))
    return intervals.difference(
        scored.nll(ours, reading),
        scored.nll(theirs, other),
        scored.tokens,
        **scored.study.evaluate.resampling(),
    )


def _one_loss(scored: Scored, loss: str) -> Row:
    study, cells, tokens = scored.study, scored.ok(loss), scored.tokens
    reading, settings = study.primary(loss), study.evaluate.resampling()
    row: Row = {
        key: float(np.mean([scored.runs[cell][key] for cell in cells]))
        for key in ("train_loss", "train_nll", "validation_nll")
    }
    for prefix, by in (("", reading), ("test_", "softmax")):
        nll = scored.nll(cells, by)
        interval = intervals.mean_nll(nll, tokens, **settings)
        row |= _columns(f"{prefix}nll", interval)
        for end, value in zip(ENDS, _ends(interval), strict=True):
            row[f"{prefix}ppl{end}"] = ppl(value)
        row[f"{prefix}bits_per_byte"] = nll.sum(1).mean() / math.log(2) / scored.bytes
    for key, name in (("correct", "test_accuracy"), ("top5", "test_top5_accuracy")):
        stories: list[Any] = [scored.scores[cell]["stories"] for cell in cells]
        counts = np.array([of_run[key] for of_run in stories])
        row[name] = counts.sum(1).mean() / tokens.sum()
    estimates = [ppl(scored.scores[cell]["original_estimate"]["nll"]) for cell in cells]
    row["original_ppl"] = float(np.mean([value for value in estimates if value is not None]))
    if scored.entropy is not None:
        nll = scored.nll(cells, reading)
        floor = np.broadcast_to(scored.entropy, nll.shape)
        row |= _columns("excess", intervals.difference(nll, floor, tokens, **settings)[0])
    return row


def _against_baseline(scored: Scored, loss: str) -> Row:
    """The difference from cross entropy in the primary reading, its p-value, the tokens needed."""
    study = scored.study
    pair = difference(scored, loss, study.primary(loss), study.primary(BASELINE))
    if pair is None:
        return {}
    interval, p_value = pair
    theirs, ours = scored.curve(BASELINE), scored.curve(loss)
    needed = scaling.tokens_needed(
        np.array(list(theirs)),
        np.array(list(theirs.values())),
        np.array(list(ours)),
        np.array(list(ours.values())),
        interval,
    )
    row = _columns("difference", interval) | {"p_value": p_value}
    return row | _columns("tokens_needed", needed)


def _range(yardsticks: list[Row]) -> tuple[float, float]:
    """The range of nll in which a model learns: unigram and limit, nats per token.

    The limit is the source's entropy or, if unknown, the nll of the best n-gram model.
    """
    grams = {row["loss"]: row["nll"] for row in yardsticks if row["kind"] == "ngram"}
    source = [row["nll"] for row in yardsticks if row["kind"] == "source"]
    return grams[ORDERS[1]], source[0] if source else min(grams.values())


def _ends(interval: Interval | scaling.Needed) -> tuple[float, float, float]:
    return interval.estimate, interval.low, interval.high


def _columns(name: str, interval: Interval | scaling.Needed) -> dict[str, float]:
    return dict(zip((f"{name}{end}" for end in ENDS), _ends(interval), strict=True))
