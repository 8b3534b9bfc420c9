r"""A smooth bound on the speed of a field, with all derivatives.

.. math:: v = r\,u,\qquad r = (1 + |u|^2/c^2)^{-1/2},\qquad |v| < c ,

in the direction of u, and u itself to second order where it is slow. The divergence follows,

.. math::
    \nabla\cdot v = r\,\nabla\cdot u - \frac{r^3}{c^2}\,\kappa,\qquad
    \kappa = u\cdot(u\cdot\nabla)u .

Here fields are component by component, ``(d, N)``; divergences and kappa ``(N,)``.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fpcontrol.typing import Array


class Motion(NamedTuple):
    r"""A field at points, or a change of it, or a dual.

    Attributes:
        u: Values, ``(d, N)``.
        divergence: Shape ``(N,)``.
        kappa: :math:`u\cdot(u\cdot\nabla)u`, ``(N,)``.
    """

    u: Array
    divergence: Array
    kappa: Array


@dataclass(frozen=True)
class SpeedLimit:
    """The bound.

    Attributes:
        c: Largest speed, length per time.

    Raises:
        ValueError: If it is no positive number.
    """

    c: float

    def __post_init__(self) -> None:
        number = isinstance(self.c, int | float | np.number) and not isinstance(self.c, bool)
        if not (number and np.isfinite(self.c) and self.c > 0.0):
            raise ValueError(
                f"max_speed = {self.c!r} must be a positive speed, in the mesh's unit of length "
                "per unit of time, or None."
            )

    def values(self, u: Array) -> Array:
        """``v``, ``(d, N)``."""
        return u * self._factor(u)

    def jvp(self, u: Array, du: Array) -> Array:
        """Derivative of v along a change of u; the matrix is symmetric, so its transpose too."""
        r = self._factor(u)
        return r * du - (r**3 / self.c**2 * np.einsum("in,in->n", u, du)) * u

    def divergence(self, m: Motion) -> Array:
        """Divergence of v, ``(N,)``."""
        r = self._factor(m.u)
        return r * m.divergence - r**3 / self.c**2 * m.kappa

    def motion_jvp(self, m: Motion, dm: Motion) -> tuple[Array, Array]:
        """Derivatives of v and of its divergence along a change."""
        r, k = self._factor(m.u), 1.0 / self.c**2
        dr = -(r**3) * k * np.einsum("in,in->n", m.u, dm.u)
        dd = dr * (m.divergence - 3.0 * k * r**2 * m.kappa)
        dd += r * dm.divergence - r**3 * k * dm.kappa
        return r * dm.u + dr * m.u, dd

    def motion_vjp(self, m: Motion, sv: Array, sd: Array) -> Motion:
        """Derivative of ``sum(sv * v) + sum(sd * divergence)`` in the motion."""
        r, k = self._factor(m.u), 1.0 / self.c**2
        sr = np.einsum("in,in->n", sv, m.u) + sd * (m.divergence - 3.0 * k * r**2 * m.kappa)
        return Motion(r * sv - (sr * r**3 * k) * m.u, r * sd, -(r**3) * k * sd)

    def _factor(self, u: Array) -> Array:
        """``r``, ``(N,)``."""
        return 1.0 / np.sqrt(1.0 + np.einsum("in,in->n", u, u) / self.c**2)
