"""Noise that depends on place and direction, against closed forms."""

import warnings

import numpy as np
import pytest
from problems import RANKS, WORLD, bump, cube, raised, region
from scipy.optimize import brentq

import fpcontrol as fpc
from fpcontrol.verification import dot_test, l2_error, orders, taylor_test

METHODS = [fpc.Galerkin(2), fpc.Monotone(), fpc.Limited()]
FORMS = {"ito": 1.0, "stratonovich": 0.5, "divergence": 0.0}


def by_place(x):
    return 0.5 + 0.3 * np.sin(2.0 * x.sum(axis=1))


def turned(x):
    """Axes that turn from place to place, and a matrix that is not symmetric."""
    angle = x[:, 0] + 0.5 * x[:, 1]
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([np.stack([0.8 * c, -0.4 * s], 1), np.stack([0.8 * s, 0.4 * c], 1)], 1)


# -- stationary densities ------------------------------------------------------------------------


@RANKS
@pytest.mark.parametrize("form", FORMS)
def test_stationary_densities_in_one_dimension(form):
    mesh = cube(WORLD, 1, 20)

    def exact(x):
        rho = by_place(x) ** (-2.0 * FORMS[form])
        return rho / mean

    points, weights = np.polynomial.legendre.leggauss(30)
    mean = 0.5 * weights @ by_place(0.5 * (points[:, None] + 1.0)) ** (-2.0 * FORMS[form])
    options = {"sigma": by_place, "interpretation": form}
    zero = fpc.drift.zero()
    rho = fpc.FokkerPlanck(mesh, zero, degree=3, **options).stationary()
    assert l2_error(rho, exact) < 1e-6
    # Of fluxes along edges it is the nodal one, to round-off.
    rho = fpc.FokkerPlanck(mesh, zero, discretization=fpc.Monotone(), **options).stationary()
    n = rho.function_space.dofmap.index_map.size_local
    x = rho.function_space.tabulate_dof_coordinates()[:n, :1]
    ratio = rho.x.array[:n] * by_place(x) ** (2.0 * FORMS[form])
    low, high = min(WORLD.allgather(ratio.min())), max(WORLD.allgather(ratio.max()))
    assert high / low == pytest.approx(1.0, abs=1e-10)


@RANKS
def test_anisotropic_ornstein_uhlenbeck_process():
    mesh = cube(WORLD, 2, 24, size=8.0, lower=-4.0)
    sigma = np.array([[1.0, 0.3], [-0.5, 0.8]])
    drift = fpc.drift.Steady(lambda x: -x @ np.array([[1.0, 0.5], [0.0, 1.5]]).T)
    rho = fpc.FokkerPlanck(mesh, drift, sigma, degree=3).stationary()
    # B S + S B' = a
    B, a = np.array([[1.0, 0.5], [0.0, 1.5]]), sigma @ sigma.T
    eye = np.eye(2)
    S = np.linalg.solve(np.kron(B, eye) + np.kron(eye, B), a.ravel()).reshape(2, 2)
    assert abs(S[0, 1]) > 0.1

    def gauss(x):
        quadratic = np.einsum("ni,ij,nj->n", x, np.linalg.inv(S), x)
        return np.exp(-0.5 * quadratic) / (2.0 * np.pi * np.linalg.det(S) ** 0.5)

    assert l2_error(rho, gauss) < 1e-3 * l2_error(fpc.density.uniform(mesh), gauss)


@RANKS
def test_square_root_process_has_a_gamma_density():
    k, mean, s = 2.0, 1.0, 1.0  # 2 k mean / s^2 = 4
    mesh = fpc.mesh.interval(WORLD, 80, 0.0, 8.0)
    drift = fpc.drift.Steady(lambda x: k * (mean - x))
    equation = fpc.FokkerPlanck(mesh, drift, lambda x: s * np.sqrt(x[:, 0]), degree=3)
    rate = 2.0 * k / s**2

    def gamma(x):
        return rate**4 * x[:, 0] ** 3 * np.exp(-rate * x[:, 0]) / 6.0

    assert l2_error(equation.stationary(), gamma) < 4e-5
    # The spectrum is 0, k, 2 k, ...
    assert equation.eigenpairs(3).values == pytest.approx([0.0, k, 2.0 * k], abs=1e-4)


