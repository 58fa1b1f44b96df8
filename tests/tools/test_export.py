"""In transformers, an exported run is the same model and tokenizer as here.

pytest tests/tools/test_export.py
"""

import json
import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import tokenizers
import torch
import yaml
from huggingface_hub import ModelCard
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.lm.model import GPT, Config
from squentropy.runs.weights import load_model
from squentropy.sampling.generate import generate
from squentropy.tokens.token_files import TokenFolder
from squentropy.tokens.tokenizer import END_OF_TEXT, gpt2_encoding, read_encoding, train_encoding
from squentropy.tools.huggingface import card as card_module
from squentropy.tools.huggingface import export as module
from squentropy.tools.huggingface.export import export, tokenizer
from squentropy.training.run import train_run

CPU, BLOCK = torch.device("cpu"), 16
RUN = "checkpoints/final/cross_entropy/seed1"
PROMPTS = ["Tim", "The red kite", "Oh 🌳"]


@pytest.fixture(scope="module")
def exported(finished, tiny_study, tokens, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    assert export(tiny_study(), finished / RUN, tokens, folder) == []
    return folder


@pytest.fixture(scope="module")
def theirs(exported):
    return AutoTokenizer.from_pretrained(exported)


def stories(data) -> list[str]:
    splits = ("train", "validation", "test")
    return [
        t for s in splits for t in pq.read_table(data / f"corpus/{s}.parquet")["text"].to_pylist()
    ]


@pytest.mark.parametrize(
    ("positions", "bias", "changes"),
    [
        ("learned", False, {}),
        ("learned", True, {}),
        ("alibi", False, {}),
        ("learned", True, {"parametrization": "mup", "n_embd": 64}),
        ("alibi", False, {"parametrization": "mup", "n_embd": 64}),
    ],
)
def test_the_logits_are_the_models_own(
    tiny_study, tiny_cell, tokens, tmp_path, positions, bias, changes
):
    study = tiny_study(model={"positions": positions, "bias": bias} | changes)
    run, out = tmp_path / "run", tmp_path / "out"
    train_run(study, tiny_cell(phase="final", n_layer=2, lr=0.02), tokens, run)
    export(study, run, tokens, out)
    ours, model = load_model(run, CPU), AutoModelForCausalLM.from_pretrained(out).eval()
    assert model.config.model_type == {"learned": "gpt2", "alibi": "mpt"}[positions]
    if positions == "learned":
        assert bool(model.transformer.h[1].mlp.c_fc.bias.abs().max() > 0) == bias
    assert model.lm_head.weight is model.transformer.wte.weight
    test = tokens.split("test")
    for story in map(test.story, range(len(test))):
        ids = torch.tensor([tokens.end_of_text, *story.tolist()])[None, :BLOCK]
        with torch.no_grad():
            expected = ours(ids) @ ours.output_weight.T
            torch.testing.assert_close(model(ids).logits, expected, rtol=0, atol=1e-5)
    assert expected.std() > 0.1


@pytest.mark.parametrize(
    ("changes", "named"),
    [({"bias": True}, "model.bias: true"), ({"n_embd": 18, "n_head": 3}, "model.n_head: 3")],
)
def test_shapes_that_transformers_does_not_have_are_refused(
    tiny_study, tiny_cell, tokens, tmp_path, changes, named
):
    study = tiny_study(model={"positions": "alibi"} | changes)
    run, out = tmp_path / "run", tmp_path / "out"
    train_run(study, tiny_cell(phase="final"), tokens, run)
    with pytest.raises(SquentropyError, match=named):
        export(study, run, tokens, out)
    assert not out.exists()


def test_every_story_has_the_same_ids_and_comes_back(theirs, data, tokens):
    encoding = read_encoding(tokens)
    for story in stories(data):
        ids = encoding.encode_ordinary(story)
        assert theirs(story, add_special_tokens=False)["input_ids"] == ids
        assert theirs(story)["input_ids"] == [tokens.end_of_text, *ids]
        assert theirs.decode(ids) == story
    assert theirs.eos_token_id == theirs.bos_token_id == tokens.end_of_text
    assert len(theirs) == tokens.vocab_size


REPEATS = [c * n for c in ("a", "ab", "aba", " ", "\n", "!", "é") for n in range(1, 60)]


@pytest.fixture(scope="module", params=["gpt2", "repeats"])
def pair(request):
    """An encoding and its export to `tokenizers`."""
    gpt2 = request.param == "gpt2"
    encoding = gpt2_encoding() if gpt2 else train_encoding(REPEATS, 300)
    ours = tokenizers.Tokenizer.from_str(json.dumps(tokenizer(encoding)))
    ours.encode_special_tokens = True
    return encoding, ours


@settings(max_examples=300, deadline=None, derandomize=True)
@given(text=st.text(st.sampled_from("ab! \n'sdé日🌳1\u00a0\u0301\x00<|>")) | st.text())
@example(text=f"A story with {END_OF_TEXT} in it.")
@example(text="I'll say: we'VE   gone\n\n\n  away\t 12³ ")
def test_any_text_has_the_same_ids(pair, text):
    encoding, other = pair
    ids = other.encode(text, add_special_tokens=False).ids
    assert ids == encoding.encode_ordinary(text)
    assert other.decode(ids) == text


def test_texts_of_one_character_many_times_have_the_same_ids(pair):
    encoding, other = pair
    for text in REPEATS:
        assert other.encode(text, add_special_tokens=False).ids == encoding.encode_ordinary(text)


def test_the_pipeline_tells_the_story_that_sample_tells(exported, finished, tokens):
    encoding, model = read_encoding(tokens), load_model(finished / RUN, CPU)
    told = pipeline("text-generation", str(exported))(PROMPTS, do_sample=False)
    for prompt, [said] in zip(PROMPTS, told, strict=True):
        ids = encoding.encode_ordinary(prompt)
        room = BLOCK - 1 - len(ids)
        [new] = generate(
            model, [ids], end_of_text=tokens.end_of_text, max_tokens=room,
            temperature=0, top_k=0, seed=0,
        )  # fmt: skip
        assert room > 0
        assert said["generated_text"] == prompt + encoding.decode(new)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_with_trust_it_goes_on_beyond_the_context_as_here(exported, finished, tokens, batch_size):
    encoding, model = read_encoding(tokens), load_model(finished / RUN, CPU)
    tell = pipeline("text-generation", str(exported), trust_remote_code=True)
    prompts = [*PROMPTS, "Lily had an old boat. " * 3]
    told = tell(prompts, do_sample=False, max_new_tokens=50, batch_size=batch_size)
    expected = generate(
        model, [encoding.encode_ordinary(p) for p in prompts], end_of_text=tokens.end_of_text,
        max_tokens=50, temperature=0, top_k=0, seed=0,
    )  # fmt: skip
    assert max(map(len, expected)) > BLOCK
    for prompt, new, [said] in zip(prompts, expected, told, strict=True):
        assert said["generated_text"] == prompt + encoding.decode(new)


def test_a_story_ends_at_the_end_of_text(finished, tiny_study, tokens, tmp_path, monkeypatch):
    """With a model that ends a story at every token with probability 1/3."""
    torch.manual_seed(0)
    model = GPT(Config(300, BLOCK, n_layer=1, n_head=2, n_embd=16, dropout=0.0, bias=True))
    with torch.no_grad():
        model.wte.weight[:, 0] = 0
        model.wte.weight[tokens.end_of_text, 0] = math.log(150)
        model.ln_f.weight[0], model.ln_f.bias[0] = 0, 1
    monkeypatch.setattr(module, "load_model", lambda *_: model.eval())
    export(tiny_study(sample={"top_k": 0}), finished / RUN, tokens, tmp_path)
    for trust in (False, True):
        tell = pipeline("text-generation", str(tmp_path), trust_remote_code=trust)
        torch.manual_seed(0)
        told = [tell("Tim", return_tensors=True)[0]["generated_token_ids"] for _ in range(20)]
        ended = [ids for ids in told if ids[-1] == tokens.end_of_text]
        assert len(ended) > 10
        assert all(ids[0] == tokens.end_of_text for ids in told)
        assert all(tokens.end_of_text not in ids[1:-1] for ids in told)
        assert max(map(len, told)) <= BLOCK
        assert END_OF_TEXT not in tell("Tim")[0]["generated_text"]


def test_it_draws_as_the_study_does(exported, tiny_study):
    held = json.loads((exported / "generation_config.json").read_text())
    sample = tiny_study().sample
    assert (held["do_sample"], held["temperature"]) == (True, sample.middle)
    assert (held["top_k"], held["max_length"]) == (sample.top_k, BLOCK)


def test_the_card_says_what_it_is_and_how_good(exported, finished):
    card = (exported / "README.md").read_text()
    metadata = yaml.safe_load(card.split("---\n")[1])
    scores = storage.read_sealed(finished / RUN / "test.json")
    nll = sum(scores["readings"]["softmax"]["nll"]) / sum(scores["stories"]["tokens"])
    assert f"| softmax | {nll:.4f} | {math.exp(nll):.2f} |" in card
    assert metadata["license"] == "mit"
    assert "trained with cross entropy" in card
    assert "Note" not in card


def test_the_hub_reads_the_scores_from_the_card(exported, finished):
    card = ModelCard((exported / "README.md").read_text())
    scores = storage.read_sealed(finished / RUN / "test.json")
    count = sum(scores["stories"]["tokens"])
    found = {(r.metric_name, r.metric_type): r for r in card.data.eval_results}
    assert len(found) == 3 * len(scores["readings"]) == 6
    for reading in ("softmax", "tempered"):
        nll = sum(scores["readings"][reading]["nll"]) / count
        held = found[f"perplexity, outputs read by {reading}", "perplexity"]
        assert held.metric_value == pytest.approx(math.exp(nll), abs=1e-6)
        assert (held.task_type, held.dataset_type, held.dataset_split) == (
            "text-generation", "files", "test"
        )  # fmt: skip
    assert card.data.model_name == "squentropy cross_entropy seed 1"


def test_a_card_names_the_data_set_of_the_hub(tokens, monkeypatch):
    held = {"source": "hub", "provenance": {"dataset": "roneneldan/TinyStories"}}
    monkeypatch.setattr(card_module, "_corpus", lambda _: held)
    assert card_module.corpus_name(tokens) == "roneneldan/TinyStories"
    monkeypatch.setattr(card_module, "_corpus", lambda _: None)
    assert (card_module.corpus_name(tokens), card_module.corpus_licence(tokens)) == (
        "unknown",
        "unknown",
    )


def test_a_licence_that_the_hub_does_not_know_is_given_in_words(
    finished, tiny_study, data, tmp_path, monkeypatch
):
    monkeypatch.setattr(card_module, "corpus_licence", lambda _: 'mine: "ask", me')
    export(tiny_study(), finished / RUN, TokenFolder.open(data / "tokens"), tmp_path)
    metadata = yaml.safe_load((tmp_path / "README.md").read_text().split("---\n")[1])
    assert (metadata["license"], metadata["license_name"]) == ("other", 'mine: "ask", me')


def test_a_run_that_was_not_scored_shows_its_validation(copy, tiny_study, tokens, tmp_path):
    (copy / RUN / "test.json").unlink()
    export(tiny_study(), copy / RUN, tokens, tmp_path)
    nll = storage.read_sealed(copy / RUN / "run.json")["validation_nll"]
    card = (tmp_path / "README.md").read_text()
    assert f"Validation nll {nll:.4f} nats per token" in card
    assert "model-index" not in card


def test_a_pure_squared_loss_is_warned_of(finished, tiny_study, tokens, tmp_path):
    run = finished / "checkpoints/final/mse/seed1"
    [warning] = export(tiny_study(), run, tokens, tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "not softmax logits" in warning
    assert warning in card
    assert "| own | " in card


def test_the_same_run_is_the_same_bytes(exported, finished, tiny_study, tokens, tmp_path):
    export(tiny_study(), finished / RUN, tokens, tmp_path)
    files = [p.relative_to(exported) for p in exported.rglob("*") if p.is_file()]
    assert len(files) == 7
    assert all((tmp_path / f).read_bytes() == (exported / f).read_bytes() for f in files)


@pytest.mark.parametrize(
    ("run", "said"),
    [
        ("final/brier/seed1", "has diverged"),
        ("sweep/mse/lr0.01/dropout0.1_layers1", "kept no weights"),
        ("none", "run.json: does not exist"),
    ],
)
def test_what_cannot_be_exported_is_said(finished, tiny_study, tokens, tmp_path, run, said):
    with pytest.raises(SquentropyError, match=said):
        export(tiny_study(), finished / "checkpoints" / run, tokens, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_tokens_are_refused(finished, tiny_study, grammar_data, tmp_path):
    other = TokenFolder.open(grammar_data / "tokens")
    with pytest.raises(SquentropyError, match="was trained on other tokens"):
        export(tiny_study(), finished / RUN, other, tmp_path)
