"""Files with a conventional format agree with the repository: CI, citations, catalogues.

pytest tests/test_conventions.py
"""

import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

import squentropy

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PYTHONS = [
    found[1]
    for each in PROJECT["classifiers"]
    if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", each))
]


def read(path: str):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def make_variable(name: str) -> str:
    command = ["make", "--no-print-directory", "--eval", f"say: ; @echo '$({name})'", "say"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.strip()


# --- CI -----------------------------------------------------------------------------------------


def test_github_runs_what_ci_runs_and_the_tests_on_every_python_that_is_allowed():
    jobs = read(".github/workflows/ci.yml")["jobs"]
    runs = {name: [s["run"] for s in job["steps"] if "run" in s] for name, job in jobs.items()}
    assert ".ci/run" in runs["everything"]
    assert jobs["pythons"]["strategy"]["matrix"]["python"] == PYTHONS
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    assert any(run.startswith("make test-torch") for run in runs["torch"])
    targets = {run.split()[1] for steps in runs.values() for run in steps if run.startswith("make")}
    for target in targets:
        done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True)
        assert done.returncode == 0, target


def test_torch_is_tested_at_both_ends_of_what_is_allowed():
    [torch] = [each for each in PROJECT["dependencies"] if each.startswith("torch")]
    assert re.fullmatch(r"torch>=[\d.]+,<[\d.]+", torch)
    assert f"torch{make_variable('TORCH_BOUNDS')}" == torch
    assert make_variable("OLDEST_TORCH") == torch.partition(",")[0].replace("torch>=", "==")
    assert all((ROOT / path).exists() for path in make_variable("LIBRARY_TESTS").split())


def test_a_commit_is_checked_by_the_linters_of_make_lint():
    lint = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nlint:")[2].split("\n\n")[0]
    [local] = read(".pre-commit-config.yaml")["repos"]
    entries = [hook["entry"] for hook in local["hooks"]]
    assert all(entry.startswith(".venv/bin/") for entry in entries)
    programs = {Path(entry.split()[0]).name for entry in entries}
    asked = set(re.findall(r"^\t([a-z][\w-]*)", lint, re.M))
    assert programs == asked


# --- templates ----------------------------------------------------------------------------------

FORMS = sorted(
    path for path in ROOT.glob(".github/ISSUE_TEMPLATE/*.yml") if path.name != "config.yml"
)


@pytest.mark.parametrize("form", FORMS, ids=lambda path: path.name)
def test_a_form_for_issues_is_one_that_github_takes(form):
    held = yaml.safe_load(form.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= held.keys()
    ids = [field["id"] for field in held["body"]]
    assert len(set(ids)) == len(ids)
    for field in held["body"]:
        assert field["type"] in ("textarea", "input", "dropdown", "checkboxes")
        assert field["attributes"]["label"]


def test_a_template_names_targets_that_there_are():
    text = (ROOT / ".github/PULL_REQUEST_TEMPLATE.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"`make ([a-z-]+)`", text))
    assert len(targets) >= 5
    for target in targets:
        done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True)
        assert done.returncode == 0, target


# --- citation -----------------------------------------------------------------------------------


def test_the_original_study_is_cited_with_all_its_authors():
    cited = read("CITATION.cff")
    zenodo = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
    [original] = [r for r in cited["references"] if "NanoGPT-Loss-Stop-Analysis" in r["url"]]
    names = [author["family-names"] for author in original["authors"]]
    assert names == ["Muir", "Talanki", "Ali", "Kancherla"]
    [said] = [each for each in zenodo["references"] if original["title"] in each]
    assert all(name in said for name in names)
    for reference in cited["references"]:
        assert any(reference["title"] in each for each in zenodo["references"])


def test_version_and_licence_are_the_same_everywhere():
    cited = read("CITATION.cff")
    zenodo = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
    versions = {squentropy.__version__, PROJECT["version"], cited["version"], zenodo["version"]}
    assert len(versions) == 1
    assert cited["title"] == zenodo["title"]
    assert {PROJECT["license"], cited["license"], zenodo["license"]} == {"MIT"}


# --- Snakemake's catalogue ----------------------------------------------------------------------


def test_the_workflow_catalogue_finds_what_it_asks_for():
    usage = read(".snakemake-workflow-catalog.yml")["usage"]
    assert usage.keys() == {"mandatory-flags", "software-stack-deployment", "report"}
    readme = (ROOT / "README.md").read_text(encoding="utf-8").lower()
    assert "snakemake" in readme
    assert "workflow" in readme
    assert (ROOT / "Snakefile").is_file()


def test_its_configuration_page_has_every_section_of_the_parameters():
    page = (ROOT / "config/README.md").read_text(encoding="utf-8")
    rows = " ".join(re.findall(r"^\| (`[^|]*) \|", page, re.M))
    assert set(re.findall(r"`(\w+)`", rows)) == set(read("params.yaml"))


def test_the_container_runs_the_default_study():
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    assert text.splitlines()[-1] == 'CMD ["snakemake", "--cores", "all"]'
