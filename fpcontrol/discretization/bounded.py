"""A method in space with walls that absorb, what reacts inside, and what enters again."""

import copy
from numbers import Real
from typing import Any

import numpy as np
from dolfinx import fem
from dolfinx.mesh import MeshTags

from fpcontrol.discretization.absorbing import Walls
from fpcontrol.discretization.base import SemiDiscretization
from fpcontrol.discretization.elements import Elements
from fpcontrol.discretization.periodic import dof_places
from fpcontrol.discretization.reactions import Rate, Reacting, Reactions
from fpcontrol.discretization.reentry import Entry, Reentry
from fpcontrol.discretization.restoration import NoRestoration
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.typing import Array


def bounded[S: SemiDiscretization](
    system: S,
    absorbing: Walls | None,
    facet_tags: MeshTags | None,
    reactions: Reactions | None,
    reentry: Entry | None,
) -> S:
    """A method with walls, reactions, and entry anew of what the walls take. Collective.

    Args:
        system: The method in space.
        absorbing: See ``SemiDiscretization.with_walls``.
        facet_tags: Likewise.
        reactions: Sources and killing.
        reentry: A Function of the equation's space, or ``r(x)``, ``x`` of shape ``(N, d)``, to
            ``(N,)``, taken at the nodes; not negative. Without its values on the walls, and scaled
            to mass 1.

    Returns:
        The method beside the one given; that itself if there is nothing to add.

    Raises:
        ValueError: On all ranks, for walls that are not there, reactions or a density that are not
            as they should be, what the method does not take, and for ``reentry`` where no wall
            absorbs or beside reactions.
    """
    result = system.with_walls(absorbing, facet_tags)
    if reactions is not None:
        reacting = _reacting(result, reactions)
        result = copy.copy(result)
        result.reacting = reacting
        result.restoration = NoRestoration(result.absorbing, result.positive)
    if reentry is not None:
        entering = _entering(result, reentry)
        result = copy.copy(result)
        result.reentry = entering
    return result


def described(system: SemiDiscretization) -> dict[str, dict[str, float]]:
    """Figures of what ``bounded`` has given a method, by its options' names. Collective."""
    parts = system.absorbing, system.reacting, system.reentry
    found = {"absorbing": parts[0].describe()} if parts[0] else {}
    found |= {"reactions": parts[1].describe(system.elements)} if parts[1] else {}
    return found | ({"reentry": parts[2].describe(system.elements)} if parts[2] else {})


def _reacting(system: SemiDiscretization, reactions: Reactions) -> Reacting:
    """Reactions discretized by a method. Collective."""
    if not isinstance(reactions, Reactions):
        raise ValueError(
            f"reactions = {reactions!r} must be fpc.Reactions(killing=..., source=...)."
        )
    x = system.reaction_points  # raises if the method takes none
    g = system.elements
    killing: Array | None = None
    loss, load = np.zeros(g.n_owned), np.zeros(g.n_owned)
    k, s = reactions.killing, reactions.source
    if k is not None:
        values = _rates(system, x, k, "killing")
        # A number is a multiple of M, whatever the quadrature.
        number = isinstance(k, Real)
        killing = system.mass_values * float(k) if number else system.weighted(values)  # type: ignore[arg-type]
        ones, image = g.vector(), g.vector()
        ones.set(np.ones(g.n_local))
        g.matrix(killing.copy()).mat.mult(ones.petsc_vec, image.petsc_vec)
        loss = image.array[: g.n_owned].copy()
        if not g.sum(float(loss.sum())) > 0.0:
            killing = None
    if isinstance(s, fem.Function):
        if s.function_space.element != g.space.element or s.function_space.mesh is not g.mesh:
            raise ValueError(
                "source: the Function is of another space than the equation's density."
            )
        with collective_errors(g.comm):
            _check_rates(s.x.array[: g.n_owned], None, "source", nodes=True)
        image, y = g.vector(), g.vector()
        y.set(s.x.array)
        system.mass.mult(y.petsc_vec, image.petsc_vec)
        load = image.array[: g.n_owned].copy()
    elif s is not None:
        load = system.load(_rates(system, x, s, "source"))
    return Reacting(killing, loss, load, g.sum(float(load.sum())))


def _entering(system: SemiDiscretization, entry: Entry) -> Reentry:
    """A density for a method with its walls. Collective."""
    g, walls = system.elements, system.absorbing
    if walls is None:
        raise ValueError(
            "reentry: no wall absorbs, so that nothing can enter again; name walls by absorbing=..."
        )
    if system.reacting is not None:
        raise ValueError(
            "reentry and reactions cannot be had together: what is killed does not enter "
            "again. Leave one of them out."
        )
    density = np.zeros(g.n_local)
    with collective_errors(g.comm):
        density[:] = _densities(g, entry)
        _check_densities(density, dof_places(g.space)[:, : g.dimension])
    walls.project(density)
    mass = g.integral(density)
    if not mass > 0.0:
        raise ValueError(
            f"reentry has mass {mass:g} beside the absorbing walls; it must be positive at "
            "some nodes. Take one that is at least as wide as a cell."
        )
    return Reentry(density / mass)


def _rates(system: SemiDiscretization, x: Array, rate: Rate, name: str) -> Array:
    """Values at points. Collective."""
    with collective_errors(system.comm):
        if isinstance(rate, Real) and not isinstance(rate, bool):
            values = np.full(len(x), float(rate))
        elif callable(rate):
            values = np.asarray(rate(x), dtype=float)
        else:
            raise ValueError(f"{name} = {rate!r} must be a number or a callable of x.")
        _check_rates(values, x, f"{name} = {rate!r}" if isinstance(rate, Real) else name)
    return values


def _check_rates(values: Array, x: Array | None, name: str, nodes: bool = False) -> None:
    if x is not None and values.shape != (len(x),):
        raise ValueError(
            f"{name}(x) returned shape {values.shape} for x of shape {x.shape}; ({len(x)},) is "
            "needed."
        )
    bad = ~np.isfinite(values) | (values < 0.0) if not nodes else ~np.isfinite(values)
    if bad.any():
        i = int(bad.argmax())
        where = "" if x is None else f" at x = {x[i]}"
        raise ValueError(
            f"{name} is {values[i]:g}{where}; it must be finite and not negative: what takes mass "
            "in proportion to the density is killing, what adds mass is a source."
        )


def _densities(g: Elements, entry: Any) -> Array:
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


def _check_densities(values: Array, x: Array) -> None:
    bad = ~np.isfinite(values) | (values < 0.0)
    if bad.any():
        i = int(bad.argmax())
        raise ValueError(
            f"reentry is {values[i]:g} at x = {x[i]}; a density is finite and not negative. Clip "
            "it, as by np.maximum(r, 0.0)."
        )
