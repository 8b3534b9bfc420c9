"""What an observable is, and the record of some over a run."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from dolfinx import fem

from fpcontrol.discretization.base import SemiDiscretization
from fpcontrol.discretization.elements import Elements
from fpcontrol.drift.base import Drift
from fpcontrol.noise import Noise
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.parallel.errors import raise_collectively, reduced
from fpcontrol.typing import Array

type Function = Callable[[float, fem.Function], Any]  # (t, density) to a number or an array


@dataclass(frozen=True)
class Setting:
    """The equation whose densities are observed.

    Attributes:
        system: The discretization in space.
        drift: The drift.
        noise: The noise.
    """

    system: SemiDiscretization
    drift: Drift
    noise: Noise

    @property
    def elements(self) -> Elements:
        """The space of the densities."""
        return self.system.elements


class Evaluation(ABC):
    """An observable on one mesh, asked at every level of a run.

    Attributes:
        size: How many numbers ``parts`` gives.
    """

    size: int = 0

    def parts(self, t: float, rho: Array) -> Array:
        """This rank's share of sums over the ranks, ``(size,)``. Not collective.

        Args:
            t: Time of the level.
            rho: The level, local (owned, then ghosts).
        """
        return np.empty(0)

    @abstractmethod
    def value(self, t: float, rho: Array, sums: Array) -> Any:
        """The value, a number or an array, the same on all ranks. May be collective.

        Args:
            t: Time of the level.
            rho: The level, local.
            sums: ``parts`` summed over the ranks.
        """


class SmoothEvaluation(Evaluation):
    """One with the derivatives of its sums in the density.

    Attributes:
        plain: Whether the value is the sums.
        rows: Derivatives of the sums if they are the same at all levels, as of ``slopes``.
    """

    plain: bool = True
    rows: Array | None = None

    @abstractmethod
    def slopes(self, t: float, rho: Array) -> Array:
        """This rank's part of the derivatives of the sums, ``(size, n_local)``. Not collective."""

    def pullback(self, sums: Array, dual: Array) -> Array:
        """What is dual to the sums, ``(size,)``, from what is dual to the value, flat."""
        return dual


class Observable(ABC):
    """A number, or an array of numbers, that belongs to a density at a time."""

    @abstractmethod
    def on(self, setting: Setting) -> Evaluation:
        """What evaluates it for one equation: what can be made once is made here. Collective."""


class Smooth(Observable):
    """An observable with derivatives, which ``fpc.objectives.Observed`` takes."""

    @abstractmethod
    def smooth(self, system: SemiDiscretization, noise: Noise | None) -> SmoothEvaluation:
        """What evaluates it and its derivatives for one equation. Collective."""


@dataclass(frozen=True)
class UserFunction(Observable):
    """Any ``f(t, rho)`` with the density as a dolfinx Function, which may be collective."""

    function: Function

    def on(self, setting: Setting) -> Evaluation:
        """See ``Observable.on``. Collective."""
        return _OfFunction(self.function, fem.Function(setting.elements.space, name="density"))


class _OfFunction(Evaluation):
    def __init__(self, function: Function, blank: fem.Function) -> None:
        self._function, self._blank = function, blank

    def value(self, t: float, rho: Array, sums: Array) -> Any:
        density, error, value = self._blank.copy(), None, None
        density.x.array[:] = rho
        try:
            value = self._function(t, density)
        except Exception as caught:
            error = caught
        raise_collectively(comm_of(density.function_space.mesh), error)
        return value


@dataclass
class Recorder:
    """Values of observables at all levels of a run; nothing else of the levels is kept.

    Args:
        named: Observables by their names, as ``checked`` returns them.
        setting: The equation.
        times: Time levels, ``(steps + 1,)``.

    Attributes:
        series: Values so far by name, ``(steps + 1, ...)``.
    """

    named: Mapping[str, Observable]
    setting: Setting
    times: Array
    series: dict[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Prepare the observables. Collective."""
        self._evaluations = {name: o.on(self.setting) for name, o in self.named.items()}

    def see(self, n: int, rho: Array) -> None:
        """Evaluate all at level ``n``: one reduction for all sums. Collective.

        Raises:
            ValueError: On all ranks, for values that are no real numbers, or of another shape than
                at the level before.
        """
        if not self._evaluations:
            return
        t = float(self.times[n])
        parts, error = [np.empty(0)], None
        try:
            parts += [e.parts(t, rho) for e in self._evaluations.values()]
        except Exception as caught:
            error = caught
        raise_collectively(self.setting.system.comm, error)
        sums = reduced(self.setting.system.comm, np.concatenate(parts))
        first, faults = 0, []
        for name, e in self._evaluations.items():
            value = np.asarray(e.value(t, rho, sums[first : first + e.size]))
            first += e.size
            if name not in self.series and value.dtype.kind in "fiub":
                self.series[name] = np.full((len(self.times), *value.shape), np.nan)
            row = self.series.get(name)
            if row is None or value.dtype.kind not in "fiub" or value.shape != row.shape[1:]:
                of = "" if row is None else f" of shape {row.shape[1:]}"
                faults.append(
                    f"observables[{name!r}] returned {value.dtype} values of shape {value.shape} "
                    f"at t = {t:g}; real numbers{of} are needed."
                )
            else:
                row[n] = value
        raise_collectively(self.setting.system.comm, ValueError(faults[0]) if faults else None)


def checked(observables: Mapping[str, Observable | Function] | None) -> dict[str, Observable]:
    """Observables by their names; bare functions ``f(t, rho)`` become some.

    Raises:
        ValueError: For what is none, or has no name.
    """
    if observables is None:
        return {}
    if not isinstance(observables, Mapping):
        raise ValueError(
            f"observables = {observables!r} must be a mapping from names to observables, such as "
            '{"mean": fpc.observables.mean()}.'
        )
    named: dict[str, Observable] = {}
    for name, what in observables.items():
        if not isinstance(name, str) or not name:
            raise ValueError(f"observables: the name {name!r} must be a string.")
        if isinstance(what, Observable):
            named[name] = what
        elif callable(what) and not isinstance(what, type) and not _made(what):
            named[name] = UserFunction(what)
        else:
            kind = getattr(what, "__name__", type(what).__name__)
            raise ValueError(
                f"observables[{name!r}], {kind}, is no observable; give one of fpc.observables, "
                "such as fpc.observables.mean() with its brackets, or a function f(t, rho)."
            )
    return named


def _made(what: Any) -> bool:
    """Whether it is one of the package's own makers of observables, called without brackets."""
    return str(getattr(what, "__module__", "")).startswith("fpcontrol.observables")
