r"""Finite volumes by numpy and SciPy, as a careful user would write them for a drift that moves.

Central fluxes (no upwinding: of second order, and below cell Peclet number 2 without wiggles),
Crank-Nicolson by the implicit midpoint rule. The pattern of the matrix is made once; a step writes
the values into their places, and solves from the extrapolated density to a relative residual of
1e-10. The Krylov methods get an incomplete factorization of the first operator and keep it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, bicgstab, gmres, spilu, splu

Array = np.ndarray
RTOL = 1e-10
# Fill and drop tolerance for which the steps took the least time at 1e4 cells.
ILU = {"drop_tol": 1e-2, "fill_factor": 4.0}
SOLVERS = ("superlu", "gmres", "bicgstab")


class Volumes:
    """Square cells on ``[-half, half]^2``, no flux through the walls.

    Args:
        n: Cells a side.
        half: Half the side.
        diffusivity: ``D``.
        dt: Time step.
        drift: ``drift(t, x)``, ``x`` of shape ``(N, 2)``, to ``(N, 2)``.
        solver: One of ``SOLVERS``.
    """

    def __init__(
        self,
        n: int,
        half: float,
        diffusivity: float,
        dt: float,
        drift: Callable[[float, Array], Array],
        solver: str,
    ) -> None:
        self.dt, self._drift, self._solver = dt, drift, solver
        self.h = h = 2.0 * half / n
        self._diffusivity = diffusivity
        axis = -half + h * (np.arange(n) + 0.5)
        number = np.arange(n * n).reshape(n, n)
        x, y = np.meshgrid(axis, axis, indexing="ij")
        self.x = np.column_stack([x.ravel(), y.ravel()])
        # Inner faces, first those across x, then those across y: cells at their two sides.
        low = np.concatenate([number[:-1].ravel(), number[:, :-1].ravel()])
        high = np.concatenate([number[1:].ravel(), number[:, 1:].ravel()])
        self._faces = 0.5 * (self.x[low] + self.x[high])
        self._normal = np.repeat([0, 1], n * (n - 1))
        self._low, self._high, self.cells = low, high, n * n
        # Where the entries (low, low), (low, high), (high, low), (high, high) of a face and the
        # diagonal go in the data of the compressed matrix.
        rows = np.concatenate([low, low, high, high, np.arange(n * n)])
        cols = np.concatenate([low, high, low, high, np.arange(n * n)])
        form = sp.csc_array if solver == "superlu" else sp.csr_array
        pattern = form((np.ones(len(rows)), (rows, cols)), shape=(n * n, n * n))
        pattern.sort_indices()
        major, minor = (cols, rows) if solver == "superlu" else (rows, cols)
        held = np.repeat(np.arange(n * n), np.diff(pattern.indptr)) * (n * n) + pattern.indices
        place = np.searchsorted(held, major * (n * n) + minor)
        low_low, self._low_high, self._high_low, high_high, self._diagonal = np.split(
            place, [len(low), 2 * len(low), 3 * len(low), 4 * len(low)]
        )
        del low_low, high_high  # they lie on the diagonal, which is summed by cells
        self._matrix = pattern
        self._preconditioner: Any = None

    def refill(self, t: float) -> None:
        """Operator 1 + dt/2 N for the drift at time t."""
        v = self._drift(t, self._faces)[np.arange(len(self._low)), self._normal]
        scale = 0.5 * self.dt / self.h
        # Flux low to high: (v/2 + D/h) rho_low + (v/2 - D/h) rho_high.
        out = scale * (0.5 * v + self._diffusivity / self.h)
        back = scale * (0.5 * v - self._diffusivity / self.h)
        data = self._matrix.data
        data[self._low_high] = back
        data[self._high_low] = -out
        data[self._diagonal] = (
            1.0
            + np.bincount(self._low, out, self.cells)
            - np.bincount(self._high, back, self.cells)
        )

    def run(self, start: Array, steps: int) -> Array:
        """Density after some steps from time 0; mean iterations are in ``iterations``."""
        rho, before, self.iterations = start.copy(), start, 0.0
        self._preconditioner = None
        for i in range(steps):
            self.refill((i + 0.5) * self.dt)
            u = self._solve(rho, 1.5 * rho - 0.5 * before)
            before, rho = rho, 2.0 * u - rho
        self.iterations /= steps
        return rho

    def _solve(self, b: Array, guess: Array) -> Array:
        if self._solver == "superlu":
            factors = splu(
                self._matrix,
                permc_spec="MMD_AT_PLUS_A",
                diag_pivot_thresh=0.0,
                options={"SymmetricMode": True},
            )
            return factors.solve(b)
        if self._preconditioner is None:
            factors = spilu(
                self._matrix.tocsc(),
                permc_spec="MMD_AT_PLUS_A",
                diag_pivot_thresh=0.0,
                options={"SymmetricMode": True},
                **ILU,
            )
            self._preconditioner = LinearOperator(self._matrix.shape, factors.solve)

        def count(_: Any) -> None:
            self.iterations += 1

        common = {"x0": guess, "rtol": RTOL, "atol": 0.0, "M": self._preconditioner}
        if self._solver == "gmres":
            common |= {"callback_type": "pr_norm", "restart": 60}
        method = gmres if self._solver == "gmres" else bicgstab
        u, code = method(self._matrix, b, callback=count, **common)
        if code:
            raise ArithmeticError(f"SciPy's {self._solver} stopped with code {code}.")
        return u
