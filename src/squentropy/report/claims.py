"""Published claims about these losses, and what each study of this project finds.

    squentropy claims docs/explanation/claims.md results/grammar results/shakespeare ...

A claim gives the sign of a loss's difference to cross entropy, in nats per token; a study gives an
interval for it. The verdict follows by arithmetic:

    holds            the whole interval is on the claimed side
    does not hold    the whole interval is on the other side
    cannot be told   the interval contains zero, or the study does not rank its losses
    only at ...      shorter runs of the same study are on the other side

A second table ranks the losses in each study.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from squentropy.report.format import DASH, nats, signed
from squentropy.report.read import Results, read
from squentropy.report.summary import around, markdown, plain
from squentropy.study.catalogue import label
from squentropy.study.params import BASELINE

START, END = "<!-- claims", "<!-- end of claims -->"
RANKS, END_OF_RANKS = "<!-- ranks", "<!-- end of ranks -->"
HEAD = ["claim", "study", "measured, nats per token", "verdict"]


@dataclass(frozen=True)
class Claim:
    """`said`: the claim in Markdown with its source; `better`: whether it favours the loss."""

    said: str
    loss: str
    better: bool


CLAIMS = (
    Claim(
        "A squared loss serves tasks on language as well as cross entropy or better ([Hui & "
        "Belkin 2020](https://arxiv.org/abs/2006.07322), on classification)",
        "mse_weighted",
        better=True,
    ),
    Claim(
        "Squentropy is better than cross entropy ([Hui, Belkin & Wright "
        "2023](https://arxiv.org/abs/2302.03952), on classification)",
        "squentropy",
        better=True,
    ),
    Claim(
        "Squentropy, its square term weighted, is worse than cross entropy (the [original "
        "study](https://github.com/sujen07/NanoGPT-Loss-Stop-Analysis): perplexity 5.2, not 3.8)",
        "squentropy_weighted",
        better=False,
    ),
    Claim(
        "Brier's score is worse than cross entropy ([loss-lab]"
        "(https://huggingface.co/ctxnn1/loss-lab-ce-brier): by 0.08 to 0.12 nats, on bytes and "
        "characters; the verdict is on the direction alone)",
        "brier",
        better=False,
    ),
    Claim("Squentropy with a tenth of its square term is better (here)", "squentropy(0.1)", True),
)


def verdict(better: bool, low: float, high: float) -> str:
    """The verdict for an interval of the difference to cross entropy; negative is better."""
    if low <= 0 <= high:
        return "cannot be told"
    return "holds" if (high < 0) == better else "does not hold"


def rows(claim: Claim, results: Iterable[Results]) -> list[list[str]]:
    """One row per study that has the loss; the first shows the claim's text."""
    found = []
    for r in results:
        of_loss = r.metrics.loc[r.metrics.index.map(lambda name: name.split("(")[0] == claim.loss)]
        loss = claim.loss if claim.loss in r.metrics.index else next(iter(of_loss.index), None)
        if loss is None or pd.isna(r.metrics.at[loss, "difference"]):
            continue
        row = r.metrics.loc[loss]
        low, high = row["difference_low"], row["difference_high"]
        said = verdict(claim.better, low, high) if r.adequacy.enough else "cannot be told"
        if said == "holds" and (length := _changes(r, loss)):
            said = f"only at {length:,} tokens"
        found.append([_linked(r), f"{plain(label(loss))} {_difference(row)}", said])
    return [[claim.said if number == 0 else "", *row] for number, row in enumerate(found)]


def ranks(results: Iterable[Results]) -> pd.DataFrame:
    """Each loss's rank in each study, and its difference to cross entropy in nats per token.

    In the order of the first study. A study that does not rank its losses has empty ranks.
    """
    results = list(results)
    losses = dict.fromkeys(loss for r in results for loss in r.ranked)
    table = {"loss": [plain(label(loss)) for loss in losses]}
    for r in results:
        table[_linked(r)] = [_place(r, loss) if loss in r.ranked else DASH for loss in losses]
    return pd.DataFrame(table)


def _place(r: Results, loss: str) -> str:
    row = r.metrics.loc[loss]
    said = f"{nats(row['nll'])} nats" if loss == BASELINE else _difference(row)
    return f"{r.ranked.index(loss) + 1}. {said}" if r.adequacy.enough else said


def _difference(row: pd.Series) -> str:
    low, high = row["difference_low"], row["difference_high"]
    return f"{signed(row['difference'])} ({nats(low)} to {nats(high)})"


def _linked(r: Results) -> str:
    return f"[{r.study.study}](../../results/{r.study.study}/metrics.csv)"


def _changes(r: Results, loss: str) -> int | None:
    """The training tokens of the longest runs if shorter ones have the opposite sign."""
    ours, theirs = r.curve(loss), r.curve(BASELINE)
    signs = [ours[tokens] < theirs[tokens] for tokens in sorted(set(ours) & set(theirs))]
    return max(ours) if any(sign != signs[-1] for sign in signs[:-1]) else None


def with_claims(page: str, folders: Iterable[Path]) -> str:
    """The page with its tables inserted between their markers.

    Raises SquentropyError if they are missing.
    """
    results = [read(folder, texts=False) for folder in folders]
    claims = [row for claim in CLAIMS for row in rows(claim, results)]
    for start, end, table in (
        (RANKS, END_OF_RANKS, ranks(results)),
        (START, END, pd.DataFrame(claims, columns=HEAD)),
    ):
        before, after = around(page, start, end, "the page")
        page = "\n\n".join([before, markdown(table), after])
    return page
