r"""The continuity equation (sigma = 0) along characteristics: exact, no diffusion of a mesh.

.. math:: \dot X = v(t, X),\qquad \frac{d}{dt}\log J = \nabla\cdot v(t, X),\qquad
    \rho(t, X) = \rho_0(y)/J

Labels ``y`` carry volumes, so that integrals over the domain are sums over labels. The drift must
be tangent or inward at the walls, ``v.n <= 0``: an outward one piles mass up there.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

from mpi4py import MPI

import basix
import numpy as np
from dolfinx import fem
from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

from fpcontrol.dormand_prince import DormandPrince, Field, Rate
from fpcontrol.drift import Drift
from fpcontrol.fokker_planck import Trajectory, trajectory
from fpcontrol.galerkin import Array, Galerkin
from fpcontrol.parallel import reduced, together
from fpcontrol.walls import Wall, check_wall


@dataclass(frozen=True)
class Labels:
    r"""Where characteristics start; this rank's part.

    Attributes:
        comm: Communicator the labels are distributed over.
        points: Labels ``y``, shape ``(N, d)``.
        volumes: Quadrature weights ``dy``, ``(N,)``.
        density: :math:`\rho_0(y)`, ``(N,)``.
        wall: Where the drift must not point outward.
        per_cell: On an interval: labels come in cells of this many, from one end of the cell to
            the other; 0 elsewhere.
    """

    comm: MPI.Comm
    points: Array
    volumes: Array
    density: Array
    wall: Wall
    per_cell: int = 0

    @classmethod
    def on_mesh(cls, density: fem.Function, quadrature_degree: int | None = None) -> Self:
        """The quadrature points of a mesh, with a finite-element density. Collective.

        Args:
            density: Density at the first time.
            quadrature_degree: See ``Galerkin``; more labels and more accurate integrals.
        """
        g = Galerkin(density.function_space, quadrature_degree)
        rho = g.evaluate(density.x.array).ravel()
        return cls(g.comm, g.points, g.quadrature_weights, rho, Wall.of(g.mesh))

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
        with together(comm):
            rho = np.broadcast_to(np.asarray(density(x), dtype=float), len(x))
            if not (np.isfinite(rho).all() and (rho >= 0.0).all()):
                raise ValueError("density has values that are negative or not finite.")
        wall = Wall(np.array([[lower], [upper]]), np.array([[-1.0], [1.0]]))
        return cls(comm, x, np.tile(h * w[order], last - first), rho, wall, len(w))

    @functools.cached_property
    def box(self) -> tuple[Array, Array]:
        """Smallest and largest coordinates of labels and walls. Collective at first use."""
        x = np.concatenate([self.points, self.wall.points])
        low = reduced(self.comm, x.min(axis=0, initial=np.inf), MPI.MIN)
        return low, reduced(self.comm, x.max(axis=0, initial=-np.inf), MPI.MAX)

    @property
    def size(self) -> float:
        """Longest side of the bounding box. Collective at first use."""
        return float((self.box[1] - self.box[0]).max())

    def integral(self, values: Array) -> Array:
        """Integrals over the labels, of values ``(..., N)``. Collective."""
        return reduced(self.comm, np.atleast_1d(values @ self.volumes))


@dataclass(frozen=True)
class Flow:
    """Labels carried along: results of ``carry``. The methods are collective.

    Attributes:
        labels: Where they start.
        times: Shape ``(T,)``, the first with the labels in place.
        positions: This rank's, ``(T, N, d)``.
        log_jacobian: This rank's, ``(T, N)``.
        steps: Accepted steps (0 if none were counted).
    """

    labels: Labels
    times: Array
    positions: Array
    log_jacobian: Array
    steps: int = 0

    @property
    def density(self) -> Array:
        r"""Density along the characteristics, :math:`\rho_0(y)/J`, ``(T, N)``."""
        return self.labels.density * np.exp(-self.log_jacobian)

    @property
    def mass(self) -> Array:
        """Integral of the density: the same at all times by construction, ``(T,)``."""
        return np.repeat(self.labels.integral(self.labels.density), len(self.times))

    @property
    def mass_defect(self) -> float:
        """Relative change of the mass: none, labels keep theirs."""
        return 0.0

    @property
    def minimum(self) -> Array:
        """Smallest density at a label, ``(T,)``."""
        low = self.density.min(axis=1, initial=np.inf)
        return reduced(self.labels.comm, low, MPI.MIN)

    @property
    def norms(self) -> Array:
        r"""L2 norms, :math:`\|\rho\|^2 = \int\rho_0^2/J\,dy`, ``(T,)``."""
        return np.sqrt(self.labels.integral(self.density * self.labels.density))

    def l2_errors(self, reference: Field, norms: Array | None = None) -> Array:
        r"""L2 distances to a reference density at all times, ``(T,)``.

        .. math:: \|\rho - r\|^2 = \int (\rho_0/J - r(t, X))^2 J\,dy

        which needs labels that cover the domain at all times: a drift tangent to the walls. With
        ``norms`` it is :math:`\int\rho_0^2/J - 2\rho_0 r(t, X)\,dy + \|r\|^2`, right for inward
        drifts too, but a small difference of large numbers.

        Args:
            reference: Callable ``reference(t, x)`` to ``(N,)``.
            norms: L2 norms of the reference, ``(T,)``.
        """
        rho_0, squares = self.labels.density, []
        for t, x, log_j in zip(self.times, self.positions, self.log_jacobian, strict=True):
            r = np.asarray(reference(float(t), x))
            if norms is None:
                squares.append((rho_0 * np.exp(-log_j) - r) ** 2 * np.exp(log_j))
            else:
                squares.append(rho_0 * (rho_0 * np.exp(-log_j) - 2.0 * r))
        total = self.labels.integral(np.array(squares))
        return np.sqrt(np.maximum(total if norms is None else total + np.square(norms), 0.0))

    def wasserstein(self, other: "Flow", p: float = 2.0) -> Array:
        r"""Upper bounds of Wasserstein distances between two flows of the same labels, ``(T,)``.

        .. math:: W_p^p \le \int |X(t,y) - \tilde X(t,y)|^p \rho_0(y)\,dy

        with equality in one dimension, where flows keep the order of their labels.
        """
        distance = np.linalg.norm(self.positions - other.positions, axis=2)
        return self.labels.integral(distance**p * self.labels.density) ** (1.0 / p)

    def on_mesh(
        self, space: fem.FunctionSpace, levels: Sequence[int] | Array | None = None
    ) -> Trajectory:
        """Densities at the nodes of a mesh, linear between labels: for pictures, not for figures.

        Nodes beyond all labels get the density of the nearest one. Where the flow has spread the
        labels out or a feature is narrower than their distance, the picture is coarser than the
        flow.

        Args:
            space: Lagrange space on a mesh of the domain (``problem.galerkin.space``).
            levels: Which times; all unless given.
        """
        g, comm = Galerkin(space), self.labels.comm
        nodes = space.tabulate_dof_coordinates()[: g.n_local, : g.dimension]
        levels = range(len(self.times)) if levels is None else levels
        u = np.empty((len(levels), g.n_local))
        for row, n in zip(u, levels, strict=True):
            parts = zip(*comm.allgather((self.positions[n], self.density[n])), strict=True)
            x, rho = (np.concatenate(part) for part in parts)
            with together(comm):
                row[:] = _interpolated(x, rho, nodes)
        return trajectory(g, self.times[list(levels)], u, 0)

    def cell_masses(self, level: int, edges: Array) -> Array:
        """Masses in the bins between ``edges``, at one time, of labels on an interval.

        The mass of each cell of labels is known exactly and spread evenly over the cell's image:
        an atom is seen as an atom, and no mass is lost.

        Args:
            level: Which time.
            edges: Ascending, ``(n + 1,)``.

        Raises:
            ValueError: On all ranks, if the labels are on no interval or have lost their order.
        """
        labels = self.labels
        if not labels.per_cell:
            raise ValueError("cell_masses needs labels from Labels.on_interval.")
        x = self.positions[level].reshape(-1, labels.per_cell)[:, [0, -1]].ravel()
        masses = (labels.volumes * labels.density).reshape(-1, labels.per_cell).sum(axis=1)
        with together(labels.comm):
            # Ends of neighbouring cells are the same label twice: round-off between them.
            if (np.diff(x) < -1e-12 * np.ptp(labels.wall.points)).any():
                raise ValueError("Labels have overtaken each other: use tighter tolerances.")
        below = np.repeat(np.concatenate([[0.0], np.cumsum(masses)]), 2)[1:-1]
        part = np.interp(edges, np.maximum.accumulate(x), below) if len(x) else np.zeros(len(edges))
        return np.diff(reduced(labels.comm, part))


def _interpolated(x: Array, values: Array, nodes: Array) -> Array:
    """Linear interpolation of scattered values ``(N,)`` at points ``(n, d)``, nearest outside."""
    if x.shape[1] == 1:
        order = np.argsort(x[:, 0])
        return np.interp(nodes[:, 0], x[order, 0], values[order])
    found = LinearNDInterpolator(x, values)(nodes)
    outside = np.isnan(found)
    found[outside] = NearestNDInterpolator(x, values)(nodes[outside])
    return found


def binned_l2(masses: Array, edges: Array) -> float:
    """L2 norm of a density that is constant in bins: it grows without end at an atom."""
    return float(np.sqrt(np.sum(masses**2 / np.diff(edges))))


# -- carrying labels -------------------------------------------------------------------------------


def carry(
    labels: Labels,
    drift: Drift,
    times: Sequence[float] | Array,
    *,
    divergence: Field | str | None = None,
    switches: Sequence[float] = (),
    rtol: float = 1e-9,
    atol: float = 1e-9,
    walls: bool = True,
) -> Flow:
    r"""Carry labels with a drift; Dormand-Prince 8(5,3) with error control. Collective.

    A step is accepted if for every label the errors of all coordinates are below ``size * atol +
    rtol * |x - middle|`` and that of :math:`\log J` below ``atol + rtol * |log J|`` (size and
    middle of the labels' box). The ranks take the same steps, and no step passes over a switch.

    Args:
        labels: Where they start at ``times[0]``.
        drift: Callable ``drift(t, x)``, ``(N, d)`` to ``(N, d)``. One with ``pieces`` and ``t1``
            (``NetworkDrift``) is constant on that many equal intervals of ``[0, t1]``.
        times: Increasing; where the result is wanted.
        divergence: ``divergence(t, x)`` to ``(N,)``. If not given: the drift's own, else
            ``"central"``, a fourth-order difference that asks the drift up to 6e-5 of the size
            beyond the walls. ``"complex"``: complex steps, exact to round-off, for drifts made of
            analytic functions only (no ``abs``, no maximum) that take complex points.
        switches: Times at which the drift jumps, beside those of its pieces.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        walls: Refuse drifts that point outward at the walls.

    Raises:
        ValueError: On all ranks, for a bad argument, drift values that are not finite or of
            another shape, or an outward drift.
        RuntimeError: On all ranks, if the tolerances cannot be met.

    References:
        E. Hairer, S. P. Norsett, G. Wanner, Solving Ordinary Differential Equations I (1993),
        II.5 and II.10.
    """
    times = np.array(times, dtype=float)
    if times.ndim != 1 or not len(times) or not np.isfinite(times).all():
        raise ValueError(f"times must be a list of finite numbers, got shape {times.shape}.")
    if not (np.diff(times) > 0.0).all():
        raise ValueError("times must increase.")
    if not (rtol > 0.0 and atol > 0.0):
        raise ValueError(f"rtol = {rtol!r} and atol = {atol!r} must be positive.")
    intervals, span = list(_intervals(drift, times, switches)), times[-1] - times[0]
    if walls:
        for a, b, inside in intervals:
            for t in (a, 0.5 * (a + b), b):
                check_wall(drift, inside(t), labels.wall, labels.comm, labels.size / span)
    rate = Rate(drift, divergence, labels.size)
    stepper = DormandPrince(labels.comm, labels.box, rate, rtol, atol)
    u = np.column_stack([labels.points, np.zeros(len(labels.points))])
    kept = [u]
    for a, b, inside in intervals:
        u = stepper.advance(u, a, b, inside)
        if b in times:
            kept.append(u)
    levels = np.array(kept)
    return Flow(labels, times, levels[:, :, :-1], levels[:, :, -1], stepper.accepted)


def _intervals(
    drift: Any, times: Array, switches: Sequence[float]
) -> Iterator[tuple[float, float, Callable[[float], float]]]:
    """Intervals without a switch inside, each with times at which to ask the drift for it."""
    pieces, first, last = getattr(drift, "pieces", 0), times[0], times[-1]
    own = [drift.t1 * k / pieces for k in range(1, pieces)] if pieces else []
    # A switch that differs from a wanted time by round-off is that time.
    margin = 1e-12 * (last - first)
    far = [s for s in (*own, *switches) if np.abs(times - s).min() > margin]
    stops = np.unique([*times, *(s for s in far if first < s < last)])
    for a, b in pairwise(stops):
        edge = 0.5 * (b - a) if pieces else min(margin, 0.25 * (b - a))
        yield float(a), float(b), functools.partial(_clipped, a + edge, b - edge)


def _clipped(low: float, high: float, t: float) -> float:
    return float(min(max(t, low), high))
