"""Particles: what a density is made of.

``draw`` takes points from a density, ``simulate`` moves them by drift and noise between walls that
reflect or absorb; ``compare`` and ``histogram`` lead back to densities.
"""

from fpcontrol.particles.drawing import draw
from fpcontrol.particles.simulation import EulerMaruyama, Heun, simulate
from fpcontrol.particles.statistics import Comparison, compare, histogram
from fpcontrol.particles.swarm import Exits, Swarm

__all__ = [
    "Comparison",
    "EulerMaruyama",
    "Exits",
    "Heun",
    "Swarm",
    "compare",
    "draw",
    "histogram",
    "simulate",
]
