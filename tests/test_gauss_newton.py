"""Gauss-Newton over all pieces: its model against the tangent of the steps, and its descent."""

import numpy as np
import pytest
from problems import SELF, WORLD, bump, cube, quiet, raised, tracking

import fpcontrol as fpc
from fpcontrol.control.linear_quadratic import LinearQuadratic
from fpcontrol.control.reduced import ReducedModel
from fpcontrol.discretization.modes import smooth_modes

ALL = 10**4  # modes: as many as the mesh carries


def exact_hessian(problem: fpc.TrackingProblem, weights: np.ndarray) -> np.ndarray:
    """Sum over levels of the tangents' products in M, all weights by all weights."""
    runs, g = problem.runs, problem.elements
    blocks, n = weights.reshape(problem.drift.time.blocks, -1), weights.size
    tangents = []
    for unit in np.eye(n):
        kept = runs.storage.snapshots is None
        window = runs._window(weights) if kept else runs.sweeps.begin(runs._begun)
        found = runs.sweeps.tangent(blocks, unit.reshape(blocks.shape), window)
        tangents.append([dot.copy() for _, _, dot in found])
    result = np.zeros((n, n))
    for level, weight in enumerate(runs.level_weights):
        images = [g.apply_mass(t[level]).copy() for t in tangents]
        own = np.array([t[level][: g.n_owned] for t in tangents])
        result += weight * own @ np.array(images).T
    return g.comm.allreduce(result)


def least_squares(problem, weights, dual, damping=0.0):
    """The recursion's problem, on rank 0."""
    pieces = list(ReducedModel(problem, ALL).pieces(weights))
    if problem.elements.comm.rank:
        return None
    return LinearQuadratic(pieces, dual.reshape(problem.drift.time.blocks, -1), 1e-3, 0.2)


CASES = {
    "galerkin": {"steps": 6},
    "degree 2, SDIRK2": {"degree": 2, "n": 2, "scheme": fpc.SDIRK2(), "steps": 4},
    "backward Euler": {"scheme": fpc.BackwardEuler(), "steps": 4},
    "recomputed levels": {"snapshots": 2, "steps": 4},
    "noise in time": {"sigma": lambda t: 0.6 + 0.3 * t, "steps": 4},
    "interval": {"dim": 1, "n": 9, "terminal_weight": 0.5},
    "bounded speed": {"max_speed": 0.7, "steps": 4},
    "absorbing": {"absorbing": lambda x: x[0] < 1e-9, "scheme": fpc.CrankNicolson()},
}


def posed(case: str, comm=WORLD) -> fpc.TrackingProblem:
    options = dict(CASES[case])
    limit = options.pop("max_speed", None)
    problem = tracking(comm, **({"pieces": 2} | options))
    if limit is None:
        return problem
    mesh = problem.elements.mesh
    drift = fpc.NetworkDrift(mesh, 2, 2, seed=3, max_speed=limit)
    return fpc.TrackingProblem(problem.reference, drift, problem.sigma, problem.steps)


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize("case", CASES)
def test_with_all_modes_a_step_solves_the_least_squares_of_the_exact_tangents(case):
    """Where stages are known from the levels the model is exact; with two stages nearly."""
    problem = posed(case)
    weights = 2.0 * problem.drift.weights
    dual = problem.derivative(weights)
    hessian = exact_hessian(problem, weights)
    quadratic = least_squares(problem, weights, dual)
    if quadratic is None:
        return
    damping = 0.3
    step = quadratic.solve(damping)
    penalty = np.zeros_like(hessian)
    for piece in quadratic._pieces:
        size = problem.drift.field.size
        rows = np.concatenate([np.arange(b * size, (b + 1) * size) for b in piece.blocks])
        penalty[np.ix_(rows, rows)] += damping * piece.energy
    penalty += (damping * quadratic._ridge + 0.2) * np.eye(len(penalty))
    expected = -np.linalg.solve(hessian + penalty, dual)
    tolerance = 2e-2 if "SDIRK2" in case else 1e-4
    assert np.abs(step.change.ravel() - expected).max() <= tolerance * np.abs(expected).max()
    gain = -0.5 * dual @ expected
    assert step.gain == pytest.approx(gain, rel=tolerance)


