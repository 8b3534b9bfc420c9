"""The derivative that the control rests on: its checks pass at other parameters, on ranks too."""

from dataclasses import replace

import pytest
from problems import SELF, WORLD, failures

from fpcontrol import CrankNicolson
from fpcontrol.theorems.framework.resolution import Grid
from fpcontrol.theorems.statements import gradient


@pytest.mark.slow
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
    one, two = (gradient.closed_form(comm, sigma=sigma, grid=Grid(8, 8)) for comm in (SELF, WORLD))
    assert len(one.rows) == len(two.rows) > 4
    for a, b in zip(one.rows, two.rows, strict=True):
        assert a.quantity == b.quantity
        assert b.measured == pytest.approx(a.measured, rel=1e-9, abs=1e-15)


def test_coarse_grid_is_no_evidence():
    study = gradient.closed_form(SELF, pieces=1, grid=replace(Grid(1, 1), degree=1))
    assert failures(study)
