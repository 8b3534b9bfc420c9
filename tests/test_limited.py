"""The limited method: positive everywhere, Galerkin's where that is positive, exact derivatives."""

import warnings

import numpy as np
import pytest
from problems import SELF, WORLD, bump, cube, raised

import fpcontrol as fpc
from fpcontrol.discretization.cell_edges import CellEdges
from fpcontrol.discretization.edges import Edges
from fpcontrol.stepping.runge_kutta import RungeKuttaStepper
from fpcontrol.verification import difference_test, dot_test, taylor_test

DIMENSIONS = pytest.mark.parametrize(("dim", "n"), [(1, 12), (2, 6), (3, 3)])


def tracking(comm=WORLD, dim=2, n=4, sigma=0.8, steps=4, **options):
    mesh = cube(comm, dim, n)
    reference = fpc.MoserFlow(
        bump(mesh, 1, 0.3), bump(mesh, 1, 0.7), 1.0, sigma, discretization=fpc.Limited()
    )
    drift = fpc.NetworkDrift(mesh, dim, 2, seed=3)
    return fpc.TrackingProblem(reference, drift, sigma, steps, **options)


def jittered(comm, n: int, amount: float = 0.3):
    """Unit square whose inner vertices are moved at random: a sixth of its edges are bad."""
    mesh = cube(comm, 2, n)
    x = mesh.geometry.x
    inner = ((x[:, :2] > 1e-9) & (x[:, :2] < 1 - 1e-9)).all(axis=1)
    wave = np.sin(1e4 * (x[:, [0, 1]] @ np.array([[1.0, 2.3], [1.7, -3.1]])))  # of the place alone
    x[inner, :2] += amount / n * wave[inner]
    return mesh


@pytest.mark.parallel([1, 2, 3])
@DIMENSIONS
def test_edges_of_cells_make_the_edges_of_the_mesh(dim, n):
    system = fpc.Limited().on(cube(WORLD, dim, n))
    cells, g = system.cell_edges, system.elements
    total = g.sum(float(cells.parts.sum()))
    vertices, faces = (n + 1) ** dim, {1: n, 2: 3 * n * n + 2 * n, 3: None}[dim]
    if faces is not None:
        assert total == pytest.approx(faces)
    assert vertices == g.index_map.size_global
    if dim < 3:  # in 3-D its weights are others
        one, other = Edges(g), cells
        assert other.clipped == pytest.approx(one.clipped, abs=1e-14)
        assert g.sum(other.weights.sum()) == pytest.approx(g.sum(one.weights.sum()))
    assert isinstance(cells, CellEdges) and (cells.shares >= 0.0).all()


def resolved(mesh, discretization, **options):
    """A run that is resolved: an affine drift, for which all rules of degree 2 are exact."""
    drift = fpc.drift.Steady(lambda x: 0.8 - x)
    equation = fpc.FokkerPlanck(
        mesh, drift, 0.9, discretization=discretization, linear_solver="direct"
    )
    return equation.solve(bump(mesh, 1, 0.4), 0.2, 60, **options)


SCHEMES = pytest.mark.parametrize("scheme", [None, fpc.SDIRK2()])


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("flux", ["bernoulli", "hybrid"])
@pytest.mark.parametrize("bad", [False, True])
@SCHEMES
def test_where_the_density_is_resolved_it_is_galerkins(flux, bad, scheme):
    mesh = jittered(WORLD, 8) if bad else cube(WORLD, 2, 8)
    own = resolved(mesh, fpc.Limited(flux), scheme=scheme)
    assert own.limited_fraction == 0.0
    assert (fpc.Monotone().on(mesh).edges.clipped > 0.01) == bad
    galerkin = resolved(mesh, fpc.Galerkin(1), scheme=scheme)
    assert fpc.distances.l2(own[-1], galerkin[-1]) < 1e-12


@pytest.mark.parallel([1, 3])
def test_on_an_interval_it_is_galerkins_with_the_midpoint_rule():
    mesh = cube(WORLD, 1, 20)
    own = resolved(mesh, fpc.Limited())
    assert fpc.distances.l2(own[-1], resolved(mesh, fpc.Galerkin(1, 1))[-1]) < 1e-12


