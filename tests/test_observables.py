"""Observables at every step of a run, against closed forms, and without keeping levels."""

import json
import tracemalloc

import dolfinx.mesh
import numpy as np
import pytest
from dolfinx import fem
from dolfinx.mesh import meshtags
from problems import SELF, WORLD, bump, cube, raised, stirring
from test_absorbing import sides

import fpcontrol as fpc
from fpcontrol import observables as of

ranks = pytest.mark.parallel([1, 2, 3])


def gaussian(mesh, mean, variance, **options):
    m = np.array(mean)[:, None]
    d = len(m)
    return fpc.density.interpolate(
        mesh, lambda x: np.exp(-((x[:d] - m) ** 2).sum(axis=0) / (2.0 * variance)), **options
    )


@ranks
@pytest.mark.parametrize("dim", [1, 2])
def test_moments_of_an_ornstein_uhlenbeck_process(dim):
    mesh = cube(WORLD, dim, 32, 8.0, 16.0)  # far from the origin
    centre, m = 20.0, np.array([0.6, -0.4])[:dim]
    equation = fpc.FokkerPlanck(mesh, fpc.drift.Steady(lambda x: -(x - centre)), 1.0, degree=3)
    run = equation.solve(
        gaussian(mesh, m + centre, 0.2, degree=3),
        1.0,
        40,
        scheme=fpc.SDIRK4(),
        save="last",
        observables={
            "mean": of.mean(),
            "covariance": of.covariance(),
            "square": of.expectation(lambda x: (x[0] - centre) ** 2),
            "two": of.expectation(lambda x: np.array([x[0] - centre, np.ones(x.shape[1])])),
            "energy": of.energy(lambda x: 0.5 * ((x - centre) ** 2).sum(axis=1)),
            "entropy": of.entropy(),
        },
    )
    decay = np.exp(-run.all_times)
    variance = 0.2 * decay**2 + 0.5 * (1.0 - decay**2)
    seen = run.observables
    assert list(seen) == ["mean", "covariance", "square", "two", "energy", "entropy"]
    assert np.abs(seen["mean"] - centre - np.outer(decay, m)).max() < 2e-4
    assert np.abs(seen["covariance"] - variance[:, None, None] * np.eye(dim)).max() < 5e-4
    assert np.abs(seen["square"] - variance - (decay * m[0]) ** 2).max() < 5e-4
    assert np.abs(seen["two"] - np.column_stack([decay * m[0], np.ones(41)])).max() < 2e-4
    square = dim * variance + decay**2 * (m @ m)
    assert np.abs(seen["energy"] - 0.5 * square).max() < 5e-4
    assert np.abs(seen["entropy"] - 0.5 * dim * np.log(2 * np.pi * np.e * variance)).max() < 1e-3


@ranks
def test_masses_of_regions():
    mesh = cube(WORLD, 2, 10)
    equation = fpc.FokkerPlanck(mesh, stirring, 0.8)
    cells = np.arange(mesh.topology.index_map(2).size_local, dtype=np.int32)
    x = dolfinx.mesh.compute_midpoints(mesh, 2, cells)
    tags = meshtags(mesh, 2, cells, (1 + (x[:, 0] > 0.5)).astype(np.int32))
    run = equation.solve(
        fpc.density.uniform(mesh),
        0.2,
        4,
        observables={
            "all": of.mass(),
            "one": of.mass(1, tags=tags),
            "two": of.mass([2], tags=tags),
            "left": of.mass(lambda x: x[0] < 0.5),
            "disk": of.mass(lambda x: (x[0] - 0.4) ** 2 + (x[1] - 0.6) ** 2 < 0.09),
        },
    )
    seen = run.observables
    assert seen["all"] == pytest.approx(run.mass, rel=1e-13)
    assert seen["one"] + seen["two"] == pytest.approx(run.mass, rel=1e-13)
    assert seen["left"] == pytest.approx(seen["one"], rel=1e-12)
    assert seen["one"][-1] != pytest.approx(0.5, abs=1e-3)
    assert seen["disk"][0] == pytest.approx(0.09 * np.pi, rel=3e-4)


