"""What the jobs of a study ask a cluster for, known before they run and without importing torch.

Amounts err on the high side: a job that is killed all the same asks for twice as much the next
time, and one that was training goes on from where it was.
"""

from squentropy.study import disk
from squentropy.study.params import Study

PROCESS_MB = 2000  # a process with torch and its data; some 300 MB before it begins, more with CUDA
START_MINUTES = 10  # imports over a network, torch.compile, and what else grows with nothing
CPU_FLOPS = 5e9  # a second and thread; benchmarks/README.md measures 40e9 and more
GPU_FLOPS = 30e12  # a second
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


def minutes(study: Study, flops: float, gpu: bool) -> int:
    """Minutes that a job of so many operations may take."""
    speed = GPU_FLOPS if gpu else CPU_FLOPS * study.train.threads
    return START_MINUTES + round(flops / speed / 60)


def _deepest(study: Study) -> int:
    reported = [cell.n_layer for cell in study.reported_cells()]
    return max(study.sweep.n_layer + reported)


def _parameters(study: Study, n_layer: int) -> int:
    return disk.weights_bytes(study, n_layer) // disk.FLOAT32
