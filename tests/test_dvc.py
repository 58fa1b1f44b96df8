"""DVC's own commands on the committed results: metrics and plots.

pytest tests/test_dvc.py
"""

import hashlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]


def dvc(*words: str) -> dict:
    command = [sys.executable, "-m", "dvc", *words, "--json"]
    return json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout)


@pytest.fixture(scope="module")
def plots() -> dict[str, dict]:
    """The specification that DVC passes to the browser, by plot name."""
    shown = dvc("plots", "show")
    assert "errors" not in shown
    return {name: plot["content"] for name, (plot,) in shown["data"].items()}


def test_dvc_shows_the_curves_the_grid_and_the_perplexities(plots):
    assert plots.keys() == {"learning curves", "grid", "perplexity"}
    study = yaml.safe_load((ROOT / "params.yaml").read_text())
    losses = set(study["sweep"]["losses"])
    every = losses | {study["final"]["reported"]["loss"]}
    for plot in plots.values():
        rows = plot["data"]["values"]  # metrics.csv also contains yardsticks
        shown = {row["loss"] for row in rows if row.get("kind", "loss") == "loss"}
        assert losses <= shown <= every
        assert plot["title"]


def encodings(value) -> list[dict]:
    """Every encoding in a specification, at any depth."""
    if isinstance(value, list):
        return [found for item in value for found in encodings(item)]
    if not isinstance(value, dict):
        return []
    here = [value["encoding"]] if "encoding" in value else []
    return here + encodings(list(value.values()))


def test_every_axis_has_a_title_and_every_field_a_column(plots):
    for plot in plots.values():
        channels = [item for encoding in encodings(plot) for item in encoding.items()]
        columns = plot["data"]["values"][0].keys()
        assert {channel["field"] for _, channel in channels} <= columns
        titled = {axis for axis, channel in channels if channel.get("title")}
        assert {"x", "y"} <= titled


def test_no_placeholder_is_left_in_a_plot(plots):
    assert "<DVC_METRIC" not in json.dumps(plots)


def test_dvc_shows_the_metrics_of_every_loss():
    shown = dvc("metrics", "show")
    values = shown[""]["data"]["results/grammar/metrics.json"]["data"]
    committed = json.loads((ROOT / "results/grammar/metrics.json").read_text())
    assert values == committed


def test_every_rule_of_the_workflow_is_of_a_stage():
    """Without Snakemake's metadata, all rules of a stage that DVC finds out of date are run."""
    paths = [ROOT / "Snakefile", *(ROOT / "workflow/rules").glob("*.smk")]
    text = "".join(path.read_text(encoding="utf-8") for path in paths)
    rules = set(re.findall(r"^ *rule (\w+):", text, re.M)) - {"figures", "report"}
    steps = re.findall(r'f"(\w+)_\{phase\}"', text)
    rules |= {f"{step}_{phase}" for step in steps for phase in ("final", "reported")}
    (stages,) = re.findall(r"^STAGES = \{(.*?)^\}", text, re.M | re.S)
    named = " ".join(re.findall(r'"([a-z_ ]+)"', stages)).split()
    assert {"grid", "sweep", "evaluate_final", "all"} <= rules <= set(named)


# --- commands of DVC's extension for VS Code (its src/cli/dvc/reader.ts) ------------------------


@pytest.mark.slow
def test_the_extensions_table_of_experiments_holds_every_parameter_and_metric():
    workspace, *_ = dvc("exp", "show", "-n", "3")
    shown = workspace["data"]
    (params,), (metrics,) = shown["params"].values(), shown["metrics"].values()
    assert list(shown["params"]) == ["params.yaml"]
    read = yaml.safe_load((ROOT / "params.yaml").read_text())
    # Stages name groups of keys, and `study` is among these keys.
    assert params["data"] == read
    assert metrics["data"] == json.loads((ROOT / "results/grammar/metrics.json").read_text())


@pytest.mark.slow
def test_the_extensions_plots_have_data_of_each_revision(plots, tmp_path):
    shown = dvc("plots", "diff", "HEAD", "-o", str(tmp_path), "--split")
    assert "errors" not in shown
    assert shown["data"].keys() == plots.keys()
    for (plot,) in shown["data"].values():
        assert plot["type"] == "vega"
        assert set(plot["revisions"]) == {"workspace", "HEAD"}
        rows = plot["anchor_definitions"]["<DVC_METRIC_DATA>"]
        assert {row["rev"] for row in rows} == {"workspace", "HEAD"}
        assert "<DVC_METRIC_DATA>" in json.dumps(plot["content"])


@pytest.mark.slow
def test_the_extensions_view_of_files_knows_data_and_checkpoints():
    status = dvc("data", "status", "--granular", "--unchanged")
    named = json.dumps(status)
    for folder in ("data/grammar/tokens", "checkpoints/grammar/final", "checkpoints/grammar/sweep"):
        assert folder in named


def test_the_committed_tables_are_those_that_dvc_lock_records():
    stages = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]
    recorded = {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}
    tables = {
        str(path.relative_to(ROOT)): hashlib.md5(path.read_bytes()).hexdigest()
        for path in (ROOT / "results/grammar").iterdir()
        if path.name != "params.yaml"
    }
    assert tables.items() <= recorded.items()
