"""The report's models compute the same in a real browser as in torch.

pytest tests/report/test_ask.py       # skipped without Chromium
"""

import functools
import math
import re
from dataclasses import replace
from pathlib import Path

import fake_results
import nbformat
import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe

from squentropy.report import read, render
from squentropy.report.markup import visible
from squentropy.report.sections import voices as section
from squentropy.results import voices
from squentropy.sampling.generate import _choose, generate
from squentropy.study.catalogue import label

LOSSES = ["cross_entropy", "squentropy", "mse", "squentropy(0.1)"]
TOLD = ["cross_entropy", "squentropy", "squentropy(0.1)"]
MAX_TOKENS = 40  # exceeds the models' context of 16
HELD = "JSON.parse(document.getElementById('voices').textContent)"

models = pytest.mark.parametrize("number", range(len(TOLD)))


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> read.Results:
    folder = tmp_path_factory.mktemp("study") / "results"
    sweep = {"losses": LOSSES, "lr": [0.001, 0.004], "dropout": [0.0], "n_layer": [2]}
    sample = {"prompts": ["Once upon a time"], "max_tokens": MAX_TOKENS, "temperatures": [0.5]}
    return read.read(fake_results.write(folder, stories=5, sweep=sweep, sample=sample))


@pytest.fixture(scope="module")
def path(results, tmp_path_factory) -> Path:
    """A page with only this section."""
    shown = nbformat.v4.new_output("display_data", {"text/html": section.ask(results)})
    title = nbformat.v4.new_markdown_cell("# A study")
    notebook = nbformat.v4.new_notebook(cells=[title, nbformat.v4.new_code_cell(outputs=[shown])])
    path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_text(render.to_html(notebook, "fake"), encoding="utf-8")
    return path


@pytest.fixture
def visit(visitor, path):
    return functools.partial(visitor, path)


@pytest.fixture
def page(visit):
    return visit()


@functools.cache
def rounded(number: int):
    return voices.unpack(voices.pack(fake_results.model(number)))


def place(page, loss):
    return page.get_by_role("region", name=label(loss), exact=True)


def chosen(page, name: str):
    return page.get_by_role("checkbox", name=name, exact=True)


def told(page) -> dict[str, str]:
    """Wait for all stories to end and return their texts by the loss's label."""
    page.get_by_role("button", name="Tell").wait_for()
    sections = page.locator(".ask section:visible").all()
    return {s.get_attribute("aria-label"): s.locator(".story p").text_content() for s in sections}


# --- computations --------------------------------------------------------------------------------

TEXTS = [
    "Once upon a time, there was a small fox named Tim.",
    "",
    "  two spaces, a tab\tand lines\n\n \n of  them   ",
    "don't we'll I'VE they're 'twas'",
    "Zoë ate 1234 piñatas; naïve 日本語 текст ١٢٣",
    "🌳👩‍👩‍👧 🇨🇭 ❤️ e\u0301\u0301",
    "next\x85line, nbsp\u00a0, \ufeffmark\ufeff, \u2028 \u2029 \u200b \u3000 \u180e x",
    "<|endoftext|> is text here",
    "\x00\x01\x1f\x7f",
    "a" * 300 + "!?" * 50,
]


@pytest.mark.parametrize("text", TEXTS)
def test_text_becomes_the_tokens_of_tiktoken_and_these_its_bytes(page, text):
    ids, back = page.evaluate(
        f"""text => {{
            const held = {HELD}, vocabulary = new Vocabulary(held.vocabulary, held.pattern);
            const ids = vocabulary.encode(text);
            return [ids, ids.flatMap(id => [...vocabulary.bytes(id)])];
        }}""",
        text,
    )
    assert ids == fake_results.encoding().encode_ordinary(text)
    assert bytes(back) == text.encode()


def logits(page, number: int, ids: list[int]) -> torch.Tensor:
    """The logits of the page's model after each token."""
    program = f"""([number, ids]) => {{
        const model = new Model({HELD}.models[number]);
        return ids.map(id => [...model.logits(model.read(id))]);
    }}"""
    return torch.tensor(page.evaluate(program, [number, ids]))