@pytest.mark.parallel([1, 2])
@DIMENSIONS
@pytest.mark.parametrize("peclet", [1e-3, 1.0, 1e2, 1e6])
@SCHEMES
def test_density_stays_positive_and_keeps_its_mass(dim, n, peclet, scheme):
    mesh = cube(WORLD, dim, n)
    rng = np.random.default_rng(7)
    wave, phase = 9.0 * rng.standard_normal((dim, dim)), rng.random(dim)
    sigma = (1.0 / n / peclet) ** 0.5

    def drift(t: float, x: np.ndarray) -> np.ndarray:
        return np.sin(x @ wave + 40.0 * t + phase)

    start = fpc.density.interpolate(mesh, lambda x: (x[0] < 0.4) * 1.0, degree=1)
    equation = fpc.FokkerPlanck(mesh, drift, sigma, discretization=fpc.Limited())
    for steps, t1 in ((3, 40.0), (6, 0.2)):
        trajectory = equation.solve(start, t1, steps, scheme=scheme)
        highest = max(np.abs(level).max(initial=0.0) for level in trajectory.levels)
        assert trajectory.minimum.min() >= -1e-14 * highest
        assert trajectory.mass_defect < 1e-13
        # Where steps of SDIRK2 damp all that they do not resolve nothing is left to limit.
        assert (scheme and peclet < 1.0) or trajectory.limited_fraction > 0.0
        assert trajectory.limited_fraction <= 1.0


@pytest.mark.parallel([1, 2])
def test_bad_edges_do_no_harm_to_positivity():
    mesh = jittered(WORLD, 8)
    drift = fpc.drift.Steady(lambda x: np.array([5.0, 2.0]) + 0.0 * x)
    equation = fpc.FokkerPlanck(mesh, drift, 0.05, discretization=fpc.Limited())
    trajectory = equation.solve(fpc.density.uniform(mesh, 1), 1.0, 20)
    assert trajectory.minimum.min() >= 0.0 and trajectory.mass_defect < 1e-13


@pytest.mark.parallel([1, 2])
@DIMENSIONS
def test_moser_drift_gives_the_discrete_line_where_nothing_is_limited(dim, n):
    mesh, method = cube(WORLD, dim, n), fpc.Limited()
    flow = fpc.MoserFlow(bump(mesh, 1, 0.3), bump(mesh, 1, 0.7), 1.0, 0.5, discretization=method)
    equation = fpc.FokkerPlanck(mesh, flow.drift, 0.5, discretization=method)
    trajectory = equation.solve(flow.start, 1.0, 30)
    assert trajectory.limited_fraction == 0.0
    for t, level in zip(trajectory.times, trajectory, strict=True):
        assert fpc.distances.l2(level, flow.density(float(t))) < 1e-10


@SCHEMES
def test_orders_in_space_and_time_are_two(scheme):
    def drift(t: float, x: np.ndarray) -> np.ndarray:
        return (1.0 + t) * np.sin(np.pi * x) * (1.0 + np.roll(x, 1, axis=1))

    fine = cube(SELF, 2, 32)
    exact = fpc.FokkerPlanck(fine, drift, 0.6, degree=2).solve(bump(fine, 2, 0.4), 0.3, 64)[-1]
    errors = []
    for n in (8, 16):
        mesh = cube(SELF, 2, n)
        equation = fpc.FokkerPlanck(mesh, drift, 0.6, discretization=fpc.Limited())
        end = equation.solve(bump(mesh, 1, 0.4), 0.3, 2 * n, scheme=scheme)[-1]
        errors.append(fpc.distances.l2(end, exact))
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.15)


def test_an_unresolved_layer_is_nearer_the_truth_than_upwind():
    # The drift pushes to a wall and then back: Wasserstein distances, as no L2 error means much.
    def drift(t: float, x: np.ndarray) -> np.ndarray:
        return np.where(t < 0.4, 1.0, -1.0) + 0.0 * x

    mesh, peclet = cube(SELF, 1, 64), 10.0
    sigma = (2.0 / 64 / peclet) ** 0.5
    fine = cube(SELF, 1, 2048)
    ends = {}
    for name, grid, method, steps in (
        ("truth", fine, fpc.Galerkin(2), 1600),
        ("limited", mesh, fpc.Limited(), 200),
        ("monotone", mesh, fpc.Monotone(), 200),
    ):
        start = fpc.density.uniform(grid, method.degree)
        scheme = fpc.SDIRK2() if name == "truth" else None
        equation = fpc.FokkerPlanck(grid, drift, sigma, discretization=method)
        ends[name] = equation.solve(start, 0.8, steps, scheme=scheme)[-1]
    distance = {
        name: fpc.distances.wasserstein(ends[name], ends["truth"], p=1)
        for name in ("limited", "monotone")
    }
    assert distance["limited"] < 0.25 * distance["monotone"]


PROBLEMS = {
    "interval": {"dim": 1, "n": 8},
    "square": {},
    "square, limited": {"sigma": 0.1},
    "square, noise in time": {"sigma": lambda t: 0.4 + 0.5 * t},
    "square, recomputed": {"snapshots": 1},
    "cube": {"dim": 3, "n": 2},
    "square, SDIRK2": {"scheme": fpc.SDIRK2()},
    "square, SDIRK2, limited": {"scheme": fpc.SDIRK2(), "sigma": 0.1},
    "interval, SDIRK2, recomputed": {"dim": 1, "scheme": fpc.SDIRK2(), "snapshots": 1},
    "square, objectives": {
        "objectives": (fpc.objectives.FinalKL(0.5), fpc.objectives.KineticEnergy(0.1))
    },
}


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("name", PROBLEMS)
def test_derivative(name):
    p = tracking(**PROBLEMS[name])
    weights = 2.0 * p.drift.weights
    assert taylor_test(p, weights).orders == pytest.approx(2.0, abs=0.03)
    assert difference_test(p, weights) < 1e-7
    assert dot_test(p, weights) < 1e-11


