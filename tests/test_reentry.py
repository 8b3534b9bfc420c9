"""What absorbing walls take enters again: known rates, orders, mass, exact derivatives."""

import numpy as np
import pytest
from problems import SELF, WORLD, bump, cube, raised
from scipy.integrate import quad
from scipy.linalg import expm
from scipy.special import erfcx
from test_absorbing import sides
from test_absorbing_control import posed, two_sides

import fpcontrol as fpc
from fpcontrol.verification import difference_test, dot_test, orders, taylor_test

TAU, RESET, THRESHOLD, NOISE, MEAN = 20.0, 10.0, 20.0, 5.0, 18.0


def right(x: np.ndarray) -> np.ndarray:
    return np.isclose(x[0], 1.0)


def turn(x: np.ndarray) -> np.ndarray:
    return 2.0 * np.column_stack([0.4 - (x[:, 1] - 0.5), x[:, 0] - 0.3])


def hill(x: np.ndarray) -> np.ndarray:
    return np.exp(-12.0 * ((x - 0.4) ** 2).sum(axis=1))


def siegert() -> float:
    """Spikes per ms; Siegert 1951, Brunel 2000 (J. Comput. Neurosci. 8), no refractory time."""
    ends = (RESET - MEAN) / NOISE, (THRESHOLD - MEAN) / NOISE
    return 1.0 / (TAU * np.pi**0.5 * quad(lambda u: erfcx(-u), *ends)[0])


def neurons(comm, method):
    """Integrate and fire; reset is a hat on two cells."""
    mesh = fpc.mesh.interval(comm, 160, -20.0, THRESHOLD)
    equation = fpc.FokkerPlanck(
        mesh,
        fpc.drift.Steady(lambda x: (MEAN - x) / TAU),
        NOISE / TAU**0.5,
        discretization=method,
        absorbing=lambda x: x[0] > THRESHOLD - 1e-9,
        reentry=lambda x: np.maximum(0.0, 1.0 - 4.0 * np.abs(x[:, 0] - RESET)),
    )
    start = fpc.density.interpolate(
        mesh, lambda x: np.exp(-0.03 * (x[0] - 5.0) ** 2), discretization=method
    )
    return equation, start


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize(
    ("method", "scheme", "error"),
    [
        (fpc.Galerkin(3), fpc.SDIRK2(), 5e-5),
        (fpc.Galerkin(2), fpc.SDIRK4(), 1e-4),
        (fpc.Limited(), fpc.SDIRK2(), 1e-3),
        (fpc.Monotone(), fpc.Exponential(), 1e-3),
        (fpc.Monotone(), fpc.BackwardEuler(), 2e-2),
    ],
    ids=["cubic", "quadratic", "limited", "exponential", "backward-euler"],
)
def test_neurons_settle_to_the_rate_of_siegerts_formula(method, scheme, error):
    equation, start = neurons(WORLD, method)
    run = equation.solve(start, 200.0, 200, scheme=scheme)
    fired = run.absorbed[:, 0]
    rate = (fired[-1] - fired[-21]) / (run.all_times[-1] - run.all_times[-21])
    assert rate == pytest.approx(siegert(), rel=error)
    assert fired[-1] > 3.0  # each has fired several times
    assert np.abs(run.mass - run.mass[0]).max() < 1e-13 and run.mass_defect < 1e-13
    assert run.produced == pytest.approx(fired, abs=1e-12)
    if isinstance(method, fpc.Galerkin):
        return
    assert run.minimum.min() >= 0.0
    if isinstance(scheme, fpc.Exponential):  # its steps are exact: so is the rate, of the method
        kept = equation.stationary()
        flow = equation.system
        lost = flow.elements.integrals @ kept.x.array[: flow.elements.n_owned]
        assert flow.elements.sum(float(lost)) == pytest.approx(1.0, rel=1e-12)
        time = equation.exit_time().x.array
        entry = flow.reentry.density[: flow.elements.n_owned] * flow.elements.integrals
        lives = flow.elements.sum(float(entry @ time[: flow.elements.n_owned]))
        assert rate == pytest.approx(1.0 / lives, rel=1e-8)


