"""The study's tables, from the runs' folders alone.

squentropy select   the grid and each loss's best cell: sweep.csv, selected.json
squentropy metrics  the final runs: metrics.csv, metrics.json, history.csv, stories.csv, ...
"""

import math
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from squentropy import quality, statistics, storage
from squentropy.errors import SquentropyError
from squentropy.params import BASELINE, SPLITS, Cell, Study
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


def write_csv(path: Path, rows: Iterable[dict], columns: list[str]) -> None:
    """Ten significant digits, as text that does not depend on the machine's locale."""
    table = pd.DataFrame(list(rows), columns=columns)
    storage.write_text(path, table.to_csv(index=False, float_format="%.10g"))


def ppl(nll: float | None) -> float | None:
    """Perplexity, exp of nll in nats a token; infinite where it is beyond a float."""
    if nll is None:
        return None
    return math.exp(nll) if nll < 700 else math.inf


# --- the grid -----------------------------------------------------------------------------------

SWEEP = [
    "loss", "lr", "dropout", "n_layer", "seed", "status", "iterations", "diverged_at",
    "train_loss", "train_nll", "validation_nll", "validation_ppl",
    "validation_link_nll", "validation_accuracy", "parameters", "selected",
]  # fmt: skip


def select(study: Study, checkpoints: Path, results: Path) -> dict:
    """Write sweep.csv and selected.json: each loss with the cell of lowest validation nll.

    A loss whose every cell diverged is selected at its smallest learning rate, so that its final
    runs show the same.
    """
    runs = {cell: read_outcome(checkpoints, cell) for cell in study.sweep_cells()}
    selected = {}
    for loss in study.sweep.losses:
        cells = [cell for cell in runs if cell.loss == loss]
        ok = [cell for cell in cells if runs[cell]["status"] == "ok"]
        best = (
            min(ok, key=lambda cell: runs[cell]["validation_nll"])
            if ok
            else min(cells, key=lambda cell: (cell.lr, cell.dropout, cell.n_layer))
        )
        selected[loss] = {
            "lr": best.lr,
            "dropout": best.dropout,
            "n_layer": best.n_layer,
            "validation_nll": runs[best]["validation_nll"],
            "edge": _edges(study, best),
            "diverged": len(cells) - len(ok),
        }
    rows = []
    for cell, run in runs.items():
        chosen = selected[cell.loss]
        rows.append(
            {key: run[key] for key in SWEEP if key in run}
            | {key: getattr(cell, key) for key in ("loss", "lr", "dropout", "n_layer", "seed")}
            | {
                "validation_ppl": ppl(run["validation_nll"]),
                "selected": all(
                    getattr(cell, key) == chosen[key] for key in ("lr", "dropout", "n_layer")
                ),
            }
        )
    write_csv(results / "sweep.csv", rows, SWEEP)
    storage.write_json(results / "selected.json", selected)
    return selected


def _edges(study: Study, cell: Cell) -> list[str]:
    """The hyperparameters whose selected value is the least or greatest of their grid."""
    grids = {name: getattr(study.sweep, name) for name in ("lr", "dropout", "n_layer")}
    return [
        name
        for name, grid in grids.items()
        if len(grid) > 1 and getattr(cell, name) in (min(grid), max(grid))
    ]


def read_outcome(checkpoints: Path, cell: Cell) -> dict:
    """A cell's run.json. Raises SquentropyError where it belongs to another cell."""
    folder = checkpoints / cell.name
    run = storage.read_json(folder / "run.json")
    if Cell(**run["cell"]) != cell:
        raise SquentropyError(f"{folder}/run.json: is another cell's; delete it and run again")
    return run


def selected_hyperparameters(study: Study, results: Path) -> dict[str, dict]:
    """{loss: {lr, dropout, n_layer}} from selected.json. Raises SquentropyError if one lacks."""
    path = results / "selected.json"
    chosen = storage.read_json(path)
    for loss in study.sweep.losses:
        if loss not in chosen:
            raise SquentropyError(f"{path}: holds no {loss}; run the sweep with it first")
    return {
        loss: {key: chosen[loss][key] for key in ("lr", "dropout", "n_layer")}
        for loss in study.sweep.losses
    }


# --- the final runs -----------------------------------------------------------------------------

METRICS = [
    "loss", "lr", "dropout", "n_layer", "n_seeds", "diverged", "parameters",
    "train_loss", "train_nll", "validation_nll",
    "test_nll", "test_nll_low", "test_nll_high", "test_ppl", "test_ppl_low", "test_ppl_high",
    "test_bits_per_byte", "test_accuracy", "test_top5_accuracy", "test_ece",
    "difference", "difference_low", "difference_high", "p_value",
    "inverse_link_nll", "inverse_link_difference", "inverse_link_difference_low",
    "inverse_link_difference_high", "seed_ppl", "excess", "excess_low", "excess_high",
]  # fmt: skip
HISTORY = [
    "phase", "loss", "lr", "dropout", "n_layer", "seed",
    "iteration", "train_loss", "train_nll", "validation_nll",
]  # fmt: skip
STORIES = ["phase", "loss", "seed", "story", "tokens", "bytes", "nll", "correct"]


