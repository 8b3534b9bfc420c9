r"""Noising on a mesh, by the equation: between walls that reflect, or of data without a formula."""

import bisect
import functools
import math
from dataclasses import dataclass
from typing import Any

from mpi4py import MPI

import numpy as np
from dolfinx import fem
from dolfinx.mesh import Mesh

from fpcontrol.density import Density, uniform
from fpcontrol.discretization.base import Discretization
from fpcontrol.discretization.cells import Cells
from fpcontrol.discretization.elements import Elements
from fpcontrol.discretization.galerkin import check_discretization
from fpcontrol.discretization.locate import OwnCells
from fpcontrol.discretization.replica import Replica
from fpcontrol.drift.base import Drift, OnCells, SamplePoints
from fpcontrol.drift.retimed import Retimed
from fpcontrol.fokker_planck import FokkerPlanck
from fpcontrol.noising.reversal import Graded, Process, Reversal, ScoreModel
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.parallel.errors import reduced
from fpcontrol.typing import Array, Field


class NoisedOnMesh:
    r"""A density on a mesh and what a noising process makes of it between reflecting walls.

    Solved on the clock ``Graded``, by Crank-Nicolson, between the levels linear. It is a score
    model, :math:`\nabla p/p` of the computed density: with ``reverse(...).graded(finest=...)``,
    the same steps and the same discretization the reversed equation passes through the same levels
    to the accuracy of its solver, for each share of the noise. A rank knows it in its own cells:
    not for characteristics. Collective.

    Args:
        process: The process.
        data: Density at t = 0, positive.
        steps: Steps to ``process.t1``.
        finest: See ``Graded``.

    Raises:
        ValueError: On all ranks, for what is no density.
        ArithmeticError: On all ranks, if the run fails.

    Attributes:
        trajectory: Densities at the noising times ``times``, ascending.
    """

    everywhere = False

    def __init__(
        self, process: Process, data: fem.Function, *, steps: int = 200, finest: float = 0.01
    ) -> None:
        if not isinstance(data, fem.Function):
            raise ValueError(
                f"data = {data!r} is neither a GaussianMixture nor a dolfinx Function; see "
                "fpc.density."
            )
        self.process, self.data, self.steps, self.finest = process, data, steps, finest
        self.discretization = _discretization_of(data)
        self._clock = Graded(process, finest=finest)
        mesh = data.function_space.mesh
        drift = Retimed(_Forward(process), _Reversed(self._clock), process.sigma)
        equation = FokkerPlanck(mesh, drift, drift.sigma, discretization=self.discretization)
        self.system, self.elements = equation.system, equation.elements
        self.trajectory = equation.solve(data, 1.0, steps)
        self.times = np.array([self._clock.noising_time(1.0 - w) for w in self.trajectory.times])
        self._blank = Density(self.elements.space, name="density")
        self._blank.discretization = self.discretization
        self._search = functools.cache(lambda: OwnCells(mesh))

    def __repr__(self) -> str:
        return f"<NoisedOnMesh: {self.steps} steps of {self.process}>"

    def coefficients(self, t: float) -> Array:
        """Local array of the density at a noising time.

        Raises:
            ValueError: If ``t`` is outside ``[0, t1]``.
        """
        last = self.process.t1
        if not -1e-9 * last <= t <= (1.0 + 1e-9) * last:
            raise ValueError(f"t = {t!r} is outside [0, t1 = {last:g}].")
        w = self._place(min(max(t, 0.0), last)) * self.steps
        n = min(int(w), self.steps - 1)
        one, two = self.trajectory.levels[n], self.trajectory.levels[n + 1]
        return one + (w - n) * (two - one)

    def on_cells(self, cells: Cells) -> OnCells:
        """Score at points in any cells, of levels gathered once. Collective."""
        replica = Replica(self.elements.space, cells)
        levels = range(self.steps + 1)
        rows = replica.gather(*(self.trajectory.levels[n] for n in levels))

        def values(t: float, x: Array, c: Array) -> Array:
            w = self._place(min(max(t, 0.0), self.process.t1)) * self.steps
            n = min(int(w), self.steps - 1)
            u = (rows[n] + (w - n) * (rows[n + 1] - rows[n]))[None]
            (p,), (slope,) = replica.evaluate(u, c, cells.shares(c, x)[:, 1:])
            return slope / _positive(p, t)[:, None]

        return values

    def density(self, t: float) -> Density:
        """The density at a noising time. Not collective."""
        result = self._blank.copy()
        result.x.array[:] = self.coefficients(t)
        return result

    def values(self, t: float, x: Array) -> Array:
        """Score at points in cells of this rank, ``(N, d)``. Not collective.

        Raises:
            ValueError: On this rank, for points in none of its cells, or where the density is not
                positive.
        """
        cells = self._search().holding(x)
        if (missing := np.flatnonzero(cells < 0)).size:
            raise ValueError(
                f"{missing.size} of {len(x)} points lie in no cell of this rank, the first at "
                f"{x[missing[0]]}: this score is known on its mesh."
            )
        return self._score(t, cells, x)

    score = values

    def at_points(self, t: float, where: SamplePoints) -> Array:
        """Score at the points of a discretization, ``(N, d)``, along edges for ``Monotone``."""
        g: Any = getattr(where, "elements", where)
        mesh = self.elements.mesh
        if isinstance(g, Elements) and g.mesh._cpp_object != mesh._cpp_object:
            raise ValueError("This score lives on another mesh than the equation.")
        rho = self.coefficients(t)
        own = self.system
        if where.points is own.points or np.array_equal(where.points, own.points):
            _positive(own.divisors(rho), t)
            return own.moser_values(np.zeros_like(rho), rho, 1.0)
        if not isinstance(g, Elements) or where.points is not g.points:
            return self.values(t, where.points)
        cells = np.tile(np.arange(g.n_cells), g.n_points)  # no need to search for them
        return self._score(t, cells, where.points)

    def _score(self, t: float, cells: Array, x: Array) -> Array:
        p, slope = self._search().evaluate(self.elements.space, self.coefficients(t), cells, x)
        return slope / _positive(p, t)[:, None]

    def _place(self, t: float) -> float:
        """Where t is on the clock, 0 for the data and 1 for the noise."""
        n = min(max(bisect.bisect_right(self.times, t), 1), self.steps)
        age, finest = self.process.age, self._clock.finest
        ratio = 1.0 + age(self.process.t1) / finest
        w = math.log1p(age(t) / finest) / math.log(ratio)
        return min(max(w, (n - 1) / self.steps), n / self.steps)


