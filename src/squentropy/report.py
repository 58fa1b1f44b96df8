"""The report: one HTML page that needs nothing else, from the results and the figures.

    squentropy report results/grammar report/grammar/figures report/grammar/index.html

Runs notebooks/report.ipynb by papermill and sets it by nbconvert with report.html.j2. The page
loads nothing from anywhere, and is the same bytes from the same results.
"""

import os
import re
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import nbformat
import papermill
from nbconvert import HTMLExporter
from papermill.exceptions import PapermillExecutionError

from squentropy import storage
from squentropy.errors import SquentropyError
from squentropy.figures import check
from squentropy.results import read

HERE = Path(__file__).resolve().parent
NOTEBOOK = HERE.parents[1] / "notebooks" / "report.ipynb"
KERNEL = "squentropy-report"


def render(results: str | Path, figures: str | Path, out: str | Path) -> None:
    """Write the report on the results in a folder, with the figures of another, to `out`.

    Raises SquentropyError where a table or a figure is missing, or a cell of the notebook fails.
    """
    results, figures = Path(results).resolve(), Path(figures).resolve()
    study = read(results).study  # a missing table is said in one line, before a kernel starts
    check(results, figures)
    if not NOTEBOOK.is_file():
        raise SquentropyError(f"{NOTEBOOK}: does not exist; run from a checkout of the repository")
    with _kernel() as folder:
        try:
            notebook = papermill.execute_notebook(
                NOTEBOOK,
                folder / "report.ipynb",
                {"results": str(results), "figures": str(figures)},
                kernel_name=KERNEL,
                progress_bar=False,
            )
        except PapermillExecutionError as error:
            raise SquentropyError(
                f"{NOTEBOOK}, cell {error.exec_count}: {error.ename}: {error.evalue}"
            ) from None
    storage.write_text(out, to_html(notebook, study.study))


def to_html(notebook: nbformat.NotebookNode, study: str) -> str:
    """The page: Markdown cells and the HTML that code cells show, without the code."""
    exporter = HTMLExporter(
        template_file=str(HERE / "report.html.j2"),
        extra_template_paths=[str(HERE)],
    )
    headings = [
        line.removeprefix("## ").strip()
        for cell in notebook.cells
        if cell.cell_type == "markdown"
        for line in cell.source.splitlines()
        if line.startswith("## ")
    ]
    contents = [(anchor(heading), heading) for heading in headings]
    css = (HERE / "report.css").read_text(encoding="utf-8")
    resources = {"study": study, "contents": contents, "css": css}
    body, _ = exporter.from_notebook_node(notebook, resources=resources)
    return body


def anchor(heading: str) -> str:
    """The id that nbconvert gives a heading."""
    return re.sub(r"\s", "-", heading)


@contextmanager
def _kernel():
    """A folder with a kernel of this very interpreter, and an environment that uses it alone.

    Jupyter would otherwise take a kernel named python3 of the user's, perhaps of another Python,
    and run the user's start-up files in it.
    """
    with tempfile.TemporaryDirectory(prefix="squentropy-report-") as name:
        folder = Path(name)
        specification = {
            "argv": [
                *(sys.executable, "-m", "ipykernel_launcher"),
                *("-f", "{connection_file}", "--log-level=CRITICAL"),
            ],
            "display_name": KERNEL,
            "language": "python",
            "env": {"PYTHONHASHSEED": "0", "PYTHONPATH": str(HERE.parent)},
        }
        storage.write_json(folder / "kernels" / KERNEL / "kernel.json", specification)
        changes = {
            "JUPYTER_PATH": name,
            "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
            "JUPYTER_CONFIG_DIR": str(folder / "config"),
            "IPYTHONDIR": str(folder / "ipython"),
        }
        before = {key: os.environ.get(key) for key in changes}
        os.environ.update(changes)
        try:
            yield folder
        finally:
            for key, value in before.items():
                if value is None:
                    del os.environ[key]
                else:
                    os.environ[key] = value
