"""Particles: draws, paths, walls that reflect or absorb, and the densities that they make."""

import gc
import weakref

from mpi4py import MPI

import numpy as np
import pytest
from dolfinx import fem
from problems import SELF, WORLD, cube, raised
from scipy import stats

import fpcontrol as fpc
from fpcontrol import particles
from fpcontrol.particles.domain import Domain

# Chance of a test that fails though all is right, for each comparison; seeds are fixed.
UNLIKELY = 1e-3


def wavy(mesh, degree=1):
    """A density that varies along all axes."""
    d = mesh.geometry.dim
    return fpc.density.interpolate(
        mesh, lambda x: 1.2 + np.cos(5.0 * x[0]) * np.cos(4.0 * x[d - 1]), degree=degree
    )


def everywhere(x):
    return np.full(x.shape[1], True)


def circling(x):
    """Inward and around the middle of the unit box."""
    y = x - 0.5
    return np.column_stack([-2.0 * y[:, 1] - y[:, 0], 2.0 * y[:, 0] - y[:, 1]])


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("degree", [1, 2, 3])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_draws_have_the_masses_and_moments_of_the_density(d, degree):
    rho = wavy(cube(WORLD, d, (20, 8, 3)[d - 1]), degree)
    x = particles.draw(rho, 50_000, seed=4)
    assert particles.compare(x, rho, 20).p_value > UNLIKELY
    # Within the cells, too: a function that varies there.
    mesh = fpc.mesh.interval(SELF, 1) if d == 1 else cube(SELF, d, 1)
    fine = wavy(mesh, degree)
    y = particles.draw(fine, 50_000, seed=5)
    g = fpc.discretization.elements.Elements(fine.function_space, 12)
    values, weights = g.evaluate(fine.x.array).ravel(), g.quadrature_weights
    for f in (lambda z: z[:, 0] ** 2, lambda z: np.prod(z, axis=1), lambda z: z[:, -1] ** 5):
        mean, square = (weights * values) @ f(g.points), (weights * values) @ f(g.points) ** 2
        error = np.sqrt((square - mean**2) / len(y))
        assert abs(f(y).mean() - mean) < 4.0 * error
    # 2 % more mass in half of the cells would be seen.
    other = fpc.density.interpolate(
        rho.function_space.mesh, lambda z: 1.0 + 0.02 * (z[0] > 0.5), degree=1
    )
    uniform = fpc.density.uniform(rho.function_space.mesh, 1)
    assert particles.compare(particles.draw(other, 400_000), uniform, 8).p_value < UNLIKELY


@pytest.mark.parallel([1, 2, 3])
def test_stratified_draws_have_the_masses_nearly_exactly():
    rho = wavy(cube(WORLD, 2, 6))
    x = particles.draw(rho, 20_000, seed=1, stratified=True)
    free = particles.compare(particles.draw(rho, 20_000, seed=1), rho, 12).chi_square
    assert particles.compare(x, rho, 12).chi_square < 0.05 * free


@pytest.mark.parallel([2, 3])
@pytest.mark.parametrize("d", [1, 2, 3])
def test_paths_are_the_same_to_the_last_bit_on_any_number_of_ranks(d):
    def run(comm):
        mesh = cube(comm, d, (16, 7, 3)[d - 1])
        flow = fpc.NetworkDrift(mesh, d, pieces=4, seed=2)
        x = particles.draw(fpc.density.interpolate(mesh, lambda x: 1.0 + x[0], degree=1), 9_000)
        return particles.simulate(
            mesh, flow, x, 0.7, 1.0, 8, seed=6, absorbing=lambda x: x[0] < 1e-9, save=4
        )

    one, many = run(SELF), run(WORLD)
    for level in range(3):
        np.testing.assert_array_equal(one[level], many.gather(level))
    assert one.total == many.total == 9_000
    numbers = WORLD.allgather(many.exits.particles + many.first)
    np.testing.assert_array_equal(np.sort(np.concatenate(numbers)), np.sort(one.exits.particles))
    assert np.concatenate(WORLD.allgather(many.collisions)).tolist() == one.collisions.tolist()


