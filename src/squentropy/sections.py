"""What the cells of notebooks/report.ipynb show: tables, figures and sentences from the results.

Each function takes Results and returns HTML. Whatever comes from data, stories above all, is
escaped: it is shown, never interpreted. Sentences follow the numbers; none is written by hand.
"""

import ast
import base64
import math
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from squentropy import figures, theory
from squentropy.errors import SquentropyError
from squentropy.markup import (
    DASH,
    Html,
    count,
    either,
    escape,
    integer,
    interval,
    listed,
    nats,
    number,
    p_value,
    paragraphs,
    plain,
    signed,
    table,
    upper,
)
from squentropy.params import BASELINE
from squentropy.results import Results, label

SQUARED = ("mse", "mse_weighted", "squentropy", "squentropy_tenth", "squentropy_weighted", "brier")
"""The losses with a squared term among those that come with the project."""


# --- the answer ---------------------------------------------------------------------------------


def answer(r: Results) -> Html:
    """The study's answer: the verdict, the best loss, every difference, and what intervals say."""
    if not r.scored:
        return paragraphs("Every final run diverged, so this study has no answer.")
    best = r.scored[0]
    lowest = (
        f"The lowest test perplexity under softmax, "
        f"{interval(r.metrics.loc[best], 'test_ppl', number)}, was reached with {_label(best)}."
    )
    if _compared(r):
        answered = paragraphs(_verdict(r), lowest, _unlearned(r))
        return Html(answered + _comparison(r) + paragraphs(_seeds(r)))
    why = "has no scored run here" if BASELINE in r.losses else "is not part of this study"
    if r.scored == [BASELINE]:
        alone = "No other loss has a scored run, so there is nothing to compare it with."
    else:
        alone = f"Cross entropy {why}, so nothing is compared with it."
    return paragraphs(lowest, _unlearned(r), alone, _seeds(r))


def _verdict(r: Results) -> str:
    """Whether a squared loss belongs, as far as this study can tell."""
    squared = [loss for loss in _compared(r) if loss in SQUARED]
    if not squared:
        return "None of the losses compared here has a squared term."
    better, same, worse = _split(r, squared)
    if better:
        verdict = f"Yes, here: {_names(better)} did better than cross entropy."
    elif not same and _better_by_link(r):
        verdict = (
            "Not under softmax: every loss with a squared term did worse than cross entropy, "
            f"beyond chance. Read by the inverse link, {_names(_better_by_link(r))} did better."
        )
    elif not same:
        verdict = (
            "Not here: every loss with a squared term did worse than cross entropy, beyond chance."
        )
    elif worse:
        verdict = (
            f"Nothing here speaks for it: none did better than cross entropy, {_names(worse)} did "
            f"worse, and {_names(same)} cannot be told from it."
        )
    else:
        verdict = "Not shown either way: none can be told from cross entropy."
    return f"<strong>Does a squared loss belong in a language model? {verdict}</strong>"


def _better_by_link(r: Results) -> list[str]:
    """The squared losses that beat cross entropy where the inverse link reads their outputs."""
    return [x for x in _compared(r) if r.metrics.at[x, "inverse_link_difference_high"] < 0]


def _unlearned(r: Results) -> str:
    """The losses whose probabilities are worth no more than the tokens' frequencies."""
    unigram = r.corpus["unigram_nll"]
    above = [loss for loss in r.scored if r.metrics.at[loss, "test_nll"] >= unigram]
    level = (
        f"{nats(unigram)} nats a token, which the frequencies of tokens give without any context"
    )
    if above == r.scored:
        return (
            f"No loss got below {level}. These models have hardly learned, so the comparison says "
            "little; train longer."
        )
    return f"{_names(above)} did not get below {level}." if above else ""


def _comparison(r: Results) -> str:
    """Every compared loss, with its difference in nats a token."""
    better, same, worse = _split(r, _compared(r))
    points = []
    for losses, what in (
        (better, "Better than cross entropy beyond chance"),
        (same, "Not told apart from cross entropy"),
        (worse, "Worse than cross entropy beyond chance"),
    ):
        gaps = (
            f"{_label(loss)} {interval(r.metrics.loc[loss], 'difference', signed)}"
            for loss in losses
        )
        points += [f"<li>{what}: {', '.join(gaps)}</li>"] if losses else []
    return (
        f"<ul>{''.join(points)}</ul><p>Differences are test nll in nats a token, paired by story "
        f"and seed, with {_percent(r)} intervals. Beyond chance: p, corrected for the number of "
        f"losses, is below {1 - r.study.evaluate.confidence:.3g}.</p>"
    )


