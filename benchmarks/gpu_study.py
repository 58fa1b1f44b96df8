"""Training in gpu.py: the grammar study's losses at a larger size, and a stack of small cells.

The corpus is the study's grammar. The machine may lack the packages that train a BPE, so a token
here is a word with the space before it, or a sign; the study's own vocabulary is close to this.
"""

import itertools
import math
import re
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from gpu_part import ROOT, Part, Trained

from squentropy.base import storage
from squentropy.lm.model import Config
from squentropy.lm.scoring import score_split
from squentropy.losses import own_link
from squentropy.tokens.token_files import Split, TokenFolder

try:
    from squentropy.corpus.grammar.grammar import Story, load_grammar
except ModuleNotFoundError:  # pydantic, which the package imports but these modules do not need
    package = ModuleType("squentropy.corpus.grammar")
    package.__path__ = [str(ROOT / "src/squentropy/corpus/grammar")]
    sys.modules[package.__name__] = package
    from squentropy.corpus.grammar.grammar import Story, load_grammar

PIECE = re.compile(r" ?[^\W\d_]+| ?[^\s\w]| ?[\d_]|\s")
END_OF_TEXT = 0
STUDY_WIDTH = 128  # width of the models for which the study's learning rates were tuned
LINK_FLOOR = 1e-6
WARMUP, LEAST = 0.05, 0.1  # shares of the time, and of the learning rate


def encode(stories: list[Story], ids: dict[str, int], grow: bool) -> Split:
    """Token files of stories. If `grow`, new pieces extend `ids`; otherwise stories that contain
    one are left out."""
    found, offsets = [], [0]
    for story in stories:
        pieces = PIECE.findall(story.text)
        if grow:
            for piece in pieces:
                ids.setdefault(piece, len(ids) + 1)
        elif not all(piece in ids for piece in pieces):
            continue
        found += [ids[piece] for piece in pieces] + [END_OF_TEXT]
        offsets.append(len(found))
    return Split(np.array(found, dtype=np.uint16), np.array(offsets, dtype=np.int64))


def token_folder(folder: Path, train: int, validation: int) -> TokenFolder:
    """Token files of so many stories of the grammar."""
    grammar, ids = load_grammar(), dict[str, int]()
    splits = {}
    for seed, (name, count) in enumerate({"train": train, "validation": validation}.items()):
        split = encode(list(grammar.stories(seed, 0, count)), ids, grow=name == "train")
        split.ids.tofile(folder / f"{name}.bin")
        np.save(folder / f"{name}.offsets.npy", split.offsets)
        splits[name] = {
            "stories": len(split),
            "tokens": len(split.ids),
            "sha256": storage.sha256(folder / f"{name}.bin"),
            "offsets_sha256": storage.sha256(folder / f"{name}.offsets.npy"),
        }
    manifest = {"vocab_size": len(ids) + 1, "end_of_text": END_OF_TEXT, "splits": splits}
    storage.write_sealed(folder / "manifest.json", manifest)
    return TokenFolder.open(folder)


def study_and_tokens(folder: Path, part: Part, **train: Any) -> tuple[Any, TokenFolder]:
    """A miniature of the study, and its tokens. Raises ImportError if pydantic is missing."""
    from squentropy.study import params
    from squentropy.study.overlays import overlay

    changes = {
        "model": {"n_embd": 32, "n_head": 2, "block_size": 32},
        "train": {"device": part.device.type, "state_interval": 1000, **train},
        "sweep": {"max_iters": 20, "warmup_iters": 2, "eval_interval": 10, "eval_stories": 4},
    }
    study = params.load([ROOT / "params.yaml"]).model_dump()
    return params.parse(overlay(study, changes)), token_folder(folder, 200, 8)


# --- the sweep ----------------------------------------------------------------------------------


def run_sweep(part: Part) -> None:
    """Iterations of small cells per second: one alone, as in `train`, and several at once."""
    with tempfile.TemporaryDirectory() as folder:
        for size in (1, 2) if part.miniature else (1, 4, 16, 64):
            part.attempt(f"cells at once: {size}", partial(_at_once, part, Path(folder), size))


