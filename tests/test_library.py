"""`import squentropy` offers runs, results and losses, and its core needs few packages.

pytest tests/test_library.py
"""

import re
import subprocess
import sys
import tomllib
import warnings
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement

import squentropy
from squentropy.base import installed, storage
from squentropy.base.errors import SquentropyError
from squentropy.runs.weights import load_model
from squentropy.sampling.terminal import tell
from squentropy.tokens import bpe, tokenizer
from squentropy.tokens.token_files import TokenFolder

ROOT = Path(__file__).resolve().parents[1]
RUN = "checkpoints/tiny/final/cross_entropy/seed1"


@pytest.fixture
def run(whole_study):
    return squentropy.load_run(RUN)


# --- runs ---------------------------------------------------------------------------------------


def test_logits_are_the_models_and_give_the_nll_that_the_run_was_scored_with(run):
    tokens = TokenFolder.open("data/tiny/tokens")
    encoding = tokenizer.read_encoding(tokens)
    text = "The end."
    test = tokens.split("test")
    [place] = [i for i in range(len(test)) if encoding.decode(test.story(i)[:-1]) == text]
    ids = encoding.encode_ordinary(text)
    logits = run.logits(text)
    assert logits.shape == (len(ids) + 1, tokens.vocab_size)
    model = load_model(RUN, torch.device("cpu"))
    with torch.no_grad():
        expected = model(torch.tensor([[tokens.end_of_text, *ids]]))[0] @ model.output_weight.T
    torch.testing.assert_close(logits, expected)
    true = torch.tensor([*ids, tokens.end_of_text])
    nll = -run.probabilities(text).log().gather(-1, true[:, None]).sum().item()
    scored = storage.read_sealed(f"{RUN}/test.json")["readings"]["softmax"]["nll"][place]
    assert nll == pytest.approx(scored, rel=1e-5)


def test_probabilities_are_by_the_losss_own_link(whole_study):
    run = squentropy.load_run("checkpoints/tiny/final/mse/seed1")
    found = run.probabilities("Tim")
    torch.testing.assert_close(found.sum(-1), torch.ones(len(found)))
    assert not torch.allclose(found, run.logits("Tim").softmax(-1))


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_a_story_is_the_one_that_tell_tells(whole_study, loss):
    folder = Path(f"checkpoints/tiny/final/{loss}/seed1")
    run, tokens = squentropy.load_run(folder), TokenFolder.open("data/tiny/tokens")
    for how in ({"temperature": 0.8, "seed": 0}, {"temperature": 0.0, "seed": 3}):
        how |= {"top_k": 50, "max_tokens": 30}
        [[*pieces]] = map(list, tell(folder, tokens, ["Tim had"], stories=1, **how))
        assert run.generate("Tim had", **how) == "".join(pieces)
    assert run.generate("Tim", seed=1) != run.generate("Tim", seed=2)


def test_its_history_is_that_of_the_file(run):
    expected = pd.read_csv(f"{RUN}/history.csv")
    pd.testing.assert_frame_equal(pd.DataFrame(run.history), expected)
    assert run.history["iteration"].dtype == np.int64


def test_what_it_is_is_said_in_a_line(run):
    assert repr(run) == (
        f"<run of cross entropy: {run.record['parameters']:,} parameters, 8 iterations, validation "
        f"nll {run.record['validation_nll']:.3f} nats per token; {RUN}>"
    )


def test_a_run_elsewhere_is_loaded_with_the_folder_of_its_tokens(whole_study, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "run"
    (whole_study / RUN).rename(elsewhere)
    with pytest.raises(SquentropyError, match="is not in a checkpoints/STUDY"):
        squentropy.load_run(elsewhere)
    run = squentropy.load_run(elsewhere, tokens="data/tiny/tokens")
    assert run.generate("Tim", max_tokens=3).startswith("Tim")


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("checkpoints/tiny/final/brier/seed1", "has diverged, so there is no model"),
        ("checkpoints/tiny/sweep/mse/lr0.01/dropout0.1_layers1", "kept no weights"),
        ("checkpoints/tiny/none", "run.json: does not exist"),
    ],
)
def test_what_cannot_be_loaded_is_said(whole_study, folder, said):
    with pytest.raises(SquentropyError, match=said):
        squentropy.load_run(folder)


