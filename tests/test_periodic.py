"""Periodic sides: the circle, the cylinder and the torus against closed forms."""

import warnings

from mpi4py import MPI

import dolfinx.mesh
import numpy as np
import pytest
from dolfinx import fem

import fpcontrol as fpc
from fpcontrol import Galerkin, Limited, Monotone
from fpcontrol.discretization.boundary import MARKED, Boundary
from fpcontrol.discretization.elements import Elements
from fpcontrol.discretization.locate import OwnCells, locate
from fpcontrol.discretization.modes import smooth_modes
from fpcontrol.discretization.periodic import flat_space, flattened
from fpcontrol.parallel.communicators import comm_of

COMM = MPI.COMM_WORLD
LOWER, PERIOD = -0.5, 2.0
K = 2.0 * np.pi / PERIOD
SPEED, SIGMA = 0.7, 0.5
D = SIGMA**2 / 2


def circle(n, comm=COMM):
    return fpc.mesh.interval(comm, n, LOWER, LOWER + PERIOD, periodic=True)


def wave(t, x, k=K):
    """An advected cosine that diffuses, of mass 1 on the circle."""
    return (1.0 + 0.8 * np.exp(-D * k**2 * t) * np.cos(k * (x - SPEED * t - 0.3))) / PERIOD


def carried(t, x):
    return np.full_like(x, SPEED)


def l2_error(rho, exact):
    """Of a Function, by quadrature of a high degree."""
    g = Elements(rho.function_space, 12)
    gap = g.evaluate(rho.x.array).ravel() - exact(g.points)
    return g.sum(float(g.quadrature_weights @ gap**2)) ** 0.5


def moved(n, discretization, steps, scheme=None):
    mesh = circle(n)
    start = fpc.density.interpolate(mesh, lambda x: wave(0.0, x[0]), discretization=discretization)
    equation = fpc.FokkerPlanck(mesh, carried, SIGMA, discretization=discretization)
    run = equation.solve(start, 0.6, steps, scheme=scheme or fpc.CrankNicolson(), save="last")
    assert run.mass_defect < 1e-12
    return l2_error(run[-1], lambda x: wave(0.6, x[:, 0]))


@pytest.mark.parametrize(
    "discretization, cells, order, largest, steps, scheme",
    [
        (Galerkin(1), 12, 2, 1e-2, 60, fpc.SDIRK4()),
        (Galerkin(2), 8, 3, 2e-3, 60, fpc.SDIRK4()),
        (Galerkin(3), 6, 4, 5e-4, 60, fpc.SDIRK4()),
        (Limited(), 12, 2, 1e-2, 200, None),
        (Monotone(), 20, 1.85, 2e-2, 1200, fpc.BackwardEuler()),
    ],
    ids=str,
)
def test_orders_on_the_circle(discretization, cells, order, largest, steps, scheme):
    errors = [moved(n, discretization, steps, scheme) for n in (cells, 2 * cells)]
    assert errors[1] < largest
    assert np.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.25)


@pytest.mark.parallel([2, 3])
@pytest.mark.parametrize("discretization", [Galerkin(2), Monotone(), Limited()], ids=str)
def test_ranks_agree_on_a_torus(discretization):
    seen = {
        "round": fpc.observables.expectation(lambda x: np.sin(2 * np.pi * x[0])),
        "rho": fpc.observables.entropy(),
    }
    figures = []
    for comm in (COMM, MPI.COMM_SELF):
        mesh = fpc.mesh.rectangle(comm, (6, 5), periodic=True)
        start = fpc.density.interpolate(
            mesh,
            lambda x: 1.5 + np.cos(2 * np.pi * (x[0] - 0.1)) * np.sin(2 * np.pi * x[1]),
            discretization=discretization,
        )
        swirl = fpc.drift.Steady(lambda x: np.cos(2 * np.pi * x[:, ::-1]) + np.array([1.0, 0.3]))
        equation = fpc.FokkerPlanck(mesh, swirl, 0.3, discretization=discretization)
        run = equation.solve(start, 0.5, 10, observables=seen)
        figures.append(np.column_stack([run.observables[name] for name in seen]))
    assert figures[0] == pytest.approx(figures[1], rel=1e-9)
    assert np.ptp(figures[0][:, 0]) > 0.003 and np.ptp(figures[0][:, 1]) > 0.01


