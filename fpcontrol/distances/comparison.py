"""Two densities at common quadrature points, with their masses and signs checked."""

import math

from mpi4py import MPI

import basix
import numpy as np
import scipy
from dolfinx import fem

from fpcontrol.discretization.elements import MAX_DEGREE, Elements, lagrange
from fpcontrol.discretization.locate import locate
from fpcontrol.discretization.neumann import Parts
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.typing import Array

# Quadrature degrees beyond twice that of the densities where the integrand is no polynomial: the
# error for smooth positive densities is then of higher order than that of the densities.
EXTRA_DEGREE = 4
# Masses are equal up to what iterative solvers leave behind.
MASS_RTOL = 1e-8
# Negative values down to this fraction of the largest one are round-off and count as zero.
ROUND_OFF = 1e-12


def check_pair(a: fem.Function, b: fem.Function) -> None:
    """Refuse, on all ranks, what cannot be compared. Collective."""
    for name, f in (("a", a), ("b", b)):
        if not isinstance(f, fem.Function):
            raise ValueError(f"{name} = {f!r} is not a dolfinx Function; see fpc.density.")
    comm = comm_of(a.function_space.mesh)
    if MPI.Comm.Compare(comm, comm_of(b.function_space.mesh)) not in (MPI.IDENT, MPI.CONGRUENT):
        raise ValueError("a and b live on meshes of different communicators.")
    with collective_errors(comm):
        dims = [f.function_space.mesh.topology.dim for f in (a, b)]
        if dims[0] != dims[1]:
            raise ValueError(f"a and b live on meshes of different dimensions, {dims}.")
        for name, f in (("a", a), ("b", b)):
            space = f.function_space
            try:
                element = space.element.basix_element
                lagrangian = element.family == basix.ElementFamily.P and not space.value_shape
            except RuntimeError:  # a mixed space
                lagrangian = False
            if not lagrangian or element.degree > MAX_DEGREE:
                raise ValueError(
                    f"{name} must be in a scalar Lagrange space of degree up to {MAX_DEGREE}."
                )
            if not np.isfinite(f.x.array).all():
                raise ValueError(f"{name} has values that are not finite.")
    for f in (a, b):
        lagrange(f.function_space.mesh, 1)  # refuses other cells than straight simplices


def degree_of(f: fem.Function) -> int:
    """Polynomial degree."""
    return int(f.function_space.element.basix_element.degree)


def equal_mass(a: fem.Function, b: fem.Function) -> float:
    """The common mass of both. Collective."""
    # Twice the degree, which the class proposes, would be nothing at all for degree zero.
    mass = [Elements(f.function_space, 2 * MAX_DEGREE).integral(f.x.array) for f in (a, b)]
    if not math.isclose(*mass, rel_tol=MASS_RTOL):
        raise ValueError(
            f"a and b have masses {mass[0]:.12g} and {mass[1]:.12g}; they must be equal. "
            "fpc.density.normalized scales to mass 1."
        )
    return mass[0]


def equal_masses_of_parts(a: fem.Function, b: fem.Function) -> None:
    """Refuse masses that differ on parts of a mesh that do not touch. Collective.

    Parts of two meshes are those of each other whose boxes and centres are nearest.

    Raises:
        UnequalMasses: On all ranks, with the masses of the parts.
        ValueError: On all ranks, if two meshes are in different numbers of parts.
    """
    (mine, one), (theirs, two) = _masses_of_parts(a), _masses_of_parts(b)
    if len(one) != len(two):
        raise ValueError(
            f"a and b live on meshes in {len(one)} and {len(two)} parts that do not touch: are "
            "both meshes of the same domain?"
        )
    places = [np.hstack([parts.middles, parts.lower, parts.upper]) for parts in (mine, theirs)]
    apart = np.abs(places[0][:, None] - places[1]).sum(axis=2)
    mine.check_masses(
        MASS_RTOL, {"a": one, "b": two[scipy.optimize.linear_sum_assignment(apart)[1]]}
    )


def _masses_of_parts(f: fem.Function) -> tuple[Parts, Array]:
    g = Elements(lagrange(f.function_space.mesh, 1), 2 * MAX_DEGREE)
    values = Elements(f.function_space, 2 * MAX_DEGREE).evaluate(f.x.array)
    cells = g.quadrature_weights.reshape(values.shape) * values
    parts = Parts.of(g)
    return parts, parts.sums(g.assemble(g.basis_values.T @ cells))


