"""Controls that were found, looked at by particles: verdicts, biases, regions, refusals."""

from dataclasses import replace

import dolfinx.mesh
import numpy as np
import pytest
from problems import SELF, WORLD, noiseless, raised

import fpcontrol as fpc
from fpcontrol.particles.checking import Regions
from fpcontrol.particles.without_noise import carried

T1, SIGMA = 0.5, 0.4


def found(comm=SELF, cells: int = 48, pieces: int = 2) -> fpc.Result:
    """Two iterations on the interval."""
    mesh = fpc.mesh.interval(comm, cells)
    start, goal = (
        fpc.density.interpolate(mesh, f, degree=1)
        for f in (
            lambda x: 1.0 + 0.5 * np.cos(np.pi * x[0]),
            lambda x: 0.4 + np.exp(-((x[0] - 0.7) ** 2) / 0.04),
        )
    )
    flow = fpc.MoserFlow(start, goal, t1=T1, sigma=SIGMA)
    drift = fpc.NetworkDrift(mesh, 1, pieces, t1=T1, activation="tanh", seed=0)
    problem = fpc.TrackingProblem(flow, drift, SIGMA, steps=8 * pieces)
    return fpc.minimize(problem, max_iterations=4)


@pytest.fixture(scope="module")
def result() -> fpc.Result:
    return found()


@pytest.mark.parallel([1, 2])
def test_particles_are_where_the_density_says_on_any_number_of_ranks():
    here, alone = (fpc.particles.check(found(comm), 5_000, seed=1) for comm in (WORLD, SELF))
    assert here.comparison.p_value > 1e-3 and not here.bias
    assert here.steps == 64
    assert here.figures["particles"] == 5_000 and here.figures["regions"] == 24
    np.testing.assert_allclose(here.comparison.masses, alone.comparison.masses, rtol=1e-7)
    np.testing.assert_allclose(here.comparison.shares, alone.comparison.shares, atol=4.1e-4)
    assert "5000 in 24 regions" in str(here) and "below the statistical error" in str(here)


@pytest.mark.parametrize("factor", [1.0, 1.3])
def test_noise_that_is_wrong_is_seen(result, factor):
    problem = result.problem
    points = fpc.particles.draw(problem.reference.start, 20_000, seed=2)
    swarm = fpc.particles.simulate(
        problem.elements.mesh,
        result.drift,
        points,
        factor * SIGMA,
        T1,
        64,
        seed=2,
        scheme=fpc.particles.Heun(),
    )
    check = fpc.particles.check(result, 20_000, seed=2, steps=64, swarm=swarm)
    assert (check.comparison.p_value > 1e-3) == (factor == 1.0)


def test_cells_and_steps_that_show_are_said():
    few = found(cells=8)
    strong = fpc.minimize(few.problem, 4.0 * np.asarray(few.weights), max_iterations=1)
    some, many = (
        fpc.particles.check(strong, n, regions=6, seed=3, steps=4) for n in (20_000, 100_000)
    )
    assert some.bias == () and "below the statistical error" in str(some)
    assert many.bias == ("cells", "steps")
    assert "above the statistical error: cells and steps" in str(many)
    assert many.cells == pytest.approx(5.0**0.5 * some.cells, rel=1e-9)


def test_small_p_without_a_bias_that_shows_is_said(result):
    check = fpc.particles.check(result, 5_000, seed=1)
    assert check.bias == ()
    c = check.comparison
    off = c.shares + np.where(np.arange(24) < 12, 1.0, -1.0) * 2.0 * c.errors
    doubted = replace(check, comparison=replace(c, shares=off))
    assert doubted.bias == () and "p is small: look again with steps=256" in str(doubted)
    assert "small" not in str(check)


def test_regions_are_the_same_sets_on_a_finer_mesh():
    mesh = fpc.mesh.rectangle(WORLD, (5, 4))
    where = Regions(fpc.density.interpolate(mesh, lambda x: 1.0 + x[0], degree=1), 7)
    fine = fpc.mesh.refine(mesh)
    density = fpc.density.interpolate(fine, lambda x: 1.0 + x[0], degree=1)
    points = fpc.particles.draw(density, 1000, seed=0)
    own = fpc.density.interpolate(mesh, lambda x: 1.0 + x[0], degree=1)
    one, other = (fpc.particles.compare(points, rho, where) for rho in (own, density))
    np.testing.assert_allclose(one.masses, other.masses, rtol=1e-12)
    np.testing.assert_array_equal(one.shares, other.shares)
    assert len(one.masses) == 7


@pytest.mark.parallel([1, 2])
def test_bad_input_is_refused():
    result = found(WORLD, 8)
    for steps in (0, 6, 63):
        text = raised(ValueError, lambda steps=steps: fpc.particles.check(result, 9, steps=steps))
        assert f"steps = {steps}" in text and "2 pieces" in text
    text = raised(ValueError, lambda: fpc.particles.check(result, 9, 1))
    assert "regions = 1" in text
    text = raised(ValueError, lambda: fpc.particles.check(result, -1, 4))
    assert "n = -1" in text


def quiet(comm=SELF) -> fpc.Result:
    """Without noise, on the interval, a drift that is worth looking at."""
    return fpc.minimize(noiseless(comm), max_iterations=6)


@pytest.mark.parallel([1, 2])
def test_particles_without_noise_are_where_characteristics_say():
    result = quiet(WORLD)
    check = fpc.particles.check(result, 20_000, seed=4)
    assert check.comparison.p_value > 1e-3 and not check.bias
    assert check.figures["regions"] == 24
    points = fpc.particles.draw(result.problem.reference.start, 20_000, seed=4)
    mesh = result.problem.elements.mesh
    still = fpc.particles.simulate(mesh, 0.9 * result.drift, points, 0.0, 1.0, 80)
    wrong = fpc.particles.check(result, 20_000, seed=4, swarm=still)
    assert wrong.comparison.p_value < 1e-9


