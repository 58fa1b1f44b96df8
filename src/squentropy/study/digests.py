"""Digests of the code that a result depends on; Snakemake and the runs record them.

A step depends on its entry module and on everything that it imports, directly or not, except
`PLUMBING`. Comments, layout, docstrings and annotations do not count. In losses.py, only the loss
in question and the code shared by all losses count. So adding a loss, renaming it in the report or
restyling a figure retrains nothing; nor does a different version of Python.
"""

import ast
import functools
import hashlib
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path

from squentropy.study import catalogue

SOURCE = Path(__file__).parents[1]

STEPS = {
    "corpus": ("corpus/build.py",),
    "tokens": ("tokens/tokenizer.py",),
    "training": ("training/loop.py",),
    "evaluation": ("evaluation/run.py", "corpus/grammar/prediction.py"),
    "sampling": ("sampling/run.py",),
    "selection": ("tuning/selection.py",),
    "voices": ("results/voices.py",),
    "tables": ("results/tables.py",),
    "figures": ("report/figures.py",),
    "report": ("report/render.py", "report/sections/__init__.py"),  # imported by the notebook
}
"""The entry modules of each step of a study."""

PLUMBING = (
    "base/errors.py",  # error messages
    "base/progress.py",  # progress display
    "base/kinds.py",  # types, for annotations only
    "base/storage.py",  # atomic writes and checks of files
    "study",  # the parameters, which each result records
    "runs/records.py",  # checks whether a result is up to date
    "training/resume.py",  # tested to be bit-identical
)
"""Modules and folders that a step may import but that do not affect its result."""

EQUIVALENT = {
    # lm/terms.py: losses no longer read torch's precision where they do not set it, which failed
    # beside torch's newer interface; smaller chunks of float64 on a GPU, where no run is float64.
    "291aa0ddb239209c": "2be8a96a1c69b4ab",
    # training/distributed.py: the message of a process that cannot connect to the others.
    "a22497c8297d3016": "bcb8beda96e06325",
}
"""Digests of modules that count as an earlier one, because their change affects no result.

Like `dvc commit` after a refactoring, but in view. The next change of a module ends its entry.
"""


def digest(*steps: str, loss: str | None = None) -> str:
    """Hex digest of the code of all `steps`, without the losses other than `loss`.

    loss  a name or slug, with or without arguments
    """
    return _hex("\n".join("\n".join(by_module(step, loss=loss).values()) for step in steps))


def by_module(step: str, loss: str | None = None) -> dict[str, str]:
    """Hex digest of each module of a step, by path, without the losses other than `loss`."""
    modules = closure(STEPS[step], PLUMBING, loss)
    found = {path: _hex(_text_of(modules[path])) for path in sorted(modules)}
    return {path: EQUIVALENT.get(digest, digest) for path, digest in found.items()}


def corpus(source: str) -> str:
    """Hex digest of the code that makes a corpus from a source, and of the grammar's texts."""
    path = _path(f"{SOURCE.name}.corpus.{source}")
    modules = closure([*STEPS["corpus"], *path], PLUMBING)
    code = [_text_of(modules[path]) for path in sorted(modules)]
    code = [EQUIVALENT.get(_hex(text), text) for text in code]
    texts = sorted((SOURCE / "corpus" / source / "stories").rglob("*.yaml"))
    return _hex("\n".join(code + [text.read_text(encoding="utf-8") for text in texts]))


def labels(losses: Iterable[str]) -> str:
    """Hex digest of these losses' descriptions, as tables, figures and report use them."""
    return _hex("\n".join(repr(catalogue.loss_info(loss)) for loss in losses))


def closure(
    entries: Iterable[str], plumbing: Iterable[str], loss: str | None = None
) -> dict[str, ast.Module]:
    """The relevant code of `entries` and of all modules they import, directly or not, by path."""
    function = catalogue.function_of(loss) if loss else None
    left, found = list(entries), {}
    own = catalogue.file_of(function) if function else None
    if own:  # the loss's file, and the modules of this package that it imports
        text = Path(own[0]).read_text(encoding="utf-8")
        found[own[0]], imported = _essence(text, own[1])
        left += imported
    while left:
        path = left.pop()
        if path not in found and not any(Path(path).is_relative_to(each) for each in plumbing):
            text = (SOURCE / path).read_text(encoding="utf-8")
            found[path], imported = _essence(text, function)
            left += imported
    return found


@functools.cache  # a module belongs to several steps and to every run of a table
def _text_of(module: ast.Module) -> str:
    return _text(module)


