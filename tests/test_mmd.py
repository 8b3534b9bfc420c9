"""Maximum mean discrepancy of samples: by hand, in closed form, its error, and its test."""

import numpy as np
import pytest
from problems import raised

from fpcontrol.distances import discrepancy, mmd


def gaussians(n, m, seed, shift=0.7, scale=1.5, d=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)), shift + scale * rng.normal(size=(m, d))


def exact(shift=0.7, scale=1.5, d=3, h=1.2):
    """Between N(0, 1) and N(shift, scale^2) in every direction."""

    def mean(variance, apart=0.0):
        s = h**2 + variance
        return (h**2 / s) ** (d / 2) * np.exp(-0.5 * d * apart**2 / s)

    return mean(2.0) + mean(2.0 * scale**2) - 2.0 * mean(1.0 + scale**2, shift)


@pytest.mark.parametrize("kernel", ["gaussian", "energy"])
def test_estimate_is_the_mean_over_pairs(kernel, monkeypatch):
    x, y = gaussians(7, 5, 0)
    h = 1.2 if kernel == "gaussian" else None

    def k(a, b):
        r = np.linalg.norm(a - b)
        return np.exp(-(r**2) / (2 * h**2)) if h else -r

    def within(z):
        pairs = [k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]
        return np.mean(pairs)

    by_hand = within(x) + within(y) - 2.0 * np.mean([k(a, b) for a in x for b in y])
    found = mmd(x, y, kernel, bandwidth=h, permutations=20)
    assert found.squared == pytest.approx(by_hand, rel=1e-12)
    monkeypatch.setattr(discrepancy, "BLOCK", 30)  # two rows at a time
    again = mmd(x, y, kernel, bandwidth=h, permutations=20)
    assert again.squared == pytest.approx(found.squared, rel=1e-12)
    assert again.standard_error == pytest.approx(found.standard_error, rel=1e-12)
    assert again.p_value == found.p_value


def test_gaussians_have_the_closed_form_without_bias_and_with_the_error_stated():
    found = [mmd(*gaussians(150, 100, seed), bandwidth=1.2) for seed in range(200)]
    values = np.array([f.squared for f in found])
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean() - exact()) < 3.5 * error
    stated = np.mean([f.standard_error for f in found])
    assert stated == pytest.approx(values.std(), rel=0.2)


def test_energy_distance_of_uniform_laws_in_closed_form():
    # 2 E|X - Y| - E|X - X'| - E|Y - Y'| in 1-D is twice the integral of (F - G)^2: 1/3 for
    # uniform laws on [0, 1] and [0, 2], of which F - G is x/2, then 1 - x/2.
    rng = np.random.default_rng(5)
    found = mmd(rng.random((4000, 1)), 2.0 * rng.random((4000, 1)), "energy")
    assert abs(found.squared - 1.0 / 3.0) < 3.5 * found.standard_error
    assert found.standard_error < 0.02 and np.isnan(found.p_value) and np.isnan(found.bandwidth)


def test_permutations_tell_laws_apart_and_are_uniform_where_they_are_one():
    x, y = gaussians(60, 80, 1)
    assert mmd(x, y, permutations=199).p_value == 1.0 / 200.0
    assert mmd(x, y, permutations=99, seed=1) == mmd(x, y, permutations=99, seed=1)
    same = [mmd(*gaussians(30, 40, seed, 0.0, 1.0), permutations=99).p_value for seed in range(200)]
    assert 0.4 < np.mean(same) < 0.6
    assert 0.0 < np.mean(np.array(same) <= 0.1) < 0.2


def test_bandwidth_is_the_median_distance():
    x = np.array([[0.0], [1.0]])
    y = np.array([[3.0], [7.0]])
    assert mmd(x, y).bandwidth == pytest.approx(np.median([1, 3, 7, 2, 6, 4]))


def test_bad_samples_are_refused():
    x = np.random.default_rng(0).random((4, 2))
    for arguments, options, text in [
        ((x, x[:, :1]), {}, "shapes"),
        ((x, x[:1]), {}, "N, M > 1"),
        ((x, np.full((2, 2), np.nan)), {}, "finite"),
        ((x, x, "cubic"), {}, "kernel = 'cubic'"),
        ((x, x), {"bandwidth": 0.0}, "bandwidth = 0.0"),
        ((x, x, "energy"), {"bandwidth": 1.0}, "bandwidth = 1.0"),
        ((np.zeros((3, 1)), np.zeros((3, 1))), {}, "bandwidth = 0.0"),
        ((x, x), {"permutations": -1}, "permutations = -1"),
        ((x, x), {"permutations": 2.5}, "permutations = 2.5"),
    ]:
        assert text in raised(ValueError, lambda a=arguments, o=options: mmd(*a, **o))
