r"""Walls that absorb, on the unit interval: what survives, how long, and where the rest has gone.

With both ends absorbing, :math:`\rho_0 = 1` and no drift,

.. math:: S(t) = \int\rho\,dx = \sum_{k\ \text{odd}} \frac{8}{k^2\pi^2}\,e^{-Dk^2\pi^2 t},\qquad
    \int_0^\infty S\,dt = \frac{1}{12 D} ,

and with a drift v the end at 1 takes of what begins at x the share

.. math:: \frac{1 - e^{-vx/D}}{1 - e^{-v/D}} .

With backward Euler steps the sum of all levels solves the stationary equation: the mean time has no
error in time, and neither have the shares.
"""

from mpi4py import MPI

import numpy as np
from dolfinx.mesh import locate_entities_boundary, meshtags

from fpcontrol import BackwardEuler, FokkerPlanck, density
from fpcontrol.drift import Steady
from fpcontrol.mesh import interval
from fpcontrol.theorems.framework import Grid, Study, measure
from fpcontrol.typing import Array

LEFT, RIGHT = 1, 2


def absorbing_walls(
    comm: MPI.Comm,
    *,
    sigma: float = 0.8,
    speed: float = 0.7,
    t1: float = 0.4,
    grid: Grid | None = None,
) -> Study:
    """Survival, mean time of exit and shares of two ends, from the uniform density.

    Args:
        speed: Of the constant drift to the right, not zero.
        grid: Cells, steps and degree at the coarser of two resolutions.
    """
    D = 0.5 * sigma**2
    study = Study(
        f"Absorbing ends, $\\sigma = {sigma:g}$",
        "Mass between absorbing ends is that of the closed form; the rest has left through them.",
    )
    defects: list[float] = []

    def run(grid: Grid) -> Array:
        mesh = interval(comm, grid.cells)
        ends = [
            locate_entities_boundary(mesh, 0, at_end)
            for at_end in (lambda x: x[0] < 0.5, lambda x: x[0] > 0.5)
        ]
        facets = np.concatenate(ends)
        tags = np.repeat([LEFT, RIGHT], [len(end) for end in ends]).astype(np.int32)
        order = np.argsort(facets)
        walls = meshtags(mesh, 0, facets[order], tags[order])
        still, moved = (
            FokkerPlanck(
                mesh,
                drift,
                sigma,
                absorbing=(LEFT, RIGHT),
                facet_tags=walls,
                degree=grid.degree,
            )
            for drift in (Steady(lambda x: np.zeros_like(x)), Steady(lambda x: 0.0 * x + speed))
        )
        start, scheme = density.uniform(mesh, grid.degree), BackwardEuler()
        short = still.solve(start, t1, grid.steps, save="last")
        # The slowest mode falls by exp(-30).
        end = 30.0 / (D * np.pi**2)
        long, drifting = (
            e.solve(start, end, grid.steps, scheme=scheme, save="last") for e in (still, moved)
        )
        defects.extend(r.mass_defect for r in (short, long, drifting))
        time = end / grid.steps * float(long.mass[1:].sum())
        return np.array([short.mass[-1], time, *drifting.absorbed[-1]])

    k = np.arange(1, 2000, 2) * np.pi
    survival = float((8.0 / k**2 * np.exp(-D * k**2 * t1)).sum())
    a = speed / D
    right = (1.0 - (1.0 - np.exp(-a)) / a) / (1.0 - np.exp(-a))
    survived, time, *shares = measure(run, grid or Grid(24, 80, 2))
    study.equals(f"mass at t = {t1:g}", survived, survival, 1e-3)
    study.equals("mean time of exit", time, 1.0 / (12.0 * D), 1e-6)
    for name, share, known in zip(("left", "right"), shares, (1.0 - right, right), strict=True):
        study.equals(f"share of the {name} end, v = {speed:g}", share, known, 1e-6)
    # Of the computed solutions, on these meshes.
    study.exactly("largest change of mass and what is absorbed", max(defects), below=1e-12)
    return study