@RANKS
@pytest.mark.parametrize("shape", [1.0, 0.5])
def test_nothing_is_caught_where_noise_is_zero(shape):
    mesh = fpc.mesh.interval(WORLD, 400, 0.0, 25.0)
    s = (2.0 / shape) ** 0.5
    drift = fpc.drift.Steady(lambda x: 1.0 - x)
    options = {"sigma": lambda x: s * np.sqrt(x[:, 0]), "discretization": fpc.Monotone()}
    equation = fpc.FokkerPlanck(mesh, drift, **options)
    modes = equation.eigenpairs(2)
    assert modes.values[1] == pytest.approx(1.0, abs=0.01)
    rho, g = modes.functions[0], equation.elements
    at = g.space.tabulate_dof_coordinates()[: g.n_owned, 0]
    assert g.sum((g.integrals * at) @ rho.x.array[: g.n_owned]) == pytest.approx(1.0, abs=0.02)


@RANKS
def test_noise_in_the_velocity_alone():
    friction, T = 1.0, 0.5
    mesh = cube(WORLD, 2, 20, size=8.0, lower=-4.0)

    def motion(x):
        return np.column_stack([x[:, 1], -x[:, 0] - friction * x[:, 1]])

    sigma = [0.0, (2.0 * friction * T) ** 0.5]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        equation = fpc.FokkerPlanck(mesh, fpc.drift.Steady(motion), sigma, degree=3)
    text = [str(w.message) for w in said if "degenerate" in str(w.message)]
    assert len(text) == (WORLD.rank == 0)
    assert not text or ("no noise along [1. 0.]" in text[0] and "Peclet" in text[0])

    def boltzmann(x):
        return np.exp(-(x**2).sum(axis=1) / (2.0 * T)) / (2.0 * np.pi * T)

    error = l2_error(equation.stationary(), boltzmann)
    assert error < 1e-3 * l2_error(fpc.density.uniform(mesh), boltzmann)


# -- regions -------------------------------------------------------------------------------------


@RANKS
@pytest.mark.parametrize("method", [fpc.Galerkin(3), fpc.Monotone()], ids=str)
def test_regions_keep_density_and_flux_continuous(method):
    mesh = cube(WORLD, 1, 32)
    sigma, D = region(mesh, 1.0, 0.4), (0.5, 0.08)
    equation = fpc.FokkerPlanck(
        mesh,
        fpc.drift.zero(),
        sigma,
        interpretation="divergence",
        absorbing=lambda x: x[0] > 1.0 - 1e-9,
        discretization=method,
    )
    k = [D[0] ** -0.5, D[1] ** -0.5]

    def gap(root):  # cos(k x) on the left, sin(k (1 - x)) on the right
        one, two = 0.5 * root * k[0], 0.5 * root * k[1]
        return D[0] ** 0.5 * np.tan(one) * np.tan(two) - D[1] ** 0.5

    slowest = brentq(gap, 1e-6, 0.5 * np.pi / (0.5 * k[1]) - 1e-6) ** 2
    galerkin = method.degree > 1
    found = equation.eigenpairs(1).values[0]
    assert found == pytest.approx(slowest, rel=1e-9 if galerkin else 1e-3)

    def exit_time(x):  # D t' = -x, t(1) = 0
        x = x[:, 0]
        right = (1.0 - np.maximum(x, 0.5) ** 2) / (2.0 * D[1])
        return right + (0.25 - np.minimum(x, 0.5) ** 2) / (2.0 * D[0])

    assert l2_error(equation.exit_time(), exit_time) < (1e-10 if galerkin else 1e-2)


@RANKS
def test_a_sigma_that_jumps_is_refused_where_the_density_would():
    mesh = cube(WORLD, 2, 6)
    for sigma in (region(mesh, 0.5, 1.0), lambda x: np.where(x[:, 0] < 0.5, 0.5, 1.0)):
        for form in ("ito", "stratonovich"):
            message = raised(
                ValueError,
                lambda sigma=sigma, form=form: fpc.FokkerPlanck(
                    mesh, fpc.drift.zero(), sigma, interpretation=form
                ),
            )
            assert "jumps" in message and "interpretation='divergence'" in message
        fpc.FokkerPlanck(mesh, fpc.drift.zero(), sigma, interpretation="divergence")
    if WORLD.size > 1:  # from rank to rank
        sigma = region(mesh, 1.0, 1.0)
        sigma.x.array[:] += WORLD.rank
        assert "jumps" in raised(
            ValueError, lambda: fpc.FokkerPlanck(mesh, fpc.drift.zero(), sigma)
        )
    steep = region(mesh, 0.5, 1.0, "Lagrange", 1)  # steep, but continuous
    fpc.FokkerPlanck(mesh, fpc.drift.zero(), steep)
    fpc.FokkerPlanck(mesh, fpc.drift.zero(), region(mesh, 0.7, 0.7))


# -- orders --------------------------------------------------------------------------------------


