"""The report is one page, made from the results alone, that loads nothing."""

import hashlib
import html.parser
import re
import shutil
from pathlib import Path

import fake_results
import nbformat
import pytest
from papermill.parameterize import parameterize_path

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.report import catalogue, figures, read, render, sections
from squentropy.results import voices
from squentropy.study.params import TABLES, TEXTS

NASTY = (
    'Once upon a time <script>alert("x")</script> **bold** # Heading\n\n'
    "![](http://example.org/x.png) <img src=http://example.org/y.png onerror=alert(1)> "
    "\x00\x1b[31m\u202e & $x^2$ {{ 7*7 }} </article></main>\n\n## Injected\n"
)
SMALL = {"lr": [0.0006, 0.06], "dropout": [0.0], "n_layer": [8, 12]}


def small(folder, losses=("cross_entropy", "squentropy", "mse"), seeds=(1, 2), **how):
    changes = {"sweep": SMALL | {"losses": list(losses)}, "final": {"seeds": list(seeds)}}
    return fake_results.write(folder, stories=20, **changes, **how)


class Page(html.parser.HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def values(self, name):
        return [attrs[name] for _, attrs in self.tags if name in attrs]


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    small(folder / "results", text=NASTY)
    figures.draw(folder / "results", folder / "figures")
    render.render(folder / "results", folder / "figures", folder / "index.html")
    return folder


@pytest.fixture(scope="module")
def page(rendered):
    return Page((rendered / "index.html").read_text(encoding="utf-8"))


# --- the page -----------------------------------------------------------------------------------


def test_the_same_results_elsewhere_give_the_same_bytes(rendered, tmp_path):
    shutil.copytree(rendered / "results", tmp_path / "r")
    shutil.copytree(rendered / "figures", tmp_path / "f")
    render.render(tmp_path / "r", tmp_path / "f", tmp_path / "page.html")
    assert (tmp_path / "page.html").read_bytes() == (rendered / "index.html").read_bytes()


def test_the_page_loads_nothing(page):
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"link", "iframe", "object", "embed", "base", "form"}
    assert all(value.startswith("data:image/svg+xml;base64,") for value in page.values("src"))
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv"))
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not page.values("style")  # the policy would ignore them


def test_the_page_is_below_five_megabytes_with_models_as_large_as_it_has_room_for(rendered):
    size = (rendered / "index.html").stat().st_size
    assert size + voices.ROOM * 4 / 3 < 5e6


def test_the_page_tells_nothing_of_the_machine_or_the_hour(rendered):
    text = (rendered / "index.html").read_text(encoding="utf-8")
    assert str(rendered) not in text
    assert "/tmp/" not in text
    assert not re.search(r"\d\d:\d\d:\d\d", text)


def test_a_story_is_shown_as_it_is_and_never_interpreted(page):
    assert '<script>alert("x")</script> **bold** # Heading' in page.text
    assert "{{ 7*7 }}" in page.text
    assert "</article></main>\n\n## Injected" in page.text
    assert "Injected" not in page.values("id")
    assert not {"\x00", "\x1b", "\u202e"} & set(page.text)


def test_every_entry_of_the_contents_leads_to_a_heading(page):
    targets = [value[1:] for value in page.values("href") if value.startswith("#")]
    assert len(targets) > 10
    assert set(targets) <= set(page.values("id"))


def test_every_image_says_in_words_what_it_shows(page):
    images = [attrs for tag, attrs in page.tags if tag == "img"]
    assert len(images) == len(catalogue.FIGURES) - 1  # no dose figure with one multiplier
    assert all(len(image["alt"]) > 30 for image in images)


def test_the_page_names_the_files_it_is_made_of(rendered, page):
    for path in (rendered / "results").glob("*.csv"):
        assert path.name in page.text
        assert hashlib.sha256(path.read_bytes()).hexdigest()[:16] in page.text


def test_no_code_is_shown(page):
    assert "import" not in page.text.split("Every parameter of this study")[0].split()


def test_a_missing_figure_is_one_line_that_names_it(rendered, tmp_path):
    r = read.read(rendered / "results")
    with pytest.raises(SquentropyError, match=r"grid\.svg: does not exist"):
        sections.figures.of("grid", r, tmp_path)


