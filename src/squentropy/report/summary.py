"""The final table as text, for terminal and README."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd

from squentropy.base.errors import SquentropyError
from squentropy.base.output import visible
from squentropy.report.format import DASH, fixed, integer, nats, p_text, share
from squentropy.report.read import NGRAMS, Results, Sample, label, read
from squentropy.report.sections.verdict import (
    Evidence,
    evidence,
    headline,
    sentences,
    tokens_needed,
)

BESIDE = {
    "name": "model",
    "parameters": "parameters",
    "same_tokens": "tokens",
    "nll": "test nll per token",
    "ppl": "test perplexity",
    "bits_per_byte": "bits per byte",
    "nats_per_story": "nats per story",
}


def metrics_table(results: Path) -> str:
    """metrics.csv as a Markdown table: nll in nats per token, with its interval.

    A second table compares baselines with the losses, if there are any.
    """
    r = read(results)
    table = markdown(final_table(r))
    return table if r.baselines.empty else f"{table}\n\n{markdown(baselines_table(r))}"


def baselines_table(r: Results) -> pd.DataFrame:
    """Baselines and losses as a table of text."""
    table = r.side_by_side
    table["same_tokens"] = ["the study's" if same else "its own" for same in table["same_tokens"]]
    table["parameters"] = [integer(value) for value in table["parameters"]]
    for name, digits in {"bits_per_byte": 3, "nats_per_story": 1, "nll": 3, "ppl": 2}.items():
        table[name] = [fixed(value, digits) for value in table[name]]
    return table[list(BESIDE)].rename(columns=BESIDE).astype(str)


def final_table(r: Results, name: Callable[[str], str] = str) -> pd.DataFrame:
    """metrics.csv for display, as text in at most six columns.

    One row per loss in its primary reading, best first, then the n-gram model that cross entropy
    must beat, and the source's entropy. Comparisons are omitted if the models have not learnt
    enough. `name` maps a loss to its display name.
    """
    e = evidence(r)
    rows = [_loss_row(r, e, loss, name) for loss in r.ranked]
    must = next(gram for gram, order in NGRAMS.items() if order == r.study.plan.ngram)
    for yardstick, row in r.yardsticks.iterrows():
        if row["kind"] == "source" or yardstick == must:
            what = f"{yardstick} counts" if row["kind"] == "ngram" else yardstick
            rows.append({"loss": what} | _measured(row, e.enough))
    return pd.DataFrame(rows).fillna(DASH).astype(str)


def _loss_row(r: Results, e: Evidence, loss: str, name: Callable[[str], str]) -> dict[str, str]:
    row = r.metrics.loc[loss]
    cells = {"loss": name(loss)} | _measured(row, e.enough)
    if not e.enough:
        learnt = row["learnt"]
        return cells | {"share learnt": share(learnt, 0)}
    p = row["p_value"]
    return cells | {
        "nll − cross entropy": _interval(row, "difference"),
        "p": DASH if pd.isna(p) else p_text(p, e.smallest_p).removeprefix("= "),
        "tokens needed": tokens_needed(e, loss),
    }


def _measured(row: pd.Series, enough: bool) -> dict[str, str]:
    """The columns of every row; with bits per byte if comparisons are omitted."""
    cells = {"test nll": _interval(row, "nll"), "perplexity": fixed(row["ppl"], 2)}
    return cells if enough else cells | {"bits per byte": nats(row["bits_per_byte"])}


def _interval(row: pd.Series, name: str) -> str:
    if pd.isna(row[name]):
        return DASH
    ends = f" ({nats(row[f'{name}_low'])} to {nats(row[f'{name}_high'])})"
    return nats(row[name]) + ("" if pd.isna(row[f"{name}_low"]) else ends)


def markdown(table: pd.DataFrame) -> str:
    """A Markdown table with padded columns, readable as plain text too."""
    rows = [list(table.columns), *table.values.tolist()]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) + " |" for r in rows
    ]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


# --- the README ---------------------------------------------------------------------------------

START, END = "<!-- results", "<!-- end of results -->"

FORMULA = r"""*Squentropy* is cross entropy plus the mean square of the wrong logits,

$$\ell(f, y) = -\log \mathrm{softmax}(f)_y + \frac{1}{C - 1} \sum_{j \ne y} f_j^2,$$

