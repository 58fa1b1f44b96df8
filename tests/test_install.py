"""Installation: the lock files, the installer, make, and which clone's package is imported."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from squentropy.base import installed
from squentropy.base.errors import SquentropyError

ROOT = Path(__file__).resolve().parents[1]
LOCKS = sorted(ROOT.glob("requirements*.lock"))
LINE = re.compile(r"([a-z0-9-]+)==\S+( ; [^\\]+)? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


def load(name: str):
    specification = importlib.util.spec_from_file_location(name, ROOT / f"tools/{name}.py")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def names(lock: Path) -> set[str]:
    return set(load("install").read(lock))


# --- the locks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_each_package_of_a_lock_is_exact_and_has_hashes(lock):
    first, *lines = lock.read_text(encoding="utf-8").splitlines()
    assert first.startswith("#")
    assert all(LINE.fullmatch(line) or HASH.fullmatch(line) for line in lines)
    assert LINE.fullmatch(lines[0])
    for line, after in zip(lines, [*lines[1:], ""], strict=True):
        assert line.endswith("\\") == after.startswith("    --hash"), line


def test_the_locks_hold_what_the_project_asks_for():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    study = names(ROOT / "requirements.lock")
    whole = [*project["dependencies"], *extras["study"], *extras["report"], *extras["pipeline"]]
    wanted = {"requirements.lock": whole}
    for extra in load("lock").EXTRAS:
        wanted[f"requirements-{extra}.lock"] = extras[extra]
    wanted["requirements-test.lock"] = [*extras["test"], *extras["docs"]]
    for lock, requirements in wanted.items():
        plain = {re.match(r"[\w-]+", each)[0].lower() for each in requirements} - {"squentropy"}
        assert plain <= names(ROOT / lock) | (study if lock != "requirements.lock" else set())


def test_a_study_installs_neither_what_only_the_hub_nor_what_only_dvc_needs():
    study = names(ROOT / "requirements.lock")
    assert not study & {"dvc", "datasets", "huggingface-hub", "nbconvert"}
    assert not any(re.match(r"nvidia-|cuda-|triton", name) for name in study)
    assert any(name.startswith("nvidia-") for name in names(ROOT / "requirements-gpu.lock"))


def test_two_locks_agree_on_every_version():
    versions = {}
    for lock in LOCKS:
        for name, lines in load("install").read(lock).items():
            pinned = lines.split(" ")[0]
            assert versions.setdefault(name, pinned) == pinned


# --- the installer ------------------------------------------------------------------------------


@pytest.fixture
def install(monkeypatch, tmp_path):
    """tools/install.py with no pip settings except those of the test."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    return load("install")


def test_uv_takes_packages_from_where_pip_would(install, monkeypatch, tmp_path):
    of_machine = install.settings_of_pip()  # such as a certificate in /etc/pip.conf
    (tmp_path / "pip.conf").write_text(
        "[global]\nindex-url = https://one.example/simple\n"
        "extra-index-url =\n    https://two.example/simple\n    https://three.example/simple\n"
    )
    monkeypatch.setenv("PIP_FIND_LINKS", "/wheels /more")
    assert install.settings_of_pip() == of_machine | {
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_DEFAULT_INDEX": "https://one.example/simple",
        "UV_INDEX": "https://two.example/simple https://three.example/simple",
        "UV_FIND_LINKS": "/wheels,/more",
    }
    monkeypatch.setenv("PIP_INDEX_URL", "https://four.example/simple")
    assert install.settings_of_pip()["UV_DEFAULT_INDEX"] == "https://four.example/simple"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://five.example/simple")
    assert "UV_DEFAULT_INDEX" not in install.settings_of_pip()


def test_settings_that_say_what_becomes_of_packages_are_not_heeded(install):
    heeded = ("PIP_INDEX_URL", "PIP_CERT", "PIP_CACHE_DIR", "UV_INDEX", "UV_DEFAULT_INDEX")
    assert all(install.WHERE.fullmatch(name) for name in heeded)
    others = ("PIP_USER", "PIP_TARGET", "PIP_NO_BINARY", "PIP_REQUIRE_HASHES", "UV_SYSTEM_PYTHON")
    assert not any(install.WHERE.fullmatch(name) for name in others)


