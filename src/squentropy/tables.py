"""The tables of the final runs, from the runs' folders alone.

    squentropy metrics data/grammar checkpoints/grammar results/grammar

metrics.csv       a row a loss: means over seeds, intervals over stories and seeds; also as .json
stories.csv       a row a run and story: sums over its tokens
calibration.csv   a row a run, reading and bin of confidence: sums over its tokens
profile.csv       a row a run, reading and bin of position or frequency: sums over its tokens
history.csv       a row a run and look at it while it trained
reported.csv      the seed study's table beside ours

nll is in nats; `low` and `high` are a bin's ends, the second outside it.
"""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from squentropy import floors, quality, statistics, storage
from squentropy.errors import SquentropyError
from squentropy.outcomes import ppl, read_outcomes, runs_sha256, write_csv
from squentropy.params import BASELINE, SPLITS, TABLES, Cell, Study
from squentropy.records import check_tokens, made_from, scored_from, told_from
from squentropy.selection import selected_hyperparameters
from squentropy.tokens import TokenFolder

SEED = "squentropy_weighted"  # what the seed study's code computes under the name squentropy
REPORTED = (  # the seed study's final table
    ("train loss", "cross_entropy", 1.81),
    ("test loss", "cross_entropy", 1.83),
    ("test perplexity", "cross_entropy", 3.8),
    ("train loss", SEED, 1.89),
    ("test loss", SEED, 1.90),
    ("test perplexity", SEED, 5.2),
)

METRICS = [
    "loss", "lr", "dropout", "n_layer", "n_seeds", "diverged", "parameters",
    "train_loss", "train_nll", "validation_nll",
    "test_nll", "test_nll_low", "test_nll_high", "test_ppl", "test_ppl_low", "test_ppl_high",
    "test_bits_per_byte", "test_accuracy", "test_top5_accuracy", "test_ece", "test_brier",
    "temperature", "tempered_nll", "tempered_difference", "tempered_difference_low",
    "tempered_difference_high", "tempered_ece", "tempered_brier",
    "difference", "difference_low", "difference_high", "p_value",
    "inverse_link_nll", "inverse_link_difference", "inverse_link_difference_low",
    "inverse_link_difference_high", "inverse_link_ece", "inverse_link_brier",
    "seed_ppl", "excess", "excess_low", "excess_high",
]  # fmt: skip
HISTORY = [
    "phase", "loss", "lr", "dropout", "n_layer", "seed",
    "iteration", "train_loss", "train_nll", "validation_nll",
]  # fmt: skip
STORIES = ["phase", "loss", "seed", "story", "tokens", "bytes", "nll", "correct"]
CALIBRATION = ["loss", "seed", "reading", "low", "high", "tokens", "correct", "confidence"]
PROFILE = ["loss", "seed", "reading", "by", "low", "high", "tokens", "nll"]


