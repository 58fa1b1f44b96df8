"""The tables of the final runs, from the runs' folders.

    squentropy metrics data/grammar checkpoints/grammar results/grammar

metrics.csv       one row per loss and yardstick, with intervals; also as .json
readings.csv      one row per loss and reading of its outputs
lengths.csv       one row per run, including the shorter ones
stories.csv       one row per run and story: sums over its tokens
calibration.csv   one row per run, reading and bin of confidence: sums over its tokens
profile.csv       one row per run, reading and bin of position or frequency: sums over its tokens
certainty.csv     one row per run and bin of the source's entropy: sums over its tokens
history.csv       one row per run and evaluation step
reported.csv      the original study's table next to ours

nll is in nats; bins are [low, high).
"""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.base.kinds import (
    CorpusManifest,
    CorpusRecord,
    Reading,
    Row,
    RunRecord,
    ScoresRecord,
    SelectedRecord,
    SplitSize,
    ToldStory,
    VoicesRecord,
)
from squentropy.results import quality
from squentropy.results.metric_rows import (
    METRICS,
    READINGS,
    Scored,
    metric_rows,
    reading_rows,
    split_reading,
    yardstick_rows,
)
from squentropy.results.original import REPORTED_COLUMNS, reported_rows
from squentropy.results.theory import contexts
from squentropy.runs.records import check_tokens, made_from, scored_from, told_from
from squentropy.study import digests
from squentropy.study.grid import GRID_KEYS, Cell
from squentropy.study.layout import refine_file
from squentropy.study.params import SPLITS, TABLES, VOICES, Study
from squentropy.tokens.token_files import TokenFolder
from squentropy.tuning.outcomes import read_outcomes, write_csv
from squentropy.tuning.selection import selected_hyperparameters, tuning_sha256

RUN = ["phase", "loss", *GRID_KEYS, "seed"]
HISTORY = [*RUN, "iteration", "train_loss", "train_nll", "validation_nll"]
LENGTHS = ["loss", "iterations", "tokens", "seed", "reading", "nll", "excess"]
STORIES = ["phase", "loss", "seed", "story", "tokens", "bytes", "nll", "softmax_nll", "correct"]
CALIBRATION = ["loss", "seed", "reading", "low", "high", "tokens", "correct", "confidence"]
COMPARED = ["low", "tokens", "entropy", "nll", "kl", "outside"]
CERTAINTY = ["loss", "seed", "reading", *COMPARED]
PROFILE = ["loss", "seed", "reading", "by", "low", "high", "tokens", "nll"]


def metrics(study: Study, data: Path, checkpoints: Path, results: Path) -> None:
    """Write all tables of the final runs to `results`, the manifest last.

    data         folder with corpus/ and tokens/
    checkpoints  folder of the runs, each with run.json, test.json and samples.json
    results      folder with selected.json from `select` and voices.json from `voices`
    """
    chosen = selected_hyperparameters(study, results)
    finals, shorter = study.final_cells(chosen), study.length_cells(chosen)
    reported = study.reported_cells()
    every = read_outcomes(study, checkpoints, [*study.sweep_cells(), *finals, *shorter, *reported])
    _check_selection(study, checkpoints, results)
    _check_voices(checkpoints, results)
    runs = {cell: every[cell] for cell in [*finals, *shorter, *reported]}
    tokens, entropy = TokenFolder.open(data / "tokens"), story_entropy(data)
    tokens.check_corpus(data / "corpus")
    for cell, run in runs.items():
        check_tokens(run, checkpoints / cell.name, tokens)
    scores: dict[Cell, ScoresRecord]
    told: list[ToldStory]
    scores, told = {}, []
    for cell, run in runs.items():
        folder = checkpoints / cell.name
        scores[cell] = made_from(folder / "test.json", scored_from(study, folder, run))
        if cell.phase != "lengths":
            told += made_from(folder / "samples.json", told_from(study, folder, run))["stories"]
    history = _history_rows(checkpoints, every)
    corpus = describe_corpus(data, entropy)
    graded, lost = quality.quality_rows(study, data, told), contexts.theory_rows(study, data)
    scored = Scored(study, runs, scores, entropy)
    yardsticks = yardstick_rows(study, tokens, entropy, corpus["splits"]["test"]["bytes"])
    rows = metric_rows(scored, yardsticks)
    full = {cell: scores[cell] for cell in finals if "stories" in scores[cell]}
    original = {cell: scores[cell] for cell in reported if "stories" in scores[cell]}

    storage.write_sealed(results / "corpus.json", corpus)
    write_csv(results / "history.csv", history, HISTORY)
    write_csv(results / "stories.csv", _story_rows(study, full | original), STORIES)
    write_csv(results / "calibration.csv", _calibration_rows(study, full), CALIBRATION)
    write_csv(results / "profile.csv", _profile_rows(study, full), PROFILE)
    write_csv(results / "certainty.csv", _certainty_rows(study, full), CERTAINTY)
    write_csv(results / "lengths.csv", _length_rows(scored), LENGTHS)
    write_csv(results / "readings.csv", reading_rows(scored), READINGS)
    storage.write_json(results / "samples.json", told)
    storage.write_text(results / "samples.md", _samples_markdown(study, told))
    write_csv(results / "quality.csv", graded, quality.QUALITY)
    write_csv(results / "theory.csv", lost, contexts.THEORY)
    write_csv(results / "reported.csv", reported_rows(scored), REPORTED_COLUMNS)
    write_csv(results / "metrics.csv", rows, METRICS)
    nll = {row["loss"]: row.get("nll") for row in rows if row["kind"] == "loss"}
    known = {loss: value for loss, value in nll.items() if _is_finite(value)}
    storage.write_json(results / "metrics.json", known)
    storage.write_text(results / "params.yaml", study.dump())
    write_manifest(study, results)


