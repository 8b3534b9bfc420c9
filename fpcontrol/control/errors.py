"""How closely a density follows its reference, in figures."""

from dataclasses import dataclass

from fpcontrol.typing import Array


@dataclass(frozen=True, repr=False)
class Errors:
    r"""How closely a density follows its reference.

    Attributes:
        value: The cost J.
        relative_error: :math:`(\int\|\rho-\rho^{ref}\|^2 dt / \int\|\rho^{ref}\|^2 dt)^{1/2}`,
            trapezoid over all time levels, L2 norms in space.
        relative_sup_error: :math:`\max_t\|\rho-\rho^{ref}\| / \max_t\|\rho^{ref}\|`.
        final_error: :math:`\|\rho-\rho^{ref}\| / \|\rho^{ref}\|` at the last time.
        over_time: :math:`\|\rho-\rho^{ref}\| / \|\rho^{ref}\|` at all levels, ``(steps + 1,)``.
    """

    value: float
    relative_error: float
    relative_sup_error: float
    final_error: float
    over_time: Array

    def __repr__(self) -> str:
        return (
            f"Errors: J {self.value:.4g}, relative error {self.relative_error:.4g}, relative sup "
            f"error {self.relative_sup_error:.4g}, at the end {self.final_error:.4g}"
        )
