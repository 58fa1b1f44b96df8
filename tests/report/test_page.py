"""The report in a real browser, with hostile stories.

pytest tests/report/test_page.py      # skipped without Chromium
"""

import functools
import itertools
import json
from pathlib import Path

import fake_results
import pandas as pd
import pytest
from axe_playwright_python.sync_playwright import Axe

from squentropy.base.output import visible
from squentropy.report import catalogue, figures, render
from squentropy.report.read import label
from squentropy.report.sections.stories import LONGEST
from squentropy.results.tables import write_manifest
from squentropy.study import params

LOSSES = ["cross_entropy", "squentropy", "squentropy(0.1)", "mse"]
PROMPTS = ["Once upon a time", '"><img src=x onerror=window.pwned=1>', "There was a"]
HOSTILE = [
    "Once upon a time <script>window.pwned = 1</script>",
    "</script><script>window.pwned = 1</script>",
    "<!--<script>",
    '"}]</script><script>window.pwned = 1//',
    "<img src=x onerror=window.pwned=1> <svg onload=window.pwned=1>",
    '<iframe src="javascript:parent.pwned=1"></iframe>',
    "</p></div></article></fieldset></main></body></html><h2 id=Results>Injected</h2>",
    "<style>* { display: none }</style>",
    '<base href="http://example.org/"><link rel=stylesheet href="http://example.org/x.css">',
    "# Heading\n\n**bold** [link](javascript:window.pwned=1) ![](http://example.org/x.png)",
    "{{ 7 * 7 }} {% raw %} ${window.pwned = 1} $x^2$ \\(x\\)",
    "&lt;script&gt; &amp;amp; &#x3c;b&#x3e;",
    "\\u003cscript\\u003e \\ \\n \"double\" 'single' `back`",
    "bell \x07, escape \x1b[31m, C1 \x9b, delete \x7f",
    "NUL \x00" * 50,
    "\u202eolleh\u202c and \u2066isolated\u2069",
    "zero\u200bwidth\ufeff\u2060\xad\U000e0041",
    "line\u2028paragraph\u2029next",
    "a\r\nb\rc\td",
    "lone \ud800 and \udfff surrogates",
    "a" * 1_000_000,
    "🦊" * 6000,
    "👩‍👩‍👧 🇨🇭 ❤️ " * 30,
    "<|endoftext|> and more <|endoftext|>",
    "Z" + "\u0301\u0489" * 400,
    "שלום עולם, مرحبا بالعالم",
    "",
    " \n\t " * 200,
    "\n" * 500,
    "Once upon a time",
]


fonts = pytest.mark.parametrize("font", ["wide", "narrow"])


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A folder with a study whose sampled stories are hostile, and its page."""
    folder = tmp_path_factory.mktemp("study")
    changes = {
        "sweep": {"losses": LOSSES, "lr": [0.0006, 0.06], "dropout": [0.0], "n_layer": [8, 12]},
        "final": {"seeds": [1, 2]},
        "sample": {"prompts": PROMPTS},
    }
    results = fake_results.write(folder / "results", stories=20, **changes)
    kinds = itertools.product(LOSSES, [1, 2], PROMPTS, [0.5, 0.8])
    samples = [
        {"phase": "final", "loss": loss, "seed": seed, "prompt": prompt, "temperature": heat,
         "top_k": 50, "text": text, "tokens": 70, "ended": True,
         "reading": "softmax", "number": 0}
        for (loss, seed, prompt, heat), text in zip(kinds, itertools.cycle(HOSTILE))
    ]  # fmt: skip
    assert len(samples) > len(HOSTILE)
    (results / "samples.json").write_text(json.dumps(samples))  # in ASCII, for lone surrogates
    write_manifest(params.load([results / "params.yaml"]), results)
    figures.draw(results, folder / "figures")
    render.render(results, folder / "figures", folder / "index.html")
    return folder


@pytest.fixture(scope="module")
def samples(study) -> list[dict]:
    return json.loads((study / "results/samples.json").read_bytes())


@pytest.fixture
def visit(visitor, study):
    """visit(width, font, …): the page."""
    return functools.partial(visitor, study / "index.html")


def overflow(page) -> int:
    """Pixels by which the page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")


# --- the page ----------------------------------------------------------------------------------


def test_every_figure_is_shown(visit):
    widths = visit().locator("figure img").evaluate_all("all => all.map(i => i.naturalWidth)")
    assert len(widths) == len(catalogue.FIGURES)
    assert all(width > 0 for width in widths)


def test_the_fonts_are_the_tests_own(visit):
    text = "document.querySelector('.study').textContent"
    width = f"""() => {{
        const context = document.createElement("canvas").getContext("2d");
        context.font = getComputedStyle(document.body).font;
        return context.measureText({text}).width;
    }}"""
    wide, narrow = (visit(font=font).evaluate(width) for font in ("wide", "narrow"))
    assert wide > 1.2 * narrow


@fonts
@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_the_page_never_scrolls_sideways(visit, width, font):
    page = visit(width, font)
    page.locator("summary", has_text="Every parameter").click()
    assert overflow(page) <= 0


