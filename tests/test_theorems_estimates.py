"""Estimates as certificates: closed forms, sharpness and control."""

import numpy as np
import pytest
from problems import SELF, WORLD, cube, failures, raised
from problems import tracking as tracking_problem

import fpcontrol as fpc
from fpcontrol.certificates import certificate
from fpcontrol.control.certified import tracking_certificate
from fpcontrol.drift import Steady, zero
from fpcontrol.theorems.closed_forms.random_drifts import Rough, Waves
from fpcontrol.theorems.experiments.gronwall import compressed, constant_error
from fpcontrol.theorems.framework.resolution import Grid
from fpcontrol.theorems.statements.estimates import rough_drifts, sharp_constants, tracking


def two_runs(comm, v_1, v_2, sigma=0.7, dim=1, steps=20, n=16):
    """Trajectories of two drifts from one density with a gradient."""
    mesh = cube(comm, dim, n)
    start = fpc.density.interpolate(mesh, lambda x: 1.0 + 0.4 * np.cos(np.pi * x[0]))
    return [fpc.FokkerPlanck(mesh, v, sigma).solve(start, 0.8, steps) for v in (v_1, v_2)]


WAVES = Waves(np.array([0.8, -0.5]))


def shifted(c):
    return Steady(lambda x: WAVES(0.0, x) + c)


# -- what is measured and what it is compared with -------------------------------------------------


def test_distances_are_those_of_the_distances_module():
    one, other = two_runs(WORLD, WAVES, zero())
    c = certificate(one, other, WAVES, zero(), 0.7, quadrature_degree=8)
    for found, distance, rtol in (
        (c.l2, fpc.distances.l2, 1e-12),
        (c.chi_square, fpc.distances.chi_square, 1e-9),
        (c.kl, fpc.distances.kl, 1e-9),
        (0.5 * c.l1, fpc.distances.total_variation, 1e-3),  # both cut cells at a sign change
    ):
        assert found[-1] == pytest.approx(distance(one[-1], other[-1]), rel=rtol)


def test_bounds_of_a_constant_error_are_closed_forms():
    # Mass 1 makes (E4) c^2 t/(4D), and (E3') exp(c^2 t/D) - 1 up to the step's O(dt^2).
    gap, sigma = 0.3, 0.7
    v_1, D = shifted(gap), 0.5 * sigma**2
    one, other = two_runs(WORLD, v_1, WAVES, sigma)
    c = certificate(one, other, v_1, WAVES, sigma)
    np.testing.assert_allclose(c.e4, gap**2 * c.times / (4 * D), rtol=1e-10, atol=1e-15)
    np.testing.assert_allclose(c.e3_bounded, np.expm1(gap**2 * c.times / D), rtol=1e-4)


def test_noise_schedule_enters_the_bounds():
    def sigma(t):
        return 0.5 + 0.5 * t

    v_1 = shifted(0.3)
    one, other = two_runs(WORLD, v_1, WAVES, sigma, steps=40)
    c = certificate(one, other, v_1, WAVES, sigma)
    # The integral of 1/sigma^2 over time: 1/(0.5 s(0)) - 1/(0.5 s(T)).
    exact = 0.5 * 0.09 * (2.0 / 0.5 - 2.0 / 0.9)
    assert c.e4[-1] == pytest.approx(exact, rel=1e-3)
    assert max(c.ratios().values()) < 1.0


def test_equal_drifts_have_no_distance_and_no_bound():
    one, other = two_runs(WORLD, WAVES, WAVES)
    c = certificate(one, other, WAVES, WAVES, 0.7)
    assert c.l2[-1] == 0.0 and c.e4[-1] == 0.0
    assert set(c.ratios().values()) == {0.0}


def test_start_densities_that_differ_are_in_the_bounds():
    # The heat flow brings them together, and every bound keeps what it began with.
    problem = tracking_problem(WORLD, 1, own_start=True)
    c = tracking_certificate(problem, problem.drift.weights)
    assert c.chi_square[0] > 0.01
    assert c.e3[0] == c.chi_square[0] and c.e4[0] == c.kl[0] and c.e1[0] == c.l2[0] ** 2
    assert max(c.ratios().values()) <= 1.0


@pytest.mark.parametrize("dim", [1, 2])
def test_certificate_of_the_reference_itself_is_zero(dim):
    # The drift of the certificate is the one that the reference follows at the problem's noise.
    problem = tracking_problem(WORLD, dim, sigma=0.6)
    flow = fpc.MoserFlow(problem.reference.start, problem.reference.goal, 1.0, 0.6)
    equation = fpc.FokkerPlanck(problem.drift.mesh, flow.drift, 0.6, degree=1)
    run = equation.solve(flow.start, 1.0, 4)
    c = certificate(run, run, flow.drift, flow.drift, 0.6, quadrature_degree=2)
    assert c.e3[-1] == 0.0
    weights = problem.drift.weights
    assert tracking_certificate(problem, weights).l2[-1] == pytest.approx(
        fpc.distances.l2(problem.trajectory(weights)[-1], run[-1]), rel=1e-8
    )


