"""The cells of notebooks/report.ipynb: tables, figures and sentences computed from the results.

Each function takes Results and returns HTML. All text from data, stories above all, is escaped.
Sentences are generated from the numbers; none is written by hand.
"""

from squentropy.report.sections import answer as answer
from squentropy.report.sections import calibration as calibration
from squentropy.report.sections import closing as closing
from squentropy.report.sections import figures as figures
from squentropy.report.sections import generation as generation
from squentropy.report.sections import grid as grid
from squentropy.report.sections import learning as learning
from squentropy.report.sections import method as method
from squentropy.report.sections import original_study as original_study
from squentropy.report.sections import results as results
from squentropy.report.sections import stories as stories
from squentropy.report.sections import theory as theory
from squentropy.report.sections import tuning as tuning
from squentropy.report.sections import voices as voices
