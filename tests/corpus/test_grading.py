"""Stories of the grammar get full grades, and each kind of error lowers the right grade.

pytest tests/corpus/test_grading.py
"""

import itertools
import json
import math
import os
import random
import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squentropy.cli import app
from squentropy.corpus.grammar import grading, parser
from squentropy.corpus.grammar.grading import grade
from squentropy.corpus.grammar.grammar import load_grammar

SEED = 31


@pytest.fixture(scope="module")
def texts():
    return [story.text for story in load_grammar().stories(SEED, 0, 1_000)]


def sentences(text: str) -> list[str]:
    return [text[begin:end] for begin, end in grading._grader(load_grammar())._sentences(text)]


def in_form(sentence: str) -> bool:
    """Whether a text is a single sentence in form."""
    found = grade(sentence)
    return (found.sentences, found.in_form) == (1, 1)


def test_stories_of_the_grammar_have_full_grades(texts):
    for text in texts:
        found = grade(text)
        assert found.valid, text
        assert (found.form, found.agreement, found.sentences_in_form) == (True, 1, 1), text
        assert found.references >= 3
        assert found.sentences >= 5


def test_what_was_added_up_is_the_whole_text(texts):
    for text in texts[:200]:
        assert "".join("".join(sentences(text)).split()) == "".join(text.split())


# Each error lowers the right grade.

STORY = (
    "Once upon a time, there was a little girl named Anna. Anna loved to play outside. At the zoo, "
    "Anna got an apple seed.\n"
    "She put the seed in the ground behind the house. Each day, Anna looked for the apple tree. "
    "But nothing came up.\n"
    'Then Mr. Fields came by with a watering can. "Were you big in one day?" he asked. "No," said '
    'Anna. Mr. Fields said, "Then wait for your apple tree too." She waited and learned about '
    "reading in the meantime. On the way, she saw a rabbit and waved.\n"
    'Then, one cloudy morning, there was a tiny green leaf! "Look, my apple tree!" she said. By '
    "summer, the apple tree was strong and straight. She gave a part of it to Mr. Fields. And Anna "
    "kept one seed of the apple tree for the next year."
)
N, REFERENCES = 17, 19


def test_the_story_below_is_the_grammars():
    assert grade(STORY) == (True, True, N, N, REFERENCES, REFERENCES)


@pytest.mark.parametrize(
    ("right", "wrong", "misfits"),
    [
        ("And Anna kept", "And Tim kept", 1),  # another name
        ("She gave", "He gave", 1),  # another character's pronoun
        ("she saw", "he saw", 1),
        ("Mr. Fields said", "Mrs. Green said", 1),
        ("the apple tree was strong and straight", "the tulip was strong and straight", 1),
        ("the apple tree was strong and straight", "the tulip was bright as a lamp", 2),
        ("She put", "Ben put", 1),
    ],
)
def test_a_reference_that_does_not_fit_costs_agreement_alone(right, wrong, misfits):
    assert STORY.count(right) == 1
    assert grade(STORY.replace(right, wrong)) == (
        False, True, N, N, REFERENCES, REFERENCES - misfits
    )  # fmt: skip


def test_the_reading_with_the_fewest_misfits_counts():
    """If another girl replaces Anna from the second sentence on, only the names misfit."""
    head, rest = STORY.split(" Anna loved", 1)
    swapped = grade(f"{head} Lily loved{rest.replace('Anna', 'Lily')}")
    assert swapped.form
    assert swapped.references - swapped.matches == STORY.count("Anna") - 1
    # With a boy, the pronouns misfit too.
    boy = rest.replace("Anna", "Tim").replace("She", "He").replace("she", "he")
    found = grade(f"{head} Tim loved{boy}")
    assert found.form
    assert found.references - found.matches == (STORY + " ").count("Anna") - 1 + 5


def test_two_of_one_name_do_not_agree():
    text = 'Leo and {} were best friends. They wanted to have a picnic at the park. Leo said, "No."'
    assert grade(text.format("Tim")).agreement == 1
    assert grade(text.format("Leo")).agreement < 1


@pytest.mark.parametrize("where", range(N))
def test_a_garbled_sentence_costs_form_and_itself(where):
    broken = sentences(STORY)[where]
    found = grade(STORY.replace(broken, re.sub(r"\b[a-z]+\b", "gugu", broken, count=1)))
    assert not found.form
    assert found.sentences_in_form == pytest.approx(1 - 1 / N)
    assert found.agreement == 1  # over what can still be read
    assert found.references > REFERENCES / 2 or where == 0  # sentence 0 introduces Anna