@pytest.mark.parallel(1)
def test_a_run_that_goes_on_makes_the_paths_of_one_run():
    mesh = cube(SELF, 2, 5)
    drift = fpc.drift.Steady(circling)
    x = particles.draw(fpc.density.uniform(mesh), 5_000)
    options = {"seed": 3, "absorbing": lambda x: x[1] < 1e-9}
    whole = particles.simulate(mesh, drift, x, 0.4, 1.0, 20, **options)
    half = particles.simulate(mesh, drift, x, 0.4, 0.5, 10, **options)
    rest = particles.simulate(
        mesh, drift, half.points, 0.4, 1.0, 10, t0=0.5, step0=half.steps, **options
    )
    np.testing.assert_array_equal(rest.points, whole.points)
    assert len(half.exits) + len(rest.exits) == len(whole.exits) > 0
    assert whole.alive.sum() + len(whole.exits) == 5_000


@pytest.mark.parallel([1, 2])
def test_a_mesh_is_prepared_once_and_anew_when_it_has_moved(monkeypatch):
    made, make = [], Domain.__init__
    monkeypatch.setattr(Domain, "__init__", lambda *a: made.append(a[1]) or make(*a))
    mesh = cube(WORLD, 2, 6)
    uniform = fpc.density.uniform(mesh, 1)
    for _ in range(2):
        x = particles.draw(uniform, 500, seed=1)
        swarm = particles.simulate(mesh, fpc.drift.zero(), x, 0.3, 0.1, 2)
        particles.compare(swarm.points, uniform, 4)
        particles.histogram(mesh, swarm.points)
    assert made == [mesh]
    # One rank's points are enough: all make it anew, or the others would wait for it.
    if WORLD.rank == WORLD.size - 1:
        mesh.geometry.x[:, 0] += 3.0
    moved = np.concatenate(WORLD.allgather(particles.draw(uniform, 500, seed=1)))
    assert made == [mesh, mesh]
    assert moved[:, 0].max() > 3.0
    # With tags it is the caller's own.
    other = cube(WORLD, 2, 6)
    rho = fpc.density.uniform(other, 1)
    x = particles.draw(rho, 500, seed=1)
    swarm = particles.simulate(other, fpc.drift.zero(), x, 0.3, 0.1, 2, absorbing=everywhere)
    assert made == [mesh, mesh, other, other]
    assert swarm.domain is not particles.simulate(other, fpc.drift.zero(), x, 0.3, 0.1, 2).domain


def test_what_was_prepared_goes_with_its_mesh():
    mesh = cube(SELF, 2, 3)
    kept = weakref.ref(Domain.of(mesh))
    del mesh
    gc.collect()
    assert kept() is None


@pytest.mark.parallel(1)
@pytest.mark.parametrize("name", ["l_shape", "disk", "great_britain"])
def test_uniform_particles_stay_uniform_and_inside(name):
    mesh = fpc.mesh.read(f"meshes/{name}.xdmf", SELF)
    uniform = fpc.density.uniform(mesh)
    x = particles.draw(uniform, 40_000, seed=2, stratified=True)
    size = fpc.discretization.elements.Elements(uniform.function_space).volume ** 0.5
    # Steps of some cells, so that corners and necks are met at once.
    swarm = particles.simulate(mesh, fpc.drift.zero(), x, 0.5 * size, 1.0, 40, seed=8)
    assert particles.compare(swarm.points, uniform, 24).p_value > UNLIKELY
    shares = swarm.domain.cells.shares(swarm.domain.number[swarm.cells], swarm.points)
    assert shares.min() > -1e-12
    assert swarm.collisions.mean() > 1.0


