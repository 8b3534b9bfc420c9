"""A control that was found, looked at by particles: are they where its density says?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from dolfinx import fem
from scipy.special import chdtrc

from fpcontrol.mesh import refine
from fpcontrol.noise import Noise, Sigma
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.particles.drawing import Pieces, draw
from fpcontrol.particles.simulation import EulerMaruyama, Heun, PathScheme, simulate
from fpcontrol.particles.statistics import Comparison, compare, labels
from fpcontrol.particles.swarm import Swarm
from fpcontrol.particles.without_noise import carried
from fpcontrol.typing import Array

if TYPE_CHECKING:
    from fpcontrol.control.on_mesh import MeshRuns
    from fpcontrol.control.result import Result

# Shares with steps twice as long and those without differ less often by chance.
SEEN = 0.01


@dataclass(frozen=True)
class Check:
    """Particles of a control that was found, beside its density. Plain data.

    Attributes:
        comparison: Their shares of regions, and the masses of the density on cells and steps half
            as large as those of the problem.
        cells: The largest change of a mass from the problem's own cells and steps to those, in
            standard errors of the shares: a bound of the error of the density that particles were
            compared with, where it converges at least at rate 1.
        steps: Steps of the particles.
        longer: Of a chi-square test between the shares and those with steps twice as long, the
            p-value: small where the bias of the steps is seen.
        seed: Of all that is random.
    """

    comparison: Comparison
    cells: float
    steps: int
    longer: float
    seed: int

    @property
    def bias(self) -> tuple[str, ...]:
        """What is not below the statistical error: none, ``"cells"``, ``"steps"`` or both."""
        found = {"cells": self.cells > 1.0, "steps": self.longer < SEEN}
        return tuple(name for name, seen in found.items() if seen)

    @property
    def figures(self) -> dict[str, Any]:
        """For a record in JSON."""
        c = self.comparison
        return {
            "particles": c.count,
            "regions": len(c.middles),
            "chi-square": c.chi_square,
            "p value": c.p_value,
            "largest |z|": float(np.abs(c.z).max()),
            "cells, standard errors": self.cells,
            "steps": self.steps,
            "steps twice as long, p value": self.longer,
            "bias": list(self.bias),
            "seed": self.seed,
        }

    def __str__(self) -> str:
        c = self.comparison
        found = (
            f"{c.count} in {len(c.middles)} regions: chi-square {c.chi_square:.1f}, "
            f"p = {c.p_value:.2g}, largest |z| {np.abs(c.z).max():.2f}"
        )
        moved = f"cells move masses by {self.cells:.2g} std. errors, longer steps: p = "
        moved += f"{self.longer:.2g}"
        verdict = "below the statistical error"
        if self.bias:
            verdict = f"above the statistical error: {' and '.join(self.bias)}"
        elif c.p_value < SEEN:
            verdict = f"not seen, but p is small: look again with steps={4 * self.steps}"
        rows = ("particles", found), ("their bias", verdict), ("", moved)
        return "\n".join(f"{name:<12}{text}" for name, text in rows)


class Regions:
    """Regions of a mesh's cells that hold on every finer mesh of it, too. Collective.

    Args:
        density: On the mesh; not negative.
        regions: Their number or a function of centroids, as for ``compare``.
    """

    def __init__(self, density: fem.Function, regions: int | Callable[[Array], Array] = 32) -> None:
        pieces = Pieces(density)
        self.domain = pieces.domain
        with collective_errors(pieces.comm):
            pieces.check()
            self.labels = labels(regions, self.domain.middles, pieces.masses)

    def __call__(self, x: Array) -> Array:
        """The region of points ``(N, d)`` of the mesh, ``(N,)``."""
        return self.labels[self.domain.find(x)]


def check(
    result: "Result",
    n: int,
    regions: int | Callable[[Array], Array] = 24,
    *,
    seed: int = 0,
    steps: int | None = None,
    swarm: Swarm | None = None,
) -> Check:
    """Whether particles of a control that was found are where its density says. Collective.

    ``n`` particles are drawn from the density at the start, moved by the drift of the weights found
    (``Heun`` where the noise is one number, else ``EulerMaruyama``) and compared at the last time,
    by chi-square, with the density that the same weights make on cells and steps half as large, by
    the problem's own method. Both have errors that the test does not know of; so masses are
    compared with those on the problem's own cells, and shares with those of steps twice as long.
    Of absorbing walls what they have taken is one region more.

    Without noise the density is that of characteristics, run backwards from points of the cells
    to an error of 1e-9; of cells half as large for both.

    Args:
        result: Of ``steer`` or ``minimize``, of a problem with a Moser flow; the density must not
            be negative. Walls that absorb have to be given by a marker.
        n: Number of particles, of all ranks.
        regions: Number of regions, or a function of the centroids of cells, as in ``compare``.
        seed: Of all that is random.
        steps: Of the particles, an even multiple of the drift's pieces; four times the problem's
            unless given.
        swarm: Particles that were moved so already, by ``steps`` steps and the same scheme.

    Raises:
        ValueError: On all ranks, for another problem or a bad argument.
    """
    problem = result.problem
    steps = 4 * problem.steps if steps is None else steps
    if steps < 1 or steps % (2 * problem.drift.pieces):
        raise ValueError(
            f"steps = {steps!r} must be a multiple of twice the {problem.drift.pieces} pieces."
        )
    runs = problem.runs
    mesh, t1, begun = problem.elements.mesh, float(runs.times[-1]), runs.start
    noise, names = runs.noise, zip(("absorbing", "facet_tags"), runs.walls, strict=True)
    walls: dict[str, Any] = {name: value for name, value in names if value is not None}
    sigma, scheme = (0.0, Heun()) if noise is None else _noise(noise)
    if noise is None:
        if begun is None:
            raise ValueError(
                "result is of markers that were given, or of a reference in closed form: a density "
                "on a mesh at the start is needed, as of a MoserFlow."
            )
        own, finer = (carried(begun, result.drift, t1, m) for m in (mesh, refine(mesh)))
    else:
        own, finer = _densities(result, walls)

    def walk(count: int, key: int) -> Array:
        points = draw(begun, n, seed=key)
        moved = simulate(
            mesh, result.drift, points, sigma, t1, count, seed=key, scheme=scheme, **walls
        )
        return moved.points

    where = Regions(own, regions)
    points = walk(steps, seed) if swarm is None else swarm.points
    found = compare(points, finer, where)
    coarse = compare(points, own, where)
    cells = float((np.abs(found.masses - coarse.masses) / found.errors).max())
    others = walk(steps // 2, (seed + 1) % 2**64)  # by other random numbers: independent shares
    longer = compare(others, finer, where)
    return Check(found, cells, steps, _two_samples(found, longer), seed)


def _noise(noise: Noise) -> tuple[Sigma, PathScheme]:
    """What particles have, and how they step."""
    if noise.by_place and noise.interpretation != "ito":
        raise ValueError(
            f"interpretation = {noise.interpretation!r}: particles have noise in the sense of Ito."
        )
    return noise.sigma, Heun() if noise.uniform else EulerMaruyama()


def _densities(result: "Result", walls: dict[str, Any]) -> tuple[fem.Function, fem.Function]:
    """At the last time, on the problem's own mesh and steps and on finer ones. Collective."""
    problem = result.problem
    runs = cast("MeshRuns", problem.runs)
    system, scheme = runs.system, runs.scheme
    if system.reacting or system.reentry:
        what = "reactions" if system.reacting else "reentry"
        raise ValueError(
            f"result is of a problem with {what}: particles neither die nor come nor "
            "enter again. Check one without."
        )
    if "facet_tags" in walls:
        raise ValueError(
            f"absorbing = {walls['absorbing']!r} of facet_tags: a finer mesh has none. Give "
            "TrackingProblem a marker of the walls, absorbing(x), instead."
        )
    method = system.discretization
    fine = problem.on_refined_mesh(2 * problem.steps, discretization=method, scheme=scheme, **walls)
    of_each: Any = [p.trajectory(result.weights) for p in (problem, fine)]
    own, finer = (densities[-1] for densities in of_each)
    return own, finer


def _two_samples(a: Comparison, b: Comparison) -> float:
    """Probability of shares further apart than those of two swarms in the same regions."""
    counts = np.array([c.count * c.shares for c in (a, b)])
    expected = counts.sum(axis=0) * counts.sum(axis=1, keepdims=True) / counts.sum()
    seen = expected[0] > 0.0
    square = ((counts - expected)[:, seen] ** 2 / expected[:, seen]).sum()
    return float(chdtrc(int(seen.sum()) - 1, square))
