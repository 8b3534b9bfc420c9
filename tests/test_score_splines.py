"""Scores that are splines, fitted on a mesh between walls."""

import math
from dataclasses import replace

import numpy as np
import pytest
from problems import SELF, WORLD, raised

import fpcontrol as fpc
from fpcontrol.discretization.elements import Elements, lagrange
from fpcontrol.noising import Graded, HeatFlow, NoisedOnMesh, OrnsteinUhlenbeck
from fpcontrol.score import SplineScore, compare

D, LAST, HEIGHT = 0.1, 1.5, 0.6


def slab(cells=200, degree=3, comm=SELF, steps=100):
    """A cosine between two walls, and what the heat flow makes of it."""
    mesh = fpc.mesh.interval(comm, cells)
    start = fpc.density.interpolate(
        mesh,
        lambda x: 1.0 + HEIGHT * np.cos(np.pi * x[0]),
        discretization=fpc.Galerkin(degree=degree),
    )
    return HeatFlow(mesh, D, t1=LAST).of(start, steps=steps)


def known(t, x):
    """Its density and score, by formula."""
    wave = HEIGHT * math.exp(-D * math.pi**2 * t)
    p = 1.0 + wave * np.cos(np.pi * x)
    return p, -np.pi * wave * np.sin(np.pi * x) / p


def plane(comm=WORLD, steps=20, **options):
    """Data on a rectangle, different in both directions."""
    mesh = fpc.mesh.rectangle(comm, (8, 6), (-0.5, 0.2), (1.0, 1.0))
    start = fpc.density.interpolate(
        mesh, lambda x: 1.0 + 0.5 * np.cos(2.0 * np.pi * x[0]) * x[1], **options
    )
    return HeatFlow(mesh, D, t1=1.0).of(start, steps=steps)


def arbitrary(data, spacing, intervals, seed=0):
    """A spline with random weights."""
    model = SplineScore.fit(data, spacing, intervals=intervals)
    shape = model.weights.shape
    return replace(model, weights=np.random.default_rng(seed).normal(size=shape))


def integral(process, f, points=24):
    """Of ``g**2 f(t)/2`` over all noising times."""
    clock = Graded(process)
    nodes, w = np.polynomial.legendre.leggauss(points)
    u = 0.5 * (nodes + 1.0)
    times = [clock.noising_time(v) for v in u]
    rows = zip(u, times, w, strict=True)
    return sum(0.25 * b * clock.rate(v) * process.sigma(t) ** 2 * f(t) for v, t, b in rows)


LINE = np.linspace(0.0, 1.0, 4001)
RULE = np.full(4001, 1.0 / 4000)
RULE[[0, -1]] *= 0.5


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize("dimension", [1, 2])
def test_a_spline_is_found_again(dimension):
    data = plane() if dimension == 2 else slab(40, 2, WORLD, 20)
    truth = arbitrary(data, 0.3, 4)
    data.at_points = lambda t, where: truth.values(t, where.points)
    found = SplineScore.fit(data, 0.3, intervals=4, ridge=1e-13)
    x = data.elements.points
    for t in (0.0, 0.01, 0.4, data.process.t1):
        assert found.values(t, x) == pytest.approx(truth.values(t, x), abs=1e-7)
    assert found.loss < 1e-12
    # Off the clock's nodes a spline of fewer times is another.
    assert SplineScore.fit(data, 0.3, intervals=2).loss > 1e-3


def test_order_against_the_formula():
    data, losses = slab(), []
    for spacing, intervals in ((0.25, 16), (0.125, 32), (0.0625, 64)):
        model = SplineScore.fit(data, spacing, intervals=intervals, ridge=1e-12)

        def error(t, model=model):
            p, score = known(t, LINE)
            return RULE @ (p * (model.values(t, LINE[:, None])[:, 0] - score) ** 2)

        loss = integral(data.process, error, 60)
        assert model.loss == pytest.approx(loss, rel=0.05, abs=1e-9)
        losses.append(math.sqrt(loss))
    orders = np.log2(np.array(losses[:-1]) / losses[1:])
    assert orders.min() > 2.7  # 3 in space, 2 in time with a small constant
    assert losses[-1] < 1e-3


def test_fit_is_least_by_parts_too():
    r"""The loss is ``int p |s|^2 + 2 p div s`` and what walls add, but for a constant."""
    data = slab()
    best = SplineScore.fit(data, 0.34, intervals=3, ridge=1e-12)

    def loss(model, walls):
        def density(t):
            p, _ = known(t, LINE)
            s = model.values(t, LINE[:, None])[:, 0]
            inner = RULE @ (p * (s**2 + 2.0 * model.divergence(t, LINE[:, None])))
            return inner - 2.0 * walls * (p[-1] * s[-1] - p[0] * s[0])

        return integral(data.process, density, 48)

    square = integral(data.process, lambda t: RULE @ (known(t, LINE)[0] * known(t, LINE)[1] ** 2))
    assert loss(best, 1.0) + square == pytest.approx(best.loss, rel=0.02)
    assert abs(loss(best, 0.0) + square - best.loss) > 0.2 * best.loss  # what walls add counts
    rng = np.random.default_rng(3)
    for size in (1e-2, 1e-1):
        step = size * rng.normal(size=best.weights.shape)
        there, back = (replace(best, weights=best.weights + s * step) for s in (1.0, -1.0))
        gain = loss(there, 1.0) + loss(back, 1.0) - 2.0 * loss(best, 1.0)
        assert gain > 0.0
        assert abs(loss(there, 1.0) - loss(back, 1.0)) < 2e-3 * gain / size