@pytest.mark.parallel([1, 2])
def test_every_drift_of_the_package_moves_particles_as_it_moves_the_density():
    mesh = cube(WORLD, 2, 24)
    start = fpc.density.interpolate(
        mesh, lambda x: 0.3 + np.exp(-20.0 * ((x[0] - 0.3) ** 2 + (x[1] - 0.4) ** 2)), degree=1
    )
    goal = fpc.density.interpolate(
        mesh, lambda x: 0.3 + np.exp(-20.0 * ((x[0] - 0.7) ** 2 + (x[1] - 0.6) ** 2)), degree=1
    )
    sigma = 0.5
    flow = fpc.MoserFlow(start, goal, t1=1.0, sigma=sigma)
    vector = fem.Function(fem.functionspace(mesh, ("P", 1, (2,))))
    vector.interpolate(lambda x: circling(x[:2].T).T)
    potential = fem.Function(fem.functionspace(mesh, ("P", 2)))
    potential.interpolate(lambda x: 2.0 * (x[0] - 0.6) ** 2 + (x[1] - 0.5) ** 2)
    network = fpc.NetworkDrift(mesh, 2, pieces=4, seed=1)
    drifts = {
        "Moser": flow.drift,
        "data": fpc.drift.data(vector),
        "potential": fpc.drift.gradient(potential),
        "sum": 0.5 * fpc.drift.data(vector) + network,
        "walled": fpc.walls.walled(network, mesh),
    }
    x = particles.draw(start, 20_000, seed=3)
    for name, drift in drifts.items():
        swarm = particles.simulate(mesh, drift, x, sigma, 1.0, 100, seed=4)
        end = fpc.FokkerPlanck(mesh, drift, sigma, degree=1).solve(
            start, 1.0, 100, scheme=fpc.SDIRK2(), save="last"
        )[-1]
        assert particles.compare(swarm.points, end, 20).p_value > UNLIKELY, name
        # It can tell: the start is another density.
        assert particles.compare(swarm.points, start, 20).p_value < UNLIKELY, name


@pytest.mark.parallel([1, 2])
def test_noise_by_place_and_direction_moves_particles_as_it_moves_the_density():
    mesh = cube(WORLD, 2, 20)
    start = fpc.density.interpolate(
        mesh, lambda x: 0.2 + np.exp(-20.0 * ((x[0] - 0.4) ** 2 + (x[1] - 0.5) ** 2)), degree=2
    )
    turned = np.array([[0.5, 0.3], [0.0, 0.3]])
    noises = {
        "place": lambda x: 0.3 + 0.4 * x[:, 0],
        "axes": (0.6, 0.2),
        "matrix": turned,  # walls reflect along the conormal
    }
    x = particles.draw(start, 30_000, seed=3)
    for name, sigma in noises.items():
        swarm = particles.simulate(mesh, fpc.drift.zero(), x, sigma, 0.5, 200, seed=4)
        equation = fpc.FokkerPlanck(mesh, fpc.drift.zero(), sigma)
        end = equation.solve(start, 0.5, 50, save="last")[-1]
        assert particles.compare(swarm.points, end, 20).p_value > UNLIKELY, name
        other = particles.simulate(mesh, fpc.drift.zero(), x, 0.5, 0.5, 200, seed=4)
        assert particles.compare(other.points, end, 20).p_value < UNLIKELY, name


@pytest.mark.parallel(1)
def test_exits_of_an_interval_have_the_law_of_the_series():
    mesh = fpc.mesh.interval(SELF, 7)
    n, x0 = 30_000, 0.3
    # Some steps only: for Brownian motion and one wall in reach exits are exact at any step.
    swarm = particles.simulate(
        mesh, fpc.drift.zero(), np.full((n, 1), x0), 1.0, 5.0, 500, absorbing=everywhere
    )
    k = np.arange(1, 200)[:, None]

    def law(t):
        decay = np.exp(-0.5 * (k * np.pi) ** 2 * np.maximum(t, 1e-6))
        return 1.0 - (2.0 / (np.pi * k) * (1.0 - (-1.0) ** k) * np.sin(k * np.pi * x0) * decay).sum(
            axis=0
        )

    times = swarm.exits.times
    assert len(times) == n and (np.diff(times) >= 0.0).all()
    assert stats.kstest(times, law).pvalue > UNLIKELY
    right = swarm.exits.points[:, 0] > 0.5
    assert stats.binomtest(int(right.sum()), n, x0).pvalue > UNLIKELY
    assert set(np.unique(swarm.exits.points)) == {0.0, 1.0}
    assert not swarm.alive.any()


