"""The verdicts on published claims follow from the intervals.

pytest tests/report/test_claims.py
"""

import re
from pathlib import Path

import fake_results
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squentropy.base.errors import SquentropyError
from squentropy.report.claims import CLAIMS, END, RANKS, START, ranks, rows, verdict, with_claims
from squentropy.report.read import read

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/explanation/claims.md"
finite = st.floats(-10, 10)


@given(ends=st.tuples(finite, finite), better=st.booleans())
def test_a_verdict_never_contradicts_its_interval(ends, better):
    low, high = sorted(ends)
    said = verdict(better, low, high)
    if low <= 0 <= high:
        assert said == "cannot be told"
    else:  # a loss is better if its nll is below cross entropy's
        assert said == ("holds" if (high < 0) == better else "does not hold")


def test_what_the_page_says_is_what_the_committed_results_give():
    studies = re.findall(r"results/([\w-]+)/metrics\.csv", PAGE.read_text())
    assert "grammar" in studies
    folders = [ROOT / "results" / name for name in dict.fromkeys(studies)]
    assert with_claims(PAGE.read_text(), folders) == PAGE.read_text()


def test_what_the_readme_says_of_the_long_study_is_in_its_table():
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    said = text.partition("**With [sixteen times the tokens]")[2].partition("## Run it")[0]
    metrics = read(ROOT / "results/long").metrics
    assert f"within {metrics.at['cross_entropy', 'excess']:.3f} nats" in said
    for loss in ("squentropy(0.1)", "squentropy", "mse_weighted"):
        difference, low, high = metrics.loc[
            loss, ["difference", "difference_low", "difference_high"]
        ]
        assert re.search(rf" {difference:.3f} (nats per token )?\({low:.3f} to {high:.3f}\)", said)


LOSSES = ["cross_entropy", "mse_weighted", "squentropy", "brier"]


@pytest.mark.parametrize("learnt", [True, False])
def test_only_a_study_that_ranks_its_losses_tells(tmp_path, learnt):
    folder = fake_results.write(tmp_path, stories=20, learnt=learnt, sweep={"losses": LOSSES})
    said = [row[-1] for claim in CLAIMS for row in rows(claim, [read(folder)])]
    assert len(said) == 3  # only for losses in the study
    assert ("does not hold" in said) == learnt
    assert learnt or set(said) == {"cannot be told"}


def test_places_are_those_of_the_nll_and_none_where_nothing_is_ranked(tmp_path):
    for learnt in (True, False):
        folder = fake_results.write(
            tmp_path / str(learnt), stories=20, learnt=learnt, sweep={"losses": LOSSES}
        )
        study = read(folder)
        column = ranks([study]).iloc[:, 1]
        if learnt:
            assert [cell.partition(".")[0] for cell in column] == ["1", "2", "3", "4"]
            nll = [study.metrics.at[loss, "nll"] for loss in study.ranked]
            assert nll == sorted(nll)
        else:
            assert not any(re.match(r"\d+\. ", cell) for cell in column)
        assert sum("nats" in cell for cell in column) == 1  # cross entropy


def test_a_page_without_marks_is_refused(tmp_path):
    for page in ("", START, END, f"{RANKS} -->\n<!-- end of ranks -->"):
        with pytest.raises(SquentropyError, match="put them back"):
            with_claims(page, [])
