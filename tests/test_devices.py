"""A run takes a free GPU, keeps it, and says so where there is none.

pytest tests/test_devices.py
"""

import fcntl

import pytest
import torch

from squentropy import devices
from squentropy.devices import claim, pick_device, pick_dtype
from squentropy.errors import SquentropyError


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
    assert pick_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16


def test_a_process_claims_the_first_free_gpu_and_keeps_it(tmp_path):
    with (tmp_path / "squentropy-a.lock").open("w") as other:  # flock parts any two open files
        fcntl.flock(other, fcntl.LOCK_EX)
        assert [claim(["a", "b", "c"], tmp_path) for _ in range(3)] == [1, 1, 1]
    assert claim(["a", "b", "c"], tmp_path) == 1


def test_where_all_are_claimed_the_first_is_shared(tmp_path):
    with (tmp_path / "squentropy-a.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert claim(["a"], tmp_path) == 0
