"""The jobs of the gallery: short, and their figures are the known ones."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import scipy.sparse as sp
import ufl
from dolfinx import fem
from dolfinx.mesh import exterior_facet_indices
from scipy.sparse.linalg import eigsh, splu
from scipy.stats import chi2

import fpcontrol as fpc

GALLERY = Path(__file__).parents[1] / "demos" / "gallery"
JOBS = sorted(GALLERY.glob("*.py"))


def job(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, GALLERY / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", JOBS, ids=lambda p: p.stem)
def test_jobs_are_short_and_make_a_picture(path, tmp_path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < 60 and len(JOBS) >= 2
    job(path.stem).main(tmp_path)
    assert (tmp_path / f"{path.stem}.png").stat().st_size > 10_000


@pytest.mark.parallel([1, 2])
def test_kramers():
    kramers = job("kramers")
    # A quarter of the rate of V = 4 (x^2 - 1)^2 with D = 1.
    assert kramers.modes(0.25).values[1] == pytest.approx(0.1191184 / 4.0, rel=1e-6)
    ratios = [kramers.modes(D).values[1] / kramers.kramers(D) for D in (0.12, 0.06)]
    assert 0.85 < ratios[0] < ratios[1] < 1.0  # 1 - O(D)
    assert (1.0 - ratios[0]) / (1.0 - ratios[1]) == pytest.approx(2.0, rel=0.15)


def test_decisions():
    decisions = job("decisions")
    v, a, z = decisions.DRIFT, decisions.BOUND, decisions.BIAS
    e, t, found = decisions.run()
    exact = np.array(decisions.series(t))
    assert np.abs(found - exact).max() < 2e-3 * exact.max()
    # In closed form: shares and mean time, which the backward equation gives, too.
    share = (1.0 - np.exp(-2.0 * v * z)) / (1.0 - np.exp(-2.0 * v * a))
    x = e.elements.space.tabulate_dof_coordinates()[:, 0]
    here = np.abs(x - z) < 1e-9
    assert here.any()
    assert e.exit_probability(2).x.array[here] == pytest.approx(share, rel=1e-9)
    assert e.exit_time().x.array[here] == pytest.approx((a * share - z) / v, rel=1e-9)
    assert found[1].sum() * (t[1] - t[0]) == pytest.approx(share, abs=2e-3)


@pytest.mark.parallel([1, 2])
def test_cir():
    cir = job("cir")
    for shape in (1.0, 0.5):  # at Feller's condition and below it
        found = cir.run(shape)
        below = found.observables["below"][::50]
        exact = [cir.exact(shape, t).cdf(0.1) for t in found.all_times[::50]]
        assert below[1:] == pytest.approx(exact[1:], abs=5e-4)
        assert below[-1] == pytest.approx(exact[-1], abs=3e-6)
        assert found.mass_defect < 1e-12


@pytest.mark.parallel([1, 2])
def test_dihedral():
    dihedral = job("dihedral")
    for barrier in (1.0, 4.0, 8.0):
        found, walls = (dihedral.modes(barrier, periodic=p).values[1] for p in (True, False))
        assert found == pytest.approx(dihedral.rate(barrier), rel=1e-6)
    # At a high barrier two ways are twice as fast as one.
    assert walls / found == pytest.approx(0.5, abs=1e-3)
    # What stays is Gibbs' density.
    stays = dihedral.modes(4.0).functions[0]
    x = stays.function_space.tabulate_dof_coordinates()[:, 0]
    exact = np.exp(-dihedral.potential(x, 4.0))
    mass = 2 * np.pi * np.exp(-dihedral.potential(np.arange(400) * np.pi / 200, 4.0)).mean()
    assert stays.x.array == pytest.approx(exact / mass, rel=1e-4)


@pytest.mark.parallel([1, 2])
def test_klein_kramers():
    job_ = job("klein_kramers")
    stays = job_.modes(1.0, cells=36).functions[0]
    x = stays.function_space.tabulate_dof_coordinates()
    exact = np.exp(-job_.energy(x) / job_.T)
    well = 1.0 / 0.9478378 / (2.0 * np.pi * job_.T) ** 0.5  # the integral of exp(-V / T)
    assert np.abs(stays.x.array - well * exact).max() < 2e-3 * well
    # Kramers' rate is of a high barrier and a friction that is not small.
    rates = [job_.modes(g).values[1] / job_.kramers(g) for g in (0.5, 2.0)]
    assert 0.7 < rates[0] < 0.8 and rates[1] == pytest.approx(0.951, abs=0.002)


@pytest.mark.parallel([1, 2])
def test_integrate_and_fire():
    job_ = job("integrate_and_fire")
    for mu in (14.0, 20.0, 26.0):
        rate, density, equation = job_.run(mu)
        # A hat of half width h at the reset changes the mean time by its variance, h^2 / 6.
        assert rate == pytest.approx(job_.siegert(mu), rel=3e-5)
        g = equation.elements
        assert g.integral(density.x.array) == pytest.approx(1.0, rel=1e-12)
        time, x = equation.exit_time().x.array, g.space.tabulate_dof_coordinates()[:, 0]
        at = time[np.abs(x - job_.RESET) < 1e-9]
        assert 1.0 / at == pytest.approx(job_.siegert(mu), rel=1e-7)


class Jumps:
    """Another way to a Gibbs process on a square: jumps between the nodes of a finer grid, SciPy.

    At rates exp(-(V_j - V_i) / 2) / h**2, which are of order 2 (Lie, Fackeldey, Weber 2013).
    """

    def __init__(self, V, low, high, n):
        x, y = (np.linspace(a, b, n + 1) for a, b in zip(low, high, strict=True))
        self.x, h = np.array(np.meshgrid(x, y, indexing="ij")).reshape(2, -1), x[1] - x[0]
        V = V(*self.x)
        half = np.r_[0.5, np.ones(n - 1), 0.5]  # cells at walls
        index = np.arange((n + 1) ** 2).reshape(n + 1, n + 1)
        i, j = (np.r_[index[a, :].ravel(), index[:, a].ravel()] for a in (slice(n), slice(1, None)))
        face = np.r_[np.tile(half, n), np.repeat(half, n)] * np.exp(
            -0.5 * (V[i] + V[j] - 2 * V.min())
        )
        flow = sp.coo_matrix((face, (i, j)), 2 * (len(V),)).tocsr()
        flow += flow.T
        self.mass = np.outer(half, half).ravel() * h**2 * np.exp(V.min() - V)
        self.L = sp.csr_matrix(sp.diags(np.asarray(flow.sum(axis=1)).ravel()) - flow)
        root = sp.diags(self.mass**-0.5)
        self.symmetric, self.root = sp.csc_matrix(root @ self.L @ root), self.mass**0.5

    def solve(self, fixed, load):
        """L u = load outside of a set, u = its values (NaN: free) there."""
        free = np.isnan(fixed)
        u, root = np.nan_to_num(fixed), self.root[free]
        b = (load - self.L @ u)[free] / root
        u[free] = splu(self.symmetric[free][:, free].tocsc(), "MMD_AT_PLUS_A").solve(b) / root
        return u

    def figures(self, a, b, place):
        """Committor at a place, mean time from it to b, slowest rate."""
        a, b, here = a(self.x), b(self.x), np.abs(self.x.T - place).sum(axis=1) < 1e-9
        q = self.solve(np.where(a, 0.0, np.where(b, 1.0, np.nan)), 0.0 * self.mass)
        time = self.solve(np.where(b, 0.0, np.nan), self.mass)
        rate = sorted(eigsh(self.symmetric, 2, sigma=-1e-3)[0])[1]
        return np.array([q[here][0], time[here][0], rate])


@pytest.mark.parallel([1, 2])
def test_mueller_brown():
    job_ = job("mueller_brown")
    e, place = job_.equation(), (-0.75, 0.625)  # next to the highest place of the way
    a, b = job_.well(job_.DEEP), job_.well(job_.SHALLOW)
    g, found = e.elements, []
    for u in (e.committor(a, b), e.exit_time(b)):
        x = g.space.tabulate_dof_coordinates()[: g.n_owned, :2]
        here = np.abs(x - place).sum(axis=1) < 1e-9
        found.append(g.sum(float(u.x.array[: g.n_owned] @ here)))
    found.append(e.eigenpairs(2).values[1].real)
    V = lambda x, y: job_.potential(x, y) / 20.0  # noqa: E731
    coarse, fine = (Jumps(V, (-1.5, -0.5), (1.0, 2.0), n).figures(a, b, place) for n in (80, 160))
    exact = fine + (fine - coarse) / 3.0
    assert found == pytest.approx(exact, rel=3e-5)
    assert found[2] == pytest.approx(exact[2], rel=3e-6)


def made_of() -> ModuleType:
    """The script that has made the bay, without what it meshes with."""
    spec = importlib.util.spec_from_file_location("made_bay", GALLERY.parents[1] / "meshes/bay.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(GALLERY.parents[1] / "meshes")
        spec.loader.exec_module(module)
    return module


@pytest.mark.parallel([1, 2])
def test_bay():
    bay = job("bay")
    equation, found = bay.run()
    g = equation.elements
    record = json.loads(bay.BAY.with_suffix(".json").read_text(encoding="utf-8"))
    assert bay.OPEN["absorbing"] == (record["facet_tags"]["east"], record["facet_tags"]["west"])
    assert found.mass_defect < 1e-13
    east, west = (equation.exit_probability(tag).x.array for tag in (2, 3))
    assert west + east == pytest.approx(1.0, abs=1e-12)
    x, y, _ = g.space.tabulate_dof_coordinates().T
    assert (east[(y < 1e-9) & (x > 3.9)] == 1.0).all() and (east[y > 1.0] < 1.0).all()
    assert (west[(y < 1e-9) & (x < -3.9)] == 1.0).all() and (west[y > 1.0] < 1.0).all()
    # A chi-square of what left in the east, in the west, and where the rest is.
    swarm = bay.particles(found[0], 6_000)
    shares = [g.comm.allreduce(int((swarm.exits.tags == k).sum())) / 6_000 for k in (2, 3)]
    rest = fpc.particles.compare(swarm.points, found[-1], 8)
    masses = np.r_[found.absorbed[-1], rest.masses[:-1]]
    shares = np.r_[shares, rest.shares[:-1]]
    assert masses.sum() == pytest.approx(1.0, abs=1e-9) and shares.sum() == pytest.approx(1.0)
    assert chi2.sf(6_000 * ((shares - masses) ** 2 / masses).sum(), len(masses) - 1) > 0.01


@pytest.mark.parallel([1, 2])
def test_bay_whose_currents_have_a_stream_function():
    bay, made = job("bay"), made_of()
    # The table is that of the script.
    assert bay.VELOCITY == pytest.approx(made.table(1.0)[1], abs=6e-5)

    def stays(drift):
        equation = fpc.FokkerPlanck(bay.mesh, drift, bay.SIGMA)
        return equation.stationary().x.array * equation.elements.volume, equation.elements

    # Along shores and free of divergence on this mesh: a uniform density stays, to round-off.
    psi = fem.Function(fem.functionspace(bay.mesh, ("P", 1)))
    psi.interpolate(lambda x: made.stream_function(x[0], x[1]))
    flow = fem.Function(fem.functionspace(bay.mesh, ("DG", 0, (2,))))
    shore = fem.locate_dofs_topological(
        psi.function_space, 1, exterior_facet_indices(bay.mesh.topology)
    )
    assert np.abs(psi.x.array[shore]).max(initial=0.0) < 1e-12  # corners are on the curves
    along = ufl.as_vector([-psi.dx(1), psi.dx(0)])
    flow.interpolate(fem.Expression(along, flow.function_space.element.interpolation_points))
    assert stays(flow)[0] == pytest.approx(1.0, abs=1e-9)
    # Between shores of straight sides, up to these.
    exact, g = stays(fpc.drift.Steady(lambda x: made.currents(x[:, 0], x[:, 1], 0.0)))
    assert np.abs(exact - 1.0).max() < 0.01
    # From a grid, up to its interpolation, which is of order 2.
    errors = []
    for spacing in (1.0, 0.5, 0.25):
        off = stays(fpc.drift.grid(*made.table(spacing, 0.0)))[0] - exact
        errors.append((g.inner(off, off) / g.volume) ** 0.5)
    assert errors[0] < 0.025 and errors[0] > 3.0 * errors[1] > 9.0 * errors[2]
