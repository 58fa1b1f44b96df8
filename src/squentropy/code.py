"""What a result depends on in the code, as a digest that Snakemake and the runs record.

Comments, layout and docstrings do not count, and of losses.py only the loss in question and what
the losses share: adding a loss, naming it otherwise in the report, or restyling a figure, retrains
nothing.
"""

import ast
import functools
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from squentropy import names

SOURCE = Path(__file__).parent
TRAINING = (
    "losses.py",
    "terms.py",
    "matmul.py",
    "model.py",
    "cpu.py",
    "devices.py",
    "optimizer.py",
    "processes.py",
    "training.py",
    "evaluation.py",
)
EVALUATION = (
    "losses.py",
    "terms.py",
    "matmul.py",
    "model.py",
    "evaluation.py",
    "measures.py",
    "runs.py",
    "tokens.py",
)
SELECTION = ("selection.py", "refinement.py", "outcomes.py", "records.py")
SAMPLING = (
    "losses.py",
    "terms.py",
    "matmul.py",
    "model.py",
    "sampling.py",
    "runs.py",
    "tokenizer.py",
)
QUALITY = (
    "quality.py",
    "corpus/grading.py",
    "corpus/automaton.py",
    "corpus/parser.py",
    "corpus/grammar.py",
)
THEORY = ("floors.py", "theory.py", "names.py", "corpus/prediction.py", "corpus/grammar.py")
TABLES = (
    "tables.py",
    "metric_rows.py",
    "original.py",
    "statistics.py",
    "ngrams.py",
    "scaling.py",
    "adequacy.py",
    "tokens.py",
    *SELECTION,
)
FIGURES = ("figures.py", "plots", "results.py", "adequacy.py", "names.py", "statistics.py")
REPORT = (
    "report.py",
    "names.py",
    "sections",
    "markup.py",
    "theory.py",
    "results.py",
    "adequacy.py",
    "outcomes.py",
)


def corpus(source: str) -> tuple[str, ...]:
    """The modules that make a corpus of a source."""
    shared = ("build.py", "repeats.py", "source.py", "text.py")
    return tuple(f"corpus/{module}" for module in (*shared, f"{source}.py"))


def grammar() -> str:
    """Hex digest of the grammar's lexicon, phrases and plots."""
    files = sorted((SOURCE / "corpus/stories").rglob("*.yaml"))
    return _hex("\n".join(file.read_text(encoding="utf-8") for file in files))


def catalogue(losses: Iterable[str]) -> str:
    """Hex digest of what losses.py says of these losses for the report."""
    return _hex("\n".join(repr(names.loss_info(loss)) for loss in losses))


def digest(*modules: str, loss: str | None = None) -> str:
    """Hex digest of modules and packages of this one, without the losses other than `loss`.

    loss  a name or a slug, arguments or not
    """
    return _hex("\n".join(by_module(*modules, loss=loss).values()))


def by_module(*modules: str, loss: str | None = None) -> dict[str, str]:
    """Hex digest of each module or package, without the losses other than `loss`."""
    function = loss and names.function_of(loss)
    paths = {m: sorted((SOURCE / m).glob("*.py")) or [SOURCE / m] for m in modules}
    return {
        module: _hex("\n".join(_essence(f.read_text(encoding="utf-8"), function) for f in files))
        for module, files in paths.items()
    }


def _hex(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@functools.cache  # a workflow asks for the same modules once a job
def _essence(text: str, loss: str | None) -> str:
    tree = ast.parse(text)
    if any(names.decorator(node) is not None for node in tree.body):
        tree.body = list(_without_other_losses(tree.body, loss))
    _drop_docstrings(tree)
    return ast.unparse(tree)


SHARED = {"LOSSES", "loss", "own_link", "fuse_chunks"}
"""What the other modules use of losses.py, beside types."""


def _without_other_losses(body: list[ast.stmt], loss: str | None) -> Iterator[ast.stmt]:
    """The statements of losses.py that a loss or `SHARED` needs, and those that define nothing.

    Of `@loss(...)` the link alone, since what is written there besides is for the report.
    """
    needed, waiting = [], []
    for node in body:
        if names.decorator(node) is not None:
            node.decorator_list = [_link_alone(each) for each in node.decorator_list]
        given = _defined(node)
        (waiting if given and not given & {loss, *SHARED} else needed).append(node)
    used, more = set(), needed
    while more:
        used |= {n.id for node in more for n in ast.walk(node) if isinstance(n, ast.Name)}
        more = [node for node in waiting if _defined(node) & used]
        waiting = [node for node in waiting if node not in more]
    for node in body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            node.names = [each for each in node.names if (each.asname or each.name) in used]
        if node not in waiting:
            yield node


def _link_alone(decorator: ast.expr) -> ast.expr:
    if not isinstance(decorator, ast.Call):
        return decorator
    links = [keyword for keyword in decorator.keywords if keyword.arg == "link"]
    return ast.Call(decorator.func, [], links) if links else decorator.func


def _defined(node: ast.stmt) -> set[str]:
    """The names that a statement of a module gives a meaning."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {each.asname or each.name for each in node.names}
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _drop_docstrings(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [
                statement
                for statement in body
                if not (
                    isinstance(statement, ast.Expr)
                    and isinstance(statement.value, ast.Constant)
                    and isinstance(statement.value.value, str)
                )
            ]
