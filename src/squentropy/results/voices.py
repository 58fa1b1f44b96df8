"""Models small enough to embed in the report, so that its page can generate stories.

    squentropy voices data/grammar checkpoints/grammar results/grammar

writes voices.json. Matrices are stored as int8 from -127 to 127 with one scale per row; vectors
stay float32. The effect of rounding is measured on test stories and reported on the page. Learned
positions and biases are tensors like the others.
"""

import base64
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from squentropy.base import storage
from squentropy.base.kinds import (
    PackedModel,
    PackedTensor,
    ReadStory,
    Rounding,
    RunRecord,
    ScoresRecord,
    Voice,
    VoicesRecord,
)
from squentropy.corpus.grammar.grammar import load_grammar
from squentropy.corpus.grammar.prediction import predict, predicts
from squentropy.lm.model import GPT, Config
from squentropy.runs import records
from squentropy.runs.weights import load_model
from squentropy.study.grid import Cell
from squentropy.study.params import VOICES, Study
from squentropy.tokens.token_files import TokenFolder
from squentropy.tokens.tokenizer import PATTERN, read_encoding

MOST = 3
"""Maximum number of models per page."""
LARGEST = 1_000_000
"""Maximum bytes per model; base64 adds a third."""
ROOM = 2_450_000
"""Maximum bytes of all models together, so that the page stays below 5 MB."""
LIKELIEST = 5
"""Number of most likely tokens that the page shows with their probabilities."""
STORIES = 20
"""Test stories on whose beginnings the effect of rounding is measured."""


def write_voices(study: Study, data: Path, checkpoints: Path, results: Path) -> list[Voice]:
    """Write voices.json: models of the study's first losses that did not diverge and that fit.

    Returns them; the list is empty if none fits. Raises SquentropyError if a run is missing,
    damaged or not up to date.
    """
    tokens = TokenFolder.open(data / "tokens")
    voices: list[Voice] = []
    room = ROOM
    for cell in study.voice_cells():
        run = records.read_run(checkpoints / cell.name)
        if len(voices) < MOST and run["status"] == "ok" and run["parameters"] < min(LARGEST, room):
            voice = _voice(study, cell, run, checkpoints / cell.name, tokens)
            if size(voice) <= min(LARGEST, room):
                voices.append(voice)
                room -= size(voice)
    ranks = read_encoding(tokens)._mergeable_ranks if voices else {}
    vocabulary = [token.decode("latin-1") for token in sorted(ranks, key=ranks.__getitem__)]
    held: VoicesRecord
    story = _story(data, tokens, voices) if voices else None
    held = {"pattern": PATTERN, "vocabulary": vocabulary, "voices": voices, "story": story}
    storage.write_sealed(results / VOICES, held)
    return voices


def _story(data: Path, tokens: TokenFolder, voices: list[Voice]) -> ReadStory | None:
    """The first test story that fits the models' contexts, with the grammar's predictions."""
    test = tokens.split("test")
    room = min(voice["config"]["block_size"] for voice in voices)
    fitting = (test.story(i).tolist() for i in range(len(test)) if len(test.story(i)) <= room)
    ids = next(fitting, None)
    if ids is None or not predicts(data / "corpus"):
        return None
    exact = []
    for token, following in zip(ids, predict(ids, load_grammar(), read_encoding(tokens))):
        likeliest = sorted(following.items(), key=lambda each: -each[1])[:LIKELIEST]
        exact.append((following[token], likeliest))
    return {"ids": ids, "exact": exact}


def _voice(study: Study, cell: Cell, run: RunRecord, folder: Path, tokens: TokenFolder) -> Voice:
    records.check_tokens(run, folder, tokens)
    origin = records.scored_from(study, folder, run)
    scores: ScoresRecord = records.made_from(folder / "test.json", origin)
    torch.set_num_threads(study.train.threads)
    model = load_model(folder, torch.device("cpu"))
    packed = pack(model)
    temperature = scores["temperature"] if study.primary(cell.loss) == "tempered" else 1.0
    test = tokens.split("test").head(STORIES)
    beginnings = [
        torch.tensor([tokens.end_of_text, *test.story(i).tolist()])[: model.config.block_size]
        for i in range(len(test))
    ]
    return {
        "loss": cell.loss,
        "seed": cell.seed,
        "run": cell.name,
        "run_sha256": origin["run_sha256"],
        "temperature": temperature,
        "rounding": rounding(model, unpack(packed), beginnings, temperature),
        **packed,
    }


def pack(model: GPT) -> PackedModel:
    """A model with its matrices rounded to int8."""
    model = model.folded()
    tensors = {name: _packed(tensor) for name, tensor in model.state_dict().items()}
    config = model.config.asdict()
    del config["parametrization"]  # standard, now that it is folded
    return {"config": config, "tensors": tensors}


def unpack(packed: PackedModel) -> GPT:
    """The rounded model, as the page uses it."""
    model = GPT(Config(**packed["config"]))
    model.load_state_dict({name: _unpacked(each) for name, each in packed["tensors"].items()})
    return model.eval()


@torch.inference_mode()
def rounding(model: GPT, rounded: GPT, texts: list[Tensor], temperature: float) -> Rounding:
    """How much rounding changes a model's logits and nll on texts of (T,) ids each."""
    error, cost = 0.0, 0.0
    for ids in texts:
        before, after = (each(ids[None])[0] @ each.output_weight.T for each in (model, rounded))
        error = max(error, float((before - after).abs().max()))
        nll = [
            F.cross_entropy(logits[:-1] / temperature, ids[1:], reduction="sum")
            for logits in (before, after)
        ]
        cost += float(nll[1] - nll[0])
    tokens = sum(len(ids) - 1 for ids in texts)
    return {"error": error, "cost": cost / tokens, "tokens": tokens}


def size(packed: PackedModel) -> int:
    """Bytes of a model's tensors, before base64."""
    texts = (text for each in packed["tensors"].values() for text in each.values())
    return sum(len(base64.b64decode(text)) for text in texts if isinstance(text, str))


def _packed(tensor: Tensor) -> PackedTensor:
    shape = list(tensor.shape)
    if len(shape) < 2:
        return {"shape": shape, "float32": _base64(tensor, "<f4")}
    largest = tensor.abs().amax(1, keepdim=True)
    scales = largest.clamp_min(torch.finfo(torch.float32).tiny * 127) / 127  # a row may be zero
    rounded = (tensor / scales).round()
    return {"shape": shape, "int8": _base64(rounded, "i1"), "scales": _base64(scales, "<f4")}


def _unpacked(packed: PackedTensor) -> Tensor:
    if "float32" in packed:
        return _tensor(packed["float32"], "<f4")
    rounded = _tensor(packed["int8"], "i1").view(packed["shape"])
    return rounded * _tensor(packed["scales"], "<f4").unsqueeze(1)


def _base64(tensor: Tensor, kind: str) -> str:
    return base64.b64encode(tensor.numpy().astype(kind).tobytes()).decode("ascii")


def _tensor(text: str, kind: str) -> Tensor:
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), kind).astype(np.float32))
