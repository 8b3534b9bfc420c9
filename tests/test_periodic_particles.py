"""Particles on the circle, the cylinder and the torus, against their densities."""

from mpi4py import MPI

import numpy as np
import pytest
from scipy import stats

import fpcontrol as fpc
from fpcontrol import particles

COMM = MPI.COMM_WORLD
UNLIKELY = 1e-3


def swirl(x):
    """Round in x, and to and fro in y; periodic in both."""
    z = 2.0 * np.pi * x
    return np.column_stack([0.8 + 0.5 * np.sin(z[:, 1]), 0.4 * np.sin(z[:, 0])])


@pytest.mark.parametrize("d", [1, 2, 3])
def test_a_whole_turn_leads_back(d):
    counts = (7, 5, 4)[:d]
    made = {1: fpc.mesh.interval, 2: fpc.mesh.rectangle, 3: fpc.mesh.box}[d]
    low = (-0.5,) * d if d > 1 else -0.5
    high = (1.5, 0.5, 1.0)[:d] if d > 1 else 1.5
    mesh = made(COMM, counts if d > 1 else counts[0], low, high, periodic=True)
    turns = np.array([2.0, -1.0, 3.0][:d]) * (np.array(high) - np.array(low))
    points = particles.draw(fpc.density.uniform(mesh, 1), 2000, seed=3)
    steady = fpc.drift.Steady(lambda x: np.zeros_like(x) + turns)
    swarm = particles.simulate(mesh, steady, points, sigma=0.0, t1=1.0, steps=9)
    assert swarm.points == pytest.approx(points, abs=1e-12)
    assert (swarm.collisions == 0).all()
    # Steps of more than a period, from points given turns away.
    swarm = particles.simulate(mesh, steady, points + turns, sigma=0.0, t1=1.0, steps=1)
    assert swarm.points == pytest.approx(points, abs=1e-12)


@pytest.mark.parallel([1, 2])
def test_particles_on_the_circle_have_its_density():
    mesh = fpc.mesh.interval(COMM, 60, -1.0, 2.0, periodic=True)
    k = 2.0 * np.pi / 3.0
    drift = fpc.drift.Steady(lambda x: 1.0 + np.sin(k * x))
    start = fpc.density.interpolate(mesh, lambda x: np.exp(4.0 * np.cos(k * (x[0] - 1.6))), 3)
    run = fpc.FokkerPlanck(mesh, drift, 0.6, degree=3).solve(start, 1.2, 60)
    points = particles.draw(start, 30_000, seed=1)
    heun = particles.Heun()
    swarm = particles.simulate(mesh, drift, points, 0.6, t1=1.2, steps=60, scheme=heun)
    found = particles.compare(swarm.points, run[-1])
    assert found.p_value > UNLIKELY
    assert particles.compare(points, run[-1]).p_value < 1e-9


@pytest.mark.parallel([1, 2])
def test_walls_that_reflect_between_sides_that_do_not():
    mesh = fpc.mesh.rectangle(COMM, (20, 16), periodic="x")
    round_ = fpc.drift.Steady(lambda x: np.column_stack([0.8 + 0 * x[:, 0], x[:, 1] - 0.4]))
    start = fpc.density.interpolate(
        mesh, lambda x: np.exp(3.0 * np.cos(2 * np.pi * (x[0] - 0.9)) - 8.0 * (x[1] - 0.5) ** 2)
    )
    run = fpc.FokkerPlanck(mesh, round_, 0.5).solve(start, 0.5, 20)
    points = particles.draw(start, 20_000, seed=2)
    swarm = particles.simulate(mesh, round_, points, 0.5, t1=0.5, steps=80)
    assert particles.compare(swarm.points, run[-1], 24).p_value > UNLIKELY
    x = swarm.points
    assert ((x >= -1e-12) & (x <= 1.0 + 1e-12)).all()


