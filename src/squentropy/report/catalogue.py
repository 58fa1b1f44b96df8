"""The catalogue of figures: name, condition, section of the page, caption and alternative text.

To add a figure, write a function of plots/ that takes Results and returns a matplotlib figure, and
an entry in `FIGURES` here. Files, page and Snakemake's own report follow from the entry. Captions
depend only on the study's parameters, so Snakemake knows them before there are results and without
importing matplotlib and pandas.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from squentropy.report.format import count, integer, listed, percent
from squentropy.study.catalogue import label, loss_info
from squentropy.study.params import BASELINE, Study

FEWEST = 50
"""Bins with fewer tokens are not shown."""


def always(study: Study) -> bool:
    return True


def compared(study: Study) -> bool:
    """Whether the study compares cross entropy with another loss."""
    return BASELINE in study.sweep.losses and len(study.sweep.losses) > 1


def dosed(study: Study) -> bool:
    """Whether the study compares two arguments of one loss."""
    functions = [loss_info(loss).function for loss in study.sweep.losses]
    return compared(study) and len(set(functions)) < len(functions)


@dataclass(frozen=True)
class Figure:
    """A figure before it is drawn. Texts are plain, not HTML."""

    drawn_by: str
    """MODULE.FUNCTION of plots/. The figure and its files are named after the function."""
    section: str
    """Section of the page; one notebook cell shows all figures of a section."""
    title: str
    alt: str
    """Alternative text: the kind of figure and what it shows."""
    caption: str | Callable[[Study], str]
    when: Callable[[Study], bool] = always
    otherwise: str = ""
    """Text shown in its place if it is not drawn."""

    @property
    def name(self) -> str:
        return self.drawn_by.partition(".")[2]

    def caption_of(self, study: Study) -> str:
        return self.caption if isinstance(self.caption, str) else self.caption(study)


def figures(study: Study) -> list[Figure]:
    """The figures of a study."""
    return [each for each in FIGURES if each.when(study)]


def figure(name: str) -> Figure:
    return {each.name: each for each in FIGURES}[name]


def restructured(text: str) -> str:
    """Plain text as a reStructuredText template, as Snakemake's report requires."""
    return re.sub(r"([\\*`|_<>\[\]{}%#])", r"\\\1", text) + "\n"


# --- captions -----------------------------------------------------------------------------------


def known(study: Study) -> bool:
    """Whether the entropy of the stories is known: true for the grammar and for a teacher."""
    return study.corpus.source in ("grammar", "model")


def predicted(study: Study) -> bool:
    """Whether the source's next-token distribution is known."""
    return study.corpus.source == "grammar"


def bands(study: Study) -> str:
    """Caption sentence that explains lines and bands."""
    if len(study.final.seeds) == 1:
        return "One seed."
    return "Lines are means over seeds, bands reach from the lowest seed to the highest."


def of_lengths(study: Study) -> str:
    right = (
        " Right: the same above the exact entropy of the stories, on logarithmic axes, where a "
        "power law is a straight line."
        if known(study)
        else ""
    )
    return (
        "Test nll against training tokens; every length has a learning-rate schedule of its own. "
        f"At full length, the mean over seeds with its {percent(study.evaluate.confidence)} "
        f"interval; shorter lengths have {count(study.final.length_seeds, 'seed')}. Dashed: n-gram "
        f"models of as many training tokens as a full run sees.{right}"
    )


def of_learning_rates(study: Study) -> str:
    return (
        f"The refining runs, {integer(study.refine.max_iters)} iterations each, at the dropout and "
        "depth selected for the loss, each loss in its primary reading. Ringed: selected. A cross "
        "at the top: diverged."
    )


def of_grid(study: Study) -> str:
    return (
        f"The grid after {integer(study.sweep.max_iters)} iterations per cell, each loss in the "
        "reading by which its cells are compared. Framed: the best cell, from which refining "
        "began. Hatched: diverged."
    )


def of_perplexity(study: Study) -> str:
    lines = "an n-gram model of as many training tokens"
    if known(study):
        lines = (
            f"the source’s own entropy, which no model can beat except by chance, and {lines}, "
            "as perplexities"
        )
    else:
        lines = f"{lines}, as a perplexity"
    return f"Test perplexity by loss, each loss in its primary reading. Dashed: {lines}."


def of_reliability(study: Study) -> str:
    return (
        f"Test tokens by the probability of the most likely one, in {study.evaluate.bins} bins of "
        "equal width, all seeds together; bars reach from the lowest seed to the highest. On the "
        "diagonal, probabilities are right; below it, the model is overconfident. Bins of fewer "
        f"than {FEWEST} tokens are left out. ECE: expected calibration error."
    )


def of_profile(study: Study) -> str:
    return (
        "Test nll of a token by the number of tokens before it in the story, and by how often it "
        f"occurs per million tokens of the train split. {bands(study)} Below: the difference to "
        f"cross entropy. Each loss is in its primary reading. Bins of fewer than {FEWEST} tokens "
        "are left out."
    )