def test_masses_of_cells_are_those_of_markers_on_an_interval():
    result = quiet()
    mesh = result.problem.elements.mesh
    density = carried(result.problem.runs.start, result.drift, 1.0, mesh)
    markers = fpc.characteristics.Markers.on_interval(SELF, 4000, lambda x: np.ones(len(x)))
    flow = fpc.characteristics.carry(markers, result.drift, [0.0, 1.0])
    # They keep their order: the mass below each is where it has started.
    below = np.interp(np.linspace(0.0, 1.0, 41), flow.positions[1, :, 0], markers.points[:, 0])
    exact = np.diff(below)
    order = np.argsort(density.function_space.tabulate_dof_coordinates()[:, 0])
    np.testing.assert_allclose(density.x.array[order] / 40.0, exact, atol=3e-6)
    assert np.ptp(exact) > 0.01


def leaving(mesh=None, **walls) -> fpc.Result:
    """On the interval, whose left end absorbs."""
    mesh = mesh or fpc.mesh.interval(SELF, 48)
    start, goal = fpc.density.uniform(mesh, degree=1), fpc.density.interpolate(mesh, bump, degree=1)
    flow = fpc.MoserFlow(start, goal, t1=T1, sigma=SIGMA)
    drift = fpc.NetworkDrift(mesh, 1, 2, t1=T1, activation="tanh", seed=0)
    problem = fpc.TrackingProblem(flow, drift, SIGMA, steps=32, **(walls or {"absorbing": left}))
    return fpc.minimize(problem, max_iterations=2)


def bump(x):
    return 0.4 + np.exp(-((x[0] - 0.7) ** 2) / 0.04)


def left(x):
    return x[0] < 1e-9


def test_what_walls_have_taken_is_a_region_more():
    result = leaving()
    check = fpc.particles.check(result, 20_000, regions=8, seed=5)
    c = check.comparison
    assert len(c.middles) == 8 and len(c.masses) == 9
    assert c.masses[-1] == pytest.approx(1.0 - result.mass[-1], abs=0.01)
    assert c.masses[-1] > 0.1 and abs(c.z[-1]) < 4.0 and c.p_value > 1e-3
    problem = result.problem
    points = fpc.particles.draw(problem.reference.start, 20_000, seed=5)
    mesh = problem.elements.mesh
    kept = fpc.particles.simulate(mesh, result.drift, points, SIGMA, T1, 128, seed=5)
    wrong = fpc.particles.check(result, 20_000, regions=8, seed=5, swarm=kept)
    assert wrong.comparison.p_value < 1e-9


def test_walls_by_tags_are_refused():
    mesh = fpc.mesh.interval(SELF, 8)
    facets = dolfinx.mesh.locate_entities_boundary(mesh, 0, left)
    tags = dolfinx.mesh.meshtags(mesh, 0, facets, 1)
    result = leaving(mesh=mesh, absorbing=1, facet_tags=tags)
    assert "marker" in raised(ValueError, lambda: fpc.particles.check(result, 9, 4))


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("what", ["reactions", "reentry"])
def test_what_dies_comes_or_enters_again_is_refused(what):
    mesh = fpc.mesh.interval(WORLD, 8)
    more = {"reactions": fpc.Reactions(killing=1.0)}
    if what == "reentry":
        more = {"absorbing": left, "reentry": lambda x: 1.0 + 0.0 * x[:, 0]}
    result = leaving(mesh, **more)
    text = raised(ValueError, lambda: fpc.particles.check(result, 9, 4))
    assert f"result is of a problem with {what}: " in text and "Check one without" in text


@pytest.mark.parallel([1, 2])
def test_noise_in_another_sense_is_refused():
    mesh = fpc.mesh.interval(WORLD, 8)
    start = fpc.density.uniform(mesh, degree=1)
    flow = fpc.MoserFlow(start, fpc.density.interpolate(mesh, bump, degree=1), T1, SIGMA)
    drift = fpc.NetworkDrift(mesh, 1, 2, t1=T1, seed=0)

    def found_with(interpretation) -> fpc.Result:
        problem = fpc.TrackingProblem(
            flow,
            drift,
            lambda x: 0.3 + 0.1 * x[:, 0],
            steps=8,
            interpretation=interpretation,
        )
        return fpc.minimize(problem, max_iterations=1)

    for other in ("stratonovich", "divergence"):
        result = found_with(other)
        text = raised(ValueError, lambda result=result: fpc.particles.check(result, 9, 4))
        assert f"interpretation = {other!r}" in text and "Ito" in text
    check = fpc.particles.check(found_with("ito"), 2_000, 4, steps=32)
    assert check.comparison.p_value > 1e-3


@pytest.mark.parallel([1, 2])
def test_markers_that_were_given_have_no_density_to_draw_from():
    like = noiseless(WORLD)
    markers = fpc.characteristics.Markers.on_interval(WORLD, 8, lambda x: np.ones(len(x)))
    problem = fpc.TrackingProblem(like.reference, like.drift, 0.0, 20, markers=markers)
    result = fpc.minimize(problem, max_iterations=1)
    text = raised(ValueError, lambda: fpc.particles.check(result, 9, 4))
    assert "markers that were given" in text and "MoserFlow" in text


def test_densities_that_characteristics_carry_are_not_negative():
    mesh = fpc.mesh.interval(SELF, 8)
    start = fpc.density.uniform(mesh, degree=1)
    start.x.array[0] = -0.5
    text = raised(ValueError, lambda: carried(start, fpc.drift.zero(), 1.0, mesh))
    assert "density is negative, -0.5" in text