def test_what_follows_a_sentence_that_was_left_out_is_read_again():
    """If a sentence in the middle is skipped, the references before and after it still count."""
    broken = sentences(STORY)[7]
    assert broken.startswith('"Were you big')
    found = grade(STORY.replace("Were you big in one day", "Was you big on day"))
    assert REFERENCES - found.references == 1  # the "he" in that sentence
    wrong = grade(STORY.replace("Were you", "Was you").replace("And Anna kept", "And Tim kept"))
    assert (wrong.references, wrong.matches) == (found.references, found.references - 1)


def test_sentences_in_another_order_are_in_form_but_no_story(texts):
    for text in texts[:50]:
        *others, last = sentences(text)
        found = grade(" ".join([last, *others]))
        assert not found.form
        assert found.sentences_in_form == 1


def test_truncated_and_shuffled_sentences_are_not_in_form(texts):
    luck = random.Random(0)
    for text in texts[:100]:
        for sentence in sentences(text):
            words = sentence.split()
            assert not in_form(" ".join(words[:-1])), sentence
            assert not in_form(" ".join(words[:-1]) + "."), sentence
            shuffled = luck.sample(words, len(words))
            if len(words) > 3 and shuffled != words:
                assert not in_form(" ".join(shuffled)), shuffled


def test_words_that_are_missing_are_missed(texts):
    """Only a few words, such as some adjectives and adverbs, are optional."""
    luck, kept, tries = random.Random(0), 0, 0
    for text in texts[:200]:
        for sentence in sentences(text):
            words = sentence.split()
            del words[luck.randrange(len(words))]
            kept += grade(" ".join(words)).in_form
            tries += 1
    assert kept / tries < 0.01


def test_a_story_cut_short_is_not_in_form(texts):
    for text in texts[:50]:
        for end in range(1, len(text), 61):
            found = grade(text[:end])
            assert not found.form
            assert found.in_form >= found.sentences - 3  # an open quotation can contain three


def test_nothing_is_told_about_a_text_without_sentences_or_references():
    empty = grade("")
    assert (empty.form, empty.valid) == (False, False)
    assert math.isnan(empty.agreement)
    assert math.isnan(empty.sentences_in_form)
    salad = grade("tree the Lily of And. green.\nbench under")
    assert (salad.sentences, salad.in_form, salad.references) == (3, 0, 0)


def test_the_command_counts_what_was_graded(tmp_path, capsys):
    stories = [STORY, STORY.replace("And Anna kept", "And Tim kept"), "Tree the. " + STORY]
    (tmp_path / "stories.txt").write_text("<|endoftext|>".join(stories))
    with pytest.raises(SystemExit) as end:
        app.main(["check", str(tmp_path / "stories.txt")])
    *reasons, last = capsys.readouterr().out.splitlines()
    assert (end.value.code, len(reasons)) == (1, 2)
    assert last == (
        "1 of 3 stories follow the grammar; in form: 2 stories, 51 of 52 sentences; "
        "56 of 57 references agree"
    )


# Sentence boundaries.


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('"Really?" Lily wondered. Tim sat.', ['"Really?" Lily wondered.', "Tim sat."]),
        ('"I have an idea. Look," he said.', ['"I have an idea. Look," he said.']),
        ('Tim said, "Yes." He ran.', ['Tim said, "Yes."', "He ran."]),
        ('Tim said, "It is. Or not?" He ran.', ['Tim said, "It is. Or not?"', "He ran."]),
        ("They met Mrs. Green. She smiled.", ["They met Mrs. Green.", "She smiled."]),
        ("Bang! The cup broke.\nTim ran", ["Bang!", "The cup broke.", "Tim ran"]),
        (
            'Tim said, "Yes. He ran. "No," he said.',
            ['Tim said, "Yes.', "He ran.", '"No," he said.'],
        ),
        ('Tim ran." He sat.', ['Tim ran."', "He sat."]),
        ("  No mark  \n\n So. ", ["No mark  ", "So."]),
    ],
)
def test_a_sentence_ends_where_a_reader_would_say(text, parts):
    assert sentences(text) == parts