def metrics(study: Study, data: Path, checkpoints: Path, results: Path) -> None:
    """Write every table of the final runs to `results`, their manifest last.

    data         folder with corpus/ and tokens/
    checkpoints  folder of the runs, each with run.json, test.json and samples.json
    results      folder with selected.json, as `select` wrote it
    """
    finals = study.final_cells(selected_hyperparameters(study, results))
    reported = study.reported_cells()
    every = read_outcomes(study, checkpoints, [*study.sweep_cells(), *finals, *reported])
    runs = {cell: every[cell] for cell in [*finals, *reported]}
    tokens, entropy = TokenFolder.open(data / "tokens"), story_entropy(data)
    tokens.check_corpus(data / "corpus")
    for cell, run in runs.items():
        check_tokens(run, checkpoints / cell.name, tokens)
    scores, told = {}, []
    for cell, run in runs.items():
        folder = checkpoints / cell.name
        scores[cell] = made_from(folder / "test.json", scored_from(study, folder, run))
        told += made_from(folder / "samples.json", told_from(study, folder, run))["stories"]
    chosen = storage.read_sealed(results / "selected.json")
    storage.verified(results / "sweep.csv", chosen["sweep_sha256"])
    if chosen["runs_sha256"] != runs_sha256(checkpoints, study.sweep_cells()):
        raise SquentropyError(
            f"{results / 'selected.json'}: is not of the cells in {checkpoints}; select again"
        )
    history = _history_rows(checkpoints, every)
    corpus = describe_corpus(data, entropy)
    graded, lost = quality.quality_rows(study, data, told), floors.theory_rows(study, data)

    storage.write_sealed(results / "corpus.json", corpus)
    write_csv(results / "history.csv", history, HISTORY)
    write_csv(results / "stories.csv", _story_rows(scores), STORIES)
    scored = {cell: scores[cell] for cell in finals if "stories" in scores[cell]}
    write_csv(results / "calibration.csv", _calibration_rows(scored), CALIBRATION)
    write_csv(results / "profile.csv", _profile_rows(scored), PROFILE)
    storage.write_json(results / "samples.json", told)
    storage.write_text(results / "samples.md", _samples_markdown(study, told))
    write_csv(results / "quality.csv", graded, quality.QUALITY)
    write_csv(results / "theory.csv", lost, floors.THEORY)
    rows = _metric_rows(study, finals, runs, scores, entropy)
    write_csv(results / "reported.csv", _reported_rows(study, rows, runs, scores),
              ["measure", "loss", "reported", "reproduced", "what"])  # fmt: skip
    finite = [{key: value for key, value in row.items() if _is_finite(value)} for row in rows]
    storage.write_json(results / "metrics.json", {row.pop("loss"): row for row in finite})
    write_csv(results / "metrics.csv", rows, METRICS)
    storage.write_text(results / "params.yaml", study.dump())
    write_manifest(study, results)


def story_entropy(data: Path) -> np.ndarray | None:
    """-log p of each test story under its own source, in nats; None where it is not known."""
    entry = storage.read_sealed(data / "corpus" / "manifest.json")["splits"]["test"]
    path = storage.verified(data / "corpus" / "test.parquet", entry["sha256"])
    if "log_prob" not in pq.read_schema(path).names:
        return None
    return -pq.read_table(path, columns=["log_prob"])["log_prob"].to_numpy()


def write_manifest(study: Study, results: Path) -> None:
    """manifest.json: what the tables of `results` depend on, and the hash of each."""
    held = {"params": study.table_keys()}
    held["sha256"] = {name: storage.sha256(results / name) for name in TABLES}
    storage.write_sealed(results / "manifest.json", held)


