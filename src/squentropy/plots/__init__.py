"""One function a figure: Results in, a matplotlib figure out; `figures.draw` saves it."""

from squentropy.plots.calibration import profile, reliability
from squentropy.plots.comparison import accuracy, differences, perplexity
from squentropy.plots.pieces import look, style
from squentropy.plots.training import grid, learning_curves

__all__ = [
    "accuracy",
    "differences",
    "grid",
    "learning_curves",
    "look",
    "perplexity",
    "profile",
    "reliability",
    "style",
]
