r"""Flux of mass through facets, on walls or inside.

.. math:: \int_F (v\rho - D\nabla\rho)\cdot n\,dS

with what noise adds to the drift where it depends on place (``noise``). On a facet between two
cells the slopes of both enter with equal weights.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np
from dolfinx.mesh import MeshTags, exterior_facet_indices

from fpcontrol.discretization.base import SemiDiscretization
from fpcontrol.discretization.boundary import Boundary, FacetQuadrature
from fpcontrol.discretization.galerkin import applied
from fpcontrol.discretization.sets import Where, facets_of
from fpcontrol.drift.base import zero
from fpcontrol.noise import Noise
from fpcontrol.observables.base import Setting, Smooth, SmoothEvaluation
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.typing import Array

type Direction = Array | tuple[float, ...] | Callable[[Array], Array]


@dataclass(frozen=True)
class Flux(Smooth):
    """See ``flux``."""

    where: Where
    tags: MeshTags | None
    direction: Direction | None

    def smooth(self, system: SemiDiscretization, noise: Noise | None) -> SmoothEvaluation:
        """Through walls that absorb alone, see ``Smooth``. Collective.

        Raises:
            ValueError: On all ranks, for other facets: there the drift has a part of its own.
        """
        if noise is None:
            raise ValueError("flux as an objective needs the noise of a problem on a mesh.")
        flux = self.on(Setting(system, zero(), noise))
        walls = np.zeros(system.elements.n_local, dtype=bool)
        if system.absorbing is not None:
            walls[system.absorbing.dofs] = True
        off = system.elements.sum(flux.count_beside(walls))
        if off:
            raise ValueError(
                f"flux as an objective: {off:.0f} of its points lie on facets that do not absorb, "
                "where it depends on the drift itself. Name walls of absorbing=... alone."
            )
        return flux

    def on(self, setting: Setting) -> "_Flux":
        """See ``Observable.on``. Collective."""
        g, topology = setting.elements, setting.elements.mesh.topology
        facets = facets_of(g, self.where, self.tags, "where")
        beside = topology.connectivity(g.dimension - 1, g.dimension)
        counts = np.diff(beside.offsets)[facets]
        starts = beside.offsets[facets]
        each = np.repeat(np.arange(len(facets)), counts)
        place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        cells = beside.array[starts[each] + place].astype(np.intp)
        own = cells < g.n_cells
        each, cells = each[own], cells[own]
        outer = np.isin(facets[each], exterior_facet_indices(topology))
        sides = Boundary.beside(g.mesh, facets[each], cells, np.zeros(len(cells), dtype=np.int32))
        points = sides.quadrature(2 * g.degree)
        share = np.where(outer, 1.0, 0.5)[points.facets]
        with collective_errors(g.comm):
            sign = self._sign(points, outer)
        return _Flux(setting, points, share * sign * points.weights)

    def _sign(self, points: FacetQuadrature, outer: Array) -> Array:
        """Which way along the normal counts, ``(N,)``."""
        if self.direction is None:
            if not outer.all():
                raise ValueError(
                    "where: facets lie between two cells; give direction=, a vector or a function "
                    "of x that says which way through them counts."
                )
            return np.ones(len(points.weights))
        way = self.direction(points.points.copy()) if callable(self.direction) else self.direction
        try:
            along = np.broadcast_to(np.asarray(way, dtype=float), points.points.shape)
        except ValueError:
            raise ValueError(
                f"direction must be a vector of {points.points.shape[1]} numbers, or a function of "
                f"x (N, d) to (N, d); it gave shape {np.shape(way)}."
            ) from None
        return np.sign(np.einsum("nd,nd->n", along, points.normals))


class _Flux(SmoothEvaluation):
    size = 1

    def __init__(self, setting: Setting, points: FacetQuadrature, weights: Array) -> None:
        self._setting, self._points, self._weights = setting, points, weights
        self._x = points.points
        self._x.flags.writeable = False
        values, slopes = points.tabulate(setting.elements.space)
        self._values, self._slopes = values, slopes
        self._drift = np.zeros(len(self._x))
        if not setting.noise.uniform and setting.noise.steady:
            self._see_noise(0.0)
        self._dofs = setting.elements.space.dofmap.list[points.cells]
        self._piece: Hashable | None = None
        self._along = np.empty(0)

    def parts(self, t: float, rho: Array) -> Array:
        setting, own = self._setting, rho[self._dofs]
        piece = setting.drift.piece(t)
        if piece is None or piece != self._piece:
            v = np.asarray(setting.drift(t, self._x))
            if v.shape != self._x.shape:
                raise ValueError(
                    f"drift(t, x) returned shape {v.shape} for x of shape {self._x.shape}."
                )
            self._along = np.einsum("nd,nd->n", v, self._points.normals)
            self._piece = piece
        D = setting.noise.diffusivity(t) if setting.noise.uniform else 1.0
        if not (setting.noise.uniform or setting.noise.steady):
            self._see_noise(t)
        density = np.einsum("ni,ni->n", self._values, own)
        slope = np.einsum("ni,ni->n", self._slopes, own)
        return np.array([self._weights @ ((self._along + self._drift) * density - D * slope)])

    def count_beside(self, walls: Array) -> int:
        """Points at which the density need not vanish if it does on some degrees of freedom."""
        return int(((np.abs(self._values) > 1e-10) & ~walls[self._dofs]).any(axis=1).sum())

    def slopes(self, t: float, rho: Array) -> Array:
        """See ``SmoothEvaluation``; where the density vanishes, of its slopes alone."""
        noise = self._setting.noise
        if not (noise.uniform or noise.steady):
            self._see_noise(t)
        D = noise.diffusivity(t) if noise.uniform else 1.0
        row = np.zeros(self._setting.elements.n_local)
        np.add.at(row, self._dofs, (-D * self._weights)[:, None] * self._slopes)
        return row[None]

    def _see_noise(self, t: float) -> None:
        """What noise adds to the drift along the normals, and slopes of the basis along D n."""
        setting, points = self._setting, self._points
        D, drift = setting.system.cell_noise.in_cells(setting.noise, t, points.cells, self._x)
        self._drift = np.einsum("nd,nd->n", drift, points.normals)
        space = setting.elements.space
        self._slopes = points.tabulate(space, applied(D, points.normals))[1]

    def value(self, t: float, rho: Array, sums: Array) -> float:
        return float(sums[0])
