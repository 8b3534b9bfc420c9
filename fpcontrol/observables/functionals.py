"""Observables that are no integrals of the density: entropy, and the distance to a reference."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from dolfinx import fem

from fpcontrol.density import check_density
from fpcontrol.discretization.base import SemiDiscretization
from fpcontrol.discretization.elements import Elements
from fpcontrol.noise import Noise
from fpcontrol.observables.base import Evaluation, Observable, Setting, Smooth, SmoothEvaluation
from fpcontrol.observables.quadrature import CellRule
from fpcontrol.parallel.errors import raise_collectively
from fpcontrol.typing import Array

# Of the rule for rho log rho, over the degree of the elements.
ENTROPY = 4


class Reference(Protocol):
    """A reference that knows its density at any time, as ``fpc.MoserFlow`` does."""

    def density(self, t: float) -> fem.Function:
        """The density at a time."""


type Measure = Callable[[fem.Function, fem.Function], float]


@dataclass(frozen=True)
class Entropy(Smooth):
    """See ``entropy``."""

    def on(self, setting: Setting) -> Evaluation:
        """See ``Observable.on``. Collective."""
        g = setting.elements
        return _Entropy(CellRule.of(g, ENTROPY * g.degree))

    def smooth(self, system: SemiDiscretization, noise: Noise | None) -> SmoothEvaluation:
        """Of positive densities alone, see ``Smooth``. Collective."""
        g = system.elements
        return _PositiveEntropy(CellRule.of(g, ENTROPY * g.degree))


class _Entropy(Evaluation):
    size = 1

    def __init__(self, rule: CellRule) -> None:
        self._rule = rule

    def parts(self, t: float, rho: Array) -> Array:
        values = self._rule.at(rho)
        positive = np.where(values > 0.0, values, 1.0)
        return np.array([-self._rule.integral(positive * np.log(positive))])

    def value(self, t: float, rho: Array, sums: Array) -> float:
        return float(sums[0])


class _PositiveEntropy(_Entropy, SmoothEvaluation):
    """With its derivative, which there is where the density is positive alone."""

    def parts(self, t: float, rho: Array) -> Array:
        """See ``Evaluation``.

        Raises:
            ArithmeticError: If the density is not positive at a point of the quadrature.
        """
        self._positive(t, rho)
        return super().parts(t, rho)

    def slopes(self, t: float, rho: Array) -> Array:
        """See ``SmoothEvaluation``; of ``-rho log rho``."""
        return self._rule.functional(-1.0 - np.log(self._positive(t, rho)))[None]

    def _positive(self, t: float, rho: Array) -> Array:
        values = self._rule.at(rho)
        lowest = float(values.min(initial=np.inf))
        if not lowest > 0.0:
            raise ArithmeticError(
                f"entropy as an objective: the density at t = {t:g} is not positive where it is "
                f"integrated (minimum {lowest:.3g}), and the derivative of rho log rho is not "
                "finite there. Take discretization=fpc.Limited() or fpc.Monotone(), a finer mesh, "
                "smaller weights to start from, or add a floor (fpc.density.with_floor)."
            )
        return values


@dataclass(frozen=True)
class Distance(Observable):
    """See ``distance``."""

    reference: fem.Function | Reference | Callable[[float], fem.Function]
    measure: Measure | None

    def on(self, setting: Setting) -> Evaluation:
        """See ``Observable.on``. Collective."""
        g, reference = setting.elements, self.reference
        if isinstance(reference, fem.Function):
            if self.measure is None:
                check_density("reference", reference, g)
            fixed = reference.copy()
            return _Distance(g, lambda t: fixed, self.measure)
        source: Any = reference
        density = getattr(source, "density", source)
        return _Distance(g, density, self.measure, changes=True)


class _Distance(Evaluation):
    def __init__(
        self,
        g: Elements,
        density: Callable[[float], fem.Function],
        measure: Measure | None,
        changes: bool = False,
    ) -> None:
        self._elements, self._density, self._measure = g, density, measure
        self._changes = changes
        self._blank = fem.Function(g.space, name="density")

    def value(self, t: float, rho: Array, sums: Array) -> Any:
        g, error, reference = self._elements, None, None
        try:
            reference = self._density(t)
        except Exception as caught:
            error = caught
        raise_collectively(g.comm, error)
        assert reference is not None
        if self._measure is None:
            if self._changes:
                check_density("reference", reference, g)
            return g.norm(rho - reference.x.array)
        density = self._blank.copy()
        density.x.array[:] = rho
        return self._measure(density, reference)
