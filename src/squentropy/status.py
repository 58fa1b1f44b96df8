"""Why a run is not up to date: what it waits for, in plain words.

squentropy why checkpoints/grammar/final/mse/seed1
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from squentropy import records
from squentropy.errors import SquentropyError
from squentropy.names import slug
from squentropy.params import Cell, Study
from squentropy.selection import selected_hyperparameters
from squentropy.tokens import TokenFolder


def stale_runs(
    study: Study, folders: Sequence[Path] | None, states: Path
) -> Iterator[tuple[Path, list[str]]]:
    """Each of these run folders with the reasons why it is not up to date, none where it is.

    Without `folders`: every run of the study that is not up to date. Raises SquentropyError where
    a folder is no run of the study.
    """
    root = Path("checkpoints") / study.study
    cells = {root / cell.name: cell for cell in [*study.sweep_cells(), *study.reported_cells()]}
    finals = [
        root / "final" / slug(loss) / f"seed{seed}"
        for loss in study.sweep.losses
        for seed in study.final.seeds
    ]
    known = {*cells, *finals}
    for folder in folders or []:
        if folder not in known:
            raise SquentropyError(
                f"{folder}: is no run of the study {study.study}; they lie in {root}"
            )
    try:
        tokens = TokenFolder.open(Path("data") / study.study / "tokens")
    except SquentropyError as error:
        waits = f"waits for its tokens ({error})"
        yield from ((folder, [waits]) for folder in folders or [*cells, *finals])
        return
    try:
        chosen = selected_hyperparameters(study, Path("results") / study.study)
        cells |= {root / cell.name: cell for cell in study.final_cells(chosen)}
    except SquentropyError as error:
        unselected = f"waits for the sweep ({error})"
    for folder in folders or [*cells, *(final for final in finals if final not in cells)]:
        if folder in cells:
            reasons = _reasons(study, cells[folder], tokens, folder, states)
        else:
            reasons = [unselected]
        if folders or reasons:
            yield folder, reasons


def _reasons(
    study: Study, cell: Cell, tokens: TokenFolder, folder: Path, states: Path
) -> list[str]:
    expected = records.origin(study, cell, tokens)
    reasons = records.why_train(expected, folder, records.keeps_weights(study, cell))
    if reasons:
        unfinished = list((states / study.study / cell.name).glob("*.safetensors"))
        return reasons + [f"{path}: an unfinished run to go on from" for path in unfinished]
    if cell.phase == "sweep":
        return []
    run = records.read_run(folder)
    return [
        *records.why_remake(folder / "test.json", records.scored_from(study, folder, run)),
        *records.why_remake(folder / "samples.json", records.told_from(study, folder, run)),
    ]
