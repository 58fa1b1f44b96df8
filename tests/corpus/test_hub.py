"""Loading a data set with the real hub client, from a hub on loopback and without one.

    pytest tests/corpus/test_hub.py

HF_ENDPOINT and HF_HOME are read when the libraries are imported, so each test runs the client in
fresh processes with its own cache. Cases that need no fresh process share one, because importing
`datasets` takes a second.
"""

import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import COMMIT, Repository, serve

ROOT = Path(__file__).parents[2]
TRAIN = "data/train-00000-of-00001.parquet"
VALIDATION = "data/validation-00000-of-00001.parquet"
CHUNK = 10 << 20  # bytes that the client writes at once; downloads resume after whole chunks
OTHER = "f" * 40  # a commit that no repository here has

BUILD = """
import json, sys
from squentropy.corpus.build import build
from squentropy.base.errors import SquentropyError
from squentropy.study import params

default = params.load(["params.yaml"]).corpus
for job in json.load(sys.stdin):
    folder = job.pop("folder")
    hub = default.hub.model_copy(update={"validation_stories": 20, "licence": "CC0"} | job)
    try:
        outcome = {"manifest": build(
            default.model_copy(update={"source": "hub", "hub": hub}), folder)}
    except SquentropyError as error:
        outcome = {"error": str(error)}
    print("outcome", json.dumps(outcome))
"""


