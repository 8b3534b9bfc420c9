r"""A watch on a run: it stops one that blows up, and warns of one that cannot be trusted.

The exact density keeps its mass and never grows in :math:`L^1`,

.. math:: \int\rho(t) = \int\rho(0),\qquad \int|\rho(t)| \le \int|\rho(0)|,

whatever drift and noise are, and however it concentrates at a point or a wall; where walls absorb
the first holds for the mass together with what they have taken, and with what sources have made
and killing has taken; where what they take enters again, for the mass alone, too. A continuous
Galerkin method loses the second where the cell Peclet number

.. math:: \mathrm{Pe} = \frac{|v|\,h}{2D},\qquad D = \sigma^2/2,

with h the length of a cell along the drift, is far above 1: the density oscillates from node to
node and, at walls that the drift runs into, grows without bound.
"""

import warnings
from collections.abc import Callable
from pathlib import Path

from mpi4py import MPI

import numpy as np

from fpcontrol.discretization import kernels
from fpcontrol.discretization.absorbing import shared
from fpcontrol.discretization.base import SemiDiscretization, StageDrift
from fpcontrol.discretization.diffusion import Diffusivity
from fpcontrol.discretization.periodic import dof_places
from fpcontrol.parallel.errors import collective_errors, reduced
from fpcontrol.stepping.schemes import SDIRK2, SDIRK4, Scheme
from fpcontrol.typing import Array

# Growth of the integral of |rho| that ends a run. It is a sum over the nodes, up to twice as large
# as the integral where the density changes sign from node to node: so the negative part is half as
# large as the mass of the start, at least. A resolved run stays within a few per cent of 1.
GROWTH = 4.0
# Relative change of the mass that ends a run; the steps restore it to round-off. With absorbing
# walls, where nothing is restored, it is the solvers' tolerance and a multiple of that a step.
MASS = 1e-10
SOLVES = 100.0
# Part of the mean density that the minimum may be below zero without a word.
NEGATIVE = 0.01
# Part of the mass at the start that an absorbing wall may give back without a word: the exact flux
# through it, -D grad rho . n, only takes.
GIVEN_BACK = 0.01
# A run rings if successive changes point in opposite directions to this cosine, are of this
# relative size, and do so for so many steps on end.
OPPOSITE, AUDIBLE, ON_END = -0.9, 0.01, 3

PACKAGE = str(Path(__file__).parents[1])

# For step n (from level n to n + 1): what drives it.
Transport = Callable[[int], StageDrift]


