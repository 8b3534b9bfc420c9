r"""Observables as objectives: what integrals of the density are to be, at the end or all the time.

With the values

.. math:: o(\rho) = h\Bigl(\int f_1\rho\,dx,\ \dots,\ \int f_m\rho\,dx\Bigr)

the derivative in the density is :math:`\sum_k \partial_k h\,(f_k, \phi_i)`: vectors that are fixed,
with factors of the level. Of the entropy the vector is one of the level,
:math:`(-1-\log\rho, \phi_i)`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from fpcontrol.control.costs import Cost, Objective, Setting, checked_weight, trapezoid
from fpcontrol.observables.base import Observable, Smooth
from fpcontrol.parallel.errors import collective_errors, reduced
from fpcontrol.typing import Array

type Target = ArrayLike | Callable[[float], ArrayLike]
type Sloped = Callable[[Array], tuple[float, Array]]


@dataclass(frozen=True, eq=False)
class Observed(Objective):
    r"""A function of observables, at the end and in the mean over time.

    .. math:: w_T\,f\bigl(q(T)\bigr) + \frac{w_r}{T}\int_0^T f\bigl(q(t)\bigr)\,dt,\qquad
        f(q) = \tfrac12\,|q - q^*|^2,\qquad q = o(\rho)/s

    with the values o of the observables, flat, one after the other. Without a target f is the sum
    of q (a negative ``scale`` makes large what is summed), or any smooth ``function``. Over time by
    the trapezoidal rule.

    Args:
        observable: ``fpc.observables.mean()``, ``covariance()``, ``mass(...)``, ``expectation(f)``,
            ``energy(V)`` or another ``fpc.observables.Integral``; ``entropy()``, of densities that
            are positive where it is integrated (an ArithmeticError otherwise), and ``flux(tag)``
            through walls that absorb; or several of these.
        target: Value that is to be reached, in the observables' own units and of their shape, flat
            for several; or a function of time.
        running_weight: :math:`w_r`.
        terminal_weight: :math:`w_T`.
        scale: s, a number or one for each value, not zero: what makes the values numbers near 1.
        function: f in place of the square, from q, ``(values,)``, to its value and its slope
            ``(values,)``; the same on all ranks.

    Raises:
        ValueError: For what is no such observable, a bad weight or scale, or a target and a
            function; on all ranks, in a problem, for a target or slope of another shape.
    """

    observable: Smooth | Sequence[Smooth]
    target: Target | None = None
    running_weight: float = 0.0
    terminal_weight: float = 1.0
    scale: ArrayLike = 1.0
    function: Sloped | None = None

    def __post_init__(self) -> None:
        checked_weight("running_weight", self.running_weight)
        checked_weight("terminal_weight", self.terminal_weight)
        if not self.observables:
            raise ValueError("observable is empty; give one or several of fpc.observables.")
        for one in self.observables:
            if not isinstance(one, Smooth):
                raise ValueError(
                    f"observable has {one!r}, whose derivative is not known; give mean(), "
                    "covariance(), mass(...), expectation(f), energy(V), entropy() or flux(...) of "
                    "fpc.observables, or derive from fpc.observables.Integral."
                )
        scale = np.asarray(self.scale, dtype=float)
        if not (np.isfinite(scale).all() and (scale != 0.0).all()):
            raise ValueError(f"scale = {self.scale!r} must be finite and not zero.")
        if self.function is not None and self.target is not None:
            raise ValueError(
                "target and function are both given; take the target into the function, or leave "
                "one of the two out."
            )
        if self.function is not None and not callable(self.function):
            raise ValueError(
                f"function = {self.function!r} is not callable; give f(q), which returns a value "
                "and its slope."
            )

    @property
    def observables(self) -> tuple[Smooth, ...]:
        """What is observed, one or several."""
        given = self.observable
        return tuple(given) if isinstance(given, Sequence) else (given,)

    def on(self, setting: Setting) -> Cost:
        """The function in a setting. Collective."""
        return _ObservedCost(self, setting)

    def describe(self) -> str:
        """Fields; of functions their names: what they are is told by values (``fingerprint``)."""
        seen = [_said(one) for one in self.observables]
        rest = [f"{f.name}={_said(getattr(self, f.name))}" for f in fields(self)[1:]]
        return f"Observed({', '.join([*seen, *rest])})"


class _ObservedCost(Cost):
    """``Observed`` in its setting. Collective."""

    def __init__(self, objective: Observed, setting: Setting) -> None:
        g = setting.system.elements
        self._comm, self._function, self._times = g.comm, objective.function, setting.times
        self._seen = [one.smooth(setting.system, setting.noise) for one in objective.observables]
        self._room, self._owners = g.vector(), g.n_owned
        # Rows of owned entries: what other ranks' cells add to them is added once, here.
        self._rows = [None if e.rows is None else self._owned(e.rows) for e in self._seen]
        self._ends = np.cumsum([e.size for e in self._seen])[:-1]
        over_time = trapezoid(len(setting.times)) / (len(setting.times) - 1)
        self._weights = objective.running_weight * over_time
        self._weights[-1] += objective.terminal_weight
        with collective_errors(self._comm):
            sums = self._begun(setting.reference_at(0))
            values = self._values(sums)
            self._check_slopes(objective, sums)
            try:
                self._scale = np.broadcast_to(
                    np.asarray(objective.scale, float).ravel(), values.shape
                )
            except ValueError:
                raise ValueError(
                    f"scale = {objective.scale!r} does not fit {len(values)} observed values."
                ) from None
            self._targets = self._targets_of(objective, setting.times, len(values))

    def level(self, n: int, rho: Array) -> float:
        """The whole of it on rank 0, nothing on the others. Collective."""
        if self._weights[n] == 0.0:
            return 0.0
        value, _ = self._function_at(n, self._sums(n, rho))
        return float(self._weights[n] * value) if self._comm.rank == 0 else 0.0

    def level_dual(self, n: int, rho: Array) -> Array | None:
        """See ``Cost``. Collective."""
        if self._weights[n] == 0.0:
            return None
        sums = self._sums(n, rho)
        _, slope = self._function_at(n, sums)
        pieces = np.split(slope / self._scale, self._value_ends)
        parts = zip(self._seen, self._rows, np.split(sums, self._ends), pieces, strict=True)
        dual = np.zeros(self._owners)
        for e, rows, own, piece in parts:
            if rows is None:
                rows = self._owned(e.slopes(float(self._times[n]), rho))
            dual += e.pullback(own, piece) @ rows
        return self._weights[n] * dual

    def _check_slopes(self, objective: Observed, sums: Array) -> None:
        """Refuse values that are not the sums and say nothing of their derivative."""
        split = zip(objective.observables, self._seen, np.split(sums, self._ends), strict=True)
        for one, e, part in split:
            value = np.ravel(e.value(0.0, np.empty(0), part))
            if e.plain and not np.array_equal(value, part):
                raise ValueError(
                    f"{type(one).__name__} makes {value} of the integrals {part} and has no "
                    "derivative of it: give its Linear(rows, finish, pullback) the pullback."
                )

    def _owned(self, rows: Array) -> Array:
        """Rows of owned entries, of rows of what each rank's cells give. Collective."""
        found = []
        for row in rows:
            self._room.array[:] = row
            self._room.scatter_reverse()
            found.append(self._room.array[: self._owners].copy())
        return np.array(found)

    def _begun(self, rho: Array) -> Array:
        """Sums of a density that they need not be defined for: 1 where they change. Collective."""
        pairs = zip(self._seen, self._rows, strict=True)
        parts = [np.ones(e.size) if r is None else r @ rho[: self._owners] for e, r in pairs]
        return reduced(self._comm, np.concatenate(parts))

    def _sums(self, n: int, rho: Array) -> Array:
        t, parts = float(self._times[n]), list[Array]()
        with collective_errors(self._comm):  # the density may be bad on one rank only
            for e, rows in zip(self._seen, self._rows, strict=True):
                parts.append(e.parts(t, rho) if rows is None else rows @ rho[: self._owners])
        return reduced(self._comm, np.concatenate(parts))

    def _values(self, sums: Array) -> Array:
        split = zip(self._seen, np.split(sums, self._ends), strict=True)
        every = [np.ravel(e.value(0.0, np.empty(0), s)) for e, s in split]
        self._value_ends = np.cumsum([len(v) for v in every])[:-1]
        return np.concatenate(every)

    def _function_at(self, n: int, sums: Array) -> tuple[float, Array]:
        """Value and slope in the scaled values, at a level. Collective."""
        q = self._values(sums) / self._scale
        if self._function is None:
            if self._targets is None:
                return float(q.sum()), np.ones_like(q)
            off = q - self._targets[n] / self._scale
            return 0.5 * float(off @ off), off
        with collective_errors(self._comm):
            value, slope = self._function(q)
            value, slope = float(value), np.asarray(slope, dtype=float)
            if slope.shape != q.shape or not (np.isfinite(value) and np.isfinite(slope).all()):
                raise ValueError(
                    f"function(q) returned {value} and a slope of shape {slope.shape} for q = {q}; "
                    f"a finite number and finite slopes of shape {q.shape} are needed."
                )
        return value, slope

    def _targets_of(self, objective: Observed, times: Array, size: int) -> Array | None:
        """Targets at all levels that are asked for, ``(levels, size)``."""
        if objective.target is None:
            return None
        targets, given = np.zeros((len(times), size)), objective.target
        for n in np.flatnonzero(self._weights):
            at = np.asarray(given(float(times[n])) if callable(given) else given, dtype=float)
            if at.size not in (1, size) or not np.isfinite(at).all():
                raise ValueError(
                    f"target = {at} at t = {times[n]:g} does not fit {size} observed values: "
                    "finite numbers, one for each, or one for all, are needed."
                )
            targets[n] = at.ravel()
        return targets


def _said(value: Any) -> str:
    """What names a value in every program alike."""
    if isinstance(value, Observable):
        inner = [f"{k}={_said(v)}" for k, v in sorted(vars(value).items()) if not k.startswith("_")]
        return f"{type(value).__name__}({', '.join(inner)})"
    if callable(value) or not isinstance(value, int | float | str | tuple | list | np.ndarray):
        return "None" if value is None else getattr(value, "__qualname__", type(value).__name__)
    return repr(value)
