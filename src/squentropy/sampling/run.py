"""Sample a run's stories into samples.json beside its run.json."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from squentropy.base import storage
from squentropy.lm.devices import pick_device
from squentropy.losses import own_link
from squentropy.runs import records
from squentropy.runs.weights import load_model
from squentropy.sampling import generate
from squentropy.study.params import Study
from squentropy.tokens.token_files import TokenFolder

if TYPE_CHECKING:
    import tiktoken


def sample_run(
    study: Study, folder: Path, tokens: TokenFolder, encoding: "tiktoken.Encoding"
) -> list[dict[str, Any]]:
    """Generate a run's stories with `generate.tell` and write them to samples.json."""
    run = records.read_run(folder)
    records.check_study(run, folder, study)
    records.check_tokens(run, folder, tokens)
    stories: list[dict[str, Any]] = []
    if run["status"] == "ok":
        torch.set_num_threads(study.train.threads)
        model = load_model(folder, pick_device(study.train.device, study.train.runs_per_gpu))
        cell = run["cell"]
        link = own_link(cell["loss"], study.evaluate.link_floor)
        told = generate.tell(model, encoding, **study.sample.model_dump(), link=link)
        origin = {key: cell[key] for key in ("phase", "loss", "seed")}
        stories = [origin | story for story in told]
    held = records.told_from(study, folder, run) | {"stories": stories}
    storage.write_sealed(folder / "samples.json", held)
    return stories
