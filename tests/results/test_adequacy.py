"""Whether a study's models have learnt enough; those of the first study had not."""

import json
import math
from pathlib import Path

import pytest

from squentropy.corpus.build import build
from squentropy.results import ngrams
from squentropy.results.adequacy import judge, share_learnt, sign_changes
from squentropy.study import params
from squentropy.tokens.token_files import TokenFolder
from squentropy.tokens.tokenizer import tokenize

ROOT = Path(__file__).resolve().parents[2]
FIRST = json.loads((ROOT / "tests/first_study.json").read_text())
FIGURES = {1: 5.215, 2: 2.988, 3: 1.734, 4: 1.400, 5: 1.331}  # from one run's training tokens


@pytest.fixture(scope="module")
def counted(tmp_path_factory) -> dict[int, float]:
    """Test nll per token, in the first study, of n-gram models of one run's training tokens."""
    values = params.load([ROOT / "params.yaml"]).model_dump()
    values["corpus"]["grammar"] |= FIRST["corpus"]
    values["tokens"]["vocab_size"] = FIRST["vocab_size"]
    study, folder = params.parse(values), tmp_path_factory.mktemp("first")
    build(study.corpus, folder / "corpus")
    tokenize(study.tokens, folder / "corpus", folder / "tokens")
    tokens = TokenFolder.open(folder / "tokens")
    train, test = tokens.split("train"), tokens.split("test")
    assert len(train.ids) == FIRST["train_tokens_of_the_corpus"]
    trained_on = ngrams.first_tokens(train.ids, train.offsets, FIRST["train_tokens_of_a_run"])
    nll = ngrams.story_nll(
        *trained_on, test.ids, test.offsets, tokens.end_of_text, tokens.vocab_size
    )
    return {order: values.sum() / len(test.ids) for order, values in nll.items()}


def test_what_counting_makes_of_the_first_studys_tokens(counted):
    assert counted == pytest.approx(FIGURES, abs=0.001)


@pytest.mark.parametrize("reading", ["softmax", "tempered"])
def test_the_first_study_had_not_trained_enough(counted, reading):
    nll = FIRST["cross_entropy"][reading]
    verdict = judge(
        nll,
        counted,
        order=3,
        unigram=FIRST["unigram_nll"],
        limit=FIRST["source_nll"],
        by_tokens={FIRST["train_tokens_of_a_run"]: nll},
        steepest=0.25,
    )
    assert not verdict.enough
    assert verdict.reasons == [
        f"cross entropy ({nll:.3f} nats per token) does not beat the trigram model of the tokens "
        "it was trained on (1.734)"
    ]
    assert 0.2 < verdict.learnt < 0.25
    assert math.isnan(verdict.last_doubling)


def judged(nll=1.0, *, limit=0.4, steepest=0.25, **by_tokens):
    """The verdict on a study with a trigram nll of 1.6, in a range from 5.8 to 0.4."""
    lengths = {int(name[1:]): value for name, value in by_tokens.items()}
    return judge(
        nll,
        {1: 5.8, 2: 2.8, 3: 1.6, 4: 1.2},
        order=3,
        unigram=5.8,
        limit=limit,
        by_tokens=lengths or {1000: nll},
        steepest=steepest,
    )


def test_a_study_that_beats_the_trigram_and_has_flattened_is_enough():
    verdict = judged(1.0, t250=3.0, t500=1.5, t1000=1.0)
    assert (verdict.enough, verdict.reasons) == (True, [])
    assert verdict.learnt == pytest.approx(4.8 / 5.4)
    assert verdict.last_doubling == pytest.approx(0.5 / 5.4)


def test_to_equal_the_trigram_is_not_to_beat_it():
    assert not judged(1.6).enough
    assert judged(1.5999).enough


def test_a_curve_that_still_falls_steeply_is_a_reason_with_its_figures():
    verdict = judged(1.5, t500=3.0, t1000=1.5)
    assert verdict.reasons == [
        "cross entropy's curve is still steep: from 500 to 1,000 tokens it won 28% of the range "
        "from unigram to exact entropy per doubling, and 25% is the most allowed"
    ]
    assert judged(1.5, t500=3.0, t1000=1.5, steepest=0.28).enough
    # The same gain over four times the tokens is half as much per doubling.
    quarter = judged(1.5, t250=3.0, t1000=1.5)
    assert quarter.enough
    assert quarter.last_doubling == pytest.approx(verdict.last_doubling / 2)
    # Only the last two lengths that did not diverge count.
    assert judged(1.0, t250=5.0, t500=1.2, t1000=1.0).enough
    assert not judged(1.5, t500=3.0, t700=math.nan, t1000=1.5).enough


def test_without_an_exact_entropy_the_best_ngram_stands_in():
    verdict = judged(1.5, limit=None, t500=2.6, t1000=1.5)
    assert verdict.learnt == pytest.approx((5.8 - 1.5) / (5.8 - 1.2))
    assert verdict.last_doubling == pytest.approx(1.1 / 4.6)
    (reason,) = judged(1.5, limit=None, t500=3.0, t1000=1.5).reasons
    assert "from unigram to best n-gram model" in reason


def test_two_faults_are_two_reasons():
    assert len(judged(1.7, t500=3.5, t1000=1.7).reasons) == 2


@pytest.mark.parametrize(
    ("nll", "word"), [(None, "no cross entropy"), (math.nan, "diverged"), (math.inf, "diverged")]
)
def test_without_a_cross_entropy_nothing_is_ranked(nll, word):
    verdict = judged(nll, t1000=1.0)
    assert not verdict.enough
    assert word in verdict.reasons[0]


def test_the_share_learnt_runs_from_the_unigram_to_the_limit():
    assert share_learnt(5.0, 5.0, 1.0) == 0
    assert share_learnt(1.0, 5.0, 1.0) == 1
    assert share_learnt(6.0, 5.0, 1.0) < 0
    assert math.isnan(share_learnt(1.0, 5.0, 5.0))


def test_losses_that_change_sides_are_named():
    curves = {
        "cross_entropy": {100: 3.0, 200: 2.0, 400: 1.0, 800: math.nan},
        "worse": {100: 3.1, 200: 2.1, 400: 1.1},
        "better at first": {100: 2.9, 200: 2.2},
        "equal, then better": {100: 3.0, 200: 1.9},
        "diverged": {100: 2.9, 200: 1.9, 400: math.nan, 800: 9.0},
        "of another length": {100: 2.9, 300: 9.0},
    }
    assert sign_changes(curves) == ["better at first"]
    assert sign_changes(curves, baseline="worse") == ["better at first"]
