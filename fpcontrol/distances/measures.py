r"""Distances between densities: :math:`L^2`, :math:`H^{-1}`, divergences, optimal transport.

Densities are dolfinx Functions in scalar Lagrange spaces (degree up to 3, discontinuous ones too)
on one mesh, or on two meshes of one domain spread over the same ranks in any way. On one mesh the
degrees may differ. Between two meshes the integrals run over the cells of the mesh that has more
of them, with the other density evaluated at the quadrature points; its kinks inside those cells
leave a quadrature error.

Two meshes of a curved domain have different polygons as boundaries. A point outside the other mesh
takes the value in the nearest cell there if it is within ``tolerance`` of it, a tenth of the
largest cell diameter of both meshes unless given; if any point is farther off, or any vertex of
the coarser mesh is farther than that from the finer one, the call is refused on all ranks.
"""

import math

import numpy as np
from dolfinx import fem
from scipy.special import xlog1py

from fpcontrol.discretization.neumann import Parts, potential
from fpcontrol.discretization.periodic import refuse_periodic
from fpcontrol.distances.comparison import (
    EXTRA_DEGREE,
    at_common_points,
    check_pair,
    equal_mass,
    equal_masses_of_parts,
    nonnegative,
)
from fpcontrol.distances.optimal_transport import (
    Distribution,
    discrete_cost,
    pieces_of,
    probabilities,
    quantile_cost,
    real_array,
    wasserstein_of_atoms,
    weighted_points,
)
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.parallel.errors import collective_errors, reduced
from fpcontrol.typing import Array


def l2(
    a: fem.Function,
    b: fem.Function,
    *,
    quadrature_degree: int | None = None,
    tolerance: float | None = None,
) -> float:
    r""":math:`\|a - b\|_{L^2} = (\int (a - b)^2\,dx)^{1/2}`. Collective.

    Exact on one mesh.

    Args:
        a: First density.
        b: Second density.
        quadrature_degree: Degree of exactness; twice the higher degree of both unless given, and
            ``EXTRA_DEGREE`` more between two meshes.
        tolerance: Greatest distance of two meshes' boundaries, in the mesh's unit.

    Raises:
        ValueError: On all ranks, for functions that cannot be compared (see the module).
    """
    g, a_q, b_q = at_common_points(a, b, 0, quadrature_degree, tolerance)
    return math.sqrt(g.sum(float(g.quadrature_weights @ (a_q - b_q) ** 2)))


def h_minus_1(
    a: fem.Function,
    b: fem.Function,
    *,
    quadrature_degree: int | None = None,
    tolerance: float | None = None,
) -> float:
    r""":math:`\|a - b\|_{H^{-1}} = \|\nabla\phi\|_{L^2}`, the dual norm of :math:`|\cdot|_{H^1}`.

    With :math:`-\Delta\phi = a - b`, :math:`\partial_n\phi = 0`,

    .. math:: \|a - b\|_{H^{-1}} = \Bigl(\int (a - b)\,\phi\,dx\Bigr)^{1/2} .

    The potential is solved for in the continuous space of the higher degree p of both, which gives
    the supremum over that space: a lower bound, below the norm by a relative :math:`O(h^{2p})`
    where the potential is smooth. What round-off leaves of the mean of ``a - b`` is taken out.
    Collective.

    Args:
        a: First density.
        b: Second density, of the same mass.
        quadrature_degree: As for ``l2``.
        tolerance: As for ``l2``.

    Raises:
        ValueError: On all ranks, if the masses differ by more than a relative 1e-8, or for
            functions that cannot be compared (see the module).
        UnequalMasses: On all ranks, if the mesh has parts that do not touch and their masses differ
            by more than a relative 1e-8; a ``ValueError`` and an ``ArithmeticError``.
        ArithmeticError: On all ranks, if the solver fails.

    References:
        R. Peyre, Comparison between W2 distance and H^-1 norm, and localization of Wasserstein
        distance, ESAIM: COCV 24 (2018).
    """
    g, a_q, b_q = at_common_points(a, b, 0, quadrature_degree, tolerance)
    equal_mass(a, b)
    equal_masses_of_parts(a, b)
    cells = (g.quadrature_weights * (a_q - b_q)).reshape(g.n_points, g.n_cells)
    parts, dual = Parts.of(g), g.assemble(g.basis_values.T @ cells)
    phi = potential(g, dual, parts)
    return math.sqrt(max(g.inner(parts.without_mean(dual), phi), 0.0))


