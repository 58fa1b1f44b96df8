"""If the home is missing or not writable, caches go where the study can write.

pytest tests/base/test_home.py
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from squentropy.base import home

ROOT = Path(__file__).resolve().parents[2]
MISSING = "/dev/null/home"  # not even root can create this folder


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """Restore these variables after each test."""
    for name in ("HOME", "USER", *home.BASES):
        monkeypatch.setenv(name, os.environ.get(name, MISSING))


def test_a_home_that_can_be_written_to_stays(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    home.ensure(tmp_path / "study")
    assert os.environ["HOME"] == str(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("given", [MISSING, "relative"])
def test_another_is_one_of_the_studys(monkeypatch, tmp_path, given):
    monkeypatch.setenv("HOME", given)
    monkeypatch.setenv("XDG_CACHE_HOME", MISSING)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    home.ensure(tmp_path)
    assert os.environ["HOME"] == str(tmp_path / ".snakemake/squentropy/home")
    assert os.access(os.environ["HOME"], os.W_OK)
    assert "XDG_CACHE_HOME" not in os.environ
    assert os.environ["XDG_CONFIG_HOME"] == str(tmp_path)


def without_a_home() -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if name not in home.BASES},
        "HOME": MISSING,
    }


def test_matplotlib_and_dvc_keep_their_caches_there(tmp_path):
    program = (
        "from pathlib import Path; from squentropy.base import home; home.ensure(Path())\n"
        "import matplotlib, platformdirs\n"
        "print(matplotlib.get_cachedir(), matplotlib.get_configdir())\n"
        "print(platformdirs.user_config_dir('dvc'), platformdirs.user_cache_dir('snakemake'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=without_a_home(),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr == ""  # no warning by matplotlib about a temporary folder
    places = done.stdout.split()
    assert len(places) == 4
    assert all(place.startswith(str(tmp_path / ".snakemake/squentropy/home")) for place in places)


def test_snakemake_starts_without_a_home(copy_project, tmp_path):
    project = copy_project(tmp_path / "project")
    words = ["--cores", "1", "data/grammar/corpus/manifest.json", "--dry-run"]
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *words], cwd=project,
        env=without_a_home() | {"PYTHONPATH": str(project / "src")}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_make_has_such_a_home_too(tmp_path):
    command = ["make", "--no-print-directory", "-f", str(ROOT / "Makefile"), "-C", str(tmp_path)]
    command += ["--eval", "say: ; @echo $$HOME", "say"]
    done = subprocess.run(command, env=without_a_home(), capture_output=True, text=True)
    assert done.stdout.strip() == f"{tmp_path}/.snakemake/squentropy/home", done.stderr
    kept = subprocess.run(
        command, env=os.environ | {"HOME": str(tmp_path)}, capture_output=True, text=True
    )
    assert kept.stdout.strip() == str(tmp_path)
