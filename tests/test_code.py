"""A result depends on the code that made it, and on no comment and no other loss.

pytest tests/test_code.py
"""

import shutil
from pathlib import Path

import pytest
import yaml

from squentropy import code
from squentropy.params import load

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def source(tmp_path, monkeypatch) -> Path:
    """A copy of the package's modules to change."""
    copy = Path(shutil.copytree(code.SOURCE, tmp_path / "squentropy"))
    monkeypatch.setattr(code, "SOURCE", copy)
    return copy


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def digests() -> dict[str, str]:
    return {loss: code.digest(*code.TRAINING, loss=loss) for loss in ("mse", "z_loss", "brier")}


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("losses.py", "# --- the losses ---", "# other words"),
        ("losses.py", '"""-log p_y, p = softmax(f)."""', '"""Another docstring."""'),
        ("losses.py", '"""Every loss by its name;', '"""What a name means;'),
        ("losses.py", "import torch\n", "import torch  # with a comment\n\n\n"),
        ("model.py", '"""Causal self-attention."""', ""),
        ("losses.py", "log_share(1.0, 1.0, 0.5)", "log_share(\n        (1.0), 1.0, 0.5)"),
        ("plots/pieces.py", "import", "import os\nimport"),  # of no concern to training
        ("sampling.py", "block // 2", "block // 3"),
    ],
)
def test_comments_docstrings_layout_and_other_modules_do_not_count(source, module, old, new):
    before = digests()
    change(source / module, old, new)
    assert digests() == before


@pytest.mark.parametrize(
    ("module", "old", "new", "changed"),
    [
        ("losses.py", "squares(1.0, ", "squares(2.0, ", {"mse"}),
        ("losses.py", "true_weight: float = 65.0", "true_weight: float = 64.0", set()),
        ("losses.py", "scale: float = 1e-4", "scale: float = 1e-3", {"z_loss"}),
        ("terms.py", "2 * scale * log_z", "3 * scale * log_z", {"mse", "z_loss", "brier"}),  # a helper
        ("terms.py", "ROWS = 512", "ROWS = 256", {"mse", "z_loss", "brier"}),
        ("matmul.py", "1 << 20", "1 << 19", {"mse", "z_loss", "brier"}),
        ("model.py", "std=0.02", "std=0.03", {"mse", "z_loss", "brier"}),
        ("cpu.py", "2**16", "2**15", {"mse", "z_loss", "brier"}),
        ("optimizer.py", "eps=1e-8", "eps=1e-9", {"mse", "z_loss", "brier"}),
        ("evaluation.py", "block // 2", "block // 3", {"mse", "z_loss", "brier"}),
    ],
)
def test_code_that_a_loss_runs_counts_and_another_loss_does_not(source, module, old, new, changed):
    before = digests()
    change(source / module, old, new)
    after = digests()
    assert {loss for loss in before if before[loss] != after[loss]} == changed


def test_a_new_loss_leaves_the_others_as_they_are(source):
    before = digests()
    with (source / "losses.py").open("a") as file:
        file.write("\n\n@loss\ndef mine(hidden, weight, targets):\n    return hidden.sum()\n")
    assert digests() == before
    assert code.digest(*code.TRAINING, loss="mine") not in before.values()


@pytest.mark.parametrize(
    "modules", [code.TRAINING, code.EVALUATION, code.SAMPLING, code.QUALITY, code.THEORY]
)
def test_the_modules_exist_and_each_counts(modules):
    every = code.digest(*modules)
    assert all(code.digest(*(m for m in modules if m != out)) != every for out in modules)


@pytest.mark.parametrize("name", ["grammar", "hub", "files"])
def test_every_source_of_a_corpus_has_its_modules(name):
    assert len(code.digest(*code.corpus(name))) == 16


def test_dvc_judges_by_the_modules_that_the_workflow_judges_by():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    modules = {
        "sweep": (*code.TRAINING, *code.SELECTION),
        "final": (
            *(*code.TRAINING, *code.EVALUATION, *code.SAMPLING, *code.TABLES),
            *(*code.QUALITY, *code.THEORY),
        ),
        "report": (
            *(*code.FIGURES, *code.REPORT, "losses.py"),
            *("report.html.j2", "report.css", "report.js"),
        ),
    }
    for stage, expected in modules.items():
        named = {d for d in stages[stage]["deps"] if d.startswith("src/")}
        assert named == {f"src/squentropy/{module}" for module in expected}


def test_dvc_judges_by_every_parameter_that_a_table_depends_on():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    study = load([ROOT / "params.yaml"])
    assert {"study", *stages["final"]["params"]} == set(study.table_keys())
    assert {*study.training_keys("sweep")} - {"schedule"} | {"sweep"} == {
        param.partition(".")[0] for param in stages["sweep"]["params"]
    }
