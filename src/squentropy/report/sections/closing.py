"""Limits, and how to reproduce the study."""

from pathlib import Path

from squentropy.base import storage
from squentropy.report.format import count, integer, upper
from squentropy.report.markup import Html, escape, table
from squentropy.report.read import Results
from squentropy.report.sections.pieces import about_seeds, names
from squentropy.study.params import TABLES


def limits(r: Results) -> Html:
    """What this study cannot show."""
    s = r.study
    points = [
        f"The models are small and trained briefly: {integer(s.tokens_trained('final'))} tokens. "
        "What holds here need not hold for a large model trained to convergence.",
        "The intervals are conditional on the selected hyperparameters. Those were found with one "
        f"seed, in runs of {integer(s.refine.max_iters)} iterations; another seed or longer runs "
        "may select others.",
    ]
    if s.final.lengths and s.final.length_seeds < len(s.final.seeds):
        points.append(
            f"The shorter lengths were trained with {count(s.final.length_seeds, 'seed')}. The "
            "intervals of the tokens needed reflect the choice of stories and seeds at full "
            "length, not that of the shorter runs."
        )
    edge = [x for x in r.scored if not r.selected[x]["inside"]]
    if edge:
        points.append(f"The tuning of the learning rate is incomplete for {names(edge)}.")
    source = r.corpus["source"]
    other = {"grammar": "seed of the grammar", "model": "seed of the teacher’s draws"}.get(source)
    points.append(
        "The workflow scores test stories after tuning has ended. It does not know whether test "
        "numbers of an earlier study of the same stories were looked at before this one was planned"
        + (f"; another {other} gives stories that nobody has seen." if other else ".")
    )
    if source == "grammar":
        points.append(
            "The stories are synthetic. They have a known entropy, and less variety than any "
            "text written by people."
        )
    if source == "model":
        points.append(
            "The stories are a model’s. They have a known entropy, and its faults: what it has not "
            "learnt of the stories that it was trained on is not in them."
        )
    if r.corpus["vocab_size"] < 20000:
        points.append(
            f"The vocabulary has {integer(r.corpus['vocab_size'])} classes. Square terms are "
            "divided by that number, so with GPT-2’s 50 257 they have another weight."
        )
    if len(s.final.seeds) < 5:
        points.append(upper(about_seeds(r)))
    points.append("One corpus, one language, one architecture, one optimiser.")
    return Html("<ul>" + "".join(f"<li>{point}</li>" for point in points) + "</ul>")


def commands(r: Results) -> Html:
    """Commands that reproduce this study and page."""
    name = r.study.study
    study = "make study" if name == "grammar" else f"make study STUDY=results/{name}/params.yaml"
    lines = [
        f"{study}  # from the data to this page",
        f"squentropy figures results/{name} report/{name}/figures",
        f"squentropy report results/{name} report/{name}/figures report/{name}/index.html",
    ]
    return Html(f"<pre>{escape(chr(10).join(lines))}</pre>")


def provenance(folder: str | Path) -> Html:
    """Files that the page is computed from; no date or host, since nothing depends on them."""
    files = [Path(folder) / name for name in (*sorted(TABLES), "manifest.json", "params.yaml")]
    rows = [
        [escape(x.name), integer(x.stat().st_size), f"<code>{storage.sha256(x)[:16]}</code>"]
        for x in files
    ]
    return table(["file", "bytes", "SHA-256, first 16 digits"], rows, last=True)


def parameters(r: Results) -> Html:
    """The resolved parameters, folded."""
    return Html(
        "<details><summary>Every parameter of this study</summary>"
        f"<pre>{escape(r.study.dump())}</pre></details>"
    )
