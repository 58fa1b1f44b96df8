"""A small, plausible results folder without any training, for tests and previews of the report.

    python tests/fake_results.py FOLDER          writes FOLDER/params.yaml, metrics.csv, …

The numbers are invented but consistent: the metrics are computed from the stories as in tables.py.
"""

import functools
import itertools
import math
import sys
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pandas as pd
import tiktoken
import torch
import yaml

from squentropy.base.storage import sha256, write_json, write_sealed, write_text
from squentropy.evaluation import certainty
from squentropy.lm.model import GPT, Config
from squentropy.results import adequacy, intervals, quality, voices
from squentropy.results.tables import CERTAINTY, write_manifest
from squentropy.results.theory import contexts, optimum
from squentropy.study import params
from squentropy.study.catalogue import loss_info
from squentropy.study.overlays import overlay
from squentropy.tokens.tokenizer import PATTERN, train_encoding

SOURCE, UNIGRAM = 1.60, 5.30  # nats per token
NGRAMS = {"unigram": 5.31, "bigram": 3.60, "trigram": 2.90, "4-gram": 2.75, "5-gram": 2.74}
SLOPE = 0.6  # nats per token between a quarter of the tokens and all of them
FLAT = 3.0  # nats per token that softmax costs a loss with its own link

# loss: test nll above the source's, accuracy, standard deviation over seeds
_LEVELS = {
    "cross_entropy": (0.42, 0.51, 0.010),
    "mse": (2.20, 0.31, 0.020),
    "mse_weighted": (1.60, 0.44, 0.020),
    "squentropy": (0.55, 0.51, 0.012),
    "squentropy(0.1)": (0.43, 0.51, 0.012),
    "squentropy_weighted": (0.66, 0.505, 0.012),
    "spherical": (0.60, 0.50, 0.012),
    "z_loss": (0.42, 0.512, 0.010),
    "brier": (1.10, 0.47, 0.030),
}

STORY = (
    "Once upon a time, there was a small fox named Tim. Tim wanted a red kite, but the kite was "
    'high in a tree. "Can you help me?" he asked the owl.\n\nThe owl flew up and brought it down. '
    "Tim was happy, and they played until the evening."
)


def study(**changes) -> params.Study:
    """The default study with changes such as sweep={"losses": [...]}, final={"seeds": [1]}."""
    return params.parse(overlay(_default(), changes))


