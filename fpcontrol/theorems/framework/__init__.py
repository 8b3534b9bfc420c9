"""What an experiment returns, how its figures are resolved, and how many of them are run."""

from fpcontrol.theorems.framework.checks import Line, Study
from fpcontrol.theorems.framework.experiments import Experiment
from fpcontrol.theorems.framework.figures import Figure
from fpcontrol.theorems.framework.resolution import Grid, measure, measure_each

__all__ = ["Experiment", "Figure", "Grid", "Line", "Study", "measure", "measure_each"]