@pytest.mark.parallel([1, 2])
def test_bad_arguments_are_refused_on_all_ranks():
    one, other = two_runs(WORLD, WAVES, zero(), n=4, steps=4)
    mesh = one.space.mesh
    late = fpc.FokkerPlanck(mesh, WAVES, 0.7).solve(one[0], 0.8, 5)
    assert "one mesh" in raised(
        ValueError, lambda: certificate(one, two_runs(WORLD, WAVES, zero())[0], WAVES, zero(), 0.7)
    )
    assert "time levels" in raised(ValueError, lambda: certificate(one, late, WAVES, zero(), 0.7))
    outward = shifted(1.0)
    assert "outward" in raised(
        ValueError,
        lambda: certificate(one, other, outward, zero(), 0.7, divergence=WAVES.divergence),
    )
    other.levels[-1] -= 2.0
    assert "rho_2 is not positive" in raised(
        ValueError, lambda: certificate(one, other, WAVES, zero(), 0.7)
    )


# -- the estimates -----------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [1.0, 0.5, 0.3])
def test_rough_drifts(sigma):
    study = rough_drifts(WORLD, sigma=sigma, patches=8, seeds=(0,), grid=Grid(48, 60))
    assert not failures(study)
    assert any(row.quantity.startswith("(E2)") for row in study.rows)
    # The crude estimate is reported, and never a check.
    assert [row.is_check for row in study.rows if row.quantity.startswith("(E1)")] == [False]
    assert any(row.quantity.startswith("(E2) measured/bound at T") for row in study.rows)


@pytest.mark.slow
def test_rough_drifts_on_the_square():
    study = rough_drifts(WORLD, dimension=2, patches=4, speed=1.5, seeds=(3,), grid=Grid(8, 20))
    assert not failures(study)


def test_patches_must_fit_the_grid():
    with pytest.raises(ValueError, match="multiples of patches"):
        rough_drifts(WORLD, patches=7, grid=Grid(20, 20))


def test_rough_drift_is_constant_in_patches():
    drift = Rough(np.arange(8.0).reshape(2, 2, 2, 1).repeat(2, axis=3), 1.0)
    x = np.array([[0.1, 0.1], [0.1, 0.9], [0.9, 0.1], [1.0, 1.0]])
    np.testing.assert_array_equal(drift(0.2, x)[:, 0], [0, 1, 2, 3])
    np.testing.assert_array_equal(drift(0.8, x)[:, 1], [4, 5, 6, 7])


@pytest.mark.slow
@pytest.mark.parametrize(("sigma", "t1"), [(0.2, 1.0), (0.35, 0.7)])
def test_constants_are_reached(sigma, t1):
    study = sharp_constants(WORLD, sigma=sigma, t1=t1, modes=(1, 8))
    assert not failures(study)
    reached = [row for row in study.rows if row.quantity.endswith("m = 8")]
    assert len(reached) == 3
    assert all(row.measured == pytest.approx(1.0, abs=1e-3) for row in reached)


@pytest.mark.slow
@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("parameters", [{"sigma": 0.012, "rate": 1.5, "t1": 0.7}, {"t1": 0.3}])
def test_bound_of_compressed_densities_is_reached(parameters):
    study = compressed(WORLD, **parameters)
    assert not failures(study)
    assert sum("measured/bound at T" in row.quantity for row in study.rows) == 3


@pytest.mark.slow
def test_bounds_of_a_constant_error():
    assert not failures(constant_error(WORLD, sigma=0.5, t1=0.7, gap=0.6))


@pytest.mark.parametrize("parameters", [{"sigma": 0.1}, {"width": 0.1}])
def test_compression_that_is_no_equality_is_refused(parameters):
    with pytest.raises(ValueError, match="width"):
        compressed(WORLD, **parameters)


@pytest.mark.slow
@pytest.mark.parametrize("dimension", [1, 2])
def test_tracking(dimension):
    grid = Grid(16, 16) if dimension == 1 else Grid(6, 8)
    study = tracking(WORLD, dimension=dimension, sigma=0.7, t1=0.7, iterations=3, grid=grid)
    assert not failures(study)


@pytest.mark.parallel([1, 2])
def test_ranks_agree():
    def run(comm):
        return rough_drifts(comm, patches=4, speed=1.0, seeds=(1,), intervals=2, grid=Grid(12, 6))

    one, all_ = run(SELF), run(WORLD)
    np.testing.assert_allclose(
        [row.measured for row in all_.rows], [row.measured for row in one.rows], rtol=1e-7
    )


def test_drift_that_the_solver_did_not_see_is_seen():
    # A run with twice the drift that it is certified for.
    twice = Steady(lambda x: 2.0 * WAVES(0.0, x))
    one, other = two_runs(WORLD, twice, zero())
    assert certificate(one, other, WAVES, zero(), 0.7).ratios()["E4"] > 1.0
