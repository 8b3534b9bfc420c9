"""From particles back to densities, and whether the two agree."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from dolfinx import fem
from dolfinx.mesh import Mesh
from scipy.special import chdtrc

from fpcontrol.parallel.communicators import comm_of
from fpcontrol.parallel.errors import collective_errors, reduced
from fpcontrol.particles.domain import Domain, positions
from fpcontrol.particles.drawing import Pieces
from fpcontrol.typing import Array

# By so much the mass of a density may be above 1 for what projections and solvers leave.
MASS = 1e-6


@dataclass(frozen=True)
class Comparison:
    r"""Shares of particles in regions beside the masses that a density has there. Plain data.

    Attributes:
        middles: Centres of mass of the regions, ``(regions, d)``.
        masses: Integrals of the density over them, ``(regions,)``; where its mass is not 1, one
            more for particles that have left.
        shares: Of the particles, alike.
        errors: Standard errors of the shares if the masses are right,
            :math:`\sqrt{m(1 - m)/n}`, alike.
        count: Number of particles n.
    """

    middles: Array
    masses: Array
    shares: Array
    errors: Array
    count: int

    @property
    def z(self) -> Array:
        """Differences in standard errors."""
        return (self.shares - self.masses) / self.errors

    @property
    def chi_square(self) -> float:
        r""":math:`n\sum_k (s_k - m_k)^2/m_k`, with one degree of freedom less than regions."""
        return float(self.count * ((self.shares - self.masses) ** 2 / self.masses).sum())

    @property
    def p_value(self) -> float:
        """Probability of a larger chi-square for independent particles of this density."""
        return float(chdtrc(len(self.masses) - 1, self.chi_square))

    def __str__(self) -> str:
        lines = ["region                    mass     particles  std. error      z"]
        rows = zip(self.masses, self.shares, self.errors, self.z, strict=True)
        for k, (mass, part, error, z) in enumerate(rows):
            where = "left"
            if k < len(self.middles):
                where = "(" + ", ".join(f"{x:.3g}" for x in self.middles[k]) + ")"
            lines.append(f"{where:20} {mass:10.5f} {part:12.5f} {error:11.5f} {z:6.2f}")
        worst = float(np.abs(self.z).max())
        lines.append(
            f"{self.count} particles: chi-square {self.chi_square:.1f} of {len(self.masses) - 1} "
            f"degrees of freedom, p = {self.p_value:.3g}, largest |z| {worst:.2f}"
        )
        return "\n".join(lines)


def compare(
    points: Array, density: fem.Function, regions: int | Callable[[Array], Array] = 32
) -> Comparison:
    """Particles against a density, by a chi-square test. Collective.

    The mesh is cut into regions of about equal mass, unions of cells, so that masses are exact and
    particles need no marker. Steps of particles and cells of densities have errors of their own:
    with so many particles that these show, the test fails; refine both, and see which one moves.

    Args:
        points: This rank's particles, ``(n, d)``, such as ``swarm.points``; nan for those that have
            left.
        density: Not negative; of less mass than one where walls have absorbed the rest.
        regions: Number of regions, at least 2; or a function that gives the centroids of cells,
            ``(cells, d)``, the number of their region from 0 on, ``(cells,)``.

    Raises:
        ValueError: On all ranks, for points outside the mesh or a bad argument.
    """
    pieces = Pieces(density)
    domain, comm = pieces.domain, pieces.comm
    with collective_errors(comm):
        pieces.check()
        if (mass := pieces.masses.sum()) > 1.0 + MASS:
            raise ValueError(
                f"density has mass {mass:.7g}: that of particles is 1, or less where walls have "
                "absorbed some; divide it by its mass."
            )
        x = positions(points, domain.dimension)
        label = labels(regions, domain.middles, pieces.masses)
        regions = int(label.max()) + 1
        here = np.isfinite(x).all(axis=1)
        counts = np.bincount(label[domain.find(x[here])], minlength=regions + 1)
        counts[regions] = (~here).sum()
    counts = reduced(comm, counts.astype(np.int64))
    total = int(counts.sum())
    if not total:
        raise ValueError("points: there is none on any rank.")
    masses = np.bincount(label, pieces.masses, minlength=regions + 1)
    masses[regions] = 1.0 - masses.sum()
    if masses[regions] < 1e-9 and not counts[regions]:
        masses, counts = masses[:regions], counts[:regions]
    masses = np.maximum(masses, 1e-300) / np.maximum(masses, 1e-300).sum()
    moments = [np.bincount(label, pieces.masses * x, regions) for x in domain.middles.T]
    middles = np.column_stack(moments) / masses[:regions, None]
    errors = np.sqrt(masses * (1.0 - masses) / total)
    return Comparison(middles, masses, counts / total, errors, total)


def histogram(mesh: Mesh, points: Array) -> fem.Function:
    """The density that has in each cell the share of the particles there. Collective.

    For a smooth one see ``fpc.density.from_points``, with ``swarm.gather()``.

    Args:
        mesh: The mesh.
        points: This rank's particles, ``(n, d)``; nan for those that have left, which count in the
            number that shares are of.

    Returns:
        A function of degree 0, one over length**d.

    Raises:
        ValueError: On all ranks, for points outside the mesh or of another shape.
    """
    comm, domain = comm_of(mesh), Domain.of(mesh)
    with collective_errors(comm):
        x = positions(points, domain.dimension)
        here = np.isfinite(x).all(axis=1)
        counts = np.bincount(domain.number[domain.find(x[here])], minlength=len(domain))
    counts = reduced(comm, counts.astype(np.int64))
    total = comm.allreduce(len(x))
    if not total:
        raise ValueError("points: there is none on any rank.")
    volumes = np.empty(len(domain))
    volumes[domain.number] = domain.volumes
    density = fem.Function(fem.functionspace(mesh, ("DG", 0)), name="histogram")
    n = mesh.topology.index_map(domain.dimension).size_local
    own = slice(domain.cells.first, domain.cells.first + n)
    dofs = density.function_space.dofmap.list[:n, 0]
    density.x.array[dofs] = counts[own] / (total * volumes[own])
    density.x.scatter_forward()
    return density


def labels(regions: int | Callable[[Array], Array], middles: Array, masses: Array) -> Array:
    """Numbers of the regions that cells are in, ``(cells,)``."""
    if not callable(regions):
        if isinstance(regions, bool) or not 2 <= regions <= len(middles):
            raise ValueError(f"regions = {regions!r} must be 2 to {len(middles)}, the cells.")
        return _regions(middles, masses, int(regions))
    label = np.asarray(regions(middles))
    if label.shape != (len(middles),) or label.dtype.kind not in "iu" or label.min() < 0:
        raise ValueError(
            f"regions(x) returned {label.dtype} values of shape {label.shape} for x of shape "
            f"{middles.shape}; whole numbers from 0 on of shape ({len(middles)},) are needed."
        )
    weights = np.bincount(label, masses)
    if len(weights) < 2 or not (weights > 0.0).all():
        raise ValueError(
            f"regions(x): region {int(weights.argmin())} of {len(weights)} has no mass; at least "
            "two are needed, and each needs some."
        )
    return label.astype(np.int64)


def _regions(middles: Array, masses: Array, count: int) -> Array:
    """Labels of cells: the heaviest set is cut in two halves along its longer side, and again."""
    label = np.zeros(len(middles), dtype=np.int64)
    heap = [(-masses.sum(), 0, np.arange(len(middles)))]
    for new in range(1, count):
        _, old, cells = heapq.heappop(heap)
        axis = int(np.ptp(middles[cells], axis=0).argmax())
        cells = cells[np.argsort(middles[cells, axis], kind="stable")]
        level = np.cumsum(masses[cells])
        cut = int(np.clip(np.searchsorted(level, 0.5 * level[-1]), 1, len(cells) - 1))
        for key, part in ((old, cells[:cut]), (new, cells[cut:])):
            label[part] = key
            # Sets of one cell cannot be cut.
            weight = masses[part].sum() if len(part) > 1 else 0.0
            heapq.heappush(heap, (-weight, key, part))
    return label
