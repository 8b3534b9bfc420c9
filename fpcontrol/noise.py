r"""Noise of the SDE: a number, a schedule, or what depends on place and direction.

.. math:: dX = v\,dt + \sigma\,dW,\qquad a = \sigma\sigma^\top,\qquad D = a/2

With a noise that depends on place the SDE has to be interpreted, and the equation of the density is

.. math:: \partial_t\rho = \nabla\cdot(D\nabla\rho - (v + c)\rho)

with, for the interpretations on offer,

.. math::
    \text{ito:}\quad & c = -\tfrac12\nabla\cdot a, && \text{that is }
        \partial_t\rho = \tfrac12\textstyle\sum_{ij}\partial_i\partial_j(a_{ij}\rho)
        - \nabla\cdot(v\rho)\\
    \text{stratonovich:}\quad & c_i = -\tfrac12\textstyle\sum_{jk}\sigma_{ik}\,\partial_j\sigma_{jk}
        && (\text{for a number at each place } -\tfrac14\nabla a)\\
    \text{divergence:}\quad & c = 0 && \text{(H\"anggi-Klimontovich, for a number at each place)}

A wall lets nothing through, :math:`(D\nabla\rho - (v + c)\rho)\cdot n = 0`.

References:
    C. Gardiner, Stochastic Methods, 4th ed., Springer (2009), 4.3.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any, Literal

import numpy as np

from fpcontrol.typing import Array

type Sigma = float | Callable[..., Any] | Sequence[Any] | Array
type Interpretation = Literal["ito", "stratonovich", "divergence"]

# Of the derivative of a (or of twice sigma's) in the drift that noise adds.
SHARES = {"ito": 1.0, "stratonovich": 0.5, "divergence": 0.0}
OFFERED = (
    "Give a number; sigma(t), or with x of shape (N, d) sigma(x) or sigma(t, x) to shape (N,), "
    "(N, d) or (N, d, d); d numbers or a (d, d) matrix; or a dolfinx Function."
)


class Noise:
    r"""``sigma``, checked wherever it is asked. Collective for a Function.

    Args:
        sigma: Length per time**0.5. A positive number, or ``sigma(t)``; a function whose argument
            is called x, or of two, ``sigma(t, x)``: x of shape ``(N, d)`` to ``(N,)``, a number at
            each place, ``(N, d)``, one an axis, or ``(N, d, d)``; d numbers, or a matrix
            ``(d, d)``; or a dolfinx Function, of which a copy is taken. None negative, but for
            those of matrices.
        zero: Whether the number zero is allowed too.
        interpretation: See the module.

    Attributes:
        sigma: What was given.
        interpretation: See above.
        steady: Whether it does not depend on time.
        uniform: Whether it is one number at all places, ``noise(t)``.
        by_place: Whether it depends on place.

    Raises:
        ValueError: If it is nothing as above.
    """

    def __init__(
        self, sigma: Sigma, *, zero: bool = False, interpretation: Interpretation = "ito"
    ) -> None:
        if interpretation not in SHARES:
            raise ValueError(
                f"interpretation = {interpretation!r} is unknown; choose one of {tuple(SHARES)}."
            )
        self._zero, self.interpretation = zero, interpretation
        self._of = kind = _kind(sigma)
        self.steady = kind not in ("t", "t, x")
        self.uniform = kind in ("", "t")
        self.by_place = kind in ("x", "t, x", "Function")
        if kind == "":
            sigma = self._checked(sigma, "")
        elif kind == "array":
            sigma = _checked_array(sigma)
        elif kind == "Function":
            sigma = copied(sigma)
        self.sigma: Any = sigma

    def __call__(self, t: float) -> float:
        """``sigma(t)``, of one that is uniform.

        Raises:
            ValueError: If it is not finite and positive (or zero where allowed), if the function
                does not take a time, or if sigma depends on place or direction.
        """
        if self._of == "":
            return float(self.sigma)
        if not self.uniform:
            raise ValueError(f"{self} depends on place or direction; a number is needed here.")
        try:
            value = self.sigma(float(t))  # numpy's numbers take what arrays take
        except (TypeError, IndexError, AttributeError) as error:  # of x[:, 0] where x is a time
            raise ValueError(
                f"sigma(t) failed at t = {t:g}, a number, with {type(error).__name__} ({error}). "
                f"A function of place calls its argument x. {OFFERED}"
            ) from error
        return self._checked(value, f" at t = {t:g}")

    def __str__(self) -> str:
        """For messages."""
        if self._of == "array":
            return f"sigma, an array of shape {self.sigma.shape},"
        if self._of == "Function":
            return f"sigma, the Function {self.sigma.name!r},"
        return f"sigma = {self.sigma}" if self._of == "" else f"sigma({self._of})"

    @property
    def absent(self) -> bool:
        """Whether it is the number zero."""
        return self._of == "" and self.sigma == 0.0

    @property
    def function(self) -> Any:
        """The dolfinx Function; ``None`` if it is none."""
        return self.sigma if self._of == "Function" else None

    def diffusivity(self, t: float) -> float:
        r""":math:`D(t) = \sigma(t)^2/2` of one that is uniform."""
        return 0.5 * self(t) ** 2

    def values(self, t: float, x: Array, cells: Array) -> Array:
        """Sigma at points: ``(N,)``, ``(N, d)`` or ``(N, d, d)``. Not collective.

        Args:
            t: Time.
            x: Points ``(N, d)``.
            cells: The cells of this rank that hold them, ``(N,)``.

        Raises:
            ValueError: On this rank, for another shape, or values that are not real, finite or,
                unless they are matrices, are negative.
        """
        n, d = x.shape
        if self._of == "":
            return np.full(n, self.sigma)
        if self._of == "array":
            if self.sigma.shape[0] != d:
                raise ValueError(
                    f"{self} has to be of shape ({d},) or ({d}, {d}): the mesh is {d}-D."
                )
            value = np.broadcast_to(self.sigma, (n, *self.sigma.shape))
        elif self._of == "Function":
            shape = tuple(self.sigma.function_space.element.value_shape)
            points = np.zeros((n, 3))
            points[:, :d] = x
            found = self.sigma.eval(points, cells.astype(np.int32)) if n else np.zeros(0)
            value = np.asarray(found).reshape(n, *shape)
        elif self._of == "t":
            value = np.full(n, self(t))
        else:
            value = np.asarray(self.sigma(x) if self._of == "x" else self.sigma(float(t), x))
        where = self._where(t)
        if value.shape not in ((n,), (n, d), (n, d, d)) or value.dtype.kind not in "fiu":
            raise ValueError(
                f"sigma{where} returned {value.dtype} values of shape {value.shape} for x of shape "
                f"{x.shape} (points, dimension); real values of shape ({n},), ({n}, {d}) or "
                f"({n}, {d}, {d}) are needed."
            )
        bad = ~np.isfinite(value)
        if value.ndim < 3:
            bad |= value < 0.0
        if bad.any():
            i = int(np.flatnonzero(bad.reshape(n, -1).any(axis=1))[0])
            raise ValueError(
                f"sigma{where} is {value[i]} at x = {x[i]}; it must be finite"
                + (" and not negative." if value.ndim < 3 else ".")
            )
        return value.reshape(n) if d == 1 else value

    def samples(self, t1: float) -> list[float]:
        """Values at five times of ``[0, t1]``: enough to tell two schedules apart in a record."""
        return [self(t1 * i / 4) for i in range(5)]

    def _where(self, t: float) -> str:
        return f"(t = {t:g}, x)" if self._of == "t, x" else "(x)" if self._of == "x" else ""

    def _checked(self, sigma: Any, when: str) -> float:
        if hasattr(sigma, "__len__") and not isinstance(sigma, str):
            shape = getattr(sigma, "shape", (len(sigma),))
            kind = f"{type(sigma).__name__} of shape {tuple(shape)}"
            raise ValueError(f"sigma{when} is a {kind}. {OFFERED}")
        good = isinstance(sigma, Real) and not isinstance(sigma, bool) and math.isfinite(sigma)
        if not good or sigma < 0 or (sigma == 0 and not self._zero):
            raise ValueError(
                f"sigma = {sigma!r}{when} must be a finite number, "
                + (
                    "zero or positive."
                    if self._zero
                    else "positive: without noise a mesh would add a diffusion of its own."
                )
            )
        return float(sigma)


def _kind(sigma: Any) -> str:
    """What sigma is: its arguments if it is a function, "array", "Function", or "", a number."""
    if hasattr(sigma, "function_space") and hasattr(sigma, "eval"):
        return "Function"
    if hasattr(sigma, "ufl_shape"):
        raise ValueError(f"sigma is a {type(sigma).__name__} of UFL. {OFFERED}")
    if isinstance(sigma, type):
        raise ValueError(f"sigma is the class {sigma.__name__}. {OFFERED}")
    if not callable(sigma):
        whole = isinstance(sigma, list | tuple) or (isinstance(sigma, np.ndarray) and sigma.ndim)
        return "array" if whole else ""
    try:
        signature = inspect.signature(sigma)
    except (TypeError, ValueError):  # of functions that do not tell
        return "t"
    names = list(signature.parameters)
    for count in (1, 2):
        try:
            signature.bind(*range(count))
        except TypeError:
            continue
        if count == 1:
            return "x" if names[0] == "x" else "t"
        if names[0] != "x":
            return "t, x"
    name = getattr(sigma, "__name__", type(sigma).__name__)
    raise ValueError(f"sigma is {name}{signature}. {OFFERED}")


def copied(function: Any) -> Any:
    """A copy of a Function, its ghosts up to date. Collective."""
    copy = function.copy()
    copy.x.scatter_forward()
    return copy


def _checked_array(sigma: Any) -> Array:
    """A copy of an axis each, or of a matrix."""
    try:
        values = np.array(sigma)
    except ValueError:  # of rows of different lengths
        values = np.empty(0, dtype=object)
    square = values.ndim == 1 or (values.ndim == 2 and values.shape[0] == values.shape[1])
    if values.dtype.kind not in "fiu" or not square or not values.size:
        raise ValueError(f"sigma = {sigma!r} is no vector of d numbers and no matrix. {OFFERED}")
    good = np.isfinite(values).all() and (values.ndim == 2 or (values >= 0.0).all())
    if not good or not values.any():
        raise ValueError(
            f"sigma = {sigma!r} must be finite and not zero"
            + (", no entry negative." if values.ndim == 1 else ".")
        )
    return values.astype(float)
