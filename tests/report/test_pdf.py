"""Printing the report as a PDF with a browser that may be missing or fail."""

import re
import shutil

import nbformat
import pytest

from squentropy.base.errors import SquentropyError
from squentropy.report import pdf, render


@pytest.fixture
def page(tmp_path):
    """A report with a few pages."""
    path = tmp_path / "a page.html"
    text = nbformat.v4.new_markdown_cell("A paragraph.\n\n" * 60)
    path.write_text(render.to_html(nbformat.v4.new_notebook(cells=[text]), "tiny"))
    return path


def browser(folder, monkeypatch, script):
    """Replace the browser by a shell script."""
    path = folder / "chromium"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(pdf, "chromium", lambda: str(path))


@pytest.mark.skipif(not any(map(shutil.which, pdf.BROWSERS)), reason="there is no Chromium here")
def test_a_page_is_printed(page, tmp_path):
    pdf.print_page(page, tmp_path / "out.pdf")
    printed = (tmp_path / "out.pdf").read_bytes()
    assert printed.startswith(b"%PDF")
    assert len(re.findall(rb"/Type /Page\b", printed)) > 1
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


def foreign(page: str) -> list[str]:
    """Pages that are not a report of this version, though some look like one."""
    script = re.search(r"script-src '([^']*)'", page)[1]
    return [
        "<!doctype html><title>A page</title>",
        f"<script>1</script>{page}",
        page.replace(script, "unsafe-inline", 1),
        page.replace("default-src 'none'", "default-src *", 1),
        "",
    ]


@pytest.mark.parametrize("which", range(5))
def test_as_root_only_a_report_is_printed_for_there_is_no_sandbox(
    page, tmp_path, monkeypatch, which
):
    browser(tmp_path, monkeypatch, f"echo $* >> {tmp_path}/called; exit 1")
    monkeypatch.setattr(pdf.os, "geteuid", lambda: 0)
    report = page.read_text()
    page.write_text(foreign(report)[which])
    with pytest.raises(SquentropyError, match=r"a page\.html: is no report of this version"):
        pdf.print_page(page, tmp_path / "out.pdf")
    assert not (tmp_path / "called").exists()
    monkeypatch.setattr(pdf.os, "geteuid", lambda: 1000)
    with pytest.raises(SquentropyError, match="printed no PDF"):
        pdf.print_page(page, tmp_path / "out.pdf")
    assert "--no-sandbox" not in (tmp_path / "called").read_text()
    monkeypatch.setattr(pdf.os, "geteuid", lambda: 0)
    page.write_text(report)
    with pytest.raises(SquentropyError, match="printed no PDF"):
        pdf.print_page(page, tmp_path / "out.pdf")
    assert "--no-sandbox" in (tmp_path / "called").read_text()


def test_the_browsers_folder_lies_beside_the_pdf_and_does_not_stay(page, tmp_path, monkeypatch):
    browser(tmp_path, monkeypatch, f"echo $* > {tmp_path}/called; exit 1")
    with pytest.raises(SquentropyError):
        pdf.print_page(page, tmp_path / "out.pdf")
    profile = re.search(r"--user-data-dir=(\S+)", (tmp_path / "called").read_text())[1]
    assert profile.startswith(f"{tmp_path}/.out.pdf.folder.")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a page.html", "called", "chromium"]
