"""Densities on a mesh: positive, of mass 1."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from mpi4py import MPI

import numpy as np
from dolfinx import fem
from dolfinx.mesh import Mesh

from fpcontrol.discretization.base import Discretization
from fpcontrol.discretization.elements import Elements, lagrange
from fpcontrol.discretization.galerkin import check_discretization
from fpcontrol.discretization.locate import locate
from fpcontrol.discretization.periodic import JUMP, dof_places, periodic_of
from fpcontrol.linalg.linear_solvers import LinearSolver
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.typing import Array

# Backward Euler steps of the smoothing heat flow. Its kernel (1 + tau K/n)^-n has the variance of
# the Gaussian for every n; at 20 steps its peak in 2-D is 5 % (n/(n-1)) above the Gaussian's. A
# point joins the flow later by the variance that its hat functions have already.
HEAT_STEPS = 20


class Density(fem.Function):
    """A dolfinx Function that knows the discretization it was made for; so do its copies.

    Attributes:
        discretization: As it was given; ``None`` if a degree or nothing was.
    """

    discretization: Discretization | None = None

    def copy(self) -> "Density":
        """A copy of the same discretization. Not collective."""
        other = super().copy()
        result = Density(other.function_space, other.x, other.name)
        result.discretization = self.discretization
        return result


def uniform(
    mesh: Mesh, degree: int | None = None, *, discretization: Discretization | None = None
) -> Density:
    """The uniform density. Collective.

    Args:
        mesh: Mesh of intervals, triangles or tetrahedra.
        degree: Short form of ``discretization=Galerkin(degree)``; 1, 2 or 3.
        discretization: Whose elements the density is made of; ``Galerkin(degree=2)`` unless given.
            The density remembers it: a ``MoserFlow`` between two such densities takes it.

    Raises:
        ValueError: On all ranks, for another degree, or if both are given.
    """
    degree = check_discretization(discretization, degree, None).degree
    density = from_nodes(Elements(lagrange(mesh, degree)), lambda x: np.ones(len(x)))
    density.discretization = discretization
    return density


def interpolate(
    mesh: Mesh,
    f: Callable[[Array], Array],
    degree: int | None = None,
    floor: float = 0.0,
    *,
    discretization: Discretization | None = None,
) -> Density:
    """A function interpolated and scaled to mass 1. Collective.

    Args:
        mesh: Mesh of intervals, triangles or tetrahedra.
        f: ``f(x)`` with ``x`` of shape ``(3, N)``, as in dolfinx, to shape ``(N,)``; not negative.
            So ``x[0]`` is the first coordinate here; in drifts, which get ``(N, d)``, ``x[:, 0]``.
        degree: See ``uniform``.
        floor: See ``with_floor``.
        discretization: See ``uniform``.

    Raises:
        ValueError: On all ranks, if ``f`` is negative, not finite or zero at all nodes, or as in
            ``uniform``.
    """
    degree = check_discretization(discretization, degree, None).degree
    density = from_nodes(Elements(lagrange(mesh, degree)), lambda x: f(x.T))
    density.discretization = discretization
    return with_floor(density, floor)


def from_points(
    mesh: Mesh,
    points: Array,
    masses: Array | None = None,
    *,
    bandwidth: float,
    degree: int | None = None,
    floor: float = 0.0,
    discretization: Discretization | None = None,
) -> Density:
    r"""Weighted points smoothed by the no-flux heat flow on the domain, of mass 1. Collective.

    Point masses evolve by :math:`\partial_t\rho = \Delta\rho`, :math:`\partial_n\rho = 0` until
    :math:`t = \mathrm{bandwidth}^2/2`: far from the walls a Gaussian with standard deviation
    ``bandwidth`` in each direction, and nothing leaks across a bay. Piecewise linear with lumped
    mass and backward Euler, which keeps it positive, whatever the degree it is returned in.

    On the mesh a point begins as the hat functions about it, which have a variance of about the
    square of half a cell; it flows for a shorter time, such that

    .. math:: \int |x - y|^2 \rho\,dx = d\,\mathrm{bandwidth}^2

    for a point at :math:`y` in a domain of dimension :math:`d`, exactly on regular meshes. Where
    the bandwidth is less than the cells can hold the density is wider, with a warning.

    A point outside the mesh but within one bandwidth of it (a harbour off a simplified coast) is
    moved to the nearest cell; those farther are left out. Both are counted in a warning.

    Args:
        mesh: Mesh of intervals, triangles or tetrahedra.
        points: Coordinates in the mesh's unit, ``(N, d)``, the same on all ranks.
        masses: Mass of each point, ``(N,)``, not negative; equal unless given.
        bandwidth: Standard deviation of the smoothing, in the mesh's unit.
        degree: See ``uniform``.
        floor: See ``with_floor``.
        discretization: See ``uniform``.

    Raises:
        ValueError: On all ranks, for negative or non-finite input, no mass, or no point inside, or
            as in ``uniform``.
    """
    degree = check_discretization(discretization, degree, None).degree
    d = mesh.topology.dim
    with collective_errors(comm_of(mesh)):
        points = np.asarray(points, dtype=float)
        if points.ndim != 2 or points.shape[1] != d or len(points) == 0:
            raise ValueError(f"points has shape {points.shape}; (N, {d}) with N > 0 is needed.")
        masses = np.ones(len(points)) if masses is None else np.asarray(masses, dtype=float)
        if masses.shape != (len(points),):
            raise ValueError(f"masses has shape {masses.shape}; ({len(points)},) is needed.")
        if not (np.isfinite(points).all() and np.isfinite(masses).all()):
            raise ValueError("points and masses must be finite.")
        if masses.min() < 0 or masses.sum() <= 0:
            raise ValueError(
                f"masses from {masses.min():g} to {masses.max():g}: none may be negative and "
                "their sum must be positive."
            )
        if not (np.isfinite(bandwidth) and bandwidth > 0):
            raise ValueError(f"bandwidth = {bandwidth!r} must be a positive length.")
    g = Elements(lagrange(mesh, 1))
    rho = fem.Function(g.space)
    placed = _placed(g, points, masses, bandwidth)
    rho.x.array[: g.n_owned] = _smoothed(g, placed, bandwidth)
    rho.x.scatter_forward()
    space = lagrange(mesh, degree)
    density = Density(space, name="density")
    density.discretization = discretization
    density.interpolate(rho)
    density.x.array[:] = np.maximum(density.x.array, 0.0)  # zeros come with round-off
    density.x.scatter_forward()
    return with_floor(normalized(density), floor)


def with_floor[D: fem.Function](density: D, floor: float) -> D:
    r"""Mix in the uniform density: :math:`(1-f)\rho + f/|\Omega|`. Collective.

    Args:
        density: A density.
        floor: Fraction ``f`` of the mass that is spread evenly, in [0, 1]: the result is at least
            ``f`` times the mean density.

    Raises:
        ValueError: On all ranks, if ``floor`` is outside [0, 1].
    """
    if not 0.0 <= floor <= 1.0:
        raise ValueError(f"floor = {floor!r} must be a fraction in [0, 1].")
    if floor > 0.0:
        volume = Elements(density.function_space).volume
        density.x.array[:] = (1.0 - floor) * density.x.array + floor / volume
    return density


def from_nodes(g: Elements, f: Callable[[Array], Array]) -> Density:
    """Density with nodal values proportional to ``f(x)``, ``x`` of shape ``(N, 3)``. Collective."""
    density = Density(g.space, name="density")
    x, jump = dof_places(g.space), 0.0
    with collective_errors(g.comm):
        values = np.asarray(f(x), dtype=float)
        if values.shape not in ((len(x),), ()):
            raise ValueError(
                f"f(x) returned shape {values.shape} for x of shape {x.T.shape}; ({len(x)},) is "
                "needed. x[0] is the first coordinate of all nodes, as in dolfinx; x[:, 0] is it "
                "in drifts only, which get points of shape (N, d)."
            )
        density.x.array[:] = values
        jump = _jump(g, f, x, density.x.array)
    if g.comm.allreduce(jump, op=MPI.MAX) > JUMP and g.comm.rank == 0:
        warnings.warn(
            "f is not periodic: it differs at the two places of a node on sides that are one. The "
            "values at the lower sides were taken.",
            stacklevel=3,
        )
    return normalized(density, g)


def _jump(g: Elements, f: Callable[[Array], Array], x: Array, values: Array) -> float:
    """By how much f differs on the upper of two periodic sides, over its largest value."""
    periodic, jump = periodic_of(g.mesh), 0.0
    size = float(np.abs(values).max(initial=0.0))
    for rows, y in periodic.images(x[:, : g.dimension]) if periodic and size > 0.0 else ():
        moved = x[rows]
        moved[:, : g.dimension] = y
        jump = max(jump, float(np.abs(f(moved) - values[rows]).max(initial=0.0)) / size)
    return jump


def normalized[D: fem.Function](density: D, g: Elements | None = None) -> D:
    """Scale to mass 1. Collective.

    Raises:
        ValueError: On all ranks, if a nodal value is negative or not finite, or all are zero.
    """
    g = g or Elements(density.function_space)
    values = density.x.array[: g.n_owned]
    with collective_errors(g.comm):
        if not np.isfinite(values).all():
            raise ValueError("The density has values that are not finite.")
        if len(values) and values.min() < 0.0:
            raise ValueError(
                f"The density is negative: {values.min():g} at a node. Clip it, as by "
                "np.maximum(f, 0.0); a floor does not help, it is mixed in afterwards."
            )
    mass = g.integral(density.x.array)
    if mass <= 0.0:
        raise ValueError(f"The density has mass {mass:g}; it must be positive somewhere.")
    density.x.array[:] /= mass
    return density


@dataclass(frozen=True)
class _Placed:
    """Points in cells of this rank: ``n`` of them.

    Attributes:
        cells: Cell of each, ``(n,)``.
        barycentric: Coordinates in it, ``(n, d + 1)``.
        masses: Shape ``(n,)``.
        spread: Mean square distance of the hat functions about it, ``(n,)``.
    """

    cells: Array
    barycentric: Array
    masses: Array
    spread: Array

    def load(self, g: Elements, share: Array) -> Array:
        """Dual vector of a share ``(n,)`` of each point's mass, owned entries. Collective."""
        parts = np.zeros((g.n_cells, g.dimension + 1))
        np.add.at(parts, self.cells, self.barycentric * (share * self.masses)[:, None])
        return g.assemble(parts.T)