def _seeds(r: Results) -> str:
    """What the intervals can and cannot speak of."""
    n = r.metrics["n_seeds"]
    if len(r.study.final.seeds) == 1:
        return (
            "One seed was trained. The intervals speak about the choice of test stories alone; "
            "how much another seed would change is not known."
        )
    text = f"{count(len(r.study.final.seeds), 'seed')} were trained a loss."
    if len(r.study.final.seeds) < 10:
        text += (
            " That is few for judging how results vary from seed to seed, and the intervals are "
            "as wide as that asks."
        )
    if (n == 1).any():
        text += (
            f" Only one seed of {_names(n.index[n == 1])} finished, so there the interval speaks "
            "about stories alone."
        )
    return text


def _compared(r: Results) -> list[str]:
    return [loss for loss in r.ranked if pd.notna(r.metrics.at[loss, "difference"])]


def _split(r: Results, losses: list[str]) -> tuple[list[str], list[str], list[str]]:
    """(better, not told apart, worse) than cross entropy, by the corrected p-value."""
    better, same, worse = [], [], []
    for loss in losses:
        gap, p = r.metrics.at[loss, "difference"], r.metrics.at[loss, "p_value"]
        told_apart = p < 1 - r.study.evaluate.confidence  # False where p is missing
        (same if not told_apart else better if gap < 0 else worse).append(loss)
    return better, same, worse


# --- what was studied ---------------------------------------------------------------------------

_F2 = "<i>f</i><sub>j</sub><sup>2</sup>"
_WRONG = f"Σ<sub>j≠y</sub> {_F2}"
_TRUE = "(<i>f</i><sub>y</sub> − 1)<sup>2</sup>"
_CE = "−log <i>p</i><sub>y</sub>"
_FORMULAS = {
    "cross_entropy": (_CE, "the baseline of every language model"),
    "mse": (f"1/<i>C</i> ({_TRUE} + {_WRONG})", "the seed study’s first attempt"),
    "mse_weighted": (
        f"1/<i>C</i> (100 {_TRUE} + {_WRONG})",
        "the seed study’s second attempt; the form of Hui &amp; Belkin 2020",
    ),
    "squentropy": (f"{_CE} + 1/(<i>C</i>−1) {_WRONG}", "Hui, Wright &amp; Belkin 2023"),
    "squentropy_tenth": (f"{_CE} + 0.1/(<i>C</i>−1) {_WRONG}", "squentropy, a smaller square term"),
    "squentropy_weighted": (
        f"{_CE} + 1/<i>C</i> (65 {_TRUE} + {_WRONG})",
        "the seed study’s code, which it calls squentropy",
    ),
    "z_loss": (f"{_CE} + 10<sup>−4</sup> log<sup>2</sup> <i>Z</i>", "Chowdhery et al. 2022"),
    "brier": (
        "Σ<sub>j</sub> (1[<i>j</i>=<i>y</i>] − <i>p</i><sub>j</sub>)<sup>2</sup>",
        "Brier 1950; a proper score, Shao et al. 2024",
    ),
}


def losses_table(r: Results) -> Html:
    """The losses of the study with definition and source."""
    rows = []
    for loss in r.losses:
        formula, source = _FORMULAS.get(loss, (escape(_docstring(loss)), ""))
        name = f"{_label(loss)}<br><code>{escape(loss)}</code>"
        rows.append([name, f'<span class="formula">{formula}</span>', source])
    return table(["loss", "definition, mean over positions", "source"], rows, text=3)


def _docstring(loss: str) -> str:
    """The first line of a loss's docstring; read as text, since importing torch takes seconds."""
    source = Path(__file__).with_name("losses.py").read_text(encoding="utf-8")
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == loss:
            return (ast.get_docstring(node) or DASH).splitlines()[0]
    return DASH


