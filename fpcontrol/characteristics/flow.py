r"""The continuity equation (sigma = 0) along characteristics: exact, no diffusion of a mesh.

.. math:: \dot X = v(t, X),\qquad \frac{d}{dt}\log J = \nabla\cdot v(t, X),\qquad
    \rho(t, X) = \rho_0(y)/J

Markers ``y`` carry volumes, so that integrals over the domain are sums over markers. The drift must
be tangent or inward at the walls, ``v.n <= 0``: an outward one piles mass up there.
"""

import functools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from mpi4py import MPI

import numpy as np
import scipy
from dolfinx import fem

from fpcontrol.characteristics.dormand_prince import DormandPrince, Rate
from fpcontrol.characteristics.markers import Markers
from fpcontrol.discretization.elements import Elements
from fpcontrol.discretization.replica import MeshReference
from fpcontrol.drift.base import Drift, as_drift
from fpcontrol.drift.turned import check_turn, turned
from fpcontrol.parallel.errors import collective_errors, reduced
from fpcontrol.parallel.progress import Progress
from fpcontrol.reference import MoserFlow
from fpcontrol.trajectory import Trajectory, trajectory
from fpcontrol.typing import AnalyticReference, Array, Field, VectorField
from fpcontrol.walls import check_wall

__all__ = ["Flow", "Markers", "binned_l2", "carry"]

# Steps of a call of ``carry`` unless more are asked for: smooth drifts take some hundreds.
MAX_STEPS = 100_000
# Levels on a mesh that are scaled by more than this, relatively, are told.
SCALED = 0.02


