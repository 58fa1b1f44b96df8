"""Export a run as a folder for Hugging Face's `transformers`: the model and its tokenizer.

The model becomes a GPT-2, or an MPT, which is the same with ALiBi and without biases.

    squentropy export checkpoints/grammar/final/cross_entropy/seed1 exported

    config.json, model.safetensors         the model; biases that only GPT-2 has are zeros
    tokenizer.json, tokenizer_config.json  the same ids for the same text, after an end of text
    generation_config.json                 the sampling settings of `squentropy tell`
    custom_generate/generate.py            stories beyond the context, with trust_remote_code
    README.md                              a model card

The files are written without transformers.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import tiktoken
import torch
from torch import Tensor

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.lm.model import GPT
from squentropy.runs import records
from squentropy.runs.weights import load_model
from squentropy.study.params import Study
from squentropy.tokens.token_files import TokenFolder
from squentropy.tokens.tokenizer import END_OF_TEXT, PATTERN, read_encoding
from squentropy.tools.huggingface.card import card, cautions, foreign, scores

HERE = Path(__file__).parent


def export(study: Study, folder: Path, tokens: TokenFolder, out: Path) -> list[str]:
    """Write a run to `out`; returns warnings for users of the exported model.

    Sampling settings come from `study`: its sample.top_k and its middle temperature. Raises
    SquentropyError if the run diverged, kept no weights or was trained on other tokens, or if
    transformers does not support its shape.
    """
    run = records.read_run(folder)
    records.check_tokens(run, folder, tokens)
    if run["status"] != "ok":
        raise SquentropyError(f"{folder}: has {run['status']}, so there is no model to export")
    model, encoding = load_model(folder, torch.device("cpu")).folded(), read_encoding(tokens)
    _check_shape(model, folder)
    named = gpt2_weights(model) if model.wpe is not None else mpt_weights(model)
    weights = safetensors.torch.save(dict(named), {"format": "pt"})
    with storage.atomic(out / "model.safetensors") as path:
        path.write_bytes(weights)
    storage.write_text(out / "tokenizer.json", json.dumps(tokenizer(encoding), ensure_ascii=False))
    storage.write_json(out / "tokenizer_config.json", tokenizer_config(model))
    storage.write_json(out / "generation_config.json", generation_config(study, model, encoding))
    code = (HERE / "custom_generate.py").read_text(encoding="utf-8")
    storage.write_text(out / "custom_generate" / "generate.py", code)
    warnings = [*cautions(run), *foreign(run, study)]
    storage.write_text(out / "README.md", card(run, scores(folder), model, tokens, warnings))
    storage.write_json(out / "config.json", config(model, encoding))
    return warnings


# --- the model ----------------------------------------------------------------------------------


def _check_shape(model: GPT, folder: Path) -> None:
    """Raises SquentropyError if transformers has no equivalent model."""
    shape = model.config
    if model.wpe is None and (shape.bias or shape.n_head & (shape.n_head - 1)):
        raise SquentropyError(
            f"{folder}: transformers supports ALiBi (model.positions: alibi) only without biases "
            f"and if the number of heads is a power of two; this model has model.bias: "
            f"{str(shape.bias).lower()} and model.n_head: {shape.n_head}"
        )


def gpt2_weights(model: GPT) -> Iterator[tuple[str, Tensor]]:
    """The weights by their names in GPT-2, linear layers as (in, out), with all biases.

    The output matrix is tied to the embedding there too, so it is written only once.
    """
    state = model.state_dict()
    for name, value in state.items():
        linear = ".c_" in name and name.endswith(".weight")
        yield f"transformer.{name}", (value.T if linear else value).contiguous()
        bias = name.removesuffix("weight") + "bias"
        if name.startswith(("h.", "ln_f.")) and bias not in state:
            yield f"transformer.{bias}", torch.zeros(len(value))


def mpt_weights(model: GPT) -> Iterator[tuple[str, Tensor]]:
    """The weights by their names in MPT, whose norms have no bias."""
    names = {
        "wte": "wte", "h": "blocks", "ln_1": "norm_1", "ln_2": "norm_2", "ln_f": "norm_f",
        "attn": "attn", "c_attn": "Wqkv", "mlp": "ffn", "c_fc": "up_proj",
    }  # fmt: skip
    for name, value in model.state_dict().items():
        *path, last = name.replace("attn.c_proj", "attn.out_proj").split(".")
        path = ["down_proj" if part == "c_proj" else names.get(part, part) for part in path]
        yield ".".join(["transformer", *path, last]), value.contiguous()


def config(model: GPT, encoding: tiktoken.Encoding) -> dict[str, Any]:
    shape = model.config
    common = {
        "vocab_size": shape.vocab_size,
        "tie_word_embeddings": True,
        "bos_token_id": encoding.eot_token,
        "eos_token_id": encoding.eot_token,
        "dtype": "float32",
        "layer_norm_epsilon": model.ln_f.eps,
        "resid_pdrop": shape.dropout,
    }
    if model.wpe is None:
        return common | {
            "architectures": ["MptForCausalLM"],
            "model_type": "mpt",
            "max_seq_len": shape.block_size,
            "d_model": shape.n_embd,
            "n_layers": shape.n_layer,
            "n_heads": shape.n_head,
            "emb_pdrop": shape.dropout,
            # transformers requires an integer; dropout only matters in training anyway.
            "attn_config": {"attn_pdrop": 0, "alibi": True, "alibi_bias_max": 8},
        }
    return common | {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "n_positions": shape.block_size,
        "n_embd": shape.n_embd,
        "n_layer": shape.n_layer,
        "n_head": shape.n_head,
        "activation_function": "gelu",  # not GPT-2's own approximation, gelu_new
        "embd_pdrop": shape.dropout,
        "attn_pdrop": shape.dropout,
    }


def generation_config(study: Study, model: GPT, encoding: tiktoken.Encoding) -> dict[str, Any]:
    """The sampling settings of `squentropy tell`, limited to the model's context."""
    temperature, end = study.sample.middle, encoding.eot_token
    drawn = {"do_sample": True, "temperature": temperature, "top_k": study.sample.top_k}
    return (drawn if temperature > 0 else {"do_sample": False}) | {
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "max_length": model.config.block_size,
    }


