"""A drift on a mesh with periodic sides, asked anywhere along these."""

from mpi4py import MPI

from fpcontrol.discretization.periodic import JUMP, Periodic
from fpcontrol.drift.base import Derived, Drift, as_drift
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.typing import Array, Field, VectorField


class Turned(Derived):
    """A drift at points that have gone round: asked in the box, where these are by whole periods.

    Args:
        drift: The drift or a bare callable.
        periodic: What is periodic.
    """

    def __init__(self, drift: VectorField, periodic: Periodic) -> None:
        self.drift, self.periodic = as_drift(drift), periodic

    def __call__(self, t: float, x: Array) -> Array:
        """Values at points, ``(N, d)``."""
        return self.drift(t, self.periodic.wrapped(x))

    @property
    def everywhere(self) -> bool:
        """As the drift."""
        return self.drift.everywhere

    @property
    def divergence(self) -> Field | None:
        """Of the drift, if it is known."""
        own = self.drift.divergence
        return None if own is None else lambda t, x: own(t, self.periodic.wrapped(x))


def turned[D: Field | str | None](
    drift: VectorField, divergence: D, periodic: Periodic
) -> tuple[Turned, Field | D]:
    """A drift and its divergence, if that is callable, at points that have gone round."""
    if not callable(divergence):
        return Turned(drift, periodic), divergence
    return Turned(drift, periodic), lambda t, x: divergence(t, periodic.wrapped(x))


def check_turn(drift: Drift, t: float, periodic: Periodic, comm: MPI.Comm) -> None:
    """Refuse a drift that jumps at periodic sides: without noise mass would pile up. Collective.

    Args:
        drift: The drift, or a ``Turned`` one.
        t: When it is asked.
        periodic: What is periodic.
        comm: Communicator of those that call.

    Raises:
        ValueError: On all ranks.
    """
    with collective_errors(comm):
        own = drift.drift if isinstance(drift, Turned) else drift
        jump = periodic.jump(lambda x: own(t, x))
        if jump > JUMP:
            raise ValueError(
                f"drift is not periodic in {', '.join(periodic.names)}: at t = {t:g} it jumps "
                f"by {jump:.2g} of its largest value where two sides are one, and without noise "
                "the density is not a function there. Make it periodic, or take sigma > 0."
            )
