"""The story grammar: exact probabilities, well-formed stories, and a checker that finds errors.

pytest tests/corpus/test_grammar.py              # about ten seconds
pytest tests/corpus/test_grammar.py -m slow      # the same over 10,000 stories
"""

import math
import os
import re
import subprocess
import sys
from collections import Counter
from random import Random

import pytest

from squentropy.corpus.grammar import parser
from squentropy.corpus.grammar.grammar import WORD, GrammarError, load_grammar

SEED = 20
SAMPLE = 2_000


@pytest.fixture(scope="module")
def grammar():
    return load_grammar()


@pytest.fixture(scope="module")
def sample(grammar):
    return list(grammar.stories(SEED, 0, SAMPLE))


@pytest.fixture(scope="module")
def texts(sample):
    return [story.text for story in sample]


@pytest.fixture(scope="module")
def derivations(texts):
    return [parser.parse(text) for text in texts]


def write(folder, **files):
    """Write a small grammar: each keyword names a YAML file and gives its content."""
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(content, encoding="utf-8")
    return folder


# Probabilities.


def test_parser_recovers_the_only_derivation_and_its_log_prob(sample, derivations):
    for story, derivation in zip(sample, derivations, strict=True):
        assert derivation.derivations == 1, story.text
        assert abs(derivation.log_prob - story.log_prob) < 1e-9


@pytest.mark.slow
def test_parser_recovers_ten_thousand_derivations(grammar):
    for story in grammar.stories(SEED, 0, 10_000):
        derivation = parser.parse(story.text)
        assert derivation.derivations == 1, story.text
        assert abs(derivation.log_prob - story.log_prob) < 1e-9


def test_decisions_of_a_derivation_add_up_to_its_log_prob(derivations):
    for derivation in derivations[:100]:
        total = math.fsum(decision.log_prob for decision in derivation.decisions)
        assert abs(total - derivation.log_prob) < 1e-9


def test_probabilities_of_all_texts_sum_to_one_and_match_frequencies(tmp_path):
    """Covers drawing without replacement, options and weights, on a grammar of 18 texts."""
    small = load_grammar(
        write(
            tmp_path,
            words="lexicon: {names: {words: 'Ann, Bob, Cid'}}",
            plot="plot: '{a=names} met {b=names but a}[?.25 ,|5 * ;].'",
        )
    )
    stories = list(small.stories(0, 0, 20_000))
    counts = Counter(story.text for story in stories)
    log_probs = {story.text: story.log_prob for story in stories}
    assert len(counts) == 18
    assert math.fsum(map(math.exp, log_probs.values())) == pytest.approx(1, abs=1e-12)
    for text, log_prob in log_probs.items():
        expected = 20_000 * math.exp(log_prob)
        assert abs(counts[text] - expected) < 5 * math.sqrt(expected) + 1
        assert parser.parse(text, small).log_prob == pytest.approx(log_prob, abs=1e-12)


def test_an_ambiguous_text_is_counted_and_its_derivations_are_summed(tmp_path):
    ambiguous = load_grammar(
        write(
            tmp_path,
            words="lexicon: {girls: {he: she, words: 'Ann, Eve'}}",
            plot="plot: '{a=girls} saw {b=girls but a}. [{a.He}|{b.He}|Nobody] smiled.'",
        )
    )
    derivation = parser.parse("Ann saw Eve. She smiled.", ambiguous)
    assert derivation.derivations == 2
    third, fourth, fifth = 1 / 3, 1 / 4, 1 / 5
    she = (third + fourth) / (third + fourth + fifth)
    assert math.exp(derivation.log_prob) == pytest.approx(third / (third + fourth) * she)


# Reproducibility.


def test_a_story_depends_only_on_seed_and_index(grammar, sample):
    assert list(grammar.stories(SEED, 150, 160)) == sample[150:160]
    assert grammar.story(SEED, 157) == sample[157]
    assert grammar.story(SEED + 1, 157) != sample[157]


def test_another_process_writes_the_same_bytes(texts):
    code = (
        "import sys; from squentropy.corpus.grammar.grammar import load_grammar; "
        f"sys.stdout.buffer.write(load_grammar().story({SEED}, 3).text.encode())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=True
    )
    assert result.stdout.decode() == texts[3]


def test_the_digest_changes_with_the_data(tmp_path, grammar):
    digests = []
    for name in ("Ann", "Bea"):
        folder = tmp_path / name
        folder.mkdir()
        digests.append(load_grammar(write(folder, plot=f"plot: '{name} slept.'")).digest)
    assert len({*digests, grammar.digest}) == 3
    assert re.fullmatch("[0-9a-f]{64}", grammar.digest)


