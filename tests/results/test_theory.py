"""Each loss's optimum agrees with direct minimisation, and the contexts with the corpus.

pytest tests/results/test_theory.py
"""

import itertools
import math
from collections import Counter, defaultdict
from dataclasses import astuple

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from squentropy.base.errors import SquentropyError
from squentropy.corpus.grammar.grammar import load_grammar
from squentropy.corpus.grammar.parser import parse
from squentropy.corpus.grammar.prediction import predict
from squentropy.losses import LOSSES
from squentropy.results.tables import describe_corpus, story_entropy
from squentropy.results.theory import contexts, optimum
from squentropy.study.catalogue import loss_info
from squentropy.tokens.token_files import TokenFolder
from squentropy.tokens.tokenizer import gpt2_encoding, train_encoding

PI = ([0.6, 0.3, 0.1], [0.5, 0.5, 0.0], [0.98, 0.01, 0.01], [1.0, 0.0, 0.0])


LOSS = ["squentropy", "squentropy(0.1)", "squentropy_weighted", "squentropy_weighted(2.65)"]


def floor_of(loss: str, pi, classes: int) -> np.ndarray:
    return optimum.floor(pi, classes, *astuple(loss_info(loss).squares))


@pytest.mark.parametrize("loss", LOSS)
@pytest.mark.parametrize("classes", [3, 20])
def test_the_floor_is_that_of_a_plain_minimisation(loss, classes):
    """Minimises over all classes, without a shared logit, for several distributions."""
    scale, true_weight, less = astuple(loss_info(loss).squares)
    found = floor_of(loss, np.array(PI), classes)
    for distribution, kl in zip(PI, found):
        pi = np.array(distribution + [0.0] * (classes - 3))

        def expected_loss(f, pi=pi):
            squares = (1 - pi) @ f**2 + true_weight * pi @ (f - 1) ** 2
            return -pi @ f + np.log(np.exp(f).sum()) + scale / (classes - less) * squares

        f = minimize(expected_loss, np.zeros(classes), tol=1e-12).x
        log_p = f - np.log(np.exp(f).sum())
        possible = pi > 0
        expected = pi[possible] @ (np.log(pi[possible]) - log_p[possible])
        assert kl == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("loss", LOSS)
def test_the_expected_loss_is_the_training_losss(loss):
    """The loss in losses.py, averaged over targets, is minimal at the same distribution."""
    pi, classes = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64), 6
    targets, weight = torch.tensor([0, 0, 1, 2]), torch.eye(classes, dtype=torch.float64)
    logits = torch.zeros(classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=500, tolerance_change=1e-14)

    def closure():
        optimizer.zero_grad()
        value = LOSSES[loss](logits.expand(4, -1), weight, targets)
        value.backward()
        return value

    optimizer.step(closure)
    kl = (pi * (pi.log() - logits.detach().log_softmax(0)[:3])).sum().item()
    assert floor_of(loss, pi.numpy(), classes) == pytest.approx(kl, abs=1e-6)


def test_without_the_square_term_there_is_no_floor():
    assert not optimum.floor(np.array(PI), 1000, 0.0).any()
    assert not optimum.floor(np.array(PI), 1000, 0.0, 65.0, 0).any()


def test_a_certain_token_costs_nothing_where_its_logit_is_free():
    assert optimum.floor([[1.0]], 512) == 0
    assert optimum.floor([[1.0]], 512, true_weight=65.0, less=0) > 1


def test_tokens_that_never_follow_may_be_left_out_or_not():
    whole = optimum.floor([[0.6, 0.3, 0.1, 0, 0, 0]], 50)
    assert optimum.floor([[0.6, 0.3, 0.1]], 50) == pytest.approx(whole, abs=1e-12)


def test_distributions_of_different_lengths_are_those_of_padded_rows():
    padded = optimum.floor(np.array(PI), 50, 0.3)
    flat = np.array([p for row in PI for p in row if p > 0])
    lengths = np.array([sum(p > 0 for p in row) for row in PI])
    ragged = optimum.ragged_floor(flat, np.cumsum(lengths) - lengths, 50, 0.3)
    assert ragged == pytest.approx(padded, abs=1e-14)