@torch.no_grad()
def expected(model, ids: list[int]) -> torch.Tensor:
    return model(torch.tensor([ids]))[0] @ model.wte.weight.T


@models
def test_logits_are_those_of_torch_and_no_further_from_the_runs_than_is_said(page, results, number):
    ids = fake_results.story_tokens()
    shown = logits(page, number, ids)
    exact = expected(rounded(number), ids)
    assert exact.abs().max() > 1
    assert (shown - exact).abs().max() < 1e-4 * exact.abs().max()
    error = results.voices["voices"][number]["rounding"]["error"]
    off = (shown - expected(fake_results.model(number), ids)).abs().max().item()
    assert 0.9 * error < off < 1.001 * error


def test_the_page_says_the_largest_error_and_cost(page, results):
    each = [voice["rounding"] for voice in results.voices["voices"]]
    error, cost = (max(e[key] for e in each) for key in ("error", "cost"))
    text = page.locator("main").inner_text().replace("−", "-")
    assert f"On 15 test tokens that moves no logit by more than {error:.2f}, and costs " in text
    assert f"costs {cost:.4f} nats per token at most" in text


def test_a_token_is_drawn_as_the_study_draws_it(page):
    rng = np.random.default_rng(0)
    for temperature, top_k in ((0, 5), (0.5, 0), (0.8, 5), (1.0, 1), (2.0, 50), (5e-324, 0)):
        rows = rng.normal(0, 2, (30, 40)).astype(np.float32)
        rows[:, 7] = rows[:, 3]  # a tie, possibly at the top-k cutoff
        uniform = rng.random(30).tolist()
        drawn = page.evaluate(
            """([rows, temperature, top_k, uniform]) => rows.map((row, i) =>
                chosen(Float32Array.from(row), temperature, top_k, () => uniform[i]))""",
            [rows.tolist(), temperature, top_k, uniform],
        )
        assert drawn == _choose(torch.from_numpy(rows), temperature, top_k, uniform)


def test_draws_are_uniform_and_another_seed_has_others(page):
    many = "seed => Array.from({ length: 4000 }, drawing(seed))"
    first, again, second = (page.evaluate(many, seed) for seed in (1, 1, 2))
    assert first == again
    assert len({*first, *second}) > 7990
    for draws in (first, second):
        assert 0 <= min(draws) < 0.01 < 0.99 < max(draws) < 1
        assert abs(np.mean(draws) - 0.5) < 4 / math.sqrt(12 * 4000)


@models
def test_the_likeliest_tokens_are_those_of_the_primary_reading(page, number):
    ids = fake_results.story_tokens()[:5]
    program = f"""([number, ids]) => {{
        const held = {HELD}.models[number], model = new Model(held);
        let hidden;
        for (const id of ids) hidden = model.read(id);
        return judged({{ token: 3, logits: model.logits(hidden) }}, held.temperature);
    }}"""
    found = page.evaluate(program, [number, ids])
    shares = (expected(rounded(number), ids)[-1].double() / 0.9).softmax(-1)
    top = shares.topk(5)
    assert found["share"] == pytest.approx(shares[3].item(), rel=1e-3)
    assert [token for token, _ in found["likeliest"]] == top.indices.tolist()
    assert [share for _, share in found["likeliest"]] == pytest.approx(top.values.tolist(), 1e-3)


# --- stories -------------------------------------------------------------------------------------


@functools.cache
def greedy(number: int, prompt: str, max_tokens: int = MAX_TOKENS) -> list[int]:
    encoding = fake_results.encoding()
    how = {"temperature": 0, "top_k": 50, "max_tokens": max_tokens, "seed": 0}
    ids = [encoding.encode_ordinary(prompt)]
    return generate(rounded(number), ids, end_of_text=encoding.eot_token, **how)[0]


