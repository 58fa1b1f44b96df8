"""Find the code blocks of Markdown pages, and run those marked `run`.

    python tests/pages.py docs/tutorials/first-study.md

runs the blocks with `run` after their language, in the working folder and in order, until one
fails. Python blocks share their variables; each shell block starts a new shell.
"""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token


@dataclass(frozen=True)
class Block:
    """A fenced block: language, other words of the info string, text and line number."""

    language: str
    words: tuple[str, ...]
    text: str
    line: int


def tokens(page: Path) -> Iterator[Token]:
    """Every token of a page, including inline tokens."""
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text(encoding="utf-8")):
        yield token
        yield from token.children or ()


def blocks(page: Path) -> list[Block]:
    found = []
    for token in tokens(page):
        if token.type == "fence":
            language, *words = token.info.split() or [""]
            found.append(Block(language, tuple(words), token.content, token.map[0] + 1))
    return found


def run(page: Path) -> None:
    """Run a page's blocks; raises the exception of the first block that fails."""
    names = {"__name__": "__main__"}
    for block in blocks(page):
        if "run" not in block.words:
            continue
        print(f"--- {page}:{block.line}", flush=True)
        if block.language == "python":
            exec(compile(block.text, f"{page}:{block.line}", "exec"), names)
        else:
            subprocess.run(["bash", "-euo", "pipefail", "-c", block.text], check=True)


if __name__ == "__main__":
    run(Path(sys.argv[1]))