def test_the_floor_falls_as_the_vocabulary_grows():
    pi = optimum.CONTEXTS["10 tokens, Zipf's law"]
    for loss in LOSS:
        by_size = [floor_of(loss, pi, classes)[0] for classes in (512, 4096, 50257)]
        assert by_size == sorted(by_size, reverse=True)
        assert by_size[-1] > 0.0001


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    parts=st.lists(st.floats(1e-12, 1), min_size=1, max_size=30),
    more=st.sampled_from([0, 1, 7, 500, 50_000, 10**6]),
    true_weight=st.sampled_from([0.0, 1.0, 65.0, 1e4]),
)
def test_the_floor_rises_with_the_square_term_from_nought_to_no_more_than_log_c(
    parts, more, true_weight
):
    pi, classes = np.array(parts) / np.sum(parts), len(parts) + more + 1
    kl = [optimum.floor(pi, classes, s, true_weight)[0] for s in 10.0 ** np.arange(-12, 7)]
    assert all(0 <= a <= b * (1 + 1e-6) + 1e-15 for a, b in itertools.pairwise(kl))
    assert kl[-1] <= math.log(classes) + 1e-9
    assert kl[0] < 1e-6 * max(1, true_weight)


@pytest.mark.parametrize("digits", range(1, 17))
def test_a_token_that_nearly_always_follows_has_its_floor(digits):
    """As in a large corpus, in which one token may follow another almost always."""
    rare = 10.0**-digits
    for classes, true_weight in itertools.product((3, 50, 2048, 50_257, 10**6), (0.0, 65.0)):
        kl = [
            optimum.floor([[1 - rare, rare]], classes, scale, true_weight)[0]
            for scale in 10.0 ** np.arange(-13, 9)
        ]
        assert all(0 <= a <= b * (1 + 1e-6) + 1e-14 for a, b in itertools.pairwise(kl))
        assert kl[-1] <= math.log(classes) + 1e-9


@pytest.mark.parametrize("scale", [1e-4, 1e-5, 1e-6, 1e-9])
def test_a_small_square_term_costs_in_proportion(scale):
    """Newton's method from f = 0 gave 0.075 nats at 1e-5, and more than log C below that."""
    for pi in optimum.CONTEXTS.values():
        small, smaller = optimum.floor(pi, 512, scale)[0], optimum.floor(pi, 512, scale / 10)[0]
        assert small == pytest.approx(10 * smaller, rel=0.25) or small == 0
        assert small < 10 * scale


def test_a_search_that_has_not_ended_is_an_error(monkeypatch):
    monkeypatch.setattr(optimum, "STEPS", 2)
    said = (
        r"square term of 0\.00195.* with 512 classes, is not found in .* begin with \[0\.5, 0\.5\]"
    )
    with pytest.raises(SquentropyError, match=said):
        optimum.floor(np.full(2, 0.5), 512)


@pytest.mark.parametrize("wrong", [{"scale": -1.0}, {"true_weight": -1.0}, {"scale": math.nan}])
def test_a_loss_without_a_minimum_has_no_floor(wrong):
    with pytest.raises(SquentropyError, match="no optimum"):
        optimum.floor(np.full(2, 0.5), 512, **wrong)


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
        assert [next(iter(each)) for each in following] == tokens
        own = sum(math.log(each[token]) for token, each in zip(tokens, following))
        assert own == pytest.approx(story.log_prob, abs=1e-9)
        sums = [math.fsum(each.values()) for each in following]
        assert sums == pytest.approx([1] * len(tokens))


SMALL = {
    "drawn without replacement": "{a=girls} met {b=girls but a}[?.25 ,|5 * ;].",
    "two derivations of one text": "{a=girls} saw {b=girls but a}. [{a.He}|{b.He}|Nobody] ran.",
    "a word that goes on": "{a=girls} [play|playground|play in the play|player]s[|? |!].",
    "apostrophes": "{a=girls}[|'s dog|'ll go|'l|''] [didn't|isn't|'t is].",
    "spaces": "{a=girls}[.\nOne|.\n\nTwo|,  three|, \n 4]\nfive[six| 7 8].",
}