def test_a_negative_index_is_refused(grammar):
    with pytest.raises(ValueError, match="0 or more"):
        grammar.story(SEED, -1)


# The stories.


def test_stories_differ(texts):
    assert len(set(texts)) == len(texts)


def test_stories_have_the_length_of_tiny_stories(texts):
    lengths = [len(text.split()) for text in texts]
    assert min(lengths) >= 60
    assert max(lengths) <= 250
    assert sum(80 <= length <= 160 for length in lengths) > 0.9 * len(lengths)
    assert {text.count("\n") + 1 for text in texts} <= {2, 3, 4, 5}


def test_every_word_is_in_the_lexicon_of_over_a_thousand(grammar, texts):
    vocabulary = grammar.words()
    assert len(vocabulary) >= 1_000
    assert vocabulary == sorted(set(vocabulary))
    seen = {word for text in texts for word in WORD.findall(text.lower())}
    assert seen <= set(vocabulary)


def test_articles_agree_with_the_next_word(texts):
    for text in texts:
        assert not re.search(r"\b[Aa] (?!uni|use|one)[aeiou]", text), text
        assert not re.search(r"\b[Aa]n (?!hour|honest)[^aeiou]", text), text


def test_sentences_are_well_written(texts):
    pronoun = r"(?:She|He|They|Her|His)"
    for text in texts:
        assert text == text.strip()
        assert not re.search(r"[{}\[\]|$¶<>]|  | \n|\n |\n\n| [.,!?;]", text), text
        assert not re.search(r"(?<!Mr)(?<!Mrs)[.!?] [a-z]", text), text
        # A pronoun in the middle of a sentence is lower case: "One day, she …".
        assert not re.search(rf"[a-z], {pronoun}\b", text), text
        for paragraph in text.split("\n"):
            assert paragraph.count('"') % 2 == 0, paragraph
            assert re.match(r'"?[A-Z]', paragraph), paragraph
            assert re.search(r'[.!?]"?$', paragraph), paragraph


def test_an_animal_hero_keeps_one_pronoun(texts, derivations):
    """Its plot has no other character, so no pronoun of the other sex may appear."""
    boys = girls = 0
    for text, derivation in zip(texts, derivations, strict=True):
        if "cub" in derivation.bindings:
            he = re.search(r"\b(he|him|his)\b", text, re.IGNORECASE)
            she = re.search(r"\b(she|her)\b", text, re.IGNORECASE)
            boys, girls = boys + bool(he), girls + bool(she)
            assert not (he and she), text
    assert boys > 0 < girls


def test_the_last_sentences_recall_what_the_story_introduced(texts, derivations):
    """The ending names entities bound before it; most stories recall two or more."""
    recalled = []
    for text, derivation in zip(texts, derivations, strict=True):
        ending = text[-160:]
        recalled.append(sum(value in ending for value in derivation.bindings.values()))
    assert min(recalled) >= 1
    assert sum(n >= 2 for n in recalled) > 0.8 * len(recalled)


def test_plots_are_told_as_often_as_their_weights_say(grammar, derivations):
    plots = Counter(derivation.decisions[0].log_prob for derivation in derivations)
    assert len(grammar.start.alternatives) >= 5
    # Plots of equal weight have the same log p, so they are counted together.
    for log_prob in set(grammar.start.log_probs):
        share = grammar.start.log_probs.count(log_prob) * math.exp(log_prob)
        assert plots[log_prob] / len(derivations) == pytest.approx(share, abs=0.05)


# The checker.


def test_every_story_is_valid(texts):
    for text in texts[:200]:
        assert parser.check(text) == (True, None, None, "a story of the grammar")


def test_a_text_cut_short_has_no_ending(texts):
    random = Random(0)
    for text in texts[:150]:
        sentence_ends = [match.end() for match in re.finditer(r'[.!?]"?(?=\s)', text)]
        for end in (0, len(text) - 1, random.choice(sentence_ends), random.randrange(len(text))):
            verdict = parser.check(text[:end])
            assert (verdict.kind, verdict.offset) == ("no ending", end)


def test_an_unknown_word_is_named_with_its_place(texts):
    offset = texts[0].index(" ") + 1
    end = texts[0].index(" ", offset)
    verdict = parser.check(f"{texts[0][:offset]}quasar{texts[0][end:]}")
    assert (verdict.kind, verdict.offset) == ("unknown word", offset)
    assert "quasar" in verdict.message


