"""A finished run goes into Weights & Biases' own format, without a network.

pytest tests/test_hosted.py
"""

import json
import struct
import sys

import pytest
from wandb.proto.wandb_internal_pb2 import Record

from squentropy import hosted
from squentropy.errors import SquentropyError


def records(path) -> list[Record]:
    """What an offline run has written: LevelDB's log format after a header of 7 bytes."""
    content, at, held, part = path.read_bytes(), 7, [], b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # too little for a header: the block ends here
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", content, at)
        part += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            held.append(Record.FromString(part))
            part = b""
    return held


def test_a_run_is_logged_offline_with_its_cell_history_and_outcome(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    hosted.log([finished / "checkpoints/final/mse/seed1"], "squentropy")
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    held = records(path)
    (run,) = [r.run for r in held if r.HasField("run")]
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert config["cell"]["loss"] == "mse"
    rows = [
        {item.key or item.nested_key[0]: json.loads(item.value_json) for item in r.history.item}
        for r in held
        if r.HasField("history")
    ]
    text = (finished / "checkpoints/final/mse/seed1/history.csv").read_text().splitlines()
    assert [row["_step"] for row in rows] == [int(line.split(",")[0]) for line in text[1:]]
    assert [row["train_loss"] for row in rows] == [float(line.split(",")[1]) for line in text[1:]]


def test_without_the_package_the_fix_is_one_line(finished, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(SquentropyError, match="wandb: is not installed; `pip install wandb`"):
        hosted.log([finished / "checkpoints/final/mse/seed1"], "squentropy")


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(SquentropyError, match=r"run\.json: does not exist"):
        hosted.log([tmp_path], "squentropy")
