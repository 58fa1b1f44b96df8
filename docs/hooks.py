"""Hooks of mkdocs that generate parts of the site from the repository.

    mkdocs build --strict       # mkdocs.yml names this file

- A comment such as `<!-- parameters -->` is replaced by the text that `DRAWN` has for it.
- The word `run` after a block's language is removed: it is for the tests.
- A link to a file outside docs/ leads to its copy in the site, under repository/.
- Formulas become MathML, which needs no scripts or fonts.
"""

import functools
import html
import json
import math
import posixpath
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import griffe
import pandas as pd
import typer
import yaml
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from typer.cli import get_docs_for_click

from squentropy.base.errors import SquentropyError
from squentropy.cli import app
from squentropy.report import summary
from squentropy.report.format import DASH, integer, nats, number, short, unknown
from squentropy.report.read import read
from squentropy.study import params
from squentropy.study.catalogue import label
from squentropy.tools import leaderboard

log = get_plugin_logger("squentropy")

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
LINK = re.compile(  # to a file of the repository
    r"(?P<start>!?\[(?P<text>[^\]]*)\])\((?![a-z]+:|#)(?P<path>[^)\s#]+)(?P<anchor>(?:#[^)\s]*)?)\)"
)
EXAMPLE = re.compile(r"^Example: (.+?)\n\n", re.MULTILINE | re.DOTALL)
CONTINUED = "\\\n"  # where the shell joins two lines
RUN = re.compile(r"^( *`{3,}\w+) run$", re.MULTILINE)  # blocks that tests/pages.py runs
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
FENCE = re.compile(r"^( *)(`{3,}).*?^\1\2`*$", re.MULTILINE | re.DOTALL)


# --- links out of docs/ -------------------------------------------------------------------------


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the repository's files that pages link to, directly or through one another."""
    pages = [DOCS / file.src_uri for file in files.documentation_pages()]
    known = set(pages)
    for page in pages:
        for link in _links(_drawn(page.read_text("utf-8"))):
            target = _target(page, link)
            if target in known or target.is_relative_to(DOCS) or not target.is_file():
                continue
            known.add(target)
            if target.suffix == ".md":
                pages.append(target)
            files.append(File.generated(config, _place(target), abs_src_path=str(target)))
    return files


def on_page_markdown(markdown: str, page: Page, **_) -> str:
    """Fill in the page's generated parts, and point its links to the files' places in the site."""
    source = ROOT / page.file.src_uri.removeprefix("repository/")
    source = source if page.file.src_uri.startswith("repository/") else DOCS / page.file.src_uri
    markdown = RUN.sub(r"\1", _drawn(markdown))
    return _outside_fences(markdown, lambda text: _relinked(text, source))


def _relinked(text: str, source: Path) -> str:
    folder = posixpath.dirname(_place(source))

    def to(link: re.Match) -> str:
        target = _target(source, link["path"])
        if target.is_dir():
            return link["text"]  # the site has no pages for folders
        if not target.is_relative_to(ROOT) or not target.exists():
            return link[0]  # mkdocs warns about it
        return (
            f"{link['start']}({posixpath.relpath(_place(target), folder or '.')}{link['anchor']})"
        )

    return LINK.sub(to, text)


def _links(markdown: str) -> Iterator[str]:
    return (link["path"] for link in LINK.finditer(FENCE.sub("", markdown)))


def _target(page: Path, link: str) -> Path:
    return Path(posixpath.normpath(posixpath.join(page.parent.as_posix(), link)))


def _place(path: Path) -> str:
    """The place of a file of the repository in the site, as mkdocs writes it."""
    if path.is_relative_to(DOCS):
        return path.relative_to(DOCS).as_posix()
    return f"repository/{path.relative_to(ROOT).as_posix()}"


def _outside_fences(markdown: str, change: Callable[[str], str]) -> str:
    parts, end = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [change(markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(markdown[end:])])


# --- the theme -----------------------------------------------------------------------------------


