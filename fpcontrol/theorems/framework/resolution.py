"""Runs on an interval at a resolution and at a finer one, whose difference is the error stated."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Self

from mpi4py import MPI

import dolfinx.mesh
import numpy as np
from dolfinx.mesh import DiagonalType, Mesh

from fpcontrol import density
from fpcontrol.characteristics.flow import Markers
from fpcontrol.discretization.boundary import Wall
from fpcontrol.fokker_planck import FokkerPlanck
from fpcontrol.mesh import interval, rectangle
from fpcontrol.noise import Sigma
from fpcontrol.quadrature import composite
from fpcontrol.stepping.schemes import Scheme
from fpcontrol.theorems.framework.figures import Figure
from fpcontrol.trajectory import Trajectory
from fpcontrol.typing import Array, VectorField


@dataclass(frozen=True)
class Grid:
    """Cells, time steps and degree of a run."""

    cells: int
    steps: int
    degree: int = 2

    def finer(self, factor: int = 2) -> Self:
        """So many times the cells and the steps."""
        return type(self)(factor * self.cells, factor * self.steps, self.degree)


def measure(run: Callable[[Grid], Any], grid: Grid, order: float | Array = 1.0) -> Figure:
    """What a run returns, a number or an array, on the finer of two grids, with its error.

    Where a figure is of order q in the size of cells and steps, the finer run's error is the
    difference of the two over 2**q - 1: the difference itself for the first order, less for higher
    ones. For lower ones it must be told.

    Args:
        run: The figures on a grid. Collective.
        grid: The coarser of the two.
        order: The least to be expected, at most 1; one each for an array of figures, if given so.

    Raises:
        ValueError: For another order.
    """
    q = np.asarray(order)
    if not ((q > 0.0) & (q <= 1.0)).all():
        raise ValueError(f"order = {order!r} must be in (0, 1].")
    return Figure.refined(run(grid), run(grid.finer()), order)


def measure_each[P](
    run: Callable[[P, Grid], Any], values: Iterable[P], grid: Grid | Callable[[P], Grid]
) -> Figure:
    """``measure`` for each value of a parameter: the first axis of the figure counts them.

    Args:
        run: The figures for a value on a grid. Collective.
        values: Of the parameter.
        grid: The coarser grid, for all values or from each.
    """
    found = []
    for value in values:
        coarse = grid if isinstance(grid, Grid) else grid(value)
        found.append(measure(partial(run, value), coarse))
    return Figure.stack(found)


def solve(
    mesh: Mesh,
    drift: VectorField,
    sigma: Sigma,
    start: Callable[[Array], Array],
    t1: float,
    grid: Grid,
    *,
    scheme: Scheme | None = None,
    quadrature_degree: int | None = None,
    linear_solver: str = "direct",
) -> Trajectory:
    """Fokker-Planck equation from a density, a function of ``x`` of shape ``(3, N)``. Collective.

    The scheme is ``CrankNicolson()`` unless given; take an L-stable one for data with jumps. The
    solver is exact: long steps in 1-D are too stiff for GMRES, and differences may be small.
    """
    equation = FokkerPlanck(
        mesh,
        drift,
        sigma,
        degree=grid.degree,
        quadrature_degree=quadrature_degree,
        linear_solver=linear_solver,
    )
    rho = density.interpolate(mesh, start, grid.degree)
    return equation.solve(rho, t1, grid.steps, scheme=scheme)


def cube(comm: MPI.Comm, dimension: int, cells: int) -> Mesh:
    """The unit interval or square. Collective."""
    return interval(comm, cells) if dimension == 1 else rectangle(comm, (cells, cells))


def markers_between(
    comm: MPI.Comm,
    edges: Sequence[float],
    cells: int,
    density: Callable[[Array], Array] | None = None,
    *,
    walls: tuple[float, float] = (0.0, 1.0),
) -> Markers:
    """Markers for integrands that are smooth between ``edges`` and may jump there. Collective.

    Each stretch is cut into equal cells of five Gauss points: none lies on an edge.

    Args:
        comm: The cells are distributed over its ranks.
        edges: In any order; equal ones count once. The markers reach from the first to the last.
        cells: Number of cells, shared out by length; every stretch has at least four.
        density: Density of markers ``(N, 1)`` to ``(N,)``; 1 unless given.
        walls: Ends of the domain, at which drifts must not point outward.
    """
    ends = np.unique(edges)
    stretches = [
        np.linspace(a, b, max(4, round(cells * (b - a) / (ends[-1] - ends[0]))) + 1)
        for a, b in pairwise(ends)
    ]
    bounds = np.concatenate([stretches[0], *(part[1:] for part in stretches[1:])])
    first, last = ((len(bounds) - 1) * r // comm.size for r in (comm.rank, comm.rank + 1))
    nodes, volumes = composite(bounds[first : last + 1], 5)
    x = nodes.reshape(-1, 1)
    wall = Wall(np.reshape(walls, (2, 1)).astype(float), np.array([[-1.0], [1.0]]))
    rho = np.ones(len(x)) if density is None else np.asarray(density(x), dtype=float)
    return Markers(comm, x, volumes, rho, wall)


def l_shape(comm: MPI.Comm, n: int) -> Mesh:
    """Unit square without its upper right quarter, ``n`` cells along a long side. Collective.

    A strip of ``n`` by ``n/2`` rectangles is folded along its middle, which is a line of nodes.
    """
    mesh = rectangle(comm, (2 * (n // 2), n // 2), (-1.0, 0.0), (1.0, 1.0))
    s, w = mesh.geometry.x[:, 0].copy(), 0.5 * mesh.geometry.x[:, 1]
    far = w + np.abs(s) * (1.0 - w)
    mesh.geometry.x[:, 0] = np.where(s > 0.0, far, w)
    mesh.geometry.x[:, 1] = np.where(s > 0.0, w, far)
    return mesh


def disk(comm: MPI.Comm, n: int) -> Mesh:
    """Disk of radius 1/2 about (1/2, 1/2), from a square of ``n`` by ``n`` cells. Collective.

    Crossed diagonals: no triangle has two edges on the wall, which would be flattened.
    """
    corners = [np.array([-1.0, -1.0]), np.array([1.0, 1.0])]
    mesh = dolfinx.mesh.create_rectangle(
        comm, corners, [n, n], dtype=np.float64, diagonal=DiagonalType.crossed
    )
    x, y = mesh.geometry.x[:, 0].copy(), mesh.geometry.x[:, 1].copy()
    mesh.geometry.x[:, 0] = 0.5 + 0.5 * x * np.sqrt(1.0 - 0.5 * y * y)
    mesh.geometry.x[:, 1] = 0.5 + 0.5 * y * np.sqrt(1.0 - 0.5 * x * x)
    return mesh
