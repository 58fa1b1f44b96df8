"""A result depends on the code that made it, but not on comments or other losses.

pytest tests/study/test_digests.py
"""

import ast
import json
import shutil
from pathlib import Path

import grimp
import pytest
import yaml

from squentropy.study import catalogue, digests
from squentropy.study.params import load

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def source(tmp_path, monkeypatch) -> Path:
    """A copy of the package's modules to change."""
    copy = tmp_path / "squentropy"
    shutil.copytree(digests.SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(digests, "SOURCE", copy)
    return copy


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def every_digest() -> dict[str, str]:
    return {loss: digests.digest("training", loss=loss) for loss in ("mse", "z_loss", "brier")}


def test_an_equivalent_change_keeps_the_digest_of_its_module_until_the_next(source, monkeypatch):
    monkeypatch.setattr(digests, "EQUIVALENT", {})
    before, modules = every_digest(), digests.by_module("training", loss="mse")
    change(source / "lm/terms.py", "return tensor if", "return tensor + 0 if")
    changed = digests.by_module("training", loss="mse")["lm/terms.py"]
    assert every_digest() != before
    monkeypatch.setattr(digests, "EQUIVALENT", {changed: modules["lm/terms.py"]})
    assert every_digest() == before
    change(source / "lm/terms.py", "return tensor + 0 if", "return tensor + 1 if")
    assert every_digest() != before


def test_every_equivalent_digest_is_that_of_a_module_as_it_is(monkeypatch):
    """An entry that no module has any more is removed."""
    declared = dict(digests.EQUIVALENT)
    monkeypatch.setattr(digests, "EQUIVALENT", {})
    found = {hex for step in digests.STEPS for hex in digests.by_module(step).values()}
    assert set(declared) <= found


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("losses.py", "# --- the losses ---", "# other words"),
        ("losses.py", '"""-log p_y, p = softmax(f)."""', '"""Another docstring."""'),
        ("losses.py", '"""Every loss by name.', '"""What a name means.'),
        ("losses.py", "import torch\n", "import torch  # with a comment\n\n\n"),
        ("lm/model.py", '"""Causal self-attention."""', ""),
        ("losses.py", "log_share(1.0, 1.0, 0.5)", "log_share(\n        (1.0), 1.0, 0.5)"),
        ("report/plots/style.py", "import", "import os\nimport"),  # irrelevant to training
        ("sampling/generate.py", "block // 2", "block // 3"),
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
            "lm/terms.py",
            "2 * scale * log_z",
            "scale * log_z",
            {"mse", "z_loss", "brier"},
        ),  # shared
        ("lm/terms.py", "ROWS = 512", "ROWS = 256", {"mse", "z_loss", "brier"}),
        ("lm/matmul.py", "1 << 20", "1 << 19", {"mse", "z_loss", "brier"}),
        ("lm/model.py", "std=0.02", "std=0.03", {"mse", "z_loss", "brier"}),
        ("lm/cpu_block.py", "2**16", "2**15", {"mse", "z_loss", "brier"}),
        ("lm/optimizer.py", "eps=1e-8", "eps=1e-9", {"mse", "z_loss", "brier"}),
        ("lm/scoring.py", "block // 2", "block // 3", {"mse", "z_loss", "brier"}),
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
    return digests.digest("training", loss="mine")


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
        ("/ times", "* times"),  # the link, which validation uses
        (", link=my_link", ""),
        ("link=my_link", "link=lambda outputs, floor, times: outputs"),
        ("times=1.0", "times=2.0"),
    ],
)
def test_what_a_loss_calls_counts_for_it_alone(source, old, new):
    before = every_digest()
    with (source / "losses.py").open("a") as file:
        file.write(MINE)
    mine, other = of_mine(), digests.digest("training", loss="other")
    change(source / "losses.py", old, new)
    assert of_mine() != mine
    assert digests.digest("training", loss="other") == other
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
        ("LOSSES[name] = function", "LOSSES[name] = abs"),
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
    for path in digests.SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "squentropy.losses":
                used |= {each.name for each in node.names}
    assert used - {"Loss"} <= digests.SHARED


def test_arguments_are_no_code():
    names = ("squentropy", "squentropy(0.1)", "squentropy-0.1", "squentropy(0.2)")
    assert len({digests.digest("training", loss=name) for name in names}) == 1


def test_what_a_loss_is_called_counts_for_the_report():
    assert digests.labels(["mse", "squentropy"]) == digests.labels(["mse", "squentropy(1)"])
    assert digests.labels(["mse", "squentropy"]) != digests.labels(["mse", "squentropy(0.1)"])


# --- imports -------------------------------------------------------------------------------------


GRAPH = grimp.build_graph("squentropy", cache_dir=None)
MODULES = sorted(
    path.relative_to(digests.SOURCE).as_posix() for path in digests.SOURCE.rglob("*.py")
)


def dotted(path: str) -> str:
    return ".".join(["squentropy", *Path(path).with_suffix("").parts]).removesuffix(".__init__")


def expected(step: str) -> set[str]:
    """The modules of a step according to grimp: its transitive imports, except plumbing."""
    left, found = [dotted(path) for path in digests.STEPS[step]], set()
    plumbing = tuple(dotted(path) for path in digests.PLUMBING)
    while left:
        module = left.pop()
        if module not in found and not f"{module}.".startswith(tuple(f"{p}." for p in plumbing)):
            found.add(module)
            left += GRAPH.find_modules_directly_imported_by(module)
    return found