@pytest.mark.parallel([1, 3])
def test_identified_nodes_are_one():
    expected = {  # of the sides in x, then of those in x and z: nodes of degree 1 and 2, facets
        "x": (5 * 5, 10 * 9, 10),
        "xy": (5 * 4, 10 * 8, 0),
    }
    for sides, (one, two, facets) in expected.items():
        mesh = fpc.mesh.rectangle(COMM, (5, 4), (-1.0, 0.0), (1.0, 3.0), periodic=sides)
        found = [fem.functionspace(mesh, ("P", k)).dofmap.index_map.size_global for k in (1, 2)]
        mesh.topology.create_connectivity(1, 2)
        outer = len(dolfinx.mesh.exterior_facet_indices(mesh.topology))
        assert (*found, COMM.allreduce(outer)) == (one, two, facets)
        assert Elements(fem.functionspace(mesh, ("P", 1))).volume == pytest.approx(6.0, rel=1e-13)
    mesh = fpc.mesh.box(COMM, (3, 4, 3), periodic=(True, False, True))
    assert fem.functionspace(mesh, ("P", 1)).dofmap.index_map.size_global == 3 * 5 * 3


@pytest.mark.parametrize(
    "discretization", [Galerkin(1), Galerkin(3), Monotone(), Limited()], ids=str
)
@pytest.mark.parametrize("d", [1, 2, 3])
def test_no_cell_of_a_torus_is_another(d, discretization):
    n, made = (8, 6, 4)[d - 1], (fpc.mesh.interval, fpc.mesh.rectangle, fpc.mesh.box)[d - 1]
    mesh = made(COMM, n if d == 1 else (n,) * d, periodic=True)
    shift, figures = np.array([3.0, 1.0, 2.0])[:d] / n, []
    for by in (0.0 * shift, shift):  # all is moved by whole cells, over the sides

        def waves(x, by=by):
            return np.cos(2 * np.pi * (x - by)) + np.sin(2 * np.pi * (x - by)[:, ::-1])

        start = fpc.density.interpolate(
            mesh,
            lambda x, waves=waves: np.exp(0.4 * waves(x[:d].T).sum(axis=1)),
            discretization=discretization,
        )
        drift = fpc.drift.Steady(waves) + fpc.drift.gradient(
            lambda x, by=by: np.sin(2 * np.pi * (x - by)).sum(axis=1) / 6.0 - 0.5 * (x - by)[:, 0]
        )
        seen = fpc.observables.expectation(lambda x, waves=waves: waves(x[:d].T).T)
        equation = fpc.FokkerPlanck(mesh, drift, 0.4, discretization=discretization)
        figures.append(equation.solve(start, 0.2, 6, observables={"w": seen}).observables["w"])
    assert figures[0] == pytest.approx(figures[1], rel=1e-9, abs=1e-11)
    assert np.ptp(figures[0], axis=0).max() > 0.02


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("discretization", [Galerkin(2), Monotone()], ids=str)
def test_noise_by_place_round_the_circle(discretization):
    mesh = circle(48)
    equation = fpc.FokkerPlanck(
        mesh,
        fpc.drift.zero(),
        lambda x: 0.6 + 0.3 * np.sin(K * x[:, 0]),
        discretization=discretization,
    )
    places = LOWER + PERIOD * np.arange(400) / 400
    mass = ((0.6 + 0.3 * np.sin(K * places)) ** -2.0).mean() * PERIOD  # Ito
    error = l2_error(
        equation.stationary(), lambda x: (0.6 + 0.3 * np.sin(K * x[:, 0])) ** -2.0 / mass
    )
    assert error < (2e-4 if discretization == Galerkin(2) else 5e-3)


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("discretization", [Galerkin(3), Monotone()], ids=str)
def test_a_drift_round_the_circle_brings_a_density_back(discretization):
    mesh = circle(60)
    start = fpc.density.interpolate(
        mesh, lambda x: np.exp(3.0 * np.cos(K * (x[0] - 1.4))), discretization=discretization
    )
    # By whole cells, without noise to speak of, it would be the start: with noise, the heat flow.
    after, t1 = [], PERIOD / SPEED
    for drift in (carried, fpc.drift.zero()):
        equation = fpc.FokkerPlanck(mesh, drift, 0.2, discretization=discretization)
        after.append(equation.solve(start, t1, 300, save="last")[-1])
    gap, size = fpc.distances.l2(*after), l2_error(after[1], lambda x: 0.0 * x[:, 0])
    assert gap < (0.08 if discretization == Monotone() else 2e-3) * size
    assert fpc.distances.l2(start, after[1]) > 0.05 * size


