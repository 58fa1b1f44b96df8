"""The folders and files of a study, defined once for rules, commands and tests.

data/STUDY          corpus/ and tokens/
checkpoints/STUDY   a folder for each run, see `RUNS`
state/STUDY         training states from which unfinished runs resume
results/STUDY       tables, and the parameters that produced them
report/STUDY        figures/ and index.html
logs/STUDY          the output of each job
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

from squentropy.base.errors import SquentropyError
from squentropy.study.catalogue import slug

ROW = "sweep/{loss}/lr{lr}"
"""The folder of a row of the grid: one loss at one learning rate."""

RUNS = {
    "sweep": ROW + "/{point}",
    "refine": "refine/{loss}/lr{lr}_{point}",
    "lengths": "lengths/{loss}/iters{iterations}/seed{seed}",
    "final": "final/{loss}/seed{seed}",
    "reported": "reported/{loss}/seed{seed}",
}
"""A run's folder below checkpoints/STUDY, by phase; the loss is a slug, the rest as in its cell.

The wildcards of the rules have the same names.
"""

REFINED = "refine/{loss}/refine.json"
"""The hyperparameters selected for a loss, below checkpoints/STUDY."""


@dataclass(frozen=True)
class Places:
    """The folders of a study, in the same root folder as its results/STUDY."""

    results: Path

    @property
    def root(self) -> Path:
        return self.results.parent.parent

    def of(self, kind: str) -> Path:
        """The study's folder below data, checkpoints, report, logs or state."""
        return self.root / kind / self.results.name

    @property
    def lock(self) -> Path:
        return self.root / ".snakemake" / "squentropy" / f"{self.results.name}.lock"


def refine_file(checkpoints: Path, loss: str) -> Path:
    """The path of `REFINED` for a loss, below a study's checkpoints."""
    return checkpoints / REFINED.format(loss=slug(loss))


def any_run(phase: str) -> str:
    """A glob for the runs of a phase in any study, relative to the studies' root folder."""
    return "checkpoints/*/" + re.sub("{.*?}", "*", RUNS[phase])


def tokens_beside(run: Path, name_it: str) -> Path:
    """data/STUDY/tokens beside the checkpoints/STUDY that contains a run.

    Raises SquentropyError if the run is in no such folder; the message gives `name_it` as an
    example of how to name the tokens.
    """
    for study in run.resolve().parents:
        if study.parent.name == "checkpoints":
            tokens = study.parents[1] / "data" / study.name / "tokens"
            return tokens if run.is_absolute() else Path(os.path.relpath(tokens))
    raise SquentropyError(
        f"{run}: is not in a checkpoints/STUDY, so its tokens cannot be found; name their "
        f"folder, as {name_it}"
    )