def test_a_missing_table_is_one_line_and_leaves_no_page(rendered, tmp_path):
    shutil.copytree(rendered / "results", tmp_path / "r")
    (tmp_path / "r" / "metrics.csv").unlink()
    with pytest.raises(SquentropyError, match=r"metrics\.csv: does not exist"):
        render.render(tmp_path / "r", rendered / "figures", tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


# --- the notebook -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(render.NOTEBOOK, as_version=4)


def test_the_notebook_is_clean(notebook):
    nbformat.validate(notebook)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            assert len(cell.source.splitlines()) <= 6


def shown(notebook, folder):
    """The output of the notebook's code cells for the results in a folder, run in this process."""
    drawn = folder / "figures"
    drawn.mkdir()
    for each in catalogue.FIGURES:
        (drawn / f"{each.name}.svg").write_text("<svg/>")
    names = {}
    texts = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        if "parameters" in cell.metadata.get("tags", []):
            names |= {"results": str(folder / "results"), "figures": str(drawn)}
        elif cell.source.startswith("show."):
            texts.append(eval(cell.source, names))
        else:
            exec(cell.source, names)
    return Page("\n".join(texts)).text


ODD = {
    "one loss, one seed, no source": {"losses": ["squentropy"], "seeds": [7], "source_nll": None},
    "cross entropy alone": {"losses": ["cross_entropy"]},
    "without cross entropy": {"losses": ["mse", "brier"]},
    "cross entropy diverged": {"diverged": ("cross_entropy",)},
    "everything diverged": {"diverged": ("cross_entropy", "squentropy", "mse")},
}


@pytest.mark.parametrize("how", ODD.values(), ids=ODD.keys())
def test_odd_studies_are_reported_whole(notebook, tmp_path, how):
    small(tmp_path / "results", **how)
    text = shown(notebook, tmp_path)
    assert "nan" not in re.findall(r"\w+", text)
    assert "None" not in re.findall(r"\w+", text.split("Every parameter of this study")[0])


# --- results and figures that do not belong together ---------------------------------------------


def test_results_of_other_parameters_are_refused(tmp_path):
    folder = small(tmp_path / "results")
    text = (folder / "params.yaml").read_text()
    (folder / "params.yaml").write_text(text.replace("bootstrap: 2000", "bootstrap: 3000"))
    said = r"results: the tables were made with other evaluate\.bootstrap than params\.yaml"
    with pytest.raises(SquentropyError, match=said):
        read.read(folder)


def test_parameters_that_no_table_depends_on_may_change(tmp_path):
    folder = small(tmp_path / "results")
    text = (folder / "params.yaml").read_text()
    for old, new in (("state_interval: 250", "state_interval: 9"), ("dataset: r", "dataset: x")):
        assert old in text
        text = text.replace(old, new)
    (folder / "params.yaml").write_text(text)
    assert read.read(folder).study.train.state_interval == 9


def test_results_of_a_version_that_made_fewer_tables_say_what_to_do(tmp_path):
    folder = small(tmp_path / "results")
    manifest = storage.read_sealed(folder / "manifest.json")
    del manifest["sha256"]["voices.json"]
    storage.write_sealed(folder / "manifest.json", manifest)
    said = r"results: is of an earlier version, which made no voices\.json; run the study again"
    with pytest.raises(SquentropyError, match=said):
        read.read(folder)


def test_numbers_are_read_where_the_stories_were_left_out(tmp_path):
    folder = fake_results.write(tmp_path, stories=20)
    whole = read.read(folder)
    for name in TEXTS:
        (folder / name).unlink()
    assert read.read(folder, texts=False).metrics.equals(whole.metrics)
    with pytest.raises(SquentropyError, match=r"samples\.json"):
        read.read(folder)
    (folder / "lengths.csv").unlink()
    with pytest.raises(SquentropyError, match=r"lengths\.csv"):
        read.read(folder, texts=False)


@pytest.mark.parametrize("name", TABLES)
def test_a_changed_table_is_refused_by_name(tmp_path, name):
    folder = small(tmp_path / "results")
    path = folder / name
    path.write_bytes(path.read_bytes().replace(b"1", b"2", 1) + b" ")
    with pytest.raises(SquentropyError, match=rf"{name}: is not what its manifest says"):
        read.read(folder)


def test_figures_of_other_results_and_changed_ones_are_refused(tmp_path):
    one, other = small(tmp_path / "one"), small(tmp_path / "other", seeds=(1,))
    drawn = tmp_path / "figures"
    figures.draw(one, drawn)
    with pytest.raises(SquentropyError, match="figures: the figures are of other tables; draw"):
        render.render(other, drawn, tmp_path / "page.html")
    (drawn / "grid.svg").write_text("<svg/>")
    with pytest.raises(SquentropyError, match=r"grid\.svg: is not what its manifest says"):
        render.render(one, drawn, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


def test_braces_in_a_folders_name_are_no_parameters_of_the_notebook():
    path = render._literal(Path("/a/{x} and {}/report.ipynb"))
    assert parameterize_path(path, {"results": "r"}) == "/a/{x} and {}/report.ipynb"