@functools.cache
def _default() -> dict:
    path = Path(__file__).resolve().parents[1] / "params.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def write(
    folder: Path,
    *,
    stories: int = 60,
    diverged: tuple[str, ...] = (),
    source_nll: float | None = SOURCE,
    text: str = STORY,
    learnt: bool = True,
    **changes,
) -> Path:
    """Write the results of a study; the losses in `diverged` diverge in every cell and seed.

    With `learnt=False`, n-gram models beat cross entropy.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    s = study(**changes)
    write_text(folder / "params.yaml", s.dump())
    splits = {
        name: {"stories": n, "bytes": 620 * n, "tokens": 150 * n}
        for name, n in (("train", 12000), ("validation", 250), ("test", stories))
    }
    write_sealed(folder / "corpus.json", {
        "source": s.corpus.source, "licence": "MIT", "splits": splits,
        "vocab_size": s.tokens.vocab_size, "unigram_nll": UNIGRAM, "source_nll": source_nll,
        "source_nll_se": None if source_nll is None else 0.011,
    })  # fmt: skip
    sweep, refine, selected = _tuning(s, rng, diverged)
    _csv(sweep, folder / "sweep.csv")
    _csv(refine, folder / "refine.csv")
    hashes = {name: sha256(folder / name) for name in ("sweep.csv", "refine.csv")}
    write_sealed(folder / "selected.json", {"sha256": hashes, "losses": selected})
    table = _stories(s, rng, stories, diverged)
    _csv(table, folder / "stories.csv")
    _csv(_history(s, rng, diverged, selected), folder / "history.csv")
    calibration = _calibration(s, rng, table)
    _csv(calibration, folder / "calibration.csv")
    readings = _readings(s, table, calibration)
    _csv(readings, folder / "readings.csv")
    _csv(_lengths(s, rng, table, source_nll), folder / "lengths.csv")
    metrics = _metrics(s, table, selected, source_nll)
    _csv(_profile(s, table, readings), folder / "profile.csv")
    _csv(pd.concat([metrics, _yardsticks(source_nll, learnt)]), folder / "metrics.csv")
    write_json(folder / "metrics.json", metrics.set_index("loss")["nll"].dropna().to_dict())
    _csv(_reported(s, metrics), folder / "reported.csv")
    write_json(folder / "samples.json", [
        {"phase": "final", "loss": loss, "seed": s.final.seeds[0], "prompt": prompt,
         "temperature": temperature, "top_k": s.sample.top_k,
         "reading": _primary(s, loss), "number": number,
         "text": text, "tokens": 70, "ended": True}
        for loss in s.sweep.losses if loss not in diverged
        for temperature in s.sample.temperatures for number in (0, 1) for prompt in s.sample.prompts
    ])  # fmt: skip
    _csv(_quality(s, rng, diverged, checked=source_nll is not None), folder / "quality.csv")
    _csv(_theory(s, whole=source_nll is not None), folder / "theory.csv")
    write_text(folder / "samples.md", "# Sampled stories\n")
    exact = s.corpus.source == "grammar"
    compared = _certainty(s, rng, diverged)
    _csv(compared if exact else compared.head(0), folder / "certainty.csv")
    write_sealed(folder / "voices.json", _voices(s, diverged, exact))
    write_manifest(s, folder)
    return folder


def _linked(loss: str) -> bool:
    return loss_info(loss).link


def _primary(s, loss: str) -> str:
    return "own" if _linked(loss) else s.plan.reading


def _level(loss: str) -> tuple[float, float, float]:
    return _LEVELS.get(loss, _LEVELS.get(loss.partition("(")[0], (0.8, 0.48, 0.02)))


def _tuning(s, rng, diverged) -> tuple[pd.DataFrame, pd.DataFrame, dict]:
    """sweep.csv, refine.csv and the losses of selected.json."""
    sweep = pd.DataFrame([_cell(s, rng, cell, diverged) for cell in s.sweep_cells()])
    rows, selected = [], {}
    for loss in s.sweep.losses:
        own = sweep[sweep["loss"] == loss]
        by = own["selection_nll"]
        start = own.iloc[0] if by.isna().all() else own.loc[by.idxmin()]
        best = start["lr"] * s.refine.factor
        if pd.isna(start["selection_nll"]):
            best = start["lr"]
        point = {"dropout": float(start["dropout"]), "n_layer": int(start["n_layer"])}
        tried = [best * s.refine.factor**i for i in (-2, -1, 0, 1)]
        for lr in tried:
            away = abs(math.log(lr / best))
            nll = SOURCE + 1.2 * _level(loss)[0] + 0.6 + 0.3 * away**2
            blown = loss in diverged
            rows.append({
                "loss": loss, "lr": lr, **point, "seed": s.sweep.seed,
                "status": "diverged" if blown else "ok", "iterations": s.refine.max_iters,
                "tokens": s.tokens_trained("refine"), "reading": _primary(s, loss),
                "validation_nll": None if blown else nll + (FLAT if _linked(loss) else 0.03),
                "selection_nll": None if blown else nll, "selected": lr == best,
            })  # fmt: skip
        last = next(row for row in rows[-4:] if row["selected"])
        selected[loss] = {
            "lr": float(best), **point, "reading": _primary(s, loss),
            "validation_nll": last["validation_nll"], "selection_nll": last["selection_nll"],
            "inside": True, "edge": ["n_layer"] if loss == s.sweep.losses[-1] else [],
            "runs": len(tried), "max_runs_reached": False,
            "diverged": int((own["status"] == "diverged").sum()),
            "sweep": {"lr": float(start["lr"]), **point},
        }  # fmt: skip
        sweep.loc[own.index, "selected"] = own.index == start.name
    return _spelt(sweep), _spelt(pd.DataFrame(rows)), selected


def _spelt(table: pd.DataFrame) -> pd.DataFrame:
    return table.assign(selected=table["selected"].map({True: "true", False: "false"}))


def _cell(s, rng, cell, diverged) -> dict:
    """A row of sweep.csv; the best learning rate is the grid's nearest to 0.004."""
    linked = _linked(cell.loss)
    blown = cell.loss in diverged or (cell.lr > 0.01 and not linked)
    start, best = math.log(s.tokens.vocab_size), SOURCE + 1.6 + _level(cell.loss)[0] / 2
    reached = math.exp(-((math.log10(cell.lr / 0.004)) ** 2) / 1.5)
    reached *= 1 - 0.15 * cell.dropout - 0.004 * cell.n_layer
    nll = start - max(0.02, start - best) * reached + rng.normal(0, 0.02)
    return {
        "loss": cell.loss, "lr": cell.lr, "dropout": cell.dropout, "n_layer": cell.n_layer,
        "seed": cell.seed, "status": "diverged" if blown else "ok",
        "iterations": 7 if blown else s.sweep.max_iters, "diverged_at": 7 if blown else None,
        "train_loss": 71.0 if blown else nll + 0.1, "train_nll": None if blown else nll - 0.05,
        "validation_nll": None if blown else nll + 2 * linked,
        "validation_ppl": None if blown else math.exp(nll + 2 * linked),
        "reading": "own" if linked else "softmax", "selection_nll": None if blown else nll,
        "validation_accuracy": None if blown else 0.1, "parameters": 50_000 * cell.n_layer,
        "selected": False,
    }  # fmt: skip