def on_post_page(output: str, **_) -> str:
    """Label the theme's search for screen readers."""
    search = 'data-md-component="search" role="dialog"'
    return output.replace(search, f'{search} aria-label="Search"')


# --- formulas -----------------------------------------------------------------------------------


def on_page_content(content: str, **_) -> str:
    return FORMULA.sub(_mathml, content)


def _mathml(match: re.Match) -> str:
    display = "block" if match[1] == "div" else "inline"
    return convert(html.unescape(match[2]), display=display)


# --- docstrings ---------------------------------------------------------------------------------


class Columns(griffe.Extension):
    """If a paragraph of a docstring is laid out in columns, show it as code."""

    def on_object(self, *, obj: griffe.Object, **_) -> None:
        if obj.docstring:
            parts = obj.docstring.value.split("\n\n")
            obj.docstring.value = "\n\n".join(map(_as_code_if_columns, parts))


def _as_code_if_columns(part: str) -> str:
    columns = all("  " in line for line in part.splitlines())
    return textwrap.indent(part, "    ") if columns and not part.startswith(" ") else part


# --- generated parts ----------------------------------------------------------------------------


@functools.cache
def results() -> str:
    """The default study's verdict, figure and table, as in the README."""
    marks = f"{summary.START} -->\n{summary.END}"
    folder, report = ROOT / "results/grammar", Path("../report/grammar")
    return summary.with_results(marks, folder, report)


@functools.cache
def commands() -> str:
    """Every command of `squentropy`, with its --help text."""
    command = typer.main.get_command(app.app)
    text = get_docs_for_click(obj=command, ctx=typer.Context(command), name="squentropy")
    usage = text[text.index("**Usage**") : text.index("**Commands**")]
    each = text[text.index("\n## ") :]  # skip the list before it, which truncates first lines
    return usage + EXAMPLE.sub(_example, each)


def _example(match: re.Match) -> str:
    return f"```sh\n{' '.join(match[1].replace(CONTINUED, ' ').split())}\n```\n\n"


@functools.cache
def parameters() -> str:
    """Every key of params.yaml: its comment, its type from params.py, and its default."""
    text = (ROOT / "params.yaml").read_text("utf-8")
    written, schema = _written(text), params.Study.model_json_schema()
    lines = []
    for key, value in yaml.safe_load(text).items():
        section = _section(schema["properties"][key], schema["$defs"]) is not None
        lines += [f"## {key}", "", written[key,][1] if section else "", "", *_HEAD]
        lines += _rows((key,), value, schema["properties"][key], schema["$defs"], written)
        lines.append("")
    return "\n".join(lines)


_HEAD = ["| key | type and range | default study | what |", "|---|---|---|---|"]


def _rows(path: tuple, value: object, schema: dict, defs: dict, written: dict) -> Iterator[str]:
    section = _section(schema, defs)
    if section and isinstance(value, dict):
        for key, inner in value.items():
            yield from _rows((*path, key), inner, section["properties"][key], defs, written)
        return
    name, (shown, what) = ".".join(path), written[path]
    if not what:
        log.warning(f"params.yaml: {name} has no comment that says what it does")
    shown = shown or json.dumps(value, ensure_ascii=False)
    cells = (f"`{name}`", _kind(schema, defs), f"`{shown}`", what)
    yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _section(schema: dict, defs: dict) -> dict | None:
    """The section that a schema refers to, if any."""
    for option in [schema, *schema.get("anyOf", [])]:
        if "$ref" in option:
            return defs[option["$ref"].rpartition("/")[2]]
    return None


