"""One network through both samplers: other parameters; the events of markers."""

import numpy as np
import pytest
from problems import SELF, WORLD, failures

from fpcontrol.mesh import interval
from fpcontrol.theorems.closed_forms.score_networks import HeatFlow, ScoreNetwork
from fpcontrol.theorems.experiments import atoms
from fpcontrol.theorems.framework.resolution import Grid
from fpcontrol.theorems.runs import reversal
from fpcontrol.theorems.runs.sliding import CellwiseDrift, slide
from fpcontrol.theorems.statements import samplers

FEW = {"networks": (8, 16), "markers": Grid(1000, 40)}
ELEMENTS = {"grid": Grid(128, 16)}


OTHERS = {
    "same network": lambda comm: samplers.same_network(comm, D=0.0613, t1=0.7, **FEW, **ELEMENTS),
    "continuous": lambda comm: samplers.continuous_score(comm, D=0.0613, t1=0.7, **FEW, **ELEMENTS),
    "atom": lambda comm: atoms.atom_at_a_mode(comm, amplitude=0.4, D=0.0613, t1=0.7, **FEW),
    "same network, modes at walls": lambda comm: samplers.same_network(
        comm, cosines=atoms.AT_WALLS, growth=1.5, networks=(20, 40), markers=Grid(1000, 50)
    ),
    "walls": lambda comm: atoms.modes_at_walls(comm, D=0.0613, t1=0.7, **FEW),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_other_parameters_pass(name):
    assert not failures(OTHERS[name](SELF))


@pytest.mark.parametrize("study", [samplers.same_network, samplers.continuous_score])
def test_networks_too_coarse_for_the_data_are_refused(study):
    with pytest.raises(ValueError, match="from 20 cells on"):
        study(SELF, cosines=atoms.AT_WALLS, networks=(8, 16, 32))


# Short runs: what is tested is that ranks agree.
SHORT = {
    "same network": lambda comm: samplers.same_network(
        comm, networks=(8, 16), markers=Grid(500, 20), grid=Grid(64, 4)
    ),
    "atom": lambda comm: atoms.atom_at_a_mode(comm, networks=(8,), markers=Grid(500, 20)),
}


@pytest.mark.parallel([2])
@pytest.mark.parametrize("name", SHORT)
def test_rows_are_the_same_on_all_ranks(name):
    alone, collective_errors = SHORT[name](SELF), SHORT[name](WORLD)
    for a, b in zip(alone.rows, collective_errors.rows, strict=True):
        assert a.quantity == b.quantity
        # Round-off over quantities that are differences of numbers of order 1.
        assert b.measured == pytest.approx(a.measured, rel=1e-6, abs=1e-9)
        assert a.passed == b.passed


# -- markers from event to event -------------------------------------------------------------------


def steady(nodes, left, right, t1=1.0, steps=1):
    left, right = np.tile(left, (steps, 1)), np.tile(right, (steps, 1))
    return CellwiseDrift(np.array(nodes), np.linspace(0.0, t1, steps + 1), left, right)


@pytest.mark.parametrize("steps", [1, 7])
def test_labels_in_a_linear_drift_meet_the_exponential(steps):
    # v = 0.5 - x on four cells: x - 0.5 shrinks by exp(-t), over nodes and all.
    nodes = np.linspace(0.0, 1.0, 5)
    y = np.linspace(0.0, 1.0, 23)
    drift = steady(nodes, 0.5 - nodes[:-1], 0.5 - nodes[1:], 1.3, steps)
    assert slide(y, drift) == pytest.approx(0.5 + (y - 0.5) * np.exp(-1.3), abs=1e-14)


def test_labels_stay_where_drifts_meet():
    drift = steady([0.0, 0.5, 1.0], [0.2, -0.1], [0.2, -0.1])
    y = np.array([0.1, 0.35, 0.5, 0.55, 0.7])
    assert slide(y, drift) == pytest.approx([0.3, 0.5, 0.5, 0.5, 0.6], abs=1e-15)


def test_labels_pass_jumps():
    # Drift 1 and then 1/2: what has passed is half as far apart.
    drift = steady([0.0, 0.5, 1.0], [1.0, 0.5], [1.0, 0.5], t1=0.4)
    y = np.array([0.05, 0.2, 0.4, 0.6])
    assert slide(y, drift) == pytest.approx([0.45, 0.55, 0.65, 0.8], abs=1e-15)


def test_labels_wait_at_walls_and_leave_together():
    nodes, times = np.array([0.0, 1.0]), np.array([0.0, 0.5, 1.0])
    v = np.array([[-0.4], [0.6]])
    x = slide(np.array([0.0, 0.1, 0.2, 0.3]), CellwiseDrift(nodes, times, v, v))
    assert x == pytest.approx([0.3, 0.3, 0.3, 0.4], abs=1e-15)


def test_an_atom_set_free_stays_an_atom():
    nodes, times = np.linspace(0.0, 1.0, 3), np.array([0.0, 1.0, 2.0])
    v = np.array([[0.2, -0.2], [0.2, 0.1]])  # the node at 1/2 gathers, then lets go to the right
    x = slide(np.array([0.35, 0.45, 0.5, 0.6]), CellwiseDrift(nodes, times, v, v))
    assert x == pytest.approx([0.6, 0.6, 0.6, 0.6], abs=1e-15)
    assert np.ptp(x) == 0.0


def test_steps_in_time_are_of_second_order():
    net = ScoreNetwork(HeatFlow(samplers.INSIDE), 16, smooth=True)
    w2 = [reversal.ode_sample(net, Grid(400, steps)).positions[:401] for steps in (10, 20, 40, 320)]
    gaps = [np.abs(x - w2[-1]).max() for x in w2[:-1]]
    assert np.log2(np.array(gaps[:-1]) / gaps[1:]) == pytest.approx([2.0, 2.0], abs=0.3)


# -- the noising flow and the networks -------------------------------------------------------------


def test_heat_flow_solves_the_heat_equation():
    flow, x, s, h = HeatFlow(samplers.INSIDE, 0.17), np.linspace(0.02, 0.98, 49), 0.3, 1e-4
    change = (flow.density(s + h, x) - flow.density(s - h, x)) / (2.0 * h)
    p, score = flow.density(s, x), flow.score(s, x)
    assert change == pytest.approx(0.17 * p * (flow.curvature(s, x) + score**2), abs=1e-6)
    mass = (flow.cumulative(s, x + h) - flow.cumulative(s, x - h)) / (2.0 * h)
    assert mass == pytest.approx(p, abs=1e-6)
    assert flow.quantile(s, flow.cumulative(s, x)) == pytest.approx(x, abs=1e-14)


def test_data_that_are_not_positive_are_refused():
    with pytest.raises(ValueError, match="cosines"):
        HeatFlow({1: 1.2})


@pytest.mark.parametrize("smooth", [False, True])
def test_loss_agrees_with_sampling(smooth):
    net = ScoreNetwork(HeatFlow(samplers.INSIDE, 0.1, 1.0), 8, smooth)
    random = np.random.default_rng(0)
    s, u = random.random(20_000), random.random(20_000)
    squares = []
    for batch in np.array_split(np.argsort(s), 400):  # times of a batch differ by 1/400
        t = s[batch].mean()
        x = net.flow.quantile(t, u[batch])
        squares.append((net(t, x) - net.flow.score(t, x)) ** 2)
    sampled = np.concatenate(squares)
    deviation = sampled.std() / np.sqrt(sampled.size)
    assert abs(sampled.mean() - net.loss(20)) < 4.0 * deviation


def test_elements_beside_the_jumps_lose_accuracy(monkeypatch):
    # The trap: cells that are no multiple of the network's.
    flow = HeatFlow(samplers.INSIDE)
    net, off = ScoreNetwork(flow, 8), ScoreNetwork(flow, 8)
    good = reversal.sde_figures(SELF, (), net, Grid(64, 16))[0]
    fine = reversal.sde_figures(SELF, (), net, Grid(256, 32))[0]
    monkeypatch.setattr(reversal, "interval", lambda comm, n: interval(comm, 67))
    bad = reversal.sde_figures(SELF, (), off, Grid(64, 16))[0]
    assert abs(bad - fine) > 20.0 * abs(good - fine)
