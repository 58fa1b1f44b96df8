"""The documentation site shows the contents of the repository, from disk and on any screen.

pytest -m slow tests/test_site.py
"""

import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import typer
from axe_playwright_python.sync_playwright import Axe

from squentropy.cli import app
from squentropy.study import params

ROOT = Path(__file__).resolve().parents[1]

pytestmark = pytest.mark.slow

LOOKED_AT = (
    "index.html",
    "tutorials/first-study.html",
    "howto/losses-in-your-code.html",
    "reference/commands.html",
    "reference/parameters.html",
    "reference/library/losses.html",
    "explanation/losses.html",
)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The site, built with --strict: mkdocs checks all links, anchors and navigation entries."""
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stdout + done.stderr
    return folder


@pytest.fixture
def visit(browser, site):
    """visit(page, …): a page, loaded from disk; fails if it uses the network or logs anything."""
    asked, said, contexts = [], [], []

    def visit(page: str, width: int = 1280, **how):
        size = {"width": width, "height": 800}
        contexts.append(browser.new_context(viewport=size, offline=True, **how))
        visited = contexts[-1].new_page()
        visited.on("request", lambda request: asked.append(request.url))
        visited.on("console", lambda message: said.append(message.text))
        visited.on("pageerror", lambda error: said.append(str(error)))
        visited.goto((site / page).as_uri())
        return visited

    yield visit
    for context in contexts:
        context.close()
    assert [url for url in asked if urlsplit(url).scheme not in ("file", "data")] == []
    assert said == []


def test_the_site_shows_what_is_drawn_from_the_repository(site):
    def text(page: str) -> str:
        return (site / page).read_text(encoding="utf-8")

    assert "<!-- " not in text("reference/commands.html").partition("<article")[2]
    for command in typer.main.get_command(app.app).commands:
        assert f'id="squentropy-{command}"' in text("reference/commands.html")
    for key in ("corpus.files.separator", "final.reported.n_layer", "theory.weights"):
        assert f"<code>{key}</code>" in text("reference/parameters.html")
    for loss in params.known_losses():
        assert f'id="squentropy.losses.{loss}"' in text("reference/library/losses.html")
    assert "nll − cross entropy" in text("index.html")  # of the table
    assert "<math" in text("explanation/losses.html")
    assert "```" not in text("tutorials/first-study.html")


def test_no_page_asks_the_network_or_is_wider_than_a_phone(site, visit):
    names = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    # 404.html has absolute paths, so it needs a server; test_page.py visits the report.
    for name in sorted(names - {"404.html", "repository/report/grammar/index.html"}):
        page = visit(name, width=360)
        wider = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wider <= 0, f"{name} is {wider} px too wide"
        page.context.close()


def test_home_shows_the_whole_table_that_the_headline_rests_on(visit):
    page = visit("index.html")
    table = page.locator("table").first
    assert "tokens needed" in table.locator("th").last.inner_text()
    edge = "box => box.getBoundingClientRect().right"
    assert table.locator("th").last.evaluate(edge) <= table.evaluate(edge) + 1
    for box in (table, table.locator("xpath=..")):
        assert box.evaluate("box => box.scrollWidth - box.clientWidth") <= 1


# The words in table cells that break across lines; a line may break after a slash or hyphen.
BROKEN = """() => [...document.querySelectorAll("td code")].filter(code => {
  const range = document.createRange(), text = code.firstChild
  return [...text.data.matchAll(/[^\\s,\\/-]+/g)].some(word => {
    range.setStart(text, word.index)
    range.setEnd(text, word.index + word[0].length)
    return range.getClientRects().length > 1
  })
}).map(code => code.textContent)"""


def test_on_a_phone_no_value_breaks_in_a_word_and_figures_stay_large(visit):
    assert visit("reference/parameters.html", width=360).evaluate(BROKEN) == []
    figure = visit("index.html", width=360).locator("p > img[src$='.svg']").first
    assert figure.evaluate("image => image.clientWidth") >= 600


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(visit, scheme):
    for name in LOOKED_AT:
        # Without preload, in which axe would fetch the style sheets; a file:// page may not.
        found = Axe().run(visit(name, color_scheme=scheme), options={"preload": False}).response
        serious = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
        assert [(name, v["id"], v["nodes"][0]["html"]) for v in serious] == []


def test_the_search_works_from_disk(visit):
    page = visit("index.html")
    page.keyboard.press("/")
    page.keyboard.type("inverse link")
    result = page.locator(".md-search-result__item a").first
    result.wait_for()
    assert result.get_attribute("href")
