"""A trained run in the hand, with torch, numpy, safetensors and regex alone.

import squentropy

run = squentropy.load_run("checkpoints/grammar/final/squentropy/seed1")
print(run.generate("Once upon a time"))
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from squentropy import functional
from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.base.kinds import RunRecord
from squentropy.lm.model import GPT
from squentropy.losses import own_link
from squentropy.runs import records
from squentropy.runs.weights import load_model
from squentropy.sampling import generate
from squentropy.study.catalogue import label
from squentropy.study.layout import tokens_beside
from squentropy.tokens import bpe
from squentropy.tokens.token_files import TokenFolder


@dataclass(frozen=True, repr=False)
class Run:
    """A finished run of a study: its model, its tokenizer, and what run.json says of it.

    folder    where it lies
    record    what run.json holds: cell, parameters, code, nll, hashes
    model     token ids (B, T) to hidden states (B, T, D); its logits are
              `model(ids) @ model.output_weight.T`
    encoding  text to token ids and back: `encode_ordinary`, `decode`
    """

    folder: Path
    record: RunRecord
    model: GPT
    encoding: bpe.Encoding

    def __repr__(self) -> str:
        nll = self.record["validation_nll"]
        measured = "" if nll is None else f", validation nll {nll:.3f} nats per token"
        return (
            f"<run of {label(self.loss)}: {self.record['parameters']:,} parameters, "
            f"{self.record['iterations']:,} iterations{measured}; {self.folder}>"
        )

    @property
    def loss(self) -> str:
        """The name of the loss that it was trained by, as LOSSES has it."""
        return self.record["cell"]["loss"]

    @cached_property
    def history(self) -> np.ndarray:
        """Its learning curve, an entry per evaluation: a structured array whose fields are
        iteration, train_loss, train_nll and validation_nll (nats per token).

        `pandas.DataFrame(run.history)` is a table of it. Raises SquentropyError if it is damaged.
        """
        path = storage.verified(self.folder / "history.csv", self.record["history_sha256"])
        read = np.genfromtxt(path, delimiter=",", names=True, dtype=None, encoding="utf-8")
        return np.atleast_1d(read)

    @torch.no_grad()
    def logits(self, text: str) -> Tensor:
        """The model's outputs for the token after each beginning of a text: (T + 1, C).

        Row 0 is for the first token of a story, row t for the one after t tokens of the text, of
        which there are T. What makes probabilities of them is `probabilities`. Raises
        SquentropyError if the text is longer than the model's context.
        """
        ids = [self.encoding.eot_token, *self.encoding.encode_ordinary(text)]
        most = self.model.config.block_size
        if len(ids) > most:
            raise SquentropyError(
                f"the text has {len(ids) - 1} tokens, and {self.folder} a context of {most}, one "
                "of which begins the story; give a shorter one"
            )
        weight = self.model.output_weight
        hidden = self.model(torch.tensor([ids], device=weight.device))
        return hidden[0] @ weight.T

    def probabilities(self, text: str) -> Tensor:
        """The probabilities of the same tokens, (T + 1, C): softmax, or the loss's own link."""
        return functional.probabilities(self.loss, self.logits(text), self._floor)

    def generate(
        self,
        prompt: str,
        *,
        temperature: float = 0.8,
        top_k: int = 50,
        max_tokens: int = 400,
        seed: int = 0,
    ) -> str:
        """A story that begins with a prompt; another seed tells another one.

        temperature  of the model's probabilities; 0 takes the most likely token each time
        top_k        draw among this many of the most likely tokens; 0: among all
        max_tokens   after the prompt, unless the story ends before

        It is the story that `squentropy tell` tells of the same settings, word for word.
        """
        [new] = generate.generate(
            self.model,
            [self.encoding.encode_ordinary(prompt)],
            end_of_text=self.encoding.eot_token,
            max_tokens=max_tokens,
            temperature=temperature,
            top_k=top_k,
            seed=seed,
            link=own_link(self.loss, self._floor),
        )
        return prompt + self.encoding.decode(new)

    @property
    def _floor(self) -> float:
        """The smallest probability that a link gives, before renormalising."""
        return self.record["params"]["evaluate"]["link_floor"]


def load_run(folder: str | Path, *, tokens: str | Path | None = None, device: str = "cpu") -> Run:
    """A finished run, from its folder.

    folder  as checkpoints/grammar/final/squentropy/seed1, with run.json and the weights
    tokens  the folder of its token files; else data/STUDY/tokens beside checkpoints/STUDY
    device  where its model is to be, as torch names it

    Raises SquentropyError where the run diverged, kept no weights, is damaged, or is of other
    tokens.
    """
    folder = Path(folder)
    record = records.read_run(folder)
    if record["status"] != "ok":
        raise SquentropyError(f"{folder}: has {record['status']}, so there is no model to load")
    if tokens is None:
        tokens = tokens_beside(folder, 'load_run(folder, tokens="data/grammar/tokens")')
    read = TokenFolder.open(tokens)
    records.check_tokens(record, folder, read)
    model = load_model(folder, torch.device(device))
    return Run(folder, record, model, bpe.read_encoding(read))
