"""A small, plausible results folder without any training, for tests and for looking at the report.

    python tests/fake_results.py FOLDER          writes FOLDER/params.yaml, metrics.csv, …

Numbers are invented, but the tables agree with each other: the metrics are computed from the
stories as tables.py does it.
"""

import functools
import itertools
import math
import sys
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from squentropy import floors, params, quality, statistics, theory
from squentropy.storage import sha256, write_json, write_sealed, write_text
from squentropy.tables import write_manifest

SOURCE, UNIGRAM = 1.60, 5.30  # nats a token
LINKED = ("mse", "mse_weighted")  # the losses with an inverse link

# a loss's test nll above the source's, its accuracy, its standard deviation over seeds
_LEVELS = {
    "cross_entropy": (0.42, 0.51, 0.010),
    "mse": (5.20, 0.31, 0.020),
    "mse_weighted": (4.60, 0.44, 0.020),
    "squentropy": (0.55, 0.51, 0.012),
    "squentropy(0.1)": (0.46, 0.51, 0.012),
    "squentropy_weighted": (0.50, 0.505, 0.012),
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
    return params.parse(params._overlay(_default(), changes))


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
    **changes,
) -> Path:
    """Write the results of a study; losses named in `diverged` blow up in every cell and seed."""
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
    sweep = _sweep(s, rng, diverged)
    selected = _selected(s, sweep)
    sweep["selected"] = [
        all(row[key] == selected[row["loss"]][key] for key in ("lr", "dropout", "n_layer"))
        and row["status"] == "ok"
        for _, row in sweep.iterrows()
    ]
    _csv(sweep.assign(selected=sweep["selected"].map({True: "true", False: "false"})),
         folder / "sweep.csv")  # fmt: skip
    held = {"sweep_sha256": sha256(folder / "sweep.csv"), "losses": selected}
    write_sealed(folder / "selected.json", held)
    table = _stories(s, rng, stories, diverged)
    _csv(table, folder / "stories.csv")
    _csv(_history(s, rng, diverged, selected), folder / "history.csv")
    calibration = _calibration(s, rng, table)
    _csv(calibration, folder / "calibration.csv")
    metrics = _metrics(s, table, selected, source_nll, calibration)
    _csv(_profile(s, table, metrics), folder / "profile.csv")
    _csv(metrics, folder / "metrics.csv")
    write_json(folder / "metrics.json", {
        row["loss"]: {k: v for k, v in row.items() if k != "loss" and pd.notna(v)}
        for row in metrics.to_dict("records")
    })  # fmt: skip
    _csv(_reported(s, metrics), folder / "reported.csv")
    write_json(folder / "samples.json", [
        {"phase": "final", "loss": loss, "seed": s.final.seeds[0], "prompt": prompt,
         "temperature": temperature, "top_k": s.sample.top_k,
         "reading": "inverse_link" if loss.startswith("mse") else "softmax", "number": number,
         "text": text, "tokens": 70, "ended": True}
        for loss in s.sweep.losses if loss not in diverged
        for temperature in s.sample.temperatures for number in (0, 1) for prompt in s.sample.prompts
    ])  # fmt: skip
    _csv(_quality(s, rng, diverged, checked=source_nll is not None), folder / "quality.csv")
    _csv(_theory(s, whole=source_nll is not None), folder / "theory.csv")
    write_text(folder / "samples.md", "# Sampled stories\n")
    write_manifest(s, folder)
    return folder


def _level(loss: str) -> tuple[float, float, float]:
    return _LEVELS.get(loss, (0.8, 0.48, 0.02))