@pytest.mark.parametrize("dim", [1, 2, 3])
@pytest.mark.parametrize("degree", [1, 2, 3])
def test_region_whose_edge_cuts_cells(dim, degree):
    mesh = cube(SELF, dim, 3)
    start = fpc.density.interpolate(mesh, lambda x: 1.0 + x[0] ** degree, degree)
    equation = fpc.FokkerPlanck(mesh, fpc.drift.zero(), 1.0, degree=degree)
    run = equation.solve(start, 1.0, 1, observables={"left": of.mass(lambda x: x[0] < 0.45)})
    total = 1.0 + 1.0 / (degree + 1)
    exact = (0.45 + 0.45 ** (degree + 1) / (degree + 1)) / total
    assert run.observables["left"][0] == pytest.approx(exact, abs={1: 4e-3, 2: 4e-3, 3: 1e-2}[dim])


@ranks
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_flux_through_walls_and_inside(dim):
    n = {1: 64, 2: 16, 3: 4}[dim]
    mesh, tags = cube(WORLD, dim, n), None
    tags = sides(mesh)
    drift = fpc.drift.Steady(lambda x: np.cos(2.0 * x) - 0.5)
    equation = fpc.FokkerPlanck(mesh, drift, 1.0, absorbing=(9,), facet_tags=tags)
    start = fpc.density.interpolate(
        mesh, lambda x: np.maximum((1.0 - x[0]) * (1.0 + x[0] ** 2), 0.0)
    )
    ahead = np.eye(dim)[0]
    run = equation.solve(
        start,
        0.2,
        80,
        scheme=fpc.SDIRK4(),
        observables={
            "out": of.flux(9, tags=tags),
            "wall": of.flux(4, tags=tags),
            "middle": of.flux(lambda x: np.isclose(x[0], 0.5), direction=ahead),
            "back": of.flux(lambda x: np.isclose(x[0], 0.5), direction=lambda x: 0.0 * x - ahead),
            "left": of.mass(lambda x: x[0] < 0.5),
        },
    )
    seen, dt = run.observables, 0.2 / 80
    late = slice(40, -1)

    def rate(u):
        return np.gradient(u, dt)[late]

    least = {1: 2e-3, 2: 1e-2, 3: 0.12}[dim]
    assert seen["out"][late] == pytest.approx(rate(run.absorbed[:, 0]), rel=least)
    assert np.abs(seen["wall"][late]).max() < least * seen["out"][late].max()
    assert seen["middle"][late] == pytest.approx(-rate(seen["left"]), abs=least * 0.3)
    assert seen["back"] == pytest.approx(-seen["middle"], rel=1e-12)


@ranks
def test_distances_to_references():
    mesh = cube(WORLD, 2, 8)
    start, goal = bump(mesh, 2, 0.3), bump(mesh, 2, 0.7)
    reference = fpc.MoserFlow(start, goal, 1.0, 0.8)
    equation = fpc.FokkerPlanck(mesh, reference.drift, 0.8)
    run = equation.solve(
        start,
        1.0,
        8,
        observables={
            "to reference": of.distance(reference),
            "to goal": of.distance(goal),
            "kl": of.distance(goal, fpc.distances.kl),
            "by time": of.distance(reference.density, fpc.distances.l2),
        },
    )
    seen, far = run.observables, fpc.distances.l2(start, goal)
    assert seen["to reference"].max() < 1e-9 and seen["by time"].max() < 1e-9
    assert seen["to goal"] == pytest.approx(far * (1.0 - run.all_times), abs=1e-9)
    assert seen["kl"] == pytest.approx([fpc.distances.kl(rho, goal) for rho in run], rel=1e-12)