def of_certainty(study: Study) -> str:
    return (
        "Kullback-Leibler divergence of the models’ next-token distribution from the grammar’s "
        "own, by how certain the grammar is, on the first test stories, a hundred at most. Left: "
        "the mean over the places of a bin. Right: what the bin adds to the mean over all places, "
        "which is little where its places are few. "
        f"{bands(study)} Each loss is in its primary reading."
    )


def of_learning_curves(study: Study) -> str:
    linked = [label(loss) for loss in study.sweep.losses if loss_info(loss).link]
    read = f"; {listed(linked)} by {'its' if len(linked) == 1 else 'their'} own link" * bool(linked)
    return (
        f"The final runs, read by plain softmax{read}. Each curve ends when the learning rate’s "
        f"cosine does. {bands(study)}"
    )


# --- the figures, in the order in which a section shows them ------------------------------------

FIGURES = (
    Figure(
        drawn_by="learning.lengths",
        section="answer",
        title="Test nll against training tokens",
        alt="Lines: test nll against training tokens, one line per loss, with the nll of n-gram "
        "models and, if it is known, the exact entropy of the stories as dashed lines",
        caption=of_lengths,
    ),
    Figure(
        drawn_by="learning.learning_rates",
        section="tuning",
        title="Learning rates",
        alt="Lines: validation nll against the learning rate, one line per loss, the selected rate "
        "marked",
        caption=of_learning_rates,
    ),
    Figure(
        drawn_by="training.grid",
        section="grid",
        title="The grid",
        alt="Heat maps: validation perplexity of every cell of the grid, one panel per loss",
        caption=of_grid,
    ),
    Figure(
        drawn_by="comparison.perplexity",
        section="results",
        title="Test perplexity",
        alt="Test perplexity of every loss, from the lowest to the highest, with intervals",
        caption=of_perplexity,
    ),
    Figure(
        drawn_by="comparison.differences",
        section="differences",
        title="Difference to cross entropy",
        alt="Forest plot: test nll of each loss minus cross entropy’s, with intervals",
        caption="Test nll minus cross entropy’s, each loss in its primary reading, paired by story "
        "and seed. A bar that crosses the line at zero leaves open which of the two is better. The "
        "intervals are conditional on the selected hyperparameters.",
        when=compared,
        otherwise="Without cross entropy and another loss there is nothing to compare.",
    ),
    Figure(
        drawn_by="comparison.accuracy",
        section="accuracy",
        title="Accuracy against perplexity",
        alt="Scatter plot: top-1 accuracy against test perplexity, one point per loss",
        caption="Top-1 accuracy against test perplexity; up and left is better. Exploratory.",
    ),
    Figure(
        drawn_by="calibration.reliability",
        section="calibration",
        title="Reliability diagrams",
        alt="Reliability diagrams: accuracy by confidence, one panel per loss, one line per "
        "reading",
        caption=of_reliability,
    ),
    Figure(
        drawn_by="calibration.profile",
        section="profile",
        title="Nll by position and frequency",
        alt="Lines: test nll by position in the story and by the token’s frequency, one line per "
        "loss",
        caption=of_profile,
    ),
    Figure(
        drawn_by="calibration.certainty",
        section="certainty",
        title="Divergence from the grammar’s own predictions",
        alt="Lines: mean divergence of each loss’s predictions from the exact ones by the entropy "
        "of these, and what each bin adds to the whole, one line per loss",
        caption=of_certainty,
        when=predicted,
        otherwise="The source’s own predictions are known where the stories are the grammar’s.",
    ),
    Figure(
        drawn_by="training.learning_curves",
        section="curves",
        title="Learning curves",
        alt="Learning curves: train and validation nll by iteration, one panel per loss",
        caption=of_learning_curves,
    ),
    Figure(
        drawn_by="generation.quality",
        section="quality",
        title="Quality of the stories",
        alt="Line charts of the quality of sampled stories by temperature, one panel per measure",
        caption="Sampled stories by temperature. Dashed: the test stories. Distinct word pairs and "
        "self-BLEU are measured over all stories of a run, and over as many test stories. More "
        "distinct is not better: text without sense repeats nothing.",
    ),
    Figure(
        drawn_by="theory.improperness",
        section="theory",
        title="Nll lost at the optimum",
        alt="Log-log lines: nll that squentropy loses at its optimum against the size of the "
        "vocabulary, one line per multiplier of its square term",
        caption="Nll lost at the optimum by size of the vocabulary, in contexts of this corpus. In "
        "a vocabulary larger than the corpus’s own, the extra tokens have probability zero. "
        "Hollow: measured, in the primary reading.",
    ),
    Figure(
        drawn_by="theory.dose",
        section="dose",
        title="A smaller dose",
        alt="Measured gap to cross entropy and predicted floor against the multiplier of the "
        "square term",
        caption="Measured nll minus cross entropy’s against the multiplier λ of the square term, "
        "with intervals: filled in the primary reading, hollow under plain softmax. Lines: the "
        "floors that theory predicts for softmax.",
        when=dosed,
    ),
)
