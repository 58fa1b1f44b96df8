"""Where everything of a study lies: told here once, for rules, commands and tests.

data/STUDY          corpus/ and tokens/
checkpoints/STUDY   a folder for each run, see `RUNS`
state/STUDY         what unfinished runs go on from
results/STUDY       tables, and the parameters they were made by
report/STUDY        figures/ and index.html
logs/STUDY          what each job said
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

The rules' wildcards bear the same names.
"""

REFINED = "refine/{loss}/refine.json"
"""What was selected for a loss, below checkpoints/STUDY."""


@dataclass(frozen=True)
class Places:
    """The folders of a study, all of which lie where its results/STUDY does."""

    results: Path

    @property
    def root(self) -> Path:
        return self.results.parent.parent

    def of(self, kind: str) -> Path:
        """Its folder below data, checkpoints, report, logs or state."""
        return self.root / kind / self.results.name

    @property
    def lock(self) -> Path:
        return self.root / ".snakemake" / "squentropy" / f"{self.results.name}.lock"


def refine_file(checkpoints: Path, loss: str) -> Path:
    """Below a study's checkpoints."""
    return checkpoints / REFINED.format(loss=slug(loss))


def any_run(phase: str) -> str:
    """A glob of the runs of a phase, of any study, below the folder that studies lie in."""
    return "checkpoints/*/" + re.sub("{.*?}", "*", RUNS[phase])


def tokens_beside(run: Path, name_it: str) -> Path:
    """data/STUDY/tokens beside the checkpoints/STUDY in which a run lies.

    Raises SquentropyError where it lies in none; `name_it` says how else to name the tokens.
    """
    for study in run.resolve().parents:
        if study.parent.name == "checkpoints":
            tokens = study.parents[1] / "data" / study.name / "tokens"
            return tokens if run.is_absolute() else Path(os.path.relpath(tokens))
    raise SquentropyError(
        f"{run}: lies in no checkpoints/STUDY, beside which its tokens would be; name their "
        f"folder, as {name_it}"
    )
