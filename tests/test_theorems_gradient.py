"""The derivative that the control rests on: its checks pass, at other parameters, and can fail."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from problems import SELF, WORLD, failures

from fpcontrol import CrankNicolson
from fpcontrol.control.network import Network
from fpcontrol.linalg.linear_solvers import LinearSolver
from fpcontrol.noise import Noise
from fpcontrol.theorems.statements import gradient
from fpcontrol.walls import WallFactor


@pytest.mark.parametrize("experiment", gradient.experiments(True), ids=lambda e: e.key)
def test_quick_experiments_pass(experiment):
    study = experiment.run(SELF)
    assert sum(row.is_check for row in study.rows) >= 4
    assert not failures(study)


def test_other_parameters():
    assert not failures(gradient.closed_form(SELF, a=0.8, t1=0.7, sigma=0.35, pieces=2))
    assert not failures(gradient.closed_form(SELF, a=-0.3, t1=1.5, sigma=0.0, pieces=1))


@pytest.mark.parallel([1, 2])
def test_identities_hold_on_ranks():
    schemes = [CrankNicolson()]
    assert not failures(gradient.identities(WORLD, t1=0.7, sigma=0.35, schemes=schemes))
    assert not failures(gradient.identities_without_noise(WORLD, t1=0.7))


@pytest.mark.parallel(2)
@pytest.mark.parametrize("sigma", [0.5, 0.0])
def test_figures_do_not_depend_on_the_ranks(sigma):
    one, two = (
        gradient.closed_form(comm, sigma=sigma, grid=gradient.Grid(8, 8)) for comm in (SELF, WORLD)
    )
    assert len(one.rows) == len(two.rows) > 4
    for a, b in zip(one.rows, two.rows, strict=True):
        assert a.quantity == b.quantity
        assert b.measured == pytest.approx(a.measured, rel=1e-9, abs=1e-15)


def without_transposition(monkeypatch):
    monkeypatch.setattr(LinearSolver, "solve_transpose", LinearSolver.solve)


def without_curvature(monkeypatch):
    jet = WallFactor.jet

    def flat(self: WallFactor, x: Any) -> Any:
        g, slope, turn = jet(self, x)
        return g, slope, 0.0 * turn

    monkeypatch.setattr(WallFactor, "jet", flat)


def without_shifts(monkeypatch):
    vjp = Network.vjp
    keep = np.array([1.0] * 4 + [0.0] * 2)
    monkeypatch.setattr(Network, "vjp", lambda self, *a: vjp(self, *a) * keep)


@pytest.mark.parametrize(
    ("defect", "run"),
    [
        (without_transposition, gradient.identities),
        (without_shifts, gradient.identities),
        (without_curvature, gradient.identities_without_noise),
    ],
)
def test_defects_of_the_adjoint_are_found(defect, run, monkeypatch):
    options = {"schemes": [CrankNicolson()]} if run is gradient.identities else {}
    defect(monkeypatch)
    found = failures(run(SELF, **options))
    # The tangent uses the curvature of the wall factor as well: both are wrong alike.
    assert any("tangent" in quantity for quantity in found) == (defect is not without_curvature)
    assert any("central difference" in quantity for quantity in found)
    assert any("remainder" in quantity for quantity in found)


def test_wrong_noise_is_found(monkeypatch):
    monkeypatch.setattr(Noise, "diffusivity", lambda self, t: self(t) ** 2)
    assert len(failures(gradient.closed_form(SELF))) == 8


def test_missing_wall_factor_is_found(monkeypatch):
    jet = WallFactor.jet
    monkeypatch.setattr(WallFactor, "jet", lambda self, x: (np.ones(len(x)), *jet(self, x)[1:]))
    assert len(failures(gradient.closed_form(SELF, sigma=0.0))) == 8


def test_coarse_grid_is_no_evidence():
    study = gradient.closed_form(SELF, pieces=1, grid=replace(gradient.Grid(1, 1), degree=1))
    assert failures(study)
