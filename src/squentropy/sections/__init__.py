"""What the cells of notebooks/report.ipynb show: tables, figures and sentences from the results.

Each function takes Results and returns HTML. Whatever comes from data, stories above all, is
escaped: it is shown, never interpreted. Sentences follow the numbers; none is written by hand.
"""

from squentropy.sections.answer import answer
from squentropy.sections.closing import commands, limits, parameters, provenance
from squentropy.sections.floors import floor_table
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
    "convergence",
    "corpus_sentence",
    "corpus_table",
    "curves_figure",
    "difference_figure",
    "difference_table",
    "final_table",
    "floor_table",
    "grid_figure",
    "grid_sentence",
    "implied_table",
    "judging",
    "limits",
    "link_sentence",
    "losses_table",
    "model_sentence",
    "parameters",
    "perplexity_figure",
    "provenance",
    "reported_table",
    "seed_estimate_table",
    "selected_table",
    "stories",
]