def _kind(schema: dict, defs: dict) -> str:
    """Describe a JSON schema in words."""
    if "anyOf" in schema:
        return " or ".join(_kind(option, defs) for option in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema["type"] == "array":
        least = ", at least one" if schema.get("minItems") else ""
        return f"list of: {_kind(schema['items'], defs)}{least}"
    bounds = [
        f"{sign} {_number(schema[key])}"
        for key, sign in (
            ("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<")
        )
        if key in schema
    ]  # fmt: skip
    names = {"boolean": "`true`, `false`", "string": "text", "null": "`null`"}
    return " ".join([names.get(schema["type"], schema["type"]), ", ".join(bounds)]).strip()


def _number(value: float) -> str:
    power = int(value).bit_length() - 1
    return f"2^{power}" if power > 16 and value == 2**power else f"{value:g}"


def _written(text: str) -> dict[tuple[str, ...], tuple[str, str]]:
    """Each key of params.yaml: its value as written, and the comment after it."""
    found, path = {}, []
    for line in text.splitlines():
        match = re.match(r"( *)(\w+):\s*(.*?)\s*(?:(?<=\s)# *(.*))?$", line)
        if match:
            path[len(match[1]) // 2 :] = [match[2]]
            found[tuple(path)] = (match[3], match[4] or "")
    return found


def _drawn(markdown: str) -> str:
    for name, draw in DRAWN.items():
        mark = f"<!-- {name} -->"
        if mark in markdown:
            try:
                markdown = markdown.replace(mark, draw())
            except SquentropyError as error:
                log.warning(f"{name}: {error}")
    return markdown


@functools.cache
def floors() -> str:
    """The nll that each form of squentropy loses at its own optimum, by vocabulary size."""
    theory = read(ROOT / "results/grammar").theory
    rows = theory[theory.contexts == "bigram"]
    losses = dict.fromkeys(rows.loss)
    lines = ["| tokens | " + " | ".join(map(label, losses)) + " |"]
    lines += ["|---|" + "---|" * len(losses)]
    for classes, group in rows.groupby("classes"):
        kl = group.set_index("loss").kl
        lines += [f"| {classes:,} | " + " | ".join(f"{kl[loss]:.3f}" for loss in losses) + " |"]
    return "\n".join(lines)


@functools.cache
def board() -> str:
    """The leaderboard, as `squentropy leaderboard` prints it."""
    return leaderboard.markdown(pd.read_csv(ROOT / leaderboard.FILE))


@functools.cache
def expected() -> str:
    """The nll and training time of every committed study, by loss and tokens."""
    held = pd.read_csv(ROOT / "benchmarks/results/expected.csv")
    shown = {
        "study": held["study"],
        "training tokens": [short(value) for value in held["tokens"]],
        "loss": [label(loss) for loss in held["loss"]],
        "test nll": [nats(value) for value in held["nll"]],
        "perplexity": [number(math.exp(value)) for value in held["nll"]],
        "runs": held["runs"],
        "a run takes": [_duration(value) for value in held["seconds"]],
        "on": [_machine(*each) for each in zip(held["processor"], held["cores"])],
    }
    return summary.markdown(pd.DataFrame(shown).astype(str))


def _duration(seconds: float) -> str:
    if unknown(seconds):
        return DASH
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _machine(processor: object, cores: float) -> str:
    return DASH if pd.isna(processor) else f"a core of {cores:.0f}, {processor}"


@functools.cache
def splits() -> str:
    """Sizes and entropy of the default study's corpus."""
    r = read(ROOT / "results/grammar")
    lines = ["| split | stories | bytes | tokens |", "|---|---|---|---|"]
    for name, split in r.corpus["splits"].items():
        sizes = (integer(split[key]) for key in ("stories", "bytes", "tokens"))
        lines.append(f"| {name} | {' | '.join(sizes)} |")
    entropy, error = (nats(r.corpus[key]) for key in ("source_nll", "source_nll_se"))
    seed = r.study.corpus.grammar.seed
    said = f"Seed {seed}; entropy {entropy} nats per token (standard error {error})."
    return "\n".join([*lines, "", said])


DRAWN = {
    "results": results,
    "commands": commands,
    "parameters": parameters,
    "floors": floors,
    "leaderboard": board,
    "expected": expected,
    "splits": splits,
}
