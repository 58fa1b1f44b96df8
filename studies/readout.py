"""Body or read-out: how much of a loss's gap to cross entropy lies in the features?

    python studies/readout.py data/long/tokens checkpoints/long results/readout.csv

Each loss's first final run keeps its body as it is, its token embedding included, and gets a new
output matrix of its own, fitted by cross entropy on the body's last hidden states. That problem is
convex, so what is left of the gap is in the features. Writes one row per loss.
"""

import math
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from squentropy.lm.model import GPT
from squentropy.lm.scoring import by_token, fit_on, score, score_split
from squentropy.losses import LOSSES, own_link
from squentropy.runs.records import read_run
from squentropy.runs.weights import load_model
from squentropy.tokens.token_files import Split, TokenFolder

CPU = torch.device("cpu")
STORIES = 3000  # of train, to fit on
BATCH, EPOCHS, RATE = 4096, 4, 0.02
BATCH_TOKENS = 4096

Features = tuple[torch.Tensor, torch.Tensor]
"""Last hidden states (N, D) and the tokens that follow (N,)."""


def features(model: GPT, split: Split, end_of_text: int) -> Features:
    held = by_token(
        model,
        split,
        end_of_text,
        lambda hidden, targets: {"hidden": hidden.float(), "targets": targets},
        batch_tokens=BATCH_TOKENS,
    )
    return torch.from_numpy(held["hidden"]), torch.from_numpy(held["targets"])


def refit(given: Features, classes: int) -> tuple[torch.Tensor, list[float]]:
    """The output matrix (C, D) of least cross entropy, and the mean loss of each epoch."""
    hidden, targets = given
    scale = hidden.square().mean().sqrt()  # so that a step suits the bodies of all losses
    hidden = hidden / scale
    weight = torch.zeros(classes, hidden.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([weight], lr=RATE)
    steps = EPOCHS * math.ceil(len(hidden) / BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    draw, losses = np.random.default_rng(0), []
    for _ in range(EPOCHS):
        total = 0.0
        for rows in torch.from_numpy(draw.permutation(len(hidden))).split(BATCH):
            loss = LOSSES["cross_entropy"](hidden[rows], weight, targets[rows])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
            total += loss.item() * len(rows)
        losses.append(total / len(hidden))
    return weight.detach() / scale, losses


def row(run: Path, tokens: TokenFolder) -> dict[str, object]:
    """nll of the test split in nats per token: as the run is read, and with a new output matrix."""
    record, model = read_run(run), load_model(run, CPU)
    loss, floor = record["cell"]["loss"], record["params"]["evaluate"]["link_floor"]
    test, end_of_text = tokens.split("test"), tokens.end_of_text
    link, how = own_link(loss, floor), {"batch_tokens": BATCH_TOKENS}
    temperature = 1.0 if link else fit_on(model, tokens.split("validation"), end_of_text, **how)
    read = score_split(model, test, end_of_text, link=link, temperature=temperature, **how)
    fit_to = tokens.split("train").head(STORIES)
    weight, losses = refit(features(model, fit_to, end_of_text), tokens.vocab_size)
    hidden, targets = features(model, test, end_of_text)
    refitted = score(hidden, weight, targets)["nll"].double().mean().item()
    return {
        "loss": loss,
        "nll": read.mean_nll(),
        "refitted_nll": refitted,
        "fitted_on_tokens": len(fit_to.ids),
        "train_nll": losses[-1],
        "last_epoch": losses[-1] - losses[-2],
    }


def main(tokens: Path, checkpoints: Path, out: Path) -> None:
    runs = sorted(checkpoints.glob("final/*/seed1"))
    table = pd.DataFrame([row(run, TokenFolder.open(tokens)) for run in runs])
    out.parent.mkdir(parents=True, exist_ok=True)
    table.sort_values("nll").to_csv(out, index=False, lineterminator="\n")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