def _stories(s, rng, n, diverged) -> pd.DataFrame:
    tokens = rng.integers(80, 220, n)
    hard = 0.3 * (rng.exponential(1, n) - 1)
    rows = []
    for loss, seed in itertools.product(s.sweep.losses, s.final.seeds):
        if loss in diverged:
            continue
        excess, accuracy, spread = _level(loss)
        each = SOURCE + excess + hard + rng.normal(0, spread) + rng.normal(0, 0.05, n)
        worse = FLAT if _linked(loss) else 0.03 if s.plan.reading == "tempered" else 0
        for i in range(n):
            rows.append({"phase": "final", "loss": loss, "seed": seed, "story": i,
                         "tokens": tokens[i], "bytes": 4 * tokens[i],
                         "nll": each[i] * tokens[i],
                         "softmax_nll": (each[i] + worse) * tokens[i],
                         "correct": rng.binomial(tokens[i], accuracy)})  # fmt: skip
    columns = ["phase", "loss", "seed", "story", "tokens", "bytes", "nll", "softmax_nll", "correct"]
    return pd.DataFrame(rows, columns=columns)


def _history(s, rng, diverged, selected) -> pd.DataFrame:
    rows = []
    cells = [("final", loss, seed) for loss in s.sweep.losses for seed in s.final.seeds]
    for phase, loss, seed in cells:
        start, end = math.log(s.tokens.vocab_size), SOURCE + _level(loss)[0]
        end += 2 * _linked(loss)
        last = 50 if loss in diverged else s.final.max_iters
        offset = rng.normal(0, 0.03)
        for iteration in range(0, last + 1, s.final.eval_interval):
            nll = end + (start - end) * math.exp(-iteration / (0.2 * s.final.max_iters))
            nll += offset + rng.normal(0, 0.02)
            rows.append({"phase": phase, "loss": loss, **{k: selected[loss][k] for k in
                         ("lr", "dropout", "n_layer")}, "seed": seed, "iteration": iteration,
                         "train_loss": nll + 0.1, "train_nll": nll - 0.03,
                         "validation_nll": nll})  # fmt: skip
    return pd.DataFrame(rows)


def _calibration(s, rng, table) -> pd.DataFrame:
    """Runs that are over- or underconfident, and less so if tempered."""
    n = s.evaluate.bins
    middle = (np.arange(n) + 0.5) / n
    slopes = {"softmax": 0.75, "tempered": 0.98, "own": 0.6}
    rows = []
    for (loss, seed), run in table.groupby(["loss", "seed"], sort=False):
        sure = -0.8 if loss.startswith("squentropy") else 0.0
        readings = [x for x in slopes if x != "own" or _linked(loss)]
        for reading in readings:
            share = np.exp(-5 * middle) + 0.12 * middle
            if _linked(loss) and reading == "softmax":
                share = (middle < 1 / n).astype(float)  # almost uniform
            tokens = rng.multinomial(run["tokens"].sum(), share / share.sum())
            off = sure if reading == "softmax" else 0.0
            logit = slopes[reading] * np.log(middle / (1 - middle)) - off - 0.1
            correct = rng.binomial(tokens, 1 / (1 + np.exp(-logit)))
            rows.append(pd.DataFrame({
                "loss": loss, "seed": seed, "reading": reading, "low": np.arange(n) / n,
                "high": np.arange(1, n + 1) / n, "tokens": tokens, "correct": correct,
                "confidence": tokens * middle,
            }))  # fmt: skip
    columns = ["loss", "seed", "reading", "low", "high", "tokens", "correct", "confidence"]
    return pd.concat(rows) if rows else pd.DataFrame(columns=columns)


