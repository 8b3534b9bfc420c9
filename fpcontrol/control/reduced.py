r"""The linearized steps of a run in few smooth modes, piece by piece.

With the modes :math:`\Phi` of ``discretization.modes`` the tangent of a step, for a density
:math:`\Phi s` and changes c of the weights, is

.. math::
    (I + \gamma\,dt\,\Phi^\top N\Phi)\,y_i = r_i - \gamma\,dt\,\Phi^\top N'(\partial_c v)\,u_i ,

with the stages of a Runge-Kutta step as in ``stepping.runge_kutta``: one projected operator a drift
and a small solve for all weights at once. It is a model of the tangent, for an approximate
Hessian; gradients are those of the steps that ran.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from fpcontrol.control.on_mesh import MeshRuns
from fpcontrol.control.parametric import ParametricDrift, Terms
from fpcontrol.control.storage import GIB
from fpcontrol.control.tracking import TrackingProblem
from fpcontrol.discretization.base import StageDrift
from fpcontrol.discretization.modes import smooth_modes
from fpcontrol.stepping.schemes import CrankNicolson, RungeKutta
from fpcontrol.typing import Array


@dataclass(frozen=True, eq=False)
class PieceModel:
    r"""The steps of one piece, linear in what they start from and in the weights that act.

    For :math:`z = (s, c)`, the state at the start and changes of the blocks of weights that act:

    Attributes:
        blocks: Numbers of these blocks.
        end: State at the end over z, ``(m, m + blocks * size)``.
        cost: Quadratic form of the tracking at the levels of the piece, :math:`z^\top Q z`.
        energy: Quadratic form of the change of the drift, ``(blocks * size,)`` twice:
            :math:`\frac{T}{s^2}\int\!\int\rho\,|\partial_c v|^2\,dx\,dt` over the piece, s half the
            longest side of the domain.
    """

    blocks: tuple[int, ...]
    end: Array
    cost: Array
    energy: Array


class ReducedModel:
    """Linearizes runs in few modes. Collective.

    Args:
        problem: The problem.
        modes: Number of modes; fewer if the mesh does not carry as many, or half of the budget of
            memory not the models of all pieces.

    Attributes:
        modes: Number of modes.

    Raises:
        ValueError: On all ranks, for a problem without noise.
    """

    def __init__(self, problem: TrackingProblem, modes: int) -> None:
        runs, drift = problem.runs, problem.drift
        if not isinstance(runs, MeshRuns):
            raise ValueError(
                "method = 'gauss_newton' works with the density on a mesh, that is, with noise; "
                "with sigma = 0 choose 'lmvm'."
            )
        self._runs, self._sweeps, self._drift = runs, runs.sweeps, drift
        self._system, self._elements = runs.system, runs.elements
        self._modes = smooth_modes(runs.system, min(modes, _fitting(runs, drift))).functions
        self.modes = self._modes.shape[1]
        scheme = runs.scheme
        # Others than Runge-Kutta's are of order 2 at least; so is this.
        self._scheme = scheme if isinstance(scheme, RungeKutta) else CrankNicolson()
        self._dt = drift.t1 / runs.steps
        self._scale = self._scheme.gamma * self._dt
        self._fill = runs.system.filler(self._scale)
        self._values = np.empty(runs.elements.sparsity.size)

    def pieces(self, weights: Array) -> Iterator[PieceModel | None]:
        """The models of the pieces in turn, on rank 0; ``None`` on the others. Collective.

        Args:
            weights: Flat.
        """
        per = self._runs.steps // self._drift.pieces
        levels, blocks = self._runs.levels(weights), weights.reshape(self._drift.time.blocks, -1)
        last = next(levels)
        for k in range(self._drift.pieces):
            densities = [last, *(next(levels) for _ in range(per))]
            last = densities[-1]
            yield self._piece(blocks, k * per, densities)

    def _piece(self, weights: Array, first: int, densities: list[Array]) -> PieceModel | None:
        """The model of the steps between some densities, from step ``first`` on."""
        sweeps, system, modes = self._sweeps, self._system, self._modes
        steps, c = len(densities) - 1, self._scheme.c
        places = [(i, share) for i in range(steps) for share in c]
        drives = [sweeps.stage_at(weights, first + i + share) for i, share in places]
        terms = [sweeps.terms_at(first + i + share) for i, share in places]
        jacobians = {pairs: sweeps.jacobian(weights, pairs) for pairs in dict.fromkeys(terms)}
        different = {(drive.key, drive.diffusivity): drive for drive in drives}
        operators = [self._projected(drive) for drive in different.values()]
        sources = []
        for (i, share), drive, pairs in zip(places, drives, terms, strict=True):
            stage = densities[i] + share * (densities[i + 1] - densities[i])
            sources.append((system.sources(jacobians[pairs], stage, drive) @ modes).T)
        middle = system.at_points(0.5 * (densities[0] + densities[-1]))
        rho = np.maximum(middle, 0.0) * system.point_weights
        energies = [_energy(jacobian, rho) for jacobian in jacobians.values()]
        parts = self._on_root([*operators, *sources, *energies])
        if parts is None:
            return None
        operators = parts[: len(operators)]
        sources, energies = parts[len(operators) : -len(energies)], parts[-len(energies) :]
        inverses = dict(zip(different, (np.linalg.inv(a) for a in operators), strict=True))
        blocks = tuple(sorted({block for pairs in terms for block, _ in pairs}))
        spread = {pairs: self._spread(pairs, blocks) for pairs in jacobians}
        end, cost = self._run(
            [inverses[drive.key, drive.diffusivity] for drive in drives],
            [source @ spread[pairs] for source, pairs in zip(sources, terms, strict=True)],
            self._runs.level_weights[first + 1 : first + 1 + steps],
        )
        energy = np.zeros((cost.shape[0] - self.modes,) * 2)
        for pairs, part in zip(jacobians, energies, strict=True):
            share = self._dt * terms.count(pairs) / len(c)
            energy += share * spread[pairs].T @ part @ spread[pairs]
        energy *= self._drift.t1 / self._drift.scale**2
        return PieceModel(blocks, end, cost, energy)

    def _spread(self, pairs: Terms, blocks: tuple[int, ...]) -> Array:
        """Changes of the weights that act, over changes of all blocks of a piece."""
        shares = np.zeros((1, len(blocks)))
        for block, share in pairs:
            shares[0, blocks.index(block)] = share
        return np.kron(shares, np.eye(self._sweeps.field.size))

    def _projected(self, drive: StageDrift) -> Array:
        """This rank's part of the projected operator of a stage."""
        self._fill(drive.values(), drive.diffusivity, self._values)
        if self._system.absorbing:
            self._system.absorbing.close(self._values)
        pattern, n = self._elements.sparsity, self._elements.n_local
        matrix = sparse.csr_array((self._values, pattern.indices, pattern.indptr), shape=(n, n))
        return self._modes.T @ (matrix @ self._modes)

    def _on_root(self, parts: list[Array]) -> list[Array] | None:
        """Sums over the ranks, on rank 0. Collective."""
        comm = self._elements.comm
        if comm.size == 1:
            return parts
        flat = np.concatenate([part.ravel() for part in parts])
        total = np.empty_like(flat) if comm.rank == 0 else None
        comm.Reduce(flat, total)
        if total is None:
            return None
        ends = np.cumsum([part.size for part in parts])[:-1]
        pieces = np.split(total, ends)
        return [piece.reshape(part.shape) for piece, part in zip(pieces, parts, strict=True)]

    def _run(
        self, inverses: list[Array], sources: list[Array], level_weights: Array
    ) -> tuple[Array, Array]:
        """All steps of a piece: its end over z, and the cost of its levels."""
        scheme, m = self._scheme, self.modes
        state = np.hstack([np.eye(m), np.zeros((m, sources[0].shape[1]))])
        cost = np.zeros((state.shape[1],) * 2)
        stage = iter(zip(inverses, sources, strict=True))
        for weight in level_weights:
            increments: list[Array] = []
            new = state.copy()
            for a, b in zip(scheme.a, scheme.b, strict=True):
                inverse, source = next(stage)
                start = state.copy()
                for factor, d in zip(a, increments, strict=False):
                    start += factor * d
                right = start.copy()
                right[:, m:] += self._scale * source
                increments.append((inverse @ right - start) / scheme.gamma)
                new += b * increments[-1]
            state = new
            cost += weight * (state.T @ state)
        return state, cost


def _fitting(runs: MeshRuns, drift: ParametricDrift) -> int:
    """Number of modes whose models of all pieces fit in half of the budget of memory."""
    numbers = 0.5 * runs.storage.budget * GIB / 8.0 / drift.pieces
    # A square of modes and weights, and a rectangle of as many rows as there are modes, for each.
    return max(1, int((0.5 * numbers) ** 0.5) - 2 * drift.field.size)


def _energy(jacobian: Array, rho: Array) -> Array:
    """This rank's part of the density's mean of products of derivatives of the drift."""
    rows = (jacobian * np.sqrt(rho)[:, None]).reshape(len(jacobian), -1)
    result: Array = rows @ rows.T
    return result