@pytest.mark.parametrize(
    ("pattern", "other", "kind"),
    [
        (r"\bShe\b", "He", "broken agreement"),
        (r"\bHe\b", "She", "broken agreement"),
        (r"\ba(?= [a-z])", "an", "broken agreement"),
        (r"\bwas\b", "were", "broken agreement"),
    ],
)
def test_broken_agreement_is_recognised(texts, pattern, other, kind):
    """If the story has another character, the other pronoun may be right, so most must fail."""
    kinds = Counter()
    for text in texts[:150]:
        if match := re.search(pattern, text):
            kinds[parser.check(text[: match.start()] + other + text[match.end() :]).kind] += 1
    assert kinds.total() > 20
    assert kinds[kind] > 0.75 * kinds.total(), kinds


@pytest.mark.parametrize(
    ("variable", "others"),
    [("hero", ("Ivy", "Hugo")), ("toy", ("kite", "doll")), ("friend", ("Ivy", "Hugo"))],
)
def test_another_entity_in_the_ending_is_a_dropped_object(texts, derivations, variable, others):
    kinds = Counter()
    for text, derivation in zip(texts[:300], derivations, strict=False):
        value = derivation.bindings.get(variable)
        place = text.rfind(f" {value} ")
        if value is None or place < len(text) * 0.6:
            continue
        other = next(other for other in others if other not in text[: place + len(value) + 2])
        changed = text[:place] + f" {other} " + text[place + len(value) + 2 :]
        kinds[parser.check(changed).kind] += 1
    assert kinds.total() > 30
    assert kinds["dropped object"] > 0.9 * kinds.total(), kinds


def test_text_after_the_end_is_unexpected(texts):
    assert parser.check(texts[0] + " They slept.").kind == "unexpected"


def test_one_word_swaps_are_mostly_refused(grammar, texts):
    random = Random(0)
    vocabulary = grammar.words()
    accepted = 0
    for text in texts[:300]:
        match = random.choice(list(WORD.finditer(text)))
        word = random.choice([word for word in vocabulary if word != match[0].lower()])
        if match[0][0].isupper():
            word = word[0].upper() + word[1:]
        accepted += parser.check(text[: match.start()] + word + text[match.end() :]).valid
    assert accepted <= 6


def test_parse_raises_what_check_reports(texts):
    with pytest.raises(parser.StoryError) as caught:
        parser.parse(texts[0][:50])
    verdict = parser.check(texts[0][:50])
    assert (caught.value.kind, caught.value.offset) == (verdict.kind, verdict.offset)
    assert verdict.kind in parser.KINDS


# Errors in the data: one line that names the problem, the place and the fix.


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"plot": "plot: '{toyz} flew.'"}, r"plot: unknown symbol 'toyz'.*define it"),
        ({"plot": "plot: '{tell(a)} flew.'"}, r"unknown rule 'tell'"),
        ({"plot": "plot: '[0 * He|She] ran.'"}, r"weight 0 of 'He'; give one above 0"),
        ({"plot": "weight: 0\nplot: 'He ran.'"}, r"weight 0 of the plot"),
        ({"plot": "plot: '[?1.5 He] ran.'"}, r"0 < p < 1"),
        ({"plot": "plot: '[He|He] ran.'"}, r"'He' is listed twice"),
        ({"plot": "plot: '[He ran.'"}, r"not closed"),
        ({"plot": "plot: 'He ran.'\nrulez: {}"}, r"unknown key 'rulez'"),
        (
            {"plot": "plot: 'He ran.'\nrules: {lonely: 'x'}"},
            r"lonely: unreachable from every plot; use it or remove it",
        ),
        (
            {"plot": "plot: '{one}'\nrules: {one: 'a {two}', two: 'b {one}'}"},
            r"refers to itself through one > two",
        ),
        (
            {
                "words": "lexicon: {names: {words: 'Ann, Bob'}}",
                "plot": "plot: '[?.5 {who=names} came.] {who} left.'",
            },
            r"'who' is used before it is bound; draw it first",
        ),
        (
            {
                "words": "lexicon: {names: {words: 'Ann, Bob'}}",
                "plot": "plot: '{who=names} took {who.his} hat.'",
            },
            r"'Ann' of class 'names' has no form 'his'",
        ),
        (
            {"words": "lexicon: {names: {words: 'Ann, Ann'}}", "plot": "plot: '{names}'"},
            r"names: 'Ann' is listed twice",
        ),
        ({"words": "lexicon: {}"}, r"no plot; add"),
        ({"plot": "plot: ["}, r"not YAML"),
    ],
)
def test_wrong_data_are_refused_with_the_place_and_the_fix(tmp_path, files, message):
    with pytest.raises(GrammarError, match=message) as caught:
        load_grammar(write(tmp_path, **files))
    assert "\n" not in str(caught.value)
