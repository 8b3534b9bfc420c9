r"""Operators of implicit stages, :math:`M + \tau N(v, D)`.

They are refilled in place, and kept with their preconditioners as far as memory allows: a reverse
sweep meets the operators of the forward sweep again.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mpi4py import MPI

import numpy as np

from fpcontrol.discretization.base import SemiDiscretization, StageDrift
from fpcontrol.discretization.diffusion import size_of
from fpcontrol.discretization.sparsity import Matrix
from fpcontrol.linalg.buffers import BufferCache
from fpcontrol.linalg.linear_solvers import Fill, LinearSolver
from fpcontrol.typing import Array

# Points of a rank, at most, from which the strength of a drift is judged.
SAMPLE = 512
# Weight of diffusion or drift from which on an incomplete LU of a monotone method is filled; 1 for
# others.
EARLIER = 0.25


def choose_fill(
    theta: float, courant: float, dimension: int, degree: int, monotone: bool = False
) -> Fill:
    r"""Layout of an incomplete LU of :math:`M + \tau N`.

    In 2-D more fill costs a fifth where the mass matrix matters, and saves half of the time or
    more where diffusion or the drift does; in 3-D it costs more than it saves, but a drift that
    outweighs both mass and diffusion needs a level, lest GMRES fail. The reverse Cuthill-McKee
    ordering halves the iterations for degrees 2 and 3, whose own numbering suits an incomplete LU
    badly; for degree 1 it saves a tenth, but under strong drifts it makes pivots so small that
    GMRES fails where the mesh's own numbering takes ten iterations
    (``benchmarks/bench_solvers.py``, tables *sweep* and *drift*). Monotone methods iterate without
    a Krylov space, and more: fill pays earlier.

    Args:
        theta: Mean over the rows of :math:`\tau D K_{ii} / M_{ii}`.
        courant: Mean speed times :math:`\tau`, over the length for which theta is
            :math:`\tau D` over its square.
        dimension: Dimension of the mesh.
        degree: Of the elements; fill costs more where rows are longer.
        monotone: Whether the method is monotone.
    """
    strong = courant >= 2.0 * degree
    ordering = "natural" if strong and degree == 1 else "rcm"
    if dimension == 1:
        return Fill(0, ordering)
    if dimension == 3:
        return Fill(int(strong and courant >= 1.5 * (1.0 + theta)), ordering)
    weight = max(theta / (10.0 * degree**2), courant / (2.0 * degree))
    first = EARLIER if monotone else 1.0
    return Fill(0 if weight < first else 2 if weight < 15.0 else 4, ordering)


class Operators:
    r"""The operators :math:`M + \tau N(v)` of a run; one is kept, more after ``keep``. Collective.

    Args:
        system: The discretization on a mesh.
        scale: :math:`\tau`, time.
        diffusivity: Largest D of the run, length**2 per time.
        linear_solver, petsc_options, null_pivots: See ``LinearSolver``.

    Attributes:
        solver: Solves with the operator in use.
        made: How many have been filled so far.
    """

    def __init__(
        self,
        system: SemiDiscretization,
        scale: float,
        diffusivity: float,
        linear_solver: str = "auto",
        petsc_options: Mapping[str, Any] | None = None,
        null_pivots: bool = False,
    ) -> None:
        self._system, self._elements, self._scale = system, system.elements, scale
        self._filler = system.filler(scale)
        self._resolution = self._mean_resolution()
        self._stride = len(system.points) // SAMPLE + 1
        self._sampled = self._elements.sum(len(system.points[:: self._stride]))
        self.made = 0
        self._budget, self._most = 0.0, 1
        least = self._fill_for(0.0, diffusivity)
        self._largest = least.levels
        # Without a reference to self: what is in a cycle lives until the garbage is collected.
        self._operators = BufferCache(
            lambda: _Operator(system.elements.matrix(system.mass_values.copy()), least)
        )
        self._used: Hashable = None
        self._leaving = np.empty(0)  # of the operator in use
        mass = self._operators(None, lambda operator: None)
        self.solver = LinearSolver(
            mass.matrix.mat,
            linear_solver,
            dimension=self._elements.dimension,
            fill=least,
            petsc_options=_asked(system, linear_solver, petsc_options),
            null_pivots=null_pivots,
            monotone=system.positive,
        )

    def use(self, stage: StageDrift) -> None:
        """Solve with the operator of a stage from now on; fill it if it is not kept. Collective."""
        key = stage.key, stage.diffusivity
        if key == self._used:
            return
        self._used = None  # until it is filled and in use, for whoever catches an interrupt
        operator = self._operators(key, lambda room: self._fill(room, stage))
        self.solver.use(operator.matrix.mat, operator.fill)
        self._used, self._leaving = key, operator.leaving
        if operator.fill.levels > self._largest:
            self._largest = operator.fill.levels
            self.keep(self._budget, self._most)  # its preconditioner is larger

    def set(self, v: Array, diffusivity: float) -> None:
        """Fill the operator of a drift ``v``, ``(N, d)``, that does not come again. Collective."""
        self.use(StageDrift(object(), lambda: v, diffusivity))

    def absorbed(self, r: Array, y: Array) -> Array:
        """This rank's part of what each absorbing wall takes in a stage, ``(tags,)``.

        Args:
            r: What the stage starts from, local, zero on these walls.
            y: Solution of ``A y = M r`` with the operator in use, local.
        """
        walls = self._system.absorbing
        return walls.absorbed(self._leaving, r, y) if walls else np.zeros(0)

    def keep(self, memory: float, most: int) -> int:
        """Keep as many operators as fit into so many bytes on every rank. Collective.

        They become fewer if a strong drift calls for a larger preconditioner later.

        Args:
            memory: Bytes on this rank.
            most: More are of no use.

        Returns:
            The new capacity, at least one.
        """
        self._budget, self._most = memory, most
        fitting = min(int(memory / max(self.memory, 1.0)), most)
        capacity = self._elements.comm.allreduce(max(1, fitting), op=MPI.MIN)
        for operator in self._operators.keep(capacity):
            self.solver.forget(operator.matrix.mat)
        return capacity

    @property
    def memory(self) -> float:
        """Estimated bytes of one operator with its preconditioner on this rank. Collective."""
        # Several ranks have a copy in PETSc's own format, with indices.
        entries = 8.0 if self._elements.comm.size == 1 else 20.0
        return entries * self._elements.sparsity.size + self.solver.memory()

    def _fill(self, operator: "_Operator", stage: StageDrift) -> None:
        v = stage.values()
        self._filler(v, stage.diffusivity, operator.matrix.values)
        if self._system.absorbing:
            operator.leaving = self._system.absorbing.close(operator.matrix.values)
        operator.matrix.update()
        operator.fill = self._fill_for(self._courant(v), size_of(stage.diffusivity))
        self.made += 1

    def _courant(self, v: Array) -> float:
        """Weight of a drift against mass, from its mean square at some points. Collective."""
        some = v[:: self._stride]  # all would take as long as a tenth of the filling
        squares = self._elements.sum(float((some * some).sum()))
        return float(self._scale * (squares / self._sampled) ** 0.5 * self._resolution**0.5)

    def _fill_for(self, courant: float, diffusivity: float) -> Fill:
        """Layout of the preconditioner for a drift and a diffusivity."""
        theta = self._scale * diffusivity * self._resolution
        dimension, degree = self._elements.dimension, self._elements.degree
        return choose_fill(theta, courant, dimension, degree, self._system.positive)

    def _mean_resolution(self) -> float:
        """Mean of ``K_ii / M_ii``, 1 over length**2, the same on all ranks. Collective."""
        g = self._elements
        own = g.sparsity.diagonal()[: g.n_owned]  # of this rank's cells: the ratio is as good
        total = g.sum(float((g.stiffness_values[own] / g.mass_values[own]).sum()))
        return total / g.index_map.size_global


def _asked(
    system: SemiDiscretization, linear_solver: str, petsc_options: Mapping[str, Any] | None
) -> dict[str, Any]:
    """PETSc options: what the method asks of iterative solvers, then what the user says."""
    direct = linear_solver == "direct" or (system.elements.dimension, system.comm.size) == (1, 1)
    return ({} if direct else dict(system.petsc_options)) | dict(petsc_options or {})


@dataclass
class _Operator:
    """A matrix, the layout of its preconditioner, and what it had on absorbing walls."""

    matrix: Matrix
    fill: Fill
    leaving: Array = field(default_factory=lambda: np.empty(0))
