"""Cases of bench_bridges.py: targets, one fitted score, and what its sampler makes of it."""

import math
from dataclasses import dataclass
from typing import Any

from mpi4py import MPI

import numpy as np

import fpcontrol as fpc
from fpcontrol.discretization.elements import Elements
from fpcontrol.noising import GaussianMixture, Graded, OrnsteinUhlenbeck, PinnedBrownian
from fpcontrol.score import RandomFeatures
from fpcontrol.typing import Array

NODES = 64  # in time, of the divergence of paths where that is of particles
BATCH = 512  # of the training of networks
_sliced = fpc.distances.sliced_wasserstein
# Both processes start at the age LAST and end at the age FIRST: with noise of variance 1 the age
# of the Ornstein-Uhlenbeck process is its time.
FIRST, LAST = 0.002, 3.0
OU = OrnsteinUhlenbeck(t1=LAST, g=math.sqrt(2.0))
PINNED = PinnedBrownian(t1=-math.expm1(-2.0 * LAST))


def funnel(d: int, s: float, c: float, gap: float) -> GaussianMixture:
    r"""The funnel :math:`x_0\sim N(0, s^2)`, :math:`x_i|x_0\sim N(0, ce^{x_0})`, as a mixture.

    Its components are a gap apart and as wide: the first marginal is that of the funnel to eight
    digits, and the logarithm of the variance is smeared by a gap. The exact scores are those of
    this mixture.
    """
    n = math.ceil(4.2 * s / gap)
    y = gap * np.arange(-n, n + 1)
    means = np.zeros((len(y), d))
    means[:, 0] = y
    covariances = np.zeros((len(y), d, d))
    covariances[:, 0, 0] = gap**2
    for i in range(1, d):
        covariances[:, i, i] = c * np.exp(y)
    return GaussianMixture(means, covariances, np.exp(-0.5 * y**2 / (s**2 - gap**2)))


def modes(d: int, n: int) -> GaussianMixture:
    """Modes of several widths and weights at random places of the unit normal law, times 1.2."""
    rng = np.random.default_rng(d)
    means = 1.2 * rng.standard_normal((n, d))
    return GaussianMixture(means, rng.uniform(0.08, 0.2, n), rng.uniform(0.5, 1.0, n))


@dataclass(frozen=True)
class Target:
    """Data, and how they are resolved: a box, cells before they are halved, steps; or particles.

    ``budgets`` are numbers of features, ``widths`` those of the two hidden layers of networks that
    are trained: the first has about as many weights as the features at their largest budget.
    """

    data: GaussianMixture
    half: float
    cells: int
    steps: int
    seconds: float  # processor's, for one row, as measured
    budgets: tuple[int, ...]
    widths: tuple[int, ...] = ()
    middle: float = 1.0  # side of the cells in the middle of the box over that of equal ones

    @property
    def dimension(self) -> int:
        """Of the space."""
        return self.data.dimension

    def mesh(self, cells: int) -> Any:
        """The box; where cells are larger away from the middle, by a cubic in each coordinate."""
        d, h, a = self.dimension, self.half, self.middle
        if d == 1:
            return fpc.mesh.interval(MPI.COMM_SELF, cells, -h, h)
        make = fpc.mesh.rectangle if d == 2 else fpc.mesh.box
        mesh = make(MPI.COMM_SELF, (cells,) * d, (-h,) * d, (h,) * d)
        u = mesh.geometry.x / h
        mesh.geometry.x[:] = h * (a * u + (1.0 - a) * u**3)
        return mesh


FIVE = GaussianMixture([-3.0, -1.5, 0.0, 1.5, 3.0], 0.03, [0.1, 0.3, 0.2, 0.15, 0.25])
PLANE = GaussianMixture([[-1.5, -1.0], [1.5, -0.5], [0.0, 1.5]], [0.1, 0.15, 0.08], [0.3, 0.4, 0.3])
# Wide enough for 28 cells a side to resolve.
SPACE = GaussianMixture([[-1.0, -1.0, 0.0], [1.0, 0.0, 0.8]], [0.4, 0.35], [0.4, 0.6])
LINE = (32, 64, 128, 256)
TARGETS = {
    "two": Target(GaussianMixture([-2.0, 1.5], [0.05, 0.1]), 6.0, 240, 60, 0.7, LINE, (13, 64)),
    "five": Target(FIVE, 6.0, 240, 60, 0.7, LINE),
    "plane": Target(PLANE, 4.8, 32, 24, 10.0, (32, 128), (13,)),
    "funnel2": Target(funnel(2, 0.8, 0.25, 0.3), 6.0, 40, 24, 24.0, (32, 128)),
    "space": Target(SPACE, 4.0, 14, 8, 45.0, (32, 128), (), 0.4),
    "funnel3": Target(funnel(3, 0.6, 0.35, 0.3), 4.6, 14, 8, 90.0, (128,), (), 0.4),
    "modes10": Target(modes(10, 5), 0.0, 5000, 200, 5.0, (128, 512), (60,)),
    "funnel10": Target(funnel(10, 1.0, 0.5, 0.35), 0.0, 5000, 200, 8.0, (512,)),
    "modes50": Target(modes(50, 5), 0.0, 5000, 200, 14.0, (512,)),
    "funnel50": Target(funnel(50, 1.0, 0.5, 0.35), 0.0, 5000, 200, 20.0, (512,)),
}