def corpus_sentence(r: Results) -> Html:
    """Which stories, how many classes, and what context alone is worth."""
    c, s = r.corpus, r.study
    where = {
        "grammar": "a probabilistic grammar of this project: simple words, characters, a place, a "
        "wish, a problem and an ending. They are synthetic, and every choice in them has a known "
        "probability",
        "hub": f"the data set {escape(s.corpus.hub.dataset)}, revision "
        f"<code>{escape(s.corpus.hub.revision[:12])}</code>",
        "files": "files of the user",
    }[c["source"]]
    encoding = "GPT-2’s" if s.tokens.encoding == "gpt2" else "a byte-level BPE of the train split"
    sentences = [
        f"The stories come from {where} (licence: {escape(c['licence'])}). The tokens are "
        f"{encoding}, {integer(c['vocab_size'])} classes. A model that knew how often each token "
        f"occurs, and nothing of the context, would reach {nats(c['unigram_nll'])} nats a token on "
        f"test, a perplexity of {number(math.exp(c['unigram_nll']))}."
    ]
    if c["source_nll"] is not None:
        error = c["source_nll_se"]
        spread = "" if error is None else f" (standard error {nats(error)})"
        sentences.append(
            f"The exact entropy of the test stories under the grammar is {nats(c['source_nll'])} "
            f"nats a token{spread}, a perplexity of {number(math.exp(c['source_nll']))}: no model "
            "can be below it but by chance."
        )
    return paragraphs(*sentences)


def corpus_table(r: Results) -> Html:
    """Stories, bytes and tokens of the splits."""
    rows = [
        [escape(name), *(integer(split[key]) for key in ("stories", "bytes", "tokens"))]
        for name, split in r.corpus["splits"].items()
    ]
    return table(["split", "stories", "bytes", "tokens"], rows)


def model_sentence(r: Results) -> Html:
    """The model's shape and how long it was trained."""
    s, sizes = r.study, r.metrics["parameters"].dropna()
    tokens = s.train.batch_size * s.train.accumulation * s.model.block_size
    many = f"{integer(sizes.min())} to {integer(sizes.max())}" if sizes.nunique() > 1 else None
    size = (
        f" The selected models have {many or integer(sizes.iloc[0])} parameters."
        if len(sizes)
        else ""
    )
    return paragraphs(
        f"The model has GPT-2’s shape: {s.model.n_embd} wide, {s.model.n_head} heads, a context of "
        f"{s.model.block_size} tokens, {either(s.sweep.n_layer)} layers.{size} An iteration sees "
        f"{integer(tokens)} tokens. A cell of the grid is trained for {integer(s.sweep.max_iters)} "
        f"iterations ({integer(tokens * s.sweep.max_iters)} tokens), a final run for "
        f"{integer(s.final.max_iters)} ({integer(tokens * s.final.max_iters)} tokens); the "
        f"learning rate rises over the first {s.sweep.warmup_iters} and {s.final.warmup_iters}, "
        "so that the nominal rate is reached, and falls along a cosine."
    )


def judging(r: Results) -> Html:
    """How many cells, seeds and resamples."""
    s = r.study
    test = integer(r.corpus["splits"]["test"]["stories"])
    cells = len(s.sweep.lr) * len(s.sweep.dropout) * len(s.sweep.n_layer)
    grid = (
        f"learning rate {either(plain(x) for x in s.sweep.lr)} × dropout "
        f"{either(plain(x) for x in s.sweep.dropout)} × layers {either(s.sweep.n_layer)}"
    )
    return paragraphs(
        f"Each of the {len(r.losses)} losses had the same grid of {cells} cells ({grid}), the same "
        "budget, and at a seed the same initial weights and batches. The cell of lowest validation "
        f"nll was taken and trained anew with {count(len(s.final.seeds), 'seed')}. The "
        f"{test} test stories were read once, at the end.",
        f"Intervals hold {_percent(r)}. Stories are resampled {integer(s.evaluate.bootstrap)} "
        "times, jointly for all seeds; seeds are too few to resample and enter with Student’s "
        "t. Test p-values are two-sided and corrected by Holm’s rule.",
    )


# --- what came out ------------------------------------------------------------------------------