def test_a_build_of_torch_that_the_lock_does_not_know_is_not_installed_unasked(
    install, monkeypatch, capsys
):
    ran, build = [], "torch-0.1-py3.whl"

    def run(command, what, *settings):
        ran.append(command[3])
        if "--dest" in command:
            Path(command[command.index("--dest") + 1], build).write_text("a build")
        return 0

    monkeypatch.setattr(install, "run", run)
    monkeypatch.setattr(install.metadata, "requires", lambda name: [])  # as for a CPU build
    lines = "torch==0.1 \\\n    --hash=sha256:00"
    with pytest.raises(SystemExit, match=r"^torch-0\.1-py3\.whl: its hash is not in .*TORCH=any"):
        install.install_torch([], lines, build=None)
    assert ran == ["download"]
    install.install_torch([], lines, build="any")
    assert ran[:3] == ["download", "download", "install"]
    build = "torch-0.1+own-py3.whl"  # built by an index, so its hash is in no lock
    install.install_torch([], lines, build=None)
    assert ran[3:5] == ["download", "install"]
    assert capsys.readouterr().out.startswith("torch-0.1+own-py3.whl: a build of the package index")


@pytest.mark.parametrize(
    ("build", "index", "other"),
    [("cpu", "download.pytorch.org/whl/cpu", "0.1"), ("cuda", "pypi.org/simple", "0.1+cpu")],
)
def test_a_build_for_cpus_or_for_gpus_is_taken_from_where_it_lies(
    install, monkeypatch, build, index, other
):
    """Even if another build of that version is installed."""
    asked = []

    def run(command, what, *settings):
        if "--dest" in command:
            asked.append(command)
            Path(command[command.index("--dest") + 1], "torch-0.1+own-py3.whl").write_text("-")
        return 0

    monkeypatch.setattr(install, "run", run)
    monkeypatch.setattr(install, "installed", lambda name: other)
    install.install_torch([], "torch==0.1 \\\n    --hash=sha256:00", build)
    [command] = asked
    assert command[command.index("--index-url") + 1] == f"https://{index}"
    install.install_torch([], "torch==0.1 \\\n    --hash=sha256:00", None)  # any build is accepted
    monkeypatch.setattr(install, "installed", lambda name: "0.1" if build == "cuda" else "0.1+cpu")
    install.install_torch([], "torch==0.1 \\\n    --hash=sha256:00", build)  # already installed
    assert len(asked) == 1


def test_a_build_of_torch_that_there_is_none_of_is_said(install):
    with pytest.raises(SystemExit, match=r"^TORCH=gpu: no such build; write cpu"):
        install.main(["--torch=gpu"])


def test_the_first_call_of_dvc_brings_it(install, tmp_path, monkeypatch):
    monkeypatch.setattr(install, "ROOT", tmp_path)
    monkeypatch.setattr(install.sys, "executable", "/bin/echo")
    (tmp_path / "Makefile").write_text(".PHONY: dvc\ndvc:\n\t@echo brought\n\t@test ! -e fails\n")
    install.write_first_dvc(tmp_path / "dvc")

    def call() -> tuple[int, str, str]:
        command = [tmp_path / "dvc", "status", "a b"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        return done.returncode, done.stdout, done.stderr

    assert call() == (0, "-m dvc status a b\n", "brought\n")
    (tmp_path / "fails").touch()
    assert call()[:2] == (2, "")


def test_a_long_installation_gives_signs_of_life(install, monkeypatch, capfd):
    monkeypatch.setattr(install, "SECONDS", 0.1)
    program = "import sys; print('wait', flush=True); sys.stdin.read()"
    with monkeypatch.context() as patch:
        reader, writer = os.pipe()
        said = []

        def say(line):
            said.append(line)
            if len(said) == 2:
                os.close(writer)

        patch.setattr(install, "say", say)
        saved = os.dup(0)
        os.dup2(reader, 0)
        try:
            assert install.run([sys.executable, "-c", program], "a lock") == 0
        finally:
            os.dup2(saved, 0)
    assert all(line.startswith("installing a lock, ") for line in said)
    assert capfd.readouterr().out == "wait\n"


# --- make ---------------------------------------------------------------------------------------


def said_by_make(folder: Path, variables: str, *words: str, **environment: str) -> str:
    command = ["make", "--no-print-directory", "--eval", f"say: ; @echo {variables}", "say", *words]
    path = os.pathsep.join([str(folder), os.environ["PATH"]])
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PATH": path} | environment,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("program", "gpus"),
    [
        ("echo 'GPU 0: A (UUID: 1)'; echo 'GPU 1: A (UUID: 2)'", "2"),
        ("echo 'NVIDIA-SMI has failed'; exit 9", "0"),
        ("echo 'No devices were found' >&2; exit 6", "0"),
        (":", "0"),
    ],
)
def test_make_counts_the_gpus_that_nvidia_smi_lists_where_it_does_not_fail(tmp_path, program, gpus):
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{program}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    assert said_by_make(tmp_path, "$(GPUS)") == gpus