def kl(
    a: fem.Function,
    b: fem.Function,
    *,
    quadrature_degree: int | None = None,
    tolerance: float | None = None,
) -> float:
    r"""Kullback-Leibler divergence :math:`\int a\log(a/b)\,dx` of ``a`` from ``b``. Collective.

    Computed as :math:`\int (a\log(a/b) - a + b)\,dx`, which is the same for equal masses, never
    negative, and without cancellation where ``a`` is close to ``b``. Plus infinity if ``b`` is
    zero at a quadrature point where ``a`` is positive.

    Args:
        a: First density.
        b: Second density.
        quadrature_degree: Degree of exactness; ``EXTRA_DEGREE`` more than twice the higher degree
            of both unless given.
        tolerance: As for ``l2``.

    Raises:
        ValueError: On all ranks, if one is negative at a quadrature point, or for functions that
            cannot be compared (see the module).

    References:
        S. Kullback, R. A. Leibler, On information and sufficiency, Ann. Math. Statist. 22 (1951).
    """
    g, a_q, b_q = at_common_points(a, b, EXTRA_DEGREE, quadrature_degree, tolerance)
    a_q, b_q = nonnegative("a", a_q, g.comm), nonnegative("b", b_q, g.comm)
    excess = (a_q - b_q) / np.where(b_q > 0.0, b_q, 1.0)
    density = np.where(b_q > 0.0, b_q * (xlog1py(1.0 + excess, excess) - excess), _infinite(a_q))
    return g.sum(float(density @ g.quadrature_weights))


def chi_square(
    a: fem.Function,
    b: fem.Function,
    *,
    quadrature_degree: int | None = None,
    tolerance: float | None = None,
) -> float:
    r"""Chi-square divergence :math:`\int (a - b)^2/b\,dx` of ``a`` from ``b``. Collective.

    Plus infinity if ``b`` is zero at a quadrature point where ``a`` is not.

    Args:
        a: First density; it may have negative values.
        b: Second density.
        quadrature_degree: As for ``kl``.
        tolerance: As for ``l2``.

    Raises:
        ValueError: On all ranks, if ``b`` is negative at a quadrature point, or for functions that
            cannot be compared (see the module).
    """
    g, a_q, b_q = at_common_points(a, b, EXTRA_DEGREE, quadrature_degree, tolerance)
    b_q = nonnegative("b", b_q, g.comm)
    ratio = (a_q - b_q) ** 2 / np.where(b_q > 0.0, b_q, 1.0)
    density = np.where(b_q > 0.0, ratio, _infinite(a_q))
    return g.sum(float(density @ g.quadrature_weights))


def total_variation(
    a: fem.Function,
    b: fem.Function,
    *,
    quadrature_degree: int | None = None,
    tolerance: float | None = None,
) -> float:
    r"""Total variation distance :math:`\tfrac12\int |a - b|\,dx`, at most the mass. Collective.

    Cells in which ``a - b`` changes sign leave a quadrature error, in total :math:`O(h^2)`.

    Args:
        a: First density; negative values are allowed here.
        b: Second density, and here.
        quadrature_degree: As for ``kl``.
        tolerance: As for ``l2``.

    Raises:
        ValueError: On all ranks, for functions that cannot be compared (see the module).
    """
    g, a_q, b_q = at_common_points(a, b, EXTRA_DEGREE, quadrature_degree, tolerance)
    return 0.5 * g.sum(float(g.quadrature_weights @ np.abs(a_q - b_q)))


