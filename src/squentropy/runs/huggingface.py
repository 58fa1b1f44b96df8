"""Load a Hugging Face folder with `transformers`, as a causal language model like GPT-2 or MPT.

Only loading such a folder needs transformers, so it is imported late.
"""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from squentropy.base.errors import SquentropyError
from squentropy.lm.model import Cache

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Scored(nn.Module):
    """Wraps a transformers model for scoring and sampling: ids (B, T) to hidden states."""

    def __init__(self, model: "PreTrainedModel", folder: Path):
        super().__init__()
        names = ("max_position_embeddings", "max_seq_len")
        context = next((getattr(model.config, n) for n in names if hasattr(model.config, n)), None)
        output = model.get_output_embeddings()
        if context is None or output is None:
            raise SquentropyError(
                f"{folder}: {type(model).__name__} has no positions or no output matrix; only "
                "models like GPT-2 or MPT can be scored"
            )
        self.model, self.folder = model, folder
        self.config = SimpleNamespace(block_size=context, n_layer=model.config.num_hidden_layers)
        self.output_weight = output.weight

    def forward(self, ids: Tensor, cache: Cache | None = None) -> Tensor:
        """With a `cache`, `ids` continue its sequence, as in lm/model.py."""
        if cache is None:
            return self.model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        import transformers

        past: Any = transformers.DynamicCache()
        for layer, pair in enumerate(cache.layers):
            if pair is not None:
                past.update(*pair, layer)
        read = self.model.base_model(input_ids=ids, past_key_values=past, use_cache=True)
        cache.layers = [(layer.keys, layer.values) for layer in past.layers]
        cache.length += ids.shape[1]
        return read.last_hidden_state

    def parameter_count(self) -> int:
        """The number of parameters, as for runs: without GPT-2's positions, tied ones only once."""
        positions = getattr(self.model.base_model, "wpe", None)
        return self.model.num_parameters() - (positions.weight.numel() if positions else 0)

    @torch.inference_mode()
    def check(self, ids: Tensor) -> None:
        """Raises SquentropyError unless the logits are hidden states times the output matrix."""
        logits = self.model(input_ids=ids, use_cache=False).logits
        if not torch.allclose(self(ids) @ self.output_weight.T, logits, rtol=1e-3, atol=1e-3):
            raise SquentropyError(
                f"{self.folder}: {type(self.model).__name__} does more to its logits than its "
                "output matrix; only models like GPT-2 or MPT can be scored"
            )


def load(folder: Path) -> tuple[Scored, "PreTrainedTokenizerBase"]:
    """The model, in float32 on the CPU, and the tokenizer of a folder.

    Raises SquentropyError if the folder has none or transformers is not installed.
    """
    if not (folder / "config.json").is_file():
        raise SquentropyError(f"{folder}: holds no config.json of a Hugging Face model")
    os.environ["HF_HUB_OFFLINE"] = "1"  # the folder must contain everything
    try:
        import transformers
    except ImportError:
        raise SquentropyError(
            "transformers: is not installed; `pip install 'squentropy[hf]'`"
        ) from None
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32
        )
    except Exception as error:  # from many libraries; the first line states the problem
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise SquentropyError(f"{folder}: transformers cannot load it: {said}") from None
    return Scored(model, folder), tokenizer
