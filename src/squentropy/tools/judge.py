"""A language model's grades for the sampled stories, as the TinyStories paper has them.

    OPENAI_API_KEY=… squentropy judge results/grammar --model MODEL

Eldan & Li 2023 (arXiv 2305.07759) let GPT-4 grade the grammar, creativity, consistency and plot of
stories on a scale from 1 to 10. Any endpoint with OpenAI's chat completions serves. No part of the
study: it costs money, and answers change with the model behind a name. Writes judge.csv.
"""

import json
import os
import time
import urllib.error
import urllib.request
from http.client import HTTPException
from itertools import islice
from pathlib import Path
from typing import Any

from squentropy.errors import SquentropyError
from squentropy.kinds import Row, ToldStory
from squentropy.report.read import read
from squentropy.results import intervals
from squentropy.tuning.outcomes import write_csv

GRADES = ("grammar", "creativity", "consistency", "plot")
JUDGE = [
    "loss", "temperature", "model", "stories",
    *(f"{grade}{end}" for grade in GRADES for end in ("", "_low", "_high")),
]  # fmt: skip

INSTRUCTIONS = """\
You grade stories for three to four year old children. You are given the beginning of a story and \
the way a student has completed it. Grade the completion alone, each from 1 (worst) to 10 (best): \
"grammar": is the language correct; "creativity": are there ideas of its own; "consistency": does \
it agree with the beginning and with itself; "plot": does the story make sense from beginning to \
end. Answer with one JSON object of these four keys and whole numbers, and nothing else."""

TRIES = 5
TIMEOUT = 120  # seconds for an answer
CONFIDENCE = 0.95


def judge(results: Path, model: str, stories: int) -> list[Row]:
    """Grade `stories` stories a loss and temperature, those of the lowest numbers first.

    Returns the rows of judge.csv: mean grades with Student's interval over stories. Reads
    OPENAI_API_KEY, and OPENAI_BASE_URL for another endpoint than OpenAI's. Raises SquentropyError
    where the endpoint refuses, or answers with anything but grades.
    """
    told: list[Any] = read(results).samples
    groups: dict[tuple[str, float], list[ToldStory]] = {}
    for sample in sorted(told, key=lambda sample: sample["number"]):
        if sample["phase"] == "final":
            key = sample["loss"], sample["temperature"]
            groups.setdefault(key, []).append(sample)
    rows = []
    for (loss, temperature), samples in groups.items():
        graded = [grade(sample, model) for sample in islice(samples, stories)]
        row = {"loss": loss, "temperature": temperature, "model": model, "stories": len(graded)}
        for name in GRADES:
            mean = intervals.mean([grades[name] for grades in graded], CONFIDENCE)
            row |= {name: mean.estimate, f"{name}_low": mean.low, f"{name}_high": mean.high}
        rows.append(row)
    write_csv(results / "judge.csv", rows, JUDGE)
    return rows


def grade(sample: ToldStory, model: str) -> dict[str, int]:
    """The grades of one story. Raises SquentropyError where the answer holds none."""
    completion = sample["text"].removeprefix(sample["prompt"])
    messages = [
        {"role": "system", "content": INSTRUCTIONS},
        {"role": "user", "content": f"{sample['prompt']} *** {completion}"},
    ]
    answer = _ask({"model": model, "temperature": 0, "messages": messages})
    try:
        content = json.loads(answer)["choices"][0]["message"]["content"]
        grades = json.loads(content[content.index("{") : content.rindex("}") + 1])
        if all(type(grades[name]) is int and 1 <= grades[name] <= 10 for name in GRADES):
            return {name: grades[name] for name in GRADES}
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        pass
    raise SquentropyError(
        f"{model} answered {answer.decode(errors='replace')[:200]!r}, which holds no grades from 1 "
        "to 10; try another model"
    )


def _ask(body: dict[str, Any]) -> bytes:
    """An answer of the endpoint; a busy one is asked again after as long as it says."""
    key = os.environ.get("OPENAI_API_KEY", "").strip()
    if not key:
        raise SquentropyError("OPENAI_API_KEY: is not set; the judge needs an endpoint's key")
    url = os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1").rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise SquentropyError(f"OPENAI_BASE_URL = {url}: is no http address")
    request = urllib.request.Request(
        f"{url}/chat/completions",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {key}"},
    )
    for attempt in range(1, TRIES + 1):
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                return response.read()
        except urllib.error.HTTPError as error:
            said = " ".join(error.read().decode(errors="replace").split())[:200]
            if (error.code != 429 and error.code < 500) or attempt == TRIES:
                raise SquentropyError(f"{url}: answers {error.code}: {said}") from None
            time.sleep(_seconds(error.headers.get("Retry-After"), attempt))
        except (OSError, HTTPException) as error:  # no connection, none in time, or cut off
            if attempt == TRIES:
                reason = getattr(error, "reason", error)
                raise SquentropyError(f"{url}: cannot be reached: {reason}") from None
            time.sleep(_seconds(None, attempt))
    raise AssertionError("unreachable")


def _seconds(asked: str | None, attempt: int) -> float:
    """How long to wait: as long as the endpoint asks, up to a minute, or ever longer."""
    try:
        return min(60.0, max(0.0, float(asked or "")))
    except ValueError:
        return min(60.0, 2.0**attempt)
