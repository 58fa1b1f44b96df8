"""The changes that CONTRIBUTING.md lists for an addition are sufficient.

pytest -m slow tests/test_contributing.py

A copy of the repository gets a loss with a link in its own file, a source of stories and a grid
hyperparameter, and then runs a whole study. report/test_adding.py adds figures and sections of the
report.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import smallest
import yaml

pytestmark = pytest.mark.slow

LOSS = """
import torch.nn.functional as F

from squentropy.losses import loss


def _powers(outputs, floor, power):
    powers = outputs.abs().pow(power).clamp_min(floor)
    return powers / powers.sum(-1, keepdim=True)


@loss(label="Powers", formula="|<i>f</i>|^{power}", squared=True, link=_powers)
def powers(hidden, weight, targets, power=1.0):
    outputs = (hidden @ weight.T).abs() + 1e-3
    return F.nll_loss((outputs**power / (outputs**power).sum(-1, keepdim=True)).log(), targets)
"""

SOURCE = '''
"""Stories that count: `corpus.source: numbers`."""

from functools import partial

from squentropy.corpus.source import Source, Story
from squentropy.study.corpus import Corpus


def source(corpus: Corpus) -> Source:
    section = corpus.numbers
    parts = {"train": (0, section.train), "validation": (1000, 1005), "test": (2000, 2006)}
    splits = {split: partial(_count, *part) for split, part in parts.items()}
    return Source(splits, licence="MIT", provenance={"train": section.train})


def _count(start, stop):
    for number in range(start, stop):
        words = " ".join(str(n) for n in range(number, number + 20))
        yield Story(f"Once upon a time there were {words}.", f"number {number}")
'''

EDITS = {
    "src/squentropy/study/corpus.py": [  # the section of the source
        (
            "class Corpus(Section):",
            "class Numbers(Section):\n    train: PositiveInt\n\n\nclass Corpus(Section):",
        ),
        ("    files: Files\n", "    files: Files\n    numbers: Numbers\n"),
    ],
    "src/squentropy/study/grid.py": [  # the hyperparameter
        ("    n_layer: Layers\n", "    n_layer: Layers\n    weight_decay: Dropout\n"),
        (
            "    n_layer: Values[Layers]\n",
            "    n_layer: Values[Layers]\n    weight_decay: Values[Dropout]\n",
        ),
        ("    n_layer: int\n", "    n_layer: int\n    weight_decay: float\n"),
    ],
    "src/squentropy/training/setup.py": [  # and its use
        ("weight_decay=params.weight_decay", "weight_decay=cell.weight_decay"),
    ],
}

OVERLAY = smallest.STUDY | {
    "study": "mine",
    "corpus": {"source": "numbers", "numbers": {"train": 100}},
    "sweep": smallest.STUDY["sweep"]
    | {"losses": ["cross_entropy", "my_losses.py:powers(2)"], "weight_decay": [0.0, 0.1]},
    "refine": smallest.STUDY["refine"] | {"tie": 10.0, "max_runs": 6},
}


@pytest.fixture(scope="module")
def project(tmp_path_factory, copy_project) -> Path:
    folder = copy_project(tmp_path_factory.mktemp("project"))
    (folder / "my_losses.py").write_text(LOSS)
    (folder / "src/squentropy/corpus/numbers.py").write_text(SOURCE)
    for path, changes in EDITS.items():
        text = (folder / path).read_text()
        for old, new in changes:
            assert text.count(old) == 1, (path, old)
            text = text.replace(old, new)
        (folder / path).write_text(text)
    (folder / "mine.yaml").write_text(yaml.safe_dump(OVERLAY))
    return folder


@pytest.fixture(scope="module")
def study(project, snakemake) -> Path:
    done = snakemake(project, "--cores", "2", "--configfile", "mine.yaml")
    assert done.returncode == 0, done.stderr
    return project


def test_a_loss_in_a_file_of_its_own_runs_through_the_study(study):
    metrics = pd.read_csv(study / "results/mine/metrics.csv").set_index("loss")
    assert {"cross_entropy", "my_losses.py:powers(2)"} <= set(metrics.index)
    run = json.loads(
        (study / "checkpoints/mine/final/my_losses.py:powers-2/seed1/run.json").read_text()
    )
    assert "my_losses.py" in run["code"]
    other = json.loads((study / "checkpoints/mine/final/cross_entropy/seed1/run.json").read_text())
    assert run["code"] == other["code"] | {"my_losses.py": run["code"]["my_losses.py"]} | {
        "losses.py": run["code"]["losses.py"]
    }
    page = (study / "report/mine/index.html").read_text()
    assert "Powers" in page
    assert "|<i>f</i>|^2" in page


def test_a_source_of_stories_is_a_section_and_a_module(study):
    manifest = json.loads((study / "data/mine/corpus/manifest.json").read_text())
    assert (manifest["source"], manifest["provenance"]) == ("numbers", {"train": 100})


def test_a_grid_key_is_tuned_tabled_and_used(study):
    sweep = pd.read_csv(study / "results/mine/sweep.csv")
    assert sorted(sweep["weight_decay"].unique()) == [0.0, 0.1]
    refined = pd.read_csv(study / "results/mine/refine.csv")
    assert sorted(refined["weight_decay"].unique()) == [0.0, 0.1]  # tried if nearly tied
    assert "weight_decay" in pd.read_csv(study / "results/mine/metrics.csv")
    folders = {path.parent.name for path in study.glob("checkpoints/mine/sweep/*/*/*/run.json")}
    assert folders == {f"dropout0.1_layers1_weight_decay{value}" for value in (0.0, 0.1)}
    assert "weight_decay" in (study / "report/mine/index.html").read_text()


DIGESTS = """
from squentropy.study import digests
for loss in ("my_losses.py:powers(2)", "cross_entropy", "mse"):
    print(digests.digest("training", loss=loss), digests.digest("evaluation", loss=loss))
"""


def test_a_change_of_a_loss_s_own_file_trains_that_loss_again_and_no_other(project):
    def found() -> list[str]:
        environment = os.environ | {"PYTHONPATH": str(project / "src")}
        command = [sys.executable, "-c", DIGESTS]
        done = subprocess.run(
            command, cwd=project, env=environment, capture_output=True, text=True, check=True
        )
        return done.stdout.splitlines()

    before, path = found(), project / "my_losses.py"
    path.write_text(path.read_text().replace("1e-3", "2e-3"))
    assert [old != new for old, new in zip(before, found())] == [True, False, False]
