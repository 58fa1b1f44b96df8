"""The study's design: losses, data, model, plan and intervals."""

import math

from squentropy.report.format import count, either, integer, listed, nats, number, plain, upper
from squentropy.report.markup import Html, escape, paragraphs, table
from squentropy.report.read import Results
from squentropy.report.sections.pieces import loss_name, names
from squentropy.study.catalogue import loss_info
from squentropy.study.grid import GRID_KEYS, NAMES
from squentropy.study.params import Study


def losses(r: Results) -> Html:
    """Losses of the study, with definition and source."""
    rows = []
    for loss in r.losses:
        info = loss_info(loss)
        name = f"{loss_name(loss)}<br><code>{escape(loss)}</code>"
        rows.append([name, f'<span class="formula">{info.formula}</span>', info.source])
    return table(["loss", "definition, mean over positions", "source"], rows, text=3)


_KNOWN_BY = {"grammar": "grammar", "model": "teacher"}


def corpus(r: Results) -> Html:
    """The stories, the number of classes, and the nll without context."""
    c, s = r.corpus, r.study
    where = {
        "grammar": "a probabilistic grammar of this project: simple words, characters, a place, a "
        "wish, a problem and an ending. They are synthetic, and every choice in them has a known "
        "probability",
        "hub": f"the data set {escape(s.corpus.hub.dataset)}, revision "
        f"<code>{escape(s.corpus.hub.revision[:12])}</code>",
        "files": "the user’s own files",
        "model": f"a trained model, the teacher (<code>{escape(s.corpus.model.run)}</code>), which "
        "told them at temperature 1 from all of its tokens, so that each has a known probability",
    }.get(c["source"], f"the source <code>{escape(c['source'])}</code>")
    encoding = "GPT-2’s" if s.tokens.encoding == "gpt2" else "a byte-level BPE of the train split"
    sentences = [
        f"The stories come from {where} (licence: {escape(c['licence'])}). The tokenizer is "
        f"{encoding}, with {integer(c['vocab_size'])} classes. A model that knew only how often "
        f"each token occurs would reach {nats(c['unigram_nll'])} nats per token on test, a "
        f"perplexity of {number(math.exp(c['unigram_nll']))}."
    ]
    if c["source_nll"] is not None:
        error = c["source_nll_se"]
        spread = "" if error is None else f" (standard error {nats(error)})"
        sentences.append(
            "The exact entropy of the test stories under the "
            f"{_KNOWN_BY.get(c['source'], 'source')} is {nats(c['source_nll'])} nats per "
            f"token{spread}, a perplexity of {number(math.exp(c['source_nll']))}: no "
            "model can be below it except by chance."
        )
    return paragraphs(*sentences)


def splits(r: Results) -> Html:
    """Stories, bytes and tokens of the splits."""
    rows = [
        [escape(name), *(integer(split[key]) for key in ("stories", "bytes", "tokens"))]
        for name, split in r.corpus["splits"].items()
    ]
    return table(["split", "stories", "bytes", "tokens"], rows, caption="What each split holds.")


def model(r: Results) -> Html:
    """The model's architecture and the length of training."""
    s, sizes = r.study, r.metrics["parameters"].dropna()
    many = f"{integer(sizes.min())} to {integer(sizes.max())}" if sizes.nunique() > 1 else None
    size = (
        f" The selected models have {many or integer(sizes.iloc[0])} parameters."
        if len(sizes)
        else ""
    )
    each = s.train.batch_size * s.train.accumulation * s.model.block_size
    lengths = listed(integer(n * each) for n in [*s.final.lengths, s.final.max_iters])
    shorter = (
        " The shorter lengths have schedules of their own, with the same share of warm-up."
        if s.final.lengths
        else ""
    )
    return paragraphs(
        f"The model has GPT-2’s architecture: {s.model.n_embd} wide, {s.model.n_head} heads, a "
        f"context of {s.model.block_size} tokens, {either(s.sweep.n_layer)} layers"
        f"{_positions(s)}{_parametrization(s)}.{size} An iteration sees {integer(each)} tokens. A "
        f"cell of the grid is trained on {integer(s.sweep.max_iters * each)} tokens, a refining "
        "run on "
        f"{integer(s.refine.max_iters * each)}, the final runs on {lengths}.{shorter} The learning "
        "rate rises linearly to its nominal value within every run and falls along a cosine to "
        f"{100 * s.train.min_lr_ratio:g} % of it.{_clipping(s.train.grad_clip)}"
    )