# --- the tokenizer ------------------------------------------------------------------------------


def tokenizer(encoding: tiktoken.Encoding) -> dict[str, Any]:
    """The contents of tokenizer.json: the encoding as a byte-level BPE of `tokenizers`.

    Adds an end-of-text token before a text, as before every story in training. One that is written
    out in a text is encoded as text, as in squentropy.
    """
    ranks = encoding._mergeable_ranks
    end = {"id": END_OF_TEXT, "ids": [encoding.eot_token], "tokens": [END_OF_TEXT]}
    template = [{"SpecialToken": {"id": END_OF_TEXT, "type_id": 0}}]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": encoding.eot_token, "content": END_OF_TEXT, "single_word": False,
                "lstrip": False, "rstrip": False, "normalized": False, "special": True,
            }
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split", "pattern": {"Regex": PATTERN},
                    "behavior": "Isolated", "invert": False,
                },
                byte_level | {"use_regex": False},
            ],
        },
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [*template, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                *template, {"Sequence": {"id": "A", "type_id": 0}},
                *template, {"Sequence": {"id": "B", "type_id": 0}},
            ],
            "special_tokens": {END_OF_TEXT: end},
        },
        "decoder": byte_level | {"use_regex": False},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None,
            "continuing_subword_prefix": None, "end_of_word_suffix": None,
            "fuse_unk": False, "byte_fallback": False,
            "ignore_merges": True,  # a piece that is a token is not split, as in tiktoken
            "vocab": {written(token): rank for token, rank in ranks.items()},
            "merges": [f"{written(left)} {written(right)}" for left, right in merges(ranks)],
        },
    }  # fmt: skip


def tokenizer_config(model: GPT) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "padding_side": "left",
        "split_special_tokens": True,
        "clean_up_tokenization_spaces": False,
        "model_max_length": model.config.block_size,
        "model_input_names": ["input_ids", "attention_mask"],
    }


def merges(ranks: dict[bytes, int]) -> Iterator[tuple[bytes, bytes]]:
    """All pairs of tokens that form a token, in the order in which tiktoken would merge them.

    tiktoken stores no pairs: it merges the two neighbours that form the token of lowest rank.
    """
    for token in sorted(ranks, key=ranks.__getitem__):
        pairs = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
        known = [pair for pair in pairs if pair[0] in ranks and pair[1] in ranks]
        yield from sorted(known, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))


def _byte_characters() -> dict[int, str]:
    """GPT-2's printable character for each byte: the byte's own, or one from 256 on."""
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    other = [byte for byte in range(256) if byte not in own]
    return {byte: chr(byte) for byte in own} | {b: chr(256 + i) for i, b in enumerate(other)}


_CHARACTERS = _byte_characters()


def written(token: bytes) -> str:
    """A token's bytes as the characters used in vocabulary files."""
    return "".join(_CHARACTERS[byte] for byte in token)
