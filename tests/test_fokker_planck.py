"""The forward problem: any number of ranks, calls of the drift, trajectories."""

from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from problems import SELF, WORLD, bump, cube, schemes, stirring

import fpcontrol as fpc


@pytest.mark.parallel([2, 3])
@pytest.mark.parametrize(("dim", "degree", "n"), [(1, 3, 7), (2, 2, 5), (3, 1, 3)])
def test_density_is_that_of_one_rank(dim, degree, n):
    def run(comm: MPI.Comm) -> fpc.Trajectory:
        mesh = cube(comm, dim, n)
        equation = fpc.FokkerPlanck(mesh, stirring, 0.6, degree=degree)
        return equation.solve(bump(mesh, degree, 0.3), 1.0, 10)

    alone, shared = run(SELF), run(WORLD)

    def by_place(t: fpc.Trajectory) -> dict[tuple[float, ...], np.ndarray]:
        x = t.space.tabulate_dof_coordinates()
        return {tuple(np.round(p, 9) + 0.0): t.levels[:, i] for i, p in enumerate(x)}

    expected, found = by_place(alone), by_place(shared)
    worst = max(np.abs(found[p] - expected[p]).max() for p in found)
    assert WORLD.allreduce(worst, op=MPI.MAX) <= 1e-9 * np.abs(alone.levels).max()
    assert shared.mass == pytest.approx(alone.mass, rel=1e-13)
    assert shared.minimum == pytest.approx(alone.minimum, abs=1e-9 * np.abs(alone.levels).max())


class Counted:
    """Counts the calls of a drift."""

    def __init__(self, drift: Any) -> None:
        self._drift, self.times = drift, []
        if hasattr(drift, "piece"):
            self.piece = drift.piece

    def __call__(self, t: float, x: np.ndarray) -> np.ndarray:
        self.times.append(t)
        return self._drift(t, x)


def calls(drift: Any, scheme: Any = None) -> list[float]:
    counted = Counted(drift)
    mesh = cube(SELF, 1, 4)
    fpc.FokkerPlanck(mesh, counted, 1.0).solve(fpc.density.uniform(mesh), 1.0, 12, scheme=scheme)
    return counted.times


@schemes()
def test_drift_is_asked_once_where_it_is_constant(scheme):
    network = fpc.NetworkDrift(cube(SELF, 1, 4), 1, pieces=3)
    assert len(calls(fpc.drift.Steady(np.ones_like), scheme)) == 1
    assert len(calls(network, scheme)) == 3
    assert len(calls(stirring, scheme)) == 12 * len(scheme.c)


@schemes()
def test_drift_is_asked_inside_the_steps_only(scheme):
    position = 12.0 * np.array(calls(stirring, scheme))
    inside = position - np.floor(position)
    assert (np.floor(position) == np.repeat(np.arange(12), len(scheme.c))).all()
    assert ((inside > 1e-10) & (inside < 1.0)).all()


@schemes()
def test_network_gives_the_same_as_a_drift_and_as_a_control(scheme):
    mesh = cube(SELF, 2, 4)
    start, goal = bump(mesh, 2, 0.3), bump(mesh, 2, 0.7)
    network = fpc.NetworkDrift(mesh, 2, pieces=3, t1=0.6)
    problem = fpc.TrackingProblem(
        fpc.MoserFlow(start, goal, 0.6, 0.8), network, 0.8, 12, scheme=scheme
    )
    controlled = problem.trajectory(network.weights).levels
    forward = fpc.FokkerPlanck(mesh, network, 0.8).solve(start, 0.6, 12, scheme=scheme).levels
    assert np.abs(controlled - forward).max() < 1e-11 * controlled.max()


@pytest.mark.parallel([1, 2, 3])
def test_trajectory_is_a_sequence_of_densities():
    mesh = cube(WORLD, 2, 4)
    start = bump(mesh, 1, 0.3)
    trajectory = fpc.FokkerPlanck(mesh, stirring, 0.6, degree=1).solve(start, 3.0, 8, t0=1.0)
    assert len(trajectory) == len(trajectory.times) == len(list(trajectory)) == 9
    assert trajectory.times == pytest.approx(np.linspace(1.0, 3.0, 9))
    assert trajectory.mass.shape == trajectory.minimum.shape == (9,)
    assert np.array_equal(trajectory[0].x.array, start.x.array)
    assert np.array_equal(trajectory[-1].x.array, trajectory[8].x.array)
    assert all(
        np.array_equal(rho.x.array, trajectory.levels[i]) for i, rho in enumerate(trajectory)
    )
    lowest = [WORLD.allreduce(rho.x.array.min(), op=MPI.MIN) for rho in trajectory]
    assert trajectory.minimum == pytest.approx(lowest)
    with pytest.raises(IndexError):
        trajectory[9]


def test_minimum_reports_a_negative_density():
    mesh = cube(SELF, 1, 20)
    blow = fpc.drift.Steady(lambda x: np.full_like(x, 5.0))
    with pytest.warns(UserWarning, match="negative"):
        trajectory = fpc.FokkerPlanck(mesh, blow, 0.5, degree=1).solve(bump(mesh, 1, 0.3), 1.0, 4)
    assert trajectory.minimum.min() < 0.0


def free_communicators() -> int:
    """How many more communicators MPI has (MPICH: about 2000), counted up to 2500."""
    taken = []
    try:
        while len(taken) < 2500:
            taken.append(WORLD.Dup())
    except MPI.Exception:
        pass
    for comm in taken:
        comm.Free()
    return len(taken)


@pytest.mark.parallel(2)
def test_what_is_no_longer_used_is_given_back():
    # PETSc keeps what one rank drops until all clean up: 7 communicators a mesh and its matrices.
    def use() -> None:
        mesh = cube(WORLD, 2, 3)
        fpc.FokkerPlanck(mesh, stirring, 0.6, degree=1).solve(bump(mesh, 1, 0.3), 1.0, 1)

    use()
    before = free_communicators()
    for _ in range(20):
        use()
    assert before - free_communicators() <= 20


@pytest.mark.parallel(3)
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_rank_without_cells(degree):
    few = cube(WORLD, 2, 1)
    assert min(WORLD.allgather(few.topology.index_map(2).size_local)) == 0
    runs = []
    for mesh in (few, cube(SELF, 2, 1)):
        flow = fpc.MoserFlow(bump(mesh, degree, 0.3), bump(mesh, degree, 0.7), 1.0, 0.5)
        equation = fpc.FokkerPlanck(mesh, flow.drift, 0.5, degree=degree)
        runs.append(equation.solve(flow.start, 1.0, 3))
        network = fpc.NetworkDrift(mesh, 2, 3, seed=1)
        runs.append(fpc.TrackingProblem(flow, network, 0.5, 6).derivative(network.weights))
    assert runs[0].minimum == pytest.approx(runs[2].minimum, rel=1e-9)
    assert runs[1] == pytest.approx(runs[3], rel=1e-8, abs=1e-12)
