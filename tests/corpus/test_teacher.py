"""A teacher's stories have the probability that the teacher gives them, and none that has another.

pytest tests/corpus/test_teacher.py
"""

import json
import math
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.corpus import given, model
from squentropy.corpus.build import build
from squentropy.lm.scoring import score_split
from squentropy.losses import own_link
from squentropy.report import catalogue
from squentropy.results.tables import describe_corpus, story_entropy
from squentropy.runs.weights import load_model
from squentropy.tokens.token_files import Split, TokenFolder
from squentropy.tokens.tokenizer import read_encoding, tokenize
from squentropy.tools.huggingface.export import export
from squentropy.training.run import train_run

CPU, RUN = torch.device("cpu"), "checkpoints/tiny/final/cross_entropy/seed1"
SIZES = {"train": 60, "validation": 5, "test": 40}
SHORT, LONG = 16, 64
"""Contexts: one that most stories go beyond, one that none does."""


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(model, "BATCH", 64)


@pytest.fixture(scope="module")
def make_teacher(tiny_study, tiny_cell, tokens, data, tmp_path_factory):
    """A teacher that has learnt enough to end its stories, and too little to be without faults."""

    def make(block: int, positions: str) -> Path:
        folder = tmp_path_factory.mktemp("teacher")
        study = tiny_study(
            model={"block_size": block, "positions": positions},
            train={"batch_size": 512 // block},
            final={"max_iters": 200, "warmup_iters": 10, "eval_interval": 200, "lengths": []},
        )
        cell = tiny_cell(phase="final", lr=0.03, dropout=0.0)
        train_run(study, cell, tokens, folder / RUN)
        shutil.copytree(data, folder / "data/tiny")
        return folder / RUN

    return make


@pytest.fixture(scope="module")
def teachers(make_teacher) -> dict[int, Path]:
    return {SHORT: make_teacher(SHORT, "learned"), LONG: make_teacher(LONG, "alibi")}


@pytest.fixture
def corpus_of(tiny_study):
    """The parameters of a corpus by a teacher."""

    def make(run: Path | str, **changes):
        section = SIZES | {"run": str(run), "max_tokens": LONG, **changes}
        return tiny_study(corpus={"source": "model", "model": section}).corpus

    return make


def told(source, split: str = "test") -> list:
    return list(source.splits[split]())


def tokens_of(run: Path) -> TokenFolder:
    return TokenFolder.open(run.parents[4] / "data/tiny/tokens")


def ids_of(run: Path, texts: list[str]) -> list[list[int]]:
    encoding = read_encoding(tokens_of(run))
    return [[*encoding.encode_ordinary(text), encoding.eot_token] for text in texts]


def correction(source) -> float:
    return source.provenance["correction"]["nats_per_story"]


@torch.no_grad()
def reading_all_anew(logits, block: int, ids: list[int], end: int) -> float:
    """The log probability of a story, its window read anew for each token."""
    story, start, total = [end], 0, 0.0
    for token in ids:
        if len(story) - start > block:
            start = len(story) - block // 2
        total += logits(torch.tensor([story[start:]])).log_softmax(-1)[token].item()
        story.append(token)
    return total


def test_the_log_probability_is_that_of_scoring_in_float64(teachers, corpus_of):
    run = teachers[LONG]
    source = model.source(corpus_of(run))
    stories, teacher = told(source), load_model(run, CPU).double()
    ids = ids_of(run, [story.text for story in stories])
    assert max(map(len, ids)) <= LONG
    split = Split(np.concatenate(ids), np.cumsum([0, *map(len, ids)]))
    scores = score_split(teacher, split, tokens_of(run).end_of_text, batch_tokens=1000)
    assert scores.nll.dtype == np.float64
    for story, nll in zip(stories, np.split(scores.nll, split.offsets[1:-1]), strict=True):
        assert story.log_prob - correction(source) == pytest.approx(-nll.sum(), abs=1e-4 * len(nll))


def test_beyond_the_context_it_is_that_of_the_window_it_was_drawn_in(teachers, corpus_of):
    run = teachers[SHORT]
    source = model.source(corpus_of(run))
    stories, teacher = told(source), load_model(run, CPU).double()
    every = ids_of(run, [story.text for story in stories])
    assert sum(len(ids) > 2 * SHORT for ids in every) > 2

    def logits(window):
        return teacher.output_weight @ teacher(window)[0, -1]

    for story, ids in zip(stories, every, strict=True):
        exact = reading_all_anew(logits, SHORT, ids, tokens_of(run).end_of_text)
        assert story.log_prob - correction(source) == pytest.approx(exact, abs=1e-4 * len(ids))


def test_a_loss_with_a_link_of_its_own_is_read_by_it(sharp_model):
    end, link = 29, own_link("spherical", 1e-6)
    gpt = sharp_model(30, LONG)
    teacher = model.Teacher(gpt, end, list, str, link)
    stories = list(model.tell(teacher, 0, seed=3, max_tokens=20))
    assert len({tuple(ids) for ids, _ in stories}) > 10
    for ids, log_prob in stories[:20]:
        with torch.no_grad():
            outputs = gpt(torch.tensor([[end, *ids[:-1]]]))[0] @ gpt.output_weight.T
        p = link(outputs).gather(-1, torch.tensor(ids)[:, None])
        assert log_prob == pytest.approx(p.double().log().sum().item(), abs=1e-4 * len(ids))


@pytest.mark.parametrize("block", [SHORT, LONG])  # a GPT-2 and an MPT there
def test_a_folder_of_transformers_tells_the_same_with_its_own_probability(
    teachers, corpus_of, tiny_study, tmp_path, block
):
    transformers = pytest.importorskip("transformers")
    run = teachers[block]
    export(tiny_study(), run, tokens_of(run), tmp_path)
    source, ours = model.source(corpus_of(tmp_path)), model.source(corpus_of(run))
    stories = told(source)
    assert [story.text for story in stories] == [story.text for story in told(ours)]
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).double().eval()
    for story in stories:
        end = tokenizer.eos_token_id
        ids = [*tokenizer(story.text, add_special_tokens=False)["input_ids"], end]
        exact = reading_all_anew(lambda window: theirs(window).logits[0, -1], block, ids, end)
        assert story.log_prob - correction(source) == pytest.approx(exact, abs=1e-4 * len(ids))