@pytest.mark.parametrize("prompt", ["Tim 🌳 ", "", "The owl flew up and brought it down. " * 3])
def test_greedy_stories_are_told_side_by_side_token_by_token_as_by_torch(page, prompt):
    page.get_by_label("beginning").fill(prompt)
    page.get_by_label("temperature").fill("0")
    page.get_by_role("button", name="Tell").click()
    new = [greedy(number, prompt) for number in range(len(TOLD))]
    assert max(map(len, new)) == MAX_TOKENS
    decode = fake_results.encoding().decode
    assert told(page) == {
        label(loss): prompt + visible(decode(ids)) for loss, ids in zip(TOLD, new, strict=True)
    }
    for loss, ids in zip(TOLD, new, strict=True):
        said = place(page, loss).locator("footer").inner_text()
        how = "cut at the limit" if len(ids) == MAX_TOKENS else "ended by itself"
        assert said == f"{len(ids)} tokens, {how}"


def test_stories_are_others_each_time_and_the_same_after_a_reload(visit):
    twice = []
    for page in (visit(), visit()):
        stories = []
        for _ in range(2):
            page.get_by_role("button", name="Tell").click()
            stories.append(told(page))
        twice.append(stories)
    assert twice[0] == twice[1]
    assert twice[0][0] != twice[0][1]
    assert all(text.startswith("Once upon a time") for text in twice[0][0].values())


def test_the_losses_that_are_chosen_tell_and_no_others(page):
    button = page.get_by_role("button", name="Tell")
    button.click()
    assert told(page).keys() == {label(loss) for loss in TOLD}
    chosen(page, "cross entropy").uncheck()
    chosen(page, "squentropy").uncheck()
    button.click()
    assert told(page).keys() == {"squentropy (0.1)"}
    chosen(page, "squentropy (0.1)").uncheck()
    assert button.is_disabled()
    page.get_by_label("beginning").press("Enter")
    assert told(page).keys() == {"squentropy (0.1)"}
    chosen(page, "cross entropy").check()
    assert button.is_enabled()


@pytest.mark.parametrize("value", ["", "-1", "11"])
def test_a_temperature_that_is_none_tells_nothing_and_is_pointed_at(page, value):
    field = page.get_by_label("temperature")
    field.fill(value)
    field.press("Enter")
    assert told(page) == {}
    assert page.evaluate("document.activeElement.name") == "temperature"


def endless(page, prompt: str) -> None:
    """Let the first model begin a story that never ends."""
    assert len(greedy(0, prompt, 1000)) == 1000
    page.evaluate(f"""() => {{
        const text = JSON.stringify({{ ...{HELD}, max_tokens: 1e9 }});
        document.getElementById("voices").textContent = text;
    }}""")
    for loss in TOLD[1:]:
        chosen(page, label(loss)).uncheck()
    page.get_by_label("temperature").fill("0")
    page.get_by_label("beginning").fill(prompt)
    page.get_by_label("beginning").press("Enter")


@pytest.mark.parametrize("how", ["Escape", "the button"])
def test_tokens_are_seen_as_they_come_the_page_stays_alive_and_a_story_can_be_stopped(page, how):
    endless(page, "Tim wanted")
    story = place(page, TOLD[0]).locator(".story")
    spans = story.locator("span")
    spans.nth(5).wait_for(state="attached")
    spans.nth(spans.count() + 5).wait_for(state="attached")
    assert story.get_attribute("aria-busy") == "true"
    if how == "Escape":
        page.keyboard.press("Escape")
    else:
        page.get_by_role("button", name="Stop").click()
    page.get_by_role("button", name="Tell").wait_for()
    many = spans.count()
    assert story.locator("footer").inner_text() == f"{many} tokens, stopped"
    assert story.get_attribute("aria-busy") is None
    page.evaluate("() => new Promise(resolve => setTimeout(resolve, 50))")
    assert spans.count() == many


# --- inspecting a token --------------------------------------------------------------------------