def _sweep(s, rng, diverged) -> pd.DataFrame:
    rows = []
    for cell in s.sweep_cells():
        linked = SOURCE + 1 + 4 * rng.random() if cell.loss in LINKED else None
        blown = cell.loss in diverged or (cell.lr > 0.01 and cell.loss not in ("mse", "brier"))
        start, best = math.log(s.tokens.vocab_size), SOURCE + 1.6 + _level(cell.loss)[0] / 2
        reached = math.exp(-((math.log10(cell.lr / 0.0006)) ** 2) / 1.5)
        reached *= 1 - 0.15 * cell.dropout - 0.004 * cell.n_layer
        nll = start - max(0.02, start - best) * reached + rng.normal(0, 0.02)
        rows.append({
            "loss": cell.loss, "lr": cell.lr, "dropout": cell.dropout, "n_layer": cell.n_layer,
            "seed": cell.seed, "status": "diverged" if blown else "ok",
            "iterations": 7 if blown else s.sweep.max_iters, "diverged_at": 7 if blown else None,
            "train_loss": 71.0 if blown else nll + 0.1, "train_nll": None if blown else nll - 0.05,
            "validation_nll": None if blown else nll,
            "validation_ppl": None if blown else math.exp(nll),
            "validation_link_nll": None if blown else linked,
            "validation_accuracy": None if blown else 0.1, "parameters": 50_000 * cell.n_layer,
        })  # fmt: skip
    return pd.DataFrame(rows)


def _selected(s, sweep) -> dict:
    selected = {}
    for loss in s.sweep.losses:
        rows = sweep[sweep["loss"] == loss]
        linked = rows["validation_link_nll"].notna().any()
        by = "validation_link_nll" if linked else "validation_nll"
        best = rows.iloc[0] if rows[by].isna().all() else rows.loc[rows[by].idxmin()]
        edge = [
            key for key in ("lr", "dropout", "n_layer")
            if len(getattr(s.sweep, key)) > 1
            and best[key] in (min(getattr(s.sweep, key)), max(getattr(s.sweep, key)))
        ]  # fmt: skip
        nll = {
            key: None if pd.isna(best[key]) else float(best[key])
            for key in ("validation_nll", "validation_link_nll")
        }
        selected[loss] = {
            "lr": float(best["lr"]), "dropout": float(best["dropout"]),
            "n_layer": int(best["n_layer"]),
            "selected_by": "inverse_link" if linked else "softmax", **nll,
            "edge": edge, "diverged": int((rows["status"] == "diverged").sum()),
        }  # fmt: skip
    return selected


def _stories(s, rng, n, diverged) -> pd.DataFrame:
    tokens = rng.integers(80, 220, n)
    hard = 0.3 * (rng.exponential(1, n) - 1)
    rows = []
    for loss, seed in itertools.product(s.sweep.losses, s.final.seeds):
        if loss in diverged:
            continue
        excess, accuracy, spread = _level(loss)
        a_token = SOURCE + excess + hard + rng.normal(0, spread) + rng.normal(0, 0.05, n)
        for i in range(n):
            rows.append({"phase": "final", "loss": loss, "seed": seed, "story": i,
                         "tokens": tokens[i], "bytes": 4 * tokens[i],
                         "nll": a_token[i] * tokens[i],
                         "correct": rng.binomial(tokens[i], accuracy)})  # fmt: skip
    columns = ["phase", "loss", "seed", "story", "tokens", "bytes", "nll", "correct"]
    return pd.DataFrame(rows, columns=columns)


def _history(s, rng, diverged, selected) -> pd.DataFrame:
    rows = []
    cells = [("final", loss, seed) for loss in s.sweep.losses for seed in s.final.seeds]
    for phase, loss, seed in cells:
        start, end = math.log(s.tokens.vocab_size), SOURCE + _level(loss)[0]
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
    """Runs that are too sure of themselves, or too little, and less so when tempered."""
    middle = (np.arange(15) + 0.5) / 15
    slopes = {"softmax": 0.75, "tempered": 0.98, "inverse_link": 0.6}
    rows = []
    for (loss, seed), run in table.groupby(["loss", "seed"], sort=False):
        sure = -0.8 if loss.startswith("squentropy") else 0.0
        readings = [x for x in slopes if x != "inverse_link" or loss in LINKED]
        for reading in readings:
            share = np.exp(-5 * middle) + 0.12 * middle
            if loss in LINKED and reading == "softmax":
                share = (middle < 1 / 15).astype(float)  # as good as flat
            tokens = rng.multinomial(run["tokens"].sum(), share / share.sum())
            off = sure if reading == "softmax" else 0.0
            logit = slopes[reading] * np.log(middle / (1 - middle)) - off - 0.1
            correct = rng.binomial(tokens, 1 / (1 + np.exp(-logit)))
            rows.append(pd.DataFrame({
                "loss": loss, "seed": seed, "reading": reading, "low": np.arange(15) / 15,
                "high": np.arange(1, 16) / 15, "tokens": tokens, "correct": correct,
                "confidence": tokens * middle,
            }))  # fmt: skip
    columns = ["loss", "seed", "reading", "low", "high", "tokens", "correct", "confidence"]
    return pd.concat(rows) if rows else pd.DataFrame(columns=columns)