@pytest.mark.parametrize("plot", SMALL)
@pytest.mark.parametrize("merges", [0, 3, 8])
def test_predictions_are_those_of_counting_out_every_text(plot, merges, tmp_path):
    words = {"lexicon": {"girls": {"he": "she", "words": "Ann, Eve, Annie"}}}
    for name, data in (("words", words), ("plot", {"plot": SMALL[plot]})):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(data))
    grammar = load_grammar(tmp_path)
    texts = {story.text for story in grammar.stories(0, 0, 3000)}
    encoding = train_encoding([*texts] * 9, 257 + merges)
    counted = defaultdict(Counter)  # tokens so far: probability of each next token
    for text in texts:
        ids = (*encoding.encode_ordinary(text), encoding.eot_token)
        for place, token in enumerate(ids):
            counted[ids[:place]][token] += math.exp(parse(text, grammar).log_prob)
    assert counted[()].total() == pytest.approx(1)
    for text in texts:
        ids = (*encoding.encode_ordinary(text), encoding.eot_token)
        for place, found in enumerate(predict(ids, grammar, encoding)):
            of = counted[ids[:place]]
            assert found == pytest.approx({token: p / of.total() for token, p in of.items()})


def test_a_storys_first_tokens_come_as_often_as_predicted(encoding):
    many = 4000
    firsts = [encoding.encode_ordinary(s.text)[:3] for s in load_grammar().stories(7, 0, many)]
    for start, group in itertools.groupby(sorted(firsts)):
        n = len(list(group))
        if n > 100:
            predicted = predict(start, load_grammar(), encoding)
            p = math.prod(next(iter(each.values())) for each in predicted)
            assert n / many == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / many))


def test_what_the_grammar_cannot_write_is_refused(stories, encoding):
    tokens = encoding.encode_ordinary(stories[0].text + " Then it rained frogs.")
    with pytest.raises(SquentropyError, match="none of the grammar's"):
        list(predict(tokens, load_grammar(), encoding))


# --- the table ----------------------------------------------------------------------------------


def test_every_bigram_is_counted_as_it_stands(tokens):
    train = tokens.split("train")
    found = contexts.bigram_contexts(train, tokens.vocab_size)
    seen = np.unique(train.ids[:-1])
    assert found.times.sum() == len(train.ids) - 1
    for context, pi, times in zip(
        seen, np.split(found.pi, found.starts[1:]), found.times, strict=True
    ):
        after = train.ids[1:][train.ids[:-1] == context]
        counts = np.unique(after, return_counts=True)[1]
        assert times == len(after)
        assert pi == pytest.approx(counts / counts.sum())


def test_counting_in_chunks_changes_nothing(tokens, monkeypatch):
    whole = contexts.bigram_contexts(tokens.split("train"), tokens.vocab_size)
    monkeypatch.setattr(contexts, "CHUNK", 7)
    chunked = contexts.bigram_contexts(tokens.split("train"), tokens.vocab_size)
    for name in ("pi", "starts", "times"):
        assert (getattr(whole, name) == getattr(chunked, name)).all()


@pytest.mark.parametrize("weights", [[1e-5, 1e-8, 1e-12]])
def test_a_small_weight_has_its_place_between_no_weight_and_a_larger_one(
    data, grammar_data, tiny_study, weights
):
    for folder in (data, grammar_data):
        table = table_of(tiny_study(theory={"weights": [*weights, 1e-4]}), folder)
        for _, rows in table[table["weight"] < 1e-3].groupby(["contexts", "classes"]):
            rows = rows.sort_values("weight")
            assert list(rows["weight"]) == sorted([*weights, 1e-4])
            for column in ("kl", "kl_10", "kl_50", "kl_90"):
                assert (rows[column] >= 0).all()
                assert rows[column].is_monotonic_increasing
            assert (rows["kl"] <= 20 * rows["weight"]).all()
            assert (rows["kl"] > 0).all()


def table_of(study, data) -> pd.DataFrame:
    return pd.DataFrame(contexts.theory_rows(study, data), columns=contexts.THEORY)