def _smoothed(g: Elements, placed: _Placed, bandwidth: float) -> Array:
    """Heat flow of points until each has the variance bandwidth**2, owned entries. Collective."""
    wanted = g.dimension * bandwidth**2
    # Steps that are left to each point; of two neighbouring numbers, the shares that make it so.
    steps = np.maximum(HEAT_STEPS * (1.0 - placed.spread / wanted), 0.0)
    most = g.comm.allreduce(steps.max(initial=0.0), op=MPI.MAX)
    solver = _heat_step(g, 0.5 * bandwidth**2 / HEAT_STEPS) if most > 0.0 else None
    b, x = g.vector(), g.vector()
    for left in range(int(np.ceil(most)), -1, -1):
        b.array[: g.n_owned] += placed.load(g, np.maximum(1.0 - np.abs(steps - left), 0.0))
        if left and solver:
            b.petsc_vec.stateIncrease()
            solver.solve(b.petsc_vec, x.petsc_vec)
            b.array[: g.n_owned] = g.integrals * x.array[: g.n_owned]
    # Round-off, or the few obtuse angles of a mesh, can leave a zero slightly negative.
    return np.maximum(b.array[: g.n_owned] / g.integrals, 0.0)


def _heat_step(g: Elements, tau: float) -> LinearSolver:
    """Solver of a backward Euler step with lumped mass."""
    matrix = g.stiffness.copy()
    matrix.scale(tau)
    lumped = g.vector()
    lumped.array[: g.n_owned] = g.integrals
    lumped.petsc_vec.stateIncrease()
    matrix.setDiagonal(matrix.getDiagonal() + lumped.petsc_vec)
    return LinearSolver(matrix, "direct", dimension=3, prefix="fpcontrol_heat_")


