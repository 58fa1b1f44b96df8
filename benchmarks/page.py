"""The report in Chromium: time to the first view and to the first token, to write and to print it.

    python benchmarks/page.py results/grammar report/grammar/figures

Each round starts a new browser, so nothing is cached. Seen: the first contentful paint, from the
start of the navigation. First token: from the first click on the button of "Ask the models", with
all models at once. Medians of five after a warm-up. Prints a Markdown table.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import shared
from playwright.sync_api import sync_playwright

from squentropy.report import pdf, render

PAINTED = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
FIRST = """new Promise((resolve) => {
    const start = performance.now();
    const look = () => {
        if (document.querySelector(".ask .story span")) resolve(performance.now() - start);
        else setTimeout(look);
    };
    document.querySelector(".ask button").click();
    look();
})"""
LOADED = "performance.getEntriesByType('navigation')[0].loadEventEnd"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path)
    parser.add_argument("figures", type=Path)
    options = parser.parse_args()

    print(shared.machine("the browser's own"))
    with tempfile.TemporaryDirectory() as folder:
        page, printed = Path(folder) / "index.html", Path(folder) / "report.pdf"
        writing = seconds(lambda: render.render(options.results, options.figures, page))
        printing = seconds(lambda: pdf.print_page(page, printed))
        seen, whole, told = zip(*(visit(page) for _ in range(shared.ROUNDS + 1)), strict=True)
        shared.table(
            ["measure", "value"],
            [
                ["size of the page, MB", f"{page.stat().st_size / 1e6:.2f}"],
                ["first seen after, ms", f"{statistics.median(seen[1:]):.0f}"],
                ["loaded after, ms", f"{statistics.median(whole[1:]):.0f}"],
                ["first token after, ms", f"{statistics.median(told[1:]):.0f}"],
                ["written in, s", f"{writing:.1f}"],
                ["printed in, s", f"{printing:.1f}"],
                ["size of the PDF, MB", f"{printed.stat().st_size / 1e6:.2f}"],
            ],
        )


def seconds(do) -> float:
    start = time.perf_counter()
    do()
    return time.perf_counter() - start


def visit(path: Path) -> tuple[float, float, float]:
    """Milliseconds to the first view, to the end of loading, and from a click to a token."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=pdf.chromium(), chromium_sandbox=False)
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        page.goto(path.resolve().as_uri())
        page.wait_for_function(f"{PAINTED} > 0")
        times = page.evaluate(PAINTED), page.evaluate(LOADED), page.evaluate(FIRST)
        browser.close()
    return times


if __name__ == "__main__":
    main()