@dataclass(frozen=True)
class _Reversed:
    """The clock of the noising: from the data on."""

    clock: Graded

    def time(self, u: float) -> float:
        return self.clock.noising_time(1.0 - u)

    def rate(self, u: float) -> float:
        return self.clock.rate(1.0 - u)


class _Forward(Drift):
    """Drift of a process."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def __call__(self, t: float, x: Array) -> Array:
        return self._process.drift(t, x)


class HeatFlow:
    r"""Heat flow between reflecting walls: :math:`dX = \sqrt{2D}\,dW` on any mesh. Collective.

    Args:
        mesh: The mesh.
        D: Diffusivity, length**2 per time.
        t1: Last noising time; the square of the longest side of the mesh's box over D unless given.

    Raises:
        ValueError: On all ranks, for numbers that are not positive.

    Attributes:
        size: Longest side of the mesh's box.
    """

    def __init__(self, mesh: Mesh, D: float, t1: float | None = None) -> None:
        x = mesh.geometry.x
        low = reduced(comm_of(mesh), x.min(axis=0, initial=np.inf), MPI.MIN)
        high = reduced(comm_of(mesh), x.max(axis=0, initial=-np.inf), MPI.MAX)
        self.mesh, self.D, self.size = mesh, float(D), float((high - low).max())
        if not (np.isfinite(D) and D > 0.0):
            raise ValueError(f"D = {D!r} must be a positive number.")
        self.t1 = self.size**2 / self.D if t1 is None else float(t1)
        if not (np.isfinite(self.t1) and self.t1 > 0.0):
            raise ValueError(f"t1 = {t1!r} must be a positive time.")

    def __repr__(self) -> str:
        return f"HeatFlow(D={self.D:g}, t1={self.t1:g})"

    @property
    def walls(self) -> bool:
        """True: walls reflect."""
        return True

    def drift(self, t: float, x: Array) -> Array:
        """None, ``(N, d)``."""
        return np.zeros_like(x)

    def drift_divergence(self, t: float, x: Array) -> Array:
        """None, ``(N,)``."""
        return np.zeros(len(x))

    def sigma(self, t: float) -> float:
        r""":math:`\sqrt{2D}`."""
        return math.sqrt(2.0 * self.D)

    def age(self, t: float) -> float:
        r""":math:`\pi^2Dt/\mathrm{size}^2`: how often the slowest wave falls by a factor of e."""
        return t * self.pace(t)

    def pace(self, t: float) -> float:
        """Derivative of ``age``."""
        return math.pi**2 * self.D / self.size**2

    def time(self, age: float) -> float:
        """The inverse of ``age``."""
        return age / self.pace(0.0)

    def prior(self, discretization: Discretization | None = None) -> Density:
        """What a sampler starts from: the uniform density. Collective."""
        return uniform(self.mesh, discretization=discretization)

    def of(self, data: fem.Function, *, steps: int = 200, finest: float = 0.01) -> NoisedOnMesh:
        """Noised data, see ``NoisedOnMesh``. Collective."""
        return NoisedOnMesh(self, data, steps=steps, finest=finest)

    def reverse(self, score: ScoreModel | Field, noise: float = 1.0) -> Reversal:
        r"""Drift and noise that lead back, see ``Reversal``.

        Args:
            score: Anything with ``values(t, x)``, or a callable of the same.
            noise: 1 for the SDE, 0 for the ODE.
        """
        return Reversal(self, score, noise)


def _discretization_of(data: fem.Function) -> Discretization:
    known = data.discretization if isinstance(data, Density) else None
    degree = int(data.function_space.element.basix_element.degree)
    return known or check_discretization(None, degree, None)


def _positive(p: Array, t: float) -> Array:
    if not p.min(initial=np.inf) > 0.0:
        raise ValueError(
            f"The noised density is not positive at t = {t:g} (minimum {p.min():.3g}): it has no "
            "score there. Add a floor (fpc.density.with_floor), or use fpc.Limited()."
        )
    return p