def test_stories_are_a_function_of_the_seed_and_their_number(teachers, corpus_of, tmp_path):
    run = teachers[SHORT]
    corpora = {
        "one": corpus_of(run),
        "same": corpus_of(run),
        "other": corpus_of(run, seed=1),
        "more": corpus_of(run, train=90),
    }
    for name, corpus in corpora.items():
        build(corpus, tmp_path / name)
    names = ("train.parquet", "validation.parquet", "test.parquet", "manifest.json")
    one, same, other, _ = (
        [(tmp_path / folder / name).read_bytes() for name in names] for folder in corpora
    )
    assert one == same
    assert all(a != b for a, b in zip(one, other, strict=True))
    assert texts(tmp_path / "more/test.parquet") == texts(tmp_path / "one/test.parquet")
    assert len(texts(tmp_path / "more/train.parquet")) > len(texts(tmp_path / "one/train.parquet"))


def texts(path: Path) -> list[str]:
    return pq.read_table(path)["text"].to_pylist()


def test_a_story_without_an_end_or_of_other_tokens_is_never_kept(teachers, corpus_of, monkeypatch):
    run, most = teachers[SHORT], 34
    drawn, tell = [], model.tell
    monkeypatch.setattr(
        model, "tell", lambda *how: [drawn.append(each) or each for each in tell(*how)]
    )
    source = model.source(corpus_of(run, max_tokens=most))
    encoding, end = read_encoding(tokens_of(run)), tokens_of(run).end_of_text
    fates, expected = Counter(), []
    for ids, log_prob in drawn:
        text = encoding.decode(ids[:-1])
        if len(expected) == sum(SIZES.values()):
            break
        if ids[-1] != end:
            assert len(ids) == most
            fates["unended"] += 1
        elif not text.strip():
            fates["empty"] += 1
        elif encoding.encode_ordinary(text) != ids[:-1]:
            fates["retokenized"] += 1
        else:
            fates["kept"] += 1
            expected.append((text, log_prob))
    assert fates["unended"] > 0
    assert fates["retokenized"] > 0
    said = source.provenance
    assert {fate: said[fate] for fate in model.FATES} == {f: fates[f] for f in model.FATES}
    assert said["drawn"] == fates.total()
    share = fates["kept"] / fates.total()
    assert correction(source) == pytest.approx(-math.log(share))
    error = math.sqrt((1 - share) / share / fates.total())
    assert said["correction"]["standard_error"] == pytest.approx(error)
    order = [story for split in ("test", "validation", "train") for story in told(source, split)]
    assert [story.text for story in order] == [text for text, _ in expected]
    shifted = [log_prob + correction(source) for _, log_prob in expected]
    assert [story.log_prob for story in order] == pytest.approx(shifted)
    assert said["entropy"]["nats_per_story"] == pytest.approx(-np.mean(shifted))
    spread = np.std(shifted, ddof=1) / math.sqrt(len(shifted))
    assert said["entropy"]["standard_error"] == pytest.approx(spread)