class Watch:
    """Checks the levels of a run while it goes. Collective.

    One pass over a level and one reduction of a few numbers; where and why is found out only for a
    run that has gone wrong.

    Args:
        system: The equation discretized in space.
        times: Time levels of the run, ``(steps + 1,)``.
        transport: Drift and diffusivity of a step, asked only for a message; collective.
        scheme: Of the steps: whether the run rings is of interest for one that is not L-stable.
        warn: Whether to warn. What would be said is kept in any case, see ``said``.
        tolerance: Relative tolerance of the solves, at which the mass is known that absorbing walls
            take in a step.

    Attributes:
        mass: Integral of the density at the levels checked so far, ``(steps + 1,)``.
        absorbed: Mass that each absorbing wall has taken up to these, ``(steps + 1, tags)``.
        killed: Mass that was killed up to these, ``(steps + 1,)``.
        produced: Mass that sources have made, or that has entered again, up to these,
            ``(steps + 1,)``.
        said: Warnings so far, at most one of each kind.
    """

    def __init__(
        self,
        system: SemiDiscretization,
        times: Array,
        transport: Transport,
        *,
        scheme: Scheme,
        warn: bool = True,
        tolerance: float = 0.0,
    ) -> None:
        self._system, self._elements = system, system.elements
        self._times, self._transport = times, transport
        self._rings, self._warn = scheme.damping > 0.5, warn
        diagonal = system.mass.getDiagonal().array
        # Positive at every node, where those of (1, phi_i) are zero at the corners of triangles of
        # degree 2 and negative in tetrahedra.
        self._weights = diagonal * (self._elements.volume / self._elements.sum(diagonal.sum()))
        self._tags = system.absorbing.tags if system.absorbing else ()
        self._walls = len(self._tags)
        self._losses = self._walls + (system.reacting is not None)  # walls, and what is killed
        rate = system.reacting.rate if system.reacting else 0.0
        self._made = rate * (np.asarray(times) - times[0])
        self.produced = self._made
        self._sums, self._comm = np.zeros(7 + self._losses), system.comm
        self._tolerance = tolerance

    def begin(self, start: Array, absorbed: Array | None = None) -> None:
        """Begin a run. Collective.

        Args:
            start: Start density, local, zero on absorbing walls.
            absorbed: What these have taken of it already, ``(tags,)``.
        """
        self.mass, self._lowest = np.zeros((2, len(self._times)))
        self._lost = np.zeros((len(self._times), self._losses))
        self.absorbed = self._lost[:, : self._walls]
        self.killed = self._lost[:, self._walls :].sum(axis=1)
        self._taken, self._gave = np.zeros(self._losses), False
        self.produced = self._made.copy()
        if absorbed is not None:
            self.absorbed[0] = self._taken[: self._walls] = absorbed
            if self._system.reentry is not None:
                self.produced[0] = absorbed.sum()
        self._most = self.absorbed[0].copy()
        self.said: list[str] = []
        self._negative, self._opposite, self._defect = False, 0, 0.0
        self._floor = -np.inf
        self._see(0, start, start, start)
        self._size = self._sums[1]
        self._floor = -NEGATIVE * abs(self.mass[0]) / self._elements.volume
        self._see(0, start, start, start)
        self._look(0, start)

    def check(
        self,
        n: int,
        new: Array,
        last: Array | None = None,
        before: Array | None = None,
        absorbed: Array | None = None,
        killed: float = 0.0,
        produced: float = 0.0,
    ) -> None:
        """Check level ``n``. Collective.

        Args:
            n: Number of the level.
            new: The level, local.
            last: The level before it, and
            before: the one before that: to see whether the run rings.
            absorbed: This rank's part of what each absorbing wall took in the step, ``(tags,)``.
            killed: This rank's part of what was killed in the step.
            produced: What has entered again in the step, of all ranks.

        Raises:
            ArithmeticError: On all ranks, if the density has grown beyond what is possible or its
                mass has changed.
        """
        self._sums[7:] = killed
        if self._system.reentry is not None:
            self.produced[n] = self.produced[n - 1] + produced
        if absorbed is not None:
            self._sums[7 : 7 + self._walls] = absorbed
        self._see(n, new, new if last is None else last, new if before is None else before)
        if self._losses:
            self._account(n)
        self._look(n, new)

    def minimum(self) -> Array:
        """Smallest degree of freedom of the levels checked, ``(steps + 1,)``. Collective."""
        return reduced(self._elements.comm, self._lowest, MPI.MIN)

    # -- inner parts ---------------------------------------------------------------------------

    def _see(self, n: int, new: Array, last: Array, before: Array) -> None:
        """Sums over all ranks of what is checked."""
        g, sums = self._elements, self._sums
        kernels.inspect(new, last, before, g.integrals, self._weights, sums[:7])
        self._lowest[n] = sums[6]
        sums[6] = sums[6] < self._floor
        if self._comm.size > 1:
            self._comm.Allreduce(MPI.IN_PLACE, sums)
        self.mass[n] = sums[0]

    def _account(self, n: int) -> None:
        """What the walls have taken: as the steps say, and together what is missing."""
        come = self.produced[n] - self.produced[0]
        missing = self.mass[0] + self.absorbed[0].sum() + come - self.mass[n]
        self._taken += self._sums[7:]
        self._lost[n] = shared(self._taken, missing)
        self.killed[n] = self._lost[n, self._walls :].sum()
        if self._system.discretization.monotone:  # less than nothing is round-off
            np.maximum(self.absorbed[n], 0.0, out=self.absorbed[n])
        self._defect = missing - self._taken.sum()
        if not self._walls:
            return
        back = self._most - self.absorbed[n]
        np.maximum(self._most, self.absorbed[n], out=self._most)
        begun = float(self.mass[0] + self.absorbed[0].sum() + self._made[n])
        share = float(back.max()) / abs(begun)
        if share > GIVEN_BACK and not self._gave:
            self._gave = True
            self._say(
                f"An absorbing wall (tag {self._tags[int(back.argmax())]}) has given back "
                f"{share:.2g} of the mass up to t = {self._times[n]:g} (step {n}), which no such "
                "wall does. Galerkin elements let mass in where the drift leaves the wall at cell "
                "Peclet numbers |v| h / (2 D) above 1, which an optimizer makes use of, and "
                "Crank-Nicolson steps where they ring: use discretization=fpc.Limited() or "
                "fpc.Monotone(), whose walls only take, a finer mesh, or SDIRK2()."
            )

    def _look(self, n: int, new: Array) -> None:
        mass, size, *changes, negative = self._sums[:7].tolist()
        if not size <= GROWTH * (self._size + self._made[n]):  # not a number, too
            raise ArithmeticError(
                f"The run has blown up: at t = {self._times[n]:g} (step {n}) the integral of |rho| "
                f"is {size / self._size:.3g} times that of the start, which the exact density "
                f"never exceeds. {self._place(n, np.abs(new))}"
            )
        self._weigh(n, mass, new)
        if negative and not self._negative:
            self._negative = True
            low = self._elements.comm.allreduce(self._lowest[n], op=MPI.MIN)
            mean = mass / self._elements.volume
            self._say(
                f"The density is negative: {low / abs(mean):.2g} of its mean at "
                f"t = {self._times[n]:g} (step {n}). {self._place(n, -new)}"
            )
        if self._rings:
            self._listen(n, *changes)

    def _weigh(self, n: int, mass: float, new: Array) -> None:
        """Whether the mass is what it was, or what absorbing walls have left of it."""
        defect, allowed = mass - self.mass[0], MASS
        if self._losses:
            change = defect if self._system.reentry is not None else 0.0
            defect, allowed = self._defect, MASS + SOLVES * n * self._tolerance
            defect = max(defect, change, key=abs)
        begun = abs(self.mass[0]) + float(np.abs(self.absorbed[0]).sum()) + self.produced[n]
        if not abs(defect) <= allowed * max(begun, MASS * self._size):
            gone = f", {self._taken.sum():.12g} absorbed or killed" if self._losses else ""
            raise ArithmeticError(
                f"The run has lost its mass: {mass:.12g} at t = {self._times[n]:g} (step {n})"
                f"{gone}, {begun:.12g} at the start. {self._place(n, np.abs(new))}"
            )

    def _listen(self, n: int, inner: float, new: float, old: float, size: float) -> None:
        """Whether changes of opposite sign follow each other."""
        opposite = inner < OPPOSITE * (new * old) ** 0.5 and new > AUDIBLE**2 * size
        self._opposite = self._opposite + 1 if opposite else 0
        if self._opposite == ON_END:
            self._say(
                f"The run rings: for {ON_END} steps up to t = {self._times[n]:g} the density has "
                f"swung to and fro by {(new / size) ** 0.5:.0%}. Crank-Nicolson steps do not damp "
                f"what is rough where they are long: use {self._damped()} or more steps."
            )

    def _damped(self) -> str:
        """What damps, of what serves the method."""
        names = ["SDIRK2()", "SDIRK4()"]
        refusal = self._system.discretization.refusal
        offered = [n for n, s in zip(names, (SDIRK2(), SDIRK4()), strict=True) if not refusal(s)]
        if offered:
            return f"an L-stable scheme ({' or '.join(offered)})"
        return "discretization=fpc.Monotone()"

    def _say(self, text: str) -> None:
        self.said.append(text)
        if self._warn:
            say(self._elements.comm, text)

    def _place(self, n: int, values: Array) -> str:
        """Where the values are largest, the cell Peclet number there, and what helps. Collective.

        A level is blamed on the step that led to it, the start on the first step.
        """
        g = self._elements
        owned = np.nan_to_num(values[: g.n_owned], nan=np.inf)
        i = int(owned.argmax()) if len(owned) else -1
        top = g.comm.allgather(owned[i] if len(owned) else -np.inf)
        owner = int(np.argmax(top))
        x = None
        if g.comm.rank == owner:
            x = dof_places(g.space)[i, : g.dimension]
        x = g.comm.bcast(x, root=owner)
        stage = self._transport(max(n - 1, 0))
        v, D = stage.values(), stage.diffusivity
        length, speed = cell_along_drift(self._system, x, v)
        if isinstance(D, Diffusivity):
            D = D.near(x, v)
        peclet = speed * length / (2.0 * D)
        place = np.array2string(x, precision=4, suppress_small=True)
        if peclet > 1.0:
            return (
                f"Worst at x = {place}, where the cell Peclet number |v| h / (2 D) is {peclet:.3g} "
                f"(|v| = {speed:.3g}, h = {length:.3g}, D = {D:.3g}); it should be below 1 where "
                f"the density is steep. Refine the mesh to h = {length / peclet:.2g} there, or use "
                f"sigma = {(2.0 * D * peclet) ** 0.5:.2g} or more, or "
                "discretization=fpc.Limited(), which is positive on any mesh; for a drift "
                "that runs into a wall, fpc.walls.walled(drift, mesh) makes one that vanishes "
                "there."
            )
        return (
            f"Worst at x = {place}, where the cell Peclet number |v| h / (2 D) is {peclet:.3g}: "
            "the mesh resolves the drift. Take more steps or an L-stable scheme (SDIRK2(), "
            "SDIRK4()), or refine the mesh if the start is narrower than its cells."
        )


