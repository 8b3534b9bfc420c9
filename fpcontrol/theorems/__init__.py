"""Statements of the theory as experiments: what is claimed, predicted, measured, and how well.

One module a statement. An experiment is a function of its parameters that returns a ``Study``; a
module's ``EXPERIMENTS`` are those that ``fpcontrol verify`` runs.

Labels say where a claim comes from: a statement of the papers' kind, reconstructed because the
printed hypotheses were not at hand (``reconstructed``), or derived here (``own``). None is quoted.
"""

import importlib
import inspect
from dataclasses import dataclass

from fpcontrol.theorems.framework.experiments import Experiment


@dataclass(frozen=True)
class Statement:
    """A statement of the theory, and the modules of this package that show it.

    Attributes:
        name: Short name, as on the command line.
        title: What it is about.
        modules: Their names; each has a docstring and ``EXPERIMENTS``.
    """

    name: str
    title: str
    modules: tuple[str, ...]

    def experiments(self, quick: bool = False) -> list[Experiment]:
        """What ``fpcontrol verify`` runs of it, imported now."""
        listed = [e for module in self.modules for e in _imported(module).EXPERIMENTS]
        return [e.quickly() for e in listed if e.quick is not None] if quick else listed

    @property
    def texts(self) -> list[str]:
        """The modules' docstrings."""
        return [inspect.cleandoc(_imported(module).__doc__ or "") for module in self.modules]


def _imported(module: str):  # type: ignore[no-untyped-def]  # a module, whose names mypy asks for
    return importlib.import_module(f"{__name__}.statements.{module}")


STATEMENTS: tuple[Statement, ...] = (
    Statement("t1", "Continuity of the density in the drift", ("continuity", "samplers")),
    Statement("t2", "Distributions reachable by score matching", ("score_matching",)),
    Statement("t3", "Approximation of trajectories, with noise and without", ("trajectories",)),
    Statement("t4", "Moser flows of minimal regularity", ("moser",)),
    Statement("t5", "Networks of limited width by fast switching", ("switching",)),
    Statement("t6", "Samplers of a wrong log-density, by its residual", ("residuals",)),
    Statement("estimates", "Sharp a-priori estimates", ("estimates",)),
    Statement("equation", "The equation as it is solved", ("equation",)),
    Statement("gradient", "The derivative that the control rests on", ("gradient",)),
)
