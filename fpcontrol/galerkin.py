"""Where ``Galerkin``, the space with its quadrature points, was: it is called ``Elements`` now.

(``fpcontrol.Galerkin`` is the method in space, as a value.)
"""

import warnings

from fpcontrol.discretization.elements import Elements as Galerkin
from fpcontrol.discretization.elements import lagrange
from fpcontrol.typing import Array

__all__ = ["Array", "Galerkin", "lagrange"]

warnings.warn(
    "fpcontrol.galerkin.Galerkin is fpcontrol.discretization.elements.Elements now.",
    DeprecationWarning,
    stacklevel=2,
)
