r"""The exponential over a step by uniformization: forward, along a tangent, and backward.

For a monotone operator, M diagonal, :math:`\dot\rho = -M^{-1}N\rho` is the master equation of a
Markov jump process, with rates :math:`N_{ii}/M_{ii}` of leaving. With L at least as large as all of
them, :math:`P = I - M^{-1}N/L` has no negative entry, and

.. math:: \exp(-dt\,M^{-1}N) = \sum_k \pi_k P^k,\qquad \pi_k = e^{-z}\frac{z^k}{k!},\quad z = L\,dt,

is a sum of what is not negative: nothing cancels, nothing is solved, and the mass is kept to
round-off. The sum is cut where what is left of the weights is below round-off; they are scaled to
sum to 1. A step with a large z is taken in parts.

Where walls absorb, the jumps to their nodes end there: P has no such rows. With
:math:`x_k = P^k\rho`, what a wall has taken after a part is
:math:`-\sum_{i\,\in\,\text{wall}} (N s)_i/L` with :math:`s = \sum_k x_k \sum_{l>k}\pi_l`.

References:
    A. Jensen, Markoff chains as an aid in the study of Markoff processes, Skand. Aktuarietidskr.
    36 (1953).
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

from mpi4py import MPI

import numpy as np
import scipy
from scipy.special import gammaln

from fpcontrol.discretization import kernels
from fpcontrol.discretization.base import SemiDiscretization, StageDrift
from fpcontrol.discretization.sparsity import Matrix
from fpcontrol.linalg.buffers import BufferCache
from fpcontrol.stepping.base import Collect, Drive, Stepper
from fpcontrol.typing import Array

# Largest z of a part of a step. More parts take more products, 2.2 z instead of 1.6 z at a third;
# fewer take more memory on the way back.
LARGEST = 128.0
# z of a step beyond which it is refused: a product takes microseconds at least.
TOO_LARGE = 1e6
# What is left of the weights where their sum is cut.
TAIL = 1e-16
# L beyond the largest rate, and least z: diagonal entries of P are then far above round-off.
MARGIN, LEAST = 1e-7, 1e-3


@dataclass
class Products:
    """Statistics: products with a matrix."""

    method: str = "uniformization"
    iterations: int = 0
    rescues: int = 0
    tolerance: float = TAIL


class ExponentialStepper(Stepper):
    r"""A step :math:`\rho_{n+1} = \exp(-dt\,M^{-1}N(v_{1/2}))\rho_n`. Collective.

    Args:
        system: A monotone discretization on a mesh.
        dt: Time step.

    Attributes:
        operators: The matrices P, see ``TransitionMatrices``.
    """

    rows = 1
    solver: Products

    def __init__(self, system: SemiDiscretization, dt: float) -> None:
        self.system, self.dt = system, dt
        self.solver = Products()
        self.operators: TransitionMatrices = TransitionMatrices(system, dt)
        g = system.elements
        self._x, self._image = g.vector(), g.vector()
        self._mass = system.mass.getDiagonal().array
        self.absorbed = np.zeros(len(system.absorbing.tags) if system.absorbing else 0)
        self.workspace = (len(weights_of(LARGEST)) + 2) * g.n_local

    def step(
        self, rho: Array, before: Array, out: Array, drive: Drive, kept: Array | None = None
    ) -> None:
        """Advance one step. Collective."""
        transition = self.operators(drive(0))
        out[:], self.absorbed[:] = rho, 0.0
        for _ in range(transition.parts):
            self._part(transition, out, out)
        # Round-off in very many products, which no derivative feels.
        y, room = out.copy(), np.empty_like(out)
        self.system.restoration.increment(y, rho, 1.0, 1.0, y, room, out)

    def tangent_step(
        self,
        drho: Array,
        rho: Array,
        kept: Array,
        new: Array,
        drive: Drive,
        dv: Callable[[int], Array],
        out: Array,
    ) -> None:
        r"""Derivative of ``step``: :math:`\dot x_{k+1} = P\dot x_k - M^{-1}\dot N x_k/L`."""
        stage, n = drive(0), self.system.elements.n_owned
        transition, direction = self.operators(stage), dv(0)
        scale = self.dt / (transition.z * transition.parts)
        density = rho.copy()
        out[:] = drho
        for _ in range(transition.parts):
            x, dx = density.copy(), out.copy()
            density[:], out[:] = transition.weights[0] * x, transition.weights[0] * dx
            for weight in transition.weights[1:]:
                source = self.system.source(direction, x, stage)
                if self.system.absorbing:
                    self.system.absorbing.project_owned(source)
                dx = self._product(transition, dx)
                dx[:n] += scale * source / self._mass
                dx = self._with_ghosts(dx)
                x = self._product(transition, x)
                density += weight * x
                out += weight * dx

    def adjoint_state(self) -> None:
        """Nothing: no iteration wants a guess."""

    def adjoint_step(
        self,
        dual: Array,
        rho: Array,
        kept: Array,
        new: Array,
        drive: Drive,
        state: None,
        collect: Collect,
    ) -> Array:
        r"""Transpose of ``step``. Collective.

        With :math:`x_k = P^k\rho` and the weights cut behind :math:`\pi_K`,

        .. math::
            \bar x_K = \pi_K\lambda,\qquad \bar x_k = \pi_k\lambda + P^\top\bar x_{k+1},

        the dual at the start is :math:`\bar x_0`, and the derivative in the drift's values is that
        of :math:`-\sum_k (M^{-1}\bar x_{k+1})^\top N(\cdot)\,x_k/L`.
        """
        stage = drive(0)
        transition = self.operators(stage)
        starts = [rho]
        for _ in range(transition.parts - 1):
            starts.append(np.empty_like(rho))
            self._part(transition, starts[-2], starts[-1])
        products = collect(0)
        scale = 1.0 / (transition.z * transition.parts * self._mass)
        if self.system.absorbing:
            dual = dual.copy()
            self.system.absorbing.project_owned(dual)
        for start in reversed(starts):
            dual = self._part_transposed(transition, start, dual, products.add, stage, scale)
        return dual

    @property
    def product_scale(self) -> float:
        """``dt``."""
        return self.dt

    # -- inner parts ---------------------------------------------------------------------------

    def _part(self, transition: "Transition", rho: Array, out: Array) -> None:
        """Advance by a part of a step."""
        x, image, weights = self._x, self._image, transition.weights
        walls, left = self.system.absorbing, 1.0
        occupied = np.zeros_like(out) if walls else out
        x.set(rho)
        np.multiply(rho, weights[0], out=out)
        for before, weight in itertools.pairwise(weights):
            if walls:
                left -= before
                kernels.blend(1.0, occupied, left, x.array, occupied)
            transition.matrix.mat.mult(x.petsc_vec, image.petsc_vec)
            x, image = image, x
            kernels.blend(1.0, out, weight, x.array, out)
        if walls:
            occupied = self._with_ghosts(occupied)
            zero = np.zeros_like(out)
            self.absorbed += walls.absorbed(transition.leaving, zero, occupied)
        self.solver.iterations += len(weights) - 1
        if self.system.comm.size > 1:
            x.set(out)
            x.scatter_forward()
            out[:] = x.array

    def _part_transposed(
        self,
        transition: "Transition",
        start: Array,
        dual: Array,
        add: Callable[[Array, Array, StageDrift], None],
        stage: StageDrift,
        scale: Array,
    ) -> Array:
        g, weights = self.system.elements, transition.weights
        path = np.empty((len(weights) - 1, g.n_local))
        path[:1] = start
        for k in range(1, len(path)):
            path[k] = self._product(transition, path[k - 1])
        x, image, back = self._x, self._image, weights[-1] * dual
        for k in reversed(range(len(path))):
            x.set(back * scale)
            x.scatter_forward()
            add(path[k], x.array, stage)
            x.set(back)
            transition.matrix.mat.multTranspose(x.petsc_vec, image.petsc_vec)
            back = weights[k] * dual + image.array[: g.n_owned]
        self.solver.iterations += 2 * len(path)
        return back

    def _product(self, transition: "Transition", u: Array) -> Array:
        """``P u`` of a local array, local."""
        self._x.set(u)
        transition.matrix.mat.mult(self._x.petsc_vec, self._image.petsc_vec)
        self._image.scatter_forward()
        return self._image.array.copy()

    def _with_ghosts(self, u: Array) -> Array:
        """A local array with its ghosts brought up to date."""
        self._x.set(u)
        self._x.scatter_forward()
        return self._x.array.copy()


@dataclass
class Transition:
    """Matrix P of a drift, for a part of a step.

    Attributes:
        matrix: P.
        z: Mean number of jumps in a part.
        parts: Of a step.
        weights: Of the powers of P from the zeroth on.
        leaving: ``N/L`` in the rows of absorbing walls, see ``Absorbing.close``.
    """

    matrix: Matrix
    z: float = 0.0
    parts: int = 1
    weights: Array = field(default_factory=lambda: np.ones(1))
    leaving: Array = field(default_factory=lambda: np.empty(0))


class TransitionMatrices:
    """The matrices P of a run; one is kept, more after ``keep``. Collective.

    Args:
        system: A monotone discretization on a mesh.
        dt: Time step.
    """

    def __init__(self, system: SemiDiscretization, dt: float) -> None:
        self._system, self._filler = system, system.filler(dt)
        g, sparsity = system.elements, system.elements.sparsity
        mass = g.vector()
        mass.set(system.mass.getDiagonal().array)
        mass.scatter_forward()
        self._per_row = np.repeat(1.0 / mass.array, np.diff(sparsity.indptr))
        self._inverse = 1.0 / mass.array[: g.n_owned]
        self._diagonal = sparsity.diagonal()
        rows = np.repeat(np.arange(g.n_local), np.diff(sparsity.indptr))[self._diagonal]
        self._rows, self._own = rows, self._diagonal[rows < g.n_owned]
        # Without a reference to self: what is in a cycle lives until the garbage is collected.
        self._kept = BufferCache(lambda: Transition(g.matrix(system.mass_values.copy())))

    def __call__(self, stage: StageDrift) -> Transition:
        """The matrix of a stage, filled if it is not kept. Collective."""
        return self._kept((stage.key, stage.diffusivity), lambda room: self._fill(room, stage))

    def keep(self, memory: float, most: int) -> int:
        """Keep as many as fit into so many bytes on every rank, at least one. Collective."""
        fitting = min(int(memory / max(self.memory, 1.0)), most)
        capacity = int(self._system.comm.allreduce(max(1, fitting), op=MPI.MIN))
        self._kept.keep(capacity)
        return capacity

    @property
    def memory(self) -> float:
        """Bytes of one on this rank."""
        return (8.0 if self._system.comm.size == 1 else 20.0) * self._system.elements.sparsity.size

    def _fill(self, room: Transition, stage: StageDrift) -> None:
        values = room.matrix.values
        self._filler(stage.values(), stage.diffusivity, values)
        walls = self._system.absorbing
        ending = walls.close(values) if walls else np.empty(0)
        g = self._system.elements
        leaving = g.vector()
        leaving.array[:] = np.bincount(self._rows, values[self._diagonal], minlength=g.n_local)
        leaving.scatter_reverse()
        rates = leaving.array[: g.n_owned] * self._inverse - 1.0
        z = max(g.comm.allreduce(float(rates.max(initial=0.0)), op=MPI.MAX) * (1 + MARGIN), LEAST)
        if not z <= TOO_LARGE:
            raise ArithmeticError(
                f"A step of Exponential() would take {z:.2g} products with a matrix: the cells are "
                "too small, or the drift too fast, for its length. Use BackwardEuler()."
            )
        room.parts = math.ceil(z / LARGEST)
        room.z, room.leaving = z / room.parts, ending / z
        values *= self._per_row * (-1.0 / z)
        values[self._own] += 1.0 + 1.0 / z
        room.matrix.update()
        room.weights = weights_of(room.z)


def weights_of(z: float) -> Array:
    """Weights of a Poisson distribution up to what is below round-off, scaled to sum to 1."""
    k = np.arange(int(scipy.stats.poisson.isf(TAIL, z)) + 2)
    weights = np.exp(k * math.log(z) - z - gammaln(k + 1.0))
    return weights / weights.sum()