class Known:
    r"""A density :math:`1 + t/2 \prod\cos\pi x_i` with the drift that makes it."""

    def __init__(self, dim, sigma, form):
        self.dim, self.sigma, self.form = dim, sigma, form

    def density(self, t, x):
        return 1.0 + 0.5 * t * np.cos(np.pi * x).prod(axis=1)

    def gradient(self, x):
        c, s = np.cos(np.pi * x), np.sin(np.pi * x)
        parts = [-np.pi * s[:, k] * np.delete(c, k, 1).prod(axis=1) for k in range(self.dim)]
        return np.column_stack(parts)

    def square(self, x):
        sigma = self.sigma(x)
        if sigma.ndim == 1:
            sigma = sigma[:, None, None] * np.eye(self.dim)
        return sigma, sigma @ sigma.swapaxes(1, 2)

    def correction(self, x):
        """By differences: twice the drift that noise takes off."""
        total = np.zeros_like(x)
        for j, e in enumerate(1e-4 * np.eye(self.dim)):
            parts = [self.square(x + k * e) for k in (1, -1, 2, -2)]
            one, two = ([p[n] for p in parts] for n in (0, 1))
            sigma, a = ((8 * (q[0] - q[1]) - q[2] + q[3]) / 12e-4 for q in (one, two))
            if self.form == "ito":
                total += a[:, :, j]
            if self.form == "stratonovich":
                total += np.einsum("nim,nm->ni", self.square(x)[0], sigma[:, j])
        return total

    def drift(self, t, x):
        flux = self.gradient(x) * 0.5 / (self.dim * np.pi**2)
        flux += 0.25 * t * np.einsum("nij,nj->ni", self.square(x)[1], self.gradient(x))
        return flux / self.density(t, x)[:, None] + 0.5 * self.correction(x)


def error(known, method, n, steps):
    mesh = cube(WORLD, known.dim, n)
    equation = fpc.FokkerPlanck(
        mesh, known.drift, known.sigma, interpretation=known.form, discretization=method
    )
    start = fpc.density.uniform(mesh, discretization=method)
    end = equation.solve(start, 0.5, steps)[-1]
    return l2_error(end, lambda x: known.density(0.5, x))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("dim", "sigma", "degree", "n"),
    [
        *((1, by_place, degree, 8) for degree in (1, 2, 3)),
        *((2, turned, degree, n) for degree, n in ((1, 12), (2, 6), (3, 4))),
        (2, by_place, 2, 6),
    ],
)
def test_order_in_space(form, dim, sigma, degree, n):
    known = Known(dim, sigma, form)
    errors = [error(known, fpc.Galerkin(degree), cells, 4) for cells in (n, 2 * n)]
    assert orders(errors)[-1] == pytest.approx(degree + 1, abs=0.25)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("method", "steps"), [(fpc.Limited(), 4), (fpc.Monotone(), 100)], ids=str)
def test_order_of_positive_methods(form, method, steps):
    known = Known(2, by_place, form)
    errors = [error(known, method, n, steps) for n in (8, 16)]
    assert orders(errors)[-1] == pytest.approx(2.0, abs=0.25)


@RANKS
def test_the_same_errors_on_ranks():
    fine = error(Known(2, turned, "ito"), fpc.Galerkin(2), 12, 4)
    assert fine == pytest.approx(3.982986e-05, rel=1e-6)
    edges = error(Known(2, by_place, "divergence"), fpc.Monotone(), 8, 20)
    assert edges == pytest.approx(0.005369291, rel=1e-6)


# -- runs ----------------------------------------------------------------------------------------


@RANKS
def test_a_number_in_other_clothes():
    mesh = cube(WORLD, 2, 5)
    start = bump(mesh, 2, 0.3)

    def end(sigma, form="ito"):
        equation = fpc.FokkerPlanck(mesh, lambda t, x: x[:, ::-1] - t, sigma, interpretation=form)
        return equation.solve(start, 0.5, 4).levels[-1]

    plain, schedule = end(0.6), end(lambda t: 0.6 + t)
    constant = region(mesh, 0.6, 0.6)
    for form in FORMS:
        for sigma in (
            lambda x: np.full(len(x), 0.6),
            lambda x: np.full_like(x, 0.6),
            [0.6, 0.6],
            0.6 * np.array([[0.6, -0.8], [0.8, 0.6]]),  # a turn of it
            constant,
        ):
            assert np.abs(end(sigma, form) - plain).max() < 1e-10
        assert np.abs(end(lambda t, x: np.full(len(x), 0.6 + t), form) - schedule).max() < 1e-10