@pytest.mark.parametrize("step", digests.STEPS)
def test_a_step_depends_on_what_it_imports(step):
    assert {dotted(path) for path in digests.by_module(step, loss="mse")} == expected(step)


def test_the_report_depends_on_what_the_notebook_imports():
    notebook = json.loads((ROOT / "notebooks/report.ipynb").read_text())
    cells = ("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    imported = set(digests._imported(ast.parse("\n".join(cells))))
    assert imported == {"report/sections/__init__.py", "report/read.py"}
    assert imported < digests.by_module("report").keys()


def test_a_change_of_any_module_changes_the_steps_that_import_it_and_no_others(source):
    loss = "mse"
    steps = {step: expected(step) for step in digests.STEPS}
    before = {step: digests.digest(step, loss=loss) for step in steps}
    for module in MODULES:
        text = (source / module).read_text()
        (source / module).write_text(f"{text}\nprint('changed')\n")
        changed = {step for step in steps if digests.digest(step, loss=loss) != before[step]}
        assert changed == {step for step in steps if dotted(module) in steps[step]}, module
        (source / module).write_text(text)


@pytest.mark.parametrize("module", MODULES)
def test_a_change_of_any_function_changes_what_counts_of_its_module(source, module):
    tree = ast.parse((source / module).read_text())
    guards = [node for node in ast.walk(tree) if isinstance(node, ast.If)]
    typing = [g for g in guards if ast.unparse(g.test) == "TYPE_CHECKING"]  # never called
    unseen = {node for guard in typing for node in ast.walk(guard)}
    every = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    functions = [node for node in every if node not in unseen]
    names = [node.name for node in functions if catalogue.decorator(node) is not None]

    def counted() -> set[str]:
        text = ast.unparse(tree)
        return {digests._text(digests._essence(text, name)[0]) for name in names or [None]}

    for function in functions:
        before, change = counted(), ast.parse("print('changed')").body[0]
        function.body.insert(0, change)
        assert counted() != before, function.name
        function.body.remove(change)


def test_plumbing_is_all_there_and_needed():
    """A module that no step imports need not be listed."""
    imported = set()
    for entries in digests.STEPS.values():
        imported |= set(digests.closure(entries, plumbing=()))
    for path in digests.PLUMBING:
        assert (digests.SOURCE / path).exists()
        assert any(Path(module).is_relative_to(path) for module in imported), path


SOURCES = {
    "grammar": "corpus/grammar/grammar.py",
    "hub": "corpus/hub.py",
    "files": "corpus/files.py",
}


@pytest.mark.parametrize(("name", "path"), SOURCES.items())
def test_a_corpus_depends_on_its_own_source_alone(source, name, path):
    before = {each: digests.corpus(each) for each in SOURCES}
    with (source / path).open("a") as file:
        file.write("\nprint('changed')\n")
    assert {each for each in before if digests.corpus(each) != before[each]} == {name}


def test_the_corpus_of_the_grammar_depends_on_its_texts(source):
    before = {each: digests.corpus(each) for each in SOURCES}
    text = next((source / "corpus/grammar/stories").rglob("*.yaml"))
    text.write_text(text.read_text() + "\n# changed\n")
    assert {each for each in before if digests.corpus(each) != before[each]} == {"grammar"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("losses: list[float], factor: float, start: int = 0", "losses, factor, start=0"),
        ("    pending: list[Tensor] = []", "    pending = []"),
        ("import torch\n", "import torch\nfrom collections.abc import Mapping\n"),
        ("import torch\n", "import torch\nif TYPE_CHECKING:\n    from typing import Any\n"),
    ],
)
def test_types_do_not_count(source, old, new):
    before = every_digest()
    change(source / "training/loop.py", old, new)
    assert every_digest() == before


def test_fields_of_a_dataclass_count(source):
    before = every_digest()
    change(
        source / "lm/model.py",
        "    block_size: int\n    n_layer: int",
        "    n_layer: int\n    block_size: int",
    )
    assert not set(every_digest().values()) & set(before.values())


STAGES = {
    "data": ("corpus", "tokens"),
    "sweep": ("training", "selection"),
    "final": ("evaluation", "sampling", "voices", "tables"),
    "report": ("figures", "report"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_judges_by_the_modules_that_the_workflow_judges_by(stage):
    """Each module is in a folder among the stage's deps, or one of its deps records its digest.

    run.json records the digests of training, selected.json of selection, manifest.json of tables.
    """
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    folders = [each for each in stages[stage]["deps"] if each.startswith("src/")]
    named = {"final": ("training", "selection"), "report": ("training", "selection", "tables")}
    recorded = {module for step in named.get(stage, ()) for module in digests.by_module(step)}
    for step in STAGES[stage]:
        for module in digests.by_module(step).keys() - recorded:
            path = Path("src/squentropy", module)
            assert any(path.is_relative_to(folder) for folder in folders), (step, module)


def test_dvc_judges_by_every_parameter_that_a_table_depends_on():
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
    study = load([ROOT / "params.yaml"])
    assert {"study", *stages["final"]["params"]} == set(study.table_keys())
    assert {*study.training_keys("sweep")} - {"schedule"} | {"sweep", "refine", "plan"} == {
        param.partition(".")[0] for param in stages["sweep"]["params"]
    }
