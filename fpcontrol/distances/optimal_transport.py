"""Optimal transport: on a line by quantiles, in more dimensions between atoms."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

from mpi4py import MPI

import basix
import numpy as np
from dolfinx import fem

from fpcontrol.discretization.elements import MAX_DEGREE, Elements
from fpcontrol.distances.comparison import EXTRA_DEGREE, degree_of, nonnegative
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.parallel.errors import collective_errors, reduced
from fpcontrol.typing import Array

# Relative accuracy of the integral of |F^-1 - G^-1|^p, or else an absolute accuracy of the
# quantiles, relative to the length of the domain: both are far below any error of discretization.
QUANTILE_RTOL, QUANTILE_ATOL = 1e-11, 1e-14


# -- transport in one dimension ----------------------------------------------------------------


def pieces_of(name: str, f: fem.Function) -> list[Array]:
    """Cells and polynomials of a density on intervals, from left to right. Collective.

    Returns:
        On rank 0 left ends and widths, ``(K,)``, and coefficients ``(K, degree + 1)`` of the
        density in powers of ``(x - left) / width``; on other ranks an empty list.
    """
    g = Elements(f.function_space, 2 * MAX_DEGREE)
    p = degree_of(f)
    nodes = np.linspace(0.0, 1.0, p + 1) if p else np.array([0.5])
    values = f.function_space.element.basix_element.tabulate(0, nodes[:, None])[0, :, :, 0]
    values = values @ f.x.array[g.dofs]
    ends = g.mesh.geometry.x[g.mesh.geometry.dofmaps[0][: g.n_cells], 0]
    backward = ends[:, 1] < ends[:, 0]
    values[:, backward] = values[::-1, backward]
    coefficients = np.linalg.solve(np.vander(nodes, increasing=True), values).T
    # Extrema inside a cell: roots of the slope, a polynomial of degree 2 at most (stable formula).
    slope = np.zeros((g.n_cells, 3))
    slope[:, :p] = coefficients[:, 1:] * np.arange(1, p + 1)
    c, b, a = slope.T
    with np.errstate(all="ignore"):
        half = -0.5 * (b + np.copysign(np.sqrt(np.maximum(b * b - 4.0 * a * c, 0.0)), b))
        inner = np.nan_to_num(np.clip([half / a, c / half], 0.0, 1.0))
    t = np.vstack([np.zeros(g.n_cells), np.ones(g.n_cells), inner])
    nonnegative(name, _horner(coefficients, t).ravel(), g.comm)
    parts = g.comm.gather((ends.min(axis=1, initial=np.inf), np.ptp(ends, axis=1), coefficients))
    if parts is None:
        return []
    left, width, coefficients = (np.concatenate(part) for part in zip(*parts, strict=True))
    order = np.argsort(left)
    return [left[order], width[order], coefficients[order]]


@dataclass(frozen=True)
class Distribution:
    """A distribution function scaled to 1, a polynomial in each of K cells.

    Attributes:
        left, width: Cells, ``(K,)``.
        below: Probability left of each cell, and 1, ``(K + 1,)``.
        inside: Probability in the cell up to t in [0, 1] in powers of t, ``(K, degree + 2)``.
    """

    left: Array
    width: Array
    below: Array
    inside: Array

    @classmethod
    def of(cls, pieces: list[Array]) -> "Distribution":
        """Distribution function of what ``pieces_of`` returned on rank 0."""
        left, width, coefficients = pieces
        integral = width[:, None] * coefficients / np.arange(1, coefficients.shape[1] + 1)
        # Negative round-off must not make the ends of the cells unordered.
        mass = np.maximum(integral.sum(axis=1), 0.0)
        below = np.concatenate([[0.0], np.cumsum(mass)])
        inside = np.column_stack([np.zeros(len(left)), integral])
        return cls(left, width, below / below[-1], inside / below[-1])

    def quantile(self, s: Array) -> Array:
        """Where the distribution function is ``s``, entrywise: Newton steps in a bracket."""
        cell = np.clip(np.searchsorted(self.below, s, side="right") - 1, 0, len(self.left) - 1)
        c = self.inside[cell]
        slope = c[..., 1:] * np.arange(1, c.shape[-1])
        target = s - self.below[cell]
        low, high = np.zeros_like(s), np.ones_like(s)
        # A cell without mass, met by round-off only, answers with its left end.
        t = np.clip(target / np.maximum(c.sum(axis=-1), 1e-300), 0.0, 1.0)
        for _ in range(60):  # bisection alone needs 52
            excess = _horner(c, t) - target
            low, high = np.where(excess <= 0.0, t, low), np.where(excess >= 0.0, t, high)
            with np.errstate(all="ignore"):
                new = t - excess / _horner(slope, t)
            new = np.where((new >= low) & (new <= high), new, 0.5 * (low + high))
            done = np.abs(new - t).max(initial=0.0) <= 1e-16
            t = new
            if done:
                break
        return self.left[cell] + self.width[cell] * t


def _horner(coefficients: Array, t: Array) -> Array:
    """Polynomials with coefficients ``(..., n)``, lowest first, at ``t``."""
    value = np.zeros_like(t)
    for k in range(coefficients.shape[-1] - 1, -1, -1):
        value = value * t + coefficients[..., k]
    return value


def quantile_cost(F: Distribution, G: Distribution, p: float) -> float:
    """Integral of ``|F^-1 - G^-1|**p`` over [0, 1], adaptively."""
    nodes, weights = np.polynomial.legendre.leggauss(6)

    def rule(low: Array, high: Array) -> Array:
        s = 0.5 * (low + high)[:, None] + 0.5 * np.outer(high - low, nodes)
        return 0.5 * (high - low) * (np.abs(F.quantile(s) - G.quantile(s)) ** p @ weights)

    ends = [end for f in (F, G) for end in (f.left[0], f.left[-1] + f.width[-1])]
    noise = QUANTILE_ATOL * (max(ends) - min(ends))
    edges = np.union1d(F.below, G.below)
    low, high = edges[:-1], edges[1:]
    whole, accepted, n = rule(low, high), 0.0, len(low)
    # 100 halvings reach any length in double precision; an end where a density vanishes, or a
    # change of sign for odd p, takes about 40 on its own interval.
    for _ in range(100):
        middle = 0.5 * (low + high)
        left, right = rule(low, middle), rule(middle, high)
        both, length = left + right, high - low
        total = accepted + both.sum()
        # The second term: a change of the quantiles by `noise`.
        allowed = QUANTILE_RTOL * total / n + length * noise * p * (
            (both / length) ** (1.0 - 1.0 / p) + noise ** (p - 1.0)
        )
        bad = np.abs(both - whole) > allowed
        accepted += both[~bad].sum()
        if not bad.any():
            return float(accepted)
        low, high = np.r_[low[bad], middle[bad]], np.r_[middle[bad], high[bad]]
        whole = np.r_[left[bad], right[bad]]
    raise ArithmeticError(f"The integral over quantiles did not converge on {len(low)} intervals.")


def real_array(name: str, values: Any) -> Array:
    """An argument as an array of numbers.

    Raises:
        ValueError: For what is none; a form's expression would be taken for an endless sequence.
    """
    plain = isinstance(values, Sequence | np.ndarray) or hasattr(values, "__array__")
    try:
        if plain and not any(isinstance(value, fem.Function) for value in values):
            return np.asarray(values, dtype=float)
    except (TypeError, ValueError):
        pass
    raise ValueError(
        f"{name} is a {type(values).__name__}; give an array of numbers. (Distances of densities "
        "take two dolfinx Functions.)"
    )


def probabilities(name: str, masses: Array | None, n: int) -> Array:
    """Masses ``(n,)``, equal unless given, scaled to sum 1."""
    masses = np.ones(n) if masses is None else real_array(name, masses)
    if masses.shape != (n,) or not np.isfinite(masses).all():
        raise ValueError(f"{name} of shape {masses.shape}: ({n},) finite numbers are needed.")
    if masses.min() < 0.0 or masses.sum() <= 0.0:
        raise ValueError(f"{name}: none may be negative and their sum must be positive.")
    return masses / masses.sum()


def discrete_cost(x: Array, y: Array, u: Array, v: Array, p: float) -> float:
    """``W_p**p`` between points on a line with probabilities ``u``, ``v``."""
    i, j = np.argsort(x), np.argsort(y)
    F, G = np.cumsum(u[i]), np.cumsum(v[j])
    edges = np.union1d(F, G)
    # The last sums are 1 up to round-off only, hence the minimum.
    x_s = x[i][np.minimum(np.searchsorted(F, edges), len(x) - 1)]
    y_s = y[j][np.minimum(np.searchsorted(G, edges), len(y) - 1)]
    return float(np.diff(edges, prepend=0.0) @ np.abs(x_s - y_s) ** p)


def weighted_points(name: str, f: fem.Function) -> tuple[Array, Array]:
    """Quadrature points ``(N, d)`` of all ranks and their probabilities ``(N,)``. Collective."""
    g = Elements(f.function_space, 2 * max(degree_of(f), 1) + EXTRA_DEGREE)
    rho = nonnegative(name, g.evaluate(f.x.array).ravel(), g.comm)
    parts = zip(*g.comm.allgather((g.points, rho * g.quadrature_weights)), strict=True)
    x, masses = (np.concatenate(part) for part in parts)
    return x, masses / masses.sum()


# -- transport between atoms -------------------------------------------------------------------


@dataclass(frozen=True)
class _Parts:
    """Cells of this rank cut into S simplices, with a density at Q quadrature points in each.

    Attributes:
        x: Quadrature points, ``(d, S, Q, n_cells)``.
        masses: Density times quadrature weight, ``(S, Q, n_cells)``.
        centres: Middles of the simplices, ``(d, S, n_cells)``.
        comm: The mesh's communicator.
    """

    x: Array
    masses: Array
    centres: Array
    comm: MPI.Comm


def wasserstein_of_atoms(
    a: fem.Function, b: fem.Function, p: float, atoms: int, mass: float
) -> tuple[float, float]:
    """Distance between clusters of both densities, and the bound. Collective."""
    comm = comm_of(a.function_space.mesh)
    with collective_errors(comm):
        try:
            import ot
        except ImportError as error:
            raise ImportError(
                "Wasserstein distances in 2-D and 3-D need POT: pip install 'fpcontrol[transport]'"
            ) from error
    q = 2 * math.ceil(p / 2)
    parts = [_cut("a", a, q, atoms), _cut("b", b, q, atoms)]
    labels = _boxes(parts, atoms)
    points, masses, bound = [], [], 0.0
    for part, label in zip(parts, labels, strict=True):
        x, m, cost = _clustered(part, label, q)
        points.append(x)
        masses.append(m / m.sum())
        bound += mass ** (1.0 / p) * (cost / mass) ** (1.0 / q)
    value = 0.0
    with collective_errors(comm):
        if comm.rank == 0:
            costs = np.linalg.norm(points[0][:, None] - points[1], axis=2) ** p
            scale = max(float(costs.max()), 1e-300)  # the solver's tolerances are absolute
            cost, log = ot.emd2(*masses, costs / scale, numItermax=10**8, log=True)
            if log["warning"] is not None:
                raise ArithmeticError(f"POT failed with {atoms} atoms: {log['warning']}")
            value = (mass * scale * max(float(cost), 0.0)) ** (1.0 / p)
    return comm.bcast(value), bound


def _cut(name: str, f: fem.Function, q: int, atoms: int) -> _Parts:
    """Simplices small enough for boxes, with quadrature exact for ``rho |x|**q``. Collective."""
    mesh, element = f.function_space.mesh, f.function_space.element.basix_element
    d, n_cells = mesh.topology.dim, mesh.topology.index_map(mesh.topology.dim).size_local
    # At least 8 parts a box in the mean: boxes are then not much wider than they must be.
    per_cell = 8 * atoms / mesh.topology.index_map(d).size_global
    corners = _subdivision(d, max(1, math.ceil(per_cell ** (1.0 / d))))
    points, weights = basix.make_quadrature(element.cell_type, element.degree + q)
    steps = corners[:, 1:] - corners[:, :1]
    reference = corners[:, :1] + np.einsum("sak,qa->sqk", steps, points)
    nodes = mesh.geometry.x[mesh.geometry.dofmaps[0][:n_cells]][:, :, :d]
    jacobian = (nodes[:, 1:] - nodes[:, :1]).transpose(2, 1, 0)  # dx_k / dxhat_a, (k, a, cells)
    det = np.abs(np.linalg.det(jacobian.transpose(2, 0, 1)))
    table = element.tabulate(0, reference.reshape(-1, d))[0, :, :, 0]
    values = table @ f.x.array[f.function_space.dofmap.list[:n_cells].T]
    values = nonnegative(name, values.ravel(), comm_of(mesh)).reshape(*reference.shape[:2], n_cells)
    origin = nodes[:, 0].T
    return _Parts(
        origin[:, None, None] + np.einsum("kac,sqa->ksqc", jacobian, reference),
        values * weights[:, None] * (det / len(corners)),
        origin[:, None] + np.einsum("kac,sa->ksc", jacobian, corners.mean(axis=1)),
        comm_of(mesh),
    )


def _subdivision(d: int, k: int) -> Array:
    """Corners ``(k**d, d + 1, d)`` of equal simplices that fill the reference simplex.

    The simplices ``1 >= y_1 >= ... >= y_d >= 0`` of Freudenthal and Kuhn tile each other; ``x_i =
    y_i - y_(i+1)`` takes them to the reference simplex.
    """
    found = []
    for origin in product(range(k), repeat=d):
        for path in permutations(range(d)):
            corners = np.vstack([origin, np.array(origin) + np.cumsum(np.eye(d)[list(path)], 0)])
            if (np.diff(corners, axis=1) <= 0).all():
                found.append(corners / k)
    y = np.array(found)
    return y - np.concatenate([y[:, :, 1:], np.zeros_like(y[:, :, :1])], axis=2)


def _boxes(parts: list[_Parts], atoms: int) -> list[Array]:
    """For each density the number of the box that holds each part, ``(S, n_cells)``. Collective."""
    comm = parts[0].comm
    used = [part.masses.sum(axis=1) > 0.0 for part in parts]
    centres = [part.centres[:, use] for part, use in zip(parts, used, strict=True)]
    both = np.hstack(centres)
    lower = reduced(comm, both.min(axis=1, initial=np.inf), MPI.MIN)
    extent = reduced(comm, both.max(axis=1, initial=-np.inf), MPI.MAX) - lower
    # As many boxes as there may be, were all of them full; then wider until they are few enough.
    side = max(float(np.prod(extent)) / atoms, 1e-300) ** (1.0 / len(extent))
    side = max(side / 2.0, 1e-6 * float(extent.max()), 1e-300)
    while True:
        shape = (extent / side).astype(np.int64) + 1
        places = [((c.T - lower) / side).astype(np.int64) for c in centres]
        numbers = [np.ravel_multi_index(tuple(place.T), shape) for place in places]
        sets = comm.allgather([np.unique(number) for number in numbers])
        found = [len(np.unique(np.concatenate(rows))) for rows in zip(*sets, strict=True)]
        if max(found) <= atoms:
            break
        side *= 1.05
    labels = [np.full(use.shape, -1) for use in used]
    for label, use, number in zip(labels, used, numbers, strict=True):
        label[use] = number
    return labels


def _clustered(part: _Parts, label: Array, q: int) -> tuple[Array, Array, float]:
    """Centres of mass ``(n, d)`` and masses ``(n,)`` of boxes, and the cost. Collective."""
    used = label >= 0
    known = part.comm.allgather(np.unique(label[used]))
    boxes = np.unique(np.concatenate(known))
    index = np.searchsorted(boxes, label[used])

    def gathered(values: Array) -> Array:
        sums = np.bincount(index, values[used], minlength=len(boxes))
        return reduced(part.comm, sums.astype(float))  # a rank without mass counts in integers

    masses = gathered(part.masses.sum(axis=1))
    moments = [gathered((part.masses * x).sum(axis=1)) for x in part.x]
    centres = np.column_stack(moments) / masses[:, None]
    middle = centres[np.searchsorted(boxes, np.where(used, label, boxes[0]))]  # (S, cells, d)
    square = ((part.x - middle.transpose(2, 0, 1)[:, :, None]) ** 2).sum(axis=0)
    cost = float((part.masses * square ** (q // 2)).sum())
    return centres, masses, part.comm.allreduce(cost)