def _text(part: object) -> str:
    """A tree as text, identical under every Python version, unlike ast.unparse and ast.dump.

    Leaves out fields that are None or empty, which differ between versions; `ctx`, which follows
    from a name's position; and `kind`, the u of u"".
    """
    if isinstance(part, list):
        return f"[{', '.join(_text(each) for each in part)}]"
    if not isinstance(part, ast.AST):
        return ascii(part)  # repr() escapes the characters that this Python version does not know
    fields = {name: each for name, each in ast.iter_fields(part) if each not in (None, [])}
    if isinstance(part, ast.JoinedStr):
        fields["values"] = list(_joined(part.values))
    shown = [f"{name}={_text(fields[name])}" for name in sorted(fields.keys() - {"ctx", "kind"})]
    return f"{type(part).__name__}({', '.join(shown)})"


def _joined(values: list[ast.expr]) -> Iterator[ast.expr]:
    """The parts of an f-string, with adjacent texts merged, because Python 3.12 may split them."""
    for is_text, parts in itertools.groupby(values, lambda part: isinstance(part, ast.Constant)):
        if not is_text:
            yield from parts
        elif text := "".join(ast.literal_eval(part) for part in parts):
            yield ast.Constant(text)


def _hex(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _imported(tree: ast.Module) -> Iterator[str]:
    """The modules of this package that a module imports, as paths inside the package.

    Includes imports for annotations: code annotated with a class calls its methods.
    """
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield from _path(f"{node.module}.{alias.name}") or _path(node.module or "")
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield from _path(alias.name)


def _path(module: str) -> list[str]:
    """The path of a module inside this package, as a list; empty for any other name."""
    package, *names = module.split(".")
    if package != SOURCE.name:
        return []
    path = Path(*names)
    both = path / "__init__.py", path.with_suffix(".py") if names else path / "__init__.py"
    return [each.as_posix() for each in both if (SOURCE / each).is_file()][:1]


@functools.cache  # a workflow needs the same modules once per job
def _essence(text: str, loss: str | None) -> tuple[ast.Module, list[str]]:
    """The relevant code of a module, and the modules that it imports."""
    tree = ast.parse(text)
    if any(catalogue.decorator(node) is not None for node in tree.body):
        tree.body = list(_without_other_losses(tree.body, loss))
    imported = list(_imported(tree))
    tree = _Bare().visit(tree)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    return _Imports(used).visit(tree), imported


class _Bare(ast.NodeTransformer):
    """Drops docstrings, annotations and imports for type checkers."""

    def generic_visit(self, node: ast.AST) -> ast.AST:
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [each for each in body if not _is_text(each)] or [ast.Pass()]
            node.body = kept  # type: ignore[attr-defined]  # it has one
        return super().generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.returns = None
        return self.generic_visit(node)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        node.annotation = None
        return node

    def visit_If(self, node: ast.If) -> ast.AST | None:
        guards = isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        return None if guards else self.generic_visit(node)

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        # Annotations in a class body define the fields of a dataclass.
        body = [e if isinstance(e, ast.AnnAssign) else self.visit(e) for e in node.body]
        node.body = [each for each in body if not _is_text(each)] or [ast.Pass()]
        return node

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        if node.value is None:
            return None
        return ast.copy_location(ast.Assign([node.target], self.visit(node.value)), node)


class _Imports(ast.NodeTransformer):
    """Drops unused imports, such as those used only in annotations."""

    def __init__(self, used: set[str]):
        self.used = used

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        return self.visit_Import(node)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> ast.AST | None:
        names = [a for a in node.names if (a.asname or a.name).partition(".")[0] in self.used]
        node.names = names
        return node if names else None


def _is_text(node: ast.stmt) -> bool:
    """Whether a statement is a docstring."""
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


SHARED = {"LOSSES", "loss", "own_link", "fuse_chunks"}
"""The names of losses.py that other modules use, except types."""


def _without_other_losses(body: list[ast.stmt], loss: str | None) -> Iterator[ast.stmt]:
    """The statements of losses.py that a loss or `SHARED` needs, and those that define nothing.

    Of `@loss(...)`, only the link is kept: the other arguments are for the report.
    """
    needed: list[ast.stmt] = []
    waiting: list[ast.stmt] = []
    for node in body:
        if isinstance(node, ast.FunctionDef) and catalogue.decorator(node) is not None:
            node.decorator_list = [_link_alone(each) for each in node.decorator_list]
        given = _defined(node)
        (waiting if given and not given & {loss, *SHARED} else needed).append(node)
    used, more = set(), needed
    while more:
        used |= {n.id for node in more for n in ast.walk(node) if isinstance(n, ast.Name)}
        more = [node for node in waiting if _defined(node) & used]
        waiting = [node for node in waiting if node not in more]
    yield from (node for node in body if node not in waiting)


def _link_alone(decorator: ast.expr) -> ast.expr:
    if not isinstance(decorator, ast.Call):
        return decorator
    links = [keyword for keyword in decorator.keywords if keyword.arg == "link"]
    return ast.Call(decorator.func, [], links) if links else decorator.func


def _defined(node: ast.stmt) -> set[str]:
    """The names that a module-level statement defines."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {each.asname or each.name for each in node.names}
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    return {target.id for target in targets if isinstance(target, ast.Name)}