@ranks
def test_free_energy_does_not_grow():
    def V(x):
        return 3.0 * (x[:, 0] ** 2 - 0.5) ** 2 + x[:, 1] ** 2

    mesh, D = cube(WORLD, 2, 12, 2.0, -1.0), 0.32
    space = fem.functionspace(mesh, ("Lagrange", 3))
    on_mesh = fem.Function(space, name="V")
    on_mesh.interpolate(lambda x: V(x.T))
    equation = fpc.FokkerPlanck(
        mesh, fpc.drift.gradient(V), (2.0 * D) ** 0.5, discretization=fpc.Monotone()
    )
    run = equation.solve(
        bump(mesh, 1, 0.2, 0.1),
        2.0,
        40,
        observables={"V": of.energy(V), "P3": of.energy(on_mesh), "S": of.entropy()},
    )
    free = run.observables["V"] - D * run.observables["S"]
    assert (np.diff(free) < 1e-9).all() and free[0] > free[-1] + 0.2
    assert run.observables["P3"] == pytest.approx(run.observables["V"], rel=1e-3)


@ranks
def test_own_functions_and_observables():
    mesh = cube(WORLD, 2, 6)
    equation = fpc.FokkerPlanck(mesh, stirring, 0.8)
    g = equation.elements

    class Largest(of.Observable):
        def on(self, setting):
            class Evaluation(of.Evaluation):
                def value(self, t, rho, sums):
                    return max(setting.elements.comm.allgather(rho.max()))

            return Evaluation()

    run = equation.solve(
        bump(mesh, 2, 0.3),
        0.5,
        5,
        observables={
            "l2": lambda t, rho: g.norm(rho.x.array),
            "pair": lambda t, rho: [t, g.integral(rho.x.array)],
            "largest": Largest(),
        },
    )
    seen = run.observables
    assert seen["l2"] == pytest.approx([g.norm(u) for u in run.levels], rel=1e-14)
    assert seen["pair"][:, 0] == pytest.approx(run.all_times, abs=1e-15)
    assert seen["pair"][:, 1] == pytest.approx(run.mass, rel=1e-12)
    highest = [max(WORLD.allgather(u.max())) for u in run.levels]
    assert seen["largest"] == pytest.approx(highest, rel=1e-15)


@pytest.mark.parametrize("method", [fpc.Galerkin(1), fpc.Monotone(), fpc.Limited()], ids=str)
def test_what_is_kept_does_not_matter(method):
    mesh = cube(SELF, 2, 6)
    equation = fpc.FokkerPlanck(mesh, stirring, 0.8, discretization=method)
    start, named = bump(mesh, 1, 0.3), {"mean": of.mean(), "entropy": of.entropy()}
    whole = equation.solve(start, 0.5, 8, observables=named)
    for save in ("last", 3):
        run = equation.solve(start, 0.5, 8, save=save, observables=named)
        for name in named:
            assert (run.observables[name] == whole.observables[name]).all()
    fine = equation.solve(start, 0.5, 4, tolerance=1e-2, save="last", observables=named)
    assert fine.observables["mean"].shape == (len(fine.all_times), 2)
    assert equation.solve(start, 0.5, 2).observables == {}


def test_memory_does_not_grow_with_the_steps():
    mesh = cube(SELF, 2, 40)
    equation = fpc.FokkerPlanck(mesh, fpc.drift.zero(), 0.8, degree=1)
    named = {"mean": of.mean(), "left": of.mass(lambda x: x[0] < 0.3), "entropy": of.entropy()}

    def peak(steps: int) -> int:
        tracemalloc.start()
        equation.solve(bump(mesh, 1, 0.3), 1.0, steps, save="last", observables=named)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    peak(10)
    few, many = peak(20), peak(1020)
    # A level is 13 kB; a step leaves its mass, minimum and observables, and its time.
    assert (many - few) / 1000 < 500


