"""Where the data of a run's study lie, told from where the run itself lies."""

from pathlib import Path

from squentropy.study.grid import Cell
from squentropy.study.params import Study


def data_of(folder: Path, run: dict, study: Study) -> Path:
    """data/STUDY beside checkpoints/STUDY for a run of that folder; else that of `study`.

    Whether the tokens there are the run's own is for records.check_tokens to say.
    """
    name, here = Path(Cell(**run["cell"]).name), folder.resolve()
    if here.parts[-len(name.parts) :] == name.parts:
        checkpoints = here.parents[len(name.parts) - 1]
        data = checkpoints.parents[1] / "data" / checkpoints.name
        if data.is_dir():
            return data
    return Path("data", study.study)