def test_tables_take_the_teachers_limit_as_they_take_the_grammars(
    teachers, corpus_of, tiny_study, tmp_path
):
    build(corpus_of(teachers[SHORT]), tmp_path / "corpus")
    student = tiny_study(tokens={"vocab_size": 280}).tokens  # not the teacher's tokens
    tokenize(student, tmp_path / "corpus", tmp_path / "tokens")
    entropy = story_entropy(tmp_path)
    held = pq.read_table(tmp_path / "corpus/test.parquet")["log_prob"].to_numpy()
    assert entropy == pytest.approx(-held)
    said = describe_corpus(tmp_path, entropy)
    count = said["splits"]["test"]["tokens"]
    assert said["source_nll"] == pytest.approx(-held.sum() / count)
    assert 0 < said["source_nll_se"] < said["source_nll"]
    corpora = {name: {"source": name} for name in ("grammar", "hub", "model")}
    known = {name: catalogue.known(tiny_study(corpus=corpus)) for name, corpus in corpora.items()}
    assert known == {"grammar": True, "hub": False, "model": True}


# --- what cannot be a teacher ---------------------------------------------------------------------


@pytest.fixture
def copied(teachers, tmp_path) -> Path:
    """A copy of a teacher's run, its tokens beside it."""
    shutil.copytree(teachers[SHORT].parents[4], tmp_path / "copied")
    return tmp_path / "copied" / RUN


def changed_record(run: Path, **changes) -> None:
    storage.write_sealed(run / "run.json", storage.read_sealed(run / "run.json") | changes)


def without_run(run: Path) -> None:
    shutil.rmtree(run)


def diverged(run: Path) -> None:
    changed_record(run, status="diverged", model_sha256=None)


def without_weights(run: Path) -> None:
    changed_record(run, model_sha256=None)


def with_other_weights(run: Path) -> None:
    (run / "model.safetensors").write_bytes(b"others")


def with_other_tokens(run: Path) -> None:
    changed_record(run, tokens_sha256="0" * 64)


def without_tokens(run: Path) -> None:
    shutil.rmtree(run.parents[4] / "data")


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (without_run, r"corpus.model.run: .*seed1 holds neither a run.json nor a config.json; "),
        (diverged, r"seed1: has diverged, so it can tell no stories; name another run in "),
        (without_weights, r"seed1: this run kept no weights; "),
        (with_other_weights, r"model.safetensors: is not what its manifest says"),
        (with_other_tokens, r"seed1: was trained on other tokens than .*/data/tiny/tokens holds; "),
        (without_tokens, r"data/tiny/tokens/manifest.json: does not exist; make it first"),
    ],
)
def test_what_cannot_be_a_teacher_is_one_line(copied, corpus_of, tmp_path, harm, said):
    harm(copied)
    with pytest.raises(SquentropyError, match=said) as error:
        build(corpus_of(copied), tmp_path / "corpus")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "corpus/manifest.json").exists()


