r"""The control problem that all differentiate: the same numbers for everyone, in numpy alone.

On the unit square, :math:`\partial_t\rho = \nabla\cdot(D\nabla\rho - v\rho)` without flux through
the walls, and

.. math:: J = \tfrac12\int_0^T \|\rho - \rho^{ref}\|^2 dt,

by the trapezoidal rule over the time levels. The reference is the straight line from ``start`` to
``goal``, both scaled to mass 1 in the discretization's own sense. The drift is a network,
:math:`v = s\,W\tanh(A y + b)`, :math:`y = (x - c)/s`, its weights constant on ``pieces`` intervals.
Time steps are those of Crank-Nicolson.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Tracking:
    """What is differentiated.

    Args:
        n: Squares along a side of the mesh.
        width: Neurons of the network.
        pieces: Intervals of constant weights.
        steps_per_piece: Time steps in each.
        sigma: Noise.
        rtol: Relative tolerance of iterative linear solvers.
        number: dt D/h^2.
    """

    n: int
    width: int = 2
    pieces: int = 5
    steps_per_piece: int = 4
    sigma: float = 0.5
    rtol: float = 1e-10
    number: float = 1.0

    centre, scale = 0.5, 0.5  # c and s

    @property
    def steps(self) -> int:
        return self.pieces * self.steps_per_piece

    @property
    def D(self) -> float:
        return 0.5 * self.sigma**2

    @property
    def dt(self) -> float:
        return self.number / (self.n**2 * self.D)

    @property
    def t1(self) -> float:
        return self.steps * self.dt

    @property
    def dofs(self) -> int:
        """Unknowns of linear elements; volumes take as many."""
        return (self.n + 1) ** 2

    @property
    def trapezoid(self) -> Array:
        """Weights of the time levels in J, ``(steps + 1,)``."""
        weights = np.full(self.steps + 1, self.dt)
        weights[[0, -1]] *= 0.5
        return weights

    def start(self, x: Array) -> Array:
        """Density at time 0, to be scaled; ``x`` of shape ``(2 or 3, ...)``."""
        return 1.0 + 0.5 * np.cos(np.pi * x[0]) * np.cos(np.pi * x[1])

    def goal(self, x: Array) -> Array:
        """Reference at the last time, to be scaled."""
        return 1.0 + 0.4 * np.sin(np.pi * x[0]) ** 2

    def weights(self, number: int = 0) -> Array:
        """Weights ``(pieces, 5 width)``, a piece's ``W (2, m)``, ``A (m, 2)``, ``b (m,)`` flat.

        Those of different numbers differ by a tenth, as from one iteration of an optimizer to the
        next: nobody gains by remembering.
        """
        shape = (self.pieces, 5 * self.width)
        base = np.random.default_rng(0).standard_normal(shape)
        if number:
            base += 0.1 * np.random.default_rng(number).standard_normal(shape)
        # The speed of a wide network must not be another.
        base[:, : 2 * self.width] *= (2.0 / self.width) ** 0.5
        return base

    def unpack(self, weights: Array) -> tuple[Array, Array, Array]:
        """``W``, ``A``, ``b`` of one piece."""
        m = self.width
        w, a = weights[: 2 * m], weights[2 * m : 4 * m]
        return w.reshape(2, m), a.reshape(m, 2), weights[4 * m :]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
