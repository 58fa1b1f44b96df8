"""A miniature study shared by the tests: parameters, stories, tokens and trained runs."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

import matplotlib
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from playwright.sync_api import Browser, Page, sync_playwright

from squentropy import losses
from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.corpus.grammar.grammar import load_grammar
from squentropy.evaluation.run import evaluate_run
from squentropy.lm.model import GPT, Config
from squentropy.report import pdf
from squentropy.results import tables, voices
from squentropy.sampling.run import sample_run
from squentropy.study import params
from squentropy.study.overlays import overlay
from squentropy.tokens.token_files import TokenFolder
from squentropy.tokens.tokenizer import read_encoding, story_bytes, tokenize
from squentropy.training.run import train_run
from squentropy.tuning import selection

ROOT = Path(__file__).resolve().parents[1]
FONTS = {
    "wide": ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono"),
    "narrow": ("STIXGeneral", "STIXGeneralBol"),
}
"""The fonts, from matplotlib's own, that a test browser has."""
PROJECT = ("Snakefile", "workflow", "params.yaml", "studies", "src", "notebooks", "profiles")

TINY = {
    "study": "tiny",
    "tokens": {"vocab_size": 300},
    "model": {"n_embd": 16, "n_head": 2, "block_size": 16},
    "train": {"device": "cpu", "threads": 1, "batch_size": 2, "divergence": 10.0},
    "sweep": {
        "losses": ["cross_entropy", "mse", "brier"],
        "lr": [0.001, 0.01, 0.02],
        "dropout": [0.1],
        "n_layer": [1],
        "max_iters": 6,
        "warmup_iters": 2,
        "eval_interval": 3,
        "eval_stories": 4,
    },
    "refine": {
        "max_runs": 4,
        "tie": 0.0,
        "max_iters": 6,
        "warmup_iters": 2,
        "eval_interval": 3,
        "eval_stories": 4,
    },
    "final": {
        "seeds": [1, 2],
        "lengths": [4],
        "length_seeds": 1,
        "max_iters": 8,
        "warmup_iters": 2,
        "eval_interval": 4,
        "eval_stories": 4,
        "reported": {"loss": "squentropy_weighted", "n_layer": 1},
    },
    "evaluate": {"original_batches": 2, "bootstrap": 100},
    "sample": {"prompts": ["Tim", "The red kite"], "stories": 2, "max_tokens": 24},
}


