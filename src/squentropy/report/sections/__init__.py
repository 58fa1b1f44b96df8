"""What the cells of notebooks/report.ipynb show: tables, figures and sentences from the results.

Each function takes Results and returns HTML. Whatever comes from data, stories above all, is
escaped: it is shown, never interpreted. Sentences follow the numbers; none is written by hand.
"""

from squentropy.report.sections.answer import answer, comparisons
from squentropy.report.sections.calibration import (
    calibration_sentence,
    floor_matters,
    frequency_sentence,
    position_sentence,
    profile_figure,
    readings_table,
    reliability_figure,
)
from squentropy.report.sections.closing import commands, limits, parameters, provenance
from squentropy.report.sections.generation import quality_figure, quality_sentence, quality_table
from squentropy.report.sections.grid import grid_figure, grid_sentence
from squentropy.report.sections.learning import (
    adequacy_sentence,
    learnt_table,
    lengths_figure,
    ranking_sentence,
)
from squentropy.report.sections.method import (
    corpus_sentence,
    corpus_table,
    judging,
    losses_table,
    model_sentence,
)
from squentropy.report.sections.original_study import (
    implied_table,
    original_estimate_table,
    reported_table,
)
from squentropy.report.sections.results import (
    accuracy_figure,
    curves_figure,
    difference_figure,
    final_table,
    floor_sentence,
    perplexity_figure,
)
from squentropy.report.sections.stories import stories
from squentropy.report.sections.theory import (
    contexts_sentence,
    contexts_table,
    dose_figure,
    dose_table,
    floor_table,
    gap_sentence,
    improperness_figure,
)
from squentropy.report.sections.tuning import learning_rates_figure, tuned_table, tuning_sentence

__all__ = [
    "accuracy_figure",
    "adequacy_sentence",
    "answer",
    "calibration_sentence",
    "commands",
    "comparisons",
    "contexts_sentence",
    "contexts_table",
    "corpus_sentence",
    "corpus_table",
    "curves_figure",
    "difference_figure",
    "dose_figure",
    "dose_table",
    "final_table",
    "floor_matters",
    "floor_sentence",
    "floor_table",
    "frequency_sentence",
    "gap_sentence",
    "grid_figure",
    "grid_sentence",
    "implied_table",
    "improperness_figure",
    "judging",
    "learning_rates_figure",
    "learnt_table",
    "lengths_figure",
    "limits",
    "losses_table",
    "model_sentence",
    "original_estimate_table",
    "parameters",
    "perplexity_figure",
    "position_sentence",
    "profile_figure",
    "provenance",
    "quality_figure",
    "quality_sentence",
    "quality_table",
    "ranking_sentence",
    "readings_table",
    "reliability_figure",
    "reported_table",
    "stories",
    "tuned_table",
    "tuning_sentence",
]
