"""Sampled stories."""

from squentropy.markup import Html, escape, paragraphs
from squentropy.results import Results
from squentropy.sections.pieces import loss_name


def stories(r: Results, prompts: int = 3) -> Html:
    """Sampled stories side by side, a block a prompt: the first seed of each loss's final runs."""
    blocks = []
    known = list(dict.fromkeys(s["prompt"] for s in r.samples))
    for prompt in known[:prompts]:
        cards, seen = [], set()
        for s in r.samples:
            if s["phase"] != "final" or s["prompt"] != prompt or s["loss"] in seen:
                continue
            seen.add(s["loss"])
            end = "ended by itself" if s["ended"] else "cut at the limit"
            text = s["text"].removeprefix(prompt)
            start = f"<b>{escape(prompt)}</b>" if len(text) < len(s["text"]) else ""
            cards.append(
                f'<article class="story"><h4>{loss_name(s["loss"])}</h4>'
                f"<p>{start}{escape(text)}</p>"
                f"<footer>seed {escape(s['seed'])}, {escape(s['tokens'])} tokens, {end}</footer>"
                "</article>"
            )
        blocks.append(f'<h3>“{escape(prompt)} …”</h3><div class="stories">{"".join(cards)}</div>')
    if not blocks:
        return paragraphs("No stories were sampled.")
    s = r.study.sample
    how = "greedily" if s.temperature == 0 else f"at temperature {s.temperature:g}"
    top = f", from the {s.top_k} likeliest tokens" if s.top_k and s.temperature else ""
    more = len(known) - prompts
    rest = f" {more} more prompt{' is' if more == 1 else 's are'} in the file." if more > 0 else ""
    return Html(
        f"<p>Sampled {how}{top}. All stories: <code>samples.json</code>.{rest}</p>"
        + "".join(blocks)
    )