def at_common_points(
    a: fem.Function, b: fem.Function, extra: int, degree: int | None, tolerance: float | None
) -> tuple[Elements, Array, Array]:
    """A discretization and both densities at its quadrature points, ``(N,)``. Collective."""
    check_pair(a, b)
    if tolerance is not None and not (np.isfinite(tolerance) and tolerance >= 0.0):
        raise ValueError(f"tolerance = {tolerance!r} must be a length, zero or positive.")
    meshes = [f.function_space.mesh for f in (a, b)]
    one_mesh = meshes[0]._cpp_object == meshes[1]._cpp_object
    if degree is None:
        degree = 2 * max(degree_of(a), degree_of(b), 1) + (extra if one_mesh else EXTRA_DEGREE)
    sizes = [mesh.topology.index_map(mesh.topology.dim).size_global for mesh in meshes]
    host = meshes[0] if one_mesh or sizes[0] >= sizes[1] else meshes[1]
    g = Elements(lagrange(host, max(degree_of(a), degree_of(b), 1)), degree)
    values = []
    for name, f, mesh in (("a", a, meshes[0]), ("b", b, meshes[1])):
        if mesh is host or one_mesh:
            values.append(Elements(f.function_space, degree).evaluate(f.x.array).ravel())
        else:
            values.append(_evaluated_between(g, name, f, tolerance))
    return g, values[0], values[1]


def _evaluated_between(g: Elements, name: str, f: fem.Function, tolerance: float | None) -> Array:
    """A function of another mesh at the quadrature points of ``g``, ``(N,)``. Collective."""
    other = Elements(f.function_space, g.quadrature_degree)
    if tolerance is None:
        diameter = max(
            h.mesh.h(h.dimension, np.arange(h.n_cells, dtype=np.int32)).max(initial=0.0)
            for h in (g, other)
        )
        tolerance = 0.1 * g.comm.allreduce(float(diameter), op=MPI.MAX)
    values = _values_at(other, f.x.array, g.points, tolerance)
    vertices = other.mesh.geometry.x[: other.mesh.geometry.index_map().size_local, : g.dimension]
    back = _values_at(g, np.zeros(g.n_local), vertices, tolerance)
    for what, found in (
        (f"quadrature points of the finer mesh lie outside the mesh of {name}", values),
        (f"vertices of the mesh of {name} lie outside the finer mesh", back),
    ):
        lost, n = g.comm.allreduce(int(np.isnan(found).sum())), g.comm.allreduce(len(found))
        if lost:
            raise ValueError(
                f"{lost} of {n} {what} by more than {tolerance:.3g}: are both meshes of the same "
                "domain? If only their boundaries differ, give a larger tolerance (a length)."
            )
    return values


def _values_at(g: Elements, u: Array, x: Array, reach: float) -> Array:
    """Values of a local array at points ``(N, d)`` in cells of any rank. Collective.

    Outside the mesh the value is that of the nearest cell, at the point whose barycentric
    coordinates are cut off at zero; farther than ``reach`` it is not a number.
    """
    found = locate(g.mesh, x, reach)
    table = g.space.element.basix_element.tabulate(0, found.reference)[0, :, :, 0]
    return found.to_askers(np.einsum("ni,in->n", table, u[g.dofs[:, found.cells]]))


def nonnegative(name: str, values: Array, comm: MPI.Comm) -> Array:
    """Values with negative round-off set to zero; refuses more than that. Collective."""
    lowest = comm.allreduce(float(values.min(initial=np.inf)), op=MPI.MIN)
    highest = comm.allreduce(float(values.max(initial=-np.inf)), op=MPI.MAX)
    if lowest < -ROUND_OFF * max(highest, 0.0):
        raise ValueError(
            f"{name} is negative: {lowest:.3g} (its maximum is {highest:.3g}). Clip its nodal "
            "values and use fpc.density.normalized, add a floor (fpc.density.with_floor), refine "
            "the mesh, or use degree 1."
        )
    return np.maximum(values, 0.0)