@dataclass(frozen=True, repr=False)
class Flow:
    r"""Markers carried along: results of ``carry``. To make one is collective, as its methods are.

    Attributes:
        markers: Where they start.
        times: Shape ``(T,)``, the first with the markers in place.
        positions: This rank's, ``(T, N, d)``; of those that have gone round on a mesh with periodic
            sides with their whole turns.
        log_jacobian: This rank's, ``(T, N)``.
        steps: Accepted steps (0 if none were counted).
        mass: Integral of the density: the same at all times by construction, ``(T,)``.
        minimum: Smallest density at a marker of any rank, ``(T,)``.
        norms: L2 norms of the density, :math:`\|\rho\|^2 = \int\rho_0^2/J\,dy`, ``(T,)``.
    """

    markers: Markers
    times: Array
    positions: Array
    log_jacobian: Array
    steps: int = 0
    mass: Array = field(init=False)
    minimum: Array = field(init=False)
    norms: Array = field(init=False)

    def __post_init__(self) -> None:
        """Mass, minimum and norms over all ranks. Collective."""
        markers, rho = self.markers, self.density
        mass = np.repeat(markers.integral(markers.density), len(self.times))
        low = reduced(markers.comm, rho.min(axis=1, initial=np.inf), MPI.MIN)
        norms = np.sqrt(markers.integral(rho * markers.density))
        for name, values in (("mass", mass), ("minimum", low), ("norms", norms)):
            object.__setattr__(self, name, values)

    def __repr__(self) -> str:
        return (
            f"<Flow: {self.markers.count} markers at {_ends(self.times)}, {self.steps} steps, "
            f"mass {self.mass[0]:.6g}, minimum {self.minimum.min():.3g}>"
        )

    @property
    def labels(self) -> Markers:
        """The markers, by the name that they had before."""
        warnings.warn("Flow.labels is called markers now.", DeprecationWarning, stacklevel=2)
        return self.markers

    @property
    def density(self) -> Array:
        r"""Density along the characteristics, :math:`\rho_0(y)/J`, ``(T, N)``."""
        return self.markers.density * np.exp(-self.log_jacobian)

    @property
    def mass_defect(self) -> float:
        """Relative change of the mass: none, markers keep theirs."""
        return 0.0

    def l2_errors(
        self, reference: Field | MoserFlow | AnalyticReference, norms: Array | None = None
    ) -> Array:
        r"""L2 distances to a reference density at all times, ``(T,)``.

        .. math:: \|\rho - r\|^2 = \int (\rho_0/J - r(t, X))^2 J\,dy

        which needs markers that cover the domain at all times: a drift tangent to the walls. With
        ``norms`` it is :math:`\int\rho_0^2/J - 2\rho_0 r(t, X)\,dy + \|r\|^2`, right for inward
        drifts too, but a small difference of large numbers.

        Args:
            reference: Callable ``reference(t, x)`` to ``(N,)``; a ``MoserFlow``, which is asked
                through ``MeshReference``; or what a ``TrackingProblem`` takes as reference.
            norms: L2 norms of the reference, ``(T,)``.

        Raises:
            ValueError: On all ranks, for another reference or values of another shape.
        """
        rho_0, squares, reference = self.markers.density, [], _field(reference)
        for t, x, log_j in zip(self.times, self.positions, self.log_jacobian, strict=True):
            r = np.asarray(reference(float(t), self.markers.home(x)))
            with collective_errors(self.markers.comm):
                if r.shape not in ((), (len(x),)):
                    raise ValueError(
                        f"reference(t, x) returned shape {r.shape} for x of shape {x.shape}; "
                        f"({len(x)},) is needed."
                    )
            if norms is None:
                squares.append((rho_0 * np.exp(-log_j) - r) ** 2 * np.exp(log_j))
            else:
                squares.append(rho_0 * (rho_0 * np.exp(-log_j) - 2.0 * r))
        total = self.markers.integral(np.array(squares))
        return np.sqrt(np.maximum(total if norms is None else total + np.square(norms), 0.0))

    def wasserstein(self, other: "Flow", p: float = 2.0) -> Array:
        r"""Upper bounds of Wasserstein distances between two flows of the same markers, ``(T,)``.

        .. math:: W_p^p \le \int |X(t,y) - \tilde X(t,y)|^p \rho_0(y)\,dy

        with equality in one dimension, where flows keep the order of their markers; not round a
        circle.

        Raises:
            ValueError: On all ranks, if the flows are of other markers or at other times.
        """
        mine, theirs = self.markers, other.markers
        with collective_errors(mine.comm):
            for what in ("points", "volumes", "density"):
                a, b = getattr(mine, what), getattr(theirs, what)
                if a is not b and not np.array_equal(a, b):
                    raise ValueError(
                        f"The flows differ in their markers' {what}; carry the same markers with "
                        "both drifts. (fpc.distances takes any two densities on meshes.)"
                    )
            if self.times.shape != other.times.shape or not np.allclose(
                self.times, other.times, rtol=0.0, atol=1e-9 * np.ptp(self.times)
            ):
                raise ValueError(
                    f"The flows are at other times: {_ends(self.times)} and {_ends(other.times)}."
                )
        distance = np.linalg.norm(self.positions - other.positions, axis=2)
        return self.markers.integral(distance**p * self.markers.density) ** (1.0 / p)

    def on_mesh(
        self, space: fem.FunctionSpace, levels: Sequence[int] | Array | None = None
    ) -> Trajectory:
        """Densities at the nodes of a mesh, linear between markers: for pictures, not for figures.

        Nodes beyond all markers get the density of the nearest one. Where the flow has spread the
        markers out or a feature is narrower than their distance, the picture is coarser than the
        flow. Each level is scaled to the flow's mass, so that ``fpc.distances`` takes it (in a
        space of degree 1, where no values between nodes are negative); factors that differ from 1
        by more than ``SCALED`` are told in a warning.

        Args:
            space: Lagrange space on a mesh of the domain (``problem.elements.space``).
            levels: Which times; all unless given.

        Warns:
            UserWarning: On rank 0, for a level that the markers do not resolve.
        """
        g, comm = Elements(space), self.markers.comm
        nodes = space.tabulate_dof_coordinates()[: g.n_local, : g.dimension]
        levels = range(len(self.times)) if levels is None else levels
        u = np.empty((len(levels), g.n_local))
        for row, n in zip(u, levels, strict=True):
            parts = zip(*comm.allgather((self.positions[n], self.density[n])), strict=True)
            x, rho = (np.concatenate(part) for part in parts)
            with collective_errors(comm):
                if around := self.markers.periodic:
                    x, rho = around.surrounded(self.markers.home(x), rho)
                row[:] = _interpolated(x, rho, nodes)
        times, wanted = self.times[list(levels)], self.mass[list(levels)]
        found = reduced(comm, u[:, : g.n_owned] @ g.integrals)
        factors = wanted / np.where(found > 0.0, found, wanted)
        u *= factors[:, None]
        if comm.rank == 0 and len(times) and np.abs(np.log(factors)).max() > SCALED:
            k = int(np.abs(np.log(factors)).argmax())
            warnings.warn(
                f"Between the markers the density at t = {times[k]:g} has mass {found[k]:.4g}; it "
                f"was scaled by {factors[k]:.4g} to the flow's, {wanted[k]:.4g}. Markers are too "
                "far apart there, or the mesh is coarser than the density: start from more "
                "markers, or take a finer mesh.",
                stacklevel=2,
            )
        return trajectory(g, times, u, 0)

    def cell_masses(self, level: int, edges: Array) -> Array:
        """Masses in the bins between ``edges``, at one time, of markers on an interval.

        The mass of each cell of markers is known exactly and spread evenly over the cell's image:
        an atom is seen as an atom, and no mass is lost.

        Args:
            level: Which time.
            edges: Ascending, ``(n + 1,)``.

        Raises:
            ValueError: On all ranks, if the markers are on no interval or have lost their order, or
                if the edges do not ascend.
        """
        markers, edges = self.markers, np.asarray(edges, dtype=float)
        if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0.0).all():
            raise ValueError(f"edges = {edges} must be two or more numbers that ascend.")
        if not markers.per_cell:
            raise ValueError("cell_masses needs markers from Markers.on_interval.")
        x = self.positions[level].reshape(-1, markers.per_cell)[:, [0, -1]].ravel()
        masses = (markers.volumes * markers.density).reshape(-1, markers.per_cell).sum(axis=1)
        with collective_errors(markers.comm):
            # Ends of neighbouring cells are the same marker twice: round-off between them.
            if (np.diff(x) < -1e-12 * np.ptp(markers.wall.points)).any():
                raise ValueError("Markers have overtaken each other: use tighter tolerances.")
        below = np.repeat(np.concatenate([[0.0], np.cumsum(masses)]), 2)[1:-1]
        part = np.interp(edges, np.maximum.accumulate(x), below) if len(x) else np.zeros(len(edges))
        return np.diff(reduced(markers.comm, part))


