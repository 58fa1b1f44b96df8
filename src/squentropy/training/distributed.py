"""One run in several processes, each on a GPU of its own, or all on the CPU where there is none.

    squentropy train …                          with train.processes: 2, starts both
    torchrun --nnodes 2 --nproc-per-node 4 --no-python squentropy train …    on two machines

The processes deal out an iteration's micro-batches and add up their gradients by torch's
DistributedDataParallel, so all take the same step; NCCL carries them between GPUs, gloo between
CPUs. Everything else each does alike, and the first one writes.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from squentropy.base.errors import Ended, Interrupted, SquentropyError


@dataclass(frozen=True)
class Group:
    """The processes of a run: this one's number, from 0, and how many there are."""

    rank: int = 0
    size: int = 1
    launcher: int | None = None  # the process that started them all

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def orphaned(self) -> bool:
        """Whether the launcher was killed, and could not tell its processes to end."""
        return self.launcher is not None and os.getppid() != self.launcher

    def share(self, accumulation: int) -> range:
        """The numbers of the micro-batches that are this process's."""
        return range(self.rank, accumulation, self.size)

    def wrap(self, model: nn.Module) -> nn.Module:
        """The model, whose backward passes average the gradients over the processes."""
        if self.size == 1:
            return model
        if next(model.parameters()).device.type == "mps":
            raise SquentropyError("train.processes: Apple's GPU serves one process; write 1")
        return nn.parallel.DistributedDataParallel(model)

    def gathers(
        self, model: Callable[..., Tensor], last: bool
    ) -> contextlib.AbstractContextManager[None]:
        """A micro-batch; the gradients of all are averaged once, in the `last` one."""
        if isinstance(model, nn.parallel.DistributedDataParallel) and not last:
            return model.no_sync()
        return contextlib.nullcontext()

    def add_up(self, tensor: Tensor) -> Tensor:
        """Its sum over the processes, in place."""
        if self.size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether it is true in one of the processes; a GPU is not waited for."""
        return self.add_up(torch.tensor(int(flag))).item() > 0 if self.size > 1 else flag

    def agree(self, value: Any) -> Any:
        """What the first process holds; small, and to be pickled."""
        if self.size == 1:
            return value
        held = [value]
        torch.distributed.broadcast_object_list(held, device=torch.device("cpu"))
        return held[0]

    def copy_from_first(self, tensors: dict[str, Tensor]) -> None:
        """Put the first process's numbers into the tensors of all."""
        for tensor in tensors.values() if self.size > 1 else ():
            torch.distributed.broadcast(tensor.detach(), 0)

    @contextlib.contextmanager
    def noticing_lost_ones(self) -> Iterator[None]:
        """Raises SquentropyError where another process of the run has gone."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not _is_of_connection(error):
                raise
            raise SquentropyError(
                f"process {self.rank} of the run: another one has ended; the same command goes on "
                "from the last state that was saved"
            ) from error


def started() -> int:
    """How many processes the launcher has started; 0 where none did."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 0


def join(count: int) -> Group:
    """The group of a run's `count` processes, of which this is one."""
    if (started() or 1) != count:
        raise SquentropyError(
            f"train.processes = {count}, but {started() or 1} were started; "
            f"give torchrun --nproc-per-node {count}, or leave the start to squentropy"
        )
    if count == 1:
        return Group()
    if not torch.distributed.is_initialized():
        # What is on the CPU goes by gloo, so that no GPU has to be waited for.
        gpus = torch.cuda.is_available()
        torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo")
    return Group(torch.distributed.get_rank(), count, os.getppid())


def launch(count: int) -> None:
    """Run this very command in `count` processes, by torchrun's launcher, and wait for them.

    Raises Ended with the first failed one's exit code, and SquentropyError if it was killed. On
    SIGTERM and Ctrl-C the processes are asked to end, and save the run's state first.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=str(os.getpid()),  # of no use on one machine, but it is missed
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "squentropy.cli.app", *sys.argv[1:])
    except SignalException as error:
        raise Interrupted(error.sigval) from None
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:
            raise Ended(failure.exitcode) from None
        name = signal.Signals(-failure.exitcode).name
        raise SquentropyError(
            f"process {rank} of the run's {count} was ended by {name}; the same command goes on "
            "from the last state that was saved"
        ) from None


def _is_of_connection(error: RuntimeError) -> bool:
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
