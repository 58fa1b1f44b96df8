"""What the cells of notebooks/report.ipynb show: tables, figures and sentences from the results.

Each function takes Results and returns HTML. Whatever comes from data, stories above all, is
escaped: it is shown, never interpreted. Sentences follow the numbers; none is written by hand.
"""

from squentropy.sections.answer import answer
from squentropy.sections.closing import commands, limits, parameters
from squentropy.sections.floors import (
    contexts_sentence,
    contexts_table,
    floor_table,
    gap_sentence,
    improperness_figure,
)
from squentropy.sections.generation import quality_figure, quality_sentence, quality_table
from squentropy.sections.grid import grid_figure, grid_sentence, selected_table
from squentropy.sections.method import (
    corpus_sentence,
    corpus_table,
    judging,
    losses_table,
    model_sentence,
)
from squentropy.sections.outcome import (
    accuracy_figure,
    convergence,
    curves_figure,
    difference_figure,
    difference_table,
    final_table,
    link_sentence,
    perplexity_figure,
)
from squentropy.sections.reported import implied_table, reported_table, seed_estimate_table
from squentropy.sections.stories import stories

__all__ = [
    "accuracy_figure",
    "answer",
    "commands",
    "contexts_sentence",
    "contexts_table",
    "convergence",
    "corpus_sentence",
    "corpus_table",
    "curves_figure",
    "difference_figure",
    "difference_table",
    "final_table",
    "floor_table",
    "gap_sentence",
    "grid_figure",
    "grid_sentence",
    "implied_table",
    "improperness_figure",
    "judging",
    "limits",
    "link_sentence",
    "losses_table",
    "model_sentence",
    "parameters",
    "perplexity_figure",
    "quality_figure",
    "quality_sentence",
    "quality_table",
    "reported_table",
    "seed_estimate_table",
    "selected_table",
    "stories",
]