def _check_selection(study: Study, checkpoints: Path, results: Path) -> None:
    """Raises SquentropyError if selected.json does not match these runs or its tables."""
    chosen: SelectedRecord = storage.read_sealed(results / "selected.json")
    for name, digest in chosen["sha256"].items():
        storage.verified(results / name, digest)
    for loss in study.sweep.losses:
        storage.read_sealed(refine_file(checkpoints, loss))  # the error names a damaged one
    if chosen["runs_sha256"] != tuning_sha256(study, checkpoints):
        raise SquentropyError(
            f"{results / 'selected.json'}: is not of the runs in {checkpoints}; select again"
        )


def _check_voices(checkpoints: Path, results: Path) -> None:
    """Raises SquentropyError if voices.json does not match these runs."""
    held: VoicesRecord = storage.read_sealed(results / VOICES)
    for voice in held["voices"]:
        if voice["run_sha256"] != storage.sha256(checkpoints / voice["run"] / "run.json"):
            raise SquentropyError(
                f"{results / VOICES}: is not of the runs in {checkpoints}; "
                "run `squentropy voices` again"
            )


def story_entropy(data: Path) -> np.ndarray | None:
    """-log p of each test story under its source, in nats; None if it is unknown."""
    entry = storage.read_sealed(data / "corpus" / "manifest.json")["splits"]["test"]
    path = storage.verified(data / "corpus" / "test.parquet", entry["sha256"])
    if "log_prob" not in pq.read_schema(path).names:
        return None
    return -pq.read_table(path, columns=["log_prob"])["log_prob"].to_numpy()


def write_manifest(study: Study, results: Path) -> None:
    """Write manifest.json: what the tables in `results` depend on, and the hash of each."""
    held: dict[str, Any] = {"params": study.table_keys(), "code": digests.by_module("tables")}
    held["labels"] = digests.labels(study.sweep.losses)
    held["sha256"] = {name: storage.sha256(results / name) for name in TABLES}
    storage.write_sealed(results / "manifest.json", held)


def describe_corpus(data: Path, entropy: np.ndarray | None) -> CorpusRecord:
    """Statistics of the corpus, for the tables and the report."""
    manifest: CorpusManifest = storage.read_sealed(data / "corpus" / "manifest.json")
    tokens = TokenFolder.open(data / "tokens")
    test = tokens.split("test")
    source: float | None
    error: float | None
    source, error = None, None
    if entropy is not None:
        counts = np.diff(test.offsets)
        source = float(entropy.sum() / counts.sum())
        residual = entropy - source * counts
        if len(counts) > 1:
            error = float(residual.std(ddof=1) * math.sqrt(len(counts)) / counts.sum())
    splits: dict[str, SplitSize] = {
        split: {
            "stories": manifest["splits"][split]["stories"],
            "bytes": manifest["splits"][split]["bytes"],
            "tokens": tokens.manifest["splits"][split]["tokens"],
        }
        for split in SPLITS
    }
    return {
        "source": manifest["source"],
        "licence": manifest["licence"],
        "splits": splits,
        "encoding": tokens.manifest["encoding"],
        "vocab_size": tokens.vocab_size,
        "unigram_nll": test.unigram_nll(),
        "source_nll": source,
        "source_nll_se": error,
    }


def _history_rows(checkpoints: Path, runs: dict[Cell, RunRecord]) -> list[Row]:
    rows: list[Row] = []
    for cell, run in runs.items():
        folder = checkpoints / cell.name
        path = storage.verified(folder / "history.csv", run["history_sha256"])
        history = pd.read_csv(path)
        origin = {key: getattr(cell, key) for key in RUN}
        rows += [origin | row for row in history.to_dict("records")]
    return rows


