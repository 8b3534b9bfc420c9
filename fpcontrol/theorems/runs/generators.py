"""Few neurons at a time, in turns, or all at once: the drifts, and how far their flows part."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product

from mpi4py import MPI

import numpy as np

from fpcontrol.characteristics import Markers, carry
from fpcontrol.discretization.boundary import Wall
from fpcontrol.drift import Drift, Steady
from fpcontrol.theorems.framework.resolution import markers_between
from fpcontrol.typing import Array


@dataclass(frozen=True)
class Generators:
    r"""Groups of as many neurons as dimensions: :math:`g_j(x) = W_j\tanh(A_j x + b_j)`.

    Attributes:
        w: Shape ``(m, d, d)``.
        a: Shape ``(m, d, d)``.
        b: Shape ``(m, d)``.
    """

    w: Array
    a: Array
    b: Array

    @classmethod
    def drawn(
        cls, dimension: int = 1, number: int = 4, seed: int = 3, speed: float = 1.2
    ) -> "Generators":
        r"""Neurons at random that point inward at the walls of the unit interval or cube.

        In every direction :math:`-w\tanh(c(x-b))`, with :math:`w = \mathrm{speed}\,(.5+r)/m`,
        :math:`c = 4+6r'`, :math:`b = .15+.7r''` and r uniform in [0, 1].
        """
        r = np.random.default_rng(seed).random((dimension, number, 3))
        w, c = -speed * (0.5 + r[..., 0].T) / number, 4.0 + 6.0 * r[..., 1].T
        eye = np.eye(dimension)
        return cls(w[:, :, None] * eye, c[:, :, None] * eye, -c * (0.15 + 0.7 * r[..., 2].T))

    def turned(self, angle: float) -> "Generators":
        """The same in 2-D with coupled directions, ``A`` turned: no longer a product of two."""
        q = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        middle = np.full(2, 0.5)
        a = self.a @ q
        return Generators(self.w, a, self.b + (self.a - a) @ middle)

    @property
    def dimension(self) -> int:
        """Dimension, and the number of neurons in a group."""
        return self.b.shape[1]

    def direction(self, i: int) -> "Generators":
        """What acts along axis ``i`` alone, in 1-D, of generators whose matrices are diagonal."""
        part = slice(i, i + 1)
        return Generators(self.w[:, part, part], self.a[:, part, part], self.b[:, part])

    def __len__(self) -> int:
        """Number of groups ``m``."""
        return len(self.b)

    def sum(self, which: Sequence[int], x: Array) -> Array:
        """Sum of some generators at points ``(N, d)``, ``(N, d)``."""
        z = np.einsum("mde,ne->mnd", self.a[which], x) + self.b[which][:, None]
        return np.einsum("mde,mne->nd", self.w[which], np.tanh(z))

    def divergence(self, which: Sequence[int], x: Array) -> Array:
        """Of that sum, ``(N,)``."""
        z = np.einsum("mde,ne->mnd", self.a[which], x) + self.b[which][:, None]
        diagonal = np.einsum("mde,med->me", self.w[which], self.a[which])
        return np.einsum("me,mne->n", diagonal, 1.0 - np.tanh(z) ** 2)


class Average(Steady):
    """All generators at once: the mean over a cycle."""

    def __init__(self, generators: Generators) -> None:
        self.generators, self._all = generators, range(len(generators))
        super().__init__(partial(generators.sum, self._all))

    def divergence(self, t: float, x: Array) -> Array:
        """Divergence at points, ``(N,)``."""
        return self.generators.divergence(self._all, x)


@dataclass(frozen=True)
class Switched(Drift):
    r"""One generator at a time, :math:`m\,g_j`, in equal slots.

    Attributes:
        generators: The groups.
        cycles: Number of cycles ``n``.
        t1: Last time.
        palindromic: Each cycle runs forth and back, in slots of half the length.
    """

    generators: Generators
    cycles: int
    t1: float
    palindromic: bool = False

    @property
    def slots(self) -> int:
        """Number of slots."""
        return self.cycles * len(self.generators) * (2 if self.palindromic else 1)

    @property
    def times(self) -> Array:
        """Ends of the slots, ``(slots + 1,)``."""
        return np.linspace(0.0, self.t1, self.slots + 1)

    @property
    def switches(self) -> Array:
        """Times between slots."""
        return self.times[1:-1]

    def piece(self, t: float) -> int:
        """Which generator is on."""
        m, slot = len(self.generators), min(int(t / self.t1 * self.slots), self.slots - 1)
        if not self.palindromic:
            return slot % m
        return min(slot % (2 * m), 2 * m - 1 - slot % (2 * m))

    def __call__(self, t: float, x: Array) -> Array:
        """Drift at points ``(N, d)``."""
        return len(self.generators) * self.generators.sum([self.piece(t)], x)

    def divergence(self, t: float, x: Array) -> Array:
        """Divergence at points, ``(N,)``."""
        return len(self.generators) * self.generators.divergence([self.piece(t)], x)


def bump(x: Array) -> Array:
    r"""Product of :math:`\sin^4` on [.2, .8], of mass 1, at points ``(N, d)``: twice smooth."""
    z = np.clip((x - 0.2) / 0.6, 0.0, 1.0)
    return np.prod(np.sin(np.pi * z) ** 4 * 8.0 / (3.0 * 0.6), axis=1)


def box(x: Array) -> Array:
    """The uniform density on the unit interval or cube, 0 outside."""
    return 1.0 * ((x >= 0.0) & (x <= 1.0)).all(axis=1)


def block(x: Array) -> Array:
    """The uniform density on [.2, .8] in every direction, 0 outside: jumps inside the domain."""
    return ((x > 0.2) & (x < 0.8)).all(axis=1) / 0.6 ** x.shape[1]


STARTS: dict[str, tuple[Callable[[Array], Array], tuple[float, float]]] = {
    "bump": (bump, (0.2, 0.8)),
    "block": (block, (0.2, 0.8)),
    "box": (box, (0.0, 1.0)),
}


def distances(comm: MPI.Comm, switched: Switched, start: str, cells: int, rtol: float) -> Array:
    r"""Between the switched and the average flow at the last time, without noise. Collective.

    With flows :math:`\Phi_n` and :math:`\Phi`, markers are carried forth by the one and back by the
    other, :math:`z = \Phi^{-1}(\Phi_n(y))`, which gives both densities at :math:`x = \Phi_n(y)`:

    .. math:: \|\rho_n - \rho\|^2 = \int\Bigl(\frac{\rho_0(y)}{J_n(y)}
        - \frac{\rho_0(z)}{J(z)}\Bigr)^2 J_n(y)\,dy

    over markers that reach as far as either support and are cut where one ends.

    Args:
        comm: Communicator.
        switched: One of the drifts, in 1-D or 2-D; the other is its average.
        start: ``"bump"``, or in 1-D also ``"block"`` or ``"box"``, which have jumps.
        cells: Cells of markers in each direction.
        rtol: Tolerance along characteristics, relative and absolute.

    Raises:
        ValueError: On all ranks, if mass would be carried out of the unit interval or square.

    Returns:
        The distance in L2; the part of it from where only one of the two is; the L2 norm of the
        average density; the root mean square distance of markers, in 1-D :math:`W_2`; the largest
        of that at the ends of slots.
    """
    rho_0, support = STARTS[start]
    average = Average(switched.generators)
    # On the square drifts may point outward, far from where the mass is: checked below.
    go = partial(
        carry, times=switched.times, walls=switched.generators.dimension == 1, rtol=rtol, atol=rtol
    )
    if switched.generators.dimension == 1:
        # The bump is smooth at its ends: markers around it do. A jump is cut out exactly.
        smooth = start == "bump"
        cuts = [0.0, *support, 1.0] if smooth else _ends(switched, support, rtol)
        markers = markers_between(comm, cuts, cells, rho_0)
    else:
        markers = _on_square(comm, cells, rho_0)
    forth, exact = go(markers, switched), go(markers, average)
    for flow in (forth, exact):
        x = flow.positions[-1][markers.density > 0.0]
        if comm.allreduce(bool(((x < 0.0) | (x > 1.0)).any()), op=MPI.LOR):
            raise ValueError("generators carry mass through the walls; make them slower there.")
    back = carry(
        replace(markers, points=forth.positions[-1]),
        -average.reversed_in_time(switched.t1),
        [0.0, switched.t1],
        walls=False,
        rtol=rtol,
        atol=rtol,
    )
    one = markers.density * np.exp(-forth.log_jacobian[-1])
    other = rho_0(back.positions[-1]) * np.exp(back.log_jacobian[-1])
    square = (one - other) ** 2 * np.exp(forth.log_jacobian[-1])
    moved = ((forth.positions - exact.positions) ** 2).sum(axis=2) * markers.density
    parts = np.array(
        [square, square * ((one > 0.0) != (other > 0.0)), exact.density[-1] * markers.density]
    )
    sup = markers.integral(moved)
    return np.sqrt([*markers.integral(parts), sup[-1], sup.max()])


def _ends(switched: Switched, support: tuple[float, float], rtol: float) -> list[float]:
    """Markers of the switched flow at which one of the two supports ends."""
    drifts = (Average(switched.generators), -switched.reversed_in_time(switched.t1))
    x = np.reshape(support, (2, 1))
    for drift in drifts:
        markers = Markers(MPI.COMM_SELF, x, np.ones(2), np.ones(2), _nowhere(1))
        flow = carry(markers, drift, [0.0, switched.t1], walls=False, rtol=rtol, atol=rtol)
        x = flow.positions[-1]
    return [*support, *x[:, 0].tolist()]


def _on_square(comm: MPI.Comm, cells: int, rho_0: Callable[[Array], Array]) -> Markers:
    """Products of Gauss points on the unit square."""
    one = markers_between(MPI.COMM_SELF, [0.0, 1.0], cells)
    x = np.array(list(product(one.points[:, 0], repeat=2)))
    mine = slice(*(len(x) * r // comm.size for r in (comm.rank, comm.rank + 1)))
    volumes = np.outer(one.volumes, one.volumes).ravel()[mine]
    # No walls to look at: the bump keeps away from them.
    return Markers(comm, x[mine], volumes, rho_0(x[mine]), _nowhere(2))


def _nowhere(dimension: int) -> Wall:
    return Wall(np.zeros((0, dimension)), np.zeros((0, dimension)))