def final_table(r: Results) -> Html:
    """Every loss on test, the best first."""
    head = ["loss", "perplexity", "nll, nats a token", "bits a byte", "accuracy", "seeds"]
    rows = []
    for loss in r.ranked:
        row = r.metrics.loc[loss]
        seeds = f"{row['n_seeds']:.0f}"
        if row["diverged"]:
            seeds += f" ({row['diverged']:.0f} diverged)"
        if loss not in r.scored:
            rows.append([_label(loss), "diverged", DASH, DASH, DASH, seeds])
            continue
        rows.append([
            _label(loss), interval(row, "test_ppl", number), interval(row, "test_nll", nats),
            nats(row["test_bits_per_byte"]), f"{100 * row['test_accuracy']:.1f} %", seeds,
        ])  # fmt: skip
    return table(head, rows)


def difference_table(r: Results) -> Html:
    """Difference to cross entropy and excess over the source, where there are any."""
    compared, excess = _compared(r), r.metrics["excess"].notna().any()
    if not compared and not excess:
        return Html()
    head = ["loss"]
    head += ["nll − cross entropy’s", "p, corrected"] if compared else []
    head += ["nll − source’s entropy"] if excess else []
    rows = []
    for loss in r.scored:
        row = r.metrics.loc[loss]
        cells = [_label(loss)]
        if compared:
            cells += [interval(row, "difference", signed), p_value(row["p_value"])]
        if excess:
            cells.append(interval(row, "excess", signed))
        rows.append(cells)
    return table(head, rows)


def link_sentence(r: Results) -> Html:
    """What the inverse link makes of the outputs of the pure squared losses."""
    losses = [x for x in r.scored if pd.notna(r.metrics.at[x, "inverse_link_nll"])]
    if not losses:
        return Html()
    parts = [
        f"{_label(loss)} from {number(r.metrics.at[loss, 'test_ppl'])} to "
        f"{number(math.exp(r.metrics.at[loss, 'inverse_link_nll']))}"
        for loss in losses
    ]
    return paragraphs(
        "The outputs of a pure squared loss are not logits, so their softmax is nearly flat. Read "
        f"by the inverse link instead, test perplexity goes for {listed(parts)}."
        + _link_differences(r, losses)
    )


def _link_differences(r: Results, losses: list[str]) -> str:
    """How the squared losses, read by the inverse link, stand to cross entropy under softmax."""
    gaps = [
        f"{_label(loss)} {interval(r.metrics.loc[loss], 'inverse_link_difference', signed)}"
        for loss in losses
        if pd.notna(r.metrics.at[loss, "inverse_link_difference"])
    ]
    if not gaps:
        return ""
    return (
        f" Against cross entropy that is {listed(gaps)} nats a token, with intervals that are not "
        "corrected for the number of comparisons."
    )


def seed_estimate_table(r: Results) -> Html:
    """The seed study's estimator of perplexity beside the whole test split."""
    rows = [
        [_label(x), number(r.metrics.at[x, "seed_ppl"]), number(r.metrics.at[x, "test_ppl"])]
        for x in r.scored
    ]
    head = ["loss", f"from {r.study.evaluate.seed_batches} random batches", "whole test split"]
    return table(head, rows)


def convergence(r: Results) -> Html:
    """Whether validation nll was still falling when training ended."""
    falling = []
    for loss in r.scored:
        rows = r.history[(r.history["phase"] == "final") & (r.history["loss"] == loss)]
        mean = rows.groupby("iteration")["validation_nll"].mean()
        if len(mean) > 1:
            falling.append((mean.iloc[-2] - mean.iloc[-1], loss, mean.index[-1] - mean.index[-2]))
    if not falling:
        return Html()
    parts = [f"{_label(loss)} {signed(-fall)}" for fall, loss, _ in falling]
    return paragraphs(
        f"Over the last {integer(falling[0][2])} iterations validation nll changed by (nats a "
        f"token): {', '.join(parts)}. A change well below zero says that more training "
        "would have lowered it further."
    )


def selected_table(r: Results) -> Html:
    """The selected cell of each loss, edges of the grid and diverged cells."""
    cells = len(r.sweep) // max(1, r.sweep["loss"].nunique())
    rows = []
    for loss in r.losses:
        chosen = r.selected[loss]
        gone, nll = chosen["diverged"], chosen["validation_nll"]
        at = {key: plain(chosen[key]) for key in ("lr", "dropout", "n_layer")}
        at = {key: f"{text} ←" if key in chosen["edge"] else text for key, text in at.items()}
        if gone == cells:
            at = dict.fromkeys(at, DASH)
        rows.append([
            _label(loss), *at.values(), DASH if nll is None else number(_exp(nll)),
            f"{gone} of {cells}",
        ])  # fmt: skip
    head = ["loss", "learning rate", "dropout", "layers", "validation perplexity", "diverged cells"]
    return table(head, rows)