@pytest.mark.parallel([1, 2])
def test_spectrum_of_the_circle():
    modes = fpc.FokkerPlanck(circle(24), fpc.drift.zero(), SIGMA, degree=3).eigenpairs(5)
    exact = D * K**2 * np.array([0.0, 1.0, 1.0, 4.0, 4.0])
    assert np.real(modes.values) == pytest.approx(exact, rel=1e-5, abs=1e-9)
    # Carried round, a mode turns: the rate gets an imaginary part, and the real one stays.
    round_ = fpc.drift.Steady(lambda x: carried(0.0, x))
    turning = fpc.FokkerPlanck(circle(24), round_, SIGMA, degree=3).eigenpairs(3)
    assert np.real(turning.values) == pytest.approx(exact[:3], rel=1e-5, abs=1e-9)
    assert np.abs(np.imag(turning.values)) == pytest.approx([0.0, K * SPEED, K * SPEED], rel=1e-5)


def tilted(x, force=2.0):
    """Stationary density of V = cos(K x) - force x on the circle, of no certain mass.

    With V = cos(K x) - force x it is the integral of exp((V(x + s) - V(x))/D) over a period of s.
    """
    s, w = np.polynomial.legendre.leggauss(200)
    s, w = 0.5 * PERIOD * (s + 1.0), 0.5 * PERIOD * w
    rise = np.cos(K * (x[:, None] + s)) - np.cos(K * x[:, None]) - force * s
    return np.exp(rise / D) @ w


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(
    "discretization, allowed, off", [(Galerkin(3), 2e-5, 1e-3), (Monotone(), 1e-2, 0.1)], ids=str
)
def test_a_tilted_potential_has_a_current(discretization, allowed, off):
    mesh = circle(160)
    drift = fpc.drift.gradient(lambda x: np.cos(K * x[:, 0]) - 2.0 * x[:, 0])
    equation = fpc.FokkerPlanck(mesh, drift, SIGMA, discretization=discretization)
    density = equation.stationary()
    mass = tilted(PERIOD * np.arange(400) / 400).mean() * PERIOD
    current = D * (1.0 - np.exp(-2.0 * PERIOD / D)) / mass
    assert l2_error(density, lambda x: tilted(x[:, 0]) / mass) < allowed
    # The same through any point, the seam too.
    at = {"seam": LOWER + PERIOD, "inside": 0.25}
    fluxes = {
        name: fpc.observables.flux(lambda x, a=a: np.abs(x[0] - a) < 1e-9, direction=(1.0,))
        for name, a in at.items()
    }
    run = equation.solve(density, 1e-3, 1, observables=fluxes)
    for name in at:
        assert run.observables[name][0] == pytest.approx(current, rel=off)


def wrapped_gaussian(t, x):
    """On a cylinder: wrapped Gaussian in x, carried; reflected Gaussian in y in [0, 1]."""
    spread = 0.04 + 2.0 * D * t
    images = np.arange(-8, 9)[:, None]
    around = (x[:, 0] - 1.2 - SPEED * t + PERIOD * images) ** 2
    y = np.concatenate([x[:, 1] - 0.3 + 2.0 * images, x[:, 1] + 0.3 + 2.0 * images]) ** 2
    return np.prod([np.exp(-0.5 * s / spread).sum(axis=0) for s in (around, y)], axis=0) / (
        2.0 * np.pi * spread
    )


@pytest.mark.parallel([1, 2])
def test_wrapped_gaussian_on_a_cylinder():
    errors = []
    for n in (5, 10):
        low, high = (LOWER, 0.0), (LOWER + PERIOD, 1.0)
        mesh = fpc.mesh.rectangle(COMM, (2 * n, n), low, high, periodic="x")
        start = fpc.density.interpolate(mesh, lambda x: wrapped_gaussian(0.0, x.T))
        along = fpc.drift.Steady(lambda x: np.column_stack([0 * x[:, 0] + SPEED, 0 * x[:, 1]]))
        run = fpc.FokkerPlanck(mesh, along, SIGMA).solve(
            start, 0.8, 12, scheme=fpc.SDIRK4(), save="last"
        )
        errors.append(l2_error(run[-1], lambda x: wrapped_gaussian(0.8, x)))
    assert errors[1] < 2e-3 and errors[0] / errors[1] > 6.0


