"""Models by others are scored like runs and listed beside the losses.

pytest tests/tools/test_score.py
"""

import json
import math
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    PreTrainedTokenizerFast,
)

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.lm.scoring import score_split
from squentropy.report import read
from squentropy.report.sections import results as section
from squentropy.report.summary import metrics_table
from squentropy.runs.huggingface import Scored
from squentropy.tokens.tokenizer import train_encoding
from squentropy.tools.huggingface.export import export, tokenizer
from squentropy.tools.huggingface.score import encoded, score

RUN = "checkpoints/final/cross_entropy/seed1"
TEXTS = ["Tim had a red kite. " * 9, "Lily said, “Oh!”\n\nThe old hat was gone."]


@pytest.fixture(scope="module")
def ours(finished, tiny_study, tokens, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ours")
    export(tiny_study(), finished / RUN, tokens, folder)
    return folder


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A random GPT-2 made by transformers, with its own vocabulary."""
    folder = tmp_path_factory.mktemp("foreign")
    encoding = train_encoding(TEXTS, 270)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(encoding)))
    PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), eos_token="<|endoftext|>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=272, n_positions=24, n_embd=16, n_layer=2, n_head=2, bos_token_id=269,
        eos_token_id=269,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


def test_an_exported_run_has_the_nll_of_its_own_evaluation(
    ours, finished, tiny_study, data, tmp_path
):
    row = score(tiny_study(), ours, data, tmp_path, "ours")
    scores = storage.read_sealed(finished / RUN / "test.json")
    tokens, size = sum(scores["stories"]["tokens"]), sum(scores["stories"]["bytes"])
    nll = sum(scores["readings"]["softmax"]["nll"])
    assert row["nll"] == pytest.approx(nll / tokens, abs=1e-5)
    assert row["bits_per_byte"] == pytest.approx(nll / math.log(2) / size, abs=1e-5)
    assert row["nats_per_story"] == pytest.approx(nll / 6, abs=1e-3)
    assert (row["tokens"], row["same_tokens"], row["context"]) == (tokens, True, 16)


def test_a_random_model_is_as_good_as_chance_in_its_own_tokens(foreign, tiny_study, data, tmp_path):
    row = score(tiny_study(), foreign, data, tmp_path, "foreign")
    assert row["nll"] == pytest.approx(math.log(272), abs=0.05)
    assert row["ppl"] == pytest.approx(math.exp(row["nll"]))
    assert (row["same_tokens"], row["vocab_size"], row["stories"]) == (False, 272, 6)
    bits = row["nll"] * row["tokens"] / row["bytes"] / math.log(2)
    assert row["bits_per_byte"] == pytest.approx(bits)
    d = 16
    assert row["parameters"] == 272 * d + 2 * (12 * d * d + 13 * d) + 2 * d


def test_a_story_within_the_context_has_transformers_own_loss(foreign):
    model, known = GPT2LMHeadModel.from_pretrained(foreign), AutoTokenizer.from_pretrained(foreign)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)
    split, start = encoded(["Tim had a kite."], known, foreign)
    scores = score_split(Scored(model, foreign).eval(), split, start, batch_tokens=100)
    ids = torch.tensor([[start, *split.ids.tolist()]])
    assert ids.shape[1] <= 24
    assert scores.mean_nll() == pytest.approx(model(ids, labels=ids).loss.item(), abs=1e-5)


def test_a_model_scored_again_has_one_row_and_others_keep_theirs(
    ours, foreign, tiny_study, data, tmp_path
):
    for name, folder in [("1", ours), ("other", foreign), ("1", foreign)]:
        score(tiny_study(), folder, data, tmp_path, name)
    table = read.read_baselines(tmp_path)
    assert list(table["name"]) == ["other", "1"]
    assert table["nll"].nunique() == 1


def test_without_baselines_nothing_is_shown_of_them(finished):
    r = read.read(finished / "results")
    assert r.baselines.empty
    assert "model" not in metrics_table(finished / "results")
    assert section.table(r).count("<table>") == 1


def test_baselines_stand_beside_the_losses(copy, foreign, ours, tiny_study, data):
    score(tiny_study(), foreign, data, copy / "results", "<b>foreign")
    score(tiny_study(), ours, data, copy / "results", "again")
    r = read.read(copy / "results")
    beside = r.side_by_side.set_index("name")
    assert list(beside["bits_per_byte"]) == sorted(beside["bits_per_byte"])
    assert set(beside.index) == {"<b>foreign", "again", "cross entropy", "MSE"}
    # The mean of two seeds compared with the first seed.
    assert beside.at["again", "nats_per_story"] == pytest.approx(
        beside.at["cross entropy", "nats_per_story"], rel=0.05
    )
    shown, table = metrics_table(copy / "results"), section.table(r)
    assert "| <b>foreign " in shown
    assert f"{beside.at['again', 'bits_per_byte']:.3f}" in shown
    assert "&lt;b&gt;foreign" in table
    assert "<b>" not in table
    assert table.count("<table>") == 2


def test_a_baseline_of_other_stories_is_refused(copy, ours, tiny_study, data):
    path = copy / "results/baselines.csv"
    score(tiny_study(), ours, data, copy / "results", "ours")
    pd.read_csv(path).assign(bytes=7).to_csv(path, index=False)
    with pytest.raises(SquentropyError, match="ours was scored on other stories"):
        read.read(copy / "results")


@pytest.mark.parametrize("text", ["", "name,nll\na,1\n", "\0", '"'])
def test_a_file_that_is_no_table_of_baselines_is_refused(tmp_path, text):
    (tmp_path / "baselines.csv").write_text(text)
    with pytest.raises(SquentropyError, match="delete it, and ask again"):
        read.read_baselines(tmp_path)


def test_a_control_token_written_in_a_story_is_text(foreign):
    known = AutoTokenizer.from_pretrained(foreign)
    split, start = encoded(["a<|endoftext|>b", "c"], known, foreign)
    assert start == known.eos_token_id == 269
    assert (split.ids == 269).nonzero()[0].tolist() == [len(split.ids) - 3, len(split.ids) - 1]
    assert split.ids.dtype == np.int64


def test_a_tokenizer_that_loses_text_is_refused(foreign):
    class Lossy:
        eos_token_id, bos_token_id = 0, None

        def encode(self, text, **_):
            return [1] * len(text)

        def decode(self, ids, **_):
            return "a" * len(ids)

    encoded(["aaa", "a"], Lossy(), foreign)
    with pytest.raises(SquentropyError, match="does not reproduce 1 of 2 stories"):
        encoded(["aaa", "aba"], Lossy(), foreign)


@pytest.mark.parametrize("kept", ["config.json", "tokenizer_config.json"])
def test_a_folder_without_its_tokenizer_is_refused(ours, kept, tiny_study, data, tmp_path):
    """From such a folder transformers makes a tokenizer without a vocabulary."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in {"config.json", "model.safetensors", kept}:
        shutil.copy(ours / name, folder)
    assert "tokenizer" in mistake(folder, tiny_study, data, tmp_path)


def granite(folder, scaling) -> Scored:
    """A model with rotary positions and logits divided by `scaling`."""
    torch.manual_seed(0)
    config = GraniteConfig(
        vocab_size=30, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, logits_scaling=scaling,
    )  # fmt: skip
    model = Scored(GraniteForCausalLM(config).eval(), folder)
    with torch.no_grad():
        model.output_weight.mul_(30)
    return model


def test_a_model_that_does_more_to_its_logits_is_refused(foreign):
    ids = torch.tensor([[1, 2, 3]])
    granite(foreign, 1.0).check(ids)
    with pytest.raises(SquentropyError, match="does more to its logits"):
        granite(foreign, 2.0).check(ids)


def mistake(folder, tiny_study, data, tmp_path) -> str:
    with pytest.raises(SquentropyError) as error:
        score(tiny_study(), folder, data, tmp_path, "x")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "baselines.csv").exists()
    return str(error.value)


def test_what_cannot_be_scored_is_one_line(tiny_study, data, tmp_path, monkeypatch):
    assert "holds no config.json" in mistake(tmp_path, tiny_study, data, tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    assert "transformers cannot load it" in mistake(tmp_path, tiny_study, data, tmp_path)
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install 'squentropy[hf]'" in mistake(tmp_path, tiny_study, data, tmp_path)


def test_a_tokenizer_without_an_end_of_text_is_refused(foreign):
    class Endless:
        eos_token_id = bos_token_id = None

    with pytest.raises(SquentropyError, match="no end-of-text token"):
        encoded(["a"], Endless(), foreign)