@pytest.mark.parallel([1, 2])
def test_weights_that_are_linear_in_time_act_in_two_pieces():
    problem = tracking(steps=6)
    field = fpc.NetworkDrift(problem.elements.mesh, 2, 3, seed=3).field
    drift = fpc.ParametricDrift(problem.elements.mesh, field, fpc.PiecewiseLinear(3))
    rng = np.random.default_rng(0)
    drift = drift.with_weights(rng.standard_normal(drift.weights.size))
    linear = fpc.TrackingProblem(problem.reference, drift, problem.sigma, 6)
    dual, hessian = linear.derivative(drift.weights), exact_hessian(linear, drift.weights)
    quadratic = least_squares(linear, drift.weights, dual)
    if quadratic is None:
        return
    assert [piece.blocks for piece in quadratic._pieces] == [(0, 1), (1, 2), (2, 3)]
    step = quadratic.solve(0.0).change.ravel()
    expected = -np.linalg.solve(hessian + 0.2 * np.eye(len(hessian)), dual)
    assert np.abs(step - expected).max() <= 1e-4 * np.abs(expected).max()


@pytest.mark.parallel([1, 2])
def test_energy_is_that_of_the_change_of_the_drift():
    problem = tracking(pieces=2, steps=4)
    weights, system = problem.drift.weights, problem.runs.system
    piece = next(iter(ReducedModel(problem, 5).pieces(weights)))
    direction = np.random.default_rng(1).standard_normal(problem.drift.field.size)
    dv = problem.drift.field.jvp(weights[: direction.size], system.points, direction)
    levels = list(problem.runs.levels(weights))
    rho = system.at_points(0.5 * (levels[0] + levels[2])) * system.point_weights
    energy = problem.elements.sum(float(rho @ np.einsum("nd,nd->n", dv, dv)))
    if piece is not None:
        expected = energy * 0.5 / problem.drift.scale**2  # half of the time
        assert direction @ piece.energy @ direction == pytest.approx(expected, rel=1e-12)


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize("method", [fpc.Galerkin(1), fpc.Galerkin(2), fpc.Monotone()], ids=repr)
def test_smooth_modes_are_those_of_the_square(method):
    """Eigenvalues pi^2 (i^2 + j^2), to the error of the mesh; orthonormal in M to round-off."""
    system = method.on(cube(WORLD, 2, 16))
    modes = smooth_modes(system, 12)
    exact = np.sort(np.pi**2 * np.add.outer(np.arange(6) ** 2, np.arange(6) ** 2).ravel())[:12]
    rel = 1e-3 if system.elements.degree == 2 else 0.05
    assert modes.eigenvalues == pytest.approx(exact, rel=rel, abs=1e-8)
    vector, image = system.elements.vector(), system.elements.vector()
    gram = np.empty((12, 12))
    for k, column in enumerate(modes.functions.T):
        vector.set(column)
        system.mass.mult(vector.petsc_vec, image.petsc_vec)
        own = slice(None, system.elements.n_owned)
        gram[k] = WORLD.allreduce(image.array[own] @ modes.functions[own])
    assert np.abs(gram - np.eye(12)).max() <= 1e-12


@pytest.mark.parallel([1, 2])
def test_modes_vanish_on_absorbing_walls():
    system = fpc.Galerkin(1).on(cube(WORLD, 1, 64)).with_walls(lambda x: x[0] < 1e-9)
    modes = smooth_modes(system, 4)
    assert np.abs(modes.functions[system.absorbing.dofs]).sum() == 0.0
    exact = (np.pi * (np.arange(4) + 0.5)) ** 2  # of the interval with one wall
    assert modes.eigenvalues == pytest.approx(exact, rel=1e-2)


