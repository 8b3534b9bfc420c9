r"""Stabilized explicit steps: Runge-Kutta-Chebyshev of order 2 with lumped mass and frozen drift.

.. math:: \dot\rho = -L\rho,\qquad L = M_L^{-1}(D K - B(v_{1/2})),

with :math:`M_L` the row sums of the mass matrix (degree 1: positive). A step of s stages is

.. math::
    Y_0 &= \rho_n,\quad F_j = -dt\,L\,Y_j,\quad Y_1 = Y_0 + \tilde\mu_1 F_0,\\
    Y_j &= (1-\mu_j-\nu_j) Y_0 + \mu_j Y_{j-1} + \nu_j Y_{j-2} + \tilde\mu_j F_{j-1}
           + \tilde\gamma_j F_0,\quad \rho_{n+1} = Y_s,

stable for eigenvalues of :math:`dt\,L` in :math:`[0, \beta]`, :math:`\beta \approx 0.65 (s^2-1)`.
The columns of :math:`M_L L` sum to zero, so that the mass :math:`1^\top M_L\rho` is constant.

References:
    B. P. Sommeijer, L. F. Shampine, J. G. Verwer, RKC: an explicit solver for parabolic PDEs,
    J. Comput. Appl. Math. 88 (1997), (2.2)-(2.6).
"""

import math

from mpi4py import MPI  # noqa: F401  before PETSc

import numpy as np
from petsc4py import PETSc

Array = np.ndarray
DAMPING = 2.0 / 13.0


class Coefficients:
    """Of s >= 2 stages; arrays by stage, from 0 to s."""

    def __init__(self, stages: int, damping: float = DAMPING) -> None:
        self.stages = s = stages
        w0 = 1.0 + damping / s**2
        t, dt, ddt = np.zeros((3, s + 1))  # Chebyshev polynomials at w0 and their derivatives
        t[:2], dt[1] = (1.0, w0), 1.0
        for j in range(2, s + 1):
            t[j] = 2.0 * w0 * t[j - 1] - t[j - 2]
            dt[j] = 2.0 * (t[j - 1] + w0 * dt[j - 1]) - dt[j - 2]
            ddt[j] = 2.0 * (2.0 * dt[j - 1] + w0 * ddt[j - 1]) - ddt[j - 2]
        w1 = dt[s] / ddt[s]
        b = np.empty(s + 1)
        b[2:] = ddt[2:] / dt[2:] ** 2
        b[:2] = b[2]
        mu, nu, mu_f, gamma_f = np.zeros((4, s + 1))
        mu_f[1] = b[1] * w1
        for j in range(2, s + 1):
            mu[j] = 2.0 * b[j] * w0 / b[j - 1]
            nu[j] = -b[j] / b[j - 2]
            mu_f[j] = 2.0 * b[j] * w1 / b[j - 1]
            gamma_f[j] = -(1.0 - b[j - 1] * t[j - 1]) * mu_f[j]
        self.mu, self.nu, self.mu_f, self.gamma_f = mu, nu, mu_f, gamma_f

    def polynomial(self, z: Array) -> Array:
        """Growth of a mode with ``-dt * eigenvalue = z`` in one step, complex."""
        before, y = np.ones_like(z), 1.0 + self.mu_f[1] * z
        for j in range(2, self.stages + 1):
            new = (
                (1.0 - self.mu[j] - self.nu[j] + self.gamma_f[j] * z)
                + (self.mu[j] + self.mu_f[j] * z) * y
                + self.nu[j] * before
            )
            before, y = y, new
        return y


def stages_for(radius: float) -> int:
    """Stages for eigenvalues of ``dt L`` up to a radius on the real axis, as RKC chooses them."""
    return max(2, math.ceil(math.sqrt(1.0 + radius / 0.65)))


