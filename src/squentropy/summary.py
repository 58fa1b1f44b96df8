"""The final table as text, for the terminal and the README."""

from pathlib import Path

import pandas as pd

from squentropy.errors import SquentropyError
from squentropy.results import Results, read
from squentropy.sections.answer import verdict

COLUMNS = {
    "loss": "loss",
    "lr": "lr",
    "dropout": "dropout",
    "n_layer": "layers",
    "n_seeds": "seeds",
    "test_nll": "test nll",
    "test_ppl": "test perplexity",
    "difference": "nll − cross entropy",
    "p_value": "p",
    "inverse_link_nll": "nll by inverse link",
}

BESIDE = {
    "name": "model",
    "parameters": "parameters",
    "same_tokens": "tokens",
    "nll": "test nll a token",
    "ppl": "test perplexity",
    "bits_per_byte": "bits a byte",
    "nats_per_story": "nats a story",
}


def metrics_table(results: Path) -> str:
    """metrics.csv as a Markdown table: nll in nats a token, with its interval.

    Where there are baselines, a second one has them beside the losses.
    """
    r = read(results)
    table = markdown(final_table(r))
    return table if r.baselines.empty else f"{table}\n\n{markdown(baselines_table(r))}"


def baselines_table(r: Results) -> pd.DataFrame:
    """baselines.csv beside the losses, every value as text."""
    table = r.side_by_side
    table["same_tokens"] = ["the study's" if same else "its own" for same in table["same_tokens"]]
    table["parameters"] = [f"{value:,.0f}" for value in table["parameters"]]
    for name, style in {"bits_per_byte": ".3f", "nats_per_story": ".1f", "nll": ".3f",
                        "ppl": ".2f"}.items():  # fmt: skip
        table[name] = [_number(value, style) for value in table[name]]
    return table[list(BESIDE)].rename(columns=BESIDE).astype(str)


def final_table(r: Results) -> pd.DataFrame:
    """metrics.csv as a reader wants it, every value as text."""
    table = r.metrics.reset_index()
    for name in ("test_nll", "difference"):
        table[name] = [_interval(row, name) for _, row in table.iterrows()]
    table["inverse_link_nll"] = [_number(v, ".3f") for v in table["inverse_link_nll"]]
    table["test_ppl"] = [_number(value, ".2f") for value in table["test_ppl"]]
    table["p_value"] = [
        "< 0.001" if value < 0.001 else _number(value, ".3f") for value in table["p_value"]
    ]
    for name in ("lr", "dropout"):
        table[name] = [f"{value:g}" for value in table[name]]
    return table[list(COLUMNS)].rename(columns=COLUMNS).astype(str)


def _number(value: float, style: str) -> str:
    return "—" if pd.isna(value) else format(value, style)


def _interval(row: pd.Series, name: str) -> str:
    if pd.isna(row[name]):
        return "—"
    ends = f" ({row[f'{name}_low']:.3f} to {row[f'{name}_high']:.3f})"
    return f"{row[name]:.3f}" + ("" if pd.isna(row[f"{name}_low"]) else ends)


def markdown(table: pd.DataFrame) -> str:
    """Columns padded, so that the table reads well as plain text too."""
    rows = [list(table.columns), *table.values.tolist()]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) + " |" for r in rows
    ]
    rule = "|" + "|".join("-" * (w + 2) for w in widths) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


START, END = "<!-- results", "<!-- end of results -->"


def with_results(readme: str, results: Path, report: Path) -> str:
    """The README with the verdict, the main figure and the final table between its two marks.

    Raises SquentropyError where the marks are missing.
    """
    before, start, rest = readme.partition(START)
    first, _, rest = rest.partition("\n")
    _, end, after = rest.partition(END)
    if not start or not end:
        raise SquentropyError(f"README: lacks the marks '{START} …' and '{END}'; put them back")
    r = read(results)
    table = markdown(final_table(r))
    figure = f"![Test perplexity by loss]({report.as_posix()}/figures/perplexity.svg)"
    note = (
        "nll is the negative log likelihood of whole test stories in nats a token, with "
        f"{100 * r.study.evaluate.confidence:g} % intervals over stories and seeds, and "
        "perplexity exp of it; less is better. p is after Holm's correction. The outputs of the "
        "pure squared losses are no logits: read by the inverse link, which recovers the "
        "probabilities they estimate, their nll is in the last column; they are tuned by it on "
        "validation."
    )
    answer = f"**{verdict(r)}** That is what the default study says."
    return f"{before}{start}{first}\n\n{answer}\n\n{figure}\n\n{table}\n\n{note}\n\n{end}{after}"
