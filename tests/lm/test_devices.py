"""A run claims a free GPU and keeps it; if none is free, it ends with one line.

pytest tests/lm/test_devices.py
"""

import fcntl
import subprocess
import sys

import pytest
import torch

from squentropy.base.errors import SquentropyError
from squentropy.lm import devices
from squentropy.lm.devices import claim, pick_device, pick_dtype


@pytest.fixture(autouse=True)
def _no_claims(monkeypatch):
    monkeypatch.setattr(devices, "_claims", {})


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_absent_is_one_line(name, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(SquentropyError, match=f"^train.device = {name}: .*; write auto or cpu$"):
        pick_device(name)
    assert pick_device("auto").type == "cpu"


def test_half_precision_is_for_gpus_unless_asked_for():
    assert pick_dtype("auto", torch.device("cpu")) == torch.float32
    assert pick_dtype("auto", torch.device("cuda")) == torch.bfloat16


def test_half_precision_wants_a_processor_that_multiplies_it(monkeypatch):
    def has(avx512_bf16: bool, amx: bool):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)

    for some in ((True, False), (False, True)):
        has(*some)
        assert pick_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16
    has(False, False)
    with pytest.raises(
        SquentropyError, match=r"^train.dtype = bfloat16: .*; write auto or float32$"
    ):
        pick_dtype("bfloat16", torch.device("cpu"))
    assert pick_dtype("bfloat16", torch.device("cuda")) == torch.bfloat16
    assert pick_dtype("auto", torch.device("cpu")) == torch.float32


@pytest.fixture
def taken(tmp_path):
    """taken(name): another process's claim, which lasts until the returned file is closed."""

    def take(name: str):
        # flock excludes any two open files, even of one process.
        file = (tmp_path / f"squentropy-{name}.lock").open("w")
        fcntl.flock(file, fcntl.LOCK_EX)
        return file

    return take


def test_a_process_claims_the_first_free_gpu_and_keeps_it(taken, tmp_path):
    with taken("a-0"):
        assert [claim(["a", "b", "c"], tmp_path) for _ in range(3)] == [1, 1, 1]
    assert claim(["a", "b", "c"], tmp_path) == 1


def test_no_gpu_is_shared_unless_it_is_asked_for(taken, tmp_path):
    with taken("a-0"), taken("b-0"):
        with pytest.raises(SquentropyError, match=r"2 GPUs is in use by 1 .*train\.runs_per_gpu"):
            claim(["a", "b"], tmp_path)
        assert claim(["a", "b"], tmp_path, runs_per_gpu=2) == 0


def test_runs_that_share_gpus_spread_over_them(tmp_path):
    """The processes claim in turn, while the earlier ones keep their claims."""
    program = (
        "import sys; from pathlib import Path; from squentropy.lm.devices import claim;"
        "print(claim(['a', 'b', 'c'], Path(sys.argv[1]), 2), flush=True); sys.stdin.read()"
    )
    words = [sys.executable, "-c", program, str(tmp_path)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes, claims = [], []
    for _ in range(7):
        processes.append(subprocess.Popen(words, text=True, **pipes))
        claims.append(processes[-1].stdout.readline().strip())
    ends = [process.communicate()[1] for process in processes]
    assert claims == ["0", "1", "2", "0", "1", "2", ""]
    assert "each of this machine's 3 GPUs is in use by 2 of these runs" in ends[-1]


def test_another_users_file_is_no_obstacle_once_its_process_has_ended(tmp_path):
    (tmp_path / "squentropy-a-0.lock").touch(mode=0o444)
    assert claim(["a"], tmp_path) == 0