def grid_sentence(r: Results) -> Html:
    """Edges and diverged cells in words."""
    words = {"lr": "learning rate", "dropout": "dropout", "n_layer": "number of layers"}
    cells = len(r.sweep) // max(1, r.sweep["loss"].nunique())
    alive = [loss for loss in r.losses if r.selected[loss]["diverged"] < cells]
    sentences = []
    for key, word in words.items():
        at_edge = [loss for loss in alive if key in r.selected[loss]["edge"]]
        whose = "every loss" if at_edge == alive else _names(at_edge)
        sentences += [f"the {word} of {whose}"] if at_edge else []
    text = (
        f"An arrow (←) marks a selected value at the edge of its grid: {listed(sentences)}. There "
        "the best value may lie outside."
        if sentences
        else "No selected value lies at the edge of its grid."
    )
    gone = r.sweep[r.sweep["status"] == "diverged"]
    if len(gone):
        rates = ", ".join(
            f"{n} at learning rate {plain(lr)}" for lr, n in gone.groupby("lr").size().items()
        )
        text += f" {len(gone)} of {len(r.sweep)} cells diverged: {rates}."
    else:
        text += " No cell diverged."
    lost = [loss for loss in r.losses if loss not in alive]
    if lost:
        text += f" Every cell of {_names(lost)} diverged."
    return paragraphs(text)


def reported_table(r: Results) -> Html:
    """The seed study's numbers beside ours."""
    rows = [
        [escape(row.measure), _label(row.loss), f"{row.reported:g}", number(row.reproduced),
         escape(row.what)]
        for row in r.reported.itertuples(index=False)
    ]  # fmt: skip
    return table(["measure", "loss", "reported", "here", "what ours is"], rows, text=2, last=True)


def implied_table(r: Results) -> Html:
    """The perplexity that each reported test loss implies, beside the reported one."""
    rows = []
    for loss, group in r.reported.groupby("loss", sort=False):
        by = group.set_index("measure")["reported"]
        rows.append([
            _label(loss), f"{by['train loss']:g}", f"{by['test loss']:g}",
            f"{by['test perplexity']:g}", f"{math.exp(by['test loss']):.1f}",
        ])  # fmt: skip
    head = ["reported", "train loss", "test loss", "test perplexity", "exp(test loss)"]
    return table(head, rows)


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
                f'<article class="story"><h4>{_label(s["loss"])}</h4><p>{start}{escape(text)}</p>'
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


def floor_table(r: Results) -> Html:
    """Squentropy's loss of nll at its own optimum, by kind of context and size of vocabulary."""
    sizes = sorted({r.corpus["vocab_size"], 50257})
    head = ["in a context where", *(f"<i>C</i> = {integer(c)}" for c in sizes)]
    head += [f"<i>C</i> = {integer(sizes[0])}, square term × 0.1"]
    rows = []
    for context, pi in theory.CONTEXTS.items():
        floors = [theory.squentropy_floor(pi, c) for c in sizes]
        floors.append(theory.squentropy_floor(pi, sizes[0], factor=0.1))
        rows.append([context, *(nats(floor) for floor in floors)])
    return table(head, rows)


def limits(r: Results) -> Html:
    """What this study cannot say."""
    s = r.study
    points = [
        f"The models are small and trained briefly: {integer(s.final.max_iters)} iterations. What "
        "holds here need not hold for a large model trained to convergence.",
        f"Hyperparameters were chosen after {integer(s.sweep.max_iters)} iterations with one seed "
        "a cell; a longer sweep may choose otherwise.",
    ]
    linked = [x for x in r.scored if pd.notna(r.metrics.at[x, "inverse_link_nll"])]
    if linked:
        points.append(
            f"The cells of {_names(linked)} were selected under softmax as well, which hardly "
            "tells them apart; read by the inverse link, another cell may be better."
        )
    if r.corpus["source"] == "grammar":
        points.append(
            "The stories are synthetic. They have a known entropy, and less variety than any text "
            "that people wrote."
        )
    if r.corpus["vocab_size"] < 20000:
        points.append(
            f"The vocabulary has {integer(r.corpus['vocab_size'])} classes. Square terms are "
            "divided by that number, so with GPT-2’s 50 257 they weigh differently."
        )
    if len(s.final.seeds) < 5:
        points.append(upper(_seeds(r)))
    points.append("One corpus, one language, one architecture, one optimiser.")
    return Html("<ul>" + "".join(f"<li>{point}</li>" for point in points) + "</ul>")


