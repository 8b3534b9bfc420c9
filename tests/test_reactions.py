"""Sources and killing: closed forms, orders, the account of mass, exact derivatives."""

import json

import numpy as np
import pytest
from problems import SELF, WORLD, bump, cube, raised, tracking
from test_absorbing_control import posed

import fpcontrol as fpc
from fpcontrol.verification import difference_test, dot_test, orders, taylor_test


def hill(x: np.ndarray) -> np.ndarray:
    return 0.5 + 2.0 * x[:, 0] ** 2


def door(x: np.ndarray) -> np.ndarray:
    return np.exp(-8.0 * ((x - 0.4) ** 2).sum(axis=1))


def turn(x: np.ndarray) -> np.ndarray:
    return 2.0 * np.column_stack([-(x[:, 1] - 0.5), x[:, 0] - 0.3])


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(
    ("method", "scheme", "factor"),
    [
        (fpc.Galerkin(2), fpc.CrankNicolson(), (1.0 - 0.05) / (1.0 + 0.05)),
        (fpc.Galerkin(1), fpc.BackwardEuler(), 1.0 / 1.1),
        (fpc.Monotone(), fpc.BackwardEuler(), 1.0 / 1.1),
    ],
)
def test_what_is_killed_at_one_rate_decays_as_the_scheme_says(method, scheme, factor):
    mesh = cube(WORLD, 2, 6)
    drift = fpc.drift.Steady(turn)
    equation = fpc.FokkerPlanck(
        mesh, drift, 0.7, discretization=method, reactions=fpc.Reactions(killing=2.0)
    )
    start = fpc.density.uniform(mesh, discretization=method)
    run = equation.solve(start, 0.5, 10, scheme=scheme)
    assert run.mass == pytest.approx(factor ** np.arange(11), rel=1e-11)
    assert run.killed == pytest.approx(1.0 - run.mass, abs=1e-12)
    # A callable of the same value is the same.
    by_place = fpc.Reactions(killing=lambda x: np.full(len(x), 2.0))
    again = fpc.FokkerPlanck(mesh, drift, 0.7, discretization=method, reactions=by_place)
    other = again.solve(start, 0.5, 10, scheme=scheme)
    assert np.abs(other.levels - run.levels).max() < 1e-9


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_steady_density_of_source_and_killing_is_of_full_order(degree):
    """With rho = 2 + cos(pi x) / 2 the source is -D rho'' + (v rho)' + k rho."""
    D, v = 0.5 * 0.8**2, 0.3

    def exact(x):
        return 2.0 + 0.5 * np.cos(np.pi * x)

    def source(x):
        x = x[:, 0]
        slope, k = -0.5 * np.pi * np.sin(np.pi * x), 3.0 + x
        # v = c sin(pi x) leaves nothing through the walls.
        drift, spread = v * np.sin(np.pi * x), v * np.pi * np.cos(np.pi * x)
        return (
            0.5 * D * np.pi**2 * np.cos(np.pi * x)
            + drift * slope
            + spread * exact(x)
            + k * exact(x)
        )

    errors, sizes = [], [6, 12, 24]
    for n in sizes:
        mesh = cube(WORLD, 1, n)
        equation = fpc.FokkerPlanck(
            mesh,
            fpc.drift.Steady(lambda x: v * np.sin(np.pi * x)),
            0.8,
            discretization=fpc.Galerkin(degree, 2 * degree + 2),
            reactions=fpc.Reactions(killing=lambda x: 3.0 + x[:, 0], source=source),
        )
        rho = equation.stationary()
        g = equation.elements
        w, x = g.quadrature_weights, g.points[:, 0]
        errors.append(float(w @ (g.evaluate(rho.x.array).ravel() - exact(x)) ** 2) ** 0.5)
    assert orders(errors)[-1] == pytest.approx(degree + 1, abs=0.15)


def reacting(comm, method, scheme, solver):
    """A turning drift, a wall that absorbs, killing and a source; the equation and a run."""
    mesh = cube(comm, 2, 8)
    equation = fpc.FokkerPlanck(
        mesh,
        fpc.drift.Steady(turn),
        0.8,
        discretization=method,
        absorbing=lambda x: x[0] > 1.0 - 1e-9,
        reactions=fpc.Reactions(killing=hill, source=door),
        linear_solver=solver,
    )
    return equation, equation.solve(bump(mesh, method.degree, 0.4), 1.0, 30, scheme=scheme)


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize(
    ("method", "scheme", "solver"),
    [
        (fpc.Galerkin(2), fpc.SDIRK2(), "direct"),
        (fpc.Galerkin(1), fpc.SDIRK4(), "gmres"),
        (fpc.Monotone(), fpc.BackwardEuler(), "gmres"),
    ],
)
def test_mass_is_start_and_produced_less_killed_and_absorbed(method, scheme, solver):
    equation, run = reacting(WORLD, method, scheme, solver)
    parts = run.absorbed[-1, 0], run.killed[-1], run.produced[-1]
    assert min(parts) > 0.1
    assert run.mass_defect < 1e-12
    # Independently of the account: the integral of what is killed, by the trapezoidal rule.
    g = equation.elements
    rates = [g.sum(float(equation.system.reacting.loss @ u[: g.n_owned])) for u in run.levels]
    assert run.killed[-1] == pytest.approx(np.trapezoid(rates, run.times), rel=3e-2)
    assert run.produced == pytest.approx(run.times * equation.system.reacting.rate)
    if WORLD.size > 1:
        _, alone = reacting(SELF, method, scheme, solver)
        assert run.mass == pytest.approx(alone.mass, rel=1e-9)
        assert parts == pytest.approx(
            (alone.absorbed[-1, 0], alone.killed[-1], alone.produced[-1]), rel=1e-9
        )