def _profile(s, table, metrics) -> pd.DataFrame:
    """Less to lose further into a story, more on rare tokens, the sums as in the metrics."""
    levels = metrics.set_index("loss")
    shapes = {
        "position": (2 ** np.arange(9), lambda low: 0.75 + 1.6 * np.exp(-low / 12)),
        "frequency": (2 ** np.arange(17), lambda low: 2.6 - 0.13 * np.log2(1 + low)),
    }
    columns = {"softmax": "test_nll", "tempered": "tempered_nll",
               "inverse_link": "inverse_link_nll"}  # fmt: skip
    rows = []
    for (loss, seed), run in table.groupby(["loss", "seed"], sort=False):
        for reading, column in columns.items():
            nll = levels.at[loss, column]
            if pd.isna(nll):
                continue
            nll += 0.02 * (seed % 3 - 1)
            for by, (high, shape) in shapes.items():
                low = high // 2
                tokens = len(run) * np.maximum(1, np.minimum(high - low, 2**13 // high))
                level = shape(low)
                if loss in LINKED and reading == "softmax":
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


def _metrics(s, table, selected, source_nll, calibration) -> pd.DataFrame:
    how = {"resamples": 200, "confidence": s.evaluate.confidence, "seed": 0}
    names = ["test_nll", "test_nll_low", "test_nll_high", "test_ppl", "test_ppl_low",
             "test_ppl_high", "test_bits_per_byte", "test_accuracy", "test_ece", "test_brier",
             "temperature", "tempered_nll", "tempered_difference", "tempered_difference_low",
             "tempered_difference_high", "tempered_ece", "tempered_brier", "difference",
             "difference_low", "difference_high", "p_value", "inverse_link_nll",
             "inverse_link_difference", "inverse_link_difference_low",
             "inverse_link_difference_high", "inverse_link_ece", "inverse_link_brier", "seed_ppl",
             "excess", "excess_low", "excess_high"]  # fmt: skip
    rows = []
    for loss in s.sweep.losses:
        row = {"loss": loss, **{k: selected[loss][k] for k in ("lr", "dropout", "n_layer")}}
        nll = _matrix(table, loss) if (table["loss"] == loss).any() else np.zeros((0, 0))
        row |= {"n_seeds": len(nll), "diverged": len(s.final.seeds) - len(nll),
                "parameters": 50_000 * selected[loss]["n_layer"]}  # fmt: skip
        row |= dict.fromkeys(["train_loss", "train_nll", "validation_nll", *names])
        if len(nll):
            tokens = _matrix(table, loss, "tokens")[0]
            mean = statistics.mean_nll(nll, tokens, **how)
            for end, value in zip(
                ("", "_low", "_high"), (mean.estimate, mean.low, mean.high), strict=True
            ):
                row["test_nll" + end], row["test_ppl" + end] = value, math.exp(value)
                if source_nll is not None:
                    row["excess" + end] = value - source_nll
            row |= {"train_loss": mean.estimate + 0.2, "train_nll": mean.estimate - 0.04,
                    "validation_nll": mean.estimate + 0.01,
                    "test_bits_per_byte": mean.estimate / math.log(2) / 4,
                    "test_accuracy": _matrix(table, loss, "correct").sum() / tokens.sum()
                    / len(nll), "seed_ppl": math.exp(mean.estimate + 0.05)}  # fmt: skip
            flat = loss in LINKED
            row |= {"temperature": 0.0123 if flat else 0.9,
                    "tempered_nll": mean.estimate - (2.5 if flat else 0.03)}  # fmt: skip
            if flat:
                row["inverse_link_nll"] = mean.estimate - 3.0
            own = calibration[calibration["loss"] == loss]
            for reading, bins in own.groupby("reading"):
                name = "test" if reading == "softmax" else reading
                gaps = (bins["correct"] - bins["confidence"]).abs()
                row[f"{name}_ece"] = gaps.sum() / bins["tokens"].sum()
                row[f"{name}_brier"] = 0.998 if flat and name == "test" else 0.6 + 0.1 * flat
            if loss != "cross_entropy" and (table["loss"] == "cross_entropy").any():
                gap, p = statistics.difference(nll, _matrix(table, "cross_entropy"), tokens, **how)
                row |= {"difference": gap.estimate, "difference_low": gap.low,
                        "difference_high": gap.high, "p_value": p}  # fmt: skip
                shift = 2.47 if flat else 0.0
                row |= {f"tempered_difference{end}": value - shift for end, value in
                        (("", gap.estimate), ("_low", gap.low), ("_high", gap.high))}  # fmt: skip
        rows.append(row)
    corrected = statistics.holm([row["p_value"] for row in rows])
    return pd.DataFrame(rows).assign(p_value=corrected)


def _reported(s, metrics) -> pd.DataFrame:
    """The seed's `squentropy` is the run of its reported optimum, not the study's own."""
    by_loss = metrics.set_index("loss")
    seed_study = {"cross_entropy": (1.81, 1.83, 3.8), "squentropy": (1.89, 1.90, 5.2)}
    source = {"cross_entropy": "cross_entropy"}
    if s.final.reported:
        source["squentropy"] = s.final.reported.loss
    what = {"cross_entropy": "final cross-entropy runs, mean over seeds",
            "squentropy": "the seed's code at its reported optimum, one seed"}  # fmt: skip
    measures = {"train loss": "train_loss", "test loss": "test_nll", "test perplexity": "seed_ppl"}
    rows = []
    for loss, values in seed_study.items():
        for (measure, column), value in zip(measures.items(), values, strict=True):
            here = by_loss[column].get(source.get(loss))
            rows.append({"measure": measure, "loss": loss, "reported": value,
                         "reproduced": here, "what": what[loss]})  # fmt: skip
    return pd.DataFrame(rows)


def _quality(s, rng, diverged, checked) -> pd.DataFrame:
    """The lower a loss's nll, the better its stories; the cooler, the fewer distinct words."""
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
            "valid": good**4, "ended": good**0.3, "parsed": good, "repetition": 0.05 / good**0.5,
            "tokens": 150, "distinct_1": 0.05 / good**0.2, "distinct_2": 0.2 / good**0.2,
            "distinct_3": 0.4 / good**0.1, "self_bleu": 0.3 * good**0.5,
        }  # fmt: skip
        if not checked:
            means |= {"valid": None, "parsed": None}
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
    """By the true formula, in contexts of two and of ten tokens that follow."""
    kinds = {"bigram": (np.full((1, 10), 0.1), 2.3)}
    if whole:
        kinds["whole"] = (np.full((1, 2), 0.5), SOURCE)
    rows = []
    for kind, (pi, entropy) in kinds.items():
        for loss in floors.improper_losses(s):
            for classes in floors.vocabularies(s.tokens.vocab_size):
                kl = theory.floor(pi, classes, *astuple(loss.squares))[0]
                rows.append({"contexts": kind, "loss": loss.name, "weight": loss.squares.factor,
                             "classes": classes,
                             "n": 200, "entropy": entropy, "kl": kl, "kl_low": 0.9 * kl,
                             "kl_high": 1.1 * kl, "kl_10": 0, "kl_50": kl,
                             "kl_90": 2 * kl})  # fmt: skip
    return pd.DataFrame(rows, columns=floors.THEORY)


def _csv(table: pd.DataFrame, path: Path) -> None:
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


if __name__ == "__main__":
    print(write(Path(sys.argv[1])))
