"""The check of the theorems by particles: its closed form, its verdicts, and that it can fail."""

import numpy as np
import pytest
from problems import SELF, WORLD

from fpcontrol import density, particles
from fpcontrol.mesh import rectangle
from fpcontrol.theorems.closed_forms.profiles import GOALS, StraightLine
from fpcontrol.theorems.closed_forms.ripples import Ripple
from fpcontrol.theorems.experiments.by_particles import (
    RIGHT,
    WRONG,
    ComovingSquare,
    Solutions,
    Walk,
    check,
    p_value,
    ripple_by_particles,
    square,
)
from fpcontrol.theorems.framework import Grid, Study

RIPPLE = Ripple(2.0, 2.0 * np.pi)
GRID = Grid(12, 10, 3)


def test_squares_are_counted_row_by_row():
    x = (np.arange(6) + 0.5) / 6
    points = np.column_stack([np.repeat(x, 6), np.tile(x, 6)])
    np.testing.assert_array_equal(square(points), np.arange(36))
    assert square(np.ones((1, 2))) == [35]


def test_coupled_ripple_has_its_closed_form_along_characteristics():
    # d log rho/dt = -div v, by Runge-Kutta from many starts and central differences.
    drift = ComovingSquare(StraightLine.to(GOALS["smooth"]), 2.0, 2.0 * np.pi, 0.0)
    x, log, n, h = np.random.default_rng(0).random((9, 2)), np.zeros(9), 400, 1e-5

    def rates(t, x):
        ends = [
            (drift(t, x + h * e)[:, i] - drift(t, x - h * e)[:, i]) / (2 * h)
            for i, e in enumerate(np.eye(2))
        ]
        return np.column_stack([drift(t, x), -sum(ends)])

    for i in range(n):
        a = rates(i / n, x)
        b = rates((i + 0.5) / n, x + a[:, :2] / (2 * n))
        c = rates((i + 0.5) / n, x + b[:, :2] / (2 * n))
        d = rates((i + 1.0) / n, x + c[:, :2] / n)
        step = (a + 2 * b + 2 * c + d) / (6 * n)
        x, log = x + step[:, :2], log + step[:, 2]
    np.testing.assert_allclose(np.log(drift.density(x)), log, atol=1e-6)


def test_noise_adds_what_keeps_the_line():
    line = StraightLine.to(GOALS["smooth"])
    x = np.random.default_rng(1).random((5, 2))
    with_noise, without = (ComovingSquare(line, 2.0, 2.0 * np.pi, D)(0.4, x) for D in (0.1, 0.0))
    p, h = line.at(0.4), 1e-6
    slopes = (np.log(p.value(x + h)) - np.log(p.value(x - h))) / (2 * h)
    np.testing.assert_allclose(with_noise - without, 0.1 * slopes, atol=1e-8)


def test_particles_of_a_drift_off_by_a_twentieth_fail():
    rho = Solutions(SELF, RIPPLE, 0.3, 1.0, GRID)
    walk = Walk(SELF, 1.0, 100_000, seed=1)
    points = walk(lambda t, x: 1.05 * RIPPLE(t, x), 0.3, 60)
    assert float(p_value(points, rho, 24)) < RIGHT


def test_elements_of_a_drift_off_by_a_tenth_fail():
    study = Study("", "")
    wrong = Solutions(SELF, Ripple(2.2, 2.0 * np.pi), 0.3, 1.0, GRID)
    check(study, Walk(SELF, 1.0, 35_000, seed=1), RIPPLE, 0.3, 60, wrong, 24)
    assert [row.passed for row in study.rows[:2]] == [False, False]


@pytest.mark.parallel([1, 2])
def test_verdict_is_the_same_on_ranks():
    study = ripple_by_particles(WORLD, number=20_000, steps=40)
    alone = ripple_by_particles(SELF, number=20_000, steps=40)
    assert study.passed
    for row, other in zip(study.rows, alone.rows, strict=True):
        assert row.measured == pytest.approx(other.measured, rel=1e-6, abs=1e-30)


def test_bounds_say_what_is_beyond_doubt():
    # Uniform particles against the uniform density, and against one tilted.
    mesh = rectangle(SELF, (12, 12))
    points = particles.draw(density.uniform(mesh, degree=1), 50_000, seed=3)
    flat = density.uniform(mesh, degree=1)
    tilted = density.interpolate(mesh, lambda x: 1.0 + 0.2 * (x[0] - 0.5), degree=1)
    assert particles.compare(points, flat, square).p_value > RIGHT
    assert particles.compare(points, tilted, square).p_value < WRONG
