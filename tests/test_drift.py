"""Drifts: their structure in time survives wrappers, sums, multiples, maps and reversals."""

import numpy as np
import pytest
from dolfinx import fem
from problems import WORLD, cube, raised

import fpcontrol as fpc
from fpcontrol.drift import Drift, Mapped, Steady, as_drift, zero
from fpcontrol.drift.sampling import check_switches

X = np.array([[0.1, 0.7], [0.4, 0.2], [0.9, 0.5]])


class Jumps(Drift):
    """x before the time s, -2 x after it."""

    def __init__(self, s: float) -> None:
        self.s = s

    def __call__(self, t: float, x: np.ndarray) -> np.ndarray:
        return x if t < self.s else -2.0 * x

    @property
    def switches(self) -> np.ndarray:
        return np.array([self.s])

    def piece(self, t: float) -> int:
        return int(t >= self.s)

    def divergence(self, t: float, x: np.ndarray) -> np.ndarray:
        return np.full(len(x), (1.0 if t < self.s else -2.0) * x.shape[1])


COMBINED = {
    "sum": (lambda a, b: a + b, lambda a, b: a + b),
    "difference": (lambda a, b: a - b, lambda a, b: a - b),
    "multiple": (lambda a, b: 3.0 * a + b * np.float64(0.5), lambda a, b: 3.0 * a + 0.5 * b),
    "negative": (lambda a, b: -(a + b), lambda a, b: -(a + b)),
}


@pytest.mark.parametrize("name", COMBINED)
def test_algebra_keeps_values_divergence_and_structure(name):
    one, two = Jumps(0.3), Jumps(0.6)
    drifts, numbers = COMBINED[name]
    v = drifts(one, two)
    for t in (0.1, 0.5, 0.9):
        assert np.allclose(v(t, X), numbers(one(t, X), two(t, X)), rtol=1e-15)
        expected = numbers(one.divergence(t, X), two.divergence(t, X))
        assert np.allclose(v.divergence(t, X), expected, rtol=1e-15)
    assert v.switches.tolist() == [0.3, 0.6]
    assert v.piece(0.1) == v.piece(0.2) != v.piece(0.5) != v.piece(0.9)
    assert not v.steady and v.everywhere


def test_sum_with_a_bare_callable_is_not_constant_and_knows_no_divergence():
    v = Jumps(0.3) + (lambda t, x: t * x)
    assert v.piece(0.1) is None and v.divergence is None
    assert v.switches.tolist() == [0.3]
    assert np.allclose(v(0.1, X), 1.1 * X)


def test_sum_of_steady_drifts_is_steady():
    v = 2.0 * Steady(lambda x: x) - zero()
    assert v.steady and v.piece(0.0) == v.piece(1.0) is not None


def test_map_keeps_switches_and_is_constant_where_both_are():
    def clip(t, x, v):
        return np.clip(v, -1.0, 1.0)

    v, w = Mapped(Jumps(0.3), clip, steady=True), Mapped(Jumps(0.3), clip)
    assert v.piece(0.0) == 0 and w.piece(0.0) is None
    assert v.switches.tolist() == w.switches.tolist() == [0.3]
    assert np.allclose(v(0.5, X), np.clip(-2.0 * X, -1.0, 1.0))


def test_reversal_turns_time_around():
    v = Jumps(0.3).reversed_in_time(1.0)
    assert v.switches.tolist() == [0.7]
    assert np.allclose(v(0.8, X), X) and np.allclose(v(0.2, X), -2.0 * X)
    assert v.piece(0.8) == 0 and v.divergence(0.8, X).tolist() == [2.0] * 3


def test_facts_of_a_callable_class_are_taken_over():
    class Plain:
        switches = (0.25,)

        def piece(self, t):
            return int(t > 0.25)

        def __call__(self, t, x):
            return x

    v = as_drift(Plain())
    assert v.switches.tolist() == [0.25] and v.piece(1.0) == 1 and v.divergence is None
    assert as_drift(v) is v


@pytest.mark.parallel([1, 2])
def test_what_is_no_drift_is_refused_by_name():
    mesh = cube(WORLD, 2, 2)
    data = fem.Function(fem.functionspace(mesh, ("Lagrange", 1, (2,))), name="wind")
    words = raised(ValueError, lambda: as_drift(data))
    assert "'wind' is a dolfinx Function" in words and "fpc.drift.data(function)" in words
    assert fpc.FokkerPlanck(mesh, data, 1.0).drift.function.name == "wind"
    words = raised(ValueError, lambda: fpc.FokkerPlanck(mesh, 3.0, 1.0))
    assert "drift = 3.0 is not callable" in words
    assert "Steady" in raised(ValueError, lambda: fpc.FokkerPlanck(mesh, Steady, 1.0))


@pytest.mark.parallel([1, 2])
def test_sum_with_a_moser_drift_is_sampled_on_its_mesh():
    mesh = cube(WORLD, 2, 4)
    start = fpc.density.uniform(mesh, 1)
    goal = fpc.density.interpolate(mesh, lambda x: 1.0 + 0.5 * x[0], 1)
    flow = fpc.MoserFlow(start, goal, 1.0, 0.5)
    v = 2.0 * flow.drift + Steady(lambda x: x)
    expected = 2.0 * flow.drift.at_points(0.5, flow.elements) + flow.elements.points
    assert np.allclose(v.at_points(0.5, flow.elements), expected, rtol=1e-14)
    assert not v.everywhere


STRUCTURED = {
    "walled": lambda v, mesh: fpc.walls.walled(v, mesh),
    "sum": lambda v, mesh: v + zero(),
    "multiple": lambda v, mesh: 1.0 * v,
    "reversed": lambda v, mesh: -v.reversed_in_time(1.0),
}


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("name", STRUCTURED)
def test_steps_that_straddle_a_switch_are_refused_in_any_wrapper(name):
    mesh = cube(WORLD, 2, 3)
    start = fpc.density.uniform(mesh, 1)
    drift = STRUCTURED[name](fpc.NetworkDrift(mesh, 2, pieces=8, seed=1), mesh)
    equation = fpc.FokkerPlanck(mesh, drift, 0.5, degree=1)
    words = raised(ValueError, lambda: equation.solve(start, 1.0, 9))
    assert "steps = 9" in words and "multiple of 8" in words
    assert equation.solve(start, 1.0, 8).mass_defect < 1e-12


def test_walled_network_is_of_second_order_at_aligned_steps():
    mesh = cube(WORLD, 1, 20)
    start = fpc.density.interpolate(mesh, lambda x: 1.0 + 0.3 * np.cos(np.pi * x[0]), 1)
    drift = fpc.walls.walled(fpc.NetworkDrift(mesh, 1, pieces=4, seed=2), mesh)
    equation = fpc.FokkerPlanck(mesh, drift, 0.5, degree=1)
    ends = [equation.solve(start, 1.0, n)[-1] for n in (16, 32, 512)]
    errors = [fpc.distances.l2(end, ends[-1]) for end in ends[:2]]
    assert 3.5 < errors[0] / errors[1] < 4.5


def test_straddled_switches_name_the_first_one():
    with pytest.raises(ValueError, match=r"switches at t = 0\.3, inside a step; .*multiple of 10"):
        check_switches(Jumps(0.3), 0.0, 1.0, 4)
