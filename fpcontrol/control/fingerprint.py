"""What tells densities, drifts and objectives from others in the fingerprint of a problem.

Functions of a user's have no form in writing, and many have one name: what they are made of is
told by values, at densities and weights that are the same in every program. Of two values that
differ by round-off beside 1 the problem is the same.
"""

from collections.abc import Callable, Sequence
from typing import Any

from mpi4py import MPI

import numpy as np

from fpcontrol.control.costs import Cost
from fpcontrol.control.network import NetworkField
from fpcontrol.control.parametric import ParametricDrift
from fpcontrol.discretization.base import SemiDiscretization
from fpcontrol.discretization.elements import Elements
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.typing import Array

# Unequal components: the mirror images and the turned images of a density on an interval, a square
# or a cube have other moments.
DIRECTION = np.array([1.0, 0.6, 0.3])


def moment(comm: MPI.Comm, y: Array, masses: Array) -> float:
    r"""A moment that tells a density from its mirror images, which have the same L2 norm.

    .. math:: \int e^{a\cdot y}\rho\,dx,\qquad a = (1, 0.6, 0.3)

    Collective.

    Args:
        comm: Communicator the points are distributed over.
        y: Points of this rank in the coordinates of ``NetworkDrift.scaled``, ``(d, N)``.
        masses: Density times quadrature weight at each, ``(N,)``.
    """
    return float(comm.allreduce(float(np.exp(DIRECTION[: len(y)] @ y) @ masses)))


def of_field(g: Elements, drift: ParametricDrift) -> dict[str, Any]:
    """Moments of a field at some weights, if it is no network. Collective.

    Nothing for a network, which its description tells from others, nor where it is not finite.
    """
    field = drift.field
    if isinstance(field, NetworkField):
        return {}
    y, w = drift.scaled(g.points), g.quadrature_weights / g.volume
    with collective_errors(g.comm):
        theta = 0.3 * np.cos(np.arange(field.size))
        v = field.values(theta, g.points) * (drift.t1 / drift.scale)
        along, square = v @ DIRECTION[: len(y)], (v * v).sum(axis=1)
    values = [1.0 + moment(g.comm, y, w * part) for part in (along, square)]
    return {"field_values": values} if np.isfinite(values).all() else {}


def of_costs(
    system: SemiDiscretization,
    costs: Sequence[Cost],
    reference: Callable[[float], Array],
    times: Array,
) -> dict[str, Any]:
    """Values of objectives at densities beside the reference, if there are any. Collective.

    The mean of the reference and the uniform density at the start, the middle and the end; for the
    drift that of the places. ``None`` where one is not defined there.
    """
    g, middle = system.elements, (len(times) - 1) // 2
    rows: list[list[float | None]] = []
    for cost in costs:
        row: list[float | None] = []
        for n in (0, middle, len(times) - 1):
            rho = 0.5 * (reference(float(times[n])) + 1.0 / g.volume)
            try:
                with collective_errors(g.comm):
                    value = cost.level(n, rho)
                    if cost.has_drift_part and n == middle:
                        value += cost.step(n, rho, system.points.copy())
                row.append(1.0 + g.sum(value))
            except (ArithmeticError, ValueError):
                row.append(None)
        rows.append([v if v is None or np.isfinite(v) else None for v in row])
    return {"objective_values": rows} if rows else {}
