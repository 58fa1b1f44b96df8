"""Quality metrics of the sampled stories, compared with stories of the test split.

`squentropy metrics` writes results/STUDY/quality.csv: one row per loss and temperature over the
final runs of all seeds, and one for the test stories. Test stories are measured in groups of the
same size, because the share of distinct n-grams depends on the amount of text. Metrics from the
grammar are best at 1; compare the others with the row of the test stories.
"""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from math import exp, log
from pathlib import Path
from typing import Any

import numpy as np

from squentropy.base.kinds import Row, ToldStory
from squentropy.corpus.grammar import parser
from squentropy.corpus.grammar.grading import grade
from squentropy.results import intervals
from squentropy.study.params import Study
from squentropy.tokens.token_files import TokenFolder
from squentropy.tokens.tokenizer import read_encoding, read_stories

TEST = "test stories"
"""The value of `loss` in the row of the test stories."""

KINDS = {kind: kind.replace(" ", "_") for kind in parser.KINDS}
"""Reasons for which the grammar's checker rejects a story, and the columns that count them."""

SHARES = ("valid", "form", "ended")
COUNTED = {"agreement": ("matches", "references"), "sentences_in_form": ("in_form", "sentences")}
MEANS = ("parsed", "repetition", "tokens")
OF_A_RUN = ("distinct_1", "distinct_2", "distinct_3", "self_bleu")
MEASURES = ("valid", "form", *COUNTED, "ended", *MEANS, *OF_A_RUN)
"""
Only for the grammar corpus (defined in corpus/grammar/grading.py):
valid         share of stories that the grammar's checker accepts
form          share of stories that the grammar could have written if every reference to a name,
              an object or a place were free
agreement     share of references, over all stories, that agree with what was bound earlier
sentences_in_form  share of sentences, over all stories, that the grammar could have written
              anywhere in a story
parsed        mean share of a story's characters before it leaves the grammar

For any corpus:
ended         share that ended on their own instead of being cut at the limit
repetition    mean share of a story's 4-grams that occurred in it before (seq-rep-4 of Welleck et
              al. 2020, arXiv 1908.04319)
tokens        mean length in tokens, including the prompt but not the end of text
distinct_1    distinct n-grams over all n-grams in the stories of a run, n from 1 to 3 (Li et al.
              2016, arXiv 1510.03055)
self_bleu     mean BLEU-4 of a story against all others of a run (Zhu et al. 2018, arXiv 1802.01886)
"""

QUALITY = [
    "loss", "temperature", "reading", "runs", "stories",
    *(f"{name}{end}" for name in MEASURES for end in ("", "_low", "_high")),
    *KINDS.values(),
]  # fmt: skip


def quality_rows(study: Study, data: Path, samples: list[ToldStory]) -> list[Row]:
    """The rows of quality.csv.

    data     folder with corpus/ and tokens/
    samples  the stories of samples.json

    Shares have Wilson's interval; means have the interval over seeds and stories of intervals.py.
    Shares of references and sentences weight each story by how many it has. Metrics of all stories
    of a run together have one value per seed, and Student's interval.
    """
    checked = study.corpus.source == "grammar"
    tokens = TokenFolder.open(data / "tokens")
    encoding = read_encoding(tokens)
    given = {p: len(encoding.encode_ordinary(p)) for p in study.sample.prompts}
    rows = []
    for loss in study.sweep.losses:
        for temperature in study.sample.temperatures:
            told = [
                s
                for s in samples
                if (s["phase"], s["loss"], s["temperature"]) == ("final", loss, temperature)
            ]
            if not told:
                continue
            runs = [
                [
                    _story(s["text"], given[s["prompt"]] + s["tokens"], s["ended"], checked)
                    for s in told
                    if s["seed"] == seed
                ]
                for seed in dict.fromkeys(s["seed"] for s in told)
            ]
            origin = {"loss": loss, "temperature": temperature, "reading": told[0]["reading"]}
            rows.append(origin | _row(study, runs))
    return [*rows, {"loss": TEST} | _row(study, _test_runs(study, data, tokens, checked))]


