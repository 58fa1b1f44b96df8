"""The optimum of each loss is where plain minimisation finds it, and the contexts are the corpus'.

pytest tests/test_floors.py
"""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize

from squentropy import floors, theory
from squentropy.corpus.grammar import load_grammar
from squentropy.corpus.prediction import predict
from squentropy.errors import SquentropyError
from squentropy.losses import LOSSES
from squentropy.tables import describe_corpus, story_entropy
from squentropy.tokenizer import gpt2_encoding, train_encoding
from squentropy.tokens import TokenFolder

PI = ([0.6, 0.3, 0.1], [0.5, 0.5, 0.0], [0.98, 0.01, 0.01], [1.0, 0.0, 0.0])


@pytest.mark.parametrize("form", theory.FORMS)
@pytest.mark.parametrize("weight", [1.0, 0.1])
@pytest.mark.parametrize("classes", [3, 20])
def test_the_floor_is_that_of_a_plain_minimisation(form, weight, classes):
    """Over all classes, without the shared logit; several distributions at once."""
    true_weight, less = theory.FORMS[form]
    found = theory.floor(np.array(PI), classes, weight, form)
    for distribution, kl in zip(PI, found):
        pi = np.array(distribution + [0.0] * (classes - 3))

        def loss(f, pi=pi):
            squares = (1 - pi) @ f**2 + true_weight * pi @ (f - 1) ** 2
            return -pi @ f + np.log(np.exp(f).sum()) + weight / (classes - less) * squares

        f = minimize(loss, np.zeros(classes), tol=1e-12).x
        log_p = f - np.log(np.exp(f).sum())
        possible = pi > 0
        expected = pi[possible] @ (np.log(pi[possible]) - log_p[possible])
        assert kl == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("form", theory.FORMS)
def test_the_expected_loss_is_the_training_losss(form):
    """What losses.py computes, averaged over targets, has its minimum where the floor says."""
    pi, classes = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64), 6
    targets, weight = torch.tensor([0, 0, 1, 2]), torch.eye(classes, dtype=torch.float64)
    logits = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=500, tolerance_change=1e-14)

    def closure():
        optimizer.zero_grad()
        value = LOSSES[form](logits.expand(4, -1), weight, targets)
        value.backward()
        return value

    optimizer.step(closure)
    kl = (pi * (pi.log() - logits.detach().log_softmax(0)[:3])).sum().item()
    assert theory.floor(pi.numpy(), classes, form=form) == pytest.approx(kl, abs=1e-6)


def test_without_the_square_term_there_is_no_floor():
    for form in theory.FORMS:
        assert theory.floor(np.array(PI), 1000, 0.0, form) == pytest.approx(0, abs=1e-6)


def test_tokens_that_never_follow_may_be_left_out_or_not():
    whole = theory.floor([[0.6, 0.3, 0.1, 0, 0, 0]], 50)
    assert theory.floor([[0.6, 0.3, 0.1]], 50) == pytest.approx(whole, abs=1e-9)


def test_the_floor_falls_as_the_vocabulary_grows_and_with_the_weight():
    pi = theory.CONTEXTS["10 tokens, Zipf's law"]
    for form in theory.FORMS:
        by_size = [theory.floor(pi, classes, form=form)[0] for classes in (512, 4096, 50257)]
        assert by_size == sorted(by_size, reverse=True)
        by_weight = [theory.floor(pi, 512, weight, form)[0] for weight in (1, 0.1, 0.01)]
        assert by_weight == sorted(by_weight, reverse=True)
        assert by_size[-1] > 0.001


# --- the grammar's own distributions ------------------------------------------------------------


@pytest.fixture(scope="module")
def stories():
    return list(load_grammar().stories(5, 0, 12))


@pytest.fixture(scope="module", params=["bpe", "gpt2"])
def encoding(request, stories):
    if request.param == "gpt2":
        return gpt2_encoding()
    return train_encoding([s.text for s in load_grammar().stories(1, 0, 200)], 400)


