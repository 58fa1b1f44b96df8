"""A result depends on the code that made it, and on no comment and no other loss.

pytest tests/test_code.py
"""

import ast
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


def every_digest() -> dict[str, str]:
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
        ("losses.py", 'label="z-loss"', 'label="logarithm of Z, squared"'),
        ("losses.py", '    source="Chowdhery et al. 2022",\n', ""),
        ("losses.py", "    squared=True,\n", ""),
        ("losses.py", '"less": 1}', '"less": 0}'),
        ("losses.py", "outputs.square() + epsilon", "outputs.square() + 2 * epsilon"),
        ("losses.py", "    link=taylor_link,\n", ""),
        ("losses.py", "def taylor_link(", "def link_of_taylor("),
    ],
)
def test_comments_docstrings_layout_and_other_modules_do_not_count(source, module, old, new):
    before = every_digest()
    change(source / module, old, new)
    assert every_digest() == before


@pytest.mark.parametrize(
    ("module", "old", "new", "changed"),
    [
        ("losses.py", "squares(1.0, ", "squares(2.0, ", {"mse"}),
        ("losses.py", "true_weight: float = 65.0", "true_weight: float = 64.0", set()),
        ("losses.py", "scale: float = 1e-4", "scale: float = 1e-3", {"z_loss"}),
        (
            "terms.py",
            "2 * scale * log_z",
            "scale * log_z",
            {"mse", "z_loss", "brier"},
        ),  # shared
        ("terms.py", "ROWS = 512", "ROWS = 256", {"mse", "z_loss", "brier"}),
        ("matmul.py", "1 << 20", "1 << 19", {"mse", "z_loss", "brier"}),
        ("model.py", "std=0.02", "std=0.03", {"mse", "z_loss", "brier"}),
        ("cpu.py", "2**16", "2**15", {"mse", "z_loss", "brier"}),
        ("optimizer.py", "eps=1e-8", "eps=1e-9", {"mse", "z_loss", "brier"}),
        ("evaluation.py", "block // 2", "block // 3", {"mse", "z_loss", "brier"}),
    ],
)
def test_code_that_a_loss_runs_counts_and_another_loss_does_not(source, module, old, new, changed):
    before = every_digest()
    change(source / module, old, new)
    after = every_digest()
    assert {loss for loss in before if before[loss] != after[loss]} == changed


MINE = """
import math
from torch import nn


def my_link(outputs, floor, times):
    return _shared(outputs) / times


def _shared(x):
    return _deeper(x) * _FACTOR


def _deeper(x):
    return x * math.pi


_FACTOR = 2.0
_UNUSED = 1


@loss(label="Mine", squared=True, link=my_link)
def mine(hidden, weight, targets, times=1.0):
    return _shared(hidden).sum()


@loss
def other(hidden, weight, targets):
    return _other(nn.Identity()(hidden))


def _other(x):
    return x.sum()
"""


def of_mine() -> str:
    return code.digest(*code.TRAINING, loss="mine")


def test_a_new_loss_with_what_it_needs_leaves_the_others_as_they_are(source):
    before = every_digest()
    with (source / "losses.py").open("a") as file:
        file.write(MINE)
    assert every_digest() == before
    assert of_mine() not in before.values()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("_shared(hidden).sum()", "_shared(hidden).mean()"),
        ("_deeper(x) * _FACTOR", "_deeper(x) + _FACTOR"),
        ("x * math.pi", "x * math.e"),
        ("_FACTOR = 2.0", "_FACTOR = 3.0"),
        ("/ times", "* times"),  # the link, which validation is read by
        (", link=my_link", ""),
        ("link=my_link", "link=lambda outputs, floor, times: outputs"),
        ("times=1.0", "times=2.0"),
    ],
)
def test_what_a_loss_calls_counts_for_it_alone(source, old, new):
    before = every_digest()
    with (source / "losses.py").open("a") as file:
        file.write(MINE)
    mine, other = of_mine(), code.digest(*code.TRAINING, loss="other")
    change(source / "losses.py", old, new)
    assert of_mine() != mine
    assert code.digest(*code.TRAINING, loss="other") == other
    assert every_digest() == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('label="Mine"', 'label="Yours", formula="<i>f</i>"'),
        ("squared=True", "squared=False"),
        ('label="Mine", squared=True, ', ""),
        ("_other(nn.Identity()(hidden))", "_other(hidden)"),
        ("return x.sum()", "return x.mean()"),
        ("_UNUSED = 1", "_UNUSED = 2"),
        ("_UNUSED = 1", "def helper(x):\n    return x"),
        ("from torch import nn", "from torch import nn, optim"),
    ],
)
def test_what_a_loss_does_not_call_does_not_count_for_it(source, old, new):
    with (source / "losses.py").open("a") as file:
        file.write(MINE)
    mine = of_mine()
    change(source / "losses.py", old, new)
    assert of_mine() == mine


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LOSSES[function.__name__] = function", "LOSSES[function.__name__] = abs"),
        ("functools.partial(self[function], **arguments)", "self[function]"),
        ("floor=floor", "floor=floor / 2"),
        ("[3:]", "[4:]"),
        ("_LINKS: dict", "LOSSES['mse'] = abs\n_LINKS: dict"),
    ],
)
def test_what_all_losses_share_counts_for_all(source, old, new):
    before = every_digest()
    change(source / "losses.py", old, new)
    assert not set(every_digest().values()) & set(before.values())


def test_no_module_uses_more_of_the_losses_than_counts_for_all():
    used = set()
    for path in code.SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "squentropy.losses":
                used |= {each.name for each in node.names}
    assert used - {"Loss"} <= code.SHARED


def test_arguments_are_no_code():
    names = ("squentropy", "squentropy(0.1)", "squentropy-0.1", "squentropy(0.2)")
    assert len({code.digest(*code.TRAINING, loss=name) for name in names}) == 1


def test_what_a_loss_is_called_counts_for_the_report():
    assert code.catalogue(["mse", "squentropy"]) == code.catalogue(["mse", "squentropy(1)"])
    assert code.catalogue(["mse", "squentropy"]) != code.catalogue(["mse", "squentropy(0.1)"])


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
    assert {*study.training_keys("sweep")} - {"schedule"} | {"sweep", "refine", "plan"} == {
        param.partition(".")[0] for param in stages["sweep"]["params"]
    }
