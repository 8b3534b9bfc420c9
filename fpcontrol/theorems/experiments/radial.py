r"""Why drift differences must be bounded in two dimensions: a counterexample on the unit disc.

With D = 1, v = 0 and density 1, the drifts

.. math:: v_l = -A e_r\ \text{where}\ r < l,\ \text{until}\ T = 2l/A,\qquad A = l^{-5/2},

vanish in L2 of space and time, :math:`\|v_l\| = \sqrt{2\pi A l^3}`. Each gathers the mass of the
disc of radius l in a core of radius D/A, whose density in equilibrium, :math:`c e^{-Ar/D}`, has the
L2 norm

.. math:: \sqrt{\pi/8}\,A l^2/D = \sqrt{\pi/8}\;l^{-1/2} \to \infty .

Mass that diffuses in from outside adds to it, see ``gathered``.

Only L1 follows from the entropy estimate (E4): :math:`\|w\|_{L^1} \le \sqrt{\pi/(2D)}\,\|v_l\|`.
With one bound for all A the L2 error vanishes, too (control). Derived here.

Everything is radial, and the radius itself obeys a Fokker-Planck equation on [0, 1],

.. math:: \partial_t p = \partial_r(D\partial_r p - (v_r + D/r)\,p),\qquad p = 2r\rho,

which is solved by the package's finite elements on a graded mesh with a node at l, and by finite
volumes in the disc (exponential fitting, another integrator of time): an independent figure.
"""

import math
from collections.abc import Sequence
from typing import Any

from mpi4py import MPI

import numpy as np
from dolfinx.mesh import Mesh
from scipy import integrate, sparse

from fpcontrol import SDIRK2
from fpcontrol.discretization.elements import Elements
from fpcontrol.drift import Steady
from fpcontrol.mesh import interval
from fpcontrol.parallel.errors import reduced
from fpcontrol.theorems.framework import Figure, Grid, Study, measure_each
from fpcontrol.theorems.framework.resolution import solve
from fpcontrol.typing import Array

D = 1.0


def graded(x: Array, radius: float, speed: float) -> Array:
    """Radii for ``x`` in [0, 1]: half of them within ``radius``, finest at its core and edge."""
    core, edge = 0.5 * D / speed, math.sqrt(D * radius / speed)

    def spread(s: Array, length: float, smallest: float) -> Array:
        return smallest * np.expm1(s * math.log1p(length / smallest))

    inside = spread(np.minimum(2.0 * x, 1.0), radius, core)
    return inside + spread(np.maximum(2.0 * x - 1.0, 0.0), 1.0 - radius, edge)


def radial_mesh(comm: MPI.Comm, cells: int, radius: float, speed: float) -> Mesh:
    """Graded mesh of [0, 1], an even number of cells. Collective."""
    mesh = interval(comm, cells)
    mesh.geometry.x[:, 0] = graded(mesh.geometry.x[:, 0], radius, speed)
    return mesh


def errors_of_elements(comm: MPI.Comm, radius: float, speed: float, grid: Grid) -> Array:
    """Largest L2 and L1 distances on the disc to the density 1, finite elements. Collective."""
    mesh = radial_mesh(comm, grid.cells, radius, speed)
    drift = Steady(lambda r: D / r - speed * (r < radius))
    t1, sigma = 2.0 * radius / speed, math.sqrt(2.0 * D)
    degree = 2 * grid.degree + 2  # p/r is no polynomial in the first cell
    options: dict[str, Any] = {"scheme": SDIRK2(), "quadrature_degree": degree}
    run = solve(mesh, drift, sigma, lambda x: 2.0 * x[0], t1, grid, **options)
    g = Elements(run.space, degree)
    r = g.points[:, 0]
    w = np.array([g.evaluate(u).ravel() for u in run.levels]) / (2.0 * r) - 1.0
    area = 2.0 * np.pi * r * g.quadrature_weights
    squares, absolute = reduced(comm, np.array([w**2 @ area, np.abs(w) @ area]))
    return np.array([np.sqrt(squares.max()), absolute.max()])


def error_of_volumes(radius: float, speed: float, cells: int) -> float:
    """The largest L2 distance by finite volumes in the disc.

    First order in the cells while they are longer than D/A away from the core, where exponential
    fitting is upwinding: to be extrapolated. It keeps the equilibrium of each face; the method of
    lines is integrated with SciPy's backward differentiation formulas.
    """
    faces = graded(np.linspace(0.0, 1.0, cells + 1), radius, speed)
    volumes = np.pi * np.diff(faces**2)
    # Between nodes in the middle of cells, at faces inside the disc; the drift jumps at a face.
    nodes = 0.5 * (faces[1:] + faces[:-1])
    h, r = np.diff(nodes), faces[1:-1]
    inside = np.clip(radius - nodes[:-1], 0.0, h)  # length of each link that the drift acts on
    z = -speed * inside / D
    weight = 2.0 * np.pi * r * D / h
    left, right = weight * _bernoulli(-z), weight * _bernoulli(z)  # flux = left rho_i - right rho_j
    n = cells
    rates = sparse.diags_array(
        [-np.append(left, 0.0) - np.append(0.0, right), right, left],
        offsets=[0, 1, -1],
        shape=(n, n),
    )
    matrix = sparse.csc_array(sparse.diags_array(1.0 / volumes) @ rates)
    t1 = 2.0 * radius / speed
    solution = integrate.solve_ivp(
        lambda t, u: matrix @ u,
        (0.0, t1),
        np.ones(n),
        method="BDF",
        jac=matrix,
        rtol=1e-6,
        atol=1e-8,
    )
    return math.sqrt(((solution.y.T - 1.0) ** 2 @ volumes).max())


