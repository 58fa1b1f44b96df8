"""Shared by the parts of gpu.py: reporting figures, and a training step."""

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))  # the package need not be installed

from squentropy.lm.model import GPT, Config  # noqa: E402
from squentropy.lm.optimizer import AdamW  # noqa: E402
from squentropy.losses import LOSSES, fuse_chunks  # noqa: E402


@dataclass(frozen=True)
class Part:
    """A part of the program, in its own process.

    figures    the file to which it appends its figures, one line of JSON each
    until      when its time ends, by time.monotonic
    miniature  whether this is the rehearsal on a CPU
    backend    of torch.compile
    nanogpt    a checkout of karpathy/nanoGPT, or None
    """

    figures: Path
    until: float
    miniature: bool
    backend: str
    nanogpt: Path | None

    @property
    def device(self) -> torch.device:
        return torch.device("cpu" if self.miniature else "cuda")

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.until - time.monotonic()

    def tell(self, what: str, **figures: Any) -> None:
        line = json.dumps({"what": what} | {k: _plain(v) for k, v in figures.items()})
        with self.figures.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)

    def attempt(self, what: str, work: Callable[[], dict[str, Any] | None]) -> bool:
        """Report the figures that `work` returns, if any, or its error; True if it succeeded."""
        if self.left <= 0:
            self.tell(what, skipped="no time was left")
            return False
        start = time.monotonic()
        try:
            figures = work()
        except ModuleNotFoundError as error:
            self.tell(what, skipped=str(error))
            return False
        except Exception as error:
            first_line = (str(error).strip().splitlines() or [""])[0]
            self.tell(what, failed=f"{type(error).__name__}: {first_line}")
            return False
        if figures is not None:
            self.tell(what, **figures, seconds=time.monotonic() - start)
        return True

    def compiled(self, work: Callable) -> Callable:
        return torch.compile(work, backend=self.backend, dynamic=False)

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def half(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16)


def _plain(value: Any) -> Any:
    """A number with four digits; non-finite numbers, which JSON lacks, as text."""
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else str(value)
    return value


class Trained:
    """A GPT with training steps like those of setup.py, compiled, with bfloat16 products."""

    def __init__(self, part: Part, config: Config):
        torch.manual_seed(0)
        self.part, self.config = part, config
        self.model = GPT(config).to(part.device)
        self.forward: nn.Module | Callable = part.compiled(self.model)
        fuse_chunks(part.backend)
        self.initial = {name: w.cpu().clone() for name, w in self.model.state_dict().items()}
        self.restart()

    def restart(self) -> None:
        """Restore the initial weights, with a fresh optimizer."""
        self.model.load_state_dict(self.initial)
        self.optimizer = AdamW(
            self.model.parameters(), beta1=0.9, beta2=0.99, weight_decay=0.1, clip=0.7
        )

    def step(self, loss: str, x: Tensor, y: Tensor, lr: float = 1e-4) -> Tensor:
        """A step on inputs and targets (batch, block) on the device; the host does not wait."""
        with self.part.half():
            hidden = self.forward(x).flatten(0, 1)
            value = LOSSES[loss](hidden, self.model.output_weight, y.flatten())
        value.backward()
        self.optimizer.step(lr)
        return value.detach()

    def random_step(self, loss: str, batch: int) -> None:
        """A step on random ids."""
        shape = (2, batch, self.config.block_size)
        x, y = torch.randint(self.config.vocab_size, shape, device=self.part.device)
        self.step(loss, x, y)
