"""One run in several processes, each on its own GPU, or all on the CPU if there is no GPU.

    squentropy train …                          with train.processes: 2, starts both
    torchrun --nnodes 2 --nproc-per-node 4 --no-python squentropy train …    on two machines

The processes share an iteration's micro-batches. torch's DistributedDataParallel averages their
gradients, with NCCL between GPUs and gloo between CPUs, so all take the same step. All processes do
everything else identically, and the first one writes.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from squentropy.base.errors import LOST, Ended, Interrupted, LostProcess, SquentropyError

if TYPE_CHECKING:
    from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

RESUMES = "the same command resumes from the last saved state"


@dataclass(frozen=True)
class Group:
    """The processes of a run: the rank of this one, from 0, and their number."""

    rank: int = 0
    size: int = 1
    launcher: int | None = None  # the process that started them all

    @property
    def first(self) -> bool:
        return self.rank == 0

    @property
    def orphaned(self) -> bool:
        """Whether the launcher died without stopping its processes."""
        return self.launcher is not None and os.getppid() != self.launcher

    def share(self, accumulation: int) -> range:
        """The numbers of this process's micro-batches."""
        return range(self.rank, accumulation, self.size)

    def wrap(self, model: nn.Module) -> nn.Module:
        """Wrap the model so that backward passes average gradients over the processes."""
        if self.size == 1:
            return model
        if next(model.parameters()).device.type == "mps":
            raise SquentropyError("train.processes: an Apple GPU serves one process; set it to 1")
        return nn.parallel.DistributedDataParallel(model)

    def gathers(
        self, model: Callable[..., Tensor], last: bool
    ) -> contextlib.AbstractContextManager[None]:
        """The context of a micro-batch; gradients are averaged once, in the `last` one."""
        if isinstance(model, nn.parallel.DistributedDataParallel) and not last:
            return model.no_sync()
        return contextlib.nullcontext()

    def add_up(self, tensor: Tensor) -> Tensor:
        """Sum over the processes, in place."""
        if self.size > 1:
            torch.distributed.all_reduce(tensor)
        return tensor

    def any(self, flag: bool) -> bool:
        """Whether the flag is true in any process; does not wait for a GPU."""
        return self.add_up(torch.tensor(int(flag))).item() > 0 if self.size > 1 else flag

    def agree(self, value: Any) -> Any:
        """The first process's value, which must be small and picklable."""
        if self.size == 1:
            return value
        held = [value]
        with self.noticing_lost_ones():
            torch.distributed.broadcast_object_list(held, device=torch.device("cpu"))
        return held[0]

    def copy_from_first(self, tensors: dict[str, Tensor]) -> None:
        """Copy the first process's tensors to all processes, in place."""
        for tensor in tensors.values() if self.size > 1 else ():
            torch.distributed.broadcast(tensor.detach(), 0)

    @contextlib.contextmanager
    def noticing_lost_ones(self) -> Iterator[None]:
        """Raises LostProcess if another process of the run has ended."""
        try:
            yield
        except RuntimeError as error:
            if self.size == 1 or not _is_of_connection(error):
                raise
            raise LostProcess(
                f"process {self.rank} of the run's {self.size} has lost its connection to another "
                f"one; {RESUMES}"
            ) from error


def started() -> int:
    """The number of processes that a launcher has started; 0 without a launcher."""
    return int(os.environ["WORLD_SIZE"]) if "TORCHELASTIC_RUN_ID" in os.environ else 0


def join(count: int) -> Group:
    """The group of a run's `count` processes, of which this is one.

    Raises LostProcess if it cannot connect to the others, SquentropyError if their number differs.
    """
    if (started() or 1) != count:
        raise SquentropyError(
            f"train.processes = {count}, but {started() or 1} were started; "
            f"give torchrun --nproc-per-node {count}, or run squentropy without torchrun"
        )
    if count == 1:
        return Group()
    group = Group(int(os.environ["RANK"]), count, os.getppid())
    if not torch.distributed.is_initialized():
        # CPU tensors use gloo, so no call waits for a GPU.
        gpus = torch.cuda.is_available()
        try:
            torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if gpus else "gloo")
        except torch.distributed.DistError as error:
            reason = (str(error).splitlines() or ["no reason given"])[0]
            raise LostProcess(
                f"process {group.rank} of the run's {count} cannot connect to the others: {reason}"
            ) from error
    return group


def launch(count: int) -> None:
    """Run the current command in `count` processes with torchrun's launcher, and wait for them.

    Raises Ended with the exit code of the process that failed, or SquentropyError if it was killed.
    SIGTERM and Ctrl-C ask the processes to save the run's state and stop.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=str(os.getpid()),  # unused on one machine, but required
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
    )
    try:
        elastic_launch(config, sys.executable)("-m", "squentropy.cli.app", *sys.argv[1:])
    except SignalException as error:
        raise Interrupted(error.sigval) from None
    except ChildFailedError as error:
        rank, failure = _cause(error.failures)
        if failure.exitcode > 0:
            raise Ended(failure.exitcode) from None
        name = signal.Signals(-failure.exitcode).name
        raise SquentropyError(
            f"process {rank} of the run's {count} was ended by {name}; {RESUMES}"
        ) from None


def _cause(failures: "dict[int, ProcessFailure]") -> "tuple[int, ProcessFailure]":
    """The rank and the failure of the process that took the others with it.

    The launcher has waited for all processes. It lists first those that it found failed at one of
    its polls, in order of rank, then those that it ended itself. So the process that failed may
    come after those that only lost their connection to it.
    """
    ended = (-signal.SIGTERM, 128 + signal.SIGTERM)  # by the launcher, or from outside
    aborted = -signal.SIGABRT  # by NCCL, which has lost a connection, or by a bug

    def doubt(rank: int) -> int:
        code = failures[rank].exitcode
        return 2 if code == LOST else int(code in (*ended, aborted))

    rank = min(failures, key=doubt)
    return rank, failures[rank]


def _is_of_connection(error: RuntimeError) -> bool:
    return isinstance(error, torch.distributed.DistError) or "gloo" in str(error)
