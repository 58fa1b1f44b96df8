"""Load the model of a finished run."""

from pathlib import Path

import safetensors.torch
import torch

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.lm.model import GPT, Config
from squentropy.runs import records


def load_model(folder: str | Path, device: torch.device) -> GPT:
    """The trained model of a run. Raises SquentropyError if its weights are missing or differ."""
    folder = Path(folder)
    run = records.read_run(folder)
    if run["model_sha256"] is None:
        raise SquentropyError(
            f"{folder}: this run kept no weights; set sweep.keep_weights to true and run again"
        )
    path = storage.verified(folder / "model.safetensors", run["model_sha256"])
    cell = run["cell"]
    config = Config(
        run["vocab_size"],
        n_layer=cell["n_layer"],
        dropout=cell["dropout"],
        **run["params"]["model"],
    )
    model = GPT(config)
    model.load_state_dict(safetensors.torch.load_file(path))
    return model.to(device).eval()
