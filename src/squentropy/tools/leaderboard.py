"""The leaderboard of losses trained by one protocol, results/leaderboard.csv, and how to enter.

    squentropy leaderboard --enter my_losses.py:smooth     prints the path of its study file
    squentropy leaderboard                                 writes the file, from the results alone

The protocol is that of the default study, params.yaml: corpus, tokens, model, tuning, seeds,
lengths and metrics. A new loss has its own study with cross entropy as the only other loss, whose
finished runs are taken from the default study. The file has one row per loss in results/STUDY of
this protocol, recomputed from the scores of single stories.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from squentropy.base import storage
from squentropy.base.errors import ParameterError, SquentropyError
from squentropy.base.kinds import Row
from squentropy.report.format import DASH, fixed, nats, share
from squentropy.report.read import Results, read
from squentropy.report.summary import markdown as as_markdown
from squentropy.results import intervals, scaling
from squentropy.results.intervals import Interval
from squentropy.study.catalogue import label, loss_info, slug
from squentropy.study.find import DEFAULT
from squentropy.study.layout import Places
from squentropy.study.overlays import differences
from squentropy.study.params import BASELINE, PHASES, Study, load

FILE = Path("results/leaderboard.csv")
ENDS = ("", "_low", "_high")
COLUMNS = [
    "loss", "reading", "n_seeds", *(f"nll{end}" for end in ENDS),
    *(f"difference{end}" for end in ENDS), *(f"tokens_needed{end}" for end in ENDS),
    "flops", *(f"form{end}" for end in ENDS), *(f"agreement{end}" for end in ENDS),
    "study", "results_sha256",
]  # fmt: skip
FREE = {"study", "sweep.losses", "final.reported", "theory.weights"}
"""Parameters that may differ between studies of the same protocol."""


# --- the file -----------------------------------------------------------------------------------


def write(file: Path = FILE) -> pd.DataFrame:
    """Write the file from the results in its folder; returns its table.

    Raises SquentropyError if the default study has no results, or if some are damaged.
    """
    found = table(file.parent)
    storage.write_text(file, found.to_csv(index=False))
    return found


def table(results: Path) -> pd.DataFrame:
    """One row per loss in a folder of results, the lowest test nll first.

    Only studies of the default study's protocol count. Losses of the default study, such as cross
    entropy, are taken from it.
    """
    default = results / load([DEFAULT]).study
    protocol = load([_params(default)])
    found: dict[str, Row] = {}
    for folder in [default, *_entered(results, default, protocol)]:
        r = read(folder)
        for loss in r.losses:
            if loss not in found:
                found[loss] = row(r, loss) | _origin(folder)
    rows = pd.DataFrame(found.values(), columns=COLUMNS)
    return rows.sort_values("nll", kind="stable", ignore_index=True)


def _params(folder: Path) -> Path:
    path = folder / "params.yaml"
    if not path.is_file():
        raise SquentropyError(f"{folder}: contains no results; run `make study` first")
    return path


def _entered(results: Path, default: Path, protocol: Study) -> Iterator[Path]:
    """The other results folders of a protocol."""
    for manifest in sorted(results.glob("*/manifest.json")):
        folder = manifest.parent
        with contextlib.suppress(ParameterError):  # from a version with other parameters
            if folder != default and not broken(load([_params(folder)]), protocol):
                yield folder


def broken(study: Study, protocol: Study) -> list[str]:
    """The parameters (with dots) in which a study deviates from a protocol."""
    changed = differences(protocol.table_keys(), study.table_keys())
    return [key for key in changed if not any(f"{key}.".startswith(f"{free}.") for free in FREE)]


def _origin(folder: Path) -> Row:
    digest = storage.sha256(folder / "manifest.json")
    return {"study": folder.name, "results_sha256": digest}


def markdown(held: pd.DataFrame) -> str:
    """The file as a Markdown table for readers."""
    shown = {
        "loss": [label(loss) for loss in held["loss"]],
        "test nll": _intervals(held, "nll", nats),
        "nll − cross entropy": _intervals(held, "difference", nats),
        "tokens needed": _intervals(held, "tokens_needed", lambda value: fixed(value, 2)),
        "training, TFLOP": [fixed(value / 1e12, 2) for value in held["flops"]],
        "form": [share(value) for value in held["form"]],
        "agreement": [share(value) for value in held["agreement"]],
        "seeds": held["n_seeds"],
    }
    return as_markdown(pd.DataFrame(shown).astype(str))


def _intervals(held: pd.DataFrame, name: str, text: Callable[[float], str]) -> list[str]:
    rows = held[[f"{name}{end}" for end in ENDS]].itertuples(index=False)
    return [
        DASH if pd.isna(value) else f"{text(value)} ({text(low)} to {text(high)})"
        for value, low, high in rows
    ]


# --- a row --------------------------------------------------------------------------------------


def row(r: Results, loss: str) -> Row:
    """A loss's row, described in docs/reference/tables.md; without scores if it diverged."""
    found: Row = {"loss": loss, "reading": r.study.primary(loss), "n_seeds": 0}
    found["flops"] = 6 * r.metrics.at[loss, "parameters"] * r.metrics.at[loss, "tokens"]
    if loss not in r.scored:
        return found
    how = r.study.evaluate.resampling()
    ours, tokens = r.by_story(loss, "nll"), r.by_story(loss, "tokens").to_numpy()[0]
    found["n_seeds"] = len(ours)
    found |= _columns("nll", intervals.mean_nll(ours.to_numpy(), tokens, **how))
    if loss != BASELINE and BASELINE in r.scored:
        theirs = r.by_story(BASELINE, "nll")
        both = ours.index.intersection(theirs.index)
        if len(both):
            pair = ours.loc[both].to_numpy(), theirs.loc[both].to_numpy()
            difference, _ = intervals.difference(*pair, tokens, **how)
            found |= _columns("difference", difference)
            found |= _columns("tokens_needed", _tokens_needed(r, loss, difference))
    return found | _stories(r, loss)