@pytest.mark.parallel([1, 2])
def test_certificate_holds():
    data = plane(discretization=fpc.Galerkin(degree=2))
    model = SplineScore.fit(data, 0.5, intervals=4)
    lab = compare(model, data, data.elements.mesh, (1.0, 0.5), start="noised", atoms=40)
    assert model.loss == pytest.approx(lab[1.0].certificate.value, rel=0.2)
    assert 1e-5 < lab[1.0].kl.value < model.loss
    assert lab[0.5].kl.value < lab[0.5].certificate.value
    finer = SplineScore.fit(data, 0.25, intervals=8)
    better = compare(finer, data, data.elements.mesh, (1.0,), start="noised", atoms=40)
    assert finer.loss < 0.3 * model.loss
    assert better[1.0].l2.value < 0.5 * lab[1.0].l2.value


@pytest.mark.parallel([1, 2])
def test_particles_follow_the_density_of_the_fit():
    mesh, n = fpc.mesh.interval(WORLD, 40), 16_384
    start = fpc.density.interpolate(mesh, lambda x: 1.0 + 0.9 * np.cos(2.0 * np.pi * x[0]))
    data = HeatFlow(mesh, D, t1=0.5).of(start, steps=60)
    model = SplineScore.fit(data, 1.0, intervals=1)  # so few that what is wrong is seen
    found = compare(model, data, mesh, (1.0,), start="noised")[1.0].density
    drift = data.process.reverse(model).graded()
    noised = fpc.particles.draw(data.density(data.process.t1), n)
    swarm = fpc.particles.simulate(mesh, drift, noised, drift.sigma, 1.0, 300)
    assert fpc.particles.compare(swarm.points, found, 8).p_value > 1e-3
    assert fpc.particles.compare(swarm.points, start, 8).p_value < 1e-9


@pytest.mark.parallel(1)
def test_derivatives():
    data = plane(SELF)
    model, h = arbitrary(data, 0.3, 3), 1e-6
    rng = np.random.default_rng(1)
    x = rng.uniform((-0.5, 0.2), (1.0, 1.0), (30, 2))
    slopes = sum(
        (model.values(0.3, x + e) - model.values(0.3, x - e))[:, i]
        for i, e in enumerate(h * np.eye(2))
    )
    assert model.divergence(0.3, x) == pytest.approx(slopes / (2.0 * h), rel=1e-6, abs=1e-6)
    s = rng.normal(size=x.shape)
    paired = (s * model.values(0.3, x)).sum()
    assert model.vjp(0.3, x, s) @ model.weights.ravel() == pytest.approx(paired, rel=1e-11)
    assert len(model.vjp(0.3, x, s)) == model.size
    # Beyond the box: as at its nearest point.
    beyond = np.array([[1.2, 0.5], [-0.7, 1.3]])
    nearest = np.array([[1.0, 0.5], [-0.5, 1.0]])
    assert (model.values(0.3, beyond) == model.values(0.3, nearest)).all()
    assert model.divergence(0.3, beyond)[1] == 0.0


@pytest.mark.parallel([1, 2])
def test_scores_in_known_cells_are_those_found_by_search():
    data = plane(discretization=fpc.Galerkin(degree=2))
    g = Elements(lagrange(data.elements.mesh, 1), 5)
    assert len(g.points) != len(data.system.points)
    for t in (0.0, 0.013):
        assert data.at_points(t, g) == pytest.approx(data.values(t, g.points), rel=1e-9, abs=1e-9)


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize("method", [fpc.Galerkin(degree=2), fpc.Limited(), fpc.Monotone()], ids=str)
def test_same_on_any_number_of_ranks(method):
    alone = SplineScore.fit(plane(SELF, discretization=method), 0.4, intervals=4)
    together = SplineScore.fit(plane(WORLD, discretization=method), 0.4, intervals=4)
    assert together.loss == pytest.approx(alone.loss, rel=1e-9)
    scale = np.abs(alone.weights).max()
    assert together.weights == pytest.approx(alone.weights, abs=1e-7 * scale)
    assert WORLD.bcast(together.weights).tobytes() == together.weights.tobytes()