def _hat_moments(g: Elements) -> tuple[Array, Array]:
    r"""Of each hat function, scaled to mass 1, the moments about its node. Collective.

    On a simplex :math:`\int\lambda_i\lambda_j = |T|\,d!/(d+2)!` and
    :math:`\int\lambda_i\lambda_j\lambda_k = |T|\,d!/(d+3)!` for three different ones, twice that
    for two.

    Returns:
        Mean of :math:`x - x_i`, ``(n_local, d)``, and of :math:`|x - x_i|^2`, ``(n_local,)``.
    """
    d = g.dimension
    x = g.mesh.geometry.x[g.mesh.geometry.dofmaps[0][: g.n_cells]][:, :, :d].transpose(1, 0, 2)
    volume = np.abs(np.linalg.det((x[1:] - x[0]).transpose(1, 0, 2))) / math.factorial(d)
    first, second = np.empty((d, d + 1, g.n_cells)), np.empty((d + 1, g.n_cells))
    for i in range(d + 1):
        edges = x - x[i]
        total = edges.sum(axis=0)
        squares = (total**2).sum(axis=-1) + (edges**2).sum(axis=(0, -1))
        first[:, i] = volume * total.T / ((d + 1) * (d + 2))
        second[i] = volume * squares / ((d + 1) * (d + 2) * (d + 3))
    result = []
    for part in (*first, second):
        v = g.vector()
        v.array[: g.n_owned] = g.assemble(part) / g.integrals
        v.scatter_forward()
        result.append(v.array.copy())
    return np.column_stack(result[:d]), result[d]


