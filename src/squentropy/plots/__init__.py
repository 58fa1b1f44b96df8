"""One function per figure: Results in, a matplotlib figure out; `figures.draw` saves it."""

from squentropy.plots.calibration import profile, reliability
from squentropy.plots.comparison import accuracy, differences, perplexity
from squentropy.plots.generation import quality
from squentropy.plots.learning import learning_rates, lengths
from squentropy.plots.pieces import look, style
from squentropy.plots.theory import dose, improperness
from squentropy.plots.training import grid, learning_curves

__all__ = [
    "accuracy",
    "differences",
    "dose",
    "grid",
    "improperness",
    "learning_curves",
    "learning_rates",
    "lengths",
    "look",
    "perplexity",
    "profile",
    "quality",
    "reliability",
    "style",
]