class PetscSteps:
    """Steps by PETSc's products and vector updates.

    Args:
        matrix: ``dt L``; may be refilled.
        coefficients: Of the scheme.
    """

    def __init__(self, matrix: PETSc.Mat, coefficients: Coefficients) -> None:
        self.matrix, self.c = matrix, coefficients
        self._f0, self._f, self._y, self._before = (matrix.createVecRight() for _ in range(4))

    def step(self, rho: PETSc.Vec, out: PETSc.Vec, transposed: bool = False) -> None:
        """One step, or the transposed of one: the polynomial of the transposed matrix."""
        c, f0, f, y, before = self.c, self._f0, self._f, self._y, self._before
        apply = self.matrix.multTranspose if transposed else self.matrix.mult
        apply(rho, f0)
        rho.copy(before)
        y.waxpy(-c.mu_f[1], f0, rho)
        for j in range(2, c.stages + 1):
            apply(y, f)
            before.scale(c.nu[j])
            weights = (1.0 - c.mu[j] - c.nu[j], c.mu[j], -c.mu_f[j], -c.gamma_f[j])
            before.maxpy(weights, [rho, y, f, f0])
            before, y = y, before
        y.copy(out)


def derivative(matrix: PETSc.Mat, c: Coefficients, rho: Array, dual: Array) -> list[tuple]:
    r"""Pairs :math:`(p_j, Y_j)`, the derivative of ``dual . step`` in dt L being
    :math:`\sum_j p_j Y_j^\top`; s pairs, where an implicit step has one.
    """
    x, f = matrix.createVecRight(), matrix.createVecRight()

    def product(y: Array, transposed: bool = False) -> Array:
        x.array[:] = y
        (matrix.multTranspose if transposed else matrix.mult)(x, f)
        return f.array.copy()

    f0 = product(rho)
    levels = [rho, rho - c.mu_f[1] * f0]
    for j in range(2, c.stages + 1):
        w0 = 1.0 - c.mu[j] - c.nu[j]
        levels.append(
            w0 * rho
            + c.mu[j] * levels[-1]
            + c.nu[j] * levels[-2]
            - c.mu_f[j] * product(levels[-1])
            - c.gamma_f[j] * f0
        )
    duals = [np.zeros_like(rho) for _ in levels]
    duals[-1] = dual.copy()
    first = np.zeros_like(rho)
    pairs = []
    for j in range(c.stages, 1, -1):
        q = duals[j]
        duals[j - 1] += c.mu[j] * q - c.mu_f[j] * product(q, True)
        duals[j - 2] += c.nu[j] * q
        first -= c.gamma_f[j] * q
        pairs.append((-c.mu_f[j] * q, levels[j - 1]))
    first -= c.mu_f[1] * duals[1]
    pairs.append((first, rho))
    return pairs


def symbol(ratio: float, peclet: float, modes: int = 32, angles: int = 5) -> Array:
    """Eigenvalues ``-dt L`` of an unbounded mesh of squares cut in two, constant drift.

    Args:
        ratio: dt D/h^2.
        peclet: ``|v| h / (2 D)``.
        modes: Wavenumbers along an axis.
        angles: Directions of the drift.
    """
    a = np.linspace(-np.pi, np.pi, modes, endpoint=False)
    a, b, angle = np.meshgrid(a, a, np.linspace(0.0, np.pi, angles), indexing="ij")
    diffusion = -ratio * (4.0 - 2.0 * np.cos(a) - 2.0 * np.cos(b))
    both = np.sin(a + b)
    x = (2.0 * np.sin(a) + both - np.sin(b)) / 3.0
    y = (2.0 * np.sin(b) + both - np.sin(a)) / 3.0
    advection = 2.0 * peclet * ratio * (np.cos(angle) * x + np.sin(angle) * y)
    return (diffusion - 1j * advection).ravel()


def stages_needed(z: Array, damping: float = DAMPING, most: int = 150) -> int | None:
    """Fewest stages (to 5 percent) that let no mode grow; ``None`` if the most do not suffice."""
    s = stages_for(-float(z.real.min()))
    while s <= most:
        # Round-off in the constant mode, whose growth is 1.
        if np.abs(Coefficients(s, damping).polynomial(z)).max() <= 1.0 + 1e-9:
            return s
        s = max(s + 1, int(1.05 * s))
    return None