def pytest_configure() -> None:
    """Restore Ctrl-C, also for child processes: a shell's background jobs ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _make_study(**changes) -> params.Study:
    """The miniature study with changes such as model={"bias": True}."""
    values = params.load([ROOT / "params.yaml"]).model_dump()
    return params.parse(overlay(overlay(values, TINY), changes))


def _make_cell(**changes) -> params.Cell:
    return replace(params.Cell("sweep", "cross_entropy", 0.01, 0.1, 1, 0), **changes)


def _make_stories() -> dict[str, list[str]]:
    names, things = ["Tim", "Lily", "Ben", "Mia"], ["kite", "ball", "hat", "boat", "drum"]
    colours = ["red", "blue", "old"]
    every = [
        f"{name} had a {colour} {thing}.\n\nOne day the {thing} was gone, and {name} said, “Oh!”"
        for name, colour, thing in itertools.product(names, colours, things)
    ]
    held = [f"{every[i]} It was in the tree 🌳." for i in (3, 22, 41, 58)]
    odd = ["Hi", "The text <|endoftext|> in a story.", " ".join(every[:3])]
    return {"train": [*every, *odd], "validation": held, "test": [*odd, *held[:2], "The end."]}


@pytest.fixture(scope="session")
def tiny_study() -> Callable[..., params.Study]:
    return _make_study


@pytest.fixture(scope="session")
def tiny_cell() -> Callable[..., params.Cell]:
    return _make_cell


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    """A folder with corpus/ and tokens/."""
    folder = tmp_path_factory.mktemp("data")
    entries = {}
    for split, stories in _make_stories().items():
        path = folder / "corpus" / f"{split}.parquet"
        path.parent.mkdir(exist_ok=True)
        log_prob = [-0.1 * len(story) for story in stories]
        pq.write_table(pa.table({"text": stories, "log_prob": log_prob}), path)
        size = sum(len(story.encode()) for story in stories)
        entries[split] = {"stories": len(stories), "bytes": size, "sha256": storage.sha256(path)}
    manifest = {"source": "files", "licence": "MIT", "splits": entries}
    storage.write_sealed(folder / "corpus" / "manifest.json", manifest)
    tokenize(_make_study().tokens, folder / "corpus", folder / "tokens")
    return folder


@pytest.fixture(scope="session")
def tokens(data) -> TokenFolder:
    return TokenFolder.open(data / "tokens")


@pytest.fixture(scope="session")
def grammar_data(tmp_path_factory) -> Path:
    """Like `data`, but with stories of the grammar."""
    folder, entries = tmp_path_factory.mktemp("grammar"), {}
    for seed, (split, n) in enumerate({"train": 60, "validation": 5, "test": 30}.items()):
        stories = list(load_grammar().stories(seed, 0, n))
        path = folder / "corpus" / f"{split}.parquet"
        path.parent.mkdir(exist_ok=True)
        columns = {"text": [s.text for s in stories], "log_prob": [s.log_prob for s in stories]}
        pq.write_table(pa.table(columns), path)
        size = sum(len(s.text.encode()) for s in stories)
        entries[split] = {"stories": n, "bytes": size, "sha256": storage.sha256(path)}
    manifest = {"source": "grammar", "licence": "MIT", "splits": entries}
    storage.write_sealed(folder / "corpus" / "manifest.json", manifest)
    tokenize(_make_study().tokens, folder / "corpus", folder / "tokens")
    return folder


@pytest.fixture(scope="session")
def finished(data, tokens, tmp_path_factory) -> Path:
    """The finished miniature study, one loss of which always diverges: checkpoints/, results/."""
    study, folder = _make_study(), tmp_path_factory.mktemp("finished")
    checkpoints, results = folder / "checkpoints", folder / "results"
    sizes, encoding = story_bytes(data / "corpus", "test", tokens), read_encoding(tokens)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(losses.LOSSES, "brier", lambda h, w, y: h.sum() * torch.nan)

        def train(cell) -> dict:
            return train_run(study, cell, tokens, checkpoints / cell.name).run

        for cell in study.sweep_cells():
            train(cell)
        for loss in study.sweep.losses:
            selection.refine_loss(study, loss, checkpoints, train)
        selection.select(study, checkpoints, results)
        chosen = selection.selected_hyperparameters(study, results)
        finals = [*study.final_cells(chosen), *study.reported_cells()]
        for cell in [*study.length_cells(chosen), *finals]:
            run = checkpoints / cell.name
            train(cell)
            evaluate_run(study, run, tokens, sizes, "test")
            if cell in finals:
                sample_run(study, run, tokens, encoding)
    voices.write_voices(study, data, checkpoints, results)
    tables.metrics(study, data, checkpoints, results)
    return folder


@pytest.fixture
def copy(finished, tmp_path) -> Path:
    """A copy of the finished study that a test may change."""
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.fixture
def whole_study(finished, data, tmp_path, monkeypatch) -> Path:
    """The working folder, which contains the finished study; every run of brier diverged."""
    shutil.copytree(data, tmp_path / "data/tiny")
    shutil.copytree(finished / "checkpoints", tmp_path / "checkpoints/tiny")
    shutil.copytree(finished / "results", tmp_path / "results/tiny")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def mounted(tmp_path) -> Iterator[Callable[[str], Path]]:
    """mounted(size): an empty tmpfs of a size like "64k"; skips if mounting is not permitted."""
    disk = tmp_path / "disk"

    def mount(size: str) -> Path:
        disk.mkdir()
        words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
        if not shutil.which("mount") or subprocess.run(words, capture_output=True).returncode:
            pytest.skip("mounting is not permitted here")
        return disk

    yield mount
    if disk.is_mount():
        subprocess.run(["umount", str(disk)], check=True)


@pytest.fixture(scope="session")
def peak_memory() -> Callable[[Callable], int]:
    """peak_memory(function): the peak memory that Python and numpy allocate in it, in bytes."""

    def measure(function: Callable) -> int:
        tracemalloc.start()
        try:
            function()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return measure


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Run every test on one thread, whatever the previous test set."""
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _losses_as_they_were() -> Iterator[None]:
    """Unregister losses from user files, which otherwise stay registered in the process."""
    before, links = dict(losses.LOSSES), dict(losses._LINKS)
    yield
    for held, earlier in ((losses.LOSSES, before), (losses._LINKS, links)):
        held.clear()
        held.update(earlier)


