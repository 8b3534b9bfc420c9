"""Certificates of results: bounds are above what was measured, whatever the method."""

import json

import numpy as np
import pytest
from problems import SELF, WORLD, bump, cube, quiet, tracking

import fpcontrol as fpc
from fpcontrol.control.certified import tracking_certificate
from fpcontrol.control.result import completed

METHODS = {
    "galerkin 1": fpc.Galerkin(1),
    "galerkin 2": fpc.Galerkin(2),
    "monotone": fpc.Monotone(),
    "limited": fpc.Limited(),
}
CASES = [(1, 40, 0.5, 0.0), (1, 40, 1.0, 0.2), (2, 10, 0.8, 0.0)]


def problem(comm, method, dim, n, sigma, shift):
    mesh = cube(comm, dim, n)
    degree = method.degree
    start, goal = bump(mesh, degree, 0.3), bump(mesh, degree, 0.7)
    reference = fpc.MoserFlow(start, goal, 1.0, sigma, discretization=method)
    drift = fpc.NetworkDrift(mesh, dim, 4, seed=3)
    own = bump(mesh, degree, 0.3 + shift) if shift else None
    return fpc.TrackingProblem(reference, drift, sigma, 32, start=own)


@pytest.mark.parallel([1])
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("case", CASES)
def test_bounds_are_above_what_is_measured(method, case):
    result = quiet(problem(SELF, method, *case), method="lmvm", max_iterations=8)
    c = result.certificate
    assert result.uncertified == ""
    for measured, bound in ((c.l2, c.l2_bound), (c.kl, c.e4), (c.l1, c.l1_bound)):
        assert (measured[1:] <= bound[1:]).all()
        assert measured[-1] > 1e-4  # something was measured, and the bound says something
        assert bound[-1] < 50.0 * measured[-1]
    assert c.l2[-1] == pytest.approx(
        fpc.distances.l2(result.trajectory[-1], result.problem.reference.goal), rel=0.02
    )


@pytest.mark.parallel([1, 2])
def test_certificate_is_plain_data_in_table_and_record(tmp_path):
    result = quiet(tracking(), max_iterations=3)
    own = tracking_certificate(result.problem, result.weights)
    assert np.array_equal(own.e4, result.certificate.e4)
    assert "KL at the end, (E4)" in result.summary()
    fpc.io.write_record(result, tmp_path / "record.json")
    WORLD.barrier()
    found = json.loads((tmp_path / "record.json").read_text())["figures"]["certificate"]
    assert found["kl"] == own.kl[-1] <= found["e4"] == own.e4[-1]
    assert result.refined(8).certificate.times.size == 9


@pytest.mark.parallel([1, 2])
@pytest.mark.filterwarnings("ignore:The density is negative", "ignore:The run rings")
def test_negative_densities_have_the_bound_of_the_square_alone(tmp_path):
    rough = tracking(n=4, sigma=0.4, steps=4)
    history = quiet(rough, max_iterations=1).history
    result = completed(rough, 2.5 * rough.drift.weights, history, "test", 1, {}, 0)
    assert result.minimum_density < 0.0
    c = result.certificate
    assert np.isnan(c.e4[-1]) and np.isfinite(c.e3).all()
    assert "nan" in result.summary()
    figures = fpc.io.record(result)["figures"]["certificate"]
    assert figures["e4"] is None and figures["e3"] == c.e3[-1]


def test_where_there_is_none_the_result_says_why():
    assert "sigma = 0" in quiet(tracking(SELF, sigma=0.0), max_iterations=1).uncertified
    lean = quiet(tracking(SELF, snapshots=1), max_iterations=1)
    assert lean.certificate is None and "recomputed" in lean.uncertified
    assert "recomputed" in fpc.io.record(lean)["figures"]["certificate"]
    walls = tracking(SELF, absorbing=lambda x: np.isclose(x[0], 0.0))
    assert "absorbing" in quiet(walls, max_iterations=1).uncertified