@RANKS
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_moser_drift_keeps_the_line(method, form):
    mesh = cube(WORLD, 2, 6)
    start, goal = (
        fpc.density.interpolate(
            mesh, lambda x, c=c: 1.0 + np.exp(-8.0 * (x[0] - c) ** 2), discretization=method
        )
        for c in (0.3, 0.7)
    )
    galerkin = isinstance(method, fpc.Galerkin)

    def sigma(t, x):
        return (1.0 + 0.5 * t) * (turned(x) if galerkin else by_place(x))

    flow = fpc.MoserFlow(start, goal, 1.0, sigma, interpretation=form)
    options = {"interpretation": form, "discretization": method, "linear_solver": "direct"}
    equation = fpc.FokkerPlanck(mesh, flow.drift, sigma, **options)
    trajectory = equation.solve(flow.start, 1.0, 4)
    gap = max(
        np.abs(rho - flow.coefficients(t)).max()
        for t, rho in zip(trajectory.times, trajectory.levels, strict=True)
    )
    assert gap < (1e-10 if galerkin else 3e-10)
    if galerkin:  # the same at points that are given
        own = flow.system.points[:5].copy()
        values = flow.drift.at_points(0.4, flow.system)[:5]
        assert np.abs(flow.drift(0.4, own) - values).max(initial=0.0) < 1e-10


@RANKS
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_derivative_of_a_tracking_problem(method):
    mesh = cube(WORLD, 2, 4)
    galerkin = isinstance(method, fpc.Galerkin)

    def sigma(t, x):
        return (0.8 + 0.4 * t) * (turned(x) if galerkin else by_place(x))

    start, goal = (
        fpc.density.interpolate(
            mesh, lambda x, c=c: 1.0 + np.exp(-8.0 * (x[0] - c) ** 2), discretization=method
        )
        for c in (0.3, 0.7)
    )
    reference = fpc.MoserFlow(start, goal, 1.0, sigma)
    drift = fpc.NetworkDrift(mesh, width=2, pieces=2, seed=3)
    problem = fpc.TrackingProblem(reference, drift, sigma, 4, linear_solver="direct")
    taylor = taylor_test(problem, drift.weights)
    assert taylor.orders == pytest.approx(2.0, abs=0.02)
    assert dot_test(problem, drift.weights) < 1e-11
    equation = fpc.FokkerPlanck(mesh, drift, sigma, discretization=method, linear_solver="direct")
    run = equation.solve(reference.start, 1.0, 4)
    assert np.abs(problem.trajectory(drift.weights).levels - run.levels).max() < 1e-10


@RANKS
def test_optimization_follows_with_noise_by_place():
    mesh = cube(WORLD, 1, 20)
    start, goal = bump(mesh, 1, 0.3), bump(mesh, 1, 0.7)
    reference = fpc.MoserFlow(start, goal, 1.0, by_place)
    drift = fpc.NetworkDrift(mesh, width=2, pieces=4, seed=1)
    problem = fpc.TrackingProblem(reference, drift, by_place, 8)
    result = fpc.minimize(problem, max_iterations=8, progress=False)
    assert result.relative_error < 0.2 * result.uncontrolled.relative_error
    assert result.certificate is None and "depends on place" in result.uncertified
    other = fpc.TrackingProblem(
        reference, drift, by_place, 8, interpretation="stratonovich"
    ).fingerprint()
    assert other["sigma"] != problem.fingerprint()["sigma"]


@RANKS
def test_flux_through_a_wall():
    mesh = cube(WORLD, 2, 3)

    def sigma(x):  # a is linear in x: exact
        s = np.sqrt(1.0 + x[:, 0])
        return s[:, None, None] * np.array([[1.0, 0.0], [1.0, 1.0]])

    equation = fpc.FokkerPlanck(mesh, fpc.drift.zero(), sigma)
    rho = fpc.density.interpolate(mesh, lambda x: 1.0 + x[1])
    flux = fpc.observables.flux(lambda x: x[0] > 1.0 - 1e-9)
    seen = equation.solve(rho, 1e-9, 1, observables={"right": flux}).observables["right"][0]
    # rho = (1 + y) / 1.5; a = (1 + x) [[1, 1], [1, 2]]; n = (1, 0).
    assert seen == pytest.approx(-0.5 * (2.0 * 1.0 / 1.5 + 1.0), rel=1e-9)


@RANKS
def test_exit_time_of_a_growing_noise():
    mesh = cube(WORLD, 1, 16)
    equation = fpc.FokkerPlanck(
        mesh, fpc.drift.zero(), lambda x: 1.0 + x[:, 0], absorbing=lambda x: x[0] > 1.0 - 1e-9
    )

    def exact(x):  # (1 + x)^2 t'' = -2, t'(0) = 0, t(1) = 0
        return 2.0 * (np.log(1.0 + x[:, 0]) - x[:, 0] + 1.0 - np.log(2.0))

    assert l2_error(equation.exit_time(), exact) < 2e-5
    run = equation.solve(fpc.density.uniform(mesh), 1.0, 20)
    assert np.abs(run.mass + run.absorbed.sum(axis=1) - 1.0).max() < 1e-12
