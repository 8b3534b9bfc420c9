"""Sliced Wasserstein distances, of samples and of densities."""

import numpy as np
import pytest
from problems import WORLD, bump, cube, raised
from scipy.stats import wasserstein_distance

import fpcontrol as fpc
from fpcontrol import distances


def gaussian(mesh, centre, width):
    """A bump that is zero, to round-off, at the walls of the unit square."""
    x0 = np.reshape(centre, (-1, 1))
    return fpc.density.interpolate(
        mesh, lambda x: np.exp(-((x[:2] - x0) ** 2).sum(axis=0) / (2.0 * width**2)), 1
    )


def test_sliced_wasserstein_of_a_shift_and_of_one_dimension():
    rng = np.random.default_rng(1)
    x, c = rng.normal(size=(300, 3)), np.array([1.0, -2.0, 2.0])
    value = distances.sliced_wasserstein(x, x + c, projections=1000)
    assert value == pytest.approx(3.0 / np.sqrt(3.0), rel=0.06)
    assert value == distances.sliced_wasserstein(x, x + c, projections=1000)
    assert value != distances.sliced_wasserstein(x, x + c, projections=1000, seed=1)
    u, v, masses = rng.random((70, 1)), rng.random((45, 1)) ** 2, rng.random(45)
    assert distances.sliced_wasserstein(u, v, 1, y_masses=masses) == pytest.approx(
        wasserstein_distance(u[:, 0], v[:, 0], None, masses), rel=1e-12
    )
    # Three points to two: masses (1, 1, 1)/3 to (2, 1)/3, sorted.
    value = distances.sliced_wasserstein(
        np.array([[2.0], [0.0], [1.0]]), np.array([[5.0], [1.0]]), y_masses=[1, 2]
    )
    assert value == pytest.approx(np.sqrt((1.0 + 0.0 + 9.0) / 3.0), rel=1e-12)


def test_sliced_wasserstein_refuses_bad_samples():
    x = np.zeros((4, 2))
    for arguments, options in [
        ((x, np.zeros((4, 3))), {}),
        ((x, np.zeros(4)), {}),
        ((x, np.full((2, 2), np.nan)), {}),
        ((x, x, 0.5), {}),
        ((x, x), {"projections": 0}),
        ((x, x), {"x_masses": np.ones(3)}),
        ((x, x), {"y_masses": np.array([1.0, 1.0, 1.0, -1.0])}),
    ]:
        with pytest.raises(ValueError):
            distances.sliced_wasserstein(*arguments, **options)


@pytest.mark.parallel([1, 2, 3])
def test_sliced_wasserstein_of_densities():
    mesh = cube(WORLD, 2, 24)
    a, b = gaussian(mesh, (0.375, 0.5), 0.05), gaussian(mesh, (0.625, 0.5), 0.05)
    # A shift of c along one axis: |c| (mean of |cos|^p)^(1/p), here over the same directions.
    value = distances.sliced_wasserstein(a, b, projections=50)
    angles = np.random.default_rng(0).standard_normal((50, 2))
    cosine = angles[:, 0] / np.linalg.norm(angles, axis=1)
    assert value == pytest.approx(0.25 * np.sqrt(np.mean(cosine**2)), rel=1e-6)
    assert distances.sliced_wasserstein(a, a) == 0.0
    coarse = gaussian(cube(WORLD, 2, 16), (0.625, 0.5), 0.05)
    assert distances.sliced_wasserstein(a, coarse, projections=50) == pytest.approx(value, rel=1e-2)
    line = [bump(cube(WORLD, 1, 9), 2, 0.3), bump(cube(WORLD, 1, 7), 1, 0.6)]
    assert distances.sliced_wasserstein(*line) == distances.wasserstein(*line)


@pytest.mark.parallel([1, 2, 3])
def test_sliced_wasserstein_refuses_what_is_neither_sample_nor_density():
    mesh = cube(WORLD, 2, 3)
    a, x = fpc.density.uniform(mesh), np.zeros((4, 2))
    for pair, message in [
        ((a, x), "x is a Density"),
        ((x, a), "y is a Density"),
        ((2.0 * a, 2.0 * a), "x is a "),
        ((x, [a, a]), "y is a list"),
        ((x, object()), "y is a object"),
        ((a, fpc.density.uniform(cube(WORLD, 3, 1))), "different dimensions"),
    ]:
        text = raised(ValueError, lambda pair=pair: distances.sliced_wasserstein(*pair))
        assert message in text
    for masses in (a, 2.0 * a):
        text = raised(ValueError, lambda m=masses: distances.sliced_wasserstein(x, x, x_masses=m))
        assert "x_masses is a " in text
    text = raised(ValueError, lambda: distances.sliced_wasserstein(a, a, x_masses=np.ones(3)))
    assert "x_masses" in text
    double = fpc.density.uniform(mesh)
    double.x.array[:] *= 2.0
    assert "masses 1 and 2" in raised(ValueError, lambda: distances.sliced_wasserstein(a, double))