def test_a_run_that_lies_alone_has_its_tokens_named(copied, corpus_of, tmp_path):
    alone = copied.rename(tmp_path / "alone")
    with pytest.raises(SquentropyError, match=r"name their folder, as corpus.model.tokens: data/"):
        model.source(corpus_of(alone))
    tokens = tmp_path / "copied/data/tiny/tokens"
    assert told(model.source(corpus_of(alone, tokens=str(tokens))))


def test_a_teacher_that_hardly_ends_a_story_is_one_line(teachers, corpus_of):
    said = r"seed1: of 64 stories that it told, 6\d did not end within corpus.model.max_tokens 2, "
    with pytest.raises(SquentropyError, match=said):
        model.source(corpus_of(teachers[SHORT], max_tokens=2))


@pytest.fixture
def foreign(teachers, tiny_study, tmp_path) -> Path:
    export(tiny_study(), teachers[SHORT], tokens_of(teachers[SHORT]), tmp_path / "foreign")
    return tmp_path / "foreign"


def test_without_transformers_a_folder_of_its_is_one_line(foreign, corpus_of, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(SquentropyError, match=r"^transformers: is not installed; `pip install 's"):
        model.source(corpus_of(foreign))


def test_a_folder_of_transformers_has_tokens_of_its_own(foreign, corpus_of, data):
    with pytest.raises(SquentropyError, match=r"corpus.model.tokens: .* a tokenizer of its own; "):
        model.source(corpus_of(foreign, tokens=str(data / "tokens")))


def test_a_model_whose_stories_begin_otherwise_than_they_end_is_refused(foreign, corpus_of):
    path = foreign / "tokenizer_config.json"
    config = json.loads(path.read_text()) | {"bos_token": "a"}
    path.write_text(json.dumps(config))
    with pytest.raises(SquentropyError, match=r"foreign: its stories do not begin with the token "):
        model.source(corpus_of(foreign))


# --- what the workflow asks -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["run.json", "model.safetensors", "manifest.json"])
def test_another_teacher_is_seen_by_its_bytes(copied, corpus_of, tmp_path, name):
    corpus, known = corpus_of(copied), tmp_path / "known.json"
    before = given.digest(corpus, known)
    assert before == given.digest(corpus, known)
    [path] = [Path(each) for each in given.places(corpus) if Path(each).name == name]
    path.write_bytes(path.read_bytes() + b" ")
    assert given.digest(corpus, known) not in (before, None, "")
    path.unlink()  # as in a restored clone
    assert given.digest(corpus, known) == ""


def test_the_workflow_makes_the_corpus_anew_for_another_teacher(
    copied, copy_project, snakemake, tmp_path
):
    (tmp_path / "project").mkdir()
    project = copy_project(tmp_path / "project")
    for name in ("checkpoints", "data"):
        (tmp_path / "copied" / name).rename(project / name)
    section = SIZES | {"run": RUN, "max_tokens": LONG}
    study = {"study": "mine", "corpus": {"source": "model", "model": section}}
    (project / "mine.yaml").write_text(json.dumps(study))
    corpus = ("--cores", "1", "data/mine/corpus/manifest.json", "--configfile", "mine.yaml")
    done = snakemake(project, *corpus)
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = storage.read_sealed(project / "data/mine/corpus/manifest.json")
    held = {file["file"]: file["sha256"] for file in manifest["provenance"]["teacher"]}
    assert held[f"{RUN}/run.json"] == storage.sha256(project / RUN / "run.json")
    assert "data/tiny/tokens/manifest.json" in held
    again = snakemake(project, *corpus, "--dry-run")
    assert "Nothing to be done" in again.stdout + again.stderr
    changed_record(project / RUN, iterations=7)
    assert re.search(r"^corpus +1$", snakemake(project, *corpus, "--dry-run").stdout, re.MULTILINE)


def test_the_files_of_a_folder_of_transformers_are_those_that_a_model_is_read_from(
    foreign, corpus_of
):
    names = {Path(place).name for place in given.places(corpus_of(foreign))}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert "README.md" not in names


def test_no_other_source_and_no_rule_imports_torch():
    code = (
        "import sys, squentropy.corpus.build, squentropy.corpus.given, squentropy.corpus.grammar, "
        "squentropy.corpus.files, squentropy.corpus.hub; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
