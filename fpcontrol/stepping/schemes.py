"""Time schemes as values: singly diagonally implicit Runge-Kutta tableaux."""

from dataclasses import dataclass
from typing import ClassVar

# A drift may jump where a piece ends, so the end of a step is approached from inside. The shift
# changes a drift that is smooth in time by 1e-9 of its change over the step, and is far above the
# rounding of the time levels up to a million steps.
INSIDE = 1e-9


class Scheme:
    r"""A singly diagonally implicit Runge-Kutta scheme, given by its Butcher tableau.

    With :math:`\gamma = a_{ii}` equal for all stages, each stage solves with
    :math:`M + \gamma\,dt\,N(v(t + c_i\,dt))`. A scheme of several stages is stiffly accurate, that
    is, b is the last row of a: its last stage is the new level.

    Attributes:
        a: Lower triangular, ``(s, s)``.
        b: Weights, ``(s,)``.
        c: Nodes, ``(s,)``, inside the step: a drift may jump at its end.
        order: Order of convergence for smooth solutions.
    """

    a: ClassVar[tuple[tuple[float, ...], ...]]
    b: ClassVar[tuple[float, ...]]
    c: ClassVar[tuple[float, ...]]
    order: ClassVar[int]

    @property
    def gamma(self) -> float:
        """The diagonal entry of ``a``."""
        return self.a[0][0]

    @property
    def name(self) -> str:
        """Name of the scheme."""
        return type(self).__name__


@dataclass(frozen=True)
class CrankNicolson(Scheme):
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
class BackwardEuler(Scheme):
    r"""First order, L-stable: :math:`(M + dt\,N(v_1))\,\rho_{n+1} = M\rho_n`."""

    a: ClassVar = ((1.0,),)
    b: ClassVar = (1.0,)
    c: ClassVar = (1.0 - INSIDE,)
    order: ClassVar = 1


def check_scheme(scheme: Scheme | None) -> Scheme:
    """The scheme, ``CrankNicolson()`` for none, or a ValueError for what is no scheme."""
    if scheme is None:
        return CrankNicolson()
    if not isinstance(scheme, Scheme):
        what = scheme.__name__ if isinstance(scheme, type) else repr(scheme)
        raise ValueError(
            f"scheme = {what} is no scheme; give a value such as CrankNicolson() or SDIRK4()."
        )
    return scheme


_ALEXANDER = 1.0 - 0.5**0.5


@dataclass(frozen=True)
class SDIRK2(Scheme):
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
class SDIRK4(Scheme):
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
