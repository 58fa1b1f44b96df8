"""Miniature runs of the benchmarks that need a machine on which they cannot be tested.

pytest tests/test_benchmarks.py
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from smallest import STUDY as SMALLEST

from squentropy.losses import LOSSES
from squentropy.runs import records
from squentropy.study.layout import refine_file
from squentropy.study.params import load
from squentropy.tokens.token_files import TokenFolder

ROOT = Path(__file__).resolve().parents[1]
STUDIED = ("cross_entropy", "squentropy", "squentropy(0.1)", "mse_weighted")


@pytest.fixture
def gpu(tmp_path):
    """gpu(*words): the report of a miniature run from the source tree, without installation.

    without  packages to treat as missing
    """

    def run(*words: str, without: tuple[str, ...] = ()) -> dict:
        for name in without:
            missing = f'raise ModuleNotFoundError("No module named {name!r}")'
            (tmp_path / f"{name}.py").write_text(missing)
        environment = os.environ | {"PYTHONPATH": str(tmp_path)}
        out = tmp_path / "gpu.json"
        command = [sys.executable, ROOT / "benchmarks/gpu.py", "--miniature", out, *words]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return json.loads(out.read_text())

    return run


def test_the_gpu_program_measures_and_checks_all_that_it_says(gpu, tmp_path):
    """A part that fails, here because nanoGPT is missing, is reported and stops no other part."""
    most = ("checks", "losses", "steps", "nanogpt", "sweep")
    report = gpu("--nanogpt", str(tmp_path / "nowhere"), "--parts", *most)
    parts = report["parts"]
    outcomes = {name: part["outcome"] for name, part in parts.items()}
    assert outcomes.pop("nanogpt") == "failed with exit code 1"
    assert outcomes == dict.fromkeys(("checks", "losses", "steps", "sweep"), "done")
    figures = {name: {f.pop("what"): f for f in part["figures"]} for name, part in parts.items()}
    assert "FileNotFoundError" in figures["nanogpt"]["nanogpt"]["failed"]
    assert [what for part in figures.values() for what in part if "failed" in part[what]] == [
        "nanogpt"
    ]
    assert len(figures["checks"]) == 8
    skipped = [what for what, each in figures["checks"].items() if "skipped" in each]
    assert skipped == ["no loss holds whole logits"]  # because memory is only measured on a GPU
    for batch in (4, 8):
        for loss in LOSSES:
            step = figures["steps"][f"ours, batch {batch}, {loss}"]
            assert step["tokens_per_second"] > 0 < step["share_of_measured_products"]
    for loss in ("F.cross_entropy on whole logits", *LOSSES):
        assert figures["losses"][f"loss alone, {loss}"]["ms"] > 0
    for size in (1, 2):
        assert figures["sweep"][f"cells at once: {size}"]["cell_iterations_per_second"] > 0
    assert report["device"]["name"]
    assert report["versions"]["torch"]


def test_the_gpu_program_says_what_a_bare_machine_lacks_and_does_the_rest(gpu):
    without = ("pydantic", "pyarrow", "tiktoken", "rustbpe", "regex", "pandas", "scipy", "typer")
    parts = gpu("--parts", "finals", "sweep", without=without)["parts"]
    finals = {figure.pop("what"): figure for figure in parts["finals"]["figures"]}
    assert parts["finals"]["outcome"] == "done"
    assert list(finals) == ["corpus", "first step, compiled", *STUDIED]
    for loss in STUDIED:
        assert finals[loss]["steps"] > 0 < finals[loss]["validation_nll"]
    assert all("pydantic" in figure["skipped"] for figure in parts["sweep"]["figures"])


def test_a_part_of_the_gpu_program_that_takes_too_long_is_cut_off(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("gpu", ROOT / "benchmarks/gpu.py")
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    monkeypatch.setattr(program, "GRACE", 0)
    part = program.run_part("checks", 0.1, ["--miniature"], tmp_path / "figures")
    assert part["outcome"].startswith("cut off")
    assert part["figures"] == []


def at_once(root: Path, *studies: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, ROOT / "benchmarks/gpu_studies.py", root, "--device", "cpu"]
    command += ["--processes", "2", "--studies", *studies]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_a_study_trained_at_once_on_a_gpu_is_the_one_that_the_pipeline_wants(data, tmp_path):
    """Its runs, tuned by the same rule, are all there and up to date, and there are no others."""
    file = tmp_path / "tiny.yaml"
    losses = {"losses": ["cross_entropy", "mse"]}
    overlay = SMALLEST | {"study": "tiny", "sweep": SMALLEST["sweep"] | losses}
    file.write_text(yaml.safe_dump(overlay))
    shutil.copytree(data / "tokens", tmp_path / "data/tiny/tokens")
    done = at_once(tmp_path, file)
    assert done.returncode == 0, done.stdout + done.stderr

    study, checkpoints = load([ROOT / "params.yaml", file]), tmp_path / "checkpoints/tiny"
    files = {loss: refine_file(checkpoints, loss) for loss in study.sweep.losses}
    chosen = {loss: records.chosen_for(loss, files[loss]) for loss in files}
    finals = study.final_cells(chosen) + study.length_cells(chosen)
    tokens = TokenFolder.open(tmp_path / "data/tiny/tokens")
    for cell in study.sweep_cells() + finals:
        origin, keeps = records.origin(study, cell, tokens), records.keeps_weights(study, cell)
        assert not records.why_train(origin, checkpoints / cell.name, keeps)
    runs = {path.parent for path in checkpoints.rglob("run.json")}
    refined = {path for path in runs if path.is_relative_to(checkpoints / "refine")}
    assert runs - refined == {checkpoints / cell.name for cell in study.sweep_cells() + finals}
    assert len(refined) == sum(len(json.loads(f.read_text())["runs"]) for f in files.values())


def test_a_study_without_tokens_is_named_before_anything_starts(tmp_path):
    done = at_once(tmp_path, ROOT / "studies/long.yaml")
    assert done.returncode == 1
    assert done.stderr.startswith("gpu_studies.py: ")
    assert "data/long/tokens/manifest.json: does not exist" in done.stderr
    assert not (tmp_path / "checkpoints").exists()


def test_the_phases_of_a_study_are_added_up_from_its_own_records(tmp_path):
    """Two parallel jobs and then a third: 100 s on two cores from the start of Snakemake."""
    (tmp_path / ".snakemake/log").mkdir(parents=True)
    (tmp_path / ".snakemake/log/2026-01-01T000000.000000.snakemake.log").touch()
    metadata = tmp_path / ".snakemake/metadata"
    metadata.mkdir()
    environment = os.environ | {"TZ": "UTC"}
    start = 1767225600  # 2026-01-01 in UTC
    jobs = [
        ("sweep", "a", 10, 50, ["one", "two"]),
        ("sweep", "b", 10, 70, ["three"]),
        ("metrics", "c", 80, 100, ["four"]),
    ]
    for rule, log, begin, end, files in jobs:
        for name in files:
            times = {"starttime": start + begin, "endtime": start + end}
            record = {"rule": rule, "log": [log], "shellcmd": "", **times}
            (metadata / name).write_text(json.dumps(record))
    for name, said in {"x": {"seconds": 30}, "y": {"seconds": 90, "stacked": 2}}.items():
        folder = tmp_path / "checkpoints/study/sweep" / name
        folder.mkdir(parents=True)
        (folder / "provenance.json").write_text(json.dumps(said))
    command = [sys.executable, ROOT / "benchmarks/phases.py", "--folder", tmp_path]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "| sweep | 2 | 100 | 75 | 83.3% |" in done.stdout
    assert "| metrics | 1 | 20 |  | 16.7% |" in done.stdout
    assert "100 s on 2 cores are 200 core-seconds, of which jobs took 60.0%" in done.stdout
    assert "outside training: 37.5% of the jobs' core-seconds, 62.5% of all" in done.stdout