def _field(reference: Any) -> Field:
    """Values of a reference as a callable ``(t, x)``. Collective."""
    if isinstance(reference, MoserFlow):
        reference = MeshReference(reference)
    if callable(reference):
        return reference
    if not hasattr(reference, "at"):
        raise ValueError(
            f"reference = {reference!r} is no reference; give reference(t, x) or a MoserFlow."
        )
    return lambda t, x: reference.at(t, x)[0]


def _interpolated(x: Array, values: Array, nodes: Array) -> Array:
    """Linear interpolation of scattered values ``(N,)`` at points ``(n, d)``, nearest outside."""
    if x.shape[1] == 1:
        order = np.argsort(x[:, 0])
        return np.interp(nodes[:, 0], x[order, 0], values[order])
    found = scipy.interpolate.LinearNDInterpolator(x, values)(nodes)
    outside = np.isnan(found)
    found[outside] = scipy.interpolate.NearestNDInterpolator(x, values)(nodes[outside])
    return found


def _ends(times: Array) -> str:
    return f"{len(times)} from {times[0]:g} to {times[-1]:g}"


def binned_l2(masses: Array, edges: Array) -> float:
    """L2 norm of a density that is constant in bins: it grows without end at an atom."""
    return float(np.sqrt(np.sum(masses**2 / np.diff(edges))))


# -- carrying markers ------------------------------------------------------------------------------