def _at_once(part: Part, folder: Path, size: int) -> dict[str, Any]:
    from gpu_speed import seconds_of

    from squentropy.study import params
    from squentropy.study.overlays import overlay
    from squentropy.training import stacked
    from squentropy.training.distributed import Group
    from squentropy.training.setup import set_up

    study = params.load([ROOT / "params.yaml"])
    changes = {"train": {"device": part.device.type}}
    study = params.parse(overlay(study.model_dump(), changes))
    there = (folder / "manifest.json").exists()
    tokens = TokenFolder.open(folder) if there else token_folder(folder, 1000, 8)
    grid = itertools.product(np.geomspace(1e-4, 1e-2, 16).tolist(), study.sweep.losses)
    cells = [params.Cell("sweep", loss, lr, 0.0, 2, 0) for lr, loss in grid][:size]
    runs = [set_up(study, cell, tokens, Group()) for cell in cells]
    iterations = itertools.count()

    def alone() -> None:
        runs[0].gradients(next(iterations))
        runs[0].optimizer.step(1e-3)

    stack = stacked.StackedGPT([run.model for run in runs])
    members = [stacked._Member(run, None, stacked.Progress(), 0) for run in runs]
    forward = part.compiled(stack.forward) if part.device.type == "cuda" else stack.forward

    def at_once() -> None:
        stacked._gradients(runs, stack, forward, next(iterations))
        stacked._step(members, stack, 10, study.sweep)

    step = alone if size == 1 else at_once
    step()
    seconds = seconds_of(part, step, 1 if part.miniature else 20)
    return {"cell_iterations_per_second": size / seconds}


# --- final runs ---------------------------------------------------------------------------------


def run_finals(part: Part) -> None:
    """Each loss of the study for the same number of seconds, on the same stories."""
    stories, validation = (300, 5) if part.miniature else (200_000, 500)
    with tempfile.TemporaryDirectory() as temporary:
        start, folder = time.monotonic(), Path(temporary)
        tokens = token_folder(folder, stories, validation)
        held = len(tokens.split("validation").ids)
        said = load_grammar().stories(1, 0, validation)
        source = -sum(story.log_prob for story in said) / validation
        part.tell(
            "corpus", stories=stories, tokens=len(tokens.split("train").ids),
            vocabulary=tokens.vocab_size, validation_tokens=held,
            source_nats_a_story=source, seconds=time.monotonic() - start,
        )  # fmt: skip
        chosen = storage.read_sealed(ROOT / "results/grammar/selected.json")["losses"]
        size = (32, 2, 2, 32) if part.miniature else (160, 6, 8, 512)
        config = Config(tokens.vocab_size, *size, 0.0, False, "alibi")
        trained, batch = Trained(part, config), 4 if part.miniature else 128
        part.attempt("first step, compiled", lambda: _first_steps(part, trained, chosen, batch))
        for left, (loss, point) in zip(range(len(chosen), 0, -1), chosen.items(), strict=True):
            lr = point["lr"] * min(1.0, STUDY_WIDTH / config.n_embd)
            seconds = 0.1 if part.miniature else 0.8 * part.left / left
            final = partial(_final, part, trained, tokens, loss, lr, batch, seconds)
            part.attempt(loss, final)


def _first_steps(part: Part, trained: Trained, losses: dict, batch: int) -> dict[str, Any]:
    for loss in losses:
        trained.random_step(loss, batch)
    part.synchronize()
    return {"losses": len(losses)}


def _final(
    part: Part, trained: Trained, tokens: TokenFolder, loss: str, lr: float, batch: int,
    seconds: float,
) -> dict[str, Any]:  # fmt: skip
    """A run of so many seconds; the learning rate follows the elapsed time."""
    trained.restart()
    trained.model.train()
    split, block, draw = tokens.split("train"), trained.config.block_size, np.random.default_rng(1)
    ids = torch.from_numpy(split.ids.astype(np.int64)).to(part.device)
    along = torch.arange(block + 1, device=part.device)
    start, gone, steps, value = time.monotonic(), 0.0, 0, torch.zeros(())
    at_once = 1 if part.miniature else 10  # steps between readings of the clock
    while gone < seconds:
        share = gone / seconds
        falls = LEAST + (1 - LEAST) * 0.5 * (1 + math.cos(math.pi * share))
        for _ in range(at_once):
            first = torch.from_numpy(draw.integers(len(ids) - block - 1, size=batch))
            blocks = ids[first.to(part.device).unsqueeze(-1) + along]
            rate = lr * falls * min(1.0, (share + 1e-3) / WARMUP)
            x, y = blocks[:, :-1].contiguous(), blocks[:, 1:].contiguous()  # the compiled layout
            value = trained.step(loss, x, y, rate)
            steps += 1
        part.synchronize()
        gone = time.monotonic() - start
    scores = score_split(
        trained.model,
        tokens.split("validation"),
        tokens.end_of_text,
        batch_tokens=1 << 15,
        link=own_link(loss, LINK_FLOOR),
        dtype=torch.bfloat16 if part.device.type == "cuda" else torch.float32,
    )
    trained_on = steps * batch * block
    return {
        "lr": lr,
        "parameters": trained.model.parameter_count(),
        "steps": steps,
        "epochs": trained_on / len(ids),
        "tokens_per_second": trained_on / gone,
        "train_loss": value.item(),
        "validation_nll": scores.mean_nll(),
        "validation_nats_a_story": scores.mean_nll() * len(scores.nll) / (len(scores.offsets) - 1),
        "validation_accuracy": float(scores.correct.mean()),
    }
