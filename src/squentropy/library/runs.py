"""A trained run. Requires only torch, numpy, safetensors and regex.

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
    """A finished run of a study: its model, tokenizer and run.json.

    folder    the run's folder
    record    the contents of run.json: cell, parameters, code, nll, hashes
    model     maps token ids (B, T) to hidden states (B, T, D); the logits are
              `model(ids) @ model.output_weight.T`
    encoding  the tokenizer: `encode_ordinary`, `decode`
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
        """The name of the loss that it was trained with, as in LOSSES."""
        return self.record["cell"]["loss"]

    @cached_property
    def history(self) -> np.ndarray:
        """The learning curve, one entry per evaluation.

        A structured array with the fields iteration, train_loss, train_nll and validation_nll
        (nats per token); `pandas.DataFrame(run.history)` makes it a table. Raises SquentropyError
        if the file is damaged.
        """
        path = storage.verified(self.folder / "history.csv", self.record["history_sha256"])
        read = np.genfromtxt(path, delimiter=",", names=True, dtype=None, encoding="utf-8")
        return np.atleast_1d(read)

    @torch.no_grad()
    def logits(self, text: str) -> Tensor:
        """The model's outputs for the token after each prefix of a text: (T + 1, C).

        The text has T tokens. Row 0 predicts the first token of a story, row t the token after the
        first t tokens. For probabilities, use `probabilities`. Raises SquentropyError if the text
        does not fit in the model's context.
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
        """Next-token probabilities, (T + 1, C), rows as in `logits`: softmax or the loss's link."""
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
        """Generate a story that begins with a prompt; each seed gives a different story.

        temperature  sampling temperature; 0 always takes the most likely token
        top_k        sample among this many most likely tokens; 0 samples among all
        max_tokens   maximum number of tokens after the prompt

        `squentropy tell` with the same settings prints the same story, word for word.
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
        """The floor of a link: the smallest probability before renormalising."""
        return self.record["params"]["evaluate"]["link_floor"]


def load_run(folder: str | Path, *, tokens: str | Path | None = None, device: str = "cpu") -> Run:
    """Load a finished run from its folder.

    folder  such as checkpoints/grammar/final/squentropy/seed1, with run.json and the weights
    tokens  folder of its token files; by default data/STUDY/tokens beside checkpoints/STUDY
    device  torch device of the model

    Raises SquentropyError if the run diverged, kept no weights, is damaged, or was trained on other
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