@dataclass(frozen=True)
class Case:
    """One score and how it is measured; ``form = "exact"`` is the floor of the method.

    Scores are linear in n features, or, with ``iterations``, networks of two layers of n.
    """

    target: str
    form: str
    weighting: str
    n: int
    seed: int
    cells: int
    steps: int
    process: str = "OU"
    iterations: int = 0

    @property
    def family(self) -> str:
        """Of the score."""
        if self.form == "exact":
            return ""
        return "trained" if self.iterations else "features"

    @property
    def weights(self) -> int:
        """Numbers that are fitted."""
        d, n = TARGETS[self.target].dimension, self.n
        return (d + 3) * n + (n + 1) * (n + d) if self.iterations else n * d

    @property
    def name(self) -> str:
        """Of the row."""
        own = (self.target, self.process, self.form, self.weighting, self.n, self.seed)
        trained = ("trained", self.iterations) if self.iterations else ()
        return "-".join(map(str, (*own, self.cells, self.steps, *trained)))


def measured(case: Case) -> dict[str, float | None]:
    """Figures of one case."""
    target = TARGETS[case.target]
    score: Any = OU.of(target.data)
    if case.iterations:
        score = fpc.score.train(
            OU,
            target.data,
            kind="score",
            form=case.form,
            matching="exact",
            weighting=case.weighting,
            hidden=(case.n, case.n),
            iterations=case.iterations,
            batch=BATCH,
            t0=FIRST,
            seed=case.seed,
            comm=MPI.COMM_SELF,
        )
        assert score.size == case.weights
    elif case.form != "exact":
        score = RandomFeatures.fit(
            OU,
            target.data,
            case.n,
            form=case.form,
            weighting=case.weighting,
            t0=FIRST,
            points=1000,
            seed=case.seed,
        )
    if target.dimension > 3:
        return on_particles(case, target, score)
    return on_mesh(case, target, score)


def on_mesh(case: Case, target: Target, score: Any) -> dict[str, float | None]:
    """Exact densities by the equation; lengths in those of the Ornstein-Uhlenbeck process."""
    process: Any = OU
    length = 1.0
    if case.process == "pinned":
        process, length = PINNED, math.exp(FIRST)
        score = PINNED.of(target.data) if case.form == "exact" else score.of(PINNED)
    lab = fpc.score.compare(
        score,
        process.of(target.data),
        target.mesh(case.cells),
        (1.0,),
        steps=case.steps,
        t0=process.time(FIRST),
        start="noised",
        discretization=fpc.Limited(),
        wall_tolerance=1.0,  # reported instead
        atoms=60,
    )
    s = lab[1.0]
    row: dict[str, float | None] = {
        "path KL": s.certificate.value,
        "path KL error": s.certificate.error,
        "KL": s.kl.value,
        "KL error": s.kl.error,
        "L2": s.l2.value / lab.norm,
        "L2 error": s.l2.error / lab.norm,
        "W2": length * s.wasserstein.value,
        "W2 error": length * s.wasserstein.error,
        "wall mass": s.wall_mass.value,
    }
    if target.dimension > 1:  # exact but for cells, where the other is one of few atoms
        pair = [fpc.density.normalized(f) for f in (s.density, lab.data)]
        row["W2"] = _sliced_at_nodes(*pair) if target.dimension == 3 else _sliced(*pair)
        row["W2 error"] = None
    return row


def _sliced_at_nodes(rho: Any, other: Any) -> float:
    """Of the masses of nodes' hats: of all quadrature points it takes minutes in 3-D."""
    space = rho.function_space
    g = Elements(space, 2)
    x = space.tabulate_dof_coordinates()[: g.n_owned, : g.dimension]
    volumes = g.quadrature_weights.reshape(g.n_points, g.n_cells).sum(axis=0)
    hats = g.assemble(np.tile(volumes / len(g.dofs), (len(g.dofs), 1)))
    masses = [np.maximum(hats * f.x.array[: g.n_owned], 0.0) for f in (rho, other)]
    return _sliced(x, x, x_masses=masses[0], y_masses=masses[1])


def on_particles(case: Case, target: Target, score: Any) -> dict[str, float | None]:
    """Euler-Maruyama in the age, against exact draws; errors are those of other exact draws."""
    n, d = case.cells, target.dimension
    noised = OU.of(target.data)
    clock = Graded(OU, FIRST, 0.01)
    rng = np.random.default_rng([case.seed, 1])
    x = noised.density(LAST).sample(n, seed=2 * case.seed)
    for k in range(case.steps):
        s, after = (clock.noising_time((k + i) / case.steps) for i in range(2))
        h = s - after
        x = (
            x
            + h * (x + 2.0 * score.values(s, x))
            + math.sqrt(2.0 * h) * rng.standard_normal((n, d))
        )
    end = noised.density(FIRST)
    exact, other = (end.sample(n, seed=10_000 + 2 * case.seed + i) for i in range(2))
    path = 0.0
    for k in range(NODES):
        u = (k + 0.5) / NODES
        s = clock.noising_time(u)
        y = noised.density(s).sample(1000, seed=20_000 + NODES * case.seed + k)
        gap = score.values(s, y) - noised.score(s, y)
        path += clock.rate(u) / NODES * float((gap**2).sum(axis=1).mean())
    return {
        "path KL": path,
        "W2": fpc.distances.sliced_wasserstein(x, exact),
        "W2 error": fpc.distances.sliced_wasserstein(other, exact),
        "MMD": _energy(x, exact),
        "MMD error": _energy(other, exact),
    }


def _energy(x: Array, y: Array) -> float:
    """Root of the energy distance, zero where its estimate is below zero; of 2500 points."""
    return math.sqrt(max(fpc.distances.mmd(x[:2500], y[:2500], "energy").squared, 0.0))