def test_a_storys_tokens_have_its_exact_probability(stories, encoding):
    for story in stories:
        tokens = [*encoding.encode_ordinary(story.text), encoding.eot_token]
        following = list(predict(tokens, load_grammar(), encoding))
        assert len(following) == len(tokens)
        assert sum(math.log(p[0]) for p in following) == pytest.approx(story.log_prob, abs=1e-9)
        assert [math.fsum(p) for p in following] == pytest.approx([1] * len(tokens))


def test_a_storys_first_tokens_come_as_often_as_predicted(encoding):
    many = 4000
    firsts = [encoding.encode_ordinary(s.text)[:3] for s in load_grammar().stories(7, 0, many)]
    for start, group in itertools.groupby(sorted(firsts)):
        n = len(list(group))
        if n > 100:
            predicted = predict(start, load_grammar(), encoding)
            p = math.prod(following[0] for following in predicted)
            assert n / many == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / many))


def test_what_the_grammar_cannot_write_is_refused(stories, encoding):
    tokens = encoding.encode_ordinary(stories[0].text + " Then it rained frogs.")
    with pytest.raises(SquentropyError, match="none of the grammar's"):
        list(predict(tokens, load_grammar(), encoding))


# --- the table ----------------------------------------------------------------------------------


def test_bigrams_are_counted_as_they_stand(tokens):
    train = tokens.split("train")
    pi, place = floors.bigram_contexts(train, tokens.vocab_size, 50, seed=1)
    assert len(place) == 50
    assert pi.sum(1) == pytest.approx(np.ones(len(pi)))
    drawn = np.random.Generator(np.random.Philox(key=1)).integers(0, len(train.ids) - 1, size=50)
    for context, row in zip(train.ids[drawn], pi[place]):
        after = train.ids[1:][train.ids[:-1] == context]
        counts = np.sort(np.unique(after, return_counts=True)[1])[::-1]
        assert row[: len(counts)] == pytest.approx(counts / counts.sum())
        assert not row[len(counts) :].any()


def test_counting_in_chunks_changes_nothing(tokens, monkeypatch):
    whole = floors.bigram_contexts(tokens.split("train"), tokens.vocab_size, 30, seed=0)
    monkeypatch.setattr(floors, "CHUNK", 7)
    chunked = floors.bigram_contexts(tokens.split("train"), tokens.vocab_size, 30, seed=0)
    assert all((a == b).all() for a, b in zip(whole, chunked))


def test_the_table_of_a_natural_corpus_has_bigrams_alone(data, tiny_study):
    table = pd.DataFrame(floors.theory_rows(tiny_study(), data), columns=floors.THEORY)
    assert set(table["contexts"]) == {"bigram"}
    assert sorted(set(table["classes"])) == [300, 1024, 4096, 16384, 65536, 262144]
    assert (table["kl_low"] < table["kl"]).all()
    assert (table["kl_10"] <= table["kl_90"]).all()
    assert table["entropy"].nunique() == 1


def test_the_grammars_table_knows_the_whole_story_too(grammar_data, tiny_study):
    table = pd.DataFrame(floors.theory_rows(tiny_study(), grammar_data), columns=floors.THEORY)
    whole = table[table["contexts"] == "whole"]
    test = TokenFolder.open(grammar_data / "tokens").split("test")
    assert set(whole["n"]) == {len(test.ids)}
    source = describe_corpus(grammar_data, story_entropy(grammar_data))
    expected = pytest.approx(source["source_nll"], abs=4 * source["source_nll_se"])
    assert whole["entropy"].iloc[0] == expected
    bigram = table[table["contexts"] == "bigram"]
    assert (whole["entropy"].iloc[0] < bigram["entropy"]).all()
    pi, place, lengths = floors.whole_contexts(TokenFolder.open(grammar_data / "tokens"))
    kl = theory.floor(pi, 300)[place]
    row = whole[(whole["loss"] == "squentropy") & (whole["weight"] == 1)].iloc[0]
    assert (lengths.sum(), row["kl"]) == (len(kl), pytest.approx(kl.mean()))


@pytest.mark.parametrize(("own", "classes"), [(512, 512), (4096, 4096), (50257, 50257)])
def test_vocabularies_begin_with_the_corpus_own(own, classes):
    sizes = floors.vocabularies(own)
    assert sizes[0] == classes
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == floors.LARGEST
