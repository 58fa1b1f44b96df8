"""Explain why a run is not up to date.

squentropy why checkpoints/grammar/final/mse/seed1
"""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.base.kinds import CorpusManifest
from squentropy.corpus import given, story_files
from squentropy.runs import records
from squentropy.study.find import find
from squentropy.study.grid import Cell
from squentropy.study.layout import refine_file
from squentropy.study.params import SPLITS, Study
from squentropy.tokens.token_files import TokenFolder


def study_of(folder: Path) -> list[str]:
    """The name of the study of a run in checkpoints/STUDY; empty for the default study."""
    name = folder.parts[1] if len(folder.parts) > 1 and folder.parts[0] == "checkpoints" else None
    with contextlib.suppress(SquentropyError):
        return [find(name)[0].study] if name else []
    return []


def stale_runs(
    study: Study, folders: Sequence[Path] | None, states: Path
) -> Iterator[tuple[Path, list[str]]]:
    """Each of the run folders with the reasons why it is not up to date; no reasons if it is.

    Without `folders`, every run of the study that is not up to date. Raises SquentropyError if a
    folder is not a run of the study.
    """
    root = Path("checkpoints") / study.study
    chosen, waits_for = {}, {}
    for loss in study.sweep.losses:
        try:
            chosen[loss] = records.chosen_for(loss, refine_file(root, loss))
        except SquentropyError as error:
            waits_for[loss] = f"waits for its tuning ({error})"
    every = [
        *study.sweep_cells(),
        *study.reported_cells(),
        *study.length_cells(chosen),
        *study.final_cells(chosen),
    ]
    cells = {root / cell.name: cell for cell in every}
    for folder in folders or []:
        if folder not in cells:
            cells[folder] = _other(folder, root, study)
    try:
        tokens = TokenFolder.open(Path("data") / study.study / "tokens")
    except SquentropyError as error:
        waits = f"waits for its tokens ({error})"
        yield from ((folder, [waits]) for folder in folders or cells)
        return
    given_anew = _given(study)
    for folder in folders or cells:
        cell = cells[folder]
        tunes = cell.phase == "refine" and cell.loss in study.sweep.losses
        if not tunes and cell not in every:
            reasons = [f"is no longer a run of the study {study.study}, so nothing uses it"]
        elif cell.lr is None:
            reasons = [waits_for[cell.loss]]
        else:
            reasons = [*given_anew, *_reasons(study, cell, tokens, folder, states)]
        if folders or reasons:
            yield folder, reasons


def _other(folder: Path, root: Path, study: Study) -> Cell:
    """The cell of a run that the parameters do not list: a refining run, or an obsolete one."""
    if folder.is_relative_to(root) and (folder / "run.json").exists():
        return Cell(**records.read_run(folder)["cell"])
    raise SquentropyError(
        f"{folder}: is not a run of the study {study.study}; its runs are in {root}"
    )


_GIVEN = {"files": "story files have", "model": "teacher has"}


def _given(study: Study) -> list[str]:
    """The story files or teacher files that have changed since the corpus was made from them.

    Empty in a restored clone, which does not have these files.
    """
    source = study.corpus.source
    if source not in _GIVEN:
        return []
    manifest: CorpusManifest = storage.read_sealed(
        Path("data") / study.study / "corpus" / "manifest.json"
    )
    try:
        found = story_files.entries(given.hashed(study.corpus))
    except SquentropyError:
        return []
    of = (*SPLITS, given.TEACHER)
    held = {key: value for key, value in manifest["provenance"].items() if key in of}
    if manifest["source"] != source or held == found:
        return []
    before, now = (
        {(split, file["file"], file["sha256"]) for split, files in each.items() for file in files}
        for each in (held, found)
    )
    changed = ", ".join(sorted({file for _, file, _ in before ^ now})) or "their order"
    return [f"its {_GIVEN[source]} changed: {changed}"]


def _reasons(
    study: Study, cell: Cell, tokens: TokenFolder, folder: Path, states: Path
) -> list[str]:
    expected = records.origin(study, cell, tokens)
    reasons = records.why_train(expected, folder, records.keeps_weights(study, cell))
    if reasons:
        unfinished = list((states / study.study / cell.name).glob("*.safetensors"))
        return reasons + [f"{path}: an unfinished run to resume from" for path in unfinished]
    if cell.phase in ("sweep", "refine"):
        return []
    run = records.read_run(folder)
    scores = records.why_remake(folder / "test.json", records.scored_from(study, folder, run))
    if cell.phase == "lengths":
        return scores
    return [
        *scores,
        *records.why_remake(folder / "samples.json", records.told_from(study, folder, run)),
    ]
