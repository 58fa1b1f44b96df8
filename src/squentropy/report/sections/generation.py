"""Quality of the sampled stories."""

import pandas as pd

from squentropy.report import markup
from squentropy.report.format import count, fixed, integer, listed, share
from squentropy.report.markup import Html, escape, interval, paragraphs
from squentropy.report.read import GRADES, Results
from squentropy.report.sections.pieces import loss_name

_KINDS = {
    "dropped_object": "a name, object or place is not the one that was introduced",
    "broken_agreement": "an article, verb or pronoun does not agree",
    "unknown_word": "a word is not in the grammar",
    "unexpected": "a word of the grammar stands where it must not",
    "no_ending": "the text stops before the story ends",
}
"""Reasons for which the checker rejects a story, by column of quality.csv."""


def _shown(r: Results) -> pd.DataFrame:
    """Rows of the losses at the middle temperature."""
    return r.quality[r.quality["temperature"] == r.study.sample.middle]


def sentence(r: Results) -> Html:
    """How stories were sampled; for the grammar, also how many are well-formed or accepted by its
    checker, and why others are rejected."""
    s, rows = r.study.sample, _shown(r)
    if rows.empty:
        return paragraphs("No stories were sampled.")
    heats = listed([f"{t:g}" for t in s.temperatures])
    links = rows["loss"][rows["reading"] == "own"]
    told = (
        f"Every final run generated stories of up to {integer(s.max_tokens)} tokens at the "
        f"temperatures {heats}: {count(s.stories, 'story', 'stories')} from each of "
        f"{count(len(s.prompts), 'prompt')} at each of them"
        + (", and one at temperature 0." if 0 in s.temperatures else ".")
    )
    if len(links):
        told += (
            f" The stories of {listed(map(loss_name, links))} are sampled from the probabilities "
            "that the loss’s own link gives."
        )
    return paragraphs(told, _in_form(r), _accepted(r), _refused(rows))


def _in_form(r: Results) -> str:
    """One sentence per loss, best first."""
    rows = _shown(r).dropna(subset="sentences_in_form")
    if rows.empty:
        return ""
    said = [
        f"For {loss_name(row['loss'])}, {interval(row, 'sentences_in_form', share)} of the "
        f"sentences and {interval(row, 'form', share)} of the stories are in form, "
        + (
            f"and {interval(row, 'agreement', share)} of the references agree."
            if pd.notna(row["agreement"])
            else "and no reference could be judged."
        )
        for _, row in rows.sort_values("sentences_in_form", ascending=False).iterrows()
    ]
    return (
        "A sentence or a story is in form if the grammar could have written it with other names, "
        "objects and places in its references; a reference agrees if it fits what was introduced "
        f"before. At temperature {r.study.sample.middle:g}, best first, with {r.confidence} "
        f"intervals. {' '.join(said)}"
    )


def _accepted(r: Results) -> str:
    told = r.quality.dropna(subset=["temperature", "valid"])
    if told.empty:
        return ""
    best, true = told.loc[told["valid"].idxmax()], share(r.test_stories["valid"])
    if best["valid"] == 0:
        return (
            f"The grammar’s checker accepts none of the {integer(told['stories'].sum())} stories. "
            f"The {r.confidence} interval for none out of {integer(best['stories'])} reaches "
            f"up to {share(best['valid_high'])}."
        )
    return (
        f"The largest share that the grammar’s checker accepts is that of "
        f"{loss_name(best['loss'])} at temperature {best['temperature']:g}: "
        f"{interval(best, 'valid', share)}. Of the test stories it accepts {true}."
    )


def _refused(rows: pd.DataFrame) -> str:
    counts = rows[list(_KINDS)].sum().sort_values(ascending=False, kind="stable")
    if not counts.sum() > 0:
        return ""
    reasons = [f"{_KINDS[kind]} ({integer(n)})" for kind, n in counts.items() if n > 0]
    return (
        f"Why it rejected {integer(counts.sum())} stories at temperature "
        f"{rows['temperature'].iloc[0]:g}, by the first error: {listed(reasons)}."
    )


def table(r: Results) -> Html:
    """Measures at the middle temperature, and those of the test stories."""
    told = _shown(r)
    rows = pd.concat([told, r.test_stories.to_frame().T])
    names = [*map(loss_name, told["loss"]), "test stories"]
    columns = {
        "sentences_in_form": "sentences in form", "form": "stories in form",
        "agreement": "references that agree", "valid": "accepted", "ended": "ended",
        "distinct_2": "distinct word pairs", "repetition": "repeated 4-grams",
        "self_bleu": "self-BLEU",
    }  # fmt: skip
    shown = {key: head for key, head in columns.items() if rows[key].notna().any()}
    cells = [
        [name, *(share(row[key]) for key in shown), integer(row["tokens"])]
        for name, (_, row) in zip(names, rows.iterrows(), strict=True)
    ]
    heat = f"at temperature {r.study.sample.middle:g}"
    return markup.table([heat, *shown.values(), "tokens per story"], cells)


def judged(r: Results) -> Html:
    """Grades by a language model, if there are any; not part of the study."""
    if r.judged.empty:
        return Html()

    def grade(value: float) -> str:
        return fixed(value, 1)

    rows = [
        [loss_name(row["loss"]), f"{row['temperature']:g}"]
        + [interval(row, name, grade) for name in GRADES]
        + [integer(row["stories"])]
        for _, row in r.judged.iterrows()
    ]
    model = escape(", ".join(dict.fromkeys(r.judged["model"])))
    caption = f"Grades of {model}, from 1 to 10, with 95 % intervals over stories"
    return markup.table(["loss", "temperature", *GRADES, "stories"], rows, caption=caption)