def describe_corpus(data: Path, entropy: np.ndarray | None) -> dict:
    """The corpus in numbers, for the tables and the report."""
    manifest = storage.read_sealed(data / "corpus" / "manifest.json")
    tokens = TokenFolder.open(data / "tokens")
    test = tokens.split("test")
    source, error = None, None
    if entropy is not None:
        counts = np.diff(test.offsets)
        source = float(entropy.sum() / counts.sum())
        residual = entropy - source * counts
        if len(counts) > 1:
            error = float(residual.std(ddof=1) * math.sqrt(len(counts)) / counts.sum())
    splits = {
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


def _history_rows(checkpoints: Path, runs: dict[Cell, dict]) -> list[dict]:
    rows = []
    for cell, run in runs.items():
        folder = checkpoints / cell.name
        path = storage.verified(folder / "history.csv", run["history_sha256"])
        history = pd.read_csv(path)
        origin = {key: getattr(cell, key) for key in HISTORY[:6]}
        rows += [origin | row for row in history.to_dict("records")]
    return rows


def _story_rows(scores: dict[Cell, dict]) -> list[dict]:
    rows = []
    for cell, score in scores.items():
        if "stories" not in score:
            continue
        origin = {"phase": cell.phase, "loss": cell.loss, "seed": cell.seed}
        table = score["stories"] | {"nll": score["readings"]["softmax"]["nll"]}
        for story in range(len(table["nll"])):
            values = {key: table[key][story] for key in ("tokens", "bytes", "nll", "correct")}
            rows.append({**origin, "story": story, **values})
    return rows


def _calibration_rows(scores: dict[Cell, dict]) -> list[dict]:
    rows = []
    for cell, score in scores.items():
        for reading, measured in score["readings"].items():
            counted = measured["calibration"]
            bins = len(counted["tokens"])
            for i in range(bins):
                rows.append(
                    {"loss": cell.loss, "seed": cell.seed, "reading": reading}
                    | {"low": i / bins, "high": (i + 1) / bins}
                    | {key: counted[key][i] for key in ("tokens", "correct", "confidence")}
                )
    return rows


def _profile_rows(scores: dict[Cell, dict]) -> list[dict]:
    rows = []
    for cell, score in scores.items():
        for reading in score["readings"]:
            for by, counted in score["profile"].items():
                for i, nll in enumerate(counted[reading]):
                    rows.append(
                        {"loss": cell.loss, "seed": cell.seed, "reading": reading, "by": by}
                        | {key: counted[key][i] for key in ("low", "high", "tokens")}
                        | {"nll": nll}
                    )
    return rows


def _metric_rows(
    study: Study,
    finals: list[Cell],
    runs: dict[Cell, dict],
    scores: dict[Cell, dict],
    entropy: np.ndarray | None,
) -> list[dict]:
    settings = {
        "resamples": study.evaluate.bootstrap,
        "confidence": study.evaluate.confidence,
        "seed": 0,
    }
    ok = {
        loss: [c for c in finals if c.loss == loss and runs[c]["status"] == "ok"]
        for loss in study.sweep.losses
    }
    rows = []
    for loss in study.sweep.losses:
        cells = [cell for cell in finals if cell.loss == loss]
        first = cells[0]
        row = {
            "loss": loss,
            "lr": first.lr,
            "dropout": first.dropout,
            "n_layer": first.n_layer,
            "n_seeds": len(ok[loss]),
            "diverged": len(cells) - len(ok[loss]),
            "parameters": runs[first]["parameters"],
        }
        if ok[loss]:
            row |= _one_loss(ok[loss], runs, scores, entropy, settings)
            if loss != BASELINE:
                row |= _against_baseline(ok[loss], ok.get(BASELINE, []), scores, settings)
        rows.append(row)
    compared = [row for row in rows if "p_value" in row]
    corrected = statistics.holm([row["p_value"] for row in compared]) if compared else []
    for row, p_value in zip(compared, corrected, strict=True):
        row["p_value"] = p_value
    return rows


def _stories(cells: list[Cell], scores: dict[Cell, dict], key: str) -> np.ndarray:
    """(seeds, stories) numbers of tokens."""
    return np.array([scores[cell]["stories"][key] for cell in cells])


def _nll(cells: list[Cell], scores: dict[Cell, dict], reading: str = "softmax") -> np.ndarray:
    """(seeds, stories), nats."""
    return np.array([scores[cell]["readings"][reading]["nll"] for cell in cells])


def _one_loss(
    cells: list[Cell],
    runs: dict[Cell, dict],
    scores: dict[Cell, dict],
    entropy: np.ndarray | None,
    settings: dict,
) -> dict:
    stories = scores[cells[0]]["stories"]
    tokens = np.array(stories["tokens"])
    nll = _nll(cells, scores)
    interval = statistics.mean_nll(nll, tokens, **settings)
    row = {
        key: float(np.mean([runs[cell][key] for cell in cells]))
        for key in ("train_loss", "train_nll", "validation_nll")
    }
    row |= _interval("test_nll", interval)
    row |= {key.replace("nll", "ppl"): ppl(row[key]) for key in _interval("test_nll", interval)}
    row["test_bits_per_byte"] = nll.sum(1).mean() / math.log(2) / sum(stories["bytes"])
    row["test_accuracy"] = _stories(cells, scores, "correct").sum(1).mean() / tokens.sum()
    row["test_top5_accuracy"] = _stories(cells, scores, "top5").sum(1).mean() / tokens.sum()
    row["temperature"] = np.mean([scores[cell]["temperature"] for cell in cells])
    for reading in scores[cells[0]]["readings"]:
        name = {"softmax": "test", "own": "inverse_link"}.get(reading, reading)
        row[f"{name}_nll"] = _nll(cells, scores, reading).sum(1).mean() / tokens.sum()
        for key in ("ece", "brier"):
            values = [scores[cell]["readings"][reading][key] for cell in cells]
            row[f"{name}_{key}"] = np.mean(values)
    row["seed_ppl"] = float(np.mean([ppl(scores[cell]["seed_estimate"]["nll"]) for cell in cells]))
    if entropy is not None:
        floor = np.broadcast_to(entropy, nll.shape)
        row |= _interval("excess", statistics.difference(nll, floor, tokens, **settings)[0])
    return row


def _against_baseline(
    cells: list[Cell], baseline: list[Cell], scores: dict[Cell, dict], settings: dict
) -> dict:
    """The paired differences to cross entropy over the seeds that both losses finished.

    Softmax is compared with its softmax, tempered with tempered, and the inverse link, which it
    has none of, with its softmax.
    """
    by_seed = {cell.seed: cell for cell in baseline}
    pairs = [(cell, by_seed[cell.seed]) for cell in cells if cell.seed in by_seed]
    if not pairs:
        return {}
    tokens = np.array(scores[cells[0]]["stories"]["tokens"])
    ours, theirs = (list(side) for side in zip(*pairs, strict=True))

    def difference(reading: str, other: str) -> tuple[statistics.Interval, float]:
        sides = _nll(ours, scores, reading), _nll(theirs, scores, other)
        return statistics.difference(*sides, tokens, **settings)

    interval, p_value = difference("softmax", "softmax")
    row = _interval("difference", interval) | {"p_value": p_value}
    row |= _interval("tempered_difference", difference("tempered", "tempered")[0])
    if "own" in scores[cells[0]]["readings"]:
        linked, _ = difference("own", "softmax")
        row |= _interval("inverse_link_difference", linked)
    return row


def _interval(name: str, interval: statistics.Interval) -> dict:
    return {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _is_finite(value: object) -> bool:
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def _reported_rows(
    study: Study, rows: list[dict], runs: dict[Cell, dict], scores: dict[Cell, dict]
) -> list[dict]:
    """The seed study's table with what we measure in its place.

    Its cross entropy beside ours; its tuned squentropy beside the run of its reported optimum.
    The losses are the training objectives, as it has them; the perplexity is exp of the mean
    nll of random batches, as its script has it.
    """
    reproduced: dict[tuple[str, str], float | None] = {}
    ours = next((row for row in rows if row["loss"] == BASELINE and "test_nll" in row), None)
    if ours:
        reproduced["train loss", BASELINE] = ours["train_loss"]
        reproduced["test loss", BASELINE] = ours["test_nll"]
        reproduced["test perplexity", BASELINE] = ours["seed_ppl"]
    for cell in study.reported_cells():
        if runs[cell]["status"] == "ok":
            estimate = scores[cell]["seed_estimate"]
            reproduced["train loss", SEED] = runs[cell]["train_loss"]
            reproduced["test loss", SEED] = estimate["loss"]
            reproduced["test perplexity", SEED] = ppl(estimate["nll"])
    what = {
        BASELINE: "final cross-entropy runs, mean over seeds",
        SEED: "the seed's code at its reported optimum, one seed",
    }
    return [
        {
            "measure": measure,
            "loss": loss,
            "reported": value,
            "reproduced": reproduced.get((measure, loss)),
            "what": what[loss],
        }
        for measure, loss, value in REPORTED
    ]


def _samples_markdown(study: Study, samples: list[dict]) -> str:
    """Every run's first story a prompt side by side, the text in fences as it is."""
    temperature = study.sample.middle
    first = [s for s in samples if (s["number"], s["temperature"]) == (0, temperature)]
    lines = ["# Sampled stories", "", f"The first of each run and prompt at temperature "
             f"{temperature:g}; `samples.json` holds them all.", ""]  # fmt: skip
    for prompt in dict.fromkeys(sample["prompt"] for sample in first):
        lines += [f"## {prompt} …", ""]
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


def _longest_run(text: str, character: str) -> int:
    longest = run = 0
    for c in text:
        run = run + 1 if c == character else 0
        longest = max(longest, run)
    return longest