def test_other_tokens_and_texts_beyond_the_context_are_refused(run, grammar_data):
    with pytest.raises(SquentropyError, match="was trained on other tokens"):
        squentropy.load_run(RUN, tokens=grammar_data / "tokens")
    with pytest.raises(SquentropyError, match="a context of 16, one of which begins the story"):
        run.logits("The red kite was gone. " * 9)


# --- the tokenizer ------------------------------------------------------------------------------

REPEATS = [c * n for c in ("a", "ab", "aba", " ", "\n", "!", "é") for n in (1, 2, 3, 7, 30)]


@pytest.fixture(scope="module", params=["gpt2", "repeats"])
def pair(request):
    """An encoding by tiktoken and the same by bpe.py."""
    if request.param == "gpt2":
        theirs = tokenizer.gpt2_encoding()
    else:
        theirs = tokenizer.train_encoding(REPEATS, 300)
    return theirs, bpe.Encoding(theirs._mergeable_ranks)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(text=st.text(st.sampled_from("ab! \n'sdé日🌳1\u00a0\u0301\x00\x1c\u2028<|>")) | st.text())
@example(text=f"A story with {bpe.END_OF_TEXT} in it.")
@example(text="I'll say: we'VE   gone\n\n\n  away\t 12³ ")
def test_any_text_has_tiktokens_ids(pair, text):
    theirs, ours = pair
    ids = ours.encode_ordinary(text)
    assert ids == theirs.encode_ordinary(text)
    assert ours.decode(ids) == text


def test_ids_alone_have_tiktokens_text(pair):
    theirs, ours = pair
    assert (ours.eot_token, ours.n_vocab) == (theirs.eot_token, theirs.n_vocab)
    for ids in ([theirs.eot_token], [200, 3, 201], theirs.encode_ordinary("🌳")[:1]):
        assert ours.decode(ids) == theirs.decode(ids)


# --- results ------------------------------------------------------------------------------------


def test_results_are_dataframes_and_say_in_a_line_what_they_are(whole_study):
    results = squentropy.load_results("results/tiny")
    best = results.metrics["nll"].idxmin()
    nll = results.metrics.at[best, "nll"]
    assert repr(results).startswith("<results of tiny: three losses, the best ")
    assert f"with test nll {nll:.3f} nats per token; tables: sweep, refine, " in repr(results)
    assert len(repr(results)) < 300
    files = {path.stem for path in Path("results/tiny").glob("*.csv")}
    assert files <= results.tables.keys()
    for name in files - {"metrics"}:  # which also contains yardsticks
        of_file = pd.read_csv(f"results/tiny/{name}.csv")
        pd.testing.assert_frame_equal(results.tables[name], of_file)


def test_results_that_are_damaged_are_refused(whole_study):
    path = Path("results/tiny/stories.csv")
    path.write_text(path.read_text().replace("1", "2", 1))
    with pytest.raises(SquentropyError, match=r"stories\.csv: is not what its manifest says"):
        squentropy.load_results("results/tiny")


# --- dependencies -------------------------------------------------------------------------------


def needed(*names: str) -> set[str]:
    """The given packages and their transitive dependencies here, by normalised name."""
    found: set[str] = set()
    left = [Requirement(name) for name in names]
    while left:
        requirement = left.pop()
        name = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        left += map(Requirement, metadata.requires(name) or [])
    return found


def core() -> list[str]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["dependencies"]


def test_the_core_brings_three_packages_at_most_beside_those_of_torch_and_numpy():
    beside = needed(*core()) - needed("torch", "numpy")
    assert len(beside) <= 3, beside


