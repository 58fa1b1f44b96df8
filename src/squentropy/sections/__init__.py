"""What the cells of notebooks/report.ipynb show: tables, figures and sentences from the results.

Each function takes Results and returns HTML. Whatever comes from data, stories above all, is
escaped: it is shown, never interpreted. Sentences follow the numbers; none is written by hand.
"""

from squentropy.sections.answer import answer
from squentropy.sections.calibration import (
    calibration_sentence,
    calibration_table,
    frequency_sentence,
    position_sentence,
    profile_figure,
    reliability_figure,
)
from squentropy.sections.closing import commands, limits, parameters
from squentropy.sections.floors import floor_table
from squentropy.sections.grid import (
    equal_sentence,
    equal_table,
    grid_figure,
    grid_sentence,
    selected_table,
)
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
    floor_sentence,
    link_sentence,
    perplexity_figure,
)
from squentropy.sections.reported import implied_table, reported_table, seed_estimate_table
from squentropy.sections.stories import stories

__all__ = [
    "accuracy_figure",
    "answer",
    "calibration_sentence",
    "calibration_table",
    "commands",
    "convergence",
    "corpus_sentence",
    "corpus_table",
    "curves_figure",
    "difference_figure",
    "difference_table",
    "equal_sentence",
    "equal_table",
    "final_table",
    "floor_sentence",
    "floor_table",
    "frequency_sentence",
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
    "position_sentence",
    "profile_figure",
    "reliability_figure",
    "reported_table",
    "seed_estimate_table",
    "selected_table",
    "stories",
]
