"""The models embedded in the page: the reader begins a story, and every loss continues it.

voices.js generates the text; without JavaScript, the section says that it needs it.
"""

from squentropy.base.kinds import Voice
from squentropy.report.format import fixed, integer
from squentropy.report.markup import Html, embedded, escape, paragraphs
from squentropy.report.read import Results
from squentropy.report.sections.pieces import loss_name, names


def ask(r: Results) -> Html:
    """An input for the beginning and an output per loss; empty without models."""
    voices, sample = r.voices["voices"], r.study.sample
    if not voices:
        return Html("")
    held = {
        "vocabulary": r.voices["vocabulary"],
        "pattern": r.voices["pattern"],
        "top_k": sample.top_k,
        "max_tokens": sample.max_tokens,
        "story": r.voices["story"],
        "models": [
            {"temperature": v["temperature"], "config": v["config"], "tensors": v["tensors"]}
            for v in voices
        ],
    }
    losses = "".join(
        f'<label><input type="checkbox" checked> {loss_name(voice["loss"])}</label>'
        for voice in voices
    )
    return Html(
        '<h2 id="Ask-the-models">Ask the models</h2>'
        + paragraphs(_what(r), _rounded(voices))
        + "<p>This needs JavaScript, which is switched off here.</p>"  # ask.js removes it
        '<div class="ask" hidden><div class="choices">'
        '<label>beginning <input type="text" name="beginning" maxlength="500" autocomplete="off" '
        f'value="{escape(sample.prompts[0])}"></label>'
        '<label>temperature <input type="number" name="temperature" min="0" max="10" step="any" '
        f'required value="{sample.middle:g}"></label>'
        f'<div role="group" aria-label="losses">{losses}</div>'
        f'<button type="button">Tell</button>{_reader(r)}</div>'
        f'<div class="stories">{"".join(map(_place, voices))}</div></div>'
        f'<script type="application/json" id="voices">{embedded(held)}</script>'
    )


def _reader(r: Results) -> str:
    return '<button type="button">Read a test story</button>' if r.voices["story"] else ""


def _place(voice: Voice) -> str:
    """Output of one loss; a token is inspected by pointing at it or with the slider."""
    name = loss_name(voice["loss"])
    return (
        f'<section aria-label="{name}" hidden><h3>{name}</h3>'
        '<div class="story" aria-live="polite"><p dir="auto"></p><footer></footer></div>'
        '<div class="token" hidden><label>token <input type="range" min="1" value="1"></label>'
        '<p></p><ol></ol><p class="source"></p></div></section>'
    )


def _what(r: Results) -> str:
    voices, sample = r.voices["voices"], r.study.sample
    from_ = f"the {integer(sample.top_k)} likeliest tokens" if sample.top_k else "all tokens"
    return (
        f"Begin a story, and the models of {names(v['loss'] for v in voices)} go on with it, here "
        f"in your browser: those of seed {voices[0]['seed']}. They draw from {from_}, as above, "
        "all with the same draws. Point at a token, or move the slider to it, to see its "
        f"probability and the five likeliest, by the primary reading ({r.study.plan.reading})."
        + (
            " Or let them read a story of the test split, and see beside theirs the exact "
            "probabilities, those of the grammar that wrote it."
            if r.voices["story"]
            else ""
        )
    )


def _rounded(voices: list[Voice]) -> str:
    """How much quantisation changes the outputs, in plain words."""
    each = [voice["rounding"] for voice in voices]
    return (
        f"Their weights are rounded to 8 bits. On {integer(each[0]['tokens'])} test tokens that "
        f"moves no logit by more than {fixed(max(e['error'] for e in each), 2)}, and costs "
        f"{fixed(max(e['cost'] for e in each), 4)} nats per token at most."
    )
