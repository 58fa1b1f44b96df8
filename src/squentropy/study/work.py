"""What the jobs of a study take, roughly, known before they run and without importing torch.

tools/waiting.py corrects these seconds by what jobs have taken so far.
"""

from dataclasses import dataclass

from squentropy.study import resources
from squentropy.study.grid import GRID_KEYS
from squentropy.study.params import Study

START = 4.0  # seconds, of a process with torch
FIXED = {
    "corpus": 4.0, "tokens": 3.0, "select": 2.0, "voices": 6.0, "metrics": 15.0, "draw": 8.0,
    "page": 8.0,
}  # fmt: skip
"""Seconds of jobs that train and score nothing, by rule."""
CPU_FLOPS = 40e9  # a second and thread; resources.py asks a cluster for time on the safe side
SCORING = 2  # passes' worth over the stories, of all readings of a run
LEFT_LAST = ("metrics", "draw", "page")
"""Rules whose jobs wait for all others, and for one another."""
STAGES = (
    ("corpus",), ("tokens",), ("grid",), ("sweep",), ("refine",), ("lengths", "final", "reported"),
    ("evaluate_final", "sample_final", "evaluate_reported", "sample_reported"), ("voices",),
    *((rule,) for rule in LEFT_LAST),
)  # fmt: skip
"""Rules in the order in which their jobs wait for one another, for a loss at least."""


@dataclass(frozen=True)
class Job:
    """What each job of a rule does."""

    seconds: float
    runs: float = 0.0
    """That it trains; of the refining ones as many as are to be expected."""


def jobs(study: Study, gpu: bool = False) -> dict[str, Job]:
    """The jobs of each rule of the workflow, on average."""
    speed = resources.GPU_FLOPS if gpu else CPU_FLOPS * study.train.threads
    final = study.final
    runs = {
        "sweep": len(study.sweep.points()) / len(study.sweep.lr),
        "refine": refining(study),
        "lengths": len(final.lengths) * final.length_seeds,
        "final": 1,
        "reported": 1,
    }
    found = {rule: Job(seconds) for rule, seconds in FIXED.items()}
    for phase, n in runs.items():
        flops = resources.training_flops(study, phase) if n else 0.0
        if phase == "refine":
            flops *= n / study.refine.max_runs
        flops += n * resources.scoring_flops(study, "validation")
        flops += n * resources.fitting_flops(study) * (phase != "sweep")
        found[phase] = Job(START + flops / speed, n)
    rows = len(study.sweep.lr) * len(study.sweep.losses)
    found["grid"] = Job(START + rows * (found["sweep"].seconds - START), rows * runs["sweep"])
    for phase, n in {"final": len(final.seeds), "reported": 1}.items():
        scored = n + runs["lengths"] * (phase == "final")
        test = SCORING * scored * resources.scoring_flops(study, "test")
        test += n * resources.fitting_flops(study)
        found[f"evaluate_{phase}"] = Job(START + test / speed)
        found[f"sample_{phase}"] = Job(START + n * resources.telling_flops(study) / speed)
    return found


def refining(study: Study) -> int:
    """How many runs refining a loss is expected to take.

    Its best cell, two neighbours, and each other value of the rest of the grid once.
    """
    others = sum(len(getattr(study.sweep, key)) - 1 for key in GRID_KEYS[1:])
    return min(study.refine.max_runs, 3 + others)