@ranks
def test_files_records_and_pictures(tmp_path):
    path = WORLD.bcast(str(tmp_path))
    mesh = cube(WORLD, 1, 10)
    equation = fpc.FokkerPlanck(mesh, fpc.drift.zero(), 0.8, absorbing=lambda x: x[0] < 1e-9)
    start = bump(mesh, 2, 0.5)
    infinite = {"mean": of.mean(), "infinite": lambda t, rho: np.inf}
    run = equation.solve(start, 1.0, 10, save="last", observables=infinite)
    fpc.io.save(run, f"{path}/run.npz")
    back = fpc.io.load(f"{path}/run.npz", mesh)
    assert list(back.observables) == ["mean", "infinite"]
    assert all((back.observables[k] == u).all() for k, u in run.observables.items())
    fpc.io.write_record(run, f"{path}/run.json", {"case": 3})
    figure = fpc.plotting.observables(run, f"{path}/run.png", names=["mean"], title="Heat")
    WORLD.barrier()
    if WORLD.rank == 0:
        assert len(figure.axes) == 1 and (tmp_path / "run.png").stat().st_size > 5000
        with open(f"{path}/run.json") as file:
            content = json.load(file)
        assert content["case"] == 3 and content["observables"]["infinite"] == [None] * 11
        assert np.array(content["observables"]["mean"]) == pytest.approx(run.observables["mean"])
        assert content["levels"]["mass"] == pytest.approx(run.mass.tolist())
        assert content["absorbed"]["1"] == pytest.approx(run.absorbed[:, 0].tolist())
    assert "names = ['meen']: observed were 'mean'" in raised(
        ValueError, lambda: fpc.plotting.observables(run, names=["meen"])
    )


@pytest.mark.parallel([1, 2])
def test_bad_input():
    mesh = cube(WORLD, 2, 4)
    other = cube(WORLD, 2, 3)
    equation = fpc.FokkerPlanck(mesh, fpc.drift.zero(), 1.0)

    def run(what, name="a"):
        return lambda: equation.solve(bump(mesh, 2, 0.3), 1.0, 2, observables={name: what})

    def fails_on_the_last_rank(t, rho):
        if WORLD.rank == WORLD.size - 1:
            raise ValueError("a user's own error")
        return 0.0

    tags = sides(mesh)
    foreign = fem.Function(fem.functionspace(other, ("Lagrange", 1)), name="V")
    for text, what in {
        "is no observable; give one of fpc.observables": 3.0,
        "with its brackets": of.mean,
        "returned <U3 values": lambda t, rho: "big",
        "returned float64 values of shape (2,)": lambda t, rho: np.zeros(2 if t > 0.2 else 1),
        "a user's own error": fails_on_the_last_rank,
        "where = 3: no facet has such a tag": of.flux(3, tags=tags),
        "where = 4: tags are of entities of dimension 1": of.mass(4, tags=tags),
        "where = 4 names tags": of.mass(4),
        "where(x) returned float64": of.mass(lambda x: x[0]),
        "f(x) returned": of.expectation(lambda x: x[0][:-1]),
        "f(x) is not finite": of.expectation(lambda x: np.inf * x[0]),
        "V(x) returned": of.energy(lambda x: x),
        "V lives on another mesh": of.energy(foreign),
        "reference lives on another mesh": of.distance(foreign),
        "give direction=": of.flux(lambda x: np.isclose(x[0], 0.5)),
        "direction must be a vector of 2": of.flux(4, tags=tags, direction=(1.0, 2.0, 3.0)),
        "vertices of no facet": of.flux(lambda x: x[0] > 2.0),
    }.items():
        assert text in raised(ValueError, run(what)), text
    assert "must be a string" in raised(ValueError, run(of.mean(), 3))
    assert "must be a mapping" in raised(
        ValueError,
        lambda: equation.solve(bump(mesh, 2, 0.3), 1.0, 2, observables=[of.mean()]),
    )