@pytest.fixture
def lossy(monkeypatch) -> Callable:
    """lossy(name, function): replaces a training loss with `function`."""
    return lambda name, function: monkeypatch.setitem(losses.LOSSES, name, function)


@pytest.fixture(scope="session")
def copy_project() -> Callable[[Path], Path]:
    """copy_project(folder): copies what the workflow needs into a folder and returns it."""

    def copy(folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        for part in PROJECT:
            place = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
            place(ROOT / part, folder / part)
        return folder

    return copy


@pytest.fixture(scope="session")
def snakemake() -> Callable[..., subprocess.CompletedProcess]:
    """snakemake(project, *words): runs it in a copy of the project, with that copy's package."""

    def run(project: Path, *words: str) -> subprocess.CompletedProcess:
        environment = os.environ | {"PYTHONPATH": str(project / "src")}
        command = [sys.executable, "-m", "snakemake", *words]
        return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)

    return run


@pytest.fixture(scope="module")
def browsers(tmp_path_factory) -> Iterator[Callable[[str], Browser]]:
    """browsers("wide" or "narrow"): a headless Chromium; skips if none is installed.

    It only finds the fonts in FONTS, so a page has the same layout on every machine.
    """
    try:
        path = pdf.chromium()
    except SquentropyError as error:
        pytest.skip(str(error))
    with sync_playwright() as playwright:

        @cache
        def launch(width: str) -> Browser:
            fonts = tmp_path_factory.mktemp(width)
            for name in FONTS[width]:
                shutil.copy(matplotlib.get_data_path() + f"/fonts/ttf/{name}.ttf", fonts)
            (fonts / "fonts.conf").write_text(
                '<!DOCTYPE fontconfig SYSTEM "fonts.dtd"><fontconfig>'
                f"<dir>{fonts}</dir><cachedir>{fonts}/cache</cachedir></fontconfig>"
            )
            environment = os.environ | {"FONTCONFIG_FILE": str(fonts / "fonts.conf")}
            return playwright.chromium.launch(
                executable_path=path, chromium_sandbox=False, env=environment
            )

        yield launch


@pytest.fixture(scope="module")
def browser(browsers) -> Browser:
    """A headless Chromium; skips if none is installed."""
    return browsers("wide")


@pytest.fixture
def visitor(browsers) -> Iterator[Callable[..., Page]]:
    """visitor(path, width, font, …): a report, loaded in a browser.

    Fails if the page requests anything else or logs to the console.
    """
    asked, said, contexts, visited = [], [], [], set()

    def visit(path: Path, width: int = 1280, font: str = "wide", **how) -> Page:
        how = {"viewport": {"width": width, "height": 800}, "offline": True, **how}
        contexts.append(browsers(font).new_context(**how))
        page = contexts[-1].new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        visited.add(path.as_uri())
        page.goto(path.as_uri())
        if how.get("java_script_enabled", True):
            page.locator(".browser[hidden]").wait_for(state="detached")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert said == []
    assert [url for url in asked if url not in visited and not url.startswith("data:")] == []


@pytest.fixture(scope="session")
def sharp_model() -> Callable[..., GPT]:
    """An untrained GPT with predictions so different that a wrong context shows."""

    def make(vocab_size: int, block_size: int) -> GPT:
        torch.manual_seed(0)
        shape = {"n_layer": 2, "n_head": 2, "n_embd": 16, "dropout": 0.5, "bias": False}
        model = GPT(Config(vocab_size, block_size, **shape))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(6)
        return model.eval()

    return make


@pytest.fixture(scope="session")
def s3():
    """The address of an S3 server with a bucket `studies`, and its credentials."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    client = boto3.client("s3", endpoint_url=address, region_name="us-east-1", **keys)
    client.create_bucket(Bucket="studies")
    yield address, {name.upper(): value for name, value in keys.items()}
    server.stop()