def _placed(g: Elements, points: Array, masses: Array, bandwidth: float) -> _Placed:
    """Points in the cells that hold them; reports those outside, or too narrow. Collective."""
    comm, mesh, d, n = g.comm, g.mesh, g.dimension, len(points)
    size = np.ptp(mesh.geometry.x, axis=0).max() if len(mesh.geometry.x) else 0.0
    border = 1e-10 * comm.allreduce(size, op=MPI.MAX)
    # All ranks have all points: each asks for a part of them.
    mine = slice(n * comm.rank // comm.size, n * (comm.rank + 1) // comm.size)
    found = locate(mesh, points[mine], max(bandwidth, border))
    nearest = np.concatenate(comm.allgather(found.distance))
    inside, kept = nearest <= border, np.isfinite(nearest)
    total = masses.sum()
    if not kept.any() or masses[kept].sum() <= 0:
        raise ValueError(
            f"None of the {n} points (or no mass) lies in the mesh or within one bandwidth, "
            f"{bandwidth:g}, of it; are points in the mesh's coordinates and unit?"
        )
    if g.comm.rank == 0 and not inside.all():
        moved, lost = kept & ~inside, ~kept
        warnings.warn(
            f"{(~inside).sum()} of {n} points lie outside the mesh: {moved.sum()} within one "
            f"bandwidth were moved to the nearest cell ({masses[moved].sum() / total:.2%} of the "
            f"mass), {lost.sum()} were left out ({masses[lost].sum() / total:.2%}).",
            stacklevel=3,
        )
    held = found.to_owners(masses[mine])
    barycentric = np.column_stack([1.0 - found.reference.sum(axis=1), found.reference])
    mean, square = _hat_moments(g)
    nodes = g.dofs[:, found.cells].T
    corners = mesh.geometry.x[mesh.geometry.dofmaps[0][found.cells]][:, :, :d]
    away = corners - np.einsum("ni,nik->nk", barycentric, corners)[:, None]
    squares = (away**2).sum(axis=2) + 2.0 * (away * mean[nodes]).sum(axis=2) + square[nodes]
    placed = _Placed(found.cells, barycentric, held, (barycentric * squares).sum(axis=1))
    _warn_of_width(g, placed, bandwidth)
    return placed


def _warn_of_width(g: Elements, placed: _Placed, bandwidth: float) -> None:
    """Warn of points whose hat functions are wider than asked. Collective."""
    wide = placed.spread > g.dimension * bandwidth**2 * (1.0 + 1e-9)
    count, n = g.comm.allreduce(int(wide.sum())), g.comm.allreduce(len(wide))
    if not count:
        return
    mass = g.sum(float(placed.masses[wide].sum())) / g.sum(float(placed.masses.sum()))
    variance = placed.spread[wide] / g.dimension
    widest = math.sqrt(g.comm.allreduce(variance.max(initial=0.0), op=MPI.MAX))
    average = math.sqrt(g.sum(float(variance.sum())) / count)
    if g.comm.rank == 0:
        warnings.warn(
            f"bandwidth = {bandwidth:g} is narrower than the cells can hold at {count} of {n} "
            f"points ({mass:.2%} of the mass): the density there has a standard deviation of "
            f"{average:.3g}, up to {widest:.3g}. Take smaller cells, or a bandwidth of at least "
            f"{widest:.3g}.",
            stacklevel=4,
        )


def check_density(name: str, density: fem.Function, g: Elements) -> None:
    """Refuse, on all ranks, what is not a density in the space of ``g``."""
    if not isinstance(density, fem.Function):
        raise ValueError(f"{name} = {density!r} is not a dolfinx Function; see fpc.density.")
    space = density.function_space
    if space.mesh.topology is not g.mesh.topology and space.mesh._cpp_object != g.mesh._cpp_object:
        raise ValueError(f"{name} lives on another mesh than the equation.")
    element = space.element.basix_element
    if element != g.space.element.basix_element or space.dofmap.index_map_bs != 1:
        raise ValueError(
            f"{name} is of degree {element.degree}, the equation of degree {g.degree}; "
            f"make it with degree={g.degree} or give the equation degree={element.degree}."
        )
    finite = g.comm.allreduce(bool(np.isfinite(density.x.array).all()), op=MPI.LAND)
    if not finite:
        raise ValueError(f"{name} has values that are not finite.")
