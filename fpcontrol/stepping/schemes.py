"""Time schemes as values: Runge-Kutta tableaux and the exponential."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fpcontrol.discretization.base import Discretization
from fpcontrol.typing import Array

# A drift may jump where a piece ends, so the end of a step is approached from inside. The shift
# changes a drift that is smooth in time by 1e-9 of its change over the step, and is far above the
# rounding of the time levels up to a million steps.
INSIDE = 1e-9


class Scheme:
    """A time scheme.

    Attributes:
        c: Where in a step the drift and the noise are asked for, in units of the step, inside it:
            a drift may jump at its end.
        order: Order of convergence for smooth solutions.
    """

    c: ClassVar[tuple[float, ...]]
    order: ClassVar[int]

    @property
    def name(self) -> str:
        """Name of the scheme."""
        return type(self).__name__

    @property
    def positive(self) -> bool:
        """Whether it keeps a density positive, for a monotone method and every step."""
        return False

    @property
    def damping(self) -> float:
        """What a step leaves of the stiffest parts of a density: 0 for an L-stable scheme."""
        return 0.0

    def refusal(self, discretization: Discretization) -> str | None:
        """Why it cannot serve a method in space; ``None`` if it can."""
        return None

    @property
    def fault(self) -> str:
        """What is wrong with the scheme; an empty string if nothing is."""
        return ""


class RungeKutta(Scheme):
    r"""A singly diagonally implicit Runge-Kutta scheme, given by its Butcher tableau.

    With :math:`\gamma = a_{ii}` equal for all stages, each stage solves with
    :math:`M + \gamma\,dt\,N(v(t + c_i\,dt))`. A scheme of several stages is stiffly accurate, that
    is, b is the last row of a: its last stage is the new level. Where a scheme is handed in, its
    tableau is checked (``tableau_fault``).

    Attributes:
        a: Lower triangular, ``(s, s)``.
        b: Weights, ``(s,)``.
        c: Nodes, ``(s,)``.
    """

    a: ClassVar[tuple[tuple[float, ...], ...]]
    b: ClassVar[tuple[float, ...]]

    @property
    def gamma(self) -> float:
        """The diagonal entry of ``a``."""
        return self.a[0][0]

    @property
    def positive(self) -> bool:
        """For backward Euler: no Runge-Kutta scheme of order above 1 is, whatever the step."""
        return self.a == ((1.0,),)

    @property
    def damping(self) -> float:
        r""":math:`|1 - b^\top a^{-1} 1|`."""
        a = np.array(self.a)
        return abs(1.0 - float(np.array(self.b) @ np.linalg.solve(a, np.ones(len(a)))))

    @property
    def fault(self) -> str:
        """See ``tableau_fault``."""
        return tableau_fault(self)


@dataclass(frozen=True)
class CrankNicolson(RungeKutta):
    r"""Second order, A-stable: the implicit midpoint rule, one operator a step.

    .. math::
        (M + \tfrac{dt}{2} N(v_{1/2}))\,u = M\rho_n,\qquad \rho_{n+1} = 2u - \rho_n

    Not L-stable: on rough data or at a switch of a drift with :math:`v\cdot n\neq 0` it rings.
    """

    a: ClassVar = ((0.5,),)
    b: ClassVar = (1.0,)
    c: ClassVar = (0.5,)
    order: ClassVar = 2


@dataclass(frozen=True)
class BackwardEuler(RungeKutta):
    r"""First order, L-stable: :math:`(M + dt\,N(v_1))\,\rho_{n+1} = M\rho_n`."""

    a: ClassVar = ((1.0,),)
    b: ClassVar = (1.0,)
    c: ClassVar = (1.0 - INSIDE,)
    order: ClassVar = 1


_ALEXANDER = 1.0 - 0.5**0.5


@dataclass(frozen=True)
class SDIRK2(RungeKutta):
    """Second order, L-stable, two stages: for rough data and for switching drifts.

    References:
        R. Alexander, Diagonally implicit Runge-Kutta methods for stiff O.D.E.'s, SIAM J. Numer.
        Anal. 14 (1977).
    """

    a: ClassVar = ((_ALEXANDER, 0.0), (1.0 - _ALEXANDER, _ALEXANDER))
    b: ClassVar = (1.0 - _ALEXANDER, _ALEXANDER)
    c: ClassVar = (_ALEXANDER, 1.0 - INSIDE)
    order: ClassVar = 2


@dataclass(frozen=True)
class SDIRK4(RungeKutta):
    """Fourth order, L-stable, five stages.

    Gauss-Legendre collocation has order 4 with two stages, but they are coupled: systems of twice
    the size, or complex ones. It is not L-stable either: at switches and on rough data it rings as
    Crank-Nicolson does, where this scheme damps. Here all stages share one real operator, up to the
    drift, and its solver.

    References:
        E. Hairer, G. Wanner, Solving Ordinary Differential Equations II, section IV.6, (6.16).
    """

    a: ClassVar = (
        (1 / 4, 0.0, 0.0, 0.0, 0.0),
        (1 / 2, 1 / 4, 0.0, 0.0, 0.0),
        (17 / 50, -1 / 25, 1 / 4, 0.0, 0.0),
        (371 / 1360, -137 / 2720, 15 / 544, 1 / 4, 0.0),
        (25 / 24, -49 / 48, 125 / 16, -85 / 12, 1 / 4),
    )
    b: ClassVar = (25 / 24, -49 / 48, 125 / 16, -85 / 12, 1 / 4)
    c: ClassVar = (1 / 4, 3 / 4, 11 / 20, 1 / 2, 1.0 - INSIDE)
    order: ClassVar = 4


@dataclass(frozen=True)
class Exponential(Scheme):
    r"""The exponential over a step, for a monotone method: positive, conservative, no solver.

    .. math::
        \rho_{n+1} = \exp\bigl(-dt\,M^{-1}N(v_{1/2})\bigr)\rho_n

    with the drift in the middle of the step: no error in time for a drift that is constant in
    every step, as one whose weights are constant in pieces; of order 2 else. By uniformization
    (``stepping.exponential``), whose products with a matrix grow with :math:`dt\,D/h^2` of the
    smallest cell: it pays up to some 35 of those.
    """

    c: ClassVar = (0.5,)
    order: ClassVar = 2

    @property
    def positive(self) -> bool:
        """Yes."""
        return True

    def refusal(self, discretization: Discretization) -> str | None:
        """Of methods that are not monotone."""
        if discretization.monotone:
            return None
        return (
            "uniformization needs a lumped mass matrix and an operator that is an M-matrix, as "
            "Monotone() has them."
        )


def check_scheme(
    scheme: Scheme | None, discretization: Discretization, absorbing: bool = False
) -> Scheme:
    """The scheme, or a ValueError for what is no sound scheme or cannot serve a discretization.

    For none ``CrankNicolson()``, or ``BackwardEuler()`` where only that serves; with absorbing
    walls ``SDIRK2()``: a start density does not vanish there, as a rule, and Crank-Nicolson rings.
    """
    if scheme is None:
        choices = (SDIRK2() if absorbing else CrankNicolson(), CrankNicolson(), BackwardEuler())
        return next(choice for choice in choices if not discretization.refusal(choice))
    if not isinstance(scheme, Scheme):
        what = scheme.__name__ if isinstance(scheme, type) else repr(scheme)
        raise ValueError(
            f"scheme = {what} is no scheme; give a value such as CrankNicolson() or SDIRK4()."
        )
    if fault := scheme.fault:
        raise ValueError(f"scheme = {scheme.name}: {fault}")
    if why := discretization.refusal(scheme) or scheme.refusal(discretization):
        raise ValueError(f"scheme = {scheme.name} cannot serve {discretization!r}: {why}")
    return scheme


def tableau_fault(scheme: RungeKutta) -> str:
    r"""What is wrong with a tableau; an empty string if nothing is.

    The step needs equal positive diagonal entries, the last row of a equal to b where there are
    several stages, and nodes inside the step; consistency needs :math:`\sum_j a_{ij} = c_i`,
    :math:`\sum b_i = 1`, and an order its order conditions (to 4).
    """
    try:
        a, b, c = (np.array(part, dtype=float) for part in (scheme.a, scheme.b, scheme.c))
        order = int(scheme.order)
    except (AttributeError, TypeError, ValueError) as error:
        return f"a, b, c must be tables of numbers and order a whole number ({error})."
    s = len(b) if b.ndim == 1 else 0
    if not s or a.shape != (s, s) or c.shape != (s,):
        return (
            f"a, b, c have shapes {a.shape}, {b.shape}, {c.shape}; (s, s), (s,), (s,) are needed."
        )
    if not all(np.isfinite(part).all() for part in (a, b, c)):
        return "a, b, c must be finite."
    if np.triu(a, 1).any():
        return f"a = {a.tolist()} has entries above the diagonal; stages must be solved one by one."
    diagonal = a.diagonal()
    if not (diagonal > 0.0).all() or np.ptp(diagonal) > 1e-14:
        return f"the diagonal of a, {diagonal.tolist()}, must be one positive number throughout."
    if ((c < 0.0) | (c >= 1.0)).any():
        return f"c = {c.tolist()} must be inside the step, 0 <= c < 1: a drift may jump at its end."
    if s > 1 and not np.allclose(a[-1], b, rtol=0.0, atol=1e-14):
        return f"b = {b.tolist()} must be the last row of a, {a[-1].tolist()} (stiffly accurate)."
    nodes = a.sum(axis=1)
    if not np.allclose(nodes, c, rtol=0.0, atol=10.0 * INSIDE):
        return f"c = {c.tolist()} must be the sums of the rows of a, {nodes.tolist()}."
    for p, words, value, right in _conditions(a, b, nodes):
        if p <= order and abs(value - right) > 1e-12:
            return f"order = {order} needs {words} = {right:g}; it is {value:g}."
    return ""


def _conditions(a: Array, b: Array, c: Array) -> list[tuple[int, str, float, float]]:
    """Order conditions: order, left side in words, its value, right side."""
    return [
        (1, "sum b", float(b.sum()), 1.0),
        (2, "b.c", float(b @ c), 1 / 2),
        (3, "b.c^2", float(b @ c**2), 1 / 3),
        (3, "b.a.c", float(b @ a @ c), 1 / 6),
        (4, "b.c^3", float(b @ c**3), 1 / 4),
        (4, "(b c).a.c", float((b * c) @ a @ c), 1 / 8),
        (4, "b.a.c^2", float(b @ a @ c**2), 1 / 12),
        (4, "b.a.a.c", float(b @ a @ a @ c), 1 / 24),
    ]
