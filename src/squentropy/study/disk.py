"""The disk space of a study's weights, computed before it runs and without importing torch."""

import shutil
from pathlib import Path

from squentropy.study.params import Study

GPT2_VOCABULARY = 50_257
FLOAT32 = 4


def weights_bytes(study: Study, n_layer: int) -> int:
    """Bytes of the weights of one run, at most: a BPE may end with fewer tokens than allowed."""
    model, width = study.model, study.model.n_embd
    block = 12 * width**2 + 2 * width  # attention 4, MLP 8; two norms
    biases = 11 * width  # attention 4, MLP 5, norms 2
    positions = model.block_size if model.positions == "learned" else 0
    embeddings, last_norm = (vocabulary(study) + positions) * width, width
    total = embeddings + n_layer * block + last_norm
    if model.bias:
        total += n_layer * biases + width
    return FLOAT32 * total


def vocabulary(study: Study) -> int:
    """The vocabulary size, at most."""
    return study.tokens.vocab_size if study.tokens.encoding == "bpe" else GPT2_VOCABULARY


def checkpoints(study: Study) -> tuple[int, int]:
    """The number of runs that keep their weights, and the maximum size of these in bytes.

    The depth of a final run is not known before the sweep, so the largest is assumed.
    """
    final = study.final
    runs = len(final.seeds) + len(final.lengths) * final.length_seeds
    depths = [max(study.sweep.n_layer)] * len(study.sweep.losses) * runs
    depths += [cell.n_layer for cell in study.reported_cells()]
    if study.sweep.keep_weights:
        depths += [cell.n_layer for cell in study.sweep_cells()]
        depths += [max(study.sweep.n_layer)] * len(study.sweep.losses) * study.refine.max_runs
    return len(depths), sum(weights_bytes(study, depth) for depth in depths)


def least_bytes(study: Study) -> int:
    """The minimum size in bytes: the weights of the final runs, with the fewest layers."""
    final = study.final
    runs = len(final.seeds) + len(final.lengths) * final.length_seeds
    return len(study.sweep.losses) * runs * weights_bytes(study, min(study.sweep.n_layer))


def held_bytes(study: Study) -> int:
    """Bytes of the study's checkpoints that exist already."""
    files = Path("checkpoints", study.study).rglob("*.safetensors")
    return sum(path.stat().st_size for path in files)


def summary(study: Study) -> str:
    """One line: the maximum size of the weights, and the free space in the working folder."""
    runs, size = checkpoints(study)
    free = shutil.disk_usage(".").free
    return (
        f"Weights of {runs:,} runs: {size / 1e9:.2f} GB at most in checkpoints/{study.study}, "
        f"as much again in DVC's cache once recorded; {free / 1e9:.2f} GB are free."
    )
