"""What the jobs of a study ask a cluster for, known before they run and without importing torch.

Amounts err on the high side: a job that is killed all the same asks for twice as much the next
time, and one that was training goes on from where it was. What `check` refuses errs on the low
side: such a study cannot be run here.
"""

import contextlib
import shutil
from pathlib import Path

import psutil

from squentropy.base.errors import ParameterError
from squentropy.study import disk
from squentropy.study.params import PHASES, Study

PROCESS_MB = 2000  # a process with torch and its data; some 300 MB before it begins, more with CUDA
START_MINUTES = 10  # imports over a network, torch.compile, and what else grows with nothing
CPU_FLOPS = 5e9  # a second and thread; benchmarks/README.md measures 40e9 and more
MEASURED_FLOPS = 40e9  # of those, a second and core, by benchmarks/README.md
GPU_FLOPS = 30e12  # a second
READING = 200  # operations' worth a logit that is read: softmax, ranks, calibration
STORY_BYTES = 2000  # that a teacher's story takes until it is written
COPIES = 6  # of the weights: themselves, gradients, AdamW's two moments, and a state that is saved


def training_mb(study: Study) -> int:
    """Memory that a process which trains the deepest model takes on a CPU, in MB.

    A layer keeps 17 floats per token and unit of width, and 2.5 a pair of positions and head:
    Korthikanti et al., Reducing Activation Recomputation in Large Transformer Models, 2022.
    """
    model, n_layer = study.model, _deepest(study)
    tokens = study.train.batch_size * model.block_size
    layer = tokens * (17 * model.n_embd + 2.5 * model.n_head * model.block_size)
    size = COPIES * disk.weights_bytes(study, n_layer) + disk.FLOAT32 * n_layer * layer
    return PROCESS_MB + round(size / 1e6)


def training_flops(study: Study, phase: str) -> float:
    """Operations of the longest training job of a phase: a row of the sweep, the runs that refine
    a loss, its shorter runs, or one other run."""
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
    """Operations of scoring or sampling the runs of a loss: generously a tenth of their training's.

    Both are small beside it where time is long, and within START_MINUTES where it is not.
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
    """Operations of fitting a temperature on validation, by a few steps of Newton's."""
    each = disk.vocabulary(study) * (2 * study.model.n_embd + READING)
    return 10 * _tokens(study, "validation") * each


def telling_flops(study: Study) -> float:
    """Operations of the stories that a run tells, at their longest."""
    told = study.sample
    stories = len(told.prompts) * len(told.temperatures) * told.stories
    return 2 * _parameters(study, _deepest(study)) * stories * told.max_tokens


def corpus_mb(study: Study) -> int:
    """Memory that making the corpus takes, in MB: that of a teacher's stories grows with them."""
    return PROCESS_MB + _told(study) * STORY_BYTES // 10**6


def drawing_flops(study: Study) -> float:
    """Operations of a teacher's stories, at their longest; none where another source has them."""
    each = study.corpus.model.max_tokens * 2 * _teacher_bytes(study) / disk.FLOAT32
    return _told(study) * each


def _told(study: Study) -> int:
    """Stories that a teacher tells."""
    teacher = study.corpus.model
    told = study.corpus.source == "model"
    return teacher.train + teacher.validation + teacher.test if told else 0


def _teacher_bytes(study: Study) -> int:
    """Of its weights; 0 where they are not here yet."""
    files = Path(study.corpus.model.run).glob("*.safetensors")
    return sum(path.stat().st_size for path in files)


def _tokens(study: Study, split: str) -> int:
    """Of the stories of a split, roughly, each a context long; 0 where no parameter tells."""
    corpus = getattr(study.corpus, study.corpus.source).model_dump()
    known = (corpus.get(name) for name in (split, f"{split}_stories", "validation_stories"))
    return next((n for n in known if isinstance(n, int)), 0) * study.model.block_size


def minutes(study: Study, flops: float, gpu: bool) -> int:
    """Minutes that a job of so many operations may take."""
    speed = GPU_FLOPS if gpu else CPU_FLOPS * study.train.threads
    return START_MINUTES + round(flops / speed / 60)


def summary(study: Study, cores: int, gpu: bool) -> str:
    """One line: about how long all training takes at most, and the memory of each run."""
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
        f"{training_mb(study) / 1000:.1f} GB of memory a run; here are {machine_mb() / 1000:.1f}."
    )


def check(study: Study, gpu: bool) -> None:
    """Raises ParameterError, before work begins, where it cannot fit into memory or on the disk."""
    least, there = least_mb(study), machine_mb()
    if least > there and not gpu:
        raise ParameterError(
            f"{study.study}: training takes {least / 1000:,.1f} GB of memory or more, this machine "
            f"has {there / 1000:,.1f}; make model.n_embd, sweep.n_layer or train.batch_size smaller"
        )
    needed, held = disk.least_bytes(study), disk.held_bytes(study)
    free = shutil.disk_usage(".").free
    if needed - held > free:
        raise ParameterError(
            f"{study.study}: its weights take {(needed - held) / 1e9:,.1f} GB or more of the disk, "
            f"{free / 1e9:,.1f} are free; make the model smaller, or final.seeds fewer"
        )


def least_mb(study: Study) -> int:
    """The memory, in MB, that training the deepest model never does without.

    The weights, their gradients and AdamW's two moments; and a float a token, unit and layer.
    """
    n_layer, model = _deepest(study), study.model
    kept = study.train.batch_size * model.block_size * model.n_embd * n_layer * disk.FLOAT32
    return round((4 * disk.weights_bytes(study, n_layer) + kept) / 1e6)


def machine_mb() -> int:
    """The memory that there is, in MB: this machine's, or what its container may use."""
    there = psutil.virtual_memory().total + psutil.swap_memory().total
    with contextlib.suppress(OSError, ValueError):  # not in one, or without a limit
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