def _length_rows(scored: Scored) -> list[Row]:
    rows: list[Row]
    study, rows = scored.study, []
    for loss in study.sweep.losses:
        for cell in [*scored.ok(loss, "lengths"), *scored.ok(loss)]:
            nll = scored.mean_nll(cell)
            excess = None
            if scored.entropy is not None:
                excess = nll - float(scored.entropy.sum() / scored.tokens.sum())
            rows.append({
                "loss": loss,
                "iterations": study.schedule(cell.phase, cell.iterations).max_iters,
                "tokens": study.tokens_trained(cell.phase, cell.iterations),
                "seed": cell.seed,
                "reading": study.primary(loss),
                "nll": nll,
                "excess": excess,
            })  # fmt: skip
    return rows


def _story_rows(study: Study, scores: dict[Cell, ScoresRecord]) -> list[Row]:
    rows: list[Row] = []
    for cell, score in scores.items():
        origin = {"phase": cell.phase, "loss": cell.loss, "seed": cell.seed}
        readings = score["readings"]
        table: dict[str, Any] = {
            **score["stories"],
            "nll": readings[study.primary(cell.loss)]["nll"],
            "softmax_nll": readings["softmax"]["nll"],
        }
        for story in range(len(table["nll"])):
            values = {key: table[key][story] for key in STORIES[4:]}
            rows.append({**origin, "story": story, **values})
    return rows


def _at_shown_floor(study: Study, score: ScoresRecord) -> dict[str, Reading]:
    """A run's readings by name, without those at other floors."""
    shown = study.evaluate.link_floor
    return {
        reading: measured
        for reading, measured in score["readings"].items()
        if split_reading(study, reading)[1] in (None, shown)
    }


def _calibration_rows(study: Study, scores: dict[Cell, ScoresRecord]) -> list[Row]:
    rows: list[Row] = []
    for cell, score in scores.items():
        for reading, measured in _at_shown_floor(study, score).items():
            counted = measured["calibration"]
            bins = len(counted["tokens"])
            for i in range(bins):
                rows.append(
                    {"loss": cell.loss, "seed": cell.seed, "reading": reading}
                    | {"low": i / bins, "high": (i + 1) / bins}
                    | {key: counted[key][i] for key in ("tokens", "correct", "confidence")}
                )
    return rows


def _profile_rows(study: Study, scores: dict[Cell, ScoresRecord]) -> list[Row]:
    rows: list[Row] = []
    for cell, score in scores.items():
        for reading in _at_shown_floor(study, score):
            for by, counted in score["profile"].items():
                for i, nll in enumerate(counted[reading]):
                    rows.append(
                        {"loss": cell.loss, "seed": cell.seed, "reading": reading, "by": by}
                        | {key: counted[key][i] for key in ("low", "high", "tokens")}
                        | {"nll": nll}
                    )
    return rows


def _certainty_rows(study: Study, scores: dict[Cell, ScoresRecord]) -> list[Row]:
    return [
        {"loss": cell.loss, "seed": cell.seed, "reading": study.primary(cell.loss)}
        | dict(zip(COMPARED, bin, strict=True))
        for cell, score in scores.items()
        if "certainty" in score
        for bin in zip(*map(score["certainty"].__getitem__, COMPARED), strict=True)
    ]


def _is_finite(value: object) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def _samples_markdown(study: Study, samples: list[ToldStory]) -> str:
    """Each run's first story per prompt, side by side, with the text fenced verbatim."""
    temperature = study.sample.middle
    first = [s for s in samples if (s["number"], s["temperature"]) == (0, temperature)]
    lines = ["# Sampled stories", "", f"The first of each run and prompt at temperature "
             f"{temperature:g}; `samples.json` holds them all.", ""]  # fmt: skip
    for prompt in dict.fromkeys(sample["prompt"] for sample in first):
        lines += [f"## {_heading(prompt)} …", ""]
        for sample in first:
            if sample["prompt"] != prompt:
                continue
            end = "ended by itself" if sample["ended"] else "cut at the limit"
            text = sample["text"]
            fence = "`" * max(3, _longest_run(text, "`") + 1)
            lines += [
                f"**{sample['loss']}**, {sample['phase']}, seed {sample['seed']}: "
                f"{sample['tokens']} tokens, {end}",
                "", f"{fence}text", text, fence, "",
            ]  # fmt: skip
    return "\n".join(lines)


def _heading(text: str) -> str:
    """A prompt on one line, escaped for Markdown and HTML."""
    return re.sub(r"([\\`*_\[\]<>#|~&$])", r"\\\1", " ".join(text.split()))


def _longest_run(text: str, character: str) -> int:
    longest = run = 0
    for c in text:
        run = run + 1 if c == character else 0
        longest = max(longest, run)
    return longest