def carry(
    markers: Markers,
    drift: VectorField,
    times: Sequence[float] | Array,
    *,
    divergence: Field | str | None = None,
    switches: Sequence[float] = (),
    rtol: float = 1e-9,
    atol: float = 1e-9,
    walls: bool = True,
    max_steps: int | None = None,
    progress: bool = False,
) -> Flow:
    r"""Carry markers with a drift; Dormand-Prince 8(5,3) with error control. Collective.

    A step is accepted if for every marker the errors of all coordinates are below ``size * atol +
    rtol * |x - middle|`` and that of :math:`\log J` below ``atol + rtol * |log J|`` (size and
    middle of the markers' box). The ranks take the same steps, and no step passes over a switch.

    Args:
        markers: Where they start at ``times[0]``.
        drift: Callable ``drift(t, x)``, ``(N, d)`` to ``(N, d)``, smooth in space and the same on
            all ranks at any point of the domain: the drift of a ``MoserFlow``, which lives on a
            mesh, is refused. On a mesh with periodic sides it is asked in the domain. Its
            ``switches`` and ``piece`` (see ``fpc.drift.Drift``) are used.
        times: Increasing; where the result is wanted.
        divergence: ``divergence(t, x)`` to ``(N,)``. If not given: the drift's own, else
            ``"central"``, a fourth-order difference that asks the drift up to 6e-5 of the size
            beyond the walls. ``"complex"``: complex steps, exact to round-off, for drifts made of
            analytic functions only (no ``abs``, no maximum) that take complex points.
        switches: Times at which the drift jumps, beside its own.
        rtol: Relative tolerance.
        atol: Absolute tolerance.
        walls: Refuse drifts that point outward at the walls; those that jump at periodic sides are
            refused in any case.
        max_steps: Greatest number of steps, rejected ones included; 100 000, or 100 between two
            times or switches if that is more, unless given.
        progress: Show on rank 0 how far it is.

    Raises:
        ValueError: On all ranks, for a bad argument, drift values that are not finite or of
            another shape, or an outward drift.
        RuntimeError: On all ranks, if the tolerances cannot be met in ``max_steps``, or if at the
            pace of the last 300 steps they would not be: a drift that jumps in space, or often in
            time without a word. The message has the time and the place.

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
    if max_steps is not None and not (isinstance(max_steps, int | np.integer) and max_steps > 0):
        raise ValueError(f"max_steps = {max_steps!r} must be a positive whole number, or None.")
    drift = as_drift(drift)
    if around := markers.periodic:
        drift, divergence = turned(drift, divergence, around)
    intervals, span = list(_intervals(drift, times, switches)), times[-1] - times[0]
    rate = Rate(drift, divergence, markers.size)
    for a, b, inside in intervals:
        for t in (inside(a), inside(0.5 * (a + b)), inside(b)):
            if walls:
                check_wall(drift, t, markers.wall, markers.comm, markers.size / span)
            if around:
                check_turn(drift, t, around, markers.comm)
    meter = _Meter(Progress("characteristics, %", 100, markers.comm, progress), times[0], span)
    most = max(MAX_STEPS, 100 * len(intervals)) if max_steps is None else int(max_steps)
    stepper = DormandPrince(
        markers.comm, markers.box, rate, rtol, atol, float(times[-1]), most, meter.show
    )
    u = np.column_stack([markers.points, np.zeros(len(markers.points))])
    kept = [u]
    for a, b, inside in intervals:
        u = stepper.advance(u, a, b, inside)
        if b in times:
            kept.append(u)
    meter.progress.close()
    levels = np.array(kept)
    return Flow(markers, times, levels[:, :, :-1], levels[:, :, -1], stepper.accepted)


class _Meter:
    """Percentage of the time that is done."""

    def __init__(self, progress: Progress, start: float, span: float) -> None:
        self.progress, self._start, self._span, self._shown = progress, start, span, 0

    def show(self, t: float, steps: int) -> None:
        """After a step."""
        percent = int(100.0 * (t - self._start) / self._span)
        self.progress.update(f"t = {t:.6g}, {steps} steps", percent - self._shown)
        self._shown = percent


def _intervals(
    drift: Drift, times: Array, switches: Sequence[float]
) -> Iterator[tuple[float, float, Callable[[float], float]]]:
    """Intervals without a switch inside, each with times at which to ask the drift for it."""
    known = np.array([*drift.switches, *switches], dtype=float)
    if not np.isfinite(known).all():
        raise ValueError(f"switches = {known} must be finite times.")
    # A switch that differs from a wanted time by round-off is that time.
    first, last = times[0], times[-1]
    margin = 1e-12 * (last - first)
    far = [s for s in known if first < s < last and np.abs(times - s).min() > margin]
    stops = np.unique([*times, *far])
    for a, b in pairwise(stops):
        # What is constant in between is asked in the middle, far from round-off of its switches.
        edge, middle = min(margin, 0.25 * (b - a)), 0.5 * (a + b)
        pieces = {drift.piece(t) for t in (a + edge, middle, b - edge)}
        edge = edge if None in pieces or len(pieces) > 1 else 0.5 * (b - a)
        yield float(a), float(b), functools.partial(_clipped, a + edge, b - edge)


def _clipped(low: float, high: float, t: float) -> float:
    return float(min(max(t, low), high))
