"""The report as a PDF, printed by Chromium; nothing else of the study needs a browser.

squentropy pdf report/grammar/index.html report/grammar/report.pdf
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from squentropy import storage
from squentropy.errors import SquentropyError

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
    """Print a page of this machine to a PDF.

    Raises SquentropyError if the page or the browser is missing, or the browser fails.
    """
    page = Path(page).resolve()
    if not page.is_file():
        raise SquentropyError(f"{page}: does not exist; write the report first")
    # Chromium's sandbox refuses to run as root. The page is our own, and its policy loads nothing.
    flags = [*FLAGS, "--no-sandbox"] if os.geteuid() == 0 else list(FLAGS)
    with (
        tempfile.TemporaryDirectory(
            prefix="squentropy-pdf-", ignore_cleanup_errors=True
        ) as profile,
        storage.atomic(out) as temporary,
    ):
        command = [chromium(), *flags, f"--user-data-dir={profile}"]
        command += [f"--print-to-pdf={temporary}", page.as_uri()]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise SquentropyError(
                f"{out}: the browser printed nothing in {PATIENCE} seconds; try again"
            ) from None
        if done.returncode or not temporary.stat().st_size:
            said = done.stderr.strip().splitlines() or ["nothing"]
            raise SquentropyError(f"{out}: the browser printed no PDF; it says: {said[-1]}")