@fonts
@pytest.mark.parametrize("width", [320, 1280])
def test_no_control_is_wider_than_its_column(visit, width, font):
    page = visit(width, font)
    page.locator("select").evaluate_all(
        "all => all.forEach(e => e.add(new Option('many words '.repeat(30))))"
    )
    page.locator("summary", has_text="Every parameter").click()
    boxes = page.locator(
        "main :is(select, label, fieldset, .choices, .story, pre, .table, th button)"
    )
    wider = boxes.evaluate_all("""all => all.filter(e => {
        const right = e => e.getBoundingClientRect().right;
        const padding = parseFloat(getComputedStyle(e.parentElement).paddingRight);
        return right(e) > right(e.parentElement) - padding + 0.5;
    }).map(e => e.outerHTML.slice(0, 80))""")
    assert wider == []
    assert overflow(page) <= 0


@fonts
def test_no_word_of_a_table_or_of_code_is_broken(visit, font):
    page = visit(320, font)
    page.locator("summary", has_text="Every parameter").click()
    broken = page.locator(":is(th, td, pre)").evaluate_all(r"""all => all.flatMap(cell => {
        const texts = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
        const found = [];
        while (texts.nextNode())
            for (const word of texts.currentNode.data.matchAll(/[^\s–-]+/g)) {
                const range = document.createRange();
                range.setStart(texts.currentNode, word.index);
                range.setEnd(texts.currentNode, word.index + word[0].length);
                const lines = new Set([...range.getClientRects()].map(box => box.top));
                const past = cell.matches("th, td")
                    && range.getBoundingClientRect().right > cell.getBoundingClientRect().right + 1;
                if (lines.size > 1 || past) found.push(word[0]);
            }
        return found;
    })""")
    assert broken == []


def test_a_wide_table_scrolls_in_a_region_that_the_keyboard_reaches(visit):
    page = visit(360)
    page.locator("summary", has_text="Every parameter").click()
    page.locator("details pre").evaluate("e => { e.textContent = 'word'.repeat(50); }")
    page.wait_for_function("document.querySelector('details pre').tabIndex === 0")
    regions = page.locator(".table, pre").evaluate_all(
        "all => all.map(e => [e.scrollWidth > e.clientWidth, e.tabIndex === 0])"
    )
    assert any(scrolls for scrolls, _ in regions)
    assert all(scrolls == stops for scrolls, stops in regions)


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_accessibility_check_finds_nothing(visit, width, scheme):
    found = Axe().run(visit(width, color_scheme=scheme))
    assert found.violations_count == 0, found.generate_report()


def test_dark_mode_darkens_the_page_and_leaves_figures_on_white(visit):
    page = visit(color_scheme="dark")
    background = "e => getComputedStyle(e).backgroundColor"
    assert page.locator("body").evaluate(background) == "rgb(22, 24, 27)"
    assert page.locator("figure img").first.evaluate(background) == "rgb(255, 255, 255)"
    assert visit(color_scheme="light").locator("body").evaluate(background) == "rgb(255, 255, 255)"


def test_nothing_moves_for_a_reader_who_wants_no_motion(visit):
    scrolling = "getComputedStyle(document.documentElement).scrollBehavior"
    assert visit(reduced_motion="no-preference").evaluate(scrolling) == "smooth"
    assert visit(reduced_motion="reduce").evaluate(scrolling) == "auto"


def test_the_first_stop_of_the_keyboard_skips_to_the_report(visit):
    page = visit()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the report"
    page.keyboard.press("Enter")
    assert page.url.endswith("#report")


def test_the_contents_stand_beside_the_text_or_folded_above_it(visit):
    page = visit(reduced_motion="reduce")
    assert page.locator("nav ol").is_visible()
    page.locator("nav a", has_text="Limits").click()
    assert page.locator("nav [aria-current]").inner_text() == "Limits"
    assert page.locator("nav ol").bounding_box()["y"] >= 0  # it stays in view
    narrow = visit(360)
    assert not narrow.locator("nav ol").is_visible()
    narrow.locator("nav summary").press("Enter")
    assert narrow.locator("nav ol").is_visible()


def test_without_scripts_the_page_is_whole(visit):
    page = visit(360, java_script_enabled=False)
    assert page.locator("nav ol").is_visible()
    assert page.locator("article.story:visible").count() == len(LOSSES) * len(PROMPTS)
    assert not page.locator(".browser").is_visible()
    assert page.get_by_role("button").count() == 0


def test_on_paper_the_page_is_light_and_shows_what_a_screen_folds(visit):
    page = visit(color_scheme="dark")
    page.emulate_media(media="print")
    assert page.locator("body").evaluate("e => getComputedStyle(e).color") == "rgb(0, 0, 0)"
    assert not page.locator("nav").is_visible()
    assert not page.locator(".browser").is_visible()
    assert page.locator("article.story:visible").count() == len(LOSSES) * len(PROMPTS)
    assert page.locator("details pre", has_text="sweep:").is_visible()


# --- tables ------------------------------------------------------------------------------------


