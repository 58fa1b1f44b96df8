"""What was studied, and how it is judged."""

import math

from squentropy.markup import (
    Html,
    count,
    either,
    escape,
    integer,
    nats,
    number,
    paragraphs,
    plain,
    table,
)
from squentropy.names import loss_info
from squentropy.results import Results
from squentropy.sections.pieces import loss_name, names, percent


def losses_table(r: Results) -> Html:
    """The losses of the study with definition and source."""
    rows = []
    for loss in r.losses:
        info = loss_info(loss)
        name = f"{loss_name(loss)}<br><code>{escape(loss)}</code>"
        rows.append([name, f'<span class="formula">{info.formula}</span>', info.source])
    return table(["loss", "definition, mean over positions", "source"], rows, text=3)


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
    return table(["split", "stories", "bytes", "tokens"], rows, caption="What each split holds.")


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
        f"nll{_by_link(r)} was taken and trained anew with {count(len(s.final.seeds), 'seed')}. "
        f"The {test} test stories were read once, at the end.",
        f"Intervals hold {percent(r)}. Stories are resampled {integer(s.evaluate.bootstrap)} "
        "times, jointly for all seeds; seeds are too few to resample and enter with Student’s "
        "t. Test p-values are two-sided and corrected by Holm’s rule.",
    )


def _by_link(r: Results) -> str:
    linked = [loss for loss in r.losses if r.own_reading(loss) == "inverse_link"]
    return f" (of {names(linked)} that of the inverse link)" if linked else ""
