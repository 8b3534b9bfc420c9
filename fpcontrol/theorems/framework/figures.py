"""Figures with their discretization errors, which arithmetic propagates."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from fpcontrol.typing import Array


@dataclass(frozen=True, eq=False)
class Figure:
    r"""A computed figure and a bound of its discretization error; or an array of them.

    Errors propagate to first order, :math:`|f'(x)|\,e`, and add up without cancellation. Numbers
    and arrays that are combined with figures are taken to be exact.

    Attributes:
        value: Any shape; zero-dimensional for a single figure.
        error: Absolute, of the same shape.
    """

    value: Array
    error: Array

    __array_ufunc__ = None  # array * figure is left to the figure

    def __init__(self, value: Any, error: Any) -> None:
        value = np.asarray(value, dtype=float)
        error = np.broadcast_to(np.abs(np.asarray(error, dtype=float)), value.shape)
        object.__setattr__(self, "value", value)
        object.__setattr__(self, "error", error)

    @classmethod
    def refined(cls, coarse: Any, fine: Any, order: Any = 1.0) -> Self:
        """The finer of two results; the error is estimated for a convergence of that order."""
        change = np.asarray(fine, dtype=float) - np.asarray(coarse, dtype=float)
        return cls(np.asarray(fine), change / (2.0 ** np.asarray(order) - 1.0))

    @classmethod
    def stack(cls, figures: Any) -> Self:
        """Figures of one shape as one, with a first axis that counts them."""
        found = [f if isinstance(f, Figure) else cls(f, np.zeros_like(f)) for f in figures]
        return cls(np.array([f.value for f in found]), np.array([f.error for f in found]))

    # -- parts -------------------------------------------------------------------------------------

    def __float__(self) -> float:
        return float(self.value)

    def __len__(self) -> int:
        return len(self.value)

    def __getitem__(self, index: Any) -> Self:
        return type(self)(self.value[index], self.error[index])

    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))

    @property
    def T(self) -> Self:
        """The transpose: figures of a family by quantity instead of by parameter."""
        return type(self)(self.value.T, self.error.T)

    # -- arithmetic --------------------------------------------------------------------------------

    def __neg__(self) -> Self:
        return type(self)(-self.value, self.error)

    def __add__(self, other: Any) -> Self:
        b, e = _parts(other)
        return type(self)(self.value + b, self.error + e)

    def __sub__(self, other: Any) -> Self:
        b, e = _parts(other)
        return type(self)(self.value - b, self.error + e)

    def __mul__(self, other: Any) -> Self:
        b, e = _parts(other)
        return type(self)(self.value * b, self.error * np.abs(b) + np.abs(self.value) * e)

    def __truediv__(self, other: Any) -> Self:
        b, e = _parts(other)
        value = self.value / b
        return type(self)(value, (self.error + np.abs(value) * e) / np.abs(b))

    def __pow__(self, power: float) -> Self:
        slope = power * self.value ** (power - 1.0)
        return type(self)(self.value**power, np.abs(slope) * self.error)

    __radd__, __rmul__ = __add__, __mul__

    def __rsub__(self, other: Any) -> Self:
        return -self + other

    def __rtruediv__(self, other: Any) -> Self:
        return other * self**-1.0

    def sqrt(self) -> Self:
        """Square root."""
        return self**0.5

    def log(self) -> Self:
        """Natural logarithm."""
        return type(self)(np.log(self.value), self.error / np.abs(self.value))

    def max(self, axis: int | None = None) -> Self:
        """The largest; it is off by no more than the largest error."""
        return type(self)(self.value.max(axis=axis), self.error.max(axis=axis))

    # -- rates -------------------------------------------------------------------------------------

    def slopes(self, x: Any) -> Self:
        """Slopes of ``log self`` against ``log x`` between neighbours, one fewer than values."""
        y = self.log()
        return (y[1:] - y[:-1]) / np.diff(np.log(np.asarray(x, dtype=float)))

    def slope(self, x: Any) -> Self:
        """Slope of the least-squares line through all of ``log self`` against ``log x``."""
        t = np.log(np.asarray(x, dtype=float))
        weights = (t - t.mean()) / ((t - t.mean()) ** 2).sum()
        y = self.log()
        return type(self)(weights @ y.value, np.abs(weights) @ y.error)


def _parts(other: Any) -> tuple[Array, Array]:
    if isinstance(other, Figure):
        return other.value, other.error
    value = np.asarray(other, dtype=float)
    return value, np.zeros_like(value)
