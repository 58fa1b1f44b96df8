"""A parameter file means what it seems to mean, or is refused in one line.

pytest tests/study/test_yaml_file.py
"""

import contextlib
import itertools
import os
import random
import re
import time
from pathlib import Path

import pytest
import ruamel.yaml
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from squentropy.base.errors import ParameterError
from squentropy.study import find, params
from squentropy.study.overlays import overlay
from squentropy.study.yaml_file import MOST_BYTES, read

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = [ROOT / "params.yaml", *sorted(ROOT.glob("studies/[!d]*.yaml"))]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("study: a\nsweep: {}\nsweep: {}\n", "line 3: the key 'sweep' is also in line 2"),
        ("sweep:\n  lr: [1]\n  seed: 1\n  lr: [2]\n", "line 4: the key 'lr' is also in"),
        ("a: [{b: 1, b: 2}]\n", "line 1: the key 'b' is also in line 1"),
        ("final:\n  seeds: [1, 0150]\n", "line 2: YAML reads 0150 as 104; write that, or text"),
        ("a: 1:30\n", "line 1: YAML reads 1:30 as 90;"),
        ("a: 010\n", "line 1: YAML reads 010 as 8;"),
        ("a: 0x1F\n", "line 1: YAML reads 0x1F as 31;"),
        ("a: 0b101\n", "line 1: YAML reads 0b101 as 5;"),
        ("a: 1_000\n", "line 1: YAML reads 1_000 as 1000;"),
        ("a: 1:30.5\n", "line 1: YAML reads 1:30.5 as 90.5;"),
        ("a: [\n", "is not YAML: "),
        ("a: 2020-13-45\n", "is not YAML: "),
        ("- a\n", "has no keys"),
        ("", "has no keys"),
    ],
)
def test_what_seems_to_say_something_else_is_refused_with_its_line(tmp_path, text, said):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ParameterError) as error:
        read(path)
    assert str(error.value).startswith(str(path))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'0150'", "0150"),
        ('"1:30"', "1:30"),
        ("0", 0),
        ("0.0001", 0.0001),
        ("-3", -3),
        ("a_b", "a_b"),
        ("squentropy(0.1)", "squentropy(0.1)"),
        ("my_losses.py:smooth", "my_losses.py:smooth"),
        ("s3://bucket", "s3://bucket"),
    ],
)
def test_what_says_what_it_means_is_read(tmp_path, text, value):
    path = tmp_path / "mine.yaml"
    path.write_text(f"key: {text}\n")
    assert read(path) == {"key": value}


@pytest.mark.parametrize("path", SHIPPED)
def test_the_shipped_studies_read_alike_by_every_reader(path):
    values = read(path)
    assert values == yaml.safe_load(path.read_text(encoding="utf-8"))
    assert values == ruamel.yaml.YAML(typ="safe").load(path.read_text(encoding="utf-8"))


@settings(max_examples=300, deadline=None, derandomize=True)
@given(text=st.from_regex(r"[-+]?[0-9][0-9_:.xob]{0,5}", fullmatch=True))
def test_a_number_is_what_a_reader_takes_it_for_or_is_refused(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("yaml") / "a.yaml"
    path.write_text(f"key: {text}\n")
    try:
        value = read(path)["key"]
    except ParameterError:
        return
    if isinstance(value, int | float):
        assert value == float(text)


def test_a_file_of_any_size_is_refused_at_once(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("a: " + "x" * MOST_BYTES)
    with pytest.raises(ParameterError, match="too long for parameters"):
        read(path)


# --- aliases ------------------------------------------------------------------------------------

BOMB = "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in itertools.pairwise("abcdefghij")
)
MERGES = "".join(
    f"{b}: &{b}\n  <<: [{', '.join([f'*{a}'] * 10)}]\n" for a, b in itertools.pairwise("abcdefghij")
)


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\n" + BOMB,
        "a: &a {x: 1}\n" + MERGES,
        f"a: &a {'x' * 5000}\nb: [{', '.join(['*a'] * 50)}]\n",
        "a: &a [*a]\n",
        "a: &a {b: *a}\n",
    ],
    ids=["lists", "merges", "text", "circle", "circle of keys"],
)
def test_a_few_lines_that_stand_for_more_than_memory_holds_are_refused_at_once(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ParameterError, match=r"bytes with its aliases \(\*name\) expanded"):
        read(path)


