"""Drifts: vector fields v(t, x), with their structure in time, and an algebra that keeps it.

Any callable ``drift(t, x)`` with ``x`` of shape ``(N, d)`` that returns shape ``(N, d)``, length
per time, is a drift. A subclass of ``Drift`` says more: when it jumps, when it is constant in time,
its divergence. Sums, multiples, maps and reversals of drifts know these facts of their parts.
"""

from fpcontrol.drift.base import Drift, Reversed, Steady, Sum, as_drift, zero
from fpcontrol.drift.data import DataDrift, data
from fpcontrol.drift.gradient import GradientDrift, gradient
from fpcontrol.drift.grid import GridDrift, grid
from fpcontrol.drift.mapped import Mapped
from fpcontrol.drift.retimed import Retimed

__all__ = [
    "DataDrift",
    "Drift",
    "GradientDrift",
    "GridDrift",
    "Mapped",
    "Retimed",
    "Reversed",
    "Steady",
    "Sum",
    "as_drift",
    "data",
    "gradient",
    "grid",
    "zero",
]