def leaving(comm, n=20_000):
    """Particles that start at the seam and leave through part of a wall, there too."""
    mesh = fpc.mesh.rectangle(comm, (24, 18), periodic="x")
    start = fpc.density.interpolate(
        mesh, lambda x: np.exp(6.0 * np.cos(2 * np.pi * x[0]) - 30.0 * (x[1] - 0.4) ** 2), degree=1
    )
    bottom = {"absorbing": lambda x: x[1] < 1e-9}
    along = fpc.drift.Steady(lambda x: np.column_stack([0.5 + 0 * x[:, 0], -0.3 + 0 * x[:, 1]]))
    run = fpc.FokkerPlanck(mesh, along, 0.5, degree=1, **bottom).solve(
        start, 0.6, 30, scheme=fpc.SDIRK2(), save="last"
    )
    points = particles.draw(start, n, seed=5)
    return run, particles.simulate(mesh, along, points, 0.5, t1=0.6, steps=30, seed=7, **bottom)


def test_walls_that_absorb_on_both_sides_of_the_seam():
    run, swarm = leaving(COMM)
    left = len(swarm.exits.times) / 20_000
    error = np.sqrt(left * (1.0 - left) / 20_000)
    assert 0.2 < left < 0.8 and abs(left - run.absorbed[-1, 0]) < 4.0 * error + 1e-3
    places = swarm.exits.points
    assert np.abs(places[:, 1]).max() < 1e-12
    assert ((places[:, 0] >= -1e-12) & (places[:, 0] <= 1.0 + 1e-12)).all()
    assert particles.compare(swarm.points, run[-1], 16).p_value > UNLIKELY


def test_one_step_may_touch_a_wall_beyond_the_seam():
    # One step is exact here: the law of the first passage of a Brownian path.
    mesh = fpc.mesh.rectangle(COMM, (40, 20), (0.0, 0.0), (10.0, 10.0), periodic="x")
    along = fpc.drift.Steady(lambda x: np.tile([0.9, 0.0], (len(x), 1)))
    points, n = np.tile([9.95, 0.7 * 0.5], (20_000, 1)), 20_000
    swarm = particles.simulate(
        mesh, along, points, (0.0, 0.5), 1.0, 1, seed=3, absorbing=lambda x: x[1] < 1e-9
    )
    exact = 2.0 * stats.norm.sf(0.7)
    assert len(swarm.exits.times) / n == pytest.approx(exact, abs=4.0 * (exact / n) ** 0.5)
    way = (swarm.exits.points[:, 0] - 9.95) % 10.0
    assert way.max() <= 0.9 + 1e-9 and (way > 0.05).mean() > 0.3  # most of it beyond the seam


@pytest.mark.parallel([2, 3])
def test_paths_are_the_same_on_all_ranks():
    found, alone = leaving(COMM, 3000)[1], leaving(MPI.COMM_SELF, 3000)[1]
    whole = np.concatenate(COMM.allgather(found.points))
    assert np.array_equal(whole, alone.points, equal_nan=True)
    assert COMM.allreduce(len(found.exits.times)) == len(alone.exits.times) > 100


@pytest.mark.parallel([1, 2])
def test_drifts_on_a_mesh_move_particles_over_the_seam():
    mesh = fpc.mesh.rectangle(COMM, (16, 12), periodic="xy")
    start, goal = (
        fpc.density.interpolate(
            mesh, lambda x, s=s: 1.0 + 0.6 * np.cos(2 * np.pi * (x[0] - s)), degree=2
        )
        for s in (0.8, 0.1)
    )
    flow = fpc.MoserFlow(start, goal, t1=1.0, sigma=0.3)
    points = particles.draw(start, 12_000, seed=8)
    swarm = particles.simulate(mesh, flow.drift, points, 0.3, t1=1.0, steps=50)
    assert particles.compare(swarm.points, goal, 16).p_value > UNLIKELY
    share = particles.histogram(mesh, swarm.points)
    assert fpc.distances.l2(share, goal) < 0.2
