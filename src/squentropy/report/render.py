"""Render the report: one self-contained HTML page from results and figures.

    squentropy report results/grammar report/grammar/figures report/grammar/index.html

Runs notebooks/report.ipynb with papermill and fills report.html.j2, with report.css and the *.js
files inlined. The page loads no external resource, and identical results give identical bytes.
"""

import base64
import hashlib
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import jinja2
import mistune
import nbformat
import papermill
from papermill.exceptions import PapermillExecutionError

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.report.figures import check
from squentropy.report.read import read

HERE = Path(__file__).resolve().parent
NOTEBOOK = HERE.parents[2] / "notebooks" / "report.ipynb"
KERNEL = "squentropy-report"


def render(results: str | Path, figures: str | Path, out: str | Path) -> None:
    """Write the report on a results folder and a figures folder to `out`.

    Raises SquentropyError if a table or a figure is missing, or a cell of the notebook fails.
    """
    results, figures = Path(results).resolve(), Path(figures).resolve()
    study = read(results).study  # reports a missing table in one line, before a kernel starts
    check(results, figures)
    if not NOTEBOOK.is_file():
        raise SquentropyError(f"{NOTEBOOK}: does not exist; run from a checkout of the repository")
    with storage.scratch(out) as folder, _kernel(folder):
        try:
            notebook = papermill.execute_notebook(
                _literal(NOTEBOOK),
                _literal(folder / "report.ipynb"),
                {"results": str(results), "figures": str(figures)},
                kernel_name=KERNEL,
                progress_bar=False,
                start_timeout=600,  # seconds; the machine may be busy
            )
        except PapermillExecutionError as error:
            raise SquentropyError(
                f"{NOTEBOOK}, cell {error.exec_count}: {error.ename}: {error.evalue}"
            ) from None
    storage.write_text(out, to_html(notebook, study.study))


def _literal(path: Path) -> str:
    """A path with its braces escaped, since papermill formats paths."""
    return str(path).replace("{", "{{").replace("}", "}}")


def to_html(notebook: nbformat.NotebookNode, study: str) -> str:
    """The page: Markdown cells and the HTML output of code cells, without the code.

    nbconvert is not used: it reparses the page, which loses whitespace in stories, and it adds ten
    packages.
    """
    body = "\n".join(_shown(cell) for cell in notebook.cells)
    css, *scripts = (
        (HERE / name).read_text(encoding="utf-8")
        for name in ("report.css", "voices.js", "ask.js", "report.js")
    )
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE))
    return environment.get_template("report.html.j2").render(
        study=study,
        contents=re.findall('<h2 id="(.*?)">(.*?)</h2>', body),
        body=body,
        css=css,
        scripts=scripts,
        policy=policy(css, *scripts),
    )


def is_report(page: str) -> bool:
    """Whether a page is a report of this version: it begins with our content security policy, which
    allows only our scripts and no loading, whatever else the page contains."""
    start = to_html(nbformat.v4.new_notebook(), "").partition('<meta name="viewport"')[0]
    return page.startswith(start)


def _shown(cell: nbformat.NotebookNode) -> str:
    if cell.cell_type == "markdown":
        return prose(cell.source)
    outputs = (output.get("data", {}) for output in cell.get("outputs", []))
    return "\n".join(data.get("text/html", "") for data in outputs)


class _Renderer(mistune.HTMLRenderer):
    """Mistune's renderer, with Jupyter's anchors on headings."""

    def heading(self, text: str, level: int, **attributes) -> str:
        return f'<h{level} id="{anchor(re.sub("<.*?>", "", text))}">{text}</h{level}>'


def prose(markdown: str) -> str:
    """Markdown to HTML; HTML in it is passed through."""
    plugins = ["strikethrough", "table", "url"]
    return str(mistune.create_markdown(renderer=_Renderer(escape=False), plugins=plugins)(markdown))


def anchor(heading: str) -> str:
    """The id of a heading."""
    return re.sub(r"\s", "-", heading)


def policy(css: str, *scripts: str) -> str:
    """The content security policy: only this style, these scripts and embedded images."""

    def source(text: str) -> str:
        digest = hashlib.sha256(text.encode("utf-8")).digest()
        return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"

    return (
        f"default-src 'none'; img-src data:; style-src {source(css)}; "
        f"script-src {' '.join(map(source, scripts))}; base-uri 'none'; form-action 'none'"
    )


@contextmanager
def _kernel(folder: Path) -> Iterator[None]:
    """Install a kernel for this interpreter in a folder, for the block; Jupyter then uses no other.

    Otherwise Jupyter would use the user's kernel named python3, perhaps of another Python, and run
    the user's start-up files in it.
    """
    specification = {
        "argv": [
            *(sys.executable, "-m", "ipykernel_launcher"),
            *("-f", "{connection_file}", "--log-level=CRITICAL"),
        ],
        "display_name": KERNEL,
        "language": "python",
        "env": {
            "PYTHONHASHSEED": "0",
            "PYTHONPATH": str(HERE.parents[1]),
            "PYTHONSTARTUP": "",  # the user's, which could change the page
        },
    }
    storage.write_json(folder / "kernels" / KERNEL / "kernel.json", specification)
    changes = {
        "JUPYTER_PATH": str(folder),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "IPYTHONDIR": str(folder / "ipython"),
    }
    before = {key: os.environ.get(key) for key in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
