"""The expected test nll of each loss after so many training tokens, and the training time.

    python benchmarks/expected.py results/grammar      writes benchmarks/results/expected.csv

The nll comes from results/STUDY, and the seconds of a run from checkpoints/STUDY if its runs exist;
otherwise the seconds that the file already has for the same nll are kept.
docs/reference/expected.md shows the file; `make expected` writes it for every committed study.
"""

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from squentropy.report.read import Results, read
from squentropy.study.layout import Places

FILE = Path(__file__).parent / "results" / "expected.csv"
KEYS = ["study", "loss", "tokens"]
MEASURED = ["seconds", "processor", "cores"]
SAME = [*KEYS, "nll", "runs"]  # rows that agree in these are of the same runs
COLUMNS = [*SAME, *MEASURED]
"""tokens: training tokens per run; nll: nats per token, the mean over `runs`; seconds: the median
per run, with one thread each and as many runs at a time as there are cores."""


def table(folders: list[Path], before: pd.DataFrame) -> pd.DataFrame:
    """The new content of the file, from folders of results and from its content `before`."""
    known = {tuple(row[key] for key in SAME): row for row in before.to_dict("records")}
    rows = []
    for row in (row for folder in folders for row in of_study(folder)):
        earlier = known.get(tuple(row[key] for key in SAME), {})
        rows.append({name: earlier.get(name) for name in MEASURED} | row)
    found = pd.DataFrame(rows, columns=COLUMNS)
    return found.sort_values(["study", "tokens", "nll"], kind="stable", ignore_index=True)


def of_study(folder: Path) -> Iterator[dict]:
    """One row per loss and length."""
    r = read(folder, texts=False)
    took = times(r, Places(folder.resolve()).of("checkpoints"))
    for (loss, tokens), runs in r.lengths.groupby(["loss", "tokens"], sort=False):
        machines = took[loss, tokens]
        row = {"study": r.study.study, "loss": loss, "tokens": tokens}
        row |= {"nll": runs["nll"].mean(), "runs": len(runs)}
        if machines:
            row["seconds"] = round(statistics.median(each["seconds"] for each in machines), 1)
            row |= {name: machines[0][name] for name in ("processor", "cores")}
        yield row


def times(r: Results, checkpoints: Path) -> dict[tuple[str, int], list[dict]]:
    """provenance.json of the runs trained alone and without interruption, by loss and tokens."""
    found = defaultdict(list)
    for cell in [*r.study.length_cells({}), *r.study.final_cells({})]:
        path = checkpoints / cell.name / "provenance.json"
        if path.is_file():
            held = json.loads(path.read_text(encoding="utf-8"))
            if not held["resumed"] and "stacked" not in held:
                tokens = r.study.tokens_trained(cell.phase, cell.iterations)
                found[cell.loss, tokens].append(held)
    return found


def main(folders: list[Path]) -> None:
    before = pd.read_csv(FILE) if FILE.exists() else pd.DataFrame(columns=COLUMNS)
    table(folders, before).to_csv(FILE, index=False)
    print(FILE)


if __name__ == "__main__":
    main([Path(word) for word in sys.argv[1:]])
