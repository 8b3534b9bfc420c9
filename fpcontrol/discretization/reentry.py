r"""Mass that absorbing walls take and that enters again, at once, at a given density.

.. math::
    M\dot\rho = -N(v, D)\,\rho + f\,M r,\qquad f = \text{what the walls take per time},\quad
    \int r\,dx = 1

The mass is constant. Time steps make up for it (``stepping.reentry``); operators are those of the
walls alone.
"""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from dolfinx import fem
from dolfinx.mesh import MeshTags

from fpcontrol.discretization.absorbing import Walls
from fpcontrol.discretization.elements import Elements
from fpcontrol.discretization.periodic import dof_places
from fpcontrol.discretization.reactions import Reactions
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.typing import Array

if TYPE_CHECKING:
    from fpcontrol.discretization.base import SemiDiscretization

type Entry = fem.Function | Callable[[Array], Array]


class Reentry:
    """The density at which mass enters again, on one mesh. Collective.

    Args:
        system: The method in space, with its walls.
        entry: A Function of the equation's space, or ``r(x)``, ``x`` of shape ``(N, d)``, to
            ``(N,)``, taken at the nodes; not negative. Without its values on the walls, and scaled
            to mass 1.

    Raises:
        ValueError: On all ranks, for anything else, where no wall absorbs, or beside reactions.

    Attributes:
        density: r, of mass 1, local.
    """

    def __init__(self, system: "SemiDiscretization", entry: Entry) -> None:
        g, walls = system.elements, system.absorbing
        if walls is None:
            raise ValueError(
                "reentry: no wall absorbs, so that nothing can enter again; name walls by "
                "absorbing=..."
            )
        if system.reacting is not None:
            raise ValueError(
                "reentry and reactions cannot be had together: what is killed does not enter "
                "again. Leave one of them out."
            )
        self.density = values = np.zeros(g.n_local)
        with collective_errors(g.comm):
            values[:] = _values(g, entry)
            _check(values, dof_places(g.space)[:, : g.dimension])
        walls.project(values)
        mass = g.integral(values)
        if not mass > 0.0:
            raise ValueError(
                f"reentry has mass {mass:g} beside the absorbing walls; it must be positive at "
                "some nodes. Take one that is at least as wide as a cell."
            )
        values /= mass

    def describe(self, g: Elements) -> dict[str, float]:
        """Figures that differ for another density, for checkpoints and records. Collective."""
        x = dof_places(g.space)[: g.n_owned, : g.dimension]
        own = g.integrals * self.density[: g.n_owned]
        mean = [g.sum(float(own @ x[:, k])) for k in range(g.dimension)]
        return {"norm": g.norm(self.density)} | {f"mean{k}": u for k, u in enumerate(mean)}


def bounded[S: "SemiDiscretization"](
    system: S,
    absorbing: Walls | None,
    facet_tags: MeshTags | None,
    reactions: Reactions | None,
    reentry: Entry | None,
) -> S:
    """A method with walls, reactions, and entry anew of what the walls take. Collective.

    Raises:
        ValueError: As ``with_walls``, ``with_reactions`` and ``Reentry``.
    """
    result = system.with_walls(absorbing, facet_tags).with_reactions(reactions)
    if reentry is not None:
        result = copy.copy(result)
        result.reentry = Reentry(result, reentry)
    return result


def described(system: "SemiDiscretization") -> dict[str, dict[str, float]]:
    """Figures of what ``bounded`` has given a method, by its options' names. Collective."""
    parts = system.absorbing, system.reacting, system.reentry
    found = {"absorbing": parts[0].describe()} if parts[0] else {}
    found |= {"reactions": parts[1].describe(system.elements)} if parts[1] else {}
    return found | ({"reentry": parts[2].describe(system.elements)} if parts[2] else {})


def _values(g: Elements, entry: Any) -> Array:
    """Values at the local nodes. Not collective."""
    if isinstance(entry, fem.Function):
        if entry.function_space.element != g.space.element or (
            entry.function_space.mesh is not g.mesh
        ):
            raise ValueError(
                "reentry: the Function is of another space than the equation's density."
            )
        return np.asarray(entry.x.array)
    if not callable(entry):
        raise ValueError(
            f"reentry = {entry!r} must be a density (fpc.density) or a callable r(x) of x (N, d)."
        )
    x = dof_places(g.space)[:, : g.dimension]
    values = np.asarray(entry(x.copy()), dtype=float)
    if values.shape != (len(x),):
        raise ValueError(
            f"reentry(x) returned shape {values.shape} for x of shape {x.shape}; ({len(x)},) is "
            "needed."
        )
    return values


def _check(values: Array, x: Array) -> None:
    bad = ~np.isfinite(values) | (values < 0.0)
    if bad.any():
        i = int(bad.argmax())
        raise ValueError(
            f"reentry is {values[i]:g} at x = {x[i]}; a density is finite and not negative. Clip "
            "it, as by np.maximum(r, 0.0)."
        )
