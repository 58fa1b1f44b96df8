"""A real Slurm cluster on this machine, with two nodes and a fake GPU on each, for tests.

    python tests/slurm_cluster.py start    # as root, with Debian's slurm-wlm and munge
    python tests/slurm_cluster.py stop

Jobs are not confined to their resources, but a job that exceeds its memory is killed, as on a real
cluster. The configuration must be in Slurm's default place, because Snakemake's jobs do not
inherit another. If a configuration is there that this program did not write, nothing is changed or
started. `start` first stops what an earlier start has left.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil

CONFIG = Path("/etc/slurm/slurm.conf")
GPUS = CONFIG.with_name("gres.conf")
FOLDER = Path("/run/squentropy-slurm")  # key, sockets, logs, process ids
NODES = ("n1", "n2")
MARK = "# Written by squentropy's tests/slurm_cluster.py, which removes it again.\n"
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
SECONDS = 30  # timeout for starting and stopping

# Jobs of the second partition preempt those of the first, which are then requeued.
SETTINGS = f"""\
ClusterName=squentropy
SlurmctldHost={{host}}(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
AuthInfo=socket={FOLDER}/munge.socket,cred_expire=5
StateSaveLocation={FOLDER}/state
SlurmctldPidFile={FOLDER}/slurmctld.pid
SlurmctldLogFile={FOLDER}/slurmctld.log
SlurmdSpoolDir={FOLDER}/%n
SlurmdPidFile={FOLDER}/%n.pid
SlurmdLogFile={FOLDER}/%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=1
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=1,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
MinJobAge=7200
GresTypes=gpu
NodeName=DEFAULT CPUs=2 RealMemory=9000 Gres=gpu:1
NodeName=n[1-2] NodeHostname={{host}} NodeAddr=127.0.0.1 Port=[16818-16819]
PartitionName=main Nodes=ALL Default=YES PriorityTier=1
PartitionName=urgent Nodes=ALL PriorityTier=2
"""


def why_not() -> str | None:
    """The reason why Slurm cannot be started here; None if it can."""
    missing = [name for name in PROGRAMS if not shutil.which(name)]
    if missing:
        return f"{', '.join(missing)} not found: apt-get install slurm-wlm munge"
    for path in (CONFIG, GPUS):
        if path.exists() and not _is_ours(path):
            return f"{path} is another's: this machine has a Slurm of its own"
    if os.geteuid() != 0:
        return "Slurm's daemons have to be started by root"
    return None


def start() -> None:
    """Start the cluster. Raises RuntimeError if that fails or its nodes do not come up."""
    reason = why_not()
    if reason:
        raise RuntimeError(reason)
    stop()
    (FOLDER / "state").mkdir(parents=True)
    key = FOLDER / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(128))
    names = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log"}
    words = [f"--{option}={FOLDER}/munge.{end}" for option, end in names.items()]
    _run("munged", *words, f"--seed-file={FOLDER}/munge.seed")
    host = socket.gethostname().partition(".")[0]
    CONFIG.parent.mkdir(exist_ok=True)
    CONFIG.write_text(MARK + SETTINGS.format(host=host))
    GPUS.write_text(MARK + "NodeName=n[1-2] Name=gpu File=/dev/null\n")
    _run("slurmctld")
    for node in NODES:
        _run("slurmd", "-N", node)
    _wait(
        "the nodes to come up",
        lambda: _said("sinfo", "-h", "-N", "-p", "main", "-o", "%T").split() == ["idle"] * 2,
    )


def stop() -> None:
    """Stop a cluster that `start` has started and remove its configuration."""
    if _is_ours(CONFIG) and _process("slurmctld"):
        _said("scancel", "--full", "--signal=KILL", "--user=root")
        _said("scancel", "--user=root")
        _wait("the jobs to end", lambda: not _said("squeue", "-h"))
    for name in ("slurmctld", *NODES, "munge"):
        process = _process(name)
        if process:
            os.kill(process, signal.SIGTERM)
            _wait(f"{name} to end", lambda name=name: not _process(name))
    for path in (CONFIG, GPUS):
        if _is_ours(path):
            path.unlink()
    shutil.rmtree(FOLDER, ignore_errors=True)


def fail(node: str) -> None:
    """Kill a node's daemon and job processes, as if the machine died, and mark it as down."""
    jobs = _said("squeue", "-h", "-w", node, "-o", "%A").split()
    steps = tuple(f"slurmstepd: [{job}." for job in jobs)
    processes = [psutil.Process(_process(node))]
    for step in psutil.process_iter(["cmdline"]):
        if " ".join(step.info["cmdline"] or []).startswith(steps):
            processes += [step, *step.children(recursive=True)]
    for process in processes:
        process.kill()
    _run("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")


def repair(node: str) -> None:
    """Bring back a failed or drained node; does nothing to a healthy one."""
    if not _process(node):
        _run("slurmd", "-N", node)
    _said("scontrol", "update", f"NodeName={node}", "State=RESUME")  # refused if it is up
    well = {"idle", "mixed", "allocated"}
    said = ("sinfo", "-h", "-p", "main", "-n", node, "-o", "%T")
    _wait(f"{node} to come up", lambda: _said(*said).strip() in well)


def _is_ours(path: Path) -> bool:
    return path.exists() and path.read_text(errors="replace").startswith(MARK)


def _process(name: str) -> int | None:
    """The id from a pid file if that process is alive and belongs to the cluster, else None."""
    try:
        process = int((FOLDER / f"{name}.pid").read_text())
        words = Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return process if Path(words[0].decode()).name in PROGRAMS else None


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{words[0]}: {done.stderr.strip()}; see {FOLDER}")


def _said(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True).stdout


def _wait(what: str, done: Callable[[], bool]) -> None:
    end = time.monotonic() + SECONDS
    while not done():
        if time.monotonic() > end:
            raise RuntimeError(f"waited {SECONDS} seconds for {what}; see {FOLDER}")
        time.sleep(0.1)


if __name__ == "__main__":
    commands = {"start": start, "stop": stop}
    if sys.argv[1:] not in ([name] for name in commands):
        sys.exit(__doc__)
    try:
        commands[sys.argv[1]]()
    except RuntimeError as error:
        sys.exit(f"slurm_cluster: {error}")
