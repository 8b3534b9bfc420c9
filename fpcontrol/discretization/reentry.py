r"""Mass that absorbing walls take and that enters again, at once, at a given density.

.. math::
    M\dot\rho = -N(v, D)\,\rho + f\,M r,\qquad f = \text{what the walls take per time},\quad
    \int r\,dx = 1

The mass is constant. Time steps make up for it (``stepping.reentry``); operators are those of the
walls alone.
"""

from collections.abc import Callable
from dataclasses import dataclass

from dolfinx import fem

from fpcontrol.discretization.elements import Elements
from fpcontrol.discretization.periodic import dof_places
from fpcontrol.typing import Array

type Entry = fem.Function | Callable[[Array], Array]


@dataclass(frozen=True)
class Reentry:
    """The density at which mass enters again, on one mesh (``discretization.bounded``).

    Attributes:
        density: r, of mass 1, local; zero on the walls.
    """

    density: Array

    def describe(self, g: Elements) -> dict[str, float]:
        """Figures that differ for another density, for checkpoints and records. Collective."""
        x = dof_places(g.space)[: g.n_owned, : g.dimension]
        own = g.integrals * self.density[: g.n_owned]
        mean = [g.sum(float(own @ x[:, k])) for k in range(g.dimension)]
        return {"norm": g.norm(self.density)} | {f"mean{k}": u for k, u in enumerate(mean)}