def _test_runs(
    study: Study, data: Path, tokens: TokenFolder, checked: bool
) -> list[list[dict[str, Any]]]:
    """Test stories in groups of a run's size, one group per seed or fewer if stories run out."""
    size = len(study.sample.prompts) * study.sample.stories
    lengths = np.diff(tokens.split("test").offsets) - 1
    texts = (s for batch in read_stories(data / "corpus" / "test.parquet") for s in batch)
    every = [
        _story(text, int(length), True, checked)
        for text, length in islice(zip(texts, lengths), size * len(study.final.seeds))
    ]
    whole = max(1, len(every) // size)
    return [every[i * size : (i + 1) * size] for i in range(whole)]


def _story(text: str, tokens: int, ended: bool, checked: bool) -> dict[str, Any]:
    words = split_words(text)
    story = {"words": words, "repetition": repetition(words), "tokens": tokens, "ended": ended}
    if checked:
        verdict = parser.check(text)
        at = len(text) if verdict.offset is None else verdict.offset
        story |= {"valid": verdict.valid, "kind": verdict.kind, "parsed": at / len(text)}
        story |= grade(text)._asdict()
    return story


def _row(study: Study, runs: list[list[dict[str, Any]]]) -> Row:
    how = study.evaluate.resampling()
    row: Row = {"runs": len(runs), "stories": sum(map(len, runs))}

    def of_stories(key: str) -> np.ndarray:
        return np.array([[story[key] for story in run] for run in runs], dtype=float)

    found = {}
    for name in (*SHARES, *MEANS):
        if name in runs[0][0]:
            values = of_stories(name)
            if name in SHARES:
                found[name] = intervals.share(values, **how)
            else:
                found[name] = intervals.mean_nll(values, np.ones(values.shape[1]), **how)
    for name, (hits, of) in COUNTED.items():
        if hits in runs[0][0]:
            found[name] = intervals.share(of_stories(hits), of_stories(of), **how)
    words = [[story["words"] for story in run] for run in runs]
    measured = {f"distinct_{n}": [distinct(run, n) for run in words] for n in (1, 2, 3)}
    measured["self_bleu"] = [self_bleu(run) for run in words]
    for name, of_runs in measured.items():
        found[name] = intervals.mean(of_runs, study.evaluate.confidence)
    for name, interval in found.items():
        row |= _columns(name, interval)
    if "kind" in runs[0][0]:
        kinds = Counter(story["kind"] for run in runs for story in run)
        row |= {column: kinds[kind] for kind, column in KINDS.items()}
    return row


def _columns(name: str, interval: intervals.Interval) -> dict[str, float]:
    """An interval as columns, clipped to the metric's range: [0, 1], or [0, inf) for lengths."""
    most = np.inf if name == "tokens" else 1.0
    low, high = (float(np.clip(end, 0.0, most)) for end in (interval.low, interval.high))
    return {name: interval.estimate, f"{name}_low": low, f"{name}_high": high}


# --- measures -----------------------------------------------------------------------------------


def split_words(text: str) -> list[str]:
    """Words and punctuation marks, in lower case."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def ngrams(words: list[str], n: int) -> Iterator[tuple[str, ...]]:
    return zip(*(words[i:] for i in range(n)))


def distinct(stories: list[list[str]], n: int) -> float:
    """Distinct n-grams over all n-grams of the stories together; NaN if there are none."""
    grams = [gram for words in stories for gram in ngrams(words, n)]
    return len(set(grams)) / len(grams) if grams else np.nan


def repetition(words: list[str], n: int = 4) -> float:
    """The share of a story's n-grams that occurred in it before; 0 if it has none."""
    grams = list(ngrams(words, n))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def self_bleu(stories: list[list[str]]) -> float:
    """Mean BLEU-4 of each story against all the others; NaN for fewer than two stories.

    Like nltk's sentence_bleu with smoothing `method1`, which uses 0.1 if nothing matches. nltk
    compares every pair of stories, which takes a minute per study. Here we keep the two largest
    counts of each n-gram: if the largest is the story's own, the second is that of the others.
    """
    if len(stories) < 2:
        return np.nan
    log_precision = np.zeros(len(stories))
    for n in (1, 2, 3, 4):
        counts = [Counter(ngrams(words, n)) for words in stories]
        largest: Counter[tuple[str, ...]] = Counter()
        second: Counter[tuple[str, ...]] = Counter()
        for count in counts:
            for gram, number in count.items():
                first = largest[gram]
                largest[gram] = max(first, number)
                second[gram] = max(second[gram], min(first, number))
        for i, count in enumerate(counts):
            matches = sum(
                min(number, second[gram] if number == largest[gram] else largest[gram])
                for gram, number in count.items()
            )
            log_precision[i] += log((matches or 0.1) / max(1, count.total())) / 4
    lengths = [len(words) for words in stories]
    return float(np.mean([exp(p + _brevity(i, lengths)) for i, p in enumerate(log_precision)]))


def _brevity(i: int, lengths: list[int]) -> float:
    """Log of BLEU's brevity penalty, relative to the other story that is closest in length."""
    own, others = lengths[i], lengths[:i] + lengths[i + 1 :]
    nearest = min(others, key=lambda length: (abs(length - own), length))
    return min(0.0, 1 - nearest / max(1, own))