for logits $f$ over $C$ tokens of which $y$ is the true one."""

ACROSS = 3  # stories per row
LONGEST = 700  # characters shown per story


def with_results(readme: str, results: Path, report: Path) -> str:
    """The README with the study's answer inserted between its markers.

    Inserts the formula, the verdict, the main figure, the final table, and one story per loss.
    Raises SquentropyError if the markers are missing.
    """
    before, after = around(readme, START, END, "README:")
    r = read(results)
    figure = (
        f"![Test nll against training tokens, one line per loss]({report.as_posix()}"
        "/figures/lengths.svg)"
    )
    table = markdown(final_table(r, lambda loss: plain(label(loss))))
    parts = [FORMULA, verdict(r), figure, table, _note(r), stories(r)]
    return "\n\n".join([before, *filter(None, parts), after])


def around(page: str, start: str, end: str, name: str) -> tuple[str, str]:
    """A page up to the line of its first marker, and from its second marker on.

    Raises SquentropyError if they are missing.
    """
    before, found, rest = page.partition(start)
    first, _, rest = rest.partition("\n")
    _, last, after = rest.partition(end)
    if not found or not last:
        raise SquentropyError(f"{name} lacks the marks '{start} …' and '{end}'; put them back")
    return f"{before}{found}{first}", f"{last}{after}"


def verdict(r: Results) -> str:
    """The headline in bold, followed by its sentences."""
    e = evidence(r)
    said = " ".join(sentences(e))
    between = " " if e.enough or not said else ": "
    return f"**{_prose(headline(e))}**{between}{_prose(said)}".rstrip()


def _prose(text: str) -> str:
    """Like `plain`, but keeps colons, which occur in our own sentences."""
    return plain(text, f"{PLAIN}:")


def _note(r: Results) -> str:
    note = (
        "Test nll is the negative log likelihood of whole test stories in nats per token, and "
        f"perplexity exp of it; less is better. Intervals are at the {r.confidence} level, over "
        "stories and seeds, and are conditional on the selected hyperparameters."
    )
    if not r.adequacy.enough:
        known = r.corpus["source_nll"] is not None
        limit = "the exact entropy" if known else "the best n-gram model"
        return f"{note} Share learnt: 0 % is the unigram model, 100 % {limit}."
    return (
        f"{note} p is corrected by Holm's rule over all losses. Tokens needed: how many times the "
        "training tokens of cross entropy a loss needs for the same nll."
    )


def stories(r: Results) -> str:
    """The first story of each loss's final runs on one prompt, side by side.

    An HTML table without blank lines, so that Markdown inside is not parsed; characters other than
    letters, digits and plain punctuation become character references.
    """
    shown = ("final", r.study.sample.prompts[0], r.study.sample.middle)
    told: dict[str, Sample] = {}
    for sample in r.samples:
        if (sample["phase"], sample["prompt"], sample["temperature"]) == shown:
            told.setdefault(sample["loss"], sample)
    losses = [loss for loss in r.losses if loss in told]
    if not losses:
        return ""
    lines = ["<table>"]
    for i in range(0, len(losses), ACROSS):
        lines.append("<tr>")
        for loss in losses[i : i + ACROSS]:
            lines.append(
                f'<td valign="top" width="{100 // ACROSS}%"><b>{plain(label(loss))}</b><br>'
                f"{_story(told[loss]['text'])}</td>"
            )
        lines.append("</tr>")
    heat = r.study.sample.middle
    how = f"The first story of each loss at temperature {heat:g}, none picked:"
    return "\n".join([f"{how}\n", *lines, "</table>"])


def _story(text: str) -> str:
    text = visible(text).strip()
    if len(text) > LONGEST:
        text = f"{text[:LONGEST].rstrip()} …"
    paragraphs = (" ".join(part.split()) for part in text.split("\n"))
    return "<br>".join(plain(part) for part in paragraphs if part)


PLAIN = " .,;!?'()+-−–—…%/=\"“”‘’"


def plain(text: str, safe: str = PLAIN) -> str:
    """Text escaped for both Markdown and HTML, for use inside a line."""
    return "".join(c if c.isalnum() or c in safe else f"&#{ord(c)};" for c in text)
