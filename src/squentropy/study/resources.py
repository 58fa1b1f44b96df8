"""The resources that a study's jobs request, estimated in advance and without importing torch.

Estimates err on the high side. A job that is killed nevertheless requests twice as much on its next
attempt, and training resumes. The limits in `check` err on the low side: a study that it refuses
cannot be run here.
"""

import contextlib
import shutil
from pathlib import Path

import psutil

from squentropy.base.errors import ParameterError
from squentropy.study import disk
from squentropy.study.params import PHASES, Study

PROCESS_MB = 2000  # a process with torch and its data; about 300 MB at its start, more with CUDA
START_MINUTES = 10  # imports over a network, torch.compile and other constant costs
CPU_FLOPS = 5e9  # per second and thread; benchmarks/README.md measures 40e9 and more
MEASURED_FLOPS = 40e9  # per second and core, as measured in benchmarks/README.md
GPU_FLOPS = 30e12  # per second
READING = 200  # operations per logit in scoring: softmax, ranks, calibration
STORY_BYTES = 2000  # memory per story of a teacher, until it is written
COPIES = 6  # of the weights: weights, gradients, AdamW's two moments, and a state being saved


def training_mb(study: Study) -> int:
    """Memory for training the deepest model on a CPU, in MB per process.

    A layer keeps 17 floats per token and unit of width, and 2.5 per pair of positions and head:
    Korthikanti et al., Reducing Activation Recomputation in Large Transformer Models, 2022.
    """
    model, n_layer = study.model, _deepest(study)
    tokens = study.train.batch_size * model.block_size
    layer = tokens * (17 * model.n_embd + 2.5 * model.n_head * model.block_size)
    size = COPIES * disk.weights_bytes(study, n_layer) + disk.FLOAT32 * n_layer * layer
    return PROCESS_MB + round(size / 1e6)


def training_flops(study: Study, phase: str) -> float:
    """Operations of the longest training job of a phase: a row of the sweep, the refinement of a
    loss, the shorter runs of a loss, or a single other run."""
    lengths: list[int] | list[None]
    depths, lengths = [_deepest(study)], [None]
    if phase == "sweep":
        points = study.sweep.points()
        depths = [p["n_layer"] for p in points if p["lr"] == points[0]["lr"]]
    elif phase == "refine":
        depths *= study.refine.max_runs
    elif phase == "lengths":
        lengths = study.final.lengths * study.final.length_seeds
    tokens = sum(study.tokens_trained(phase, length) for length in lengths)
    return sum(6 * _parameters(study, n_layer) * tokens for n_layer in depths)


def evaluation_flops(study: Study, phase: str) -> float:
    """Operations of scoring or sampling the runs of a loss, generously a tenth of their training.

    Both are small compared with long training, and fit into START_MINUTES after short training.
    """
    flops = training_flops(study, phase)
    if phase == "final":
        flops = flops * len(study.final.seeds) + training_flops(study, "lengths")
    return flops / 10


def scoring_flops(study: Study, split: str) -> float:
    """Operations of one pass over the stories of a split, validation or test."""
    each = 2 * _parameters(study, _deepest(study)) + READING * disk.vocabulary(study)
    return _tokens(study, split) * each


def fitting_flops(study: Study) -> float:
    """Operations of fitting a temperature on validation, with a few Newton steps."""
    each = disk.vocabulary(study) * (2 * study.model.n_embd + READING)
    return 10 * _tokens(study, "validation") * each


def telling_flops(study: Study) -> float:
    """Operations of generating a run's stories, at maximum length."""
    tokens = stories_told(study) * study.sample.max_tokens
    return 2 * _parameters(study, _deepest(study)) * tokens


def stories_told(study: Study) -> int:
    """The number of stories generated per run: at temperature 0, one per prompt."""
    told = study.sample
    return len(told.prompts) * sum(told.stories if t else 1 for t in told.temperatures)


def corpus_mb(study: Study) -> int:
    """Memory for making the corpus, in MB; grows with the number of a teacher's stories."""
    return PROCESS_MB + _told(study) * STORY_BYTES // 10**6


