"""A new figure needs a function and a catalogue entry; a new section, a function and a cell.

pytest tests/report/test_adding.py
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import fake_results
import nbformat
import pytest

from squentropy.base import storage
from squentropy.report import render
from squentropy.report.catalogue import FIGURES

FIGURE = '''

def seeds(r: Results) -> Figure:
    """How many seeds finished, by loss."""
    fig = Figure()
    fig.add_subplot().bar(r.losses, r.metrics.loc[r.losses, "n_seeds"])
    return fig
'''

ENTRY = """
    Figure(
        drawn_by="comparison.seeds",
        section="accuracy",
        title="Finished seeds",
        alt="Bars: finished seeds by loss, <b>none</b> hidden",
        caption=lambda study: f"Of {len(study.final.seeds)} seeds, {{%those%}} that *finished*.",
    ),
)
"""

SECTION = '''

def best(r: Results) -> Html:
    """The loss of the lowest test nll."""
    return paragraphs(f"first of all: {loss_name(r.ranked[0])}.")
'''


def contents(folder: Path) -> dict[str, bytes]:
    files = (
        path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in str(path)
    )
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def project(tmp_path_factory, copy_project) -> Path:
    """A copy of the project with a new figure, a new section and invented results."""
    folder = copy_project(tmp_path_factory.mktemp("project"))
    before = contents(folder)
    report = folder / "src/squentropy/report"
    with (report / "plots/comparison.py").open("a") as file:
        file.write(FIGURE)
    catalogue = (report / "catalogue.py").read_text()
    assert catalogue.endswith("\n)\n")
    (report / "catalogue.py").write_text(catalogue.removesuffix("\n)\n") + ENTRY)
    with (report / "sections/results.py").open("a") as file:
        file.write(SECTION)
    notebook = nbformat.read(folder / "notebooks/report.ipynb", as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("show.results.best(r)"))
    nbformat.write(notebook, folder / "notebooks/report.ipynb")
    after = contents(folder)
    assert {path for path in after if after[path] != before.get(path)} == {
        "src/squentropy/report/plots/comparison.py",  # the figure's function
        "src/squentropy/report/catalogue.py",  # and its entry
        "src/squentropy/report/sections/results.py",  # the section's function
        "notebooks/report.ipynb",  # and its cell
    }
    assert after.keys() == before.keys()
    fake_results.write(folder / "results/smoke", stories=20, final={"seeds": [1, 2, 3]})
    return folder


def squentropy(project: Path, *words: str) -> None:
    environment = os.environ | {"PYTHONPATH": str(project / "src")}
    command = [sys.executable, "-m", "squentropy.cli.app", *words]
    subprocess.run(command, cwd=project, env=environment, check=True)


def test_a_new_figure_is_drawn_and_on_the_page_with_its_caption(project):
    squentropy(project, "figures", "results/smoke", "figures")
    drawn = storage.read_sealed(project / "figures/manifest.json")["sha256"]
    assert {"seeds.svg", "seeds.png"} < set(drawn)
    squentropy(project, "report", "results/smoke", "figures", "index.html")
    page = (project / "index.html").read_text(encoding="utf-8")
    section = page.split('id="Ranking-tokens')[1].split("<h2")[0]
    assert section.count("<figure>") == 2
    assert 'alt="Bars: finished seeds by loss, &lt;b&gt;none&lt;/b&gt; hidden"' in section
    assert "<figcaption>Of 3 seeds, {%those%} that *finished*.</figcaption>" in section
    assert re.search(r"<p>First of all: \w[^<]+\.</p>", page)


def test_a_new_figure_is_among_the_workflows_files_and_has_a_caption_there(project, snakemake):
    words = ("--cores", "1", "--summary", "--configfile", "studies/smoke.yaml")
    done = snakemake(project, *words)
    assert done.returncode == 0, done.stderr
    for end in ("svg", "png"):
        assert f"report/smoke/figures/seeds.{end}" in done.stdout
    captions = project / ".snakemake/squentropy/smoke.captions"
    assert (
        captions / "seeds.rst"
    ).read_text() == r"Of 2 seeds, \{\%those\%\} that \*finished\*." "\n"


def test_the_notebook_shows_the_figures_of_every_section_once():
    cells = nbformat.read(render.NOTEBOOK, as_version=4).cells
    code = "\n".join(cell.source for cell in cells)
    shown = re.findall(r'show\.figures\.of\("(\w+)", r, figures\)', code)
    assert shown == list(dict.fromkeys(figure.section for figure in FIGURES))
