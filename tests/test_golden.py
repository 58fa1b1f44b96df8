"""The loss curve of a small run on a CPU does not change unnoticed.

pytest tests/test_golden.py
python tests/test_golden.py      # rewrites golden/losses.json after an intended change

Processors differ in the order of their additions. On one processor with all its vector
instructions, up to AVX2, or none, these curves differ by at most 3e-6. The tolerance of 1e-4 leaves
room for other processors, and any change of the mathematics far exceeds it.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from squentropy.losses import LOSSES
from squentropy.study.grid import Cell
from squentropy.study.params import load, parse
from squentropy.tokens.token_files import Split
from squentropy.training.loop import train

GOLDEN = Path(__file__).parent / "golden" / "losses.json"
TOLERANCE = 1e-4  # relative
ROOT = Path(__file__).resolve().parents[1]


class Tokens:
    """Token ids, most of which are a function of the two ids before."""

    vocab_size, end_of_text, folder = 64, 63, Path("golden")

    def split(self, name: str) -> Split:
        draw = np.random.Generator(np.random.Philox(key=len(name)))
        ids = draw.integers(0, 63, size=2048)
        for i in range(2, len(ids)):
            if draw.random() < 0.8:
                ids[i] = (ids[i - 1] + 2 * ids[i - 2]) % 63
        return Split(ids.astype(np.uint16), np.arange(0, 2049, 128))


def curve(loss: str) -> list[float]:
    """The training loss of each iteration, then the final validation nll."""
    values = load([ROOT / "params.yaml"]).model_dump()
    values["model"] |= {"n_embd": 32, "n_head": 2, "block_size": 32, "positions": "learned"}
    values["train"] |= {"device": "cpu", "threads": 1, "batch_size": 4, "accumulation": 2}
    values["train"] |= {"beta2": 0.95}
    values["sweep"] |= {"max_iters": 20, "warmup_iters": 4, "eval_interval": 1}
    cell = Cell("sweep", loss, lr=0.003, dropout=0.1, n_layer=2, seed=7)
    _, result = train(parse(values), cell, Tokens())
    return [row["train_loss"] for row in result.history] + [result.validation.mean_nll()]


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_curve_is_the_golden_one(loss):
    golden = json.loads(GOLDEN.read_text())
    assert curve(loss) == pytest.approx(golden[loss], rel=TOLERANCE)


if __name__ == "__main__":
    curves = {loss: [round(value, 7) for value in curve(loss)] for loss in LOSSES}
    lines = (f'  "{loss}": {json.dumps(values)}' for loss, values in curves.items())
    GOLDEN.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(GOLDEN, file=sys.stderr)
