r"""The densities that samplers make of a given score, without samples, and how far off they are."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from dolfinx import fem
from dolfinx.mesh import Mesh

from fpcontrol.density import Density
from fpcontrol.discretization.base import Discretization
from fpcontrol.discretization.galerkin import Galerkin
from fpcontrol.discretization.periodic import refuse_periodic
from fpcontrol.mesh.refinement import refine, transferred
from fpcontrol.noising.noised import Noised
from fpcontrol.noising.on_mesh import NoisedOnMesh
from fpcontrol.noising.reversal import Reversal, ScoreModel
from fpcontrol.score.measured import integrated_error, measured, mixing_error
from fpcontrol.score.settings import Data, Setting
from fpcontrol.typing import Field

COLUMNS = {
    "l2": "L2",
    "kl": "KL",
    "certificate": "KL at most",
    "wasserstein": "W2",
    "wall_mass": "at the wall",
    "collapsed_mass": "collapsed",
}
# An error of more than this share of a figure hides it.
HIDDEN = 1.0 / 3.0
# Collapsed mass from which on it is said.
COLLAPSED = 0.01


@dataclass(frozen=True)
class Estimate:
    """A figure with its error.

    Attributes:
        value: As measured on the finer mesh with the shorter steps.
        error: How much it differs from that on the mesh given: the error of the coarser one, and
            more than that of the finer one where the method converges. Of Wasserstein distances in
            2-D and 3-D several times that, see ``atomic``.
    """

    value: float
    error: float

    @property
    def resolved(self) -> bool:
        """Whether the error is less than a third of the value."""
        return self.error < HIDDEN * abs(self.value)

    @property
    def at_most(self) -> float:
        """Value and error."""
        return self.value + self.error

    def __str__(self) -> str:
        if math.isnan(self.value):
            return "-"
        if not math.isfinite(self.value):
            return "inf"
        if self.value + self.error < 1e-12:
            return "0"
        if not self.resolved:  # nothing but a bound is known
            return f"< {self.at_most:.1e}"
        return f"{self.value:.3g} ± {self.error:.1g}"


@dataclass(frozen=True, eq=False)
class Sampler:
    r"""What the sampler with one share of the noise makes of a score.

    Attributes:
        noise: :math:`\lambda`.
        density: Its density, on the refined mesh.
        l2: :math:`\|\hat p - p\|_{L^2}`.
        kl: :math:`\mathrm{KL}(p|\hat p)`; not a number where the density is negative.
        certificate: What bounds it, infinite without noise.
        wasserstein: :math:`W_2(\hat p, p)`; in 2-D and 3-D not a number without POT.
        wall_mass: Mass near the walls of a box at which space is cut off, or beyond; not a number
            where the walls are the process's own.
        collapsed_mass: Mass in cells in which a log-determinant does not give the density.
        extremes: Smallest and largest value of the density.
        coarse_extremes: The same on the mesh given: where they grow with finer cells, there may be
            no density.
    """

    noise: float
    density: fem.Function
    l2: Estimate
    kl: Estimate
    certificate: Estimate
    wasserstein: Estimate
    wall_mass: Estimate
    collapsed_mass: Estimate
    extremes: tuple[float, float]
    coarse_extremes: tuple[float, float]


@dataclass(frozen=True, eq=False, repr=False)
class Comparison:
    """Samplers of one score, by their noise: plain data, of which nothing communicates when read.

    ``comparison[0.5]`` is the sampler with this noise; iteration goes through all.

    Attributes:
        samplers: In the order of ``noises``.
        data: Density of the data at ``t0``, on the refined mesh.
        score_error: The integrated squared error of the score, in which certificates are.
        norm: L2 norm of the data's density.
    """

    samplers: tuple[Sampler, ...]
    data: fem.Function
    score_error: Estimate
    norm: float

    def __getitem__(self, noise: float) -> Sampler:
        for sampler in self.samplers:
            if sampler.noise == noise:
                return sampler
        raise KeyError(f"noise = {noise!r}: there are {[s.noise for s in self.samplers]}.")

    def __iter__(self) -> Iterator[Sampler]:
        return iter(self.samplers)

    def __len__(self) -> int:
        return len(self.samplers)

    def __repr__(self) -> str:
        rows = [("noise", *COLUMNS.values())]
        for s in self.samplers:
            rows.append((f"{s.noise:g}", *(str(getattr(s, name)) for name in COLUMNS)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(f"{text:>{n}}" for text, n in zip(row, widths, strict=True)) for row in rows
        ]
        for s in self.samplers:
            if s.collapsed_mass.value > COLLAPSED:
                lines.append(
                    f"noise {s.noise:g}: mass has collapsed, or cells are too large to tell; L2 "
                    f"and KL are of these cells, the largest value {s.coarse_extremes[1]:.3g} "
                    f"before they were halved, {s.extremes[1]:.3g} after."
                )
        return "\n".join(lines)


def compare(
    score: ScoreModel | Field,
    data: Data,
    mesh: Mesh,
    noises: Sequence[float] = (1.0, 0.5, 0.0),
    *,
    steps: int | None = None,
    t0: float = 0.0,
    start: str = "noise",
    finest: float = 0.01,
    discretization: Discretization | None = None,
    tolerance: float = 1e-6,
    wall_tolerance: float = 1e-3,
    atoms: int = 500,
) -> Comparison:
    r"""Densities of the samplers of a score, and their distances from the data. Collective.

    With noise the density is that of the reversed equation, in steps that shrink towards the data;
    without noise it is carried back to the noise along characteristics, from all quadrature points
    and vertices, and masses of cells are those of their images. No samples are drawn. All is
    done twice, on the mesh with the steps given and on the mesh refined once with twice as many
    steps; what is reported is of the second, and its error the difference to the first.

    The certificate is Girsanov's bound, for :math:`\lambda > 0`

    .. math:: \mathrm{KL}(p|\hat p_\lambda) \le \mathrm{KL}(p_{t_1}|q)
        + \tfrac{(1+\lambda^2)^2}{8\lambda^2}\int_{t_0}^{t_1}g^2E|\hat s - \nabla\log p_t|^2\,dt .

    Args:
        score: Anything with ``values(t, x)`` (``ScoreModel``), or a callable of the same; t is the
            noising time. ``data`` itself is the exact score.
        data: Noised data, ``process.of(...)``.
        mesh: Where to compute: that of the data, if these live on one; else a box that is large
            enough for all that has mass.
        noises: Shares :math:`\lambda` of the noise: 1 the SDE, 0 the ODE.
        steps: Of the reversed equation; 200 unless given, for data on a mesh theirs.
        t0: Noising time at which samplers stop; the data are those noised up to there.
        start: What samplers start from: ``"noise"`` alone, or ``"noised"``, the noised data (with
            noise only, where these live on a mesh).
        finest: See ``fpc.noising.Graded``.
        discretization: ``Galerkin(degree=2)`` unless given, or that of data on a mesh.
            ``Limited()`` where densities would be negative; for little noise ``Monotone()`` shows
            its own diffusion.
        tolerance: Of characteristics; a tenth of it on the finer mesh.
        wall_tolerance: Greatest mass at the walls of the box.
        atoms: For Wasserstein distances in 2-D and 3-D, see ``fpc.distances.wasserstein``; twice as
            many on the finer mesh.

    Raises:
        ValueError: On all ranks, for an argument that is not as above.
        ArithmeticError: On all ranks, if a run fails, or a density has more mass at the walls than
            ``wall_tolerance``.
        RuntimeError: On all ranks, if characteristics do not reach their tolerance.
    """
    if not isinstance(data, Noised | NoisedOnMesh):
        raise ValueError(f"data = {data!r}: noised data, process.of(density), are needed.")
    if start not in ("noise", "noised"):
        raise ValueError(f'start = {start!r}; choose "noise" or "noised".')
    own = data if isinstance(data, NoisedOnMesh) else None
    refuse_periodic(
        mesh, "A comparison of samplers", "take a box that is large enough, with walls."
    )
    if own is not None and own.elements.mesh._cpp_object != mesh._cpp_object:
        raise ValueError("mesh must be that of the data.")
    if own is not None and start == "noised" and 0.0 in noises:
        raise ValueError(
            'start = "noised": without noise samplers start from noise alone where data live on a '
            "mesh; give noises without 0, or a later t1."
        )
    coarse = Setting(
        mesh,
        steps or (own.steps if own else 200),
        data,
        discretization or (own.discretization if own else Galerkin(degree=2)),
        t0,
        finest,
        start == "noised",
        tolerance,
        atoms,
    )
    for noise in (0.0, *noises):
        Reversal(data.process, score, noise)  # refuses what is no score, or no share of the noise
    finer = refine(mesh)
    fine = coarse.finer(finer, _refined(own, finer) if own else data)
    errors, mixing, rows = [], [], []
    for setting in (coarse, fine):
        model: Any = setting.data if score is data else score
        _check_box(setting, wall_tolerance)
        errors.append(integrated_error(setting, model))
        mixing.append(mixing_error(setting))
        drifts = [Reversal(setting.data.process, model, noise) for noise in noises]
        rows.append([measured(setting, drift, warn=setting is fine) for drift in drifts])
        for noise, row in zip(noises, rows[-1], strict=True):
            _check_walls(f"noise = {noise:g}", row.figures["wall_mass"], wall_tolerance)
    samplers = []
    for noise, one, two in zip(noises, *rows, strict=True):
        figures = {k: estimate(one.figures[k], two.figures[k]) for k in two.figures}
        figures["wasserstein"] = atomic(figures["wasserstein"], mesh.topology.dim)
        factor = (1.0 + noise**2) ** 2 / (8.0 * noise**2) if noise else math.inf
        bounds = [
            m + factor * e if noise else math.inf for m, e in zip(mixing, errors, strict=True)
        ]
        samplers.append(
            Sampler(
                float(noise),
                two.density,
                certificate=estimate(*bounds),
                extremes=two.extremes,
                coarse_extremes=one.extremes,
                **figures,
            )
        )
    g, shown = fine.g, fem.Function(fine.g.space, name="data")
    if isinstance(fine.data, NoisedOnMesh):
        shown = fine.data.density(t0)
    else:
        x = g.space.tabulate_dof_coordinates()[: g.n_local, : g.dimension]
        shown.x.array[:] = fine.data.density(t0)(x)
    norm = math.sqrt(g.sum(float(g.quadrature_weights @ fine.target**2)))
    return Comparison(tuple(samplers), shown, estimate(*errors), norm)


def estimate(coarse: float, fine: float) -> Estimate:
    """A figure of two resolutions."""
    both = math.isfinite(coarse) and math.isfinite(fine)
    return Estimate(fine, abs(fine - coarse) if both else (0.0 if fine == coarse else math.inf))


def atomic(w2: Estimate, dimension: int) -> Estimate:
    """A Wasserstein distance between atoms, of which the finer mesh has twice as many.

    Mass that is moved by less than the distance h of atoms is moved by h: the square of the
    distance is then off by its multiple, and the distance by the root. The error is what is left if
    the difference is of that order, 1/2 in h.
    """
    if dimension == 1:  # no atoms
        return w2
    return Estimate(w2.value, w2.error / (2.0 ** (0.5 / dimension) - 1.0))


def _refined(data: NoisedOnMesh, mesh: Mesh) -> NoisedOnMesh:
    """The same data noised on a refined mesh in twice as many steps. Collective."""
    degree = data.elements.space.element.basix_element.degree
    f = transferred(data.data, fem.functionspace(mesh, ("Lagrange", degree)))
    density = Density(f.function_space, f.x, "density")
    density.discretization = data.discretization
    return NoisedOnMesh(data.process, density, steps=2 * data.steps, finest=data.finest)


def _check_box(setting: Setting, tolerance: float) -> None:
    """Refuse a box that does not hold the data and the noise. Collective."""
    if isinstance(setting.data, NoisedOnMesh):
        return
    g, first, last = setting.g, setting.t0, setting.data.process.t1
    noise = setting.noise()(g.points)
    for name, p in (
        (f"the data at t = {first:g}", setting.target),
        (f"the data at t = {last:g}", setting.density(last)),
        ("the noise", noise),
    ):
        mass = g.sum(float(g.quadrature_weights @ p))
        _check_walls(name, abs(1.0 - mass), tolerance)


def _check_walls(name: str, mass: float, tolerance: float) -> None:
    if mass > tolerance:  # the same on all ranks
        raise ArithmeticError(
            f"{name}: a mass of {mass:.3g} is at or beyond the walls of the mesh, more than "
            f"wall_tolerance = {tolerance:g}. Take a larger box (or smaller cells, if the density "
            "is narrower than they are); if it grows with the box, the score does not point inward "
            "far from the data."
        )
