"""Grade the sampled stories with a language model, as in the TinyStories paper.

    OPENAI_API_KEY=… squentropy judge results/grammar --model MODEL

Eldan & Li 2023 (arXiv 2305.07759) had GPT-4 grade the grammar, creativity, consistency and plot of
stories on a scale from 1 to 10. Any endpoint with OpenAI's chat completions works (endpoint.py).
Not a step of the study, because it costs money and the model behind a name may change.

    judge.jsonl    each answer as it arrives, so that none is paid for twice
    judge.csv      mean grades, once all answers have arrived; the report shows them
"""

import hashlib
import json
from collections.abc import Iterable
from itertools import islice
from multiprocessing.pool import ThreadPool
from pathlib import Path
from threading import Event
from typing import Any

from squentropy.base import storage
from squentropy.base.errors import SquentropyError
from squentropy.base.kinds import Row, ToldStory
from squentropy.base.progress import bar
from squentropy.report.read import GRADES, JUDGE, read
from squentropy.results import intervals
from squentropy.tools import endpoint
from squentropy.tuning.outcomes import write_csv

INSTRUCTIONS = """\
You grade stories for three to four year old children. You are given the beginning of a story and \
the way a student has completed it. Grade the completion alone, each from 1 (worst) to 10 (best): \
"grammar": is the language correct; "creativity": are there ideas of its own; "consistency": does \
it agree with the beginning and with itself; "plot": does the story make sense from beginning to \
end. Answer with one JSON object of these four keys and whole numbers, and nothing else."""

AT_ONCE = 4  # concurrent questions
CONFIDENCE = 0.95

Grades = dict[str, int]


def judge(results: Path, model: str, stories: int) -> list[Row]:
    """Grade `stories` stories per loss and temperature, starting with the lowest numbers.

    Returns the rows of judge.csv: mean grades with Student's interval over stories. Stories that
    the model has already graded are not graded again. Reads OPENAI_API_KEY, and OPENAI_BASE_URL for
    endpoints other than OpenAI's. Raises SquentropyError if the endpoint refuses, or answers with
    anything but grades; earlier answers are kept.
    """
    told: list[Any] = read(results).samples
    groups: dict[tuple[str, float], list[ToldStory]] = {}
    for sample in sorted(told, key=lambda sample: sample["number"]):
        if sample["phase"] == "final":
            key = sample["loss"], sample["temperature"]
            groups.setdefault(key, []).append(sample)
    asked = {key: list(islice(samples, stories)) for key, samples in groups.items()}
    answers = Answers(results / "judge.jsonl", model)
    answers.ask(sample for samples in asked.values() for sample in samples)
    digest, rows = storage.sha256(results / "samples.json"), []
    for (loss, temperature), samples in asked.items():
        graded = [answers.held[digest_of(sample)] for sample in samples]
        row = {"loss": loss, "temperature": temperature, "model": model, "stories": len(graded)}
        for name in GRADES:
            mean = intervals.mean([grades[name] for grades in graded], CONFIDENCE)
            row |= {name: mean.estimate, f"{name}_low": mean.low, f"{name}_high": mean.high}
        rows.append(row | {"samples_sha256": digest})
    write_csv(results / "judge.csv", rows, JUDGE)
    return rows


class Answers:
    """The grades that a model has given, one per line of a file."""

    def __init__(self, path: Path, model: str):
        self.path, self.model = path, model
        self.held: dict[str, Grades] = {}
        """By the digest of the question."""
        lines = path.read_text(encoding="utf-8").split("\n") if path.exists() else []
        for line in filter(None, lines):
            try:
                entry = json.loads(line)
                if entry["model"] == model:
                    self.held[entry["story"]] = {name: entry[name] for name in GRADES}
            except (ValueError, KeyError, TypeError):
                continue  # truncated when the program was killed
        self.whole = not lines or lines[-1] == ""

    def ask(self, samples: Iterable[ToldStory]) -> None:
        """Grade the stories that are not graded yet, several at once, and keep each answer.

        Raises the first SquentropyError, after pending answers have arrived.
        """
        missing = {digest_of(sample): sample for sample in samples}
        missing = {key: missing[key] for key in missing if key not in self.held}
        if not missing:
            return
        endpoint.check()
        failed, stop = [], Event()

        def one(key: str) -> tuple[str, Grades | SquentropyError | None]:
            try:
                return key, None if stop.is_set() else grade(missing[key], self.model)
            except SquentropyError as error:
                stop.set()
                return key, error

        with ThreadPool(AT_ONCE) as pool:
            for key, said in bar(
                pool.imap_unordered(one, missing), self.model, "stories", of=len(missing)
            ):
                if isinstance(said, SquentropyError):
                    failed.append(said)
                elif said is not None:
                    self.keep(key, said)
        if failed:
            raise failed[0]

    def keep(self, key: str, grades: Grades) -> None:
        self.held[key] = grades
        line = json.dumps({"model": self.model, "story": key, **grades}) + "\n"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line if self.whole else f"\n{line}")
        self.whole = True


def digest_of(sample: ToldStory) -> str:
    """Digest of the question about a story, 16 hex digits."""
    asked = json.dumps([INSTRUCTIONS, question(sample)])
    return hashlib.sha256(asked.encode()).hexdigest()[:16]


def question(sample: ToldStory) -> str:
    completion = sample["text"].removeprefix(sample["prompt"])
    return f"{sample['prompt']} *** {completion}"


def grade(sample: ToldStory, model: str) -> Grades:
    """The grades of one story. Raises SquentropyError if the answer contains none."""
    messages = [
        {"role": "system", "content": INSTRUCTIONS},
        {"role": "user", "content": question(sample)},
    ]
    answer = endpoint.ask({"model": model, "temperature": 0, "messages": messages})
    try:
        content = json.loads(answer)["choices"][0]["message"]["content"]
        grades = json.loads(content[content.index("{") : content.rindex("}") + 1])
        if all(type(grades[name]) is int and 1 <= grades[name] <= 10 for name in GRADES):
            return {name: grades[name] for name in GRADES}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        pass
    raise SquentropyError(
        f"{model} answered {answer.decode(errors='replace')[:200]!r}, which contains no grades "
        "from 1 to 10; try another model"
    )
