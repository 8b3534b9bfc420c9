"""Orders and mass of the equation: the checks pass at other parameters, on ranks too."""

import pytest
from problems import SELF, WORLD, failures

from fpcontrol.theorems.statements import equation


@pytest.mark.slow
def test_other_parameters():
    assert not failures(equation.mass(SELF, sigma=0.35, t1=0.7, rtol=1e-2))
    assert not failures(equation.orders_in_space(SELF, sigma=0.35, t1=0.7))
    assert not failures(equation.orders_in_time(SELF, sigma=0.5, t1=0.7))
    assert not failures(equation.known_distances(SELF, a=0.9))
    assert not failures(equation.characteristics(SELF, a=-0.4, b=0.5, middle=0.6, t1=0.7))


@pytest.mark.parallel(2)
def test_figures_do_not_depend_on_the_ranks():
    one, two = (equation.orders_in_space(comm, cells=(3, 6, 12)) for comm in (SELF, WORLD))
    for a, b in zip(one.rows, two.rows, strict=True):
        assert b.measured == pytest.approx(a.measured, rel=1e-7)
    assert not failures(equation.mass(WORLD, cells=4, steps=5))


def test_good_solver_is_no_evidence_for_the_mass():
    assert len(failures(equation.mass(SELF, rtol=1e-10))) == 4