def _tokens_needed(r: Results, loss: str, difference: Interval) -> scaling.Needed:
    curves = _curve(r, BASELINE), _curve(r, loss)
    theirs, ours = ((np.array(curve.index), curve.to_numpy()) for curve in curves)
    return scaling.tokens_needed(*theirs, *ours, difference)


def _curve(r: Results, loss: str) -> pd.Series:
    """Mean nll by training tokens, over the seeds that all lengths have; NaN if all diverged."""
    study, final = r.study, r.study.final
    seeds = final.seeds[: final.length_seeds] if final.lengths else final.seeds
    lengths = [study.tokens_trained("lengths", length) for length in sorted(final.lengths)]
    of_loss = r.lengths[(r.lengths["loss"] == loss) & r.lengths["seed"].isin(seeds)]
    means = of_loss.groupby("tokens")["nll"].mean()
    return means.reindex([*lengths, study.tokens_trained("final")])


def _stories(r: Results, loss: str) -> Row:
    """Form and agreement of the stories at the middle temperature, if the corpus has them."""
    told = r.quality[
        (r.quality["loss"] == loss) & (r.quality["temperature"] == r.study.sample.middle)
    ]
    names = [f"{name}{end}" for name in ("form", "agreement") for end in ENDS]
    return {name: told[name].iloc[0] for name in names if name in told and len(told)}


def _columns(name: str, interval: Interval | scaling.Needed) -> Row:
    ends = interval.estimate, interval.low, interval.high
    return {f"{name}{end}": value for end, value in zip(ENDS, ends)}


# --- entering a loss ----------------------------------------------------------------------------


def enter(loss: str) -> Path:
    """Write the study file with which a loss enters, an overlay for `make study STUDY=…`.

    Links the default study's corpus and cross-entropy runs into the new study, if they exist.
    Raises SquentropyError if there is no such loss, or if the default study's results have another
    protocol.
    """
    default = load([DEFAULT])
    try:
        loss = loss_info(loss).name
    except ValueError as error:
        raise SquentropyError(f"{loss}: {error}") from None
    if loss in default.sweep.losses:
        raise SquentropyError(
            f"{loss}: is already in the default study; run `make study`, then `squentropy "
            "leaderboard`"
        )
    held = Path("results", default.study)
    changed = broken(load([_params(held)]), default) if held.exists() else []
    if changed:
        raise SquentropyError(
            f"{DEFAULT}: differs from {held} in {', '.join(changed)}, so this loss could not be "
            "compared with the losses there; run `make study` first"
        )
    name = "loss-" + re.sub("[^A-Za-z0-9_]+", "-", slug(loss)).strip("-")
    changes = {"study": name, "sweep": {"losses": [BASELINE, loss]}, "final": {"reported": None}}
    file = Path(".snakemake", "squentropy", f"{name}.yaml")
    storage.write_text(file, yaml.safe_dump(changes, sort_keys=False, allow_unicode=True))
    _take_over(Places(held), Places(Path("results", load([DEFAULT, file]).study)))
    return file


def _take_over(of: Places, to: Places) -> None:
    """Link what a loss's study need not make; it recognises these files as up to date."""
    folders = [(of.of("data"), to.of("data"))]
    for phase in PHASES:
        runs = Path(phase, slug(BASELINE))
        folders.append((of.of("checkpoints") / runs, to.of("checkpoints") / runs))
    for source, target in folders:
        if source.is_dir() and not target.exists():
            shutil.copytree(source, target, copy_function=_link)


def _link(source: str, target: str) -> None:
    """A hard link, which is safe because runs replace files and never change them; or a copy."""
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copy2(source, target)
