r"""The operator of a steady process, and direct solves with it and its transpose.

.. math:: M\dot\rho = -N\rho,\qquad 1^\top N = 0

where no wall absorbs: the mass is constant, and constants are the solutions of
:math:`N^\top u = 0`. The stationary density spans the null space of N. With a unit vector e of one
degree of freedom and a number k,

.. math:: (N + k\,e e^\top)\,x = b,\qquad 1^\top b = 0

has :math:`e^\top x = 0`, as the sum of its rows shows, and so solves :math:`N x = b`. Nothing has
to know of the null space.
"""

from mpi4py import MPI

import numpy as np
from petsc4py import PETSc

from fpcontrol.discretization.base import SemiDiscretization, driven
from fpcontrol.discretization.diffusion import size_of
from fpcontrol.discretization.limited import LimitedSystem
from fpcontrol.discretization.neumann import Parts
from fpcontrol.discretization.noise_sampler import NoiseSampler
from fpcontrol.drift.base import Drift
from fpcontrol.drift.sampling import sample
from fpcontrol.linalg.linear_solvers import LinearSolver
from fpcontrol.parallel.errors import reduced
from fpcontrol.typing import Array

# Of tau in the filler's M + tau N, over the time of diffusion through a cell: M is then round-off
# beside tau N, and N is what is left of the difference, to round-off.
FAR = 1e8
# Over the time of diffusion through the domain: a step that finds where the density will be.
LONG = 1e3
ROUNDS = 3


class Generator:
    """N of a steady process on one mesh. Collective.

    Args:
        system: The discretization in space, with its walls.
        drift: Steady.
        sampler: Of a noise that is constant in time.

    Raises:
        ValueError: On all ranks, for a drift or noise that depends on time, for a method that is
            not linear in the density, or for a drift with bad values.

    Attributes:
        values: Entries of N, with what is killed in it, ``(sparsity.size,)``, walls not closed.
        matrix: N.
    """

    def __init__(self, system: SemiDiscretization, drift: Drift, sampler: NoiseSampler) -> None:
        if isinstance(system, LimitedSystem):
            raise ValueError(
                "discretization = Limited() is not linear in the density and has no operator of "
                "its own; give the equation fpc.Galerkin(1) or fpc.Monotone()."
            )
        if not sampler.noise.steady:
            raise ValueError(
                "sigma is a function of time; give a number or sigma(x): nothing here has a time."
            )
        if not drift.steady:
            raise ValueError(
                "The drift may depend on time, and nothing here has one; if it does not, say so: "
                "fpc.drift.Steady(f) with f(x)."
            )
        self.system, self.elements = system, system.elements
        g, D = system.elements, sampler.at(0.0)
        v = sample(drift, 0.0, system)
        self._diffusivity = size_of(D)
        own = g.sparsity.diagonal()[: g.n_owned]
        cells = g.sum(float((g.stiffness_values[own] / g.mass_values[own]).sum()))
        scale = FAR * g.index_map.size_global / (self._diffusivity * cells)
        values = np.empty(g.sparsity.size)
        system.filler(scale)(driven(0, lambda: v, D).values(), D, values)
        values -= system.mass_values
        values /= scale
        self.values, self.matrix = values, g.matrix(values).mat
        self._room = g.vector(), g.vector()
        largest = np.array(np.abs(values[g.sparsity.diagonal()]).max(initial=0.0))
        self._size = float(reduced(g.comm, largest, MPI.MAX))
        mass = np.array(system.mass_values[g.sparsity.diagonal()].max(initial=0.0))
        self._mass = float(reduced(g.comm, mass, MPI.MAX))

    @property
    def walls(self) -> Array:
        """Whether each local degree of freedom lies on an absorbing wall, ``(n_local,)``."""
        found = np.zeros(self.elements.n_local, dtype=bool)
        if self.system.absorbing is not None:
            found[self.system.absorbing.dofs] = True
        return found

    @property
    def leaks(self) -> bool:
        """Whether mass goes anywhere: no density stays, and N can be inverted."""
        reacting = self.system.reacting
        return self.system.absorbing is not None or bool(reacting and reacting.killing is not None)

    def apply(self, u: Array, transpose: bool = False) -> Array:
        """``N u`` or its transpose for a local array, owned entries. Collective."""
        x, y = self._room
        x.set(u)
        (self.matrix.multTranspose if transpose else self.matrix.mult)(x.petsc_vec, y.petsc_vec)
        return y.array[: self.elements.n_owned].copy()

    def mass(self, u: Array) -> Array:
        """``M u`` of the method for a local array, owned entries. Collective."""
        x, y = self._room
        x.set(u)
        self.system.mass.mult(x.petsc_vec, y.petsc_vec)
        return y.array[: self.elements.n_owned].copy()

    def closed(self, fixed: Array) -> "Solves":
        r"""Solves with :math:`QNQ + (I-Q)\,c\,\mathrm{diag}(M)`, Q zero where fixed. Collective.

        Args:
            fixed: Booleans of the local degrees of freedom; every part of the mesh has some.
        """
        g = self.elements
        rows = np.repeat(np.arange(g.n_local), np.diff(g.sparsity.indptr))
        columns, values = g.sparsity.indices, self.values.copy()
        shut = fixed[rows] | fixed[columns]
        diagonal = self.system.mass_values * (self._size / self._mass)
        values[shut] = np.where(rows == columns, diagonal, 0.0)[shut]
        return Solves(self, g.matrix(values).mat, fixed)

    def pinned(self) -> "Solves":
        """Solves with N where no wall absorbs, for right-hand sides as above. Collective.

        Pinned is where the density is largest that is left of a uniform one after a long step.

        Raises:
            ValueError: On all ranks, for a mesh of several parts that do not touch.
        """
        g, parts = self.elements, len(Parts.of(self.elements).volumes)
        if parts > 1:
            raise ValueError(
                f"The mesh has {parts} parts that do not touch, each with a stationary density of "
                "its own; solve on each part alone."
            )
        long = LONG * g.volume ** (2.0 / g.dimension) / self._diffusivity
        step = g.matrix(self.system.mass_values + long * self.values).mat
        uniform = np.full(g.n_local, 1.0 / g.volume)
        rho = Solves(self, step, np.zeros(g.n_local, dtype=bool))(self.mass(uniform))
        own = rho[: g.n_owned]
        highest = np.array(own.max(initial=-np.inf))
        top = float(reduced(g.comm, highest, MPI.MAX))
        first = np.array(g.index_map.size_global, dtype=np.int64)
        if top == float(highest):
            first[...] = g.index_map.local_range[0] + int(own.argmax())
        pin = int(reduced(g.comm, first, MPI.MIN))
        matrix = self.matrix.copy()
        if g.index_map.local_range[0] <= pin < g.index_map.local_range[1]:
            matrix.setValue(pin, pin, self._size, addv=PETSc.InsertMode.ADD_VALUES)
        matrix.assemble()
        return Solves(self, matrix, np.zeros(g.n_local, dtype=bool), pin)

    def stationary(self, solves: "Solves") -> Array:
        r"""The density of mass 1 with :math:`N\rho = 0`, local. Collective.

        Args:
            solves: From ``pinned``.
        """
        g = self.elements
        load = np.zeros(g.n_owned)
        first, last = g.index_map.local_range
        if solves.pin is not None and first <= solves.pin < last:
            load[solves.pin - first] = self._size
        rho = solves(load)
        return rho / g.integral(rho)