def exact(equation, start, t):
    """Density of the method of lines with its term of re-entry, by a dense exponential."""
    system, n = equation.system, equation.elements.n_owned
    free = np.setdiff1d(np.arange(n), system.absorbing.dofs)
    M, N = (a.convert("dense").getDenseArray() for a in (system.mass, equation._generator.matrix))
    L = -np.linalg.solve(M[np.ix_(free, free)], N[np.ix_(free, free)])
    weights = equation.elements.integrals[free]
    with_entry = L - np.outer(system.reentry.density[free], weights @ L)
    begun, _ = system.begun(start.x.array)
    rho = np.zeros(n)
    rho[free] = expm(t * with_entry) @ begun[free]
    return rho


@pytest.mark.parametrize(
    ("method", "scheme", "order"),
    [
        (fpc.Galerkin(2), fpc.SDIRK2(), 2.0),
        (fpc.Galerkin(1), fpc.SDIRK4(), 2.0),
        (fpc.Monotone(), fpc.Exponential(), 2.0),
        (fpc.Monotone(), fpc.BackwardEuler(), 1.0),
    ],
    ids=["sdirk2", "sdirk4", "exponential", "backward-euler"],
)
def test_order_in_time_of_what_enters_again(method, scheme, order):
    mesh = cube(SELF, 2, 4)
    equation = fpc.FokkerPlanck(
        mesh, fpc.drift.Steady(turn), 0.6, discretization=method, absorbing=right, reentry=hill
    )
    start = bump(mesh, method.degree, 0.5)
    truth, g = exact(equation, start, 0.5), equation.elements
    runs = [equation.solve(start, 0.5, n, scheme=scheme) for n in (40, 80, 160)]
    assert runs[-1].absorbed[-1, 0] > 0.3
    errors = [g.norm(run.levels[-1] - truth) for run in runs]
    assert errors[-1] < 5e-3 * g.norm(truth)
    assert orders(errors)[-1] == pytest.approx(order, abs=0.1)


def two_walls(comm, method, scheme):
    """A drift that changes with time, two walls, a start that does not vanish there."""
    mesh = cube(comm, 2, 6)
    equation = fpc.FokkerPlanck(
        mesh,
        lambda t, x: np.cos(2.0 * t) * turn(x),
        0.7,
        discretization=method,
        absorbing=(4, 9),
        facet_tags=sides(mesh),
        reentry=hill,
    )
    return equation.solve(fpc.density.uniform(mesh, discretization=method), 1.0, 30, scheme=scheme)


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize(
    ("method", "scheme"),
    [
        (fpc.Galerkin(2), fpc.SDIRK2()),
        (fpc.Galerkin(1), fpc.CrankNicolson()),
        (fpc.Monotone(), fpc.BackwardEuler()),
        (fpc.Monotone(), fpc.Exponential()),
        (fpc.Limited(), fpc.SDIRK2()),
    ],
    ids=["galerkin", "crank-nicolson", "monotone", "exponential", "limited"],
)
def test_mass_stays_and_walls_say_what_they_took(method, scheme):
    run = two_walls(WORLD, method, scheme)
    assert np.abs(run.mass - 1.0).max() < 1e-13
    assert run.absorbed[-1].min() > 0.1 and run.absorbed[0].sum() > 0.01
    assert run.produced == pytest.approx(run.absorbed.sum(axis=1), abs=1e-13)
    assert method.degree == 2 or isinstance(method, fpc.Galerkin) or run.minimum.min() >= 0.0
    if WORLD.size > 1:
        alone = two_walls(SELF, method, scheme)
        assert run.absorbed == pytest.approx(alone.absorbed, rel=1e-8)
        assert run.levels[-1].max() <= alone.levels[-1].max() * (1.0 + 1e-8)


def entered(**case):
    return posed(**case, reentry=hill)


