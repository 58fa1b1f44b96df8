"""A file of parameters says what it seems to say, or is refused in one line.

pytest tests/study/test_yaml_file.py
"""

from pathlib import Path

import pytest
import ruamel.yaml
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from squentropy.errors import ParameterError
from squentropy.study.yaml_file import MOST_BYTES, read

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("study: a\nsweep: {}\nsweep: {}\n", "line 3: the key 'sweep' stands here and in line 2"),
        ("sweep:\n  lr: [1]\n  seed: 1\n  lr: [2]\n", "line 4: the key 'lr' stands here and in"),
        ("a: [{b: 1, b: 2}]\n", "line 1: the key 'b' stands here and in line 1"),
        ("final:\n  seeds: [1, 0150]\n", "line 2: 0150 is 104 to YAML; write that, or text"),
        ("a: 1:30\n", "line 1: 1:30 is 90 to YAML"),
        ("a: 010\n", "line 1: 010 is 8 to YAML"),
        ("a: 0x1F\n", "line 1: 0x1F is 31 to YAML"),
        ("a: 0b101\n", "line 1: 0b101 is 5 to YAML"),
        ("a: 1_000\n", "line 1: 1_000 is 1000 to YAML"),
        ("a: 1:30.5\n", "line 1: 1:30.5 is 90.5 to YAML"),
        ("a: [\n", "is not YAML: "),
        ("a: 2020-13-45\n", "is not YAML: "),
        ("- a\n", "holds no keys"),
        ("", "holds no keys"),
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


@pytest.mark.parametrize("path", [ROOT / "params.yaml", *sorted(ROOT.glob("studies/[!d]*.yaml"))])
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
