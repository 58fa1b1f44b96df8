"""Approximate durations of a study's jobs, estimated in advance and without importing torch.

tools/waiting.py corrects these estimates by the durations of finished jobs.
"""

from dataclasses import dataclass

from squentropy.study import resources
from squentropy.study.grid import GRID_KEYS
from squentropy.study.params import Study

START = 4.0  # seconds to start a process with torch
FIXED = {
    "corpus": 4.0, "tokens": 3.0, "select": 2.0, "voices": 4.0, "metrics": 8.0, "draw": 7.0,
    "page": 9.0,
}  # fmt: skip
"""Seconds of jobs that neither train nor score, by rule."""
GRADING = 0.015  # seconds that a sampled story adds to `metrics`
CPU_FLOPS = 50e9  # per second and thread; resources.py requests time more cautiously
SCORING = 3  # cost of scoring all readings of a run, in passes over the stories
LEFT_LAST = ("metrics", "draw", "page")
"""Rules whose jobs wait for all others, and for each other in this order."""
STAGES = (
    ("corpus",), ("tokens",), ("grid",), ("sweep",), ("refine",), ("lengths", "final", "reported"),
    ("evaluate_final", "sample_final", "evaluate_reported", "sample_reported"), ("voices",),
    *((rule,) for rule in LEFT_LAST),
)  # fmt: skip
"""Rules in the order in which their jobs depend on each other, at least within a loss."""


@dataclass(frozen=True)
class Job:
    """The average work of a rule's jobs."""

    seconds: float
    runs: float = 0.0
    """Runs that it trains; for refinement, the expected number."""


def jobs(study: Study, gpu: bool = False) -> dict[str, Job]:
    """The average job of each rule of the workflow."""
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
    if study.corpus.source == "grammar":
        told = len(study.sweep.losses) * len(final.seeds) * resources.stories_told(study)
        found["metrics"] = Job(FIXED["metrics"] + GRADING * told)
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
    """The expected number of runs for refining a loss.

    The best cell, two neighbours, and each other value of the remaining hyperparameters once.
    """
    others = sum(len(getattr(study.sweep, key)) - 1 for key in GRID_KEYS[1:])
    return min(study.refine.max_runs, 3 + others)