def say(comm: MPI.Comm, text: str) -> None:
    """Warn on rank 0, of the line that called the package; all ranks fail if it is an error there.

    Collective.
    """
    with collective_errors(comm):
        if comm.rank == 0:
            warnings.warn(text, skip_file_prefixes=(PACKAGE,), stacklevel=2)


def cell_along_drift(system: SemiDiscretization, x: Array, v: Array) -> tuple[float, float]:
    r"""Length along the drift of the cell nearest to a point, and the speed there. Collective.

    .. math:: h = \frac{2|v|}{\sum_i |v\cdot\nabla\lambda_i|}

    with the barycentric coordinates :math:`\lambda_i` of the cell; in one dimension its length.

    Args:
        system: The equation discretized in space.
        x: The point, the same on all ranks, ``(d,)``.
        v: Drift at the points of the discretization, ``(N, d)``.

    References:
        T. E. Tezduyar, Y. J. Park, Discontinuity-capturing finite element formulations for
        nonlinear convection-diffusion-reaction equations, Comput. Methods Appl. Mech. Eng. 59
        (1986).
    """
    g, far, length, speed = system.elements, np.inf, 0.0, 0.0
    if len(system.points):
        distance = ((system.points - x) ** 2).sum(axis=1)
        far, drift = float(distance.min()), v[int(distance.argmin())]
        speed = float(np.linalg.norm(drift))
        nodes = g.mesh.geometry.x[g.mesh.geometry.dofmaps[0][: g.n_cells]][:, :, : g.dimension]
        corners = nodes[int(((nodes.mean(axis=1) - x) ** 2).sum(axis=1).argmin())]
        slopes = np.linalg.inv((corners[1:] - corners[0]).T)  # gradients of all lambdas but one
        along = np.append(slopes @ drift, -(slopes @ drift).sum())
        width = float(np.linalg.norm(corners[1:] - corners[0], axis=1).max())
        length = 2.0 * speed / float(np.abs(along).sum()) if speed > 0.0 else width
    found = g.comm.allgather((far, length, speed))
    _, length, speed = min(found)
    return length, speed
