"""Functions of one name in two problems: their checkpoints are not taken for each other's."""

import numpy as np
import pytest
from problems import SELF, WORLD, cube, raised
from test_observed import posed

import fpcontrol as fpc
from fpcontrol.control.objectives import Observed

seen = fpc.observables


def weighed(power, goal=0.5):
    """Objectives of lambdas, which differ in what they hold."""
    return [
        Observed(seen.expectation(lambda x: x[0] ** power), target=lambda t: goal * t),
        Observed(seen.mass(lambda x: x[0] < 0.5), function=lambda q: (q[0] ** power, power * q)),
        fpc.objectives.KineticEnergy(1e-3),
    ]


class Waves(fpc.SmoothField):
    """Along the first axis, of a function that is handed in."""

    def __init__(self, f):
        self.f, self.size = f, 1

    def values(self, theta, x):
        return np.column_stack([theta[0] * self.f(x[:, 0]), np.zeros(len(x))])

    def jvp(self, theta, x, dtheta):
        return self.values(dtheta, x)

    def vjp(self, theta, x, s):
        return np.array([(self.values(np.ones(1), x) * s).sum()])

    def divergence(self, theta, x):
        raise NotImplementedError

    flow_jvp = flow_vjp = divergence


@pytest.mark.parallel([1, 2])
def test_objectives_of_other_functions_are_others(tmp_path):
    path = tmp_path / "run.npz" if WORLD.size == 1 else None
    one, same, power, goal = (
        posed(objectives=weighed(*args)) for args in ((2,), (2,), (3,), (2, 0.4))
    )
    assert one.objectives[0].describe() == power.objectives[0].describe()  # names say nothing
    assert np.allclose(
        one.fingerprint()["objective_values"], same.fingerprint()["objective_values"], rtol=1e-12
    )
    alone = posed(SELF, objectives=weighed(2)).fingerprint()["objective_values"]
    assert np.allclose(one.fingerprint()["objective_values"], alone, rtol=1e-10)
    if path is None:
        return
    fpc.minimize(one, max_iterations=1, checkpoint=path, progress=False)
    fpc.minimize(same, max_iterations=1, resume=path, progress=False)
    for other in (power, goal):
        message = raised(
            ValueError,
            lambda p=other: fpc.minimize(p, max_iterations=1, resume=path, progress=False),
        )
        assert "of another problem: objective_values" in message


def test_fields_of_other_functions_are_others():
    mesh = cube(SELF, 2, 4)
    line = fpc.MoserFlow(*[fpc.density.uniform(mesh, degree=1)] * 2, 1.0, 0.5)

    def values(f):
        drift = fpc.ParametricDrift(mesh, Waves(f), fpc.PiecewiseConstant(2, 1.0))
        return fpc.TrackingProblem(line, drift, 0.5, 2).fingerprint().get("field_values")

    def wave(k):
        return lambda x: np.sin(k * np.pi * x)

    assert values(wave(1.0)) == pytest.approx(values(wave(1.0)), rel=1e-13)
    assert values(wave(1.0)) != pytest.approx(values(wave(2.0)), rel=1e-4)
    assert values(lambda x: np.nan * x) is None


def test_what_cannot_be_evaluated_is_left_out():
    p = posed(SELF, objectives=[fpc.objectives.FinalKL(0.1)])
    values = p.fingerprint()["objective_values"]
    assert values[0][:2] == [1.0, 1.0] and 1.0 < values[0][2] < 1.1
    assert "objective_values" not in posed(SELF).fingerprint()
    assert "field_values" not in posed(SELF).fingerprint()