def commands(r: Results) -> Html:
    """The commands that make this study and page again."""
    name = r.study.study
    study = "make study" if name == "grammar" else f"make study STUDY=results/{name}/params.yaml"
    lines = [
        f"{study}  # from the data to this page",
        f"squentropy figures results/{name} report/{name}/figures",
        f"squentropy report results/{name} report/{name}/figures report/{name}/index.html",
    ]
    return Html(f"<pre>{escape(chr(10).join(lines))}</pre>")


def parameters(r: Results) -> Html:
    """The resolved parameters, folded."""
    return Html(
        "<details><summary>Every parameter of this study</summary>"
        f"<pre>{escape(r.study.dump())}</pre></details>"
    )


# --- the figures --------------------------------------------------------------------------------


def figure(folder: str | Path, name: str, alt: str, caption: str) -> Html:
    """A figure inside the page. Raises SquentropyError where it has not been drawn.

    As an image it cannot run scripts or load anything, whatever is in the file.
    """
    path = Path(folder) / f"{name}.svg"
    try:
        data = base64.b64encode(path.read_bytes()).decode("ascii")
    except FileNotFoundError:
        raise SquentropyError(f"{path}: does not exist; draw the figures first") from None
    image = f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(alt)}">'
    return Html(f"<figure>{image}<figcaption>{caption}</figcaption></figure>")


def perplexity_figure(r: Results, folder: str | Path) -> Html:
    """Test perplexity by loss."""
    lines = "the entropy of token frequencies"
    if r.corpus["source_nll"] is not None:
        lines = f"the source’s own entropy, which no model can beat but by chance, and {lines}"
    return figure(
        folder,
        "perplexity",
        f"Test perplexity of {_names(r.ranked)}, from the lowest to the highest, with intervals",
        f"Test perplexity by loss. Dashed: {lines}, as perplexities.",
    )


def difference_figure(r: Results, folder: str | Path) -> Html:
    """The forest plot; a sentence where nothing is compared with cross entropy."""
    if "differences" not in figures.names(r.study):
        return paragraphs("Without cross entropy and another loss there is nothing to compare.")
    return figure(
        folder,
        "differences",
        "Forest plot: test nll of each loss minus cross entropy’s, with intervals and p-values",
        "Test nll minus cross entropy’s. A bar that crosses the line at zero leaves open which of "
        "the two is better.",
    )


def accuracy_figure(r: Results, folder: str | Path) -> Html:
    """Accuracy against perplexity."""
    linked = r.metrics["inverse_link_nll"].notna().any()
    hollow = " Hollow: the same model read by the inverse link." if linked else ""
    return figure(
        folder,
        "accuracy",
        "Scatter plot: top-1 accuracy against test perplexity, a point a loss",
        f"Top-1 accuracy against test perplexity; up and left is better.{hollow}",
    )


def curves_figure(r: Results, folder: str | Path) -> Html:
    """Learning curves."""
    bands = (
        "Lines are means over seeds, bands reach from the lowest seed to the highest."
        if len(r.study.final.seeds) > 1
        else "One seed."
    )
    return figure(
        folder,
        "learning_curves",
        "Learning curves: train and validation nll by iteration, a panel a loss",
        f"The final runs. All curves show nll, whatever the training objective. {bands}",
    )


def grid_figure(r: Results, folder: str | Path) -> Html:
    """The grid."""
    return figure(
        folder,
        "grid",
        "Heat maps: validation perplexity of every cell of the grid, a panel a loss",
        f"The grid after {integer(r.study.sweep.max_iters)} iterations a cell.",
    )


# --- pieces -------------------------------------------------------------------------------------


def _label(loss: str) -> str:
    return escape(label(loss))


def _names(losses: Iterable[str]) -> str:
    return listed(_label(loss) for loss in losses)


def _exp(nll: float) -> float:
    return math.exp(nll) if nll < 700 else math.inf


def _percent(r: Results) -> str:
    return f"{100 * r.study.evaluate.confidence:g} %"