class Solves:
    """Direct solves with one closed or pinned operator, and its transpose, refined. Collective.

    LU by MUMPS on any number of ranks, whose memory is the limit.

    Args:
        generator: Where it comes from.
        matrix: What is solved with.
        fixed: Booleans of the local degrees of freedom: solutions are zero there.
        pin: Global number of the degree of freedom that is pinned.
    """

    def __init__(
        self, generator: Generator, matrix: PETSc.Mat, fixed: Array, pin: int | None = None
    ) -> None:
        self._elements, self._matrix, self._fixed = generator.elements, matrix, fixed
        self.pin = pin
        # MUMPS in 1-D, too: it pivots.
        self._solver = LinearSolver(matrix, "direct", dimension=2, prefix="fpcontrol_generator_")
        self._room = [self._elements.vector() for _ in range(4)]

    def __call__(self, load: Array, transpose: bool = False, rounds: int = ROUNDS) -> Array:
        """Solution, local, for a load, owned entries. Collective.

        Args:
            load: The right-hand side.
            transpose: Whether to solve with the transpose.
            rounds: Solves at most, all but the first of a residual.

        Raises:
            ArithmeticError: On all ranks, if the solver fails.
        """
        g, matrix, solver = self._elements, self._matrix, self._solver
        solve = solver.solve_transpose if transpose else solver.solve
        apply = matrix.multTranspose if transpose else matrix.mult
        b, x, residual, change = self._room
        x.set(np.zeros(g.n_local))
        b.set(np.where(self._fixed[: g.n_owned], 0.0, load))
        residual.set(b.array)
        before = np.inf
        for k in range(rounds):
            size = residual.petsc_vec.norm()
            if not 0.0 < size < 0.3 * before:
                break
            change.set(np.zeros(g.n_local))
            solve(residual.petsc_vec, change.petsc_vec)
            x.petsc_vec.axpy(1.0, change.petsc_vec)
            if k == rounds - 1:
                break
            apply(x.petsc_vec, residual.petsc_vec)
            residual.petsc_vec.aypx(-1.0, b.petsc_vec)
            before = size
        x.changed()
        x.scatter_forward()
        if not np.isfinite(g.inner(x.array, x.array)):
            raise ArithmeticError(
                "The generator's solution is not finite: its times are too far apart for the "
                "arithmetic, as with barriers of some hundred D. Take more noise."
            )
        return x.array.copy()
