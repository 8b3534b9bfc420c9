"""The benchmark of the collapse law against masses in closed form, and its runs."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import ndtr

from fpcontrol.noising import GaussianMixture, OrnsteinUhlenbeck

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PROCESS = OrnsteinUhlenbeck(t1=6.0)
LINE = GaussianMixture([-1.2, 1.0], [0.08, 0.15], [0.6, 0.4])

pytestmark = pytest.mark.parallel(1)


@pytest.fixture
def law(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import score_law

    return score_law


def test_masses_of_bins_of_the_exact_score_are_those_of_the_data(law):
    data = PROCESS.of(LINE)
    edges = np.linspace(-4.5, 4.5, 241)
    exact = law.data_masses(LINE, edges)
    middle = 0.5 * (edges[1:] + edges[:-1])
    points = middle[:, None] + 0.0375 / 2.0 * np.array([-1.0, 1.0]) / np.sqrt(3.0)  # Gauss's rule
    density = data.density(0.0)(points.reshape(-1, 1)).reshape(points.shape)
    assert exact == pytest.approx(density.mean(axis=1) * 0.0375, abs=1e-8)
    # What is left is that samplers start from noise alone.
    assert law.ode_masses(PROCESS, data.score, edges, 60) == pytest.approx(exact, abs=5e-5)
    for noise in (1.0, 0.4):
        found = law.sde_masses(PROCESS, data.score, noise, edges, 120, 40)
        assert found.sum() == pytest.approx(1.0, abs=1e-12)
        assert found == pytest.approx(exact, abs=2e-4 * exact.max() / 0.0375)


def test_mass_of_an_atom_is_in_closed_form_and_its_l2_grows_as_the_law_says(law):
    """The score -2x - 2c sign(x - a): the ODE moves all to a, at the speed c."""
    c, a, n = 0.05, 0.013, 480

    def kinked(t, x):
        return -2.0 * x - 2.0 * c * np.sign(x - a)

    edges = np.linspace(-4.5, 4.5, n + 1)
    masses = law.ode_masses(PROCESS, kinked, edges, 100)
    shift = c * PROCESS.t1 * np.sign(edges - a)
    assert masses == pytest.approx(np.diff(ndtr((edges + shift) * np.sqrt(2.0))), abs=1e-8)
    atom = ndtr((a + 0.3) * np.sqrt(2.0)) - ndtr((a - 0.3) * np.sqrt(2.0))
    assert masses.max() == pytest.approx(atom, abs=0.02)
    exact = law.data_masses(GaussianMixture([0.0], [0.5]), edges)
    bins = [n // 8, n // 4, n // 2, n]
    ratios = np.array(law.distances(masses, exact, bins))
    assert ratios[1:] / ratios[:-1] == pytest.approx(np.sqrt(2.0), rel=0.05)
    case = {"activation": "none", "sharpness": 1.0, "w_R": 0.0, "noise": 0.0, "seed": 0}
    rows = [
        case | {"bins": m, "width": 9.0 / m, "L2": L2, "L2 error": 1e-6}
        for m, L2 in zip(bins, ratios, strict=True)
    ]
    (row,) = law.growth(rows)
    assert row["exponent"] == pytest.approx(0.5, abs=0.05)
    assert row["least growth"] == pytest.approx(np.sqrt(2.0), rel=0.05)


def test_shares_of_the_noise_are_added_to_a_network_that_is_there(law, tmp_path, monkeypatch):
    for name in ("jax", "optax"):
        pytest.importorskip(name)
    import bench_score

    job = bench_score.Settings(
        "line", 0.0, 0, "swish", 1.0, (8,), 20, 64, 40, 10, (1.0,), tolerance=1e-3
    )
    (first,) = bench_score.measured(job, tmp_path)
    monkeypatch.setattr(bench_score, "trained", None)
    more = bench_score.measured(dataclasses.replace(job, noises=(0.5, 1.0)), tmp_path)
    assert [row["noise"] for row in more] == [0.5, 1.0]
    assert more[1] == first
    again = bench_score.measured(job, tmp_path)  # nothing is lost, and nothing computed
    assert again == [first]
    kept = json.loads((tmp_path / f"{job.name}.json").read_text())
    assert [row["noise"] for row in kept["rows"]] == [1.0, 0.5]
    half, one = (dict(row) for row in more)
    one["kl"] = float("nan")  # as of a density below zero
    found = bench_score.positive(job, [half, one], tmp_path)
    assert found[0] == half and found[1]["kl by"] == "Limited"
    assert found[1]["kl"] == pytest.approx(first["kl"], abs=2.0 * found[1]["kl error"])
    assert bench_score.measured(job, tmp_path)[0]["kl"] == found[1]["kl"]
    with pytest.raises(TypeError):  # another network has to be trained
        bench_score.measured(dataclasses.replace(job, iterations=21), tmp_path)


@pytest.mark.slow
def test_quick_law(tmp_path):
    for name in ("jax", "optax"):
        pytest.importorskip(name)
    script = BENCHMARKS / "bench_score.py"
    command = [sys.executable, script, "--quick", "--only", "law", "--out", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "score-law.png").stat().st_size > 10_000
    found = json.loads((tmp_path / "score-law.json").read_text())["tables"]
    assert {row["bins"] for row in found["law"]} == {30, 60, 120, 240, 480}
    for row in found["law"]:
        assert row["outside"] < 1e-4
    for row in found["growth"]:
        if row["noise"] > 0.0:
            assert abs(row["exponent"]) < 0.05
