"""A loss's name has one spelling, and the catalogue agrees with losses.py.

pytest tests/study/test_catalogue.py
"""

import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from squentropy.losses import LOSSES, own_link
from squentropy.study import catalogue
from squentropy.study.catalogue import label, loss_info, name_of_slug, slug

FUNCTIONS = ("squentropy", "squentropy_weighted", "mse_weighted", "z_loss", "spherical")

SPELLED = {
    "squentropy": "squentropy",
    "squentropy(1)": "squentropy",
    "squentropy(1.0)": "squentropy",
    "squentropy()": "squentropy",
    " squentropy( 0.10 ) ": "squentropy(0.1)",
    "squentropy(1e-1)": "squentropy(0.1)",
    "squentropy(+.1)": "squentropy(0.1)",
    "squentropy(-0)": "squentropy(0)",
    "squentropy_weighted(65)": "squentropy_weighted",
    "squentropy_weighted(2.65)": "squentropy_weighted(2.65)",
    "mse_weighted(1E3)": "mse_weighted(1000)",
    "z_loss(0.0001)": "z_loss",
    "z_loss(1e-5)": "z_loss(0.00001)",
    "z_loss(1.25e-7)": "z_loss(0.000000125)",
    "z_loss(1e-12)": "z_loss(1e-12)",
}


@pytest.mark.parametrize(("text", "name"), SPELLED.items())
def test_a_name_has_one_spelling(text, name):
    assert loss_info(text).name == name
    assert loss_info(name).name == name


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    function=st.sampled_from(FUNCTIONS),
    value=st.floats(allow_nan=False, allow_infinity=False),
)
def test_a_slug_is_a_folders_name_that_gives_the_name_back(function, value):
    name = loss_info(f"{function}({value!r})").name
    assert re.fullmatch(r"[a-z_]+(-[0-9.e+-]+)?", slug(name))
    assert len(slug(name)) < 60
    assert name_of_slug(slug(name)) == name_of_slug(name) == name
    assert list(loss_info(name).arguments.values()) == [value]
    assert catalogue.function_of(slug(name)) == catalogue.function_of(name) == function


def test_different_losses_have_different_slugs_whatever_the_case():
    every = [*LOSSES, *SPELLED]
    slugs = {slug(name).lower() for name in every}
    assert len(slugs) == len({loss_info(name).name for name in every})


@pytest.mark.parametrize("name", LOSSES)
def test_what_is_read_from_the_source_is_what_the_module_holds(name):
    """The catalogue parses the source, because importing torch is too slow for Snakemake."""
    info = loss_info(name)
    assert (info.name, info.function) == (name, name)
    assert info.link == (own_link(name, 1e-6) is not None)
    assert info.label
    assert info.formula
    assert "{" not in info.formula


def test_known_losses_are_those_of_the_module():
    assert catalogue.known_losses() == tuple(LOSSES)


def test_arguments_stand_in_label_and_formula():
    plain, tenth = loss_info("squentropy"), loss_info("squentropy(0.1)")
    assert (label("squentropy"), label("squentropy(0.1)")) == ("squentropy", "squentropy (0.1)")
    assert "+ 1/(<i>C</i>−1) " in plain.formula
    assert tenth.formula == plain.formula.replace("+ 1/", "+ 0.1/")
    assert (tenth.arguments, plain.arguments) == ({"scale": 0.1}, {"scale": 1.0})
    assert label("squentropy_weighted(2.65)") == "weighted squentropy (2.65)"
    assert label("test stories") == "test stories"
    assert label("a_loss_of_old") == "a loss of old"


def test_what_squares_an_error_says_so_itself():
    squared = {name for name in LOSSES if loss_info(name).squared}
    assert squared == {"mse", "mse_weighted", "squentropy", "squentropy_weighted", "brier"}
    squares = {name: loss_info(name).squares for name in LOSSES}
    assert squares.pop("squentropy") == catalogue.Squares(1.0, 0.0, 1)
    assert squares.pop("squentropy_weighted") == catalogue.Squares(1.0, 65.0, 0)
    assert set(squares.values()) == {None}
    assert loss_info("squentropy(0.1)").squares == catalogue.Squares(0.1, 0.0, 1)
    assert loss_info("squentropy_weighted(2.65)").squares == catalogue.Squares(1.0, 2.65, 0)
    assert loss_info("squentropy(-1)").squares is None  # its loss has no minimum


@pytest.fixture
def written(monkeypatch, tmp_path):
    """written(text): makes the catalogue read this text instead of losses.py."""

    def write(text: str) -> None:
        (tmp_path / "losses.py").write_text(text)
        monkeypatch.setattr(catalogue, "__file__", str(tmp_path / "study" / "catalogue.py"))
        for cached in (catalogue._functions, catalogue.known_losses, catalogue.loss_info):
            cached.cache_clear()

    yield write
    monkeypatch.undo()
    for cached in (catalogue._functions, catalogue.known_losses, catalogue.loss_info):
        cached.cache_clear()


def test_a_plain_function_is_known_by_its_name_and_docstring(written):
    written(
        "@loss\ndef my_loss(hidden, weight, targets, power: float, times=2):\n"
        '    """|f| < 1.\n\n    More of it."""\n'
        "@other\ndef no_loss(hidden): ...\ndef helper(): ...\n"
    )
    info = loss_info("my_loss(3)")
    assert catalogue.known_losses() == ("my_loss",)
    assert (info.label, info.formula, info.source) == ("my loss (3)", "|f| &lt; 1.", "")
    assert (info.squared, info.link, info.squares) == (False, False, None)
    assert loss_info("my_loss(3, 4)").arguments == {"power": 3, "times": 4}
    assert loss_info("my_loss(3,2)").name == "my_loss(3)"
    assert slug("my_loss(3, 4)") == "my_loss-3,4"
    assert name_of_slug("my_loss-3,4") == "my_loss(3, 4)"
    for wrong in ("my_loss", "my_loss()", "my_loss(1, 2, 3)"):
        with pytest.raises(ValueError, match=r"write numbers as in my_loss\(power, times\)"):
            loss_info(wrong)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("@loss\ndef f(h, w, t, k=EPS): ...\n", "an argument of f has a default that is not a num"),
        ("@loss\ndef f(h, w, t, k=None): ...\n", "an argument of f has a default that is not a"),
        ("@loss(label=NAME)\ndef f(h, w, t): ...\n", "label of f is not a literal; write one in"),
    ],
)
def test_what_cannot_be_read_from_the_source_is_said(written, text, said):
    written(text)
    with pytest.raises(ValueError, match=re.escape(said)):
        loss_info("f")


def test_the_catalogue_loads_neither_torch_nor_pydantic():
    script = (
        "import sys; from squentropy.study import catalogue; from squentropy.cli import completion;"
        "catalogue.label('squentropy(0.1)');"
        "print({'torch', 'pydantic', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "set()\n", done.stderr
