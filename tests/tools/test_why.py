"""`squentropy why` names the reason why a run is not up to date.

pytest tests/tools/test_why.py
"""

import os
from pathlib import Path

import pytest

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.cli import completion
from squentropy.corpus import given, story_files
from squentropy.study import digests
from squentropy.tools.why import stale_runs

FINAL = Path("checkpoints/tiny/final/mse/seed1")
SWEPT = Path("checkpoints/tiny/sweep/mse/lr0.01/dropout0.1_layers1")


@pytest.fixture
def why(whole_study, tiny_study):
    def why(*folders: Path, **changes) -> dict[Path, list[str]]:
        return dict(stale_runs(tiny_study(**changes), folders or None, Path("state")))

    return why


def test_nothing_is_said_of_a_whole_study_and_a_named_run_is_up_to_date(why):
    assert why() == {}
    assert why(FINAL, SWEPT) == {FINAL: [], SWEPT: []}


def test_a_changed_parameter_is_named_with_both_values_and_only_where_it_matters(why):
    said = why(final={"max_iters": 9})
    assert {path.parts[2] for path in said} == {"lengths", "final", "reported"}
    assert "params.schedule.max_iters was 8, is 9" in said[FINAL]
    said = why(SWEPT, FINAL, sample={"top_k": 7})
    assert said == {SWEPT: [], FINAL: ["samples.json: params.top_k was 50, is 7"]}


def test_story_files_that_are_not_those_of_the_corpus_are_named(why, tiny_study):
    corpus = {"source": "files", "files": {"train": ["stories.txt"]}}
    path, manifest = Path("stories.txt"), Path("data/tiny/corpus/manifest.json")
    path.write_text("A")
    entries = story_files.entries(story_files.hashed(tiny_study(corpus=corpus).corpus.files))
    storage.write_sealed(manifest, storage.read_sealed(manifest) | {"provenance": entries})
    assert why(corpus=corpus) == {}
    other = Path("other")
    other.write_text("B")
    os.utime(other, (0, 0))
    other.replace(path)
    assert why(SWEPT, corpus=corpus) == {SWEPT: ["its story files have changed: stories.txt"]}
    path.unlink()  # as in a restored clone
    assert why(corpus=corpus) == {}


def test_a_teacher_that_is_not_that_of_the_corpus_is_named(why, tiny_study):
    section = {"run": str(FINAL), "tokens": "data/tiny/tokens"}
    corpus, manifest = {"source": "model", "model": section}, Path("data/tiny/corpus/manifest.json")
    entries = story_files.entries(given.hashed(tiny_study(corpus=corpus).corpus))
    said = {"source": "model", "provenance": entries | {"seed": 0, "drawn": 9}}
    storage.write_sealed(manifest, storage.read_sealed(manifest) | said)
    assert why(SWEPT, corpus=corpus) == {SWEPT: []}
    weights = FINAL / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    assert why(SWEPT, corpus=corpus) == {SWEPT: [f"its teacher has changed: {weights}"]}
    weights.unlink()  # as in a restored clone
    assert why(SWEPT, corpus=corpus) == {SWEPT: []}


def test_changed_code_is_named_by_its_module(why, monkeypatch):
    by_module = digests.by_module
    monkeypatch.setattr(
        digests, "by_module", lambda *m, loss=None: by_module(*m, loss=loss) | {"model.py": "other"}
    )
    assert why(SWEPT) == {SWEPT: ["the code has changed: model.py"]}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("run.json", "has not been trained"),
        ("history.csv", f"{FINAL}/history.csv: does not exist; run the study again to make it"),
        ("test.json", "test.json: has not been made"),
        ("samples.json", "samples.json: has not been made"),
    ],
)
def test_a_missing_file_is_named(why, name, said):
    (FINAL / name).unlink()
    assert why() == {FINAL: [said]}


def test_a_damaged_file_is_named(why):
    with (FINAL / "model.safetensors").open("r+b") as file:
        file.write(b"damaged")
    assert "model.safetensors: is not what its manifest says" in why()[FINAL][0]


def test_a_run_that_was_trained_again_makes_its_scores_stale(why):
    run = storage.read_sealed(FINAL / "run.json")
    storage.write_sealed(FINAL / "run.json", run | {"train_loss": 0.0})
    again = "the run has been trained again since"
    assert why() == {FINAL: [f"test.json: {again}", f"samples.json: {again}"]}


def test_other_tokens_a_missing_sweep_and_an_unfinished_run_are_named(why, whole_study, tiny_study):
    state = Path("state/tiny", *FINAL.parts[2:], "1234.safetensors")
    state.parent.mkdir(parents=True)
    state.touch()
    (FINAL / "run.json").unlink()
    assert why()[FINAL] == ["has not been trained", f"{state}: an unfinished run to resume from"]
    manifest = Path("data/tiny/tokens/manifest.json")
    storage.write_sealed(manifest, storage.read_sealed(manifest) | {"corpus_sha256": "other"})
    assert why(SWEPT) == {SWEPT: ["the tokens have changed"]}
    refined = Path("checkpoints/tiny/refine/mse/refine.json")
    refined.unlink()
    assert why(FINAL)[FINAL][0].startswith(f"waits for its tuning ({refined}: does")
    manifest.unlink()
    assert why(SWEPT)[SWEPT][0].startswith("waits for its tokens (data/tiny/tokens/manifest.json:")


def test_every_run_that_completion_offers_is_known(why):
    """Including refinement runs, and runs of a loss or seed that the study no longer has."""
    offered = [Path(run) for run in completion.runs("checkpoints/")]
    offered += Path("checkpoints/tiny/refine").glob("*/lr*")
    assert len(offered) > 9
    assert not any(why(*offered).values())
    said = why(*offered, final={"seeds": [1]}, sweep={"losses": ["cross_entropy", "mse"]})
    gone = {run for run in offered if run.name == "seed2" or "brier" in run.parts}
    for run in offered:
        assert ("no longer a run of the study tiny" in "".join(said[run])) == (run in gone)


def test_a_folder_that_is_no_run_of_the_study_is_refused(why):
    with pytest.raises(SquentropyError, match="elsewhere: is not a run of the study tiny; its"):
        why(Path("elsewhere"))