@pytest.mark.parallel(1)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scheme": fpc.SDIRK2()},
        {"snapshots": 2},
        {"objectives": [fpc.objectives.KineticEnergy(1e-3)]},
        {"decay": 1e-4},
        {"degree": 2, "n": 4},
    ],
    ids=str,
)
def test_needs_a_fraction_of_the_evaluations_of_lmvm(options):
    """The peer is the usual optimizer from the same weights, with four times the iterations."""
    problem = tracking(**({"n": 6, "pieces": 16, "steps": 32} | options))
    start = fpc.construction.steep_weights(problem.drift)
    theirs = quiet(problem, weights=start, method="lmvm", max_iterations=40)
    ours = quiet(problem, weights=start, method="gauss_newton", max_iterations=10)
    assert ours.value < theirs.value
    assert ours.evaluations <= 11


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("method", [fpc.Monotone(), fpc.Limited()], ids=repr)
def test_descends_with_positive_methods(method):
    mesh = cube(WORLD, 2, 6)
    start, goal = bump(mesh, 1, 0.3), bump(mesh, 1, 0.7)
    scheme = fpc.Exponential() if method.monotone else None
    reference = fpc.MoserFlow(start, goal, 1.0, 0.8, discretization=method)
    drift = fpc.NetworkDrift(mesh, 2, 4, seed=3)
    problem = fpc.TrackingProblem(reference, drift, 0.8, 8, scheme=scheme)
    result = quiet(problem, method="gauss_newton", max_iterations=10)
    assert result.relative_error < 0.3 * result.uncontrolled.relative_error
    assert result.minimum_density > 0.0


@pytest.mark.parallel([2, 3])
def test_same_steps_on_several_ranks():
    alone, shared = (
        quiet(tracking(comm, n=5, pieces=4), method="gauss_newton", max_iterations=6)
        for comm in (SELF, WORLD)
    )
    for one, other in zip(alone.history, shared.history, strict=True):
        assert other.value == pytest.approx(one.value, rel=1e-5)
    mine = (shared.weights.tobytes(), shared.history, shared.reason)
    assert WORLD.allgather(mine) == [mine] * WORLD.size


@pytest.mark.parallel([1, 2])
def test_trial_steps_that_cannot_be_evaluated_are_shortened(monkeypatch):
    problem = tracking()
    errors, first = problem.errors, problem.drift.weights.copy()
    step = quiet(problem, method="gauss_newton", max_iterations=1).weights - first
    longest = 0.5 * np.linalg.norm(step)

    def failing(weights):
        if np.linalg.norm(weights - first) > longest:
            raise ArithmeticError("no convergence")
        return errors(weights)

    monkeypatch.setattr(problem, "errors", failing)
    result = quiet(problem, method="gauss_newton", max_iterations=1)
    assert result.shortened > 0
    assert 0.0 < np.linalg.norm(result.weights - first) <= longest
    assert result.value < result.history[0].value


@pytest.mark.parallel([1, 2])
def test_bad_arguments_are_refused():
    problem = tracking()
    for error, options in (
        ("petsc_options", {"petsc_options": {"a": 1}}),
        ("modes = 0", {"modes": 0}),
        ("max_seconds = -1", {"max_seconds": -1.0}),
    ):

        def call(options=options):
            quiet(problem, method="gauss_newton", **options)

        assert error in raised(ValueError, call)
    still = tracking(sigma=0.0)
    assert "sigma = 0" in raised(ValueError, lambda: quiet(still, method="gauss_newton"))


@pytest.mark.parallel(1)
def test_densities_that_are_negative_at_points_do_not_matter():
    """Layers of degree 2: the energy takes the density where it is positive."""
    mesh = fpc.mesh.interval(SELF, 40)
    start = fpc.density.uniform(mesh)
    goal = fpc.density.interpolate(mesh, lambda x: np.exp(-20.0 * (x[0] - 0.7) ** 2), floor=0.1)
    reference = fpc.MoserFlow(start, goal, 1.0, 0.1)
    drift = fpc.NetworkDrift(mesh, 1, 10)
    result = quiet(fpc.TrackingProblem(reference, drift, 0.1, 40), max_iterations=10)
    assert result.minimum_density < 0.0
    assert result.relative_error < 0.5 * result.uncontrolled.relative_error


@pytest.mark.parallel([1, 2])
def test_stops_after_so_many_seconds():
    result = quiet(tracking(), method="gauss_newton", max_iterations=10**6, max_seconds=0.5)
    assert result.reason in ("max_seconds", "no_lower_value", "gradient_tolerance")
    assert result.value <= result.history[0].value
