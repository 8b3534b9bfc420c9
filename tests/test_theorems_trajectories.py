"""Approximation of trajectories: closed forms, controls, the trap."""

import numpy as np
import pytest
from problems import SELF, WORLD, failures

from fpcontrol.characteristics.flow import Markers, carry
from fpcontrol.quadrature import composite
from fpcontrol.theorems.closed_forms.cosine import sup_wasserstein
from fpcontrol.theorems.closed_forms.profiles import GOALS, StraightLine
from fpcontrol.theorems.closed_forms.ripples import (
    Along,
    Comoving,
    against_limit,
    comoving_errors,
)
from fpcontrol.theorems.experiments.trajectory_controls import (
    benign_sequence,
    standing_ripple,
    upwind,
    upwind_trap,
)
from fpcontrol.theorems.framework.resolution import Grid
from fpcontrol.theorems.statements.trajectories import comoving_ripple, ripple_with_noise

# Computed once by an independent program, markers exact, a T = 2, relative L2 error at T.
EXACT_LABELS = {
    "jump": (1.76745, 1.63456, 1.66877, 1.66028),
    "kink": (1.33393, 1.67087, 1.66303, 1.66209),
    "smooth": (1.73550, 1.66762, 1.66207, 1.66199),
}


@pytest.mark.parametrize("name", EXACT_LABELS)
def test_closed_form_agrees_with_an_independent_program(name):
    found = [float(comoving_errors(GOALS[name], 2.0, 2 * np.pi * m)[0]) for m in (1, 4, 16, 64)]
    np.testing.assert_allclose(found, EXACT_LABELS[name], atol=1e-5)  # as many digits as kept


@pytest.mark.parametrize(
    ("name", "at", "m", "value"),
    # By an integral over markers of another program: peaks of width exp(-aT) are resolved.
    [
        ("kink", 2.0, 1, 1.333931),
        ("kink", 5.0, 1, 5.82835),
        ("smooth", 5.0, 16, 8.55684),
        ("smooth", 8.0, 16, 38.596),
    ],
)
def test_closed_form_resolves_thin_peaks(name, at, m, value):
    found = comoving_errors(GOALS[name], at, 2 * np.pi * m)[0]
    assert float(found) == pytest.approx(value, rel=1e-6 if m == 1 else 1e-5)
    assert float(found.error) <= 1e-9 * float(found)


@pytest.mark.parametrize("name", GOALS)
def test_closed_form_stays_as_near_its_limits_as_derived(name):
    goal = GOALS[name]
    spread = np.sqrt(goal.integral(lambda x: 1.0 / goal.value(x)))
    limits = np.array([np.sqrt(np.cosh(3.0) - 1.0), sup_wasserstein(0.0, 3.0) * spread])
    for m in (2, 5, 16, 64):
        k = 2 * np.pi * m
        allowed = [against_limit(goal, power, k) for power in (1.0, -2.0)]
        off = np.abs(comoving_errors(goal, 3.0, k).value / limits - 1.0)
        assert (off <= allowed).all()
    # The limits are right to far more than that.
    assert (off < [2e-3, 3e-3]).all()


def test_waves_that_do_not_end_at_the_walls_are_refused():
    with pytest.raises(ValueError, match="multiple of pi"):
        comoving_errors(GOALS["kink"], 2.0, 5.0)