def wasserstein(a: fem.Function, b: fem.Function, p: float = 2.0, *, atoms: int = 1000) -> float:
    r"""Wasserstein distance :math:`W_p`. Collective.

    .. math:: W_p(a, b)^p = \min_\pi \int |x - y|^p\,d\pi(x, y)

    over the plans that carry the measure ``a dx`` to ``b dx`` (of any equal masses; there is no
    normalization). See ``wasserstein_with_bound`` for how, and for the error in 2-D and 3-D.

    Args:
        a: First density.
        b: Second density, of the same mass, on any mesh of the same dimension.
        p: Exponent, at least 1.
        atoms: Greatest number of points that stand for each density in 2-D and 3-D.

    Raises:
        ValueError: On all ranks, if the masses differ by more than a relative 1e-8, if a density
            is negative or ``p`` or ``atoms`` is not allowed.
        ImportError: On all ranks, in 2-D and 3-D, if POT is not installed.
        ArithmeticError: On all ranks, if the solver fails.
    """
    return wasserstein_with_bound(a, b, p, atoms=atoms)[0]


def wasserstein_with_bound(
    a: fem.Function, b: fem.Function, p: float = 2.0, *, atoms: int = 1000
) -> tuple[float, float]:
    r"""Wasserstein distance :math:`W_p`, and a bound on the error of reducing to atoms. Collective.

    In 1-D, with the quantile functions of the exact distribution functions, which are polynomials
    in each cell,

    .. math:: W_p^p = \int_0^m |F_a^{-1}(s) - F_b^{-1}(s)|^p\,ds ,

    by adaptive Gauss quadrature between the values of both at the ends of cells, on rank 0, to a
    relative error of 1e-11 (or quantiles to 1e-14 of the domain's length). The bound is zero.
    (Masses summed in double precision: 1e-16 of the mass moved across an empty gap of length L
    leaves :math:`10^{-16/p} L`.)

    In 2-D and 3-D each density is cut into cells (subdivided where the mesh is coarse), whose
    masses are gathered at the centres of mass of boxes of one regular grid, and the transport
    between these atoms is solved exactly [2] on rank 0, in 0.2 to 3 s for 1000 atoms. To carry
    the mass of each box to its centre :math:`c` is a plan, so by the triangle inequality the value
    is off by at most

    .. math:: r_a + r_b,\qquad
        r = m^{1/p}\,\Bigl(\tfrac1m\sum_\mathrm{boxes}\int |x - c|^q\rho\,dx\Bigr)^{1/q},\qquad
        q = 2\lceil p/2\rceil ,

    where the integrals of polynomials are exact. The error is usually much smaller.

    Args:
        a: First density.
        b: Second density, of the same mass, on any mesh of the same dimension.
        p: Exponent, at least 1.
        atoms: Greatest number of points that stand for each density in 2-D and 3-D.

    Returns:
        The distance and the bound on its error, in the mesh's unit (times mass**(1/p)).

    Raises:
        ValueError, ImportError, ArithmeticError: As ``wasserstein``. Negative values are looked
            for throughout the cells in 1-D, and at the quadrature points in 2-D and 3-D.

    References:
        [1] C. Villani, Topics in Optimal Transportation, AMS (2003), Theorem 2.18.
        [2] N. Bonneel et al., Displacement interpolation using Lagrangian mass transport, ACM
        Trans. Graph. 30 (2011), as in POT: R. Flamary et al., J. Mach. Learn. Res. 22 (2021).
    """
    if not (np.isfinite(p) and p >= 1.0):
        raise ValueError(f"p = {p!r} must be a finite number >= 1.")
    if atoms < 1:
        raise ValueError(f"atoms = {atoms!r} must be a whole number >= 1.")
    check_pair(a, b)
    _check_flat(a, b)
    mass = equal_mass(a, b)
    if a.function_space.mesh.topology.dim > 1:
        return wasserstein_of_atoms(a, b, p, int(atoms), mass)
    comm = comm_of(a.function_space.mesh)
    pieces = [pieces_of("a", a), pieces_of("b", b)]
    value = 0.0
    with collective_errors(comm):
        if comm.rank == 0:
            F, G = map(Distribution.of, pieces)
            value = (mass * quantile_cost(F, G, p)) ** (1.0 / p)
    return comm.bcast(value), 0.0