@pytest.mark.parallel(1)
def test_a_process_with_a_drift_between_walls():
    mesh = fpc.mesh.interval(SELF, 60, -1.0, 1.0)
    process = OrnsteinUhlenbeck(t1=1.0)
    start = fpc.density.interpolate(mesh, lambda x: 1.0 + 0.5 * np.cos(np.pi * x[0]))
    data = process.of(start, steps=60)
    assert isinstance(data, NoisedOnMesh)
    model = SplineScore.fit(data, 0.4, intervals=6)
    lab = compare(model, data, mesh, (1.0,), start="noised", wall_tolerance=1.0)
    assert lab[1.0].kl.value < model.loss == pytest.approx(lab[1.0].certificate.value, rel=0.2)


@pytest.mark.parallel([1, 2])
def test_errors_say_what_is_wrong():
    data = plane()
    for arguments, message in (
        ({"data": data.data}, "data, a "),
        ({"spacing": 0.0}, "spacing = 0"),
        ({"spacing": 0.01}, "more B-splines than"),
        ({"intervals": 0}, "intervals = 0"),
        ({"intervals": 2.5}, "intervals = 2.5"),
        ({"ridge": 0.0}, "ridge = 0"),
    ):
        given = {"data": data, "spacing": 0.4} | arguments
        assert message in raised(ValueError, lambda given=given: SplineScore.fit(**given))
    ring = fpc.mesh.interval(WORLD, 12, periodic=True)
    circle = HeatFlow(ring, D, t1=1.0).of(fpc.density.uniform(ring), steps=2)
    assert "periodic" in raised(ValueError, lambda: SplineScore.fit(circle, 0.3))
    bare = fpc.density.interpolate(data.elements.mesh, lambda x: np.maximum(0.0, x[0]))
    empty = HeatFlow(data.elements.mesh, 1e-4, t1=0.1).of(bare, steps=2)
    assert "not positive" in raised(ValueError, lambda: SplineScore.fit(empty, 0.4))
    model = SplineScore.fit(data, 0.4)
    with pytest.raises(ValueError, match="outside"):
        model.values(1.1, np.zeros((1, 2)))
    with pytest.raises(ValueError, match="outside"):
        model.values(-0.1, np.zeros((1, 2)))


@pytest.mark.parallel([1, 2])
def test_saved_and_read_again(tmp_path):
    data, path = plane(), WORLD.bcast(tmp_path / "deep" / "spline.npz")
    model = SplineScore.fit(data, 0.4, intervals=4)
    model.save(path)
    again = SplineScore.load(path, data.process)
    x = np.random.default_rng(2).uniform((-0.7, 0.0), (1.2, 1.1), (50, 2))
    for t in (0.0, 0.003, 0.9):
        assert (again.values(t, x) == model.values(t, x)).all()
        assert (again.divergence(t, x) == model.divergence(t, x)).all()
    assert (again.loss, again.process) == (model.loss, data.process)
    replace(model, loss=math.nan).save(path)  # in place of the other
    assert math.isnan(SplineScore.load(path, data.process).loss)
    other = HeatFlow(data.elements.mesh, 1.01 * D, t1=1.0)
    assert "was fitted for HeatFlow" in raised(ValueError, lambda: SplineScore.load(path, other))
    pinned = OrnsteinUhlenbeck(t1=1.0, g=math.sqrt(2.0 * D))  # of the same noise
    assert "was fitted for HeatFlow" in raised(ValueError, lambda: SplineScore.load(path, pinned))
    missing = path.with_name("none.npz")
    assert "no such file" in raised(OSError, lambda: SplineScore.load(missing, data.process))
    raised(OSError, lambda: model.save(path.parent))


@pytest.mark.parallel(1)
def test_foreign_files_are_refused(tmp_path):
    data, path = slab(40, 1), tmp_path / "spline.npz"
    SplineScore.fit(data, 0.2, intervals=3).save(path, SELF)
    with np.load(path) as file:
        content = {name: file[name] for name in file.files}
    about = str(content["about"])
    for changed, message in (
        ({"weights": content["weights"][:, 1:]}, "not that of its lattice"),
        ({"weights": np.full_like(content["weights"], np.nan)}, "not finite"),
        ({"weights": np.array([object()])}, "is no SplineScore"),
        ({"probe": np.zeros(3)}, "tells its process"),
        ({"about": np.array(about.replace('"format": 1', '"format": 9'))}, "format is 9"),
        ({"about": np.array("{}")}, "something else"),
    ):
        np.savez(tmp_path / "other.npz", **(content | changed))
        with pytest.raises(OSError, match=message):
            SplineScore.load(tmp_path / "other.npz", data.process, SELF)
    (tmp_path / "text.npz").write_text("no archive")
    with pytest.raises(OSError, match="is no SplineScore"):
        SplineScore.load(tmp_path / "text.npz", data.process, SELF)
    with pytest.raises(OSError, match=r"SplineScore\.load"):
        fpc.score.load(path, OrnsteinUhlenbeck(), SELF)
