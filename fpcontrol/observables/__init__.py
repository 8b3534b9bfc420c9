"""Observables: what is measured of a density at every step of a run, without keeping levels.

``equation.solve(..., observables={"mean": fpc.observables.mean(), ...})`` gives
``trajectory.observables["mean"]``, an array over all time levels. Any function ``f(t, rho)`` of
the time and the density, a dolfinx Function, is one too: called on all ranks, on which it must
return the same, it may be collective. Your own with work that is done once: derive from
``Observable``.
"""

from collections.abc import Callable

from dolfinx import fem
from dolfinx.mesh import MeshTags

from fpcontrol.discretization.sets import Where
from fpcontrol.observables.base import Evaluation, Observable, Setting, Smooth
from fpcontrol.observables.flux import Direction, Flux
from fpcontrol.observables.functionals import Distance, Entropy, Measure, Reference
from fpcontrol.observables.integrals import (
    Covariance,
    Energy,
    Expectation,
    Integral,
    Linear,
    Mass,
    Mean,
)
from fpcontrol.typing import Array

__all__ = [
    "Evaluation",
    "Integral",
    "Linear",
    "Observable",
    "Setting",
    "covariance",
    "distance",
    "energy",
    "entropy",
    "expectation",
    "flux",
    "mass",
    "mean",
]


def mean() -> Integral:
    r"""Mean :math:`\int x\rho / \int\rho`, ``(d,)``; where walls absorb, of what is left."""
    return Mean()


def covariance() -> Integral:
    r"""Covariance :math:`\int (x-m)(x-m)^\top\rho / \int\rho`, ``(d, d)``, m the mean."""
    return Covariance()


def mass(where: Where | None = None, *, tags: MeshTags | None = None) -> Integral:
    r"""Mass of a region, :math:`\int_A\rho`; of all of the domain unless given.

    Args:
        where: ``marker(x)`` as in dolfinx, ``x`` of shape ``(3, N)``, to booleans: where its edge
            cuts cells they are looked at in 64 parts in 1-D, 16 a side in 2-D, 6 in 3-D. Or one or
            several tags of cells: exact.
        tags: ``MeshTags`` of cells, if ``where`` names some.
    """
    return Mass(where, tags)


def expectation(f: Callable[[Array], Array]) -> Integral:
    r""":math:`\int f\rho` of a function of place.

    Args:
        f: ``f(x)`` with ``x`` of shape ``(3, N)``, as ``fpc.density.interpolate`` takes it, to
            ``(N,)``, or to ``(k, N)`` for k values.
    """
    return Expectation(f)


def energy(V: Callable[[Array], Array] | fem.Function) -> Integral:
    r""":math:`\int V\rho` of a potential, callable or Function, as ``fpc.drift.gradient`` takes it.

    With ``entropy``, energy - D entropy is the free energy, which does not grow with the drift
    ``fpc.drift.gradient(V)`` between walls that reflect.
    """
    return Energy(V)


def entropy() -> Smooth:
    r""":math:`-\int\rho\log\rho`, by quadrature; where the density is not positive, 0.

    As an objective of positive densities alone.
    """
    return Entropy()


def flux(
    where: Where, *, tags: MeshTags | None = None, direction: Direction | None = None
) -> Smooth:
    r"""Mass per time through facets, :math:`\int (v\rho - D\nabla\rho)\cdot n\,dS`.

    From the density's own slopes, of the order of the degree. What absorbing walls have taken is
    known to round-off: ``Trajectory.absorbed``. As an objective through absorbing walls alone.

    Args:
        where: ``marker(x)`` as ``dolfinx.mesh.locate_entities`` takes it, true at all vertices of
            a facet; or one or several tags.
        tags: ``MeshTags`` of facets, if ``where`` names some.
        direction: Which way counts: a vector ``(d,)`` or a function of x, ``(N, d)`` to
            ``(N, d)``; outward unless given, and needed for facets between cells.
    """
    return Flux(where, tags, direction)


def distance(
    reference: fem.Function | Reference | Callable[[float], fem.Function],
    measure: Measure | None = None,
) -> Observable:
    r"""Distance to a reference, in L2 unless told otherwise.

    Args:
        reference: A density; or what gives one at a time: ``fpc.MoserFlow``, or a function of t.
        measure: ``measure(rho, reference)`` to a number, such as ``fpc.distances.kl``. Unless
            given, the norm in L2 of the difference of densities of one space.
    """
    return Distance(reference, measure)
