"""The report's models are the runs' models, rounded, within the reported error.

pytest tests/results/test_voices.py
"""

import fake_results
import pytest
import torch

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.lm.model import GPT, Config
from squentropy.results import tables, voices
from squentropy.runs.weights import load_model
from squentropy.study.params import Study
from squentropy.tokens.token_files import TokenFolder
from squentropy.tokens.tokenizer import read_encoding

models = pytest.mark.parametrize("number", range(len(fake_results.KINDS)))


@models
def test_a_weight_moves_by_half_a_step_of_its_row_at_most_and_a_vector_not_at_all(number):
    model = fake_results.model(number)
    rounded = voices.unpack(voices.pack(model)).state_dict()
    assert rounded.keys() == model.state_dict().keys()
    for name, weight in model.state_dict().items():
        if weight.dim() < 2:
            assert torch.equal(rounded[name], weight)
        else:
            step = weight.abs().amax(1, keepdim=True) / 127
            moved = (rounded[name] - weight).abs()
            assert (moved <= 0.5001 * step).all(), name
            assert moved.max() > 0


def test_what_is_rounded_already_and_a_row_of_zeros_stay_as_they_are():
    once = voices.unpack(voices.pack(fake_results.model(0)))
    with torch.no_grad():
        once.wte.weight[7] = 0
    again = voices.unpack(voices.pack(once)).state_dict()
    for name, weight in once.state_dict().items():
        assert torch.allclose(again[name], weight, rtol=1e-6, atol=0), name


@torch.no_grad()
def logits(model: GPT, ids: torch.Tensor) -> torch.Tensor:
    return model(ids[None])[0] @ model.wte.weight.T


def test_the_pages_model_of_a_model_by_mup_has_its_logits():
    """The page does not support muP. The rounding of matrices is undone here."""
    torch.manual_seed(0)
    model = GPT(Config(50, 16, 2, 2, 64, 0.0, True, "learned", "mup")).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    packed = voices.pack(model)
    assert "parametrization" not in packed["config"]
    page = voices.unpack(packed)
    matrices = {name: w for name, w in model.state_dict().items() if w.dim() == 2}
    page.load_state_dict(matrices, strict=False)
    ids = torch.arange(16)
    assert logits(model, ids).std() > 0.1
    torch.testing.assert_close(logits(page, ids), logits(model, ids), rtol=1e-5, atol=1e-5)


def nll(model: GPT, ids: torch.Tensor, temperature: float) -> float:
    log_p = (logits(model, ids)[:-1] / temperature).log_softmax(-1)
    return -log_p.gather(1, ids[1:, None]).sum().item()


@models
def test_what_rounding_changes_is_the_worst_logit_and_the_mean_nll(number):
    model = fake_results.model(number)
    rounded = voices.unpack(voices.pack(model))
    texts = [torch.arange(9), torch.arange(16) * 3]
    found = voices.rounding(model, rounded, texts, 0.7)
    worst = max((logits(model, ids) - logits(rounded, ids)).abs().max().item() for ids in texts)
    assert found["error"] == pytest.approx(worst, rel=1e-4)
    assert 0 < worst < 0.1 * logits(model, texts[0]).abs().max()
    cost = sum(nll(rounded, ids, 0.7) - nll(model, ids, 0.7) for ids in texts) / found["tokens"]
    assert found["cost"] == pytest.approx(cost, abs=1e-5)
    assert found["tokens"] == 8 + 15
    assert voices.rounding(model, model, texts, 1.0) == {"error": 0, "cost": 0, "tokens": 23}