def test_system_and_torch_are_heeded_on_makes_command_line_alone(tmp_path):
    asked = "[$(SYSTEM)] [$(TORCH)]"
    assert said_by_make(tmp_path, asked, SYSTEM="x86", TORCH="any") == "[] []"
    assert said_by_make(tmp_path, asked, "SYSTEM=1", "TORCH=any", SYSTEM="x") == "[1] [any]"


# --- the imported package -----------------------------------------------------------------------


@pytest.fixture
def clone(tmp_path) -> Path:
    """A folder with the parts by which the commands recognise a clone."""
    folder = tmp_path / "clone"
    shutil.copytree(ROOT / "workflow", folder / "workflow")
    shutil.copytree(ROOT / "src/squentropy", folder / "src/squentropy")
    for name in ("Snakefile", "params.yaml"):
        shutil.copy(ROOT / name, folder)
    return folder


def run(folder: Path, module: str, *words: str, source: Path = ROOT) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", module, *words], cwd=folder,
        env=os.environ | {"PYTHONPATH": str(source / "src")}, capture_output=True, text=True,
    )  # fmt: skip
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("module", "words"),
    [("squentropy.cli", ("corpus", "data/grammar/corpus")), ("snakemake", ("--cores", "1"))],
)
def test_a_clone_is_not_worked_in_with_the_package_of_another(clone, module, words):
    code, said = run(clone, module, *words)
    assert code == 2
    assert said.splitlines()[-1] == (
        f"squentropy: {clone}: the imported package is not this clone's but "
        f"{ROOT / 'src/squentropy'}; unset PYTHONPATH, or `make clean` and `make install`, and run "
        "this again"
    )
    assert not (clone / "data").exists()


def test_a_clone_is_worked_in_with_its_own_package_from_any_folder_of_it(clone):
    assert run(clone / "workflow", "squentropy.cli", "params", "--params", "../params.yaml",
               source=clone) == (0, "")  # fmt: skip


def test_the_package_works_in_any_folder_that_is_no_clone(tmp_path):
    installed.check_own(tmp_path)
    (tmp_path / "Snakefile").touch()  # of another project
    installed.check_own(tmp_path)
    installed.check_own(ROOT / "tests")


def test_what_only_some_studies_need_is_named_with_the_command_that_brings_it(monkeypatch):
    installed.check("torch")
    for module, extra in (("dvc", "dvc"), ("datasets", "hub")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(SquentropyError, match=f"^{module}: is not installed; `make {extra}`"):
            installed.check(module)


def test_a_study_of_the_hub_says_what_it_lacks_before_it_begins(clone):
    hide = "import sys; sys.modules['datasets'] = None\n"
    (clone / "src/sitecustomize.py").write_text(hide)
    shutil.copytree(ROOT / "studies", clone / "studies")
    words = ["--cores", "1", "--configfile", "studies/tinystories.yaml"]
    code, said = run(clone, "snakemake", *words, source=clone)
    assert code == 1
    assert said.splitlines()[-1] == (
        "squentropy: datasets: is not installed; `make hub` installs it, or "
        "`pip install 'squentropy[hub]'`"
    )
    assert not (clone / "results").exists()
