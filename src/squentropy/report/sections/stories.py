"""Sampled stories: one prompt continued by every loss, and a browser for the rest.

Without JavaScript, more prompts are shown in place of the browser.
"""

from typing import Literal, TypedDict

from squentropy.base.output import visible
from squentropy.report.format import integer
from squentropy.report.markup import Html, escape, packed, paragraphs
from squentropy.report.read import Results, Sample, label
from squentropy.report.sections.pieces import reading_name

Choice = Literal["prompt", "loss", "reading", "temperature", "seed", "number"]

LONGEST = 5000
"""Maximum number of characters shown per story."""
ROOM = 1_000_000
"""Total characters of the stories in the browser, before compression."""

CHOICES: tuple[Choice, ...] = ("prompt", "loss", "reading", "temperature", "seed", "number")
"""Fields by which a story is chosen, in the order of the menus."""


class Story(TypedDict):
    """A story as the page shows it, with invisible characters made visible."""

    prompt: str
    loss: str
    reading: str
    temperature: float
    seed: int
    number: int
    text: str
    note: str


def stories(r: Results, prompts: int = 3) -> Html:
    """The first story of each loss's final runs for some prompts, and the browser."""
    if not r.samples:
        return paragraphs("No stories were sampled.")
    told = [_record(sample) for sample in r.samples]
    shown = ("final", r.study.sample.middle)
    finals = [
        story
        for story, sample in zip(told, r.samples, strict=True)
        if (sample["phase"], sample["temperature"]) == shown
    ]
    known = list(dict.fromkeys(story["prompt"] for story in finals))
    first, *others = [_by_loss(finals, prompt) for prompt in known[:prompts]] or [""]
    browser = _browser(told)
    if browser and others:
        others = [f'<div class="instead">{"".join(others)}</div>']
    top = r.samples[0]["top_k"]
    whence = f"the {integer(top)} most likely tokens" if top else "all tokens"
    how = paragraphs(f"Sampled from {whence}. Every story is in <code>samples.json</code>.")
    return Html(how + first + browser + "".join(others))


def _record(sample: Sample) -> Story:
    text = visible(sample["text"])
    end = "ended by itself" if sample["ended"] else "cut at the limit"
    if len(text) > LONGEST:
        text, end = f"{text[:LONGEST]} …", f"the first {integer(LONGEST)} characters"
    heat = f"temperature {sample['temperature']:g}" if sample["temperature"] else "greedy"
    reading = reading_name(sample["reading"])
    seed, tokens = f"seed {sample['seed']}", f"{sample['tokens']} tokens"
    return {
        "prompt": visible(sample["prompt"]),
        "loss": label(sample["loss"]) + ("" if sample["phase"] == "final" else ", as reported"),
        "reading": reading,
        "temperature": sample["temperature"],
        "seed": sample["seed"],
        "number": sample["number"],
        "text": text,
        "note": ", ".join([f"read by {reading}", seed, heat, tokens, end]),
    }


def _by_loss(told: list[Story], prompt: str) -> str:
    """The first story of every loss for one prompt, side by side."""
    firsts: dict[str, Story] = {}
    for story in told:
        if story["prompt"] == prompt:
            firsts.setdefault(story["loss"], story)
    cards = "".join(
        f'<article class="story"><h4>{escape(loss)}</h4><p dir="auto">{_text(story)}</p>'
        f"<footer>{escape(story['note'])}</footer></article>"
        for loss, story in firsts.items()
    )
    return f'<h3>“{escape(prompt)} …”</h3><div class="stories">{cards}</div>'


def _text(story: Story) -> str:
    """A story with its prompt highlighted."""
    rest = story["text"].removeprefix(story["prompt"])
    start = f"<b>{escape(story['prompt'])}</b>" if len(rest) < len(story["text"]) else ""
    return start + escape(rest)


def _browser(told: list[Story]) -> str:
    """Menus and containers for two stories, filled by report.js; empty if nothing varies."""
    varying = [key for key in CHOICES if len({story[key] for story in told}) > 1]
    if not varying:
        return ""
    kept = _fitting(told)
    which = "Every sampled story"
    if len(kept) < len(told):
        which = f"The first {integer(len(kept))} of {integer(len(told))} sampled stories"
    shared = _choices([key for key in varying if key == "prompt"])
    own = _choices([key for key in varying if key != "prompt"])
    sides = "".join(
        f"<fieldset><legend>{name} story</legend>{own}"
        '<div class="story"><p dir="auto"></p><output></output></div></fieldset>'
        for name in ("First", "Second")[: 2 if own else 1]
    )
    return (
        '<div class="browser" hidden><h3>Any two side by side</h3>'
        f'<p>{which}, two at a time.</p>{shared}<div class="sides">{sides}</div></div>'
        f'<script type="text/plain" id="told">{packed(kept)}</script>'
    )


def _choices(keys: list[Choice]) -> str:
    selects = (f'<label>{key} <select name="{key}"></select></label>' for key in keys)
    return f'<div class="choices">{"".join(selects)}</div>' if keys else ""


def _fitting(told: list[Story]) -> list[Story]:
    """As many stories as fit, in order of their number within each prompt and temperature."""
    kept, room = [], ROOM
    for story in sorted(told, key=lambda story: story["number"]):
        room -= len(str(story))
        if room < 0:
            break
        kept.append(story)
    return kept