def test_the_first_seed_of_each_loss_of_logits_that_ended_well_is_held(finished, data, tokens):
    """The other losses are MSE, whose outputs are not logits, and one that diverges."""
    held = storage.read_sealed(finished / "results/voices.json")
    (voice,) = held["voices"]
    run = finished / "checkpoints" / voice["run"]
    assert (voice["loss"], voice["seed"]) == ("cross_entropy", 1)
    assert voice["run_sha256"] == storage.sha256(run / "run.json")
    assert voice["temperature"] == storage.read_sealed(run / "test.json")["temperature"] != 1
    encoding = read_encoding(tokens)
    assert [token.encode("latin-1") for token in held["vocabulary"]] == [
        encoding.decode_single_token_bytes(i) for i in range(encoding.eot_token)
    ]
    original, rounded = load_model(run, torch.device("cpu")), voices.unpack(voice)
    test = tokens.split("test")
    texts = [[encoding.eot_token, *test.story(i).tolist()][:16] for i in range(len(test))]
    found = voices.rounding(original, rounded, list(map(torch.tensor, texts)), voice["temperature"])
    assert voice["rounding"] == pytest.approx(found)


@pytest.fixture
def four(finished, data, tiny_study, tmp_path, monkeypatch):
    """four(): the models of a study with four losses, all of which share one run."""
    (cell,) = tiny_study(sweep={"losses": ["cross_entropy"]}).voice_cells()
    monkeypatch.setattr(Study, "voice_cells", lambda self: [cell] * 4)
    return lambda: voices.write_voices(tiny_study(), data, finished / "checkpoints", tmp_path)


def test_a_page_holds_as_many_models_as_it_has_room_for(four, monkeypatch):
    assert len(four()) == 3
    size = voices.size(four()[0])
    for name, limit, many in (
        ("ROOM", 2 * size, 2), ("ROOM", 2 * size - 1, 1), ("LARGEST", size, 3),
        ("LARGEST", size - 1, 0), ("LARGEST", 100, 0),
    ):  # fmt: skip
        with monkeypatch.context() as patch:
            patch.setattr(voices, name, limit)
            assert len(four()) == many, (name, limit)


def test_a_study_without_small_models_holds_no_vocabulary_either(four, tmp_path, monkeypatch):
    monkeypatch.setattr(voices, "LARGEST", 100)
    assert four() == []
    held = storage.read_sealed(tmp_path / "voices.json")
    assert (held["voices"], held["vocabulary"], held["story"]) == ([], [], None)


def test_the_story_to_read_fits_and_has_the_grammars_own_probabilities(grammar_data):
    tokens = TokenFolder.open(grammar_data / "tokens")
    stories = [tokens.split("test").story(i) for i in range(30)]
    room = sorted(map(len, stories))[1]
    held = voices._story(grammar_data, tokens, [{"config": {"block_size": room}}])
    assert held["ids"] == next(s for s in stories if len(s) <= room).tolist()
    assert len(held["exact"]) == len(held["ids"])
    for token, (share, likeliest) in zip(held["ids"], held["exact"]):
        shares = [p for _, p in likeliest]
        assert shares == sorted(shares, reverse=True)
        assert len(shares) <= 5
        assert dict(likeliest).get(token, share) == share
        assert 0 < share <= shares[0] <= sum(shares) < 1 + 1e-9
    assert voices._story(grammar_data, tokens, [{"config": {"block_size": 8}}]) is None


def test_stories_of_another_source_are_not_read(data, tokens):
    assert voices._story(data, tokens, [{"config": {"block_size": 1000}}]) is None


def test_tables_beside_models_of_other_runs_are_refused(copy, data, tiny_study):
    path = copy / "results/voices.json"
    held = storage.read_sealed(path)
    held["voices"][0]["run_sha256"] = "0" * 64
    storage.write_sealed(path, held)
    said = r"voices\.json: is not of the runs in .*; run `squentropy voices` again"
    with pytest.raises(SquentropyError, match=said):
        tables.metrics(tiny_study(), data, copy / "checkpoints", copy / "results")
    path.unlink()
    with pytest.raises(SquentropyError, match=r"voices\.json: does not exist"):
        tables.metrics(tiny_study(), data, copy / "checkpoints", copy / "results")
