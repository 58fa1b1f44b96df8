"""Print the report to PDF with Chromium; nothing else in the study needs a browser.

squentropy pdf report/grammar/index.html report/grammar/report.pdf
"""

import os
import shutil
import subprocess
from pathlib import Path

from squentropy.base import storage
from squentropy.base.errors import SquentropyError

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-pdf-header-footer",
    "--generate-pdf-document-outline",
)
PATIENCE = 120  # seconds


def chromium() -> str:
    """The browser's path. Raises SquentropyError if none is installed."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise SquentropyError(
            "chromium: not found; a PDF is printed by it: install Debian's package `chromium`"
        )
    return found


def print_page(page: str | Path, out: str | Path) -> None:
    """Print a local page to PDF.

    Raises SquentropyError if the page or the browser is missing, or if the browser fails; for
    root, also if the page is not a report of this version.
    """
    page = Path(page).resolve()
    if not page.is_file():
        raise SquentropyError(f"{page}: does not exist; write the report first")
    browser, flags = chromium(), [*FLAGS, *_without_sandbox(page)]
    with storage.scratch(out) as profile, storage.atomic(out) as temporary:
        command = [browser, *flags, f"--user-data-dir={profile}"]
        command += [f"--print-to-pdf={temporary}", page.as_uri()]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=PATIENCE
            )
        except subprocess.TimeoutExpired:
            raise SquentropyError(
                f"{out}: the browser printed nothing in {PATIENCE} seconds; try again"
            ) from None
        if done.returncode or not temporary.stat().st_size:
            said = done.stderr.strip().splitlines() or ["nothing"]
            raise SquentropyError(f"{out}: the browser printed no PDF; it says: {said[-1]}")


def _without_sandbox(page: Path) -> list[str]:
    """Chromium's sandbox does not run as root, so root may print only our own page, without it."""
    if os.geteuid() != 0:
        return []
    from squentropy.report.render import is_report

    if not is_report(page.read_text(encoding="utf-8", errors="replace")):
        raise SquentropyError(
            f"{page}: is no report of this version, and as root the browser has no sandbox for "
            "other pages; make the report anew, or print it as another user"
        )
    return ["--no-sandbox"]
