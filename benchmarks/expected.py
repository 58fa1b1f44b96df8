"""What is normal: the test nll of a study's losses after so many tokens, and the time that took.

    python benchmarks/expected.py results/grammar      writes benchmarks/results/expected.csv

The nll is that of results/STUDY, the seconds of a run those of checkpoints/STUDY, where its runs
are. Where they are not, the seconds that the file has for the very same nll stay there.
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
SAME = [*KEYS, "nll", "runs"]  # by which runs are known to be the same
COLUMNS = [*SAME, *MEASURED]
"""tokens: that a run is trained on; nll: nats per token, the mean over `runs`; seconds: the median
of a run, one thread each, as many at a time as there are cores."""


def table(folders: list[Path], before: pd.DataFrame) -> pd.DataFrame:
    """What the file holds for folders of results, where it held `before`."""
    known = {tuple(row[key] for key in SAME): row for row in before.to_dict("records")}
    rows = []
    for row in (row for folder in folders for row in of_study(folder)):
        earlier = known.get(tuple(row[key] for key in SAME), {})
        rows.append({name: earlier.get(name) for name in MEASURED} | row)
    found = pd.DataFrame(rows, columns=COLUMNS)
    return found.sort_values(["study", "tokens", "nll"], kind="stable", ignore_index=True)


def of_study(folder: Path) -> Iterator[dict]:
    """A row per loss and length."""
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
    """provenance.json of the runs that were trained in one go and alone, by loss and tokens."""
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