@pytest.mark.parallel([1, 2])
def test_exits_by_tags_are_what_the_equation_says():
    mesh = cube(WORLD, 2, 24)

    def left(x):
        return x[0] < 1e-9

    drift = fpc.drift.Steady(lambda x: np.column_stack([-0.5 + 0.0 * x[:, 0], np.sin(3 * x[:, 1])]))
    start = fpc.density.interpolate(mesh, lambda x: np.maximum(x[0], 0.0) * (1.0 + x[1]), degree=2)
    equation = fpc.FokkerPlanck(mesh, drift, 0.6, absorbing=left)
    run = equation.solve(start, 0.8, 80)
    n = 30_000
    x = particles.draw(start, n, seed=5)
    swarm = particles.simulate(mesh, drift, x, 0.6, 0.8, 80, seed=5, absorbing=left)
    gone = WORLD.allreduce(len(swarm.exits))
    mass = float(run.absorbed[-1, 0])
    assert abs(gone / n - mass) < 4.0 * np.sqrt(mass * (1.0 - mass) / n)
    # Over time, too.
    times = np.concatenate(WORLD.allgather(swarm.exits.times))
    for i in (20, 40, 60):
        mass = float(run.absorbed[i, 0])
        share = (times <= run.all_times[i]).mean() * gone / n
        assert abs(share - mass) < 4.0 * np.sqrt(mass * (1.0 - mass) / n)
    assert particles.compare(swarm.points, run[-1], 16).p_value > UNLIKELY


@pytest.mark.parallel(1)
def test_weak_orders_inside_and_at_a_wall():
    # Against the wall: the density tends to exp(-2 x); the mean distance from it is known.
    mesh = fpc.mesh.interval(SELF, 40, 0.0, 10.0)
    pushed, n = fpc.drift.Steady(lambda x: np.full_like(x, -1.0)), 400_000
    x = -0.5 * np.log1p(-np.random.default_rng(0).random((n, 1)))  # of that density
    mirrored, clipped = [], []
    for steps in (4, 8):
        points = particles.simulate(mesh, pushed, x, 1.0, 2.0, steps, seed=steps).points
        mirrored.append(float(points.mean()) - 0.5)
        # Clipped to the wall instead, the error is of order 1/2.
        dt, y, rng = 2.0 / steps, x.copy(), np.random.default_rng(steps)
        for _ in range(steps):
            y = np.maximum(y - dt + np.sqrt(dt) * rng.standard_normal(y.shape), 0.0)
        clipped.append(float(y.mean()) - 0.5)
    assert mirrored[0] / mirrored[1] == pytest.approx(2.0, rel=0.2)
    assert clipped[0] / clipped[1] == pytest.approx(np.sqrt(2.0), rel=0.15)

    # Far from walls: the Ornstein-Uhlenbeck process, whose variance is known.
    mesh = fpc.mesh.interval(SELF, 40, -20.0, 20.0)
    back = fpc.drift.Steady(lambda x: -x)
    exact = 0.5 * (1.0 - np.exp(-4.0))
    rates = {}
    for scheme in (particles.EulerMaruyama(), particles.Heun()):
        errors = []
        for steps in (4, 8):
            points = particles.simulate(
                mesh, back, np.zeros((n, 1)), 1.0, 2.0, steps, scheme=scheme, seed=7
            ).points
            errors.append(float((points**2).mean()) / exact - 1.0)
        rates[type(scheme)] = errors
    euler, heun = rates[particles.EulerMaruyama], rates[particles.Heun]
    assert euler[0] / euler[1] == pytest.approx(2.0, rel=0.3)
    assert heun[0] / heun[1] == pytest.approx(4.0, rel=0.45)
    assert abs(heun[1]) < 0.3 * abs(euler[1])


