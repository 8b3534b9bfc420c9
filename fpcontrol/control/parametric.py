r"""Drifts with weights: what can be controlled.

A ``ParametricField`` is a vector field :math:`v(\theta, x)` with its derivatives in the weights; a
``ParametricDrift`` lets the weights vary in time. Sweeps, problems and optimizers know no more than
this of a network, nor of what a user writes instead of one.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Self

from mpi4py import MPI

import numpy as np
from dolfinx.mesh import Mesh

from fpcontrol.drift.base import Drift
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.parallel.errors import collective_errors, reduced
from fpcontrol.typing import Array, Field

type Terms = tuple[tuple[int, float], ...]  # numbers of blocks of weights, and their shares


class ParametricField(ABC):
    r"""A vector field :math:`v(\theta, x)`, to be written by a user in a few lines.

    Points ``x`` and values have shape ``(N, d)``, values length per time; ``theta`` is a flat array
    of ``size`` weights. No method communicates: every rank asks at its own points.

    Attributes:
        size: Number of weights.
    """

    size: int

    @abstractmethod
    def values(self, theta: Array, x: Array) -> Array:
        """The field, ``(N, d)``."""

    @abstractmethod
    def jvp(self, theta: Array, x: Array, dtheta: Array) -> Array:
        """Derivative of the field along a direction in the weights, ``(N, d)``."""

    @abstractmethod
    def vjp(self, theta: Array, x: Array, s: Array) -> Array:
        """Derivative of ``sum(s * values)`` in the weights, ``(size,)``, for ``s (N, d)``."""

    def jacobian(self, theta: Array, x: Array) -> Array:
        """Derivatives of the field in all weights, ``(size, N, d)``; by ``jvp`` unless defined."""
        return np.stack([self.jvp(theta, x, unit) for unit in np.eye(self.size)])

    def describe(self) -> dict[str, Any]:
        """What tells this field from another one, ready for JSON: for checkpoints and records."""
        return {"field": type(self).__name__, "size": self.size}


class SmoothField(ParametricField):
    """A field that can be followed along characteristics (sigma = 0), with its divergence."""

    def check_smooth(self) -> None:
        """Raise a ValueError if the methods below do not exist for this very field."""

    @abstractmethod
    def divergence(self, theta: Array, x: Array) -> Array:
        """Divergence, ``(N,)``, one over time."""

    @abstractmethod
    def flow_jvp(self, theta: Array, x: Array, dtheta: Array, dx: Array) -> tuple[Array, Array]:
        """Derivatives of values ``(N, d)`` and divergence ``(N,)`` along weights and places."""

    @abstractmethod
    def flow_vjp(self, theta: Array, x: Array, sv: Array, sd: Array) -> tuple[Array, Array]:
        """Derivatives of ``sum(sv * values) + sum(sd * divergence)``.

        Args:
            theta: Weights.
            x: Points.
            sv: Duals of the values, ``(N, d)``.
            sd: Duals of the divergence, ``(N,)``.

        Returns:
            In the weights, ``(size,)``, and in the points, ``(N, d)``.
        """


@dataclass(frozen=True)
class TimeBasis(ABC):
    r"""How weights vary in time: :math:`\theta(t) = \sum_k c_k(t)\,\theta_k`.

    Attributes:
        pieces: Number of equal intervals of ``[0, t1]``.
        t1: Last time.

    Raises:
        ValueError: If ``pieces`` is no positive integer or ``t1`` no positive time.
    """

    pieces: int = 100
    t1: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.pieces, int | np.integer) or self.pieces < 1:
            raise ValueError(f"pieces = {self.pieces!r} must be a positive integer.")
        if not (np.isfinite(self.t1) and self.t1 > 0):
            raise ValueError(f"t1 = {self.t1!r} must be a positive finite time.")

    @property
    @abstractmethod
    def blocks(self) -> int:
        """Number of blocks of weights."""

    @abstractmethod
    def terms(self, t: float) -> Terms:
        """The blocks that act at a time, with their shares.

        Raises:
            ValueError: If ``t`` is outside ``[0, t1]``.
        """

    def mixed(self, blocks: Array, terms: Terms) -> Array:
        """Weights of some terms, of ``blocks (blocks, size)``; a view if there is one term."""
        if len(terms) == 1 and terms[0][1] == 1.0:
            return blocks[terms[0][0]]
        return sum((c * blocks[k] for k, c in terms), np.zeros(blocks.shape[1]))

    def _place(self, t: float) -> float:
        """Time in pieces."""
        if not 0.0 <= t <= self.t1 * (1.0 + 1e-12):
            raise ValueError(f"t = {t!r} is outside [0, t1 = {self.t1:g}].")
        return t / self.t1 * self.pieces

    @property
    def inner_times(self) -> Array:
        """Where pieces meet, ``(pieces - 1,)``."""
        return np.linspace(0.0, self.t1, self.pieces + 1)[1:-1]


@dataclass(frozen=True)
class PiecewiseConstant(TimeBasis):
    """Weights that are constant on each piece, one block each, and jump between."""

    @property
    def blocks(self) -> int:
        """One a piece."""
        return self.pieces

    def terms(self, t: float) -> Terms:
        """The piece that holds ``t``; the last one holds ``t1`` too."""
        return ((min(int(self._place(t)), self.pieces - 1), 1.0),)


@dataclass(frozen=True)
class PiecewiseLinear(TimeBasis):
    """Weights that are linear on each piece and continuous, one block where pieces meet."""

    @property
    def blocks(self) -> int:
        """One more than there are pieces."""
        return self.pieces + 1

    def terms(self, t: float) -> Terms:
        """The two ends of the piece that holds ``t``."""
        place = self._place(t)
        k = min(int(place), self.pieces - 1)
        share = min(place - k, 1.0)
        return ((k, 1.0 - share), (k + 1, share))


def bounding_box(mesh: Mesh) -> tuple[Array, Array]:
    """Smallest and largest coordinates of a mesh, ``(d,)`` each. Collective."""
    x = mesh.geometry.x[:, : mesh.geometry.dim]
    low = reduced(comm_of(mesh), x.min(axis=0, initial=np.inf), MPI.MIN)
    return low, reduced(comm_of(mesh), x.max(axis=0, initial=-np.inf), MPI.MAX)


def centre_and_scale(box: tuple[Array, Array]) -> tuple[Array, float]:
    """Centre of a box, and half its longest side."""
    low, high = box
    return 0.5 * (low + high), 0.5 * float((high - low).max())


class ParametricDrift(Drift):
    """A field whose weights vary in time, on the domain of a mesh. Collective.

    Args:
        mesh: The mesh, for its dimension and bounding box.
        field: The field.
        time: How the weights vary; ``PiecewiseConstant()`` unless given.
        weights: Flat float64 array, ``blocks * size``, block by block; zeros unless given.

    Attributes:
        weights: The flat array, a copy of its own.
        box: Smallest and largest coordinates of the mesh, ``(d,)`` each.
        centre, scale: Centre of the box, and half its longest side.

    Raises:
        ValueError: On all ranks, for a bad argument.
    """

    def __init__(
        self,
        mesh: Mesh,
        field: ParametricField,
        time: TimeBasis | None = None,
        weights: Array | None = None,
    ) -> None:
        if not isinstance(field, ParametricField):
            raise ValueError(
                f"field, a {type(field).__name__}, is no ParametricField; derive from it and "
                "define values, jvp and vjp."
            )
        self.mesh, self.field, self.time = mesh, field, time or PiecewiseConstant()
        self.box = bounding_box(mesh)
        self.centre, self.scale = centre_and_scale(self.box)
        with collective_errors(comm_of(mesh)):
            if weights is None:
                self.weights = np.zeros(self.time.blocks * field.size)
            else:
                self.weights = self.check_weights(weights).copy()

    @property
    def pieces(self) -> int:
        """Number of equal intervals of ``[0, t1]``."""
        return self.time.pieces

    @property
    def t1(self) -> float:
        """Last time."""
        return self.time.t1

    def with_weights(self, weights: Array) -> Self:
        """The same drift with other weights. Collective."""
        other = copy.copy(self)
        with collective_errors(comm_of(self.mesh)):
            other.weights = self.check_weights(weights).copy()
        return other

    def check_weights(self, weights: Array) -> Array:
        """Weights as a flat float64 array of the right length, or a ValueError."""
        weights = np.asarray(weights, dtype=float).ravel()
        n = self.time.blocks * self.field.size
        if weights.size != n:
            raise ValueError(
                f"weights has {weights.size} entries; {n} are needed ({self.time.blocks} blocks "
                f"for pieces = {self.pieces}, times {self.field.size} of "
                f"{self.field.describe()})."
            )
        if not np.isfinite(weights).all():
            raise ValueError(
                f"weights has {(~np.isfinite(weights)).sum()} entries that are not finite, the "
                f"first at {np.flatnonzero(~np.isfinite(weights))[0]}."
            )
        return weights

    @property
    def switches(self) -> Array:
        """Times at which the weights may jump; where they are linear, at which they turn."""
        return self.time.inner_times

    def piece(self, t: float) -> Hashable | None:
        """Number of the piece that holds ``t``, if the weights are constant on pieces."""
        terms = self.time.terms(t)
        return terms[0][0] if isinstance(self.time, PiecewiseConstant) else None

    def weights_at(self, t: float) -> Array:
        """Weights that act at a time, ``(size,)``."""
        blocks = self.weights.reshape(self.time.blocks, -1)
        return self.time.mixed(blocks, self.time.terms(t))

    def __call__(self, t: float, x: Array) -> Array:
        """Drift at points, ``(N, d)`` to ``(N, d)``, length per time."""
        return self.values(t, x)

    def values(self, t: float, x: Array) -> Array:
        """Drift at points, ``(N, d)`` to ``(N, d)``, length per time."""
        return self.field.values(self.weights_at(t), x)

    @property
    def divergence(self) -> Field | None:
        """Divergence at points ``(N, d)``, shape ``(N,)``, if the field has one."""
        field = self.field
        if not isinstance(field, SmoothField):
            return None
        return lambda t, x: field.divergence(self.weights_at(t), x)

    def vjp(self, t: float, x: Array, s: Array) -> Array:
        """Derivative of ``sum(s * v(t, x))`` in the weights that act at ``t``; a rank's part.

        Args:
            t: Time.
            x: Points, ``(N, d)``.
            s: Dual values, ``(N, d)``.
        """
        return self.field.vjp(self.weights_at(t), x, s)

    def jvp(self, t: float, x: Array, direction: Array) -> Array:
        """Derivative of the drift along a direction in the weights at ``t``, ``(N, d)``."""
        return self.field.jvp(self.weights_at(t), x, direction)

    def scaled(self, x: Array) -> Array:
        """Coordinates ``(x - c)/s`` component by component, ``(N, d)`` to ``(d, N)``."""
        return np.ascontiguousarray((x.T - self.centre[:, None]) / self.scale)

    def describe(self) -> dict[str, Any]:
        """What tells this drift from another one, weights aside, ready for JSON."""
        return {
            "dimension": self.mesh.geometry.dim,
            "box": np.concatenate(self.box).tolist(),
            "pieces": self.pieces,
            "t1": self.t1,
            "time": type(self.time).__name__,
        } | self.field.describe()