ALONE = """
import sys
from importlib.abc import MetaPathFinder

class Missing(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
"""


def with_the_core_alone(program: str, folder: Path) -> subprocess.CompletedProcess:
    """Run a program in a Python that finds only the packages that the core installs."""
    have = needed(*core())
    absent = {
        module
        for module, owners in metadata.packages_distributions().items()
        if module != "squentropy" and not {re.sub(r"[-_.]+", "-", o).lower() for o in owners} & have
    }
    assert {"pandas", "pydantic", "yaml", "typer", "tiktoken", "psutil", "tqdm"} <= absent
    command = [sys.executable, "-c", ALONE.format(absent=sorted(absent)) + program]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


EVERYTHING = f"""
import torch
import squentropy
from squentropy.losses import LOSSES

run = squentropy.load_run({RUN!r})
run.generate("Tim", max_tokens=3), run.logits("Tim"), run.probabilities("Tim"), run.history
logits, targets = torch.zeros(2, 3), torch.tensor([0, -100])
squentropy.functional.squentropy(logits, targets, 0.1, ignore_index=-100)
squentropy.nn.Squentropy(0.1)(logits, targets)
LOSSES["squentropy"](logits, torch.eye(3), torch.tensor([0, 1]))
try:
    squentropy.load_results
except squentropy.SquentropyError as error:
    print(error)
"""


def test_with_the_core_alone_all_works_but_results_which_say_what_they_need(whole_study):
    done = with_the_core_alone(EVERYTHING, whole_study)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        "squentropy.load_results: pandas: is not installed; `pip install 'squentropy[pipeline]'` "
        "installs what the study needs\n"
    )


def test_with_the_core_alone_the_command_says_what_it_needs(tmp_path):
    done = with_the_core_alone("from squentropy.cli import main\nmain()", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    fix = r"`pip install 'squentropy\[pipeline\]'` installs what the study needs"
    assert re.fullmatch(rf"squentropy: \w+: is not installed; {fix}\n", done.stderr)


def test_importing_the_package_imports_nothing_else():
    program = "import sys, squentropy; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    found = {name.partition(".")[0] for name in done.stdout.split()}
    assert [name for name in done.stdout.split() if name.startswith("squentropy.")] == []
    assert "squentropy" in found
    assert not {"torch", "numpy"} & found


def test_what_the_package_offers_is_listed_and_the_rest_is_not_there():
    offered = {"load_run", "load_results", "functional", "nn", "SquentropyError"}
    assert offered <= set(dir(squentropy))
    with pytest.raises(AttributeError, match="no attribute 'load_rum'"):
        squentropy.load_rum  # noqa: B018


# --- which clone's package is imported ----------------------------------------------------------


@pytest.fixture
def clone(tmp_path, monkeypatch) -> Path:
    """The working folder: a clone whose package is not the imported one."""
    (tmp_path / "src/squentropy").mkdir(parents=True)
    (tmp_path / "src/squentropy/__init__.py").touch()
    (tmp_path / "Snakefile").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_in_a_clone_of_another_package_the_library_warns(clone):
    with pytest.warns(UserWarning, match="is not this clone's but .*unset PYTHONPATH"):
        squentropy.load_run  # noqa: B018


def test_a_copy_that_pip_left_is_named_with_the_way_back(clone, monkeypatch):
    copied = "/env/lib/python3.11/site-packages/squentropy/base/installed.py"
    monkeypatch.setattr(installed, "__file__", copied)
    with pytest.raises(installed.ForeignPackage) as error:
        installed.check_own(clone)
    assert str(error.value) == (
        f"{clone}: the imported package is not this clone's but "
        "/env/lib/python3.11/site-packages/squentropy; `pip install --no-deps "
        "--no-build-isolation --editable .` replaces it with this clone's"
    )


def test_elsewhere_it_does_not_warn(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        squentropy.load_run  # noqa: B018