def sliced_wasserstein(
    x: Array | fem.Function,
    y: Array | fem.Function,
    p: float = 2.0,
    *,
    projections: int = 200,
    seed: int = 0,
    x_masses: Array | None = None,
    y_masses: Array | None = None,
) -> float:
    r"""Sliced Wasserstein distance between two weighted samples, or between two densities.

    .. math:: SW_p(x, y)^p = \int_{S^{d-1}} W_p(\theta\cdot x, \theta\cdot y)^p\,d\theta

    over the uniform probability on the sphere, replaced by the mean over random directions; each
    one-dimensional distance is exact, by quantiles. In 1-D it is :math:`W_p` itself. A shift by
    ``c`` has the value :math:`|c|/\sqrt d` for p = 2, and the relative standard deviation is of
    order ``projections**-0.5``.

    Of samples it is not collective. Of densities it is: any equal masses m are allowed, as in
    ``wasserstein``, and the value has the factor :math:`m^{1/p}`. In 2-D and 3-D each cell's mass
    stands at its quadrature points, which moves it by less than the cell's diameter, and the value
    by less than twice the largest; every rank holds the points of all, and takes its share of the
    directions.

    Args:
        x: First sample, ``(N, d)``, all of it on the rank that calls; or a density.
        y: Second sample, ``(M, d)``; or a density, on any mesh of the same dimension.
        p: Exponent, at least 1.
        projections: Number of directions.
        seed: Of the directions: the same seed, the same directions.
        x_masses: Masses of the sample ``x``, ``(N,)``, not negative, scaled to sum 1; equal unless
            given.
        y_masses: Masses of the sample ``y``, ``(M,)``.

    Raises:
        ValueError: On this rank, for other shapes or values than these; for densities on all
            ranks, as in ``wasserstein``.

    References:
        N. Bonneel, J. Rabin, G. Peyré, H. Pfister, Sliced and Radon Wasserstein barycenters of
        measures, J. Math. Imaging Vis. 51 (2015).
    """
    if not (np.isfinite(p) and p >= 1.0) or projections < 1:
        raise ValueError(f"p = {p!r} must be finite and >= 1, projections = {projections!r} >= 1.")
    if isinstance(x, fem.Function) and isinstance(y, fem.Function):
        if not (x_masses is None and y_masses is None):
            raise ValueError("x_masses and y_masses belong to samples; densities have their own.")
        return _sliced_densities(x, y, p, projections, seed)
    x, y = real_array("x", x), real_array("y", y)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or 0 in (x.size, y.size):
        raise ValueError(f"x and y have shapes {x.shape}, {y.shape}; (N, d), (M, d) are needed.")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("x and y must be finite.")
    u = probabilities("x_masses", x_masses, len(x))
    v = probabilities("y_masses", y_masses, len(y))
    if x.shape[1] == 1:
        return discrete_cost(x[:, 0], y[:, 0], u, v, p) ** (1.0 / p)
    directions = _directions(x.shape[1], projections, seed)
    costs = [discrete_cost(x @ theta, y @ theta, u, v, p) for theta in directions]
    return float(np.mean(costs)) ** (1.0 / p)


def _sliced_densities(
    a: fem.Function, b: fem.Function, p: float, projections: int, seed: int
) -> float:
    if a.function_space.mesh.topology.dim == 1:
        return wasserstein(a, b, p)
    check_pair(a, b)
    _check_flat(a, b)
    mass = equal_mass(a, b)
    (x, u), (y, v) = weighted_points("a", a), weighted_points("b", b)
    comm, costs = comm_of(a.function_space.mesh), np.zeros(projections)
    directions = _directions(x.shape[1], projections, seed)
    for k in range(comm.rank, projections, comm.size):
        costs[k] = discrete_cost(x @ directions[k], y @ directions[k], u, v, p)
    return (mass * float(np.mean(reduced(comm, costs)))) ** (1.0 / p)


def _check_flat(a: fem.Function, b: fem.Function) -> None:
    for f in (a, b):
        refuse_periodic(
            f.function_space.mesh,
            "A Wasserstein distance",
            "the shortest way may lead round. Take l2, kl or h_minus_1.",
        )


def _directions(d: int, projections: int, seed: int) -> Array:
    """Random unit vectors, ``(projections, d)``."""
    directions = np.random.default_rng(seed).standard_normal((projections, d))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def _infinite(a: Array) -> Array:
    return np.where(a != 0.0, np.inf, 0.0)