@pytest.mark.parallel([1, 2, 3])
def test_runs_tend_to_the_density_that_the_source_keeps_up():
    mesh = cube(WORLD, 2, 6)
    equation = fpc.FokkerPlanck(
        mesh,
        fpc.drift.Steady(turn),
        0.8,
        degree=2,
        absorbing=lambda x: x[1] < 1e-9,
        reactions=fpc.Reactions(killing=hill, source=fpc.density.uniform(mesh, degree=2)),
    )
    kept = equation.stationary()
    run = equation.solve(fpc.density.uniform(mesh, degree=2), 12.0, 60, scheme=fpc.SDIRK2())
    assert np.abs(run.levels[-1] - kept.x.array).max() < 1e-8
    # Its mass is the mean of the time that a particle lives, over what comes per time.
    g, time = equation.elements, equation.exit_time()
    lives = float(equation.system.reacting.load @ time.x.array[: g.n_owned])
    assert g.integral(kept.x.array) == pytest.approx(g.sum(lives), rel=1e-10)


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("method", [fpc.Galerkin(2), fpc.Monotone()])
def test_killing_shifts_rates_and_bounds_lives(method):
    mesh = cube(WORLD, 2, 5)
    plain, killed = (
        fpc.FokkerPlanck(mesh, fpc.drift.Steady(turn), 0.9, discretization=method, reactions=r)
        for r in (None, fpc.Reactions(killing=0.7))
    )
    one, two = (np.array(e.eigenpairs(3).values) for e in (plain, killed))
    assert two == pytest.approx(one + 0.7, abs=1e-9)
    assert np.abs(killed.exit_time().x.array - 1.0 / 0.7).max() < 1e-9


CASES = {
    "galerkin": {"method": fpc.Galerkin(2), "terminal_weight": 1.0},
    "gmres": {"n": 3, "scheme": fpc.SDIRK2(), "linear_solver": "gmres", "snapshots": 2},
    "monotone": {"method": fpc.Monotone(), "scheme": fpc.BackwardEuler()},
}


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("walls", [None, lambda mesh: {}], ids=["absorbing", "reflecting"])
def test_derivatives_with_reactions_are_those_of_the_scheme(case, walls):
    reactions = fpc.Reactions(killing=hill, source=lambda x: 3.0 * door(x))
    problem = posed(**case, walls=walls, reactions=reactions)
    weights = problem.drift.weights
    test = taylor_test(problem, weights)
    assert test.orders == pytest.approx(2.0, abs=0.02)
    assert test.relative_remainder < 1e-6
    assert difference_test(problem, weights) < 1e-9
    assert dot_test(problem, weights) < 1e-11
    run = problem.trajectory(weights)
    assert run.killed[-1] > 0.3 and run.mass_defect < 1e-12


def test_results_say_what_was_killed_and_produced(tmp_path):
    reactions = fpc.Reactions(killing=hill, source=door)
    problem = tracking(reactions=reactions)
    result = fpc.minimize(problem, max_iterations=2)
    assert result.killed[-1] > 0.3 and result.produced[-1] > 0.1 and result.mass_defect < 1e-12
    assert result.certificate is None and "reactions" in result.uncertified
    assert (
        problem.fingerprint()["reactions"]
        != tracking(reactions=fpc.Reactions(killing=hill)).fingerprint()["reactions"]
    )
    message = raised(ValueError, problem.on_refined_mesh)
    assert "Give reactions" in message and "anew" in message
    run = problem.trajectory(result.weights)
    fpc.io.save(run, tmp_path / "run.npz")
    again = fpc.io.load(tmp_path / "run.npz", problem.elements.mesh)
    assert np.array_equal(again.killed, run.killed) and again.mass_defect < 1e-12
    fpc.io.write_record(run, tmp_path / "run.json")
    record = json.loads((tmp_path / "run.json").read_text(encoding="utf-8"))
    assert record["produced"] == run.produced.tolist()


@pytest.mark.parallel([1, 2])
def test_reactions_that_are_refused():
    mesh = cube(WORLD, 2, 3)

    def equation(reactions, **options):
        options = {"degree": 1} | options
        return fpc.FokkerPlanck(mesh, fpc.drift.zero(), 1.0, reactions=reactions, **options)

    other = fpc.density.uniform(mesh, degree=2)
    for reactions, message in (
        ({"killing": 1.0}, "must be fpc.Reactions"),
        (fpc.Reactions(killing=-1.0), "killing = -1.0 is -1"),
        (fpc.Reactions(killing="fast"), "killing = 'fast' must be a number or a callable"),
        (fpc.Reactions(source=np.nan), "source = nan is nan"),
        (fpc.Reactions(source=lambda x: x), "returned shape"),
        (fpc.Reactions(source=lambda x: x[:, 0] - 2.0), "source is -"),
        (fpc.Reactions(source=other), "of another space"),
    ):
        assert message in raised(ValueError, lambda r=reactions: equation(r))
    both = fpc.Reactions(killing=1.0)
    limited = {"degree": None, "discretization": fpc.Limited()}
    assert "Limited() keeps the mass" in raised(ValueError, lambda: equation(both, **limited))
    monotone = equation(both, degree=None, discretization=fpc.Monotone())
    start = fpc.density.uniform(mesh, discretization=fpc.Monotone())
    message = raised(ValueError, lambda: monotone.solve(start, 1.0, 2, scheme=fpc.Exponential()))
    assert "BackwardEuler()" in message
    assert "no density stays" in raised(ValueError, equation(both).stationary)
    forever = equation(fpc.Reactions(source=1.0))
    assert "grow for ever" in raised(ValueError, forever.stationary)