def _readings(s, table, calibration) -> pd.DataFrame:
    """The primary reading and softmax as in the stories; others differ by a constant."""
    tempered = s.plan.reading == "tempered"
    rows = []
    for loss in dict.fromkeys(table["loss"]):
        linked = _linked(loss)
        off = {"softmax": FLAT if linked else 0.03 * tempered,
               "tempered": 0.5 if linked else 0.0 if tempered else -0.03}  # fmt: skip
        kinds = [("softmax", None), ("tempered", None)]
        if linked:
            tried = [s.evaluate.link_floor, *s.evaluate.other_floors]
            kinds += [("own", floor) for floor in tried]
            off["own"] = 0.0
        for reading, floor in kinds:
            shift = off[reading]
            if floor is not None:
                shift += 0.02 * abs(math.log10(floor / s.evaluate.link_floor))
            rows.append(_reading(s, table, calibration, loss, reading, floor, shift))
    columns = ["loss", "reading", "floor", "primary", "temperature", "nll", "nll_low", "nll_high",
               "difference", "difference_low", "difference_high", "ece", "brier"]  # fmt: skip
    return pd.DataFrame(rows, columns=columns)


def _reading(s, table, calibration, loss, reading, floor, shift) -> dict:
    nll, tokens = _matrix(table, loss), _matrix(table, loss, "tokens")[0]
    main = reading == _primary(s, loss) and floor in (None, s.evaluate.link_floor)
    heat = None if reading != "tempered" else 0.0123 if _linked(loss) else 0.9
    row = {"loss": loss, "reading": reading, "floor": floor, "primary": main, "temperature": heat}
    row |= _ends("nll", intervals.mean_nll(nll + shift * tokens, tokens, **_how(s)))
    if loss != "cross_entropy" and (table["loss"] == "cross_entropy").any():
        theirs = _matrix(table, "cross_entropy", "softmax_nll" if reading == "softmax" else "nll")
        gap, _ = intervals.difference(nll + shift * tokens, theirs, tokens, **_how(s))
        row |= _ends("difference", gap)
    bins = calibration[(calibration["loss"] == loss) & (calibration["reading"] == reading)]
    flat = _linked(loss) and reading == "softmax"
    gaps = (bins["correct"] - bins["confidence"]).abs()
    return row | {"ece": gaps.sum() / bins["tokens"].sum(), "brier": 0.998 if flat else 0.6}


def _how(s) -> dict:
    return {"resamples": 200, "confidence": s.evaluate.confidence, "seed": 0}