@dataclass
class Client:
    """Build corpora in fresh processes that share a cache."""

    home: Path
    url: str = ""

    def build(self, *jobs: dict, **environment: str) -> list[dict]:
        """The outcome of each job: {"manifest": ...} or {"error": "one line"}."""
        run = subprocess.run(**self.process(jobs, environment), timeout=120, check=False)
        assert run.returncode == 0, run.stderr
        assert "%|" not in run.stderr  # no progress bars without a terminal
        marked = [line for line in run.stdout.splitlines() if line.startswith("outcome ")]
        return [json.loads(line.removeprefix("outcome ")) for line in marked]

    def build_and_kill(self, job: dict, when: Callable[[], bool]) -> None:
        """Start a job and kill its process as soon as `when()` is true."""
        arguments = self.process([job], {})
        text = arguments.pop("input")
        arguments.pop("capture_output")
        with subprocess.Popen(**arguments, stdin=subprocess.PIPE) as process:
            process.stdin.write(text)
            process.stdin.close()
            deadline = time.monotonic() + 60
            while not when() and time.monotonic() < deadline:
                time.sleep(0.02)
            process.kill()
        assert when()

    def process(self, jobs: Iterable[dict], environment: dict[str, str]) -> dict:
        """Arguments of `subprocess` for running jobs."""
        jobs = [{"revision": COMMIT, "folder": str(self.folder(job))} | job for job in jobs]
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING"))}
        ours = {
            "PYTHONPATH": str(ROOT / "src"),
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(self.home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "NO_PROXY": "127.0.0.1",
        }
        return {
            "args": [sys.executable, "-c", BUILD],
            "input": json.dumps(jobs),
            "env": kept | ours | environment,
            "cwd": ROOT,
            "text": True,
            "capture_output": True,
        }

    def folder(self, job: dict) -> Path:
        return self.home.parent / job["dataset"].replace("/", "_")


@pytest.fixture
def client(tmp_path) -> Client:
    return Client(tmp_path / "home")


def parquet(texts: list[str], compression: str = "none") -> bytes:
    file = io.BytesIO()
    pq.write_table(
        pa.table({"text": texts, "id": range(len(texts))}), file, compression=compression
    )
    return file.getvalue()


def repository(pad: int = 0, **faults) -> Repository:
    """300 train and 30 validation stories, in files named as in TinyStories."""
    train = [f"Story {i}. {'x' * pad}\n\n" for i in range(300)]
    files = {
        "README.md": b"---\nlicense: cc0-1.0\n---\n",
        TRAIN: parquet(train),
        VALIDATION: parquet([f"Validation {i}." for i in range(30)]),
    }
    return Repository(files, **faults)


def counts(outcome: dict) -> list[int]:
    assert "manifest" in outcome, outcome
    splits = outcome["manifest"]["splits"]
    return [splits[split]["stories"] for split in ("train", "validation", "test")]


def test_a_data_set_is_loaded_and_loaded_again_from_the_cache_without_the_hub(client):
    job = {"dataset": "ours/good"}
    with serve({"ours/good": repository()}) as hub:
        client.url = hub.url
        [first] = client.build(job)
    assert counts(first) == [280, 20, 30]
    assert first["manifest"]["licence"] == "CC0"
    assert first["manifest"]["provenance"] == {
        "dataset": "ours/good",
        "revision": COMMIT,
        "config": "default",
        "splits": {"train": "train", "test": "validation"},
    }
    folder = client.folder(job)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    train = pq.read_table(folder / "train.parquet")["text"].to_pylist()
    assert all(story.endswith("\n\n") for story in train)  # nothing was stripped

    nowhere = {"dataset": "ours/nowhere"}
    [offline] = client.build(nowhere, HF_HUB_OFFLINE="1")
    unreachable, second, another_revision, by_branch = client.build(
        nowhere, job, job | {"revision": OTHER}, job | {"revision": "main"}
    )
    assert counts(second) == [280, 20, 30]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    # `datasets` alone would load the cached revision instead, with only a warning.
    assert f"is revision {COMMIT}, not {OTHER}" in another_revision["error"]
    assert "what its revision 'main' is cannot be known" in by_branch["error"]
    # Without a hub and a cached copy, the one-line error says what to do.
    for outcome in (unreachable, offline):
        assert outcome["error"].startswith(
            f"ours/nowhere: the hub ({client.url}) cannot be reached"
        )
        assert all(x in outcome["error"] for x in ("HF_HOME", "HF_ENDPOINT", "HF_HUB_OFFLINE"))
        assert "`make study`" in outcome["error"]
        assert "\n" not in outcome["error"]
    assert list(client.folder(nowhere).iterdir()) == []


def test_what_goes_wrong_at_the_hub_is_continued_retried_or_said_in_one_line(client):
    whole = parquet([f"Story {i}." for i in range(3000)], "gzip")
    broken = whole[:1000] + bytes(1000) + whole[2000:]
    repositories = {
        "ours/good": repository(),
        "ours/breaking": repository(pad=40_000, cut_once={TRAIN: CHUNK + 1000}),
        "ours/busy": repository(refusals={TRAIN: [503, 500]}),
        "ours/damaged": repository(damaged={TRAIN}),
        "ours/short": repository(short={TRAIN}),
        "ours/forbidden": repository(refusals={TRAIN: [403] * 9}),
        "ours/nonsense": Repository({TRAIN: b"PAR1 is not enough PAR1"}),
        "ours/broken": Repository({TRAIN: broken}),
    }
    jobs = [{"dataset": name} for name in repositories]
    good = {"dataset": "ours/good"}
    mistakes = [
        ({"dataset": "ours/missing"}, "ours/missing: the hub has no such data set"),
        (good | {"revision": OTHER}, f"ours/good: has no revision '{OTHER}'; correct"),
        (good | {"test": "test"}, "corpus.hub.test: ours/good has no split 'test'"),
        (good | {"train": "train[:x]"}, "corpus.hub.train: ours/good has no split 'train[:x]'"),
        (good | {"text": "story"}, "has no column 'story' in train; it has: text, id"),
        (good | {"text": "id"}, "column 'id' holds"),
        (good | {"config": "large"}, "BuilderConfig 'large' not found"),
    ]
    with serve(repositories) as hub:
        client.url = hub.url
        jobs += [job for job, _ in mistakes]
        jobs.append(
            good | {"revision": "main", "train": "train[:50%]", "validation": "train[90%:]"}
        )
        outcomes = client.build(*jobs)
        by_name = dict(zip(repositories, outcomes, strict=False))

        assert counts(by_name["ours/good"]) == [280, 20, 30]
        # A broken download resumes in the same process, after the last complete chunk.
        assert counts(by_name["ours/breaking"]) == [280, 20, 30]
        gets = hub.gets(f"ours/breaking/resolve/{COMMIT}/{TRAIN}")
        assert gets == [None, f"bytes={CHUNK}-"]
        # A request that is answered with 500 or 503 is retried.
        assert counts(by_name["ours/busy"]) == [280, 20, 30]
        assert f"{TRAIN} is not what the hub announced (sha256" in by_name["ours/damaged"]["error"]
        assert "a file was cut short" in by_name["ours/short"]["error"]
        assert "the hub answered 403; log in" in by_name["ours/forbidden"]["error"]
        assert "ours/nonsense: cannot be loaded: Parquet" in by_name["ours/nonsense"]["error"]
        assert "ours/broken: cannot be read: " in by_name["ours/broken"]["error"]
        for (_, says), outcome in zip(mistakes, outcomes[len(repositories) :], strict=False):
            assert says in outcome["error"]
        assert "it has: train, validation" in outcomes[len(repositories) + 2]["error"]
        assert counts(outcomes[-1]) == [150, 30, 30]
        assert outcomes[-1]["manifest"]["provenance"]["revision"] == COMMIT
        assert not any("\n" in outcome.get("error", "") for outcome in outcomes)

        # The damaged file was deleted from the cache, so the next run downloads it again. Complete
        # files are not downloaded again.
        hub.repositories["ours/damaged"].damaged.clear()
        hub.requests.clear()
        [again] = client.build({"dataset": "ours/damaged"})
        assert counts(again) == [280, 20, 30]
        assert hub.gets("README.md") == []
        assert hub.gets(TRAIN) == [None]


def test_of_an_interrupted_load_whole_files_are_kept_and_the_broken_one_begins_again(client):
    # huggingface_hub 2 uses a different temporary name per process, so only complete files remain.
    job = {"dataset": "ours/cut"}
    with serve({"ours/cut": repository(hang={VALIDATION: 1000})}) as hub:
        client.url = hub.url
        client.build_and_kill(job, when=lambda: hub.gets(VALIDATION))
        hub.requests.clear()
        [outcome] = client.build(job)
        assert counts(outcome) == [280, 20, 30]
        assert hub.gets(TRAIN) == []
        assert hub.gets(VALIDATION) == [None]