def test_a_table_sorts_by_value_and_back_by_keyboard(visit, study):
    page = visit()
    table = page.locator(".table", has_text="the best loss first")
    head = table.get_by_role("columnheader", name="nll, nats per token")
    names = table.locator("tbody th")
    before = names.all_inner_texts()
    metrics = pd.read_csv(study / "results/metrics.csv").sort_values("nll")
    ascending = [_row_name(row) for row in metrics.itertuples()]
    for order, expected in (
        ("ascending", ascending), ("descending", ascending[::-1]), (None, before)
    ):  # fmt: skip
        head.get_by_role("button").press("Enter")
        assert head.get_attribute("aria-sort") == order
        assert names.all_inner_texts() == expected


def _row_name(row) -> str:
    """The name on the page of a row of metrics.csv."""
    return {"loss": label, "ngram": "{} counts".format}.get(row.kind, str)(row.loss)


def test_a_table_is_sorted_by_one_column_and_cells_without_a_number_come_last(visit):
    page = visit()
    table = page.locator(".table", has_text="the best loss first")
    table.get_by_role("button", name="loss").click()
    names = table.locator("tbody th").all_inner_texts()
    assert names == sorted(names, key=str.casefold)
    for _ in ("ascending", "descending"):
        table.get_by_role("button", name="nll − cross entropy’s").press("Space")
        last = table.locator("tbody th").all_inner_texts()[len(LOSSES) - 1 :]
        assert last[0] == "cross entropy"
        assert last[-1] == "source entropy"
    assert table.locator("[aria-sort]").count() == 1


# --- figures -----------------------------------------------------------------------------------


def test_a_figure_enlarges_and_escape_closes_it_by_keyboard(visit):
    page = visit()
    button = page.get_by_role("button", name="Enlarge").first
    small = button.locator("img").bounding_box()["width"]
    button.press("Enter")
    dialog = page.get_by_role("dialog")
    assert dialog.locator("img").bounding_box()["width"] > small
    assert page.evaluate("document.querySelector('dialog').contains(document.activeElement)")
    assert Axe().run(page).violations_count == 0
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert button.evaluate("e => e === document.activeElement")


@fonts
def test_on_a_phone_a_figure_scrolls_in_its_own_box_and_is_as_legible(visit, font):
    page = visit(360, font)
    for figure in page.locator("figure").all():
        image, caption = figure.locator("img"), figure.locator("figcaption")
        assert image.bounding_box()["width"] >= 640
        figure.get_by_role("button").focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_function("e => e.scrollLeft > 0", arg=figure.element_handle())
        figure.evaluate("e => e.scrollTo({ left: 9999, behavior: 'instant' })")
        assert image.bounding_box()["x"] + image.bounding_box()["width"] <= 360
        box = caption.bounding_box()  # the caption does not scroll
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 360
    assert overflow(page) <= 0


# --- stories -----------------------------------------------------------------------------------


def expected(sample: dict) -> str:
    text = visible(sample["text"])
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} …"


def test_two_stories_of_ones_choice_stand_side_by_side(visit, samples):
    page = visit()
    first, second = page.locator("fieldset").all()
    page.get_by_label("prompt").select_option("There was a")
    for side, loss, seed in ((first, "squentropy", 2), (second, "mse", 1)):
        side.get_by_label("loss").select_option(label(loss))
        side.get_by_label("temperature").select_option("0.8")
        side.get_by_label("seed").select_option(str(seed))
        chosen = {"prompt": "There was a", "loss": loss, "temperature": 0.8, "seed": seed}
        sample = next(s for s in samples if s | chosen == s)
        assert side.locator("p").text_content() == expected(sample)
        assert f"seed {seed}, temperature 0.8" in side.get_by_role("status").inner_text()
    assert first.bounding_box()["y"] == second.bounding_box()["y"]


@fonts
def test_no_story_is_more_than_text(visit, samples, font):
    page = visit(360, font)
    side = page.locator("fieldset").first
    seen = set()
    for sample in samples:
        page.get_by_label("prompt").select_option(sample["prompt"])
        side.get_by_label("loss").select_option(label(sample["loss"]))
        side.get_by_label("temperature").select_option(str(sample["temperature"]))
        side.get_by_label("seed").select_option(str(sample["seed"]))
        assert side.locator("p").text_content() == expected(sample)
        assert overflow(page) <= 0
        seen.add(sample["text"])
    assert seen == set(HOSTILE)
    assert page.evaluate("window.pwned === undefined")
    assert page.locator(".story p *:not(b), .story b *").count() == 0


def test_stories_leave_the_page_as_it_is(visit, samples):
    """The static stories, outside the interactive browser: one article per loss and prompt."""
    page = visit()
    cards = page.locator("article.story p").evaluate_all("all => all.map(p => p.textContent)")
    assert len(cards) == len(LOSSES) * len(PROMPTS)
    told = [expected(sample) for sample in samples]
    assert [card for card in cards if card not in told] == []
    assert page.locator("h2").count() == page.locator("nav a").count()
    assert page.locator("main > h2").last.inner_text() == "References"
    assert page.locator("script").count() == 2 + 3  # data and code
    assert page.evaluate("document.body.lastElementChild.tagName") == "DIALOG"