@pytest.mark.parallel([1, 2])
def test_where_nothing_is_limited_the_derivative_is_galerkins_and_takes_its_solves(monkeypatch):
    mesh, solves = cube(WORLD, 1, 40), []
    step = RungeKuttaStepper.adjoint_step

    def counted(self, *arguments):
        solves.append(self)
        return step(self, *arguments)

    monkeypatch.setattr(RungeKuttaStepper, "adjoint_step", counted)

    def derivative(method, size):
        ends = bump(mesh, 1, 0.3), bump(mesh, 1, 0.7)
        reference = fpc.MoserFlow(*ends, 1.0, 0.8, discretization=method)
        drift = fpc.NetworkDrift(mesh, 1, 2, seed=3)
        problem = fpc.TrackingProblem(reference, drift, 0.8, 16)
        solves.clear()
        _, dual = problem.value_and_derivative(size * drift.weights)
        return dual, problem.trajectory(size * drift.weights).limited_fraction, len(solves)

    own, limited, taken = derivative(fpc.Limited(), 1.0)
    galerkins, _, as_many = derivative(fpc.Galerkin(1, 1), 1.0)
    assert limited == 0.0 and taken == as_many == 16
    assert np.abs(own - galerkins).max() < 1e-9 * np.abs(galerkins).max()
    _, limited, taken = derivative(fpc.Limited(), 30.0)
    assert limited > 0.0 and 16 < taken <= 32


def test_ringing_is_said_with_a_remedy_that_serves():
    mesh = cube(SELF, 1, 12)
    equation = fpc.FokkerPlanck(mesh, fpc.drift.zero(), 1.0, discretization=fpc.Limited())
    start = fpc.density.interpolate(mesh, lambda x: (x[0] < 0.4) * 1.0, degree=1)
    with pytest.warns(UserWarning, match=r"rings.* L-stable scheme \(SDIRK2\(\)\) or"):
        equation.solve(start, 20.0, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        equation.solve(start, 20.0, 6, scheme=fpc.SDIRK2())


@SCHEMES
def test_derivative_where_nearly_all_is_limited(scheme):
    p = tracking(n=6, steps=8, scheme=scheme)
    weights = 30.0 * p.drift.weights
    assert p.trajectory(weights).limited_fraction > 0.3
    assert difference_test(p, weights) < 1e-7
    assert dot_test(p, weights) < 1e-11


def test_steps_of_sdirk2_damp_what_crank_nicolson_leaves():
    mesh = cube(SELF, 1, 32)
    equation = fpc.FokkerPlanck(mesh, fpc.drift.zero(), 1.0, discretization=fpc.Limited())
    start = fpc.density.interpolate(mesh, lambda x: (x[0] < 0.4) * 1.0, degree=1)
    rough, smooth = (
        equation.solve(start, 1.0, 4, scheme=scheme, save="last")[-1].x.array
        for scheme in (fpc.CrankNicolson(), fpc.SDIRK2())
    )
    assert np.abs(smooth - 1.0).max() < 0.05 < 0.3 * np.abs(rough - 1.0).max()


@pytest.mark.parallel([2, 3])
@SCHEMES
def test_ranks_agree(scheme):
    weights = 10.0 * tracking(SELF).drift.weights
    everywhere, here = (tracking(comm, sigma=0.3, scheme=scheme) for comm in (WORLD, SELF))
    value, dual = everywhere.value_and_derivative(weights)
    alone, same = here.value_and_derivative(weights)
    assert value == pytest.approx(alone, rel=1e-9)
    assert np.abs(dual - same).max() < 1e-9 * np.abs(same).max()
    shares = [p.trajectory(weights).limited_fraction for p in (everywhere, here)]
    assert shares[0] == shares[1] > 0.0


@pytest.mark.parallel([1, 2])
def test_what_it_cannot_serve_is_refused():
    mesh = cube(WORLD, 2, 3)
    equation = fpc.FokkerPlanck(mesh, fpc.drift.zero(), 1.0, discretization=fpc.Limited())
    start = fpc.density.uniform(mesh, 1)
    words = raised(ValueError, lambda: equation.solve(start, 1.0, 2, scheme=fpc.SDIRK4()))
    assert "SDIRK4 cannot serve Limited" in words and "SDIRK2()" in words
    words = raised(ValueError, lambda: equation.solve(fpc.density.uniform(mesh, 2), 1.0, 2))
    assert "degree" in words
    assert "flux = 'upwind'" in raised(ValueError, lambda: fpc.Limited("upwind"))