def test_the_table_of_a_natural_corpus_has_bigrams_alone(data, tiny_study):
    table = table_of(tiny_study(), data)
    assert set(table["contexts"]) == {"bigram"}
    assert sorted(set(table["classes"])) == [300, 1024, 4096, 16384, 65536, 262144]
    assert table[["kl_low", "kl_high"]].isna().all(axis=None)  # it is exact
    assert (table["kl_10"] <= table["kl_90"]).all()
    assert table["entropy"].nunique() == 1


def test_bigrams_weigh_what_their_contexts_frequency_says(data, tokens, tiny_study):
    row = table_of(tiny_study(), data).iloc[0]
    ids = tokens.split("train").ids
    pairs = pd.DataFrame({"context": ids[:-1], "next": ids[1:]})
    entropy, kl, values = 0.0, 0.0, []
    for _, group in pairs.groupby("context"):
        pi = group["next"].value_counts(normalize=True).to_numpy()
        entropy -= (pi * np.log(pi)).sum() * len(group) / len(pairs)
        one = optimum.floor(pi, 300)[0]
        kl += one * len(group) / len(pairs)
        values += [one] * len(group)
    assert row["entropy"] == pytest.approx(entropy)
    assert row["kl"] == pytest.approx(kl)
    assert (row["n"], row["loss"]) == (pairs["context"].nunique(), "squentropy")
    for q in (10, 50, 90):
        expected = np.quantile(values, q / 100, method="inverted_cdf")
        assert row[f"kl_{q}"] == pytest.approx(expected)


def test_the_table_has_the_weights_and_the_studys_own_losses_once_each(data, tiny_study):
    losses = ["cross_entropy", "squentropy(0.1)", "squentropy_weighted(2.65)", "squentropy(-1)"]
    study = tiny_study(sweep={"losses": losses}, theory={"weights": [1.0, 0.1, 0.01]})
    table = table_of(study, data)
    own = table[table["classes"] == 300].set_index("loss")
    assert own["weight"].to_dict() == {
        "squentropy": 1.0,
        "squentropy(0.1)": 0.1,
        "squentropy(0.01)": 0.01,
        "squentropy_weighted(2.65)": 1.0,
    }
    kl = own["kl"]
    assert kl["squentropy"] > kl["squentropy(0.1)"] > kl["squentropy(0.01)"] > 0
    pi = contexts.bigram_contexts(TokenFolder.open(data / "tokens").split("train"), 300)
    expected = pi.mean(optimum.ragged_floor(pi.pi, pi.starts, 300, 1.0, 2.65, 0))
    assert kl["squentropy_weighted(2.65)"] == pytest.approx(expected)


def test_the_grammars_table_knows_the_whole_story_too(grammar_data, tiny_study):
    table = table_of(tiny_study(), grammar_data)
    whole = table[table["contexts"] == "whole"]
    test = TokenFolder.open(grammar_data / "tokens").split("test")
    assert set(whole["n"]) == {len(test.ids)}
    source = describe_corpus(grammar_data, story_entropy(grammar_data))
    expected = pytest.approx(source["source_nll"], abs=4 * source["source_nll_se"])
    assert whole["entropy"].iloc[0] == expected
    bigram = table[table["contexts"] == "bigram"]
    assert (whole["entropy"].iloc[0] < bigram["entropy"]).all()
    found = contexts.whole_contexts(TokenFolder.open(grammar_data / "tokens"))
    kl = optimum.ragged_floor(found.pi, found.starts, 300)[found.place]
    row = whole[whole["loss"] == "squentropy"].iloc[0]
    assert (found.lengths.sum(), row["kl"]) == (len(kl), pytest.approx(kl.mean()))
    assert (whole["kl_low"] < whole["kl"]).all()
    assert (whole["kl"] < whole["kl_high"]).all()


@pytest.mark.parametrize(("own", "classes"), [(512, 512), (4096, 4096), (50257, 50257)])
def test_vocabularies_begin_with_the_corpus_own(own, classes):
    sizes = contexts.vocabularies(own)
    assert sizes[0] == classes
    assert sizes == sorted(set(sizes))
    assert sizes[-1] == contexts.LARGEST