def _ends(name: str, interval: intervals.Interval) -> dict:
    return {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _profile(s, table, readings) -> pd.DataFrame:
    """A lower nll further into a story and a higher one on rare tokens; sums as in the readings."""
    shapes = {
        "position": (2 ** np.arange(9), lambda low: 0.75 + 1.6 * np.exp(-low / 12)),
        "frequency": (2 ** np.arange(17), lambda low: 2.6 - 0.13 * np.log2(1 + low)),
    }
    rows = []
    known = readings[readings["floor"].isna() | (readings["floor"] == s.evaluate.link_floor)]
    for (loss, seed), run in table.groupby(["loss", "seed"], sort=False):
        for _, read in known[known["loss"] == loss].iterrows():
            nll, reading = read["nll"] + 0.02 * (seed % 3 - 1), read["reading"]
            for by, (high, shape) in shapes.items():
                low = high // 2
                tokens = len(run) * np.maximum(1, np.minimum(high - low, 2**13 // high))
                level = shape(low)
                if _linked(loss) and reading == "softmax":
                    level = np.ones(len(low))
                level *= nll * tokens.sum() / (level * tokens).sum()
                rows.append(pd.DataFrame({
                    "loss": loss, "seed": seed, "reading": reading, "by": by, "low": low,
                    "high": high, "tokens": tokens, "nll": level * tokens,
                }))  # fmt: skip
    names = ["loss", "seed", "reading", "by", "low", "high", "tokens", "nll"]
    return pd.concat(rows) if rows else pd.DataFrame(columns=names)


def _matrix(table, loss, column="nll"):
    rows = table[(table["phase"] == "final") & (table["loss"] == loss)]
    return rows.pivot(index="seed", columns="story", values=column).to_numpy(dtype=float)


def _lengths(s, rng, table, source_nll) -> pd.DataFrame:
    """The nll of a run is linear in 1 / sqrt(tokens)."""
    rows = []
    for loss in dict.fromkeys(table["loss"]):
        nll, tokens = _matrix(table, loss), _matrix(table, loss, "tokens")[0]
        final = dict(zip(s.final.seeds, nll.sum(1) / tokens.sum(), strict=True))
        runs = [
            (n, seed) for n in s.final.lengths for seed in s.final.seeds[: s.final.length_seeds]
        ]
        for n, seed in [*runs, *((s.final.max_iters, seed) for seed in s.final.seeds)]:
            nll = final[seed] + SLOPE * (math.sqrt(s.final.max_iters / n) - 1)
            rows.append({
                "loss": loss, "iterations": n,
                "tokens": s.tokens_trained("final") * n // s.final.max_iters, "seed": seed,
                "reading": _primary(s, loss), "nll": nll,
                "excess": None if source_nll is None else nll - source_nll,
            })  # fmt: skip
    columns = ["loss", "iterations", "tokens", "seed", "reading", "nll", "excess"]
    return pd.DataFrame(rows, columns=columns)


KINDS = [("alibi", False, 1), ("learned", True, 1), ("alibi", True, 2)]
"""Positions, biases and layers of the models of voices.json."""


@functools.cache
def encoding() -> tiktoken.Encoding:
    """The vocabulary of voices.json."""
    return train_encoding([STORY], 300)


@functools.cache
def model(number: int) -> GPT:
    """A model of voices.json before rounding: small, untrained, with confident predictions."""
    torch.manual_seed(number)
    positions, bias, n_layer = KINDS[number]
    model = GPT(Config(encoding().n_vocab, 16, n_layer, 2, 16, 0.0, bias, positions))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(9 if parameter.dim() == 2 else 1).add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def story_tokens() -> list[int]:
    """The first tokens of the story, as many as fit the context of the models of voices.json."""
    return [encoding().eot_token, *encoding().encode_ordinary(STORY)][:16]


def _voices(s, diverged, exact) -> dict:
    cells = [cell for cell in s.voice_cells() if cell.loss not in diverged]
    held, heat = [], 0.9 if s.plan.reading == "tempered" else 1.0
    for number, cell in enumerate(cells[: len(KINDS)]):
        packed = voices.pack(model(number))
        ids = torch.tensor(story_tokens())
        held.append({
            "loss": cell.loss, "seed": cell.seed, "run": cell.name, "run_sha256": "0" * 64,
            "temperature": heat, **packed,
            "rounding": voices.rounding(model(number), voices.unpack(packed), [ids], heat),
        })  # fmt: skip
    vocabulary = [encoding().decode_single_token_bytes(i) for i in range(encoding().eot_token)]
    return {"pattern": PATTERN, "vocabulary": [v.decode("latin-1") for v in vocabulary],
            "voices": held, "story": _read_story() if exact else None}  # fmt: skip


def _read_story() -> dict:
    """Ten tokens, each less probable than the one before."""
    ids = [*story_tokens()[1:10], encoding().eot_token]
    exact = [[1 / (i + 1), [[token, 1 / (i + 1)], [0, i / (i + 1)]]] for i, token in enumerate(ids)]
    return {"ids": ids, "exact": exact}


def _certainty(s, rng, diverged) -> pd.DataFrame:
    """One hundred positions per bin for each loss and seed."""
    low = np.array(certainty.EDGES)
    tables = []
    for cell in s.final_cells({}):
        if cell.loss not in diverged:
            kl = rng.uniform(5, 15, len(low))
            tables.append(pd.DataFrame({
                "loss": cell.loss, "seed": cell.seed, "reading": _primary(s, cell.loss), "low": low,
                "tokens": 100, "entropy": 101 * low, "nll": kl, "kl": kl, "outside": kl / 10,
            }))  # fmt: skip
    return pd.concat([pd.DataFrame(columns=CERTAINTY), *tables])


METRICS = [
    "kind", "loss", "lr", "dropout", "n_layer", "n_seeds", "diverged", "parameters", "tokens",
    "train_loss", "train_nll", "validation_nll",
    "reading", "nll", "nll_low", "nll_high", "ppl", "ppl_low", "ppl_high", "bits_per_byte",
    "difference", "difference_low", "difference_high", "p_value",
    "learnt", "tokens_needed", "tokens_needed_low", "tokens_needed_high",
    "excess", "excess_low", "excess_high",
    "test_nll", "test_nll_low", "test_nll_high", "test_ppl", "test_ppl_low", "test_ppl_high",
    "test_bits_per_byte", "test_accuracy", "test_top5_accuracy", "original_ppl",
]  # fmt: skip


def _metrics(s, table, selected, source_nll) -> pd.DataFrame:
    rows = []
    for loss in s.sweep.losses:
        row = {"kind": "loss", "loss": loss, "reading": _primary(s, loss)}
        row |= {k: selected[loss][k] for k in ("lr", "dropout", "n_layer")}
        nll = _matrix(table, loss) if (table["loss"] == loss).any() else np.zeros((0, 0))
        row |= {"n_seeds": len(nll), "diverged": len(s.final.seeds) - len(nll),
                "parameters": 50_000 * selected[loss]["n_layer"],
                "tokens": s.tokens_trained("final")}  # fmt: skip
        if len(nll):
            row |= _measured(s, table, loss, nll, source_nll)
        rows.append(row)
    metrics = pd.DataFrame(rows, columns=METRICS)
    corrected = intervals.holm(metrics["p_value"])
    return metrics.assign(p_value=np.maximum(corrected, s.plan.smallest_p))


def _measured(s, table, loss, nll, source_nll) -> dict:
    tokens = _matrix(table, loss, "tokens")[0]
    softmax = _matrix(table, loss, "softmax_nll")
    row = _ends("nll", intervals.mean_nll(nll, tokens, **_how(s)))
    row |= _ends("test_nll", intervals.mean_nll(softmax, tokens, **_how(s)))
    row |= {key.replace("nll", "ppl"): math.exp(value) for key, value in row.items()}
    mean = row["nll"]
    if source_nll is not None:
        row |= {f"excess{end}": row[f"nll{end}"] - source_nll for end in ("", "_low", "_high")}
    row |= {
        "train_loss": mean + 0.2, "train_nll": mean - 0.04, "validation_nll": row["test_nll"],
        "bits_per_byte": mean / math.log(2) / 4,
        "test_bits_per_byte": row["test_nll"] / math.log(2) / 4,
        "test_accuracy": _matrix(table, loss, "correct").sum() / tokens.sum() / len(nll),
        "test_top5_accuracy": 0.8, "original_ppl": math.exp(row["test_nll"] + 0.05),
        "learnt": adequacy.share_learnt(mean, NGRAMS["unigram"], source_nll or NGRAMS["5-gram"]),
    }  # fmt: skip
    if loss != "cross_entropy" and (table["loss"] == "cross_entropy").any():
        gap, p = intervals.difference(nll, _matrix(table, "cross_entropy"), tokens, **_how(s))
        row |= _ends("difference", gap) | {"p_value": p}
        needed = {end: _needed(row[f"difference{end}"]) for end in ("", "_low", "_high")}
        row |= {f"tokens_needed{end}": value for end, value in needed.items()}
    return row


def _needed(gap: float) -> float:
    """The fraction of cross entropy's tokens to which a gap in nll corresponds, by `_lengths`."""
    needed = max(0.1, 1 + gap / SLOPE) ** 2
    return needed if needed <= 4 else math.inf


def _yardsticks(source_nll, learnt) -> pd.DataFrame:
    better = 0 if learnt else 1.5
    rows = [("ngram", name, nll - better * (name != "unigram")) for name, nll in NGRAMS.items()]
    rows.append(("compressor", "xz", 4.1))
    if source_nll is not None:
        rows.append(("source", "source entropy", source_nll))
    return pd.DataFrame(
        [{"kind": kind, "loss": name, "nll": nll, "ppl": math.exp(nll),
          "bits_per_byte": nll / math.log(2) / 4} for kind, name, nll in rows],
        columns=METRICS,
    )  # fmt: skip


def _reported(s, metrics) -> pd.DataFrame:
    """The original study's `squentropy` is the run of its reported optimum, not this study's."""
    by_loss = metrics.set_index("loss")
    theirs = "squentropy_weighted"
    original = {"cross_entropy": (1.81, 1.83, 3.8), theirs: (1.89, 1.90, 5.2)}
    what = {"cross_entropy": "final cross-entropy runs, mean over seeds",
            theirs: "the original code at its reported optimum, one seed"}  # fmt: skip
    measures = {"train loss": "train_loss", "test loss": "test_nll",
                "test perplexity": "original_ppl"}  # fmt: skip
    rows = []
    for loss, values in original.items():
        for (measure, column), value in zip(measures.items(), values, strict=True):
            rows.append({"measure": measure, "loss": loss, "reported": value,
                         "reproduced": by_loss[column].get(loss, 2.1), "what": what[loss],
                         "estimator": "random batches" if "ppl" in column else "whole stories",
                         })  # fmt: skip
    return pd.DataFrame(rows)


def _quality(s, rng, diverged, checked) -> pd.DataFrame:
    """A lower nll and a lower temperature give better stories with fewer distinct words."""
    pairs = [(loss, t) for loss in s.sweep.losses if loss not in diverged
             for t in s.sample.temperatures]  # fmt: skip
    rows = []
    for loss, temperature in [*pairs, ("test stories", None)]:
        true = temperature is None
        good = 1 if true else math.exp(-_level(loss)[0]) * (1.3 - 0.6 * temperature)
        stories = len(s.final.seeds) * len(s.sample.prompts) * s.sample.stories
        row = {"loss": loss, "temperature": temperature, "runs": len(s.final.seeds),
               "reading": None if true else "softmax", "stories": stories}  # fmt: skip
        means = {
            "valid": good**4, "form": good**3, "agreement": good**0.5,
            "sentences_in_form": good, "ended": good**0.3, "parsed": good,
            "repetition": 0.05 / good**0.5,
            "tokens": 150, "distinct_1": 0.05 / good**0.2, "distinct_2": 0.2 / good**0.2,
            "distinct_3": 0.4 / good**0.1, "self_bleu": 0.3 * good**0.5,
        }  # fmt: skip
        if not checked:
            means |= dict.fromkeys(("valid", "form", "agreement", "sentences_in_form", "parsed"))
        for name, mean in means.items():
            wide = None if mean is None else 0.1 * mean * (1 + rng.random())
            row |= {name: mean, f"{name}_low": mean and mean - wide,
                    f"{name}_high": mean and mean + wide}  # fmt: skip
        if checked:
            wrong = round(stories * (1 - good**4))
            row |= {"no_ending": 0, "unknown_word": wrong // 4, "broken_agreement": 0,
                    "dropped_object": wrong // 2,
                    "unexpected": wrong - wrong // 4 - wrong // 2}  # fmt: skip
        rows.append(row)
    return pd.DataFrame(rows, columns=quality.QUALITY)


def _theory(s, whole) -> pd.DataFrame:
    """By the true formula, in contexts with two and with ten possible next tokens."""
    kinds = {"bigram": (np.full((1, 10), 0.1), 2.3)}
    if whole:
        kinds["whole"] = (np.full((1, 2), 0.5), SOURCE)
    rows = []
    for kind, (pi, entropy) in kinds.items():
        for loss in contexts.improper_losses(s):
            for classes in contexts.vocabularies(s.tokens.vocab_size):
                kl = optimum.floor(pi, classes, *astuple(loss.squares))[0]
                rows.append({"contexts": kind, "loss": loss.name, "weight": loss.squares.factor,
                             "classes": classes,
                             "n": 200, "entropy": entropy, "kl": kl, "kl_low": 0.9 * kl,
                             "kl_high": 1.1 * kl, "kl_10": 0, "kl_50": kl,
                             "kl_90": 2 * kl})  # fmt: skip
    return pd.DataFrame(rows)


def _csv(table: pd.DataFrame, path: Path) -> None:
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
