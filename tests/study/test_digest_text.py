"""The hashed text of code is the same under every Python and differs if the code differs.

pytest tests/study/test_digest_text.py
"""

import ast

import pytest

from squentropy.study.digests import _text


def text(code: str) -> str:
    return _text(ast.parse(code).body[0])


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (
            "def f(x, *, y=1): return",
            "FunctionDef(args=arguments(args=[arg(arg='x')], kw_defaults=[Constant(value=1)], "
            "kwonlyargs=[arg(arg='y')]), body=[Return()], name='f')",
        ),
        (
            "class C(B): x = {**a, 'é': 1e3}",
            "ClassDef(bases=[Name(id='B')], body=[Assign(targets=[Name(id='x')], value=Dict("
            "keys=[None, Constant(value='\\xe9')], values=[Name(id='a'), Constant(value=1000.0)])"
            ")], name='C')",
        ),
        (
            """f"a{{" f'b{x["y"]!r:>{w}}' f'{z=}'""",
            "Expr(value=JoinedStr(values=[Constant(value='a{b'), FormattedValue(conversion=114, "
            "format_spec=JoinedStr(values=[Constant(value='>'), FormattedValue(conversion=-1, "
            "value=Name(id='w'))]), value=Subscript(slice=Constant(value='y'), value=Name(id='x')))"
            ", Constant(value='z='), FormattedValue(conversion=114, value=Name(id='z'))]))",
        ),
    ],
)
def test_the_text_of_code_is_this_under_every_python(code, expected):
    """CI runs this with every supported Python."""
    assert text(code) == expected


def test_a_field_that_only_newer_pythons_have_does_not_count_while_it_is_empty():
    old = ast.parse("def f(): pass").body[0]
    fields = {"_fields": (*old._fields, "type_params", "default_value")}
    newer = type("FunctionDef", (ast.FunctionDef,), fields)
    given = {name: getattr(old, name) for name in old._fields}
    empty = {"type_params": [], "default_value": None}
    assert _text(newer(**{**given, **empty})) == _text(old)
    assert _text(newer(**{**given, **empty, "type_params": [ast.Name("T")]})) != _text(old)


@pytest.mark.parametrize(
    "parts",
    [
        ["ab", None, "c"],
        ["a", "b", None, "c"],
        ["", "ab", None, "", "c", ""],
        ["ab", "", None, "c"],
    ],
)
def test_how_an_f_string_is_split_does_not_count(parts):
    [value] = ast.parse("f'{x}'").body[0].value.values
    split = [value if part is None else ast.Constant(part) for part in parts]
    assert _text(ast.Expr(ast.JoinedStr(split))) == text("f'ab{x}c'")


@pytest.mark.parametrize(
    "codes",
    [
        ("1", "1.0", "True", "'1'", "b'1'", "x1", "1j", "-1"),
        ("None", "'None'", "...", "()", "[]", "{}", "''", "b''"),
        ("return", "return None", "return ()"),
        ("{None: a}", "{**a}", "{a: None}", "{'None': a}"),
        ("f'{x}y'", "f'x{y}'", "f'xy'", "'xy'", "f'y{x}'", "f'{x}{y}'", "f'{x!r}y'", "f'{x:y}'"),
        ("f(a, b)", "f((a, b))", "f(a)(b)", "f(a, b=b)", "f(a, *b)", "f(a, **b)"),
        ("def f(*, a, b=1): 0", "def f(*, a=1, b): 0", "def f(a, b=1): 0", "def f(a, /, b=1): 0"),
        ("a[1:]", "a[:1]", "a[::1]", "a[1]", "a[1,]"),
    ],
)
def test_other_code_is_another_text(codes):
    assert len({text(code) for code in codes}) == len(codes)


def test_the_u_of_a_string_does_not_count():
    assert text("u'x'") == text("'x'")
