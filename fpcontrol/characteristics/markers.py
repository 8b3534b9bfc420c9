"""Markers: where characteristics start, with volumes and densities there."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from mpi4py import MPI

import basix
import numpy as np
from dolfinx import fem

from fpcontrol.discretization.boundary import Wall
from fpcontrol.discretization.elements import Elements
from fpcontrol.discretization.periodic import Periodic, periodic_of
from fpcontrol.parallel.errors import collective_errors, reduced
from fpcontrol.typing import Array


@dataclass(frozen=True, repr=False)
class Markers:
    r"""Where characteristics start; this rank's part. To make them is collective, the rest is not.

    Attributes:
        comm: Communicator the markers are distributed over.
        points: Markers ``y``, shape ``(N, d)``.
        volumes: Quadrature weights ``dy``, ``(N,)``.
        density: :math:`\rho_0(y)`, ``(N,)``.
        wall: Where the drift must not point outward.
        per_cell: On an interval: markers come in cells of this many, from one end of the cell to
            the other; 0 elsewhere.
        periodic: What is periodic in the domain; ``None`` if nothing is.
        count: Number of markers on all ranks.
        box: Smallest and largest coordinates of markers and walls on all ranks, each ``(d,)``.
    """

    comm: MPI.Comm
    points: Array
    volumes: Array
    density: Array
    wall: Wall
    per_cell: int = 0
    periodic: Periodic | None = None
    count: int = field(init=False)
    box: tuple[Array, Array] = field(init=False)

    def __post_init__(self) -> None:
        """Count and measure over all ranks. Collective."""
        x = np.concatenate([self.points, self.wall.points])
        low = reduced(self.comm, x.min(axis=0, initial=np.inf), MPI.MIN)
        high = reduced(self.comm, x.max(axis=0, initial=-np.inf), MPI.MAX)
        object.__setattr__(self, "box", (low, high))
        object.__setattr__(self, "count", self.comm.allreduce(len(self.points)))

    def __repr__(self) -> str:
        low, high = (", ".join(f"{value:g}" for value in corner) for corner in self.box)
        return f"<{type(self).__name__}: {self.count} from ({low}) to ({high})>"

    @classmethod
    def on_mesh(cls, density: fem.Function, quadrature_degree: int | None = None) -> Self:
        """The quadrature points of a mesh, with a finite-element density. Collective.

        Args:
            density: Density at the first time.
            quadrature_degree: See ``Elements``; more markers and more accurate integrals.

        Raises:
            ValueError: On all ranks, if the density is negative or not finite at a point.
        """
        g = Elements(density.function_space, quadrature_degree)
        rho = g.evaluate(density.x.array).ravel()
        with collective_errors(g.comm):
            check_values(rho)
        return cls(
            g.comm, g.points, g.quadrature_weights, rho, Wall.of(g.mesh), 0, periodic_of(g.mesh)
        )

    @classmethod
    def on_interval(
        cls,
        comm: MPI.Comm,
        n: int,
        density: Callable[[Array], Array],
        lower: float = 0.0,
        upper: float = 1.0,
    ) -> Self:
        """Five Gauss-Lobatto points in each of ``n`` equal cells of an interval. Collective.

        Args:
            comm: The cells are distributed over its ranks.
            n: Number of cells.
            density: Callable ``density(x)``, ``x`` of shape ``(N, 1)`` to ``(N,)``.
            lower: Left end.
            upper: Right end.

        Raises:
            ValueError: On all ranks, for ``n`` below 1, ends in the wrong order, or a density
                that is negative or not finite.
        """
        if n < 1 or not lower < upper:
            raise ValueError(f"n = {n!r} must be 1 or more and lower = {lower!r} < {upper!r}.")
        hat, w = basix.make_quadrature(
            basix.CellType.interval, 7, rule=basix.QuadratureType.gll
        )  # basix puts the ends first
        order = np.argsort(hat[:, 0])
        first, last = (n * r // comm.size for r in (comm.rank, comm.rank + 1))
        h = (upper - lower) / n
        x = lower + h * (np.arange(first, last)[:, None] + hat[order, 0]).reshape(-1, 1)
        with collective_errors(comm):
            rho = np.asarray(density(x), dtype=float)
            if rho.shape not in ((), (len(x),)):
                raise ValueError(
                    f"density(x) returned shape {rho.shape} for x of shape {x.shape}; ({len(x)},) "
                    "is needed."
                )
            rho = np.broadcast_to(rho, len(x))
            check_values(rho)
        wall = Wall(np.array([[lower], [upper]]), np.array([[-1.0], [1.0]]))
        return cls(comm, x, np.tile(h * w[order], last - first), rho, wall, len(w))

    @property
    def size(self) -> float:
        """Longest side of the bounding box."""
        return float((self.box[1] - self.box[0]).max())

    def home(self, x: Array) -> Array:
        """Points ``(N, d)`` in the domain, where they are by whole periods."""
        return x if self.periodic is None else self.periodic.wrapped(x)

    def integral(self, values: Array) -> Array:
        """Integrals over the markers, of values ``(..., N)``. Collective."""
        return reduced(self.comm, np.atleast_1d(values @ self.volumes))


def check_values(density: Array) -> None:
    """Refuse values that no density has."""
    if not np.isfinite(density).all():
        raise ValueError("density has values that are not finite.")
    if density.min(initial=0.0) < 0.0:
        raise ValueError(
            f"density is negative at a marker, {density.min():.3g} (between nodes even where its "
            "nodal values are not, if its degree is 2 or 3). Add a floor (fpc.density.with_floor), "
            "refine the mesh, or use degree 1."
        )
