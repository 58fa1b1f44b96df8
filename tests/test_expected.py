"""The table of expected results agrees with the committed studies.

pytest tests/test_expected.py
"""

import importlib.util
import json
import shutil
import statistics
import subprocess
from pathlib import Path

import pandas as pd
import pytest

ROOT = Path(__file__).resolve().parents[1]
TINY = Path("results/tiny")


@pytest.fixture(scope="module")
def expected():
    path = ROOT / "benchmarks/expected.py"
    specification = importlib.util.spec_from_file_location("expected", path)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def nothing(expected) -> pd.DataFrame:
    return pd.DataFrame(columns=expected.COLUMNS)


def test_a_row_has_the_nll_of_the_tables_and_the_time_of_the_runs(expected, whole_study):
    found = expected.table([TINY], nothing(expected)).set_index(["loss", "tokens"])
    lengths = pd.read_csv(TINY / "lengths.csv")
    for key, runs in lengths.groupby(["loss", "tokens"]):
        assert found.at[key, "nll"] == pytest.approx(runs["nll"].mean(), rel=1e-12)
        assert found.at[key, "runs"] == len(runs)
    assert len(found) == lengths.groupby(["loss", "tokens"]).ngroups
    took = [
        json.loads(path.read_text())["seconds"]
        for path in Path("checkpoints/tiny/final/mse").glob("*/provenance.json")
    ]
    longest = ("mse", int(lengths["tokens"].max()))
    assert found.at[longest, "seconds"] == round(statistics.median(took), 1)
    assert found["processor"].notna().all()


def test_a_run_that_was_resumed_says_nothing_of_the_time(expected, whole_study):
    for path in Path("checkpoints/tiny").glob("*/mse/**/provenance.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"resumed": True}))
    found = expected.table([TINY], nothing(expected)).set_index("loss")
    assert found.loc["mse", "seconds"].isna().all()
    assert found.loc["cross_entropy", "seconds"].notna().all()


def test_without_the_runs_the_time_of_the_same_nll_stays(expected, whole_study):
    before = expected.table([TINY], nothing(expected))
    shutil.rmtree("checkpoints")
    pd.testing.assert_frame_equal(expected.table([TINY], before), before, check_dtype=False)
    other = before.assign(nll=before["nll"] + before["loss"].eq("mse"))
    found = expected.table([TINY], other).set_index("loss")
    assert found.loc["mse", "seconds"].isna().all()
    assert found.loc["cross_entropy", "seconds"].notna().all()


def test_the_committed_file_is_of_the_committed_results(expected):
    git = ["git", "ls-files", "results/*/manifest.json"]
    listed = subprocess.run(git, cwd=ROOT, capture_output=True, text=True).stdout.split()
    if not listed:
        pytest.skip("no git says here which results are committed")
    held = pd.read_csv(expected.FILE)
    found = expected.table([ROOT / Path(path).parent for path in listed], held)
    pd.testing.assert_frame_equal(found[expected.COLUMNS[:5]], held[expected.COLUMNS[:5]])
