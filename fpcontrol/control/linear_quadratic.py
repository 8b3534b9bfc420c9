r"""Least squares over all pieces at once, by a Riccati recursion.

What is minimized over changes :math:`u` of the blocks of weights is

.. math::
    g^\top u + \tfrac12 u^\top (H + \mu E + \delta I)\,u,

with the Gauss-Newton Hessian H and the energy E of ``control.reduced``: a problem of linear
dynamics and quadratic costs, whose cost-to-go :math:`\tfrac12 z^\top P z + p^\top z` is carried
backward through the pieces. Blocks that act in several pieces are part of the state.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from fpcontrol.control.reduced import PieceModel
from fpcontrol.typing import Array


class Step(NamedTuple):
    """What minimizes.

    Attributes:
        change: Shape ``(blocks, size)``.
        gain: What the quadratic function falls by.
    """

    change: Array
    gain: float


class _Law(NamedTuple):
    """Affine feedback of one piece: its new blocks from its state."""

    offset: Array
    matrix: Array


class LinearQuadratic:
    """The least-squares problem of a linearized run.

    Args:
        pieces: Models of the pieces in turn.
        gradient: Derivative of the cost, ``(blocks, size)``.
        ridge: Part of the mean eigenvalue of E that is added to its diagonal.
        decay: Second derivative of the cost in the weights themselves.
    """

    def __init__(
        self, pieces: Sequence[PieceModel], gradient: Array, ridge: float, decay: float
    ) -> None:
        self._pieces, self._gradient, self._decay = pieces, gradient, decay
        self._size = gradient.shape[1]
        self._m = len(pieces[0].end)
        traces = [np.trace(piece.energy) / len(piece.energy) for piece in pieces]
        self._ridge = ridge * max(float(np.mean(traces)), 1e-300)
        # Blocks that have acted before a piece and act in it or later; those that begin in it.
        first = {b: k for k, piece in reversed(list(enumerate(pieces))) for b in piece.blocks}
        last = {b: k for k, piece in enumerate(pieces) for b in piece.blocks}
        self._carried = [
            [b for b in sorted(first) if first[b] < k <= last[b]] for k in range(len(pieces) + 1)
        ]
        self._new = [[b for b in sorted(first) if first[b] == k] for k in range(len(pieces))]

    def solve(self, mu: float) -> Step:
        """The step for a damping ``mu``.

        Raises:
            ArithmeticError: If round-off leaves no positive definite system.
        """
        try:
            laws, gain = self._backward(mu)
        except LinAlgError as error:
            raise ArithmeticError(f"The quadratic model is not convex: {error}") from None
        change = np.zeros_like(self._gradient)
        state = np.zeros(self._m)
        for k, law in enumerate(laws):
            carried = change[self._carried[k]].ravel()
            u = law.offset + law.matrix @ np.concatenate([state, carried])
            change[self._new[k]] = u.reshape(-1, self._size)
            piece = self._pieces[k]
            state = piece.end @ np.concatenate([state, change[list(piece.blocks)].ravel()])
        return Step(change, gain)

    def _backward(self, mu: float) -> tuple[list[_Law], float]:
        """Feedback of all pieces, and what is gained."""
        p_matrix, p_vector = np.zeros((self._m,) * 2), np.zeros(self._m)
        laws, gain = [], 0.0
        for k in reversed(range(len(self._pieces))):
            hessian, slope = self._piece(k, mu, p_matrix, p_vector)
            known = self._m + len(self._carried[k]) * self._size
            factor = cho_factor(hessian[known:, known:])
            across = hessian[known:, :known]
            matrix = -cho_solve(factor, across)
            offset = -cho_solve(factor, slope[known:])
            laws.append(_Law(offset, matrix))
            gain -= 0.5 * float(slope[known:] @ offset)
            p_matrix = hessian[:known, :known] + across.T @ matrix
            p_matrix = 0.5 * (p_matrix + p_matrix.T)
            p_vector = slope[:known] + across.T @ offset
        return laws[::-1], gain

    def _piece(self, k: int, mu: float, p_matrix: Array, p_vector: Array) -> tuple[Array, Array]:
        """Quadratic function of state, carried and new blocks of a piece, the later ones solved."""
        piece, m, size = self._pieces[k], self._m, self._size
        order = [*self._carried[k], *self._new[k]]
        n = m + len(order) * size

        def columns(blocks: Sequence[int]) -> Array:
            places = [m + order.index(b) * size + np.arange(size) for b in blocks]
            return np.concatenate([np.arange(0), *places])

        acting = np.concatenate([np.arange(m), columns(piece.blocks)])
        later = self._carried[k + 1]
        # State and carried blocks of the next piece, over what is known and new in this one.
        passed = np.zeros((m + len(later) * size, n))
        passed[:m, acting] = piece.end
        passed[np.arange(m, len(passed)), columns(later)] = 1.0
        hessian = passed.T @ (p_matrix @ passed)
        slope = passed.T @ p_vector
        hessian[np.ix_(acting, acting)] += piece.cost
        hessian[np.ix_(acting[m:], acting[m:])] += mu * piece.energy
        new = columns(self._new[k])
        hessian[new, new] += mu * self._ridge + self._decay
        slope[new] += self._gradient[self._new[k]].ravel()
        return hessian, slope