@pytest.mark.parallel([1, 2])
def test_points_are_found_from_any_turn():
    mesh = fpc.mesh.rectangle(COMM, (6, 4), (-1.0, 0.0), (1.0, 1.0), periodic="x")
    rho = fpc.density.interpolate(mesh, lambda x: 2.0 + np.cos(np.pi * x[0]) + x[1])
    x = np.array([[0.3, 0.2], [0.3 + 2.0, 0.2], [0.3 - 6.0, 0.2], [1.0, 0.5], [-1.0, 0.5]])
    found = locate(mesh, x)
    g = Elements(rho.function_space)
    table = g.space.element.basix_element.tabulate(0, found.reference)[0, :, :, 0]
    values = found.to_askers(np.einsum("ni,in->n", table, rho.x.array[g.dofs[:, found.cells]]))
    assert np.ptp(values[:3]) < 1e-12 and abs(values[3] - values[4]) < 1e-12
    with pytest.raises(ValueError, match="None of the 1 points"):
        fpc.density.from_points(mesh, [[0.0, 5.0]], bandwidth=0.1)


@pytest.mark.parallel([1, 2])
def test_cells_hold_points_at_both_places():
    mesh = fpc.mesh.rectangle(COMM, (6, 4), (-1.0, 0.0), (1.0, 1.0), periodic="xy")
    space = fem.functionspace(mesh, ("P", 2))
    turns = np.array([4.0, -3.0])
    own, n = OwnCells(mesh), mesh.topology.index_map(2).size_local
    middles = mesh.geometry.x[mesh.geometry.dofmaps[0][:n]].mean(axis=1)[:, :2]
    corners = mesh.geometry.x[mesh.geometry.dofmaps[0][:n, 0]][:, :2]
    u = np.random.default_rng(COMM.rank).random(len(space.dofmap.list.ravel()))
    for x in (middles, corners):
        far = x + turns
        assert (own.holding(x) >= 0).all() and (own.holding(far) >= 0).all()
        here, there = (own.evaluate(space, u, np.arange(n), y) for y in (x, far))
        assert there[0] == pytest.approx(here[0], abs=1e-12)
    assert own.brought(np.arange(n), middles + turns) == pytest.approx(middles, abs=1e-12)


@pytest.mark.parallel([1, 2])
def test_a_potential_on_the_mesh_is_asked_along_edges_on_the_seams():
    mesh = fpc.mesh.rectangle(COMM, (7, 5), periodic=True)
    V = fem.Function(fem.functionspace(mesh, ("P", 1)))
    V.interpolate(lambda x: 0.1 * np.cos(2 * np.pi * x[0]) * np.sin(2 * np.pi * x[1]))
    equation = fpc.FokkerPlanck(mesh, fpc.drift.gradient(V), 0.4, discretization=Monotone())
    gibbs = np.exp(-V.x.array / 0.08)  # kept to round-off
    density = equation.stationary().x.array
    assert density / density.mean() == pytest.approx(gibbs / gibbs.mean(), rel=1e-9)
    field = fem.Function(fem.functionspace(mesh, ("P", 1, (2,))))
    field.interpolate(lambda x: np.cos(2 * np.pi * x[:2]))
    start = fpc.density.uniform(mesh, discretization=Monotone())
    runs = [
        fpc.FokkerPlanck(mesh, drift, 0.4, discretization=Monotone()).solve(start, 0.1, 3)[-1]
        for drift in (fpc.drift.data(field), fpc.drift.Steady(lambda x: np.cos(2 * np.pi * x)))
    ]
    assert 1e-5 < fpc.distances.l2(*runs) < 0.1


@pytest.mark.parallel([1, 2])
def test_markers_hold_at_one_of_two_places():
    mesh = circle(40)
    equation = fpc.FokkerPlanck(mesh, fpc.drift.zero(), SIGMA)
    middle, end = LOWER + 0.5 * PERIOD, LOWER + PERIOD
    q = equation.committor(lambda x: np.abs(x[0] - middle) < 1e-9, lambda x: x[0] > end - 1e-9)
    assert l2_error(q, lambda x: np.abs(x[:, 0] - middle) / (0.5 * PERIOD)) < 1e-10
    cylinder = fpc.mesh.rectangle(COMM, (6, 3), periodic="x")
    for half in (lambda x: x[0] < 0.5 + 1e-9, lambda x: x[0] > 0.5 - 1e-9):
        picked = Boundary.of(cylinder, lambda x, half=half: (x[1] < 1e-9) & half(x))
        assert picked.tagged(MARKED).measure() == pytest.approx(0.5, rel=1e-12)


