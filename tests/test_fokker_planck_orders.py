"""Orders in space and in time, steps within a tolerance, and closed forms."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
from problems import SELF, WORLD, cube

import fpcontrol as fpc
from fpcontrol.verification import Manufactured, l2_error, orders


def error_in_space(dim: int, degree: int, n: int) -> float:
    solution = Manufactured(dim)
    mesh = cube(WORLD, dim, n)
    equation = fpc.FokkerPlanck(mesh, solution.drift, solution.sigma, degree=degree)
    last = equation.solve(solution.start(mesh, degree), 0.5, 4)[-1]
    return l2_error(last, lambda x: solution.density(0.5, x))


def order_in_space(dim: int, degree: int, cells: list[int]) -> None:
    errors = [error_in_space(dim, degree, n) for n in cells]
    observed = orders(errors)
    print(f"{dim}-D P{degree} cells {cells} errors {errors} order {observed[-1]:.3f}")
    # The last halving; half an order of tolerance would hide the loss of an order on some cells.
    assert observed[-1] == pytest.approx(degree + 1, abs=0.2)


@pytest.mark.parametrize(
    ("dim", "degree", "cells"),
    [
        (1, 1, [16, 32]),
        (1, 2, [16, 32]),
        (1, 3, [16, 32]),
        (2, 1, [16, 32]),
        (2, 2, [8, 16]),
        (2, 3, [6, 12]),
        (3, 1, [8, 16]),
        (3, 2, [5, 10]),
        (3, 3, [4, 8]),
    ],
)
def test_order_in_space_is_degree_plus_one(dim, degree, cells):
    order_in_space(dim, degree, cells)


@pytest.mark.parallel(2)
def test_order_in_space_on_ranks():
    order_in_space(2, 2, [8, 16])


def test_manufactured_solution_is_of_one_to_three_dimensions():
    with pytest.raises(ValueError, match="dim = 4"):
        Manufactured(4)


def error_in_time(scheme: Any, steps: int, dim: int, n: int) -> float:
    solution = Manufactured(
        dim, a=lambda t: 0.6 * math.cos(3.0 * t), slope=lambda t: -1.8 * math.sin(3.0 * t)
    )
    mesh = cube(WORLD, dim, n)
    equation = fpc.FokkerPlanck(mesh, solution.drift, solution.sigma, degree=3)
    trajectory = equation.solve(solution.start(mesh, 3), 1.0, steps, scheme=scheme)
    return l2_error(trajectory[-1], lambda x: solution.density(1.0, x))


@pytest.mark.parametrize(
    ("scheme", "dim", "n", "steps"),
    [
        (fpc.BackwardEuler(), 1, 32, 40),
        (fpc.BackwardEuler(), 2, 8, 40),
        (fpc.CrankNicolson(), 1, 32, 40),
        (fpc.CrankNicolson(), 2, 8, 40),
        (fpc.SDIRK2(), 1, 64, 64),
        (fpc.SDIRK2(), 2, 16, 32),
    ],
    ids=str,
)
def test_order_in_time(scheme, dim, n, steps):
    errors = [error_in_time(scheme, k, dim, n) for k in (steps // 2, steps)]
    observed = orders(errors)
    print(f"{dim}-D {scheme} errors {errors} order {observed[-1]:.3f}")
    assert observed[-1] == pytest.approx(scheme.order, abs=0.1)


def test_order_four_in_time():
    # Errors in time alone, by the difference to twice the steps: the mesh's own is 8e-10.
    solution = Manufactured(
        1, a=lambda t: 0.6 * math.cos(3.0 * t), slope=lambda t: -1.8 * math.sin(3.0 * t)
    )
    mesh = cube(WORLD, 1, 32)
    equation = fpc.FokkerPlanck(mesh, solution.drift, solution.sigma, degree=3)
    start = solution.start(mesh, 3)
    ends = [
        equation.solve(start, 1.0, steps, scheme=fpc.SDIRK4()).levels[-1]
        for steps in (64, 128, 256, 512)
    ]
    errors = [equation.elements.norm(a - b) for a, b in itertools.pairwise(ends)]
    observed = orders(errors)
    print(f"errors {errors} orders {observed}")
    assert errors[-1] < 1e-10
    # Five stages reach their order from below: 3.5, 3.7, 3.8, 3.9 as the steps are halved.
    assert observed[-1] == pytest.approx(4.0, abs=0.1)


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("scheme", [fpc.CrankNicolson(), fpc.SDIRK2()], ids=repr)
@pytest.mark.parametrize("waves", [0.7, 4.0])
def test_tolerance_is_kept(scheme, waves):
    mesh = cube(WORLD, 1, 30)

    def drift(t: float, x: np.ndarray) -> np.ndarray:
        # With four waves the middles of two steps, and those of four, all meet zeros of the drift.
        return 3.0 * np.sin(2.0 * np.pi * waves * t) * np.sin(np.pi * x)

    equation = fpc.FokkerPlanck(mesh, drift, 0.5)
    start = fpc.density.uniform(mesh)
    run = equation.solve(start, 1.0, 2, scheme=scheme, tolerance=1e-3)
    exact = equation.solve(start, 1.0, 8 * (len(run) - 1), scheme=fpc.SDIRK4())
    g = equation.elements
    gaps = [g.norm(u) for u in run.levels - exact.levels[::8]]
    worst = max(gaps) / max(g.norm(u) for u in exact.levels)
    assert 0.2 * run.time_error < worst < 1.3 * run.time_error
    assert run.time_error <= 1e-3


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_heat_flow_decays_mode_by_mode(dim):
    sigma, t1, modes = 0.5, 0.4, [(0.5, 1), (0.3, 2)]

    def exact(t: float, x: np.ndarray) -> np.ndarray:
        first = x[:, 0]
        decay = [a * np.exp(-0.5 * (sigma * k * np.pi) ** 2 * t) for a, k in modes]
        return 1.0 + sum(
            a * np.cos(k * np.pi * first) for a, (_, k) in zip(decay, modes, strict=True)
        )

    mesh = cube(WORLD, dim, [16, 8, 4][dim - 1])
    start = fpc.density.interpolate(mesh, lambda x: exact(0.0, x.T), 3)
    heat = fpc.FokkerPlanck(mesh, fpc.drift.zero(), sigma, degree=3)
    error = l2_error(heat.solve(start, t1, 40)[-1], lambda x: exact(t1, x))
    # Space and time on these meshes; a sigma wrong by 1 % makes 3e-3.
    assert error < [2e-5, 5e-5, 6e-4][dim - 1]


@pytest.mark.parallel([1, 2])
def test_ornstein_uhlenbeck_process_is_gaussian_at_all_times():
    sigma, t1, centre, variance = 1.2, 1.0, np.array([1.0, -0.5]), 0.5

    def exact(t: float, x: np.ndarray) -> np.ndarray:
        mean = centre * np.exp(-t)
        s = variance * np.exp(-2.0 * t) + 0.5 * sigma**2 * (1.0 - np.exp(-2.0 * t))
        return np.exp(-((x - mean) ** 2).sum(axis=1) / (2.0 * s)) / (2.0 * np.pi * s)

    mesh = cube(WORLD, 2, 30, size=12.0, lower=-6.0)
    start = fpc.density.interpolate(mesh, lambda x: exact(0.0, x[:2].T), 3)
    equation = fpc.FokkerPlanck(mesh, fpc.drift.Steady(lambda x: -x), sigma, degree=3)
    trajectory = equation.solve(start, t1, 40)
    # The walls, six lengths away, hold 1e-9 of the mass; steps of 1/40 leave 1e-4.
    for n in (20, 40):
        t = trajectory.times[n]
        assert l2_error(trajectory[n], lambda x, t=t: exact(t, x)) < 2e-4


@pytest.mark.parametrize("dim", [1, 2])
def test_gibbs_density_is_where_a_potential_drift_ends(dim):
    sigma = 1.0
    mesh = cube(SELF, dim, [40, 12][dim - 1])

    def potential(x: np.ndarray) -> np.ndarray:
        return np.cos(np.pi * x).sum(axis=0)

    def drift(x: np.ndarray) -> np.ndarray:
        return np.pi * np.sin(np.pi * x)

    end = fpc.FokkerPlanck(mesh, fpc.drift.Steady(drift), sigma).solve(
        fpc.density.uniform(mesh), 10.0, 20, scheme=fpc.BackwardEuler()
    )[-1]
    gibbs = fpc.density.interpolate(mesh, lambda x: np.exp(-2.0 / sigma**2 * potential(x[:dim])))
    assert np.abs(end.x.array - gibbs.x.array).max() < 1e-3 * gibbs.x.array.max()