def test_who_says_a_quotation_is_no_sentence_of_its_own():
    assert in_form('"Really?" Lily wondered.')
    assert not in_form("Lily wondered.")
    assert not in_form('"Really?"')
    assert not in_form("We will pretend to be lions.")  # only within a quotation


def test_any_name_and_pronoun_may_stand_in_a_sentence_but_not_any_word():
    assert in_form("Leo stood up tall.")
    assert in_form("Bella stood up tall.")
    assert not in_form("Her stood up tall.")
    assert not in_form("Mrs. Green stood up tall.")  # neighbors are never heroes
    assert not in_form("Park stood up tall.")


# In general.


def damaged(text: str, luck: random.Random) -> str:
    """A text with up to two random changes, each of which may or may not be an error."""
    names = ["Lily", "Tim", "Sue", "Ben"]
    pairs = [("She", "He"), ("her", "his"), ("he", "she"), ("ball", "kite"), ("park", "zoo"),
             ("Mom", "Dad"), ("very", "so"), ("a", "an"), ("was", "were"), (".", "!")]  # fmt: skip
    for _ in range(luck.randrange(3)):
        kind = luck.randrange(5)
        spots = [match.span() for match in re.finditer(r"\w+|[^\w\s]", text)]
        begin, end = luck.choice(spots)
        if kind == 0:
            present = [m.span() for m in re.finditer(r"\b[A-Z][a-z]+\b", text)]
            begin, end = luck.choice(present)
            text = text[:begin] + luck.choice(names) + text[end:]
        elif kind == 1:
            one, other = luck.choice(pairs)
            found = [m.span() for m in re.finditer(rf"(?<!\w){re.escape(one)}(?!\w)", text)]
            if found:
                begin, end = luck.choice(found)
                text = text[:begin] + other + text[end:]
        elif kind == 2:
            text = text[:begin] + text[end:]
        elif kind == 3:
            parts = sentences(text)
            text = text.replace(luck.choice(parts), luck.choice(parts), 1)
        else:
            text = text[:end]
            if not text:
                return "."
    return text


@given(st.integers(0, 10**6))
@settings(max_examples=300, deadline=None)
def test_a_valid_text_is_one_in_form_whose_references_agree(seed):
    text = damaged(load_grammar().story(SEED + 1, seed).text, random.Random(seed))
    found = grade(text)
    assert found.valid == parser.check(text).valid == (found.form and found.agreement == 1), text
    assert 0 <= found.matches <= found.references
    assert 0 <= found.in_form <= found.sentences
    if found.form:
        assert found.sentences_in_form == 1, text


def test_on_a_small_grammar_form_and_agreement_are_those_of_all_its_texts(tmp_path):
    """Compares every text that free references allow with the best of all its bindings."""
    (tmp_path / "words.yaml").write_text(
        "lexicon: {girls: {he: she, words: 'Ann, Eve'}, boys: {he: he, words: 'Bob'}}"
    )
    (tmp_path / "plot.yaml").write_text(
        "plot: '[{a=girls}|{a=boys}] met {b=girls but a}. [{a.He}|{b.He}|Nobody] smiled "
        "[?.5 at {b}].'"
    )
    small = load_grammar(tmp_path)
    everyone, pronoun = ("Ann", "Eve", "Bob"), {"Ann": "She", "Eve": "She", "Bob": "He"}
    count = 0
    for a, b, he, at in itertools.product(
        everyone, ("Ann", "Eve"), ("She", "He", "Nobody"), ("", *everyone)
    ):
        text = f"{a} met {b}. {he} smiled{at and f' at {at}'}."
        found = grade(text, small)
        assert found.form == (at != "Bob")  # b is a girl
        assert found.sentences_in_form == (1 if found.form else 0.5)
        assert found.valid == parser.check(text, small).valid
        if found.form:
            fits = [a != b]
            if he != "Nobody":
                fits.append(he in (pronoun[a], pronoun[b]))
            if at:
                fits.append(at == b)
            assert (found.references, found.matches) == (len(fits), sum(fits)), text
            count += 1
    assert count == 54


def test_another_process_gives_the_same_grades(texts):
    damages = [damaged(text, random.Random(i)) for i, text in enumerate(texts[:60])]
    code = (
        "import sys, json; from squentropy.corpus.grammar.grading import grade; "
        "print(json.dumps([grade(text) for text in json.load(sys.stdin)]))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code], input=json.dumps(damages), text=True, env=environment,
        capture_output=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == [list(grade(text)) for text in damages]