CASES = {
    "interval": {"dim": 1, "n": 6, "method": fpc.Galerkin(2), "terminal_weight": 1.0},
    "crank-nicolson": {"n": 3, "method": fpc.Galerkin(2), "scheme": fpc.CrankNicolson()},
    "snapshots": {"snapshots": 2, "terminal_weight": 0.5},
    "gmres": {"scheme": fpc.SDIRK2(), "linear_solver": "gmres"},
    "box": {"dim": 3, "n": 2, "scheme": fpc.BackwardEuler(), "walls": two_sides},
    "energy": {"objectives": [fpc.objectives.KineticEnergy(1e-2)]},
    "monotone": {"method": fpc.Monotone(), "walls": two_sides},
    "limited": {"method": fpc.Limited(), "walls": two_sides},
    "exponential": {"method": fpc.Monotone(), "scheme": fpc.Exponential()},
}


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_derivatives_are_those_of_the_scheme(case):
    problem = entered(**case)
    weights = problem.drift.weights
    mass, _ = problem.mass_and_minimum(weights)
    assert np.abs(mass - mass[0]).max() < 1e-13
    assert problem.absorbed(weights)[-1].sum() > 0.1
    test = taylor_test(problem, weights)
    assert test.orders == pytest.approx(2.0, abs=0.01)
    assert test.relative_remainder < 1e-6
    assert difference_test(problem, weights) < 1e-9
    assert dot_test(problem, weights) < 1e-11


def test_results_and_checkpoints_know_it(tmp_path):
    problem = entered()
    result = fpc.minimize(problem, max_iterations=2, checkpoint=tmp_path / "run.npz")
    assert result.produced == pytest.approx(result.absorbed.sum(axis=1), abs=1e-13)
    assert result.produced[-1] > 0.1 and result.mass_defect < 1e-13
    assert result.certificate is None
    for other in (posed(), posed(reentry=lambda x: hill(0.8 - x + 0.1))):
        message = raised(
            ValueError,
            lambda p=other: fpc.minimize(p, max_iterations=1, resume=tmp_path / "run.npz"),
        )
        assert "another problem: reentry" in message
    message = raised(ValueError, lambda: problem.on_refined_mesh(absorbing=right))
    assert "Give reentry" in message
    run = problem.trajectory(result.weights)
    fpc.io.save(run, tmp_path / "levels.npz")
    again = fpc.io.load(tmp_path / "levels.npz", problem.elements.mesh)
    assert np.array_equal(again.produced, run.produced)


@pytest.mark.parallel([1, 2])
def test_reentries_that_are_refused():
    mesh = cube(WORLD, 2, 3)

    def equation(reentry, **options):
        options = {"degree": 1, "absorbing": right} | options
        return fpc.FokkerPlanck(mesh, fpc.drift.zero(), 1.0, reentry=reentry, **options)

    for reentry, options, message in (
        (hill, {"absorbing": None}, "no wall absorbs"),
        (hill, {"reactions": fpc.Reactions(killing=1.0)}, "reentry and reactions"),
        (lambda x: -1.0 - x[:, 0], {}, "reentry is -1"),
        (lambda x: np.nan * x[:, 0], {}, "reentry is nan"),
        (lambda x: np.zeros(len(x)), {}, "reentry has mass 0"),
        (lambda x: 1.0 * np.isclose(x[:, 0], 1.0), {}, "reentry has mass 0"),
        (lambda x: x, {}, "returned shape"),
        (0.3, {}, "reentry = 0.3 must be a density"),
        (fpc.density.uniform(mesh, degree=2), {}, "of another space"),
    ):
        assert message in raised(ValueError, lambda r=reentry, o=options: equation(r, **o))
    given = equation(fpc.density.uniform(mesh, degree=1))
    assert "Make the equation without" in raised(ValueError, lambda: given.eigenpairs(1))
    assert "committor" in raised(ValueError, lambda: given.committor(right, lambda x: x[0] < 0.1))
    # Their scale does not matter.
    twice = equation(lambda x: np.full(len(x), 7.0))
    assert np.abs(given.system.reentry.density - twice.system.reentry.density).max() < 1e-14