@pytest.mark.parallel([1, 2])
def test_regions_of_ones_own():
    mesh = cube(WORLD, 2, 10)
    rho = fpc.density.interpolate(mesh, lambda x: 1.0 + x[0], degree=1)
    found = particles.compare(
        particles.draw(rho, 10_000), rho, lambda x: (2 * x[:, 0]).astype(int) + 2 * (x[:, 1] > 0.5)
    )
    np.testing.assert_allclose(found.masses, np.array([1.25, 1.75, 1.25, 1.75]) / 6.0, rtol=1e-12)
    assert found.p_value > UNLIKELY and "4 d" not in str(found) and "3 degrees" in str(found)
    text = raised(ValueError, lambda: particles.compare(np.ones((1, 2)), rho, lambda x: x))
    assert "whole numbers" in text
    text = raised(
        ValueError,
        lambda: particles.compare(np.ones((1, 2)), rho, lambda x: 2 * (x[:, 0] > 0.5).astype(int)),
    )
    assert "region 1 of 3 has no mass" in text


@pytest.mark.parallel([1, 2, 3])
def test_a_histogram_has_the_mass_of_the_particles():
    mesh = cube(WORLD, 2, 4)
    rho = wavy(mesh)
    density = particles.histogram(mesh, particles.draw(rho, 100_000, seed=1))
    g = fpc.discretization.elements.Elements(rho.function_space)
    n = mesh.topology.index_map(2).size_local
    own = density.x.array[density.function_space.dofmap.list[:n, 0]]
    means = g.evaluate(rho.x.array).mean(axis=0)
    assert WORLD.allreduce(float(own.sum())) / 32.0 == pytest.approx(1.0, rel=1e-12)
    worst = WORLD.allreduce(float(np.abs(own - means).max(initial=0.0)), op=MPI.MAX)
    assert worst < 5.0 * np.sqrt(2.2 / 32.0 / 100_000) * 32.0


@pytest.mark.parallel([1, 2, 3])
def test_bad_input_says_what_to_do_on_all_ranks():
    mesh = cube(WORLD, 2, 4)
    rho, x = fpc.density.uniform(mesh, 1), np.full((3, 2), 0.5)
    zero = fpc.drift.zero()

    def run(points=x, drift=zero, sigma=1.0, steps=4, **options):
        return particles.simulate(mesh, drift, points, sigma, 1.0, steps, **options)

    outside = np.array([[0.5, 0.5], [1.5, 0.5]]) if WORLD.rank == WORLD.size - 1 else x
    assert "outside the domain" in raised(ValueError, lambda: run(outside))
    assert "(n, 2) is needed" in raised(ValueError, lambda: run(np.zeros(3)))
    assert "steps = 0" in raised(ValueError, lambda: run(steps=0))
    assert "seed = -1" in raised(ValueError, lambda: run(seed=-1))
    assert "step0" in raised(ValueError, lambda: run(step0=-1))
    assert "scheme" in raised(ValueError, lambda: run(scheme=fpc.BackwardEuler()))
    assert "no facet" in raised(ValueError, lambda: run(absorbing=lambda x: x[0] > 2.0))
    assert "sigma = -1.0" in raised(ValueError, lambda: run(sigma=-1.0))
    text = raised(ValueError, lambda: run(sigma=lambda x: x[:, 0], scheme=particles.Heun()))
    assert "EulerMaruyama()" in text
    text = raised(ValueError, lambda: run(drift=lambda t, x: x[:, 0]))
    assert "(points, dimension), are needed" in text
    text = raised(ValueError, lambda: run(drift=lambda t, x: np.full_like(x, np.nan)))
    assert "not finite" in text
    negative = rho.copy()
    negative.x.array[:] -= 2.0 * (negative.function_space.tabulate_dof_coordinates()[:, 0] > 0.9)
    assert "negative" in raised(ValueError, lambda: particles.draw(negative, 10))
    assert "n = -1" in raised(ValueError, lambda: particles.draw(rho, -1))
    assert "regions = 1" in raised(ValueError, lambda: particles.compare(x, rho, 1))
    assert "none on any rank" in raised(ValueError, lambda: particles.compare(x[:0], rho))