@pytest.mark.parametrize("name", GOALS)
def test_profile_is_a_density_with_its_distribution_function(name):
    profile = GOALS[name]
    x = np.linspace(0.0, 1.0, 7)
    nodes, weights = composite(np.linspace(0.0, 1.0, 6001), 4)  # an edge at all of these
    np.testing.assert_allclose(profile.integral(profile.value), 1.0, rtol=1e-9)
    part = [weights @ (profile.value(nodes) * (nodes < e)) for e in x]
    np.testing.assert_allclose(profile.cdf(x), part, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("name", GOALS)
def test_comoving_ripple(name):
    study = comoving_ripple(WORLD, goal=name, frequencies=(16, 64))
    assert not failures(study)
    # Drifts converge, densities do not.
    assert study.rows[1].measured > 1.6


@pytest.mark.slow
@pytest.mark.parametrize("name", GOALS)
@pytest.mark.parametrize("a", [0.1, 5.0, 8.0])
def test_comoving_ripple_at_all_strengths(name, a):
    assert not failures(comoving_ripple(WORLD, goal=name, a=a, frequencies=(1, 4)))


@pytest.mark.parametrize(("name", "rtol"), [("kink", 1e-8), ("jump", 1e-5)])
def test_labels_of_the_ripple_are_those_of_the_flow_in_space(name, rtol):
    # The claim behind it all, for references whose drifts have kinks and jumps: F_T(X) is what
    # the ripple does to F_0(X). A step over a jump of the drift is of first order: fewer digits.
    profile, a, m = GOALS[name], 2.0, 2
    k = 2 * np.pi * m
    markers = Markers.on_interval(WORLD, 2, lambda x: np.ones(len(x)))
    line = StraightLine.to(profile)
    drift = Along(line) + Comoving(line, a, k)
    flow = carry(
        markers, drift, [0.0, 1.0], divergence=lambda t, x: np.zeros(len(x)), rtol=rtol, atol=rtol
    )
    y = markers.points[:, 0]
    half = 0.5 * k * y - np.pi * np.round(k * y / (2 * np.pi))
    turns = 2 * np.pi * np.round(k * y / (2 * np.pi))
    exact = (2 * np.arctan2(np.exp(a) * np.sin(half), np.cos(half)) + turns) / k
    np.testing.assert_allclose(profile.cdf(flow.positions[-1, :, 0]), exact, atol=100 * rtol)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kink", "smooth"])
def test_noise_restores_convergence(name):
    frequencies = (2, 4, 8) if name == "kink" else (4, 8, 16)
    assert not failures(ripple_with_noise(WORLD, goal=name, frequencies=frequencies))


@pytest.mark.slow
def test_kink_at_several_noises_agrees_with_finite_volumes():
    # Scharfetter-Gummel, 1600 cells, 400 steps; to 2 %, its own accuracy.
    study = ripple_with_noise(WORLD, goal="kink", frequencies=(1, 2, 4, 8))
    found = [row.measured for row in study.rows[:4]]
    np.testing.assert_allclose(found, [0.26596, 0.07089, 0.01890, 0.00492], rtol=0.02)


@pytest.mark.slow
def test_other_parameters():
    for name in GOALS:
        study = comoving_ripple(WORLD, goal=name, a=3.0, t1=0.7, frequencies=(1, 4, 16))
        assert not failures(study)
    noisy = ripple_with_noise(WORLD, a=3.0, t1=0.7, sigma=0.35, frequencies=(4, 8, 16))
    assert not failures(noisy)
    assert not failures(benign_sequence(WORLD, t1=0.7, indices=(8, 16), cells=50))
    assert not failures(benign_sequence(WORLD, indices=(2, 4), cells=50))
    for a, t1 in ((3.0, 0.7), (0.5, 0.5), (5.0, 1.0)):
        assert not failures(upwind_trap(WORLD, a=a, t1=t1, frequencies=(16, 64)))


@pytest.mark.slow
def test_controls():
    standing = standing_ripple(WORLD, frequencies=(4, 8))
    assert not failures(standing)
    found = [row.measured for row in standing.rows if row.quantity.startswith("standing: rel")]
    np.testing.assert_allclose(found, [1.0067, 0.7340], atol=1e-4)  # independent program
    assert not failures(benign_sequence(WORLD, indices=(8, 16), cells=50))


def test_trap():
    assert not failures(upwind_trap(WORLD))
    # The values of another upwind program: the trap is no accident of this one.
    for n, m, value in ((500, 1, 1.646), (500, 64, 1.085), (2000, 64, 1.450)):
        assert upwind(n, m, 2.0, 1.0, 1300) == pytest.approx(value, abs=1e-3)


@pytest.mark.parallel([1, 2])
def test_ranks_agree():
    for run in (
        lambda comm: comoving_ripple(comm, goal="jump", frequencies=(1, 2)),
        lambda comm: ripple_with_noise(comm, frequencies=(4, 8), grid=Grid(24, 8)),
    ):
        one, all_ = run(SELF), run(WORLD)
        np.testing.assert_allclose(
            [row.measured for row in all_.rows], [row.measured for row in one.rows], rtol=1e-7
        )


def test_what_cannot_be_shown_is_refused():
    with pytest.raises(ValueError, match="no drift in L2 tracks it"):
        ripple_with_noise(WORLD, goal="jump")
    with pytest.raises(ValueError, match="too low for a rate"):
        ripple_with_noise(WORLD, frequencies=(1, 2))
    with pytest.raises(ValueError, match="too low for a rate"):  # the time is short
        ripple_with_noise(WORLD, a=0.5, t1=0.1, frequencies=(1, 2, 4))
    with pytest.raises(ValueError, match="some m and 4 m"):
        upwind_trap(WORLD, frequencies=(1, 2))
