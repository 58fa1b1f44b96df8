"""What a result depends on in the code, as a digest that Snakemake and the runs record.

Comments, layout and docstrings do not count, and of losses.py only the loss in question and what
the losses share: adding a loss, or restyling a figure, retrains nothing.
"""

import ast
import functools
import hashlib
from pathlib import Path

SOURCE = Path(__file__).parent
TRAINING = (
    "losses.py",
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
    "matmul.py",
    "model.py",
    "evaluation.py",
    "measures.py",
    "runs.py",
    "tokens.py",
)
SELECTION = ("selection.py", "refinement.py", "outcomes.py", "records.py")
SAMPLING = ("losses.py", "matmul.py", "model.py", "sampling.py", "runs.py", "tokenizer.py")
QUALITY = ("quality.py", "corpus/parser.py", "corpus/grammar.py")
THEORY = ("floors.py", "theory.py", "corpus/prediction.py", "corpus/grammar.py")
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
FIGURES = ("figures.py", "plots", "results.py", "statistics.py")
REPORT = ("report.py", "sections", "markup.py", "theory.py", "results.py", "outcomes.py")


def corpus(source: str) -> tuple[str, ...]:
    """The modules that make a corpus of a source."""
    shared = ("build.py", "repeats.py", "source.py", "text.py")
    return tuple(f"corpus/{module}" for module in (*shared, f"{source}.py"))


def grammar() -> str:
    """Hex digest of the grammar's lexicon, phrases and plots."""
    files = sorted((SOURCE / "corpus/stories").rglob("*.yaml"))
    return _hex("\n".join(file.read_text(encoding="utf-8") for file in files))


def digest(*modules: str, loss: str | None = None) -> str:
    """Hex digest of modules and packages of this one, without the losses other than `loss`."""
    return _hex("\n".join(digests(*modules, loss=loss).values()))


def digests(*modules: str, loss: str | None = None) -> dict[str, str]:
    """Hex digest of each module or package, without the losses other than `loss`."""
    paths = {m: sorted((SOURCE / m).glob("*.py")) or [SOURCE / m] for m in modules}
    return {
        module: _hex("\n".join(_essence(f.read_text(encoding="utf-8"), loss) for f in files))
        for module, files in paths.items()
    }


def _hex(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@functools.cache  # a workflow asks for the same modules once a job
def _essence(text: str, loss: str | None) -> str:
    tree = ast.parse(text)
    tree.body = [node for node in tree.body if not _is_other_loss(node, loss)]
    _drop_docstrings(tree)
    return ast.unparse(tree)


def _is_other_loss(node: ast.AST, loss: str | None) -> bool:
    return (
        isinstance(node, ast.FunctionDef)
        and node.name != loss
        and any(isinstance(d, ast.Name) and d.id == "loss" for d in node.decorator_list)
    )


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
