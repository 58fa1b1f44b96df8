"""The report as a PDF, by a browser that may be missing or fail."""

import re
import shutil

import pytest

from squentropy.errors import SquentropyError
from squentropy.report import pdf

PAGE = "<!doctype html><title>A page</title><p>Text<p style='break-before: page'>More"


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "a page.html"
    path.write_text(PAGE)
    return path


def browser(folder, monkeypatch, script):
    """A browser that does what a shell script says."""
    path = folder / "chromium"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(pdf, "chromium", lambda: str(path))


@pytest.mark.skipif(not any(map(shutil.which, pdf.BROWSERS)), reason="there is no Chromium here")
def test_a_page_is_printed(page, tmp_path):
    pdf.print_page(page, tmp_path / "out.pdf")
    printed = (tmp_path / "out.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type /Page\b", printed)) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a page.html", "out.pdf"]


def test_a_missing_browser_is_one_line_that_names_the_package(page, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(SquentropyError, match=r"chromium: not found; .* package `chromium`"):
        pdf.print_page(page, tmp_path / "out.pdf")
    assert not (tmp_path / "out.pdf").exists()


def test_a_missing_page_is_one_line(tmp_path):
    with pytest.raises(SquentropyError, match=r"no\.html: does not exist; write the report first"):
        pdf.print_page(tmp_path / "no.html", tmp_path / "out.pdf")


@pytest.mark.parametrize("script", ["echo no display >&2; exit 1", "echo no display >&2"])
def test_a_browser_that_fails_leaves_what_was_there(page, tmp_path, monkeypatch, script):
    browser(tmp_path, monkeypatch, script)
    (tmp_path / "out.pdf").write_text("before")
    with pytest.raises(SquentropyError, match=r"out\.pdf: .* printed no PDF; it says: no display"):
        pdf.print_page(page, tmp_path / "out.pdf")
    assert (tmp_path / "out.pdf").read_text() == "before"


def test_a_browser_that_hangs_is_given_up(page, tmp_path, monkeypatch):
    browser(tmp_path, monkeypatch, "exec sleep 60")
    monkeypatch.setattr(pdf, "PATIENCE", 0.1)
    with pytest.raises(SquentropyError, match=r"printed nothing in 0\.1 seconds"):
        pdf.print_page(page, tmp_path / "out.pdf")
