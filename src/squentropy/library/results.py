"""A study's results, every table as a DataFrame. Requires pandas, from the extra `study`.

import squentropy

results = squentropy.load_results("results/grammar")
results.metrics[["nll", "nll_low", "nll_high"]]
"""

from pathlib import Path

import pandas as pd

from squentropy.report import read
from squentropy.report.format import count, nats


class Results(read.Results):
    """The tables of a study; docs/reference/tables.md lists their columns.

    DataFrames: metrics (one row per loss), yardsticks, readings, lengths, stories, sweep, refine,
    history, calibration, profile, certainty, quality, theory, reported, baselines, judged.
    Other attributes: study (the parameters), corpus, selected, samples (the generated stories).
    Derived: ranked (the losses, best first), curve(loss), by_story(loss, column), …
    """

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The DataFrames by name."""
        return {key: value for key, value in vars(self).items() if isinstance(value, pd.DataFrame)}

    def __repr__(self) -> str:
        said = f"results of {self.study.study}: {count(len(self.losses), 'loss', 'losses')}"
        if self.scored:
            best = self.scored[0]
            nll = nats(self.metrics.at[best, "nll"])
            said += f", the best {read.label(best)} with test nll {nll} nats per token"
        return f"<{said}; tables: {', '.join(self.tables)}>"


def load_results(folder: str | Path) -> Results:
    """Load the results in a folder such as results/grammar.

    Raises SquentropyError if a table is missing or damaged, or does not match params.yaml.
    """
    return Results(**vars(read.read(folder)))