def _positions(s: Study) -> str:
    if s.model.positions == "learned":
        return ""
    return (
        "; in place of learned positions, attention falls off with distance (ALiBi, Press et al. "
        "2022)"
    )


def _parametrization(s: Study) -> str:
    if s.model.parametrization == "standard":
        return ""
    return (
        "; initial weights, learning rates and outputs are scaled with the width (μP, Yang et al. "
        "2022)"
    )


def _clipping(clip: float) -> str:
    if not clip:
        return ""
    return (
        f" Gradients are clipped at {clip:g} times the running mean of their norm, so that a loss "
        "with long gradients is treated like one with short gradients."
    )


def judging(r: Results) -> Html:
    """The plan, the tuning, and how the intervals are computed."""
    s = r.study
    test = integer(r.corpus["splits"]["test"]["stories"])
    cells = len(s.sweep.points())
    grid = " × ".join(
        f"{NAMES.get(key, key)} {either(plain(x) for x in getattr(s.sweep, key))}"
        for key in GRID_KEYS
    )
    return paragraphs(
        f"<strong>The plan</strong> is part of the parameters. {_plan(r)} The p-values of the "
        f"differences of all losses to cross entropy in these readings are one family, corrected "
        f"by Holm’s rule{_capped(r)}. Everything else on this page is exploratory. The workflow "
        "scores test stories after tuning has ended, and never before; it cannot know what "
        "somebody had seen when writing the plan.",
        f"<strong>Tuning.</strong> Each of the {len(r.losses)} losses had the same grid of {cells} "
        f"cells ({grid}), was then refined by the same rule, and at each seed had the same "
        "initial weights and batches as the others. Tuning saw only the validation split. The "
        f"final runs have {count(len(s.final.seeds), 'seed')}"
        + ("." if s.sweep.seed in s.final.seeds else ", none of which was used in tuning."),
        f"<strong>Intervals</strong> are at the {r.confidence} level. The {test} test stories "
        f"are resampled {integer(s.evaluate.bootstrap)} times, jointly for all seeds; seeds are "
        "too few to resample, so their observed spread enters directly, with Student’s t. With "
        "<i>w</i> the share of the variance that lies between seeds, <i>S</i> seeds and <i>I</i> "
        "stories, its degrees of freedom are given by 1/<i>df</i> = <i>w</i>/(<i>S</i> − 1) + (1 − "
        "<i>w</i>)/(<i>I</i> − 1). The intervals are conditional on the selection of "
        "hyperparameters and do not include how much another tuning would change.",
    )


def _plan(r: Results) -> str:
    s, linked = r.study, r.linked
    how = {
        "softmax": "softmax of its outputs",
        "tempered": "softmax after one temperature fitted on validation",
    }[s.plan.reading]
    own = f" {upper(names(linked))} are read by links of their own." if linked else ""
    if len(linked) == 1:
        own = f" {upper(names(linked))} is read by a link of its own."
    others = "Every loss" if not linked else "Every other loss"
    return (
        f"Each loss has one primary reading.{own} {others}, cross entropy included, is read by "
        f"{how}."
    )


def _capped(r: Results) -> str:
    least = r.study.plan.smallest_p
    if not least:
        return ""
    return (
        f", and reported as “&lt; {least:g}” below that, since few seeds support no smaller value"
    )
