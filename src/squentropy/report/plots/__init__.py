"""One function per figure: Results in, a matplotlib figure out; `figures.draw` saves it."""

from squentropy.report.plots import calibration as calibration
from squentropy.report.plots import comparison as comparison
from squentropy.report.plots import generation as generation
from squentropy.report.plots import learning as learning
from squentropy.report.plots import theory as theory
from squentropy.report.plots import training as training