def metrics(study: Study, data: Path, checkpoints: Path, results: Path) -> None:
    """Write every table of the final runs to `results`, metrics.csv last.

    data         folder with corpus/ and tokens/
    checkpoints  folder of the runs, each with run.json, test.json and samples.json
    results      folder with selected.json, as `select` wrote it
    """
    finals = study.final_cells(selected_hyperparameters(study, results))
    reported = study.reported_cells()
    runs = {cell: read_outcome(checkpoints, cell) for cell in [*finals, *reported]}
    scores = {cell: _read_scores(checkpoints / cell.name, runs[cell]) for cell in runs}
    entropy = story_entropy(data)

    storage.write_json(results / "corpus.json", describe_corpus(data, entropy))
    _write_history(study, checkpoints, results, [*study.sweep_cells(), *runs])
    write_csv(results / "stories.csv", _story_rows(scores), STORIES)
    samples = [s for c in runs for s in storage.read_json(checkpoints / c.name / "samples.json")]
    storage.write_json(results / "samples.json", samples)
    storage.write_text(results / "samples.md", _samples_markdown(study, samples))
    write_csv(results / "quality.csv", quality.quality_rows(study, data, samples), quality.QUALITY)
    rows = _metric_rows(study, finals, runs, scores, entropy)
    write_csv(results / "reported.csv", _reported_rows(study, rows, runs, scores),
              ["measure", "loss", "reported", "reproduced", "what"])  # fmt: skip
    finite = [{key: value for key, value in row.items() if _is_finite(value)} for row in rows]
    storage.write_json(results / "metrics.json", {row.pop("loss"): row for row in finite})
    write_csv(results / "metrics.csv", rows, METRICS)


def _read_scores(folder: Path, run: dict) -> dict:
    scores = storage.read_json(folder / "test.json")
    if scores["run_sha256"] != storage.sha256(folder / "run.json"):
        raise SquentropyError(
            f"{folder}/test.json: belongs to another run; evaluate this one again"
        )
    return scores


def story_entropy(data: Path) -> np.ndarray | None:
    """-log p of each test story under its own source, in nats; None where it is not known."""
    path = data / "corpus" / "test.parquet"
    if "log_prob" not in pq.read_schema(path).names:
        return None
    return -pq.read_table(path, columns=["log_prob"])["log_prob"].to_numpy()


def describe_corpus(data: Path, entropy: np.ndarray | None) -> dict:
    """The corpus in numbers, for the tables and the report."""
    manifest = storage.read_json(data / "corpus" / "manifest.json")
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


def _write_history(study: Study, checkpoints: Path, results: Path, cells: list[Cell]) -> None:
    rows = []
    for cell in cells:
        history = pd.read_csv(checkpoints / cell.name / "history.csv")
        origin = {key: getattr(cell, key) for key in HISTORY[:6]}
        rows += [origin | row for row in history.to_dict("records")]
    write_csv(results / "history.csv", rows, HISTORY)


def _story_rows(scores: dict[Cell, dict]) -> list[dict]:
    rows = []
    for cell, score in scores.items():
        if "stories" not in score:
            continue
        origin = {"phase": cell.phase, "loss": cell.loss, "seed": cell.seed}
        table = score["stories"]
        for story in range(len(table["nll"])):
            values = {key: table[key][story] for key in ("tokens", "bytes", "nll", "correct")}
            rows.append({**origin, "story": story, **values})
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


def _nll(cells: list[Cell], scores: dict[Cell, dict], key: str = "nll") -> np.ndarray:
    """(seeds, stories), nats."""
    return np.array([scores[cell]["stories"][key] for cell in cells])


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
    row["test_accuracy"] = _nll(cells, scores, "correct").sum(1).mean() / tokens.sum()
    row["test_top5_accuracy"] = _nll(cells, scores, "top5").sum(1).mean() / tokens.sum()
    row["test_ece"] = np.mean([_calibration_error(scores[cell]["calibration"]) for cell in cells])
    row["seed_ppl"] = float(np.mean([ppl(scores[cell]["seed_estimate"]["nll"]) for cell in cells]))
    if stories["link_nll"] is not None:
        row["inverse_link_nll"] = _nll(cells, scores, "link_nll").sum(1).mean() / tokens.sum()
    if entropy is not None:
        floor = np.broadcast_to(entropy, nll.shape)
        row |= _interval("excess", statistics.difference(nll, floor, tokens, **settings)[0])
    return row


def _calibration_error(counted: dict) -> float:
    """The expected calibration error: the mean over tokens of |accuracy - confidence| of a bin."""
    gaps = np.abs(np.array(counted["correct"]) - np.array(counted["confidence"]))
    return float(gaps.sum() / np.sum(counted["tokens"]))


def _against_baseline(
    cells: list[Cell], baseline: list[Cell], scores: dict[Cell, dict], settings: dict
) -> dict:
    """The paired difference to cross entropy over the seeds that both losses finished."""
    by_seed = {cell.seed: cell for cell in baseline}
    pairs = [(cell, by_seed[cell.seed]) for cell in cells if cell.seed in by_seed]
    if not pairs:
        return {}
    tokens = np.array(scores[cells[0]]["stories"]["tokens"])
    ours, theirs = (_nll(list(side), scores) for side in zip(*pairs, strict=True))
    interval, p_value = statistics.difference(ours, theirs, tokens, **settings)
    row = _interval("difference", interval) | {"p_value": p_value}
    if scores[cells[0]]["stories"]["link_nll"] is not None:
        linked = _nll([cell for cell, _ in pairs], scores, "link_nll")
        interval, _ = statistics.difference(linked, theirs, tokens, **settings)
        row |= _interval("inverse_link_difference", interval)
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
