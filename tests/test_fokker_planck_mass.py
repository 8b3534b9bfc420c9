"""The mass of a density, and the line between two densities, to round-off."""

from typing import Any

from mpi4py import MPI

import numpy as np
import pytest
from problems import THREE, WORLD, bump, cube, schemes, spaces_and_schemes, stirring

import fpcontrol as fpc


def check_mass(dim: int, degree: int, n: int, scheme: Any) -> None:
    mesh = cube(WORLD, dim, n)
    equation = fpc.FokkerPlanck(mesh, stirring, 0.6, degree=degree, linear_solver="gmres")
    trajectory = equation.solve(bump(mesh, degree, 0.3), 1.0, 20, scheme=scheme)
    assert trajectory.mass_defect <= 1e-13
    assert trajectory.mass == pytest.approx(1.0, abs=1e-13)


@pytest.mark.parallel([1, 2])
@spaces_and_schemes()
def test_mass_is_constant(dim, degree, n, scheme):
    check_mass(dim, degree, n, scheme)


# Three ranks take turns on two cores: every dimension and degree, once.
@pytest.mark.parallel(3)
@pytest.mark.parametrize(("dim", "degree", "n"), THREE)
def test_mass_is_constant_on_three_ranks(dim, degree, n):
    check_mass(dim, degree, n, fpc.CrankNicolson())


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(("dim", "degree", "n"), [(1, 3, 6), (2, 2, 4), (3, 1, 2)])
def test_mass_is_constant_with_direct_solver(dim, degree, n):
    mesh = cube(WORLD, dim, n)
    equation = fpc.FokkerPlanck(mesh, stirring, 0.6, degree=degree, linear_solver="direct")
    assert equation.solve(bump(mesh, degree, 0.3), 1.0, 20).mass_defect <= 1e-13


@pytest.mark.parallel([1, 2])
def test_mass_does_not_depend_on_the_tolerance_of_the_solver():
    mesh = cube(WORLD, 2, 8)
    equation = fpc.FokkerPlanck(
        mesh, stirring, 0.6, linear_solver="gmres", petsc_options={"ksp_rtol": 1e-4}
    )
    # Without the correction along the constant, 1e-6 of the mass is lost.
    assert equation.solve(bump(mesh, 2, 0.3), 1.0, 40).mass_defect <= 1e-13


def moser_defect(dim: int, degree: int, n: int, scheme: Any, solver: str, **shape: float) -> float:
    mesh = cube(WORLD, dim, n, **shape)
    length, t1 = shape.get("size", 1.0), 2.5
    sigma = 0.4 * length
    flow = fpc.MoserFlow(bump(mesh, degree, 0.3), bump(mesh, degree, 0.7, 0.2), t1, sigma)
    equation = fpc.FokkerPlanck(mesh, flow.drift, sigma, degree=degree, linear_solver=solver)
    trajectory = equation.solve(flow.start, t1, 8, scheme=scheme)
    line = np.array([flow.coefficients(t) for t in trajectory.times])
    difference = np.abs(trajectory.levels - line).max()
    defect = WORLD.allreduce(difference, op=MPI.MAX) / WORLD.allreduce(line.max(), op=MPI.MAX)
    print(f"{dim}-D P{degree} {scheme} {solver}: {defect:.1e}")
    return defect


@pytest.mark.parallel([1, 2])
@spaces_and_schemes()
def test_moser_drift_gives_the_discrete_line(dim, degree, n, scheme):
    # To the accuracy of the solver, not of these coarse meshes (1e-2).
    assert moser_defect(dim, degree, n, scheme, "gmres") <= 1e-10


@pytest.mark.parallel(3)
@pytest.mark.parametrize(("dim", "degree", "n"), THREE)
def test_moser_drift_gives_the_discrete_line_on_three_ranks(dim, degree, n):
    assert moser_defect(dim, degree, n, fpc.CrankNicolson(), "gmres") <= 1e-10


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(("dim", "degree", "n"), [(1, 2, 9), (2, 3, 3), (3, 1, 3)])
def test_moser_drift_gives_the_discrete_line_with_direct_solver(dim, degree, n):
    assert moser_defect(dim, degree, n, fpc.CrankNicolson(), "direct") <= 1e-12


@pytest.mark.parallel([1, 2])
@schemes()
def test_moser_drift_gives_the_discrete_line_in_kilometres(scheme):
    assert moser_defect(2, 2, 5, scheme, "gmres", size=500.0, lower=-200.0) <= 1e-10