def test_an_alias_that_stands_for_little_is_read(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("a: &a {x: 1, y: [2]}\nb: *a\nc:\n  <<: *a\n  x: 3\n")
    assert read(path) == {"a": {"x": 1, "y": [2]}, "b": {"x": 1, "y": [2]}, "c": {"x": 3, "y": [2]}}


def test_an_error_shows_the_beginning_of_a_value_however_long_it_would_be():
    """Snakemake reads its configuration itself and may pass on any value."""
    values = read(ROOT / "params.yaml")
    bomb: list = ["x"]
    for _ in range(40):
        bomb = [bomb] * 10
    for value, said in ((bomb, " = .{57}..."), (["x" * 10**7], " = .{57}..."), ({"a": bomb}, "")):
        with pytest.raises(ParameterError, match=rf"^parameters: corpus\.source{said}: is not"):
            params.parse(values | {"corpus": values["corpus"] | {"source": value}})


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_plain_file_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "mine.yaml"
    os.mkfifo(path) if kind == "pipe" else path.symlink_to("/dev/zero")
    for reader in (read, lambda path: find.find(path)):
        with pytest.raises(ParameterError, match=rf"mine\.yaml: is a {kind}, not a file"):
            reader(path)


# --- mutations ----------------------------------------------------------------------------------

HOSTILE = [
    "", "~", "[]", "{}", "[[]]", "- a", "*a", "&a", "!!int x", "!!python/object:os.system", "<<",
    "0150", "1:30", "0x1F", "1_000", "1e-3", ".nan", "-.inf", "9" * 5000, "2020-13-45", "yes",
    "null", '"', "'", "|", ">-", "%YAML 1.1", "---", "...", "# no", "? a", ": ", "\t", "\\",
    "{{x}}", "[" * 99, "\x00", "\x1b", "\x85", "\u2028", "\ufeff", "\U0001f333", "x" * 500,
]  # fmt: skip


def mutated(text: str, draw: random.Random) -> str:
    """A parameter file with one change: a key or section repeated, moved, cut or replaced."""
    lines = text.splitlines(keepends=True)
    at, to = draw.randrange(len(lines)), draw.randrange(len(lines))
    line = lines[at]
    starts = [i for i, each in enumerate(lines) if re.match(r"\w+:", each)] + [len(lines)]
    section = draw.randrange(len(starts) - 1)
    block = lines[starts[section] : starts[section + 1]]
    match draw.randrange(9):
        case 0:
            lines.insert(to, line)
        case 1:
            lines[starts[section] : starts[section]] = block
        case 2:
            lines[to:to] = block
        case 3:
            del lines[at]
        case 4:
            lines[at] = re.sub(r":.*", lambda _: f": {draw.choice(HOSTILE)}", line, count=1)
        case 5:
            place = draw.randrange(len(line))
            lines[at] = line[:place] + draw.choice(HOSTILE) + line[place:]
        case 6:
            lines[at] = " " * draw.randrange(5) + line.lstrip(" ")
        case 7:
            return text[: draw.randrange(len(text))]
        case 8:
            place = draw.randrange(len(text))
            return text[:place] + draw.choice("\n :#[]{}&*!|>'\"%@`,-?0") + text[place + 1 :]
    return "".join(lines)


def plain(value: object) -> object:
    """A value without the differences between YAML versions.

    1e-3, for example as the name of a split, is text or a number; yes is a boolean or text.
    """
    if isinstance(value, dict):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    words = {"yes": True, "on": True, "no": False, "off": False}
    if isinstance(value, str) and re.fullmatch(r"[-+.\d]+(e[-+\d]+)?", value, re.IGNORECASE):
        with contextlib.suppress(ValueError):
            return float(value)
    return words.get(value.lower(), value) if isinstance(value, str) else value


@pytest.mark.parametrize("mark", ["\x85", "\u2028", "\u2029"])
def test_a_line_end_that_looks_like_none_is_refused_and_may_be_written_out(tmp_path, mark):
    path = tmp_path / "mine.yaml"
    path.write_text(f"study: mine\nsample: {{prompts: [a{mark}b]}}\n", encoding="utf-8")
    expected = f"mine.yaml, line 2: contains the invisible line break U\\+{ord(mark):04X};"
    with pytest.raises(ParameterError, match=expected):
        read(path)
    path.write_text(f'sample: {{prompts: ["a\\u{ord(mark):04x}b"]}}\n', encoding="utf-8")
    assert read(path) == {"sample": {"prompts": [f"a{mark}b"]}}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
@pytest.mark.parametrize("tries", [100, pytest.param(2000, marks=pytest.mark.slow)])
def test_a_study_changed_at_random_is_refused_in_a_line_or_says_what_it_seems_to(
    tmp_path, path, tries
):
    text, draw = path.read_text(encoding="utf-8"), random.Random(path.name)
    base, changed, refused = read(ROOT / "params.yaml"), tmp_path / "mine.yaml", 0
    for _ in range(tries):
        said = mutated(text, draw)
        changed.write_bytes(said.encode())
        began, complaint = time.process_time(), None
        try:
            values = read(changed)
            params.parse(overlay(base, values))
        except ParameterError as error:
            complaint = str(error)
        assert time.process_time() - began < 2, said
        if complaint is None:
            assert plain(values) == plain(ruamel.yaml.YAML(typ="safe").load(said)), said
        else:
            assert complaint.isprintable(), said
            refused += 1
    assert 0 < refused < tries