@pytest.mark.parallel([1, 2])
def test_smoothest_functions_of_the_circle():
    found = smooth_modes(Galerkin(2).on(circle(40)), 5).eigenvalues
    assert found == pytest.approx(K**2 * np.array([0.0, 1.0, 1.0, 4.0, 4.0]), rel=1e-4, abs=1e-8)


@pytest.mark.parallel([1, 2])
def test_points_are_smoothed_over_the_seam():
    rho = fpc.density.from_points(circle(80), [[LOWER + 0.05]], bandwidth=0.15, degree=1)
    other = fpc.density.from_points(circle(80), [[LOWER + 0.05 + 3 * PERIOD]], bandwidth=0.15)
    g = Elements(rho.function_space, 6)
    turn = np.exp(1j * K * (g.points[:, 0] - LOWER - 0.05))
    mean = [
        g.sum(float(g.quadrature_weights @ (g.evaluate(rho.x.array).ravel() * part)))
        for part in (turn.real, turn.imag)
    ]
    assert mean[0] == pytest.approx(np.exp(-0.5 * (K * 0.15) ** 2), rel=2e-3)
    assert abs(mean[1]) < 1e-3
    assert fpc.distances.l2(rho, other) < 0.02


@pytest.mark.parallel([1, 2])
def test_a_density_that_jumps_at_the_seam_is_told():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        fpc.density.interpolate(circle(8), lambda x: 2.0 + x[0])
    assert len(told) == (COMM.rank == 0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fpc.density.interpolate(circle(8), lambda x: wave(0.0, x[0]))


@pytest.mark.parallel([1, 2])
def test_what_is_not_offered_is_refused():
    with pytest.raises(ValueError, match="3 cells or more"):
        fpc.mesh.rectangle(COMM, (2, 1), periodic="x")
    for wrong in ("z", "xx", (True,), 3, None, "both"):
        with pytest.raises(ValueError, match="periodic = "):
            fpc.mesh.rectangle(COMM, (4, 4), periodic=wrong)
    mesh = circle(5)
    rho = fpc.density.uniform(mesh)
    with pytest.raises(ValueError, match="Wasserstein distance is not offered"):
        fpc.distances.wasserstein(rho, rho)
    mesh.geometry.x[:] *= 2.0
    with pytest.raises(ValueError, match="Moving the nodes"):
        fpc.density.uniform(mesh)


@pytest.mark.parallel([1, 2])
def test_saved_refined_and_written(tmp_path):
    mesh = fpc.mesh.rectangle(COMM, (6, 4), (0.0, 0.0), (3.0, 1.0), periodic="xy")
    rho = fpc.density.interpolate(
        mesh, lambda x: 2.0 + np.cos(2 * np.pi * x[0] / 3.0) + np.sin(2 * np.pi * x[1]), degree=3
    )
    fpc.io.save(rho, tmp_path / "rho.npz")
    assert fpc.io.load(tmp_path / "rho.npz", mesh).x.array == pytest.approx(rho.x.array, abs=1e-14)
    fine = fpc.mesh.refine(mesh)
    assert fine.topology.index_map(2).size_global == 4 * 48
    from fpcontrol.mesh.refinement import transferred

    same = transferred(rho, fem.functionspace(fine, ("P", 3)))
    assert fpc.distances.l2(same, rho) < 1e-9
    other = fem.Function(fem.functionspace(mesh, ("P", 3)), name="other")  # a space of its own
    fpc.io.write([rho, other], tmp_path / "rho.bp")
    flat = flattened(rho, flat_space(rho.function_space))
    x = flat.function_space.tabulate_dof_coordinates()  # on both of two sides
    exact = 2.0 + np.cos(2 * np.pi * x[:, 0] / 3.0) + np.sin(2 * np.pi * x[:, 1])
    assert flat.x.array == pytest.approx(exact / 6.0, rel=1e-2)
    assert (tmp_path / "rho.bp").is_dir() and comm_of(mesh).size == COMM.size
    figure = fpc.plotting.density(rho, tmp_path / "rho.png")
    assert (figure is None) == (COMM.rank > 0)
