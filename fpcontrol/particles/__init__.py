"""Particles: what a density is made of.

``draw`` takes points from a density, ``simulate`` moves them by drift and noise between walls that
reflect or absorb; ``compare`` and ``histogram`` lead back to densities; ``check`` looks at a
control that was found.
"""

from fpcontrol.particles.checking import Check, check
from fpcontrol.particles.drawing import draw
from fpcontrol.particles.simulation import EulerMaruyama, Heun, SimulationInterrupt, simulate
from fpcontrol.particles.statistics import Comparison, compare, histogram
from fpcontrol.particles.swarm import Exits, Swarm

__all__ = [
    "Check",
    "Comparison",
    "EulerMaruyama",
    "Exits",
    "Heun",
    "SimulationInterrupt",
    "Swarm",
    "check",
    "compare",
    "draw",
    "histogram",
    "simulate",
]
