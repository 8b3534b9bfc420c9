r"""Operators of implicit stages, :math:`M + \tau N(v)`, :math:`N(v) = D K - B(v)`.

They are refilled in place, and kept with their preconditioners as far as memory allows: a reverse
sweep meets the operators of the forward sweep again.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from mpi4py import MPI

import numpy as np

from fpcontrol.galerkin import Array, Galerkin
from fpcontrol.linear_solvers import LinearSolver
from fpcontrol.recent import Recent
from fpcontrol.sparsity import Matrix


def fill_levels(theta: float, dimension: int, degree: int) -> int:
    r"""Levels of fill for an incomplete LU of :math:`M + \tau N`.

    In 2-D more fill costs a fifth where the mass matrix matters, and saves half of the time or
    more where diffusion does or the drift is strong; in 3-D it costs more than it saves
    (``benchmarks/bench_solvers.py``).

    Args:
        theta: Mean of the diagonal entries of :math:`\tau D K` over those of M.
        dimension: Dimension of the mesh.
        degree: Of the elements; fill costs more where rows are longer.
    """
    if dimension != 2 or theta < 10.0 * degree**2:
        return 0
    return 2 if theta < 150.0 * degree**2 else 4


class Operators:
    r"""The operators :math:`M + \tau N(v)` of a run; one is kept, more after ``keep``. Collective.

    Args:
        galerkin: The discretization.
        scale: :math:`\tau`, time.
        diffusivity: Largest D of the run, length**2 per time.
        linear_solver, petsc_options: See ``LinearSolver``.

    Attributes:
        solver: Solves with the operator in use.
        made: How many have been filled so far.
    """

    def __init__(
        self,
        galerkin: Galerkin,
        scale: float,
        diffusivity: float,
        linear_solver: str = "auto",
        petsc_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._galerkin, self._scale = galerkin, scale
        self._constant, self._diffusivity = galerkin.mass_values.copy(), 0.0
        self.made = 0
        self._matrices = Recent(lambda: galerkin.matrix(galerkin.mass_values.copy()))
        self._used: Hashable = None
        mass = self._matrices(None, lambda matrix: None)
        self.solver = LinearSolver(
            mass.mat,
            linear_solver,
            dimension=galerkin.dimension,
            fill=fill_levels(self._theta(diffusivity), galerkin.dimension, galerkin.degree),
            petsc_options=petsc_options,
        )

    def _theta(self, diffusivity: float) -> float:
        """Weight of diffusion against mass, the same on all ranks. Collective."""
        g = self._galerkin
        own = g.sparsity.diagonal()[: g.n_owned]  # of this rank's cells: the ratio is as good
        total = g.sum(float((g.stiffness_values[own] / g.mass_values[own]).sum()))
        return self._scale * diffusivity * total / g.index_map.size_global

    def use(self, key: Hashable, drift: Callable[[], Array], diffusivity: float) -> None:
        """Solve with the operator of a key from now on; fill it if it is not kept. Collective.

        Args:
            key: Stands for the drift, the same on all ranks.
            drift: Gives the drift at the quadrature points, ``(N, d)``.
            diffusivity: ``D = sigma**2/2``, length**2 per time.
        """
        key = key, diffusivity
        if key == self._used:
            return
        self._used = None  # until it is filled: its room may be that of the one in use
        matrix = self._matrices(key, lambda room: self._fill(room, drift(), diffusivity))
        self._used = key
        self.solver.use(matrix.mat)

    def set(self, v: Array, diffusivity: float) -> None:
        """Fill the operator of a drift ``v``, ``(N, d)``, that does not come again. Collective."""
        self.use(object(), lambda: v, diffusivity)

    def keep(self, memory: float, most: int) -> int:
        """Keep as many operators as fit into so many bytes on every rank. Collective.

        Args:
            memory: Bytes on this rank.
            most: More are of no use.

        Returns:
            The new capacity, at least one.
        """
        fitting = min(int(memory / max(self.memory, 1.0)), most)
        capacity = self._galerkin.comm.allreduce(max(1, fitting), op=MPI.MIN)
        self._matrices.capacity = capacity
        return capacity

    @property
    def memory(self) -> float:
        """Estimated bytes of one operator with its preconditioner on this rank. Collective."""
        # Several ranks have a copy in PETSc's own format, with indices.
        entries = 8.0 if self._galerkin.comm.size == 1 else 20.0
        return entries * self._galerkin.sparsity.size + self.solver.memory()

    def _fill(self, matrix: Matrix, v: Array, diffusivity: float) -> None:
        g = self._galerkin
        if diffusivity != self._diffusivity:
            np.multiply(g.stiffness_values, self._scale * diffusivity, out=self._constant)
            self._constant += g.mass_values
            self._diffusivity = diffusivity
        g.advection_values(v, -self._scale, self._constant, out=matrix.values)
        matrix.update()
        self.made += 1