def _bernoulli(z: Array) -> Array:
    """``z / (exp(z) - 1)``."""
    small = np.abs(z) < 1e-8
    safe = np.where(small, 1.0, z)
    return np.where(small, 1.0 - 0.5 * z, safe / np.expm1(safe))


def gathered(z: float) -> float:
    r"""The largest L2 error over the core's, for :math:`z = Al/D`, up to :math:`O(z^{-3/2})`.

    The L2 norm goes with the mass in the core. To that of the disc comes what enters from outside
    early enough to arrive: in a time t, per length of the edge,
    :math:`2\sqrt{Dt/\pi} + Dt/(2l)` where all is swept away, with the second term for the
    curvature, less D/A since the drift does not take away at once. To arrive takes
    :math:`l/A + (D/A^2)\log z`, for :math:`\dot r = -A + D/r` down to :math:`r\sim D/A`, which
    leaves :math:`t = (l/A)(1 - z^{-1}\log z)`. Over :math:`\pi l^2`:

    .. math:: 1 + \frac4{\sqrt{\pi z}}\sqrt{1 - \frac{\log z}z} + \frac1z - \frac2z .
    """
    return 1.0 + 4.0 / math.sqrt(math.pi * z) * math.sqrt(1.0 - math.log(z) / z) - 1.0 / z


def unbounded_differences(
    comm: MPI.Comm,
    *,
    radii: Sequence[float] = (0.3, 0.1, 0.03, 0.01, 0.003),
    exponent: float = 2.5,
    grid: Grid | None = None,
) -> Study:
    r"""Drifts that vanish in L2, and densities that part without end.

    Args:
        radii: Values of l, descending; small enough for Al/D to be 5 or more.
        exponent: Of the speed :math:`A = l^{-\mathrm{exponent}}`, between 2 and 3: above 2 the
            density's error grows, below 3 the drift vanishes.
        grid: Cells of the radius, even, and steps.

    Raises:
        ValueError: For a radius that is too large: no core forms, or the wall is near.
    """
    for radius in radii:
        if not radius ** (1.0 - exponent) >= 5.0 * D:
            raise ValueError(
                f"radii = {tuple(radii)!r}: at l = {radius:g} the drift's A l/D = "
                f"{radius ** (1.0 - exponent) / D:.3g} must be 5 or more for a core to form; use "
                "smaller radii or a larger exponent."
            )
    study = Study(
        f"unbounded differences on the disc, exponent {exponent:g}",
        r"In 2-D $v_l \to 0$ in L2 with $|v_l|_\infty\to\infty$: L1 convergence, L2 divergence.",
    )
    grid, where = grid or Grid(100, 60), [f"l={radius:g}" for radius in radii]
    l = np.array(radii)  # noqa: E741  # as in the statement
    A = l**-exponent
    cost = np.sqrt(2.0 * np.pi * A * l**3)
    cores = math.sqrt(np.pi / 8.0) * A * l**2 / D
    # Control: the speed of the first radius for all. (E3') with |dv| <= A, of which the
    # exponential must leave something to say.
    slow = np.minimum(radii[0] ** -exponent, 10.0 * D / radii[0])

    def run(of: tuple[float, float], at: Grid) -> Array:
        return errors_of_elements(comm, *of, at)

    def volumes(cells: int) -> Array:
        return np.array([error_of_volumes(*of, cells) for of in zip(l, A, strict=True)])

    l2, l1 = measure_each(run, zip(l, A, strict=True), grid).T
    calm, _ = measure_each(run, [(radius, slow) for radius in l], grid).T
    half, whole = volumes(4 * grid.cells), volumes(8 * grid.cells)
    z = l * A / D
    study.report("norm of the drift in L2(L2), {}", cost, over=where)
    study.equals(
        "sup L2 error against finite volumes, {}",
        l2,
        Figure(2.0 * whole - half, whole - half),  # extrapolated
        1e-3,  # between two discretizations that share but the equation
        over=where,
    )
    study.equals(
        "sup L2 error over that of the core, {}",
        l2 / cores,
        [gathered(at) for at in z],
        # Terms of the next order, of which those known have coefficients near 1.
        1e-3 + 2.0 * z**-1.5,
        over=where,
    )
    study.above("sup L2 error against its core's, {}", l2, cores, over=where)
    pinsker = math.sqrt(np.pi / (2.0 * D)) * cost
    study.below("sup L1 error against Pinsker, {}", l1, pinsker, over=where)
    e3 = np.sqrt(np.pi * l**2 * np.expm1(2.0 * slow * l / D))
    study.below("control: sup L2 error at bounded speed against (E3'), {}", calm, e3, over=where)
    curves = {
        "|v| in L2(L2)": cost,
        "sup L2 error": l2,
        r"$\sqrt{\pi/8}\,A l^2/D$": cores,
        "sup L1 error": l1,
        "sup L2 error, bounded speed": calm,
    }
    title = "Unit disc: the drift vanishes in L2, the density does not follow"
    study.curves(title, "l", "norm", l, curves, "xy")
    return study