def drawing_flops(study: Study) -> float:
    """Operations of generating a teacher's stories, at maximum length; 0 for other sources."""
    each = study.corpus.model.max_tokens * 2 * _teacher_bytes(study) / disk.FLOAT32
    return _told(study) * each


def _told(study: Study) -> int:
    """The number of stories that a teacher generates; 0 for other sources."""
    teacher = study.corpus.model
    told = study.corpus.source == "model"
    return teacher.train + teacher.validation + teacher.test if told else 0


def _teacher_bytes(study: Study) -> int:
    """Bytes of the teacher's weights; 0 if they do not exist yet."""
    files = Path(study.corpus.model.run).glob("*.safetensors")
    return sum(path.stat().st_size for path in files)


def _tokens(study: Study, split: str) -> int:
    """Tokens of a split, if each story fills a context; 0 if no parameter gives their number."""
    corpus = getattr(study.corpus, study.corpus.source).model_dump()
    known = (corpus.get(name) for name in (split, f"{split}_stories", "validation_stories"))
    return next((n for n in known if isinstance(n, int)), 0) * study.model.block_size


def minutes(study: Study, flops: float, gpu: bool) -> int:
    """The time limit of a job with this many operations, in minutes."""
    speed = GPU_FLOPS if gpu else CPU_FLOPS * study.train.threads
    return START_MINUTES + round(flops / speed / 60)


def summary(study: Study, cores: int, gpu: bool) -> str:
    """One line: the approximate maximum duration of all training, and the memory of each run."""
    jobs = {
        "sweep": len(study.sweep.losses) * len(study.sweep.lr),
        "refine": len(study.sweep.losses),
        "lengths": len(study.sweep.losses) if study.final.lengths else 0,
        "final": len(study.sweep.losses) * len(study.final.seeds),
        "reported": len(study.reported_cells()),
    }
    flops = sum(jobs[phase] * training_flops(study, phase) for phase in PHASES if jobs[phase])
    speed = GPU_FLOPS if gpu else MEASURED_FLOPS * cores
    where = "a GPU" if gpu else "1 core" if cores == 1 else f"{cores} cores"
    return (
        f"Training takes about {_duration(flops / speed)} on {where} at most, and "
        f"{training_mb(study) / 1000:.1f} GB of memory per run; this machine has "
        f"{machine_mb() / 1000:.1f}."
    )


def check(study: Study, gpu: bool) -> None:
    """Raises ParameterError, before any work, if a study cannot fit into memory or on the disk."""
    least, there = least_mb(study), machine_mb()
    if least > there and not gpu:
        raise ParameterError(
            f"{study.study}: training needs at least {least / 1000:,.1f} GB of memory, this "
            f"machine has {there / 1000:,.1f}; reduce model.n_embd, sweep.n_layer or "
            "train.batch_size"
        )
    needed, held = disk.least_bytes(study), disk.held_bytes(study)
    free = shutil.disk_usage(".").free
    if needed - held > free:
        raise ParameterError(
            f"{study.study}: its weights need at least {(needed - held) / 1e9:,.1f} GB on disk, "
            f"{free / 1e9:,.1f} are free; make the model smaller, or reduce final.seeds"
        )


def least_mb(study: Study) -> int:
    """The minimum memory for training the deepest model, in MB.

    The weights, their gradients and AdamW's two moments; and a float per token, unit and layer.
    """
    n_layer, model = _deepest(study), study.model
    kept = study.train.batch_size * model.block_size * model.n_embd * n_layer * disk.FLOAT32
    return round((4 * disk.weights_bytes(study, n_layer) + kept) / 1e6)


def machine_mb() -> int:
    """The memory of this machine with swap, in MB, or its container's limit if that is lower."""
    there = psutil.virtual_memory().total + psutil.swap_memory().total
    with contextlib.suppress(OSError, ValueError):  # not in a container, or without a limit
        there = min(there, int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return round(there / 1e6)


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3600)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    minutes = max(1, round(seconds / 60))
    return "a minute" if minutes == 1 else f"{minutes} minutes"


def _deepest(study: Study) -> int:
    reported = [cell.n_layer for cell in study.reported_cells()]
    return max(study.sweep.n_layer + reported)


def _parameters(study: Study, n_layer: int) -> int:
    return disk.weights_bytes(study, n_layer) // disk.FLOAT32