def test_a_token_is_looked_at_by_pointing_and_by_keyboard(page):
    page.get_by_label("temperature").fill("0")
    page.get_by_label("beginning").fill("The owl flew")
    page.get_by_role("button", name="Tell").click()
    told(page)
    here = place(page, TOLD[0])
    slider, looked = here.get_by_role("slider"), here.locator(".looked")
    assert (
        here.locator(".token p").first.inner_text() == here.locator("li").first.inner_text()
    )  # greedy
    spans = here.locator(".story span")
    page.keyboard.press("Tab")  # to the next button
    page.keyboard.press("Tab")
    assert slider.evaluate("e => e === document.activeElement")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert slider.input_value() == "3"
    assert looked.evaluate("e => [...e.parentElement.children].indexOf(e)") == 3  # after the prompt
    said = here.locator(".token p").first.inner_text()
    others = here.locator("li").all_inner_texts()
    assert len(others) == 5
    assert all(re.fullmatch(r"(“.*”|end of story) (< 0\.1|\d+\.\d) %", text) for text in others)
    assert slider.get_attribute("aria-valuetext") == f"{said}; likeliest: {', '.join(others)}"
    page.keyboard.press("End")
    assert slider.input_value() == str(spans.count())
    at = next(i for i in range(5, 30) if spans.nth(i).inner_text().strip())
    spans.nth(at).hover()
    assert slider.input_value() == str(at + 1)
    assert looked.count() == 1


def test_a_test_story_is_read_beside_the_exact_probabilities(page, results):
    story = results.voices["story"]
    page.get_by_role("button", name="Read a test story").click()
    decode = fake_results.encoding().decode
    assert told(page) == dict.fromkeys(map(label, TOLD), decode(story["ids"][:-1]))
    for number, loss in enumerate(TOLD):
        here = place(page, loss)
        assert (
            here.locator("footer").inner_text()
            == f"{len(story['ids']) - 1} tokens, read to the end"
        )
        here.get_by_role("slider").fill("3")
        ids = [fake_results.encoding().eot_token, *story["ids"]]
        shares = (expected(rounded(number), ids[:3])[-1].double() / 0.9).softmax(-1)
        word, share = here.locator(".token p").first.inner_text().rsplit("” ", 1)
        assert word == "“" + decode(ids[3:4])
        assert share == percent(shares[ids[3]].item())
        exact, (first, second) = story["exact"][2]
        names = [f"“{visible(decode([token]))}” {percent(p)}" for token, p in (first, second)]
        said = f"the grammar: {word}” {percent(exact)}; likeliest: {', '.join(names)}"
        shown = here.locator(".source").text_content()
        assert shown.replace("\u00a0", " ") == said
        assert here.get_by_role("slider").get_attribute("aria-valuetext").endswith(shown)
    page.get_by_role("button", name="Tell").click()
    told(page)
    assert place(page, TOLD[0]).locator(".source").text_content() == ""


def percent(share: float) -> str:
    return "< 0.1 %" if share < 0.0005 else f"{100 * share:.1f} %"


def test_nothing_is_read_where_no_story_is_held(results):
    without = replace(results, voices={**results.voices, "story": None})
    assert "test story" in section.ask(results)
    assert "test story" not in section.ask(without)


# --- the section ---------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [320, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_accessibility_check_finds_nothing_and_nothing_is_too_wide(visit, width, scheme):
    page = visit(width, color_scheme=scheme)
    page.get_by_role("button", name="Tell").click()
    told(page)
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_what_is_typed_is_text(page):
    prompt = "<img src=x onerror=window.pwned=1> </b> \u202e"
    page.get_by_label("beginning").fill(prompt)
    page.get_by_role("button", name="Tell").click()
    assert all(text.startswith(visible(prompt)) for text in told(page).values())
    assert page.locator(".story img").count() == 0


def test_without_scripts_the_section_says_so_and_offers_nothing(visit):
    page = visit(java_script_enabled=False)
    assert page.get_by_text("This needs JavaScript").is_visible()
    assert visit().get_by_text("This needs JavaScript").count() == 0
    assert page.get_by_role("textbox").count() == page.get_by_role("button").count() == 0
    assert "{" not in page.locator("main").inner_text()


def test_a_study_without_models_has_no_section(results):
    assert section.ask(results) != ""
    none = {**results.voices, "voices": []}
    assert section.ask(replace(results, voices=none)) == ""
