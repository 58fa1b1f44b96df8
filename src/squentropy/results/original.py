"""The original study's final table, next to our measurements.

A. Muir, S. Talanki, R. Ali, S. Kancherla. 2024. Enhancing NanoGPT via Squentropy Loss and
Hyperparameter Tuning. UC San Diego.
"""

from squentropy.base.kinds import Row
from squentropy.results.metric_rows import Scored
from squentropy.study.grid import Cell
from squentropy.study.params import BASELINE
from squentropy.tuning.outcomes import ppl

SQUENTROPY = "squentropy_weighted"  # what the original study's code computes as squentropy
REPORTED = (  # measure, loss, value
    ("train loss", BASELINE, 1.81),
    ("test loss", BASELINE, 1.83),
    ("test perplexity", BASELINE, 3.8),
    ("train loss", SQUENTROPY, 1.89),
    ("test loss", SQUENTROPY, 1.90),
    ("test perplexity", SQUENTROPY, 5.2),
)
REPORTED_COLUMNS = ["measure", "loss", "reported", "reproduced", "estimator", "what"]
ESTIMATORS = {
    "train loss": "training objective, mean since the last evaluation, dropout on",
    "test loss": "training objective, random batches of the test split",
    "test perplexity": "exp of the mean nll of the same random batches",
}


def reported_rows(scored: Scored) -> list[Row]:
    """The rows of reported.csv; each measure uses the same estimator for both losses.

    The original's cross entropy is compared with our final runs, its tuned squentropy with our run
    at its reported optimum.
    """
    what = {
        BASELINE: "final cross-entropy runs, mean over seeds",
        SQUENTROPY: "the original code's loss at its reported optimum, one seed",
    }
    cells = {BASELINE: scored.ok(BASELINE), SQUENTROPY: []}
    for cell in scored.study.reported_cells():
        cells[SQUENTROPY] = scored.ok(cell.loss, "reported")
    return [
        {
            "measure": measure,
            "loss": loss,
            "reported": value,
            "reproduced": _mean([_measured(scored, cell, measure) for cell in cells[loss]]),
            "estimator": ESTIMATORS[measure],
            "what": what[loss],
        }
        for measure, loss, value in REPORTED
    ]


def _measured(scored: Scored, cell: Cell, measure: str) -> float | None:
    if measure == "train loss":
        return scored.runs[cell]["train_loss"]
    estimate = scored.scores[cell]["original_estimate"]
    return estimate["loss"] if measure == "test loss" else ppl(estimate["nll"])


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
