"""Finished runs are written in the formats of TensorBoard and Weights & Biases, offline.

pytest tests/tools/test_hosted.py
"""

import csv
import json
import re
import struct
import subprocess
import sys
import time
import urllib.request

import pytest
import wandb
from wandb.proto.wandb_internal_pb2 import Record

from squentropy.base.errors import SquentropyError
from squentropy.base.storage import read_sealed
from squentropy.tools import hosted


def records(path) -> list[Record]:
    """The records of an offline run: LevelDB's log format after a header of 7 bytes."""
    content, at, held, part = path.read_bytes(), 7, [], b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # no room for a header: the block ends here
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
    folder = finished / "checkpoints/final/mse/seed1"
    ((logged, place),) = hosted.log([folder], "squentropy")
    wandb.teardown()  # returns once its process has written everything
    (path,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    assert (logged, place) == (folder, str(path.parent.relative_to(tmp_path)))
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
        list(hosted.log([finished / "checkpoints/final/mse/seed1"], "squentropy"))


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(SquentropyError, match=r"run\.json: does not exist"):
        list(hosted.log([tmp_path], "squentropy"))


# --- TensorBoard --------------------------------------------------------------------------------


@pytest.fixture
def events(finished, tmp_path):
    """The events of two finished runs, written twice, in a folder of logs."""
    runs = [finished / f"checkpoints/final/mse/seed{seed}" for seed in (1, 2)]
    for _ in range(2):
        written = hosted.write_events(runs, tmp_path / "events")
    assert written == [tmp_path / f"events/final/mse/seed{seed}" for seed in (1, 2)]
    return tmp_path / "events"


def history(finished) -> list[dict[str, str]]:
    with (finished / "checkpoints/final/mse/seed1/history.csv").open() as file:
        return list(csv.DictReader(file))


def test_tensorboard_reads_a_finished_runs_history_once_and_its_hyperparameters(events, finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    reader = EventAccumulator(str(events / "final/mse/seed1"))
    reader.Reload()
    for column in ("train_loss", "train_nll", "validation_nll"):
        read = [(event.step, event.value) for event in reader.Scalars(column)]
        kept = [(int(row["iteration"]), float(row[column])) for row in history(finished)]
        assert read == [(step, pytest.approx(value, rel=1e-6)) for step, value in kept]
    run = read_sealed(finished / "checkpoints/final/mse/seed1/run.json")
    (outcome,) = reader.Scalars("outcome/validation_nll")
    assert outcome.value == pytest.approx(run["validation_nll"], rel=1e-6)
    content = reader.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    started = HParamsPluginData.FromString(content).session_start_info
    said = {key: value.string_value or value.number_value for key, value in started.hparams.items()}
    cell = run["cell"]
    assert said == {
        **{key: cell[key] for key in ("phase", "loss", "lr", "dropout", "seed")},
        "layers": cell["n_layer"],
        "status": "ok",
    }


@pytest.mark.slow
def test_tensorboard_serves_the_scalars_on_loopback(events, finished):
    command = [sys.executable, "-m", "tensorboard.main", "--logdir", str(events)]
    command += ["--host", "127.0.0.1", "--port", "0", "--reload_multifile", "true"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        url = next(found[0] for line in server.stderr if (found := re.findall(r"http://\S+", line)))
        base, tags = url.rstrip("/") + "/data/plugin/scalars", {}
        for _ in range(600):  # until it has read the folder
            tags = json.load(urllib.request.urlopen(f"{base}/tags"))
            if len(tags) == 2:
                break
            time.sleep(0.1)
        assert set(tags) == {"final/mse/seed1", "final/mse/seed2"}
        asked = f"{base}/scalars?run=final/mse/seed1&tag=validation_nll"
        points = json.load(urllib.request.urlopen(asked))
    finally:
        server.terminate()
        server.wait()
    kept = [(int(row["iteration"]), float(row["validation_nll"])) for row in history(finished)]
    assert [(step, value) for _, step, value in points] == [
        (step, pytest.approx(value, rel=1e-6)) for step, value in kept
    ]


def test_without_tensorboard_the_fix_is_one_line(finished, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(SquentropyError, match="tensorboard: is not installed; `pip install"):
        hosted.write_events([finished / "checkpoints/final/mse/seed1"], tmp_path)
