"""How the mass that an inexact solve has lost is given back; see ``base.Restoration``."""

import numpy as np

from fpcontrol.discretization import kernels
from fpcontrol.discretization.absorbing import Absorbing
from fpcontrol.discretization.elements import Elements
from fpcontrol.parallel.errors import reduced
from fpcontrol.typing import Array


class AdditiveRestoration:
    r"""Gives lost mass back along the constant: :math:`P w = w - 1\,(1^\top M w)/|\Omega|`.

    An exact solve does not feel it, because :math:`1^\top A = 1^\top M` for an operator A whose
    walls take no mass.
    """

    def __init__(self, elements: Elements) -> None:
        self._elements = elements

    def increment(
        self, y: Array, start: Array, gamma: float, b: float, u: Array, d: Array, out: Array
    ) -> None:
        r""":math:`d = P(y - r)/\gamma` and ``out += b d``. Collective."""
        g = self._elements
        shift = g.integral(np.subtract(y, start, out=d)) / g.volume
        kernels.increment(y, start, shift, gamma, b, d, out)

    def transpose(self, delta: Array, gamma: float, u: Array, out: Array) -> None:
        r""":math:`P^\top\delta/\gamma = \delta/\gamma - M1\,(1^\top\delta)/(\gamma|\Omega|)`."""
        g = self._elements
        mean = g.sum(delta.sum()) / (gamma * g.volume)
        kernels.projected(delta, 1.0 / gamma, g.integrals, mean, out)


class MultiplicativeRestoration:
    r"""Gives lost mass back in proportion to the density, which stays positive: for one stage.

    :math:`u = y\,(1^\top M r)/(1^\top M y)`, so :math:`P w = w - u\,(1^\top M w)/(1^\top M u)`.
    """

    def __init__(self, elements: Elements) -> None:
        self._elements = elements

    def increment(
        self, y: Array, start: Array, gamma: float, b: float, u: Array, d: Array, out: Array
    ) -> None:
        """The increment, and ``out = y`` with its mass restored (gamma = b = 1). Collective."""
        g, owned = self._elements, slice(self._elements.n_owned)
        gained, mass = self._sums(
            np.array([g.integrals @ (y - start)[owned], g.integrals @ u[owned]])
        )
        share = gained / mass
        if u is y:
            np.multiply(y, 1.0 - share, out=out)
        else:
            np.subtract(y, share * u, out=out)
        np.subtract(out, start, out=d)

    def transpose(self, delta: Array, gamma: float, u: Array, out: Array) -> None:
        r""":math:`P^\top\delta = \delta - M1\,(u\cdot\delta)/(1^\top M u)`. Collective."""
        g, owned = self._elements, u[: self._elements.n_owned]
        product, mass = self._sums(np.array([owned @ delta, g.integrals @ owned]))
        np.subtract(delta, (product / mass) * g.integrals, out=out[: g.n_owned])

    def _sums(self, values: Array) -> Array:
        return reduced(self._elements.comm, values)


class NoRestoration:
    r"""Where mass comes or goes :math:`P = I`, and duals vanish on the walls that absorb.

    What walls take of a positive density is made exact by ``Absorbing.restored``.

    Args:
        absorbing: The walls that absorb, if any do.
        positive: Whether the method stays positive, in steps of one stage: then the new level is
            what was solved for to the last bit, lest round-off make it negative.
    """

    def __init__(self, absorbing: Absorbing | None, positive: bool) -> None:
        self._absorbing, self._positive = absorbing, positive

    def increment(
        self, y: Array, start: Array, gamma: float, b: float, u: Array, d: Array, out: Array
    ) -> None:
        r""":math:`d = (y - r)/\gamma` and ``out += b d``."""
        kernels.increment(y, start, 0.0, gamma, b, d, out)
        if self._positive:
            out[:] = y

    def transpose(self, delta: Array, gamma: float, u: Array, out: Array) -> None:
        r""":math:`Q\delta/\gamma`."""
        np.divide(delta, gamma, out=out[: len(delta)])
        if self._absorbing:
            self._absorbing.project_owned(out)
