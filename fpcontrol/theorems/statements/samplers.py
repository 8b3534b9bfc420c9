r"""One network through both samplers: the reverse SDE converges in L2, the reverse ODE makes atoms.

Data :math:`p_0` on [0, 1] are noised by the heat flow with reflection, :math:`\partial_sp =
D\,\partial_{xx}p`, up to T. A network on n cells knows :math:`\log p_s` by linear interpolation
(what hinges make of it); its score :math:`s_n` is constant in each cell. Both samplers start from
the exact :math:`p_T` and take the same network backward in time:

.. math:: dX = 2D s_n\,dt + \sqrt{2D}\,dW \quad\text{(SDE)},\qquad \dot X = D s_n \quad\text{(ODE)}.

A statement of the kind of Theorem 3 of [1] (reconstructed) compares them: accuracy of the score in
L2 suffices for the SDE in L2, and for the ODE in :math:`W_2` only. What is checked is derived here
(own): rates and atoms. With the score-matching loss
:math:`J = \int_0^T E_{p_s}|s_n - \partial_x\log p_s|^2ds`, (E4) of ``continuity`` reads
:math:`\mathrm{KL}(p_0|p_{SDE}) \le DJ`. J is of order :math:`n^{-2}`; the errors of the score
oscillate with the cells, and the SDE's are :math:`n^{-2}` in L2, :math:`n^{-4}` in KL.

At a node where :math:`\log p` has a maximum the score jumps downward: the ODE's markers arrive from
both sides and stay, an atom. (Gaps open where the score jumps upward, and at walls.) Its density is
in no L2: the L2 error grows with the number of bins at every n, while :math:`W_2\to0`. As the mode
wanders from node to node, an atom is set free and wanders with it. What fails is not the ODE but
this kind of approximation: a network that is accurate in the derivative of the score converges
through both (control).

Traps. Data with modes at the walls make their atoms there, and the L2 error inside hardly grows:
choose data with modes inside. An integrator with error control chatters at the jumps: markers are
carried from event to event (``sliding``). Elements must have a node at every jump.

References:
    [1] K. Elamvazhuthi, S. Oymak, F. Pasqualetti, Noise in the reverse process improves the
    approximation capabilities of diffusion models, arXiv:2312.07851.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial

from mpi4py import MPI

import numpy as np

from fpcontrol.discretization.elements import Elements
from fpcontrol.theorems.closed_forms.score_networks import HeatFlow, ScoreNetwork
from fpcontrol.theorems.experiments import atoms
from fpcontrol.theorems.framework import Experiment, Figure, Grid, Line, Study, measure_each
from fpcontrol.theorems.runs.reversal import (
    BINS,
    ode_bound,
    ode_figures,
    ode_sample,
    sde_density,
    sde_figures,
    stepped_atom,
)
from fpcontrol.typing import Array

# Coefficients of cos(j pi x): a mode inside.
INSIDE = {1: 0.3, 2: -0.5}


def same_network(
    comm: MPI.Comm,
    *,
    cosines: Mapping[int, float] | None = None,
    D: float = 0.1,
    t1: float = 1.0,
    networks: Sequence[int] = (8, 16, 32, 64),
    growth: float = 2.0,
    grid: Grid | None = None,
    markers: Grid | None = None,
) -> Study:
    r"""Piecewise-constant scores: rates of the SDE, atoms of the ODE.

    Args:
        cosines: Data, see ``HeatFlow``; modes inside.
        growth: Least factor of the ODE's L2 error from 250 to 4000 bins (4 for atoms alone).

    Raises:
        ValueError: For networks that do not resolve the data.
    """
    flow = HeatFlow(cosines or INSIDE, D, t1)
    least = check_networks(networks, flow.cosines)
    grid, markers = grid or elements(flow), markers or Grid(4000, 100)
    nets = [ScoreNetwork(flow, n) for n in networks]
    study = Study(
        f"the same network through both samplers, D={D:g}, T={t1:g}",
        r"One score network: the SDE's L2 error falls as $n^{-2}$, the ODE has atoms at every n: "
        r"its L2 error grows with the number of bins, and only $W_2\to0$.",
    )
    few, many = BINS[0], BINS[-1]

    l2, kl, w2, *sde_binned = measure_each(partial(sde_figures, comm, BINS), nets, grid).T
    study.report("SDE: L2 error, n={}", l2, over=networks)
    loss = check_loss(study, nets)
    study.below("SDE: KL against D J, n={}", kl, D * loss, over=networks)
    # Errors oscillate with the cells: bins of 1/250 average over a quarter of one at n = 64.
    rise = f"growth of the L2 error from {few} to {many} bins, n={{}}"
    study.below(f"control, SDE: {rise}", sde_binned[-1] / sde_binned[0], 1.1, over=networks)
    study.report("SDE: W2, n={}", w2, over=networks)

    figures = measure_each(partial(ode_figures, BINS), nets, markers)
    w2, farthest, mass, atom, *ode_binned = figures.T
    for bins, error in zip(BINS, ode_binned, strict=True):
        study.report(f"ODE: L2 error in {bins} bins, n={{}}", error, over=networks)
    study.above(f"ODE: {rise}", ode_binned[-1] / ode_binned[0], growth, over=networks)
    study.report("ODE: mass in atoms, n={}", mass, over=networks)
    for net, figure in zip(nets, atom, strict=True):
        check_atom(study, net, markers, figure)
    study.report("ODE: W2, n={}", w2, over=networks)
    bounds = [ode_bound(net) for net in nets]
    study.below("ODE: farthest marker, n={}", farthest, bounds, over=networks)

    # Acceptance: rates 2 +- 0.2 in L2 and, twice that, 4 +- 0.4 in KL.
    check_rates(study, "SDE: rate in L2", networks, l2, 2.0, least)
    check_rates(study, "SDE: rate in KL", networks, kl, 4.0, least)
    check_rates(study, "ODE: rate in W2", networks, w2, None, least)
    draw_densities(study, comm, nets[0], grid, markers)
    lines = [
        Line(BINS, [error.value[i] for error in errors], f"{name}, n={n}", style)
        for i, n in enumerate(networks)
        for name, errors, style in (("ODE", ode_binned, "o-"), ("SDE", sde_binned, "s--"))
    ]
    title = "L2 error of the same networks, as bins get narrow"
    study.picture(title, "bins", "L2 error", *lines, log="xy")
    return study


def continuous_score(
    comm: MPI.Comm,
    *,
    cosines: Mapping[int, float] | None = None,
    D: float = 0.1,
    t1: float = 1.0,
    networks: Sequence[int] = (8, 16, 32, 64),
    grid: Grid | None = None,
    markers: Grid | None = None,
) -> Study:
    r"""Control: piecewise-linear, continuous scores converge in L2 through both samplers.

    The derivative of the score's error is of first order in 1/n, and averages out along the flow
    save near the modes, where markers do not pass cells: a rate between 1 and 2.

    Raises:
        ValueError: For networks that do not resolve the data.
    """
    flow = HeatFlow(cosines or INSIDE, D, t1)
    least = check_networks(networks, flow.cosines)
    grid, markers = grid or elements(flow), markers or Grid(4000, 100)
    nets = [ScoreNetwork(flow, n, smooth=True) for n in networks]
    study = Study(
        f"control: continuous scores, D={D:g}, T={t1:g}",
        "Networks that are accurate in the derivative of the score converge through both.",
    )
    l2, kl, _ = measure_each(partial(sde_figures, comm, ()), nets, grid).T
    study.report("SDE: L2 error, n={}", l2, over=networks)
    study.below("SDE: KL against D J, n={}", kl, D * check_loss(study, nets), over=networks)

    _, _, mass, _, coarse, fine = measure_each(partial(ode_figures, BINS[1:]), nets, markers).T
    few, many = BINS[1:]
    study.report(f"ODE: L2 error in {many} bins, n={{}}", fine, over=networks)
    study.equals("ODE: mass in atoms, n={}", mass, 0.0, 1e-6, over=networks)
    study.equals(
        f"ODE: growth of the L2 error from {few} to {many} bins, n={{}}",
        fine / coarse,
        1.0,
        0.03,  # what bins of 1/1000 hide of cells of 1/64
        over=networks,
    )
    check_rates(study, "SDE: rate in L2", networks, l2, 2.0, least)
    check_rates(study, "ODE: rate in L2", networks, fine, None, least)
    title = "Continuous scores: both samplers converge"
    study.curves(title, "n", "L2 error", networks, {"ODE": fine, "SDE": l2}, "xy")
    return study


# -- parts of both ---------------------------------------------------------------------------------


def elements(flow: HeatFlow) -> Grid:
    """Cells and steps of the SDE's density: so many steps for each e-fold of the fastest wave."""
    return Grid(256, math.ceil(2.5 * flow.decay))


def check_networks(networks: Sequence[int], cosines: Mapping[int, float]) -> int:
    """The least number of cells from which rates are seen: four for each half wave of the data.

    Raises:
        ValueError: If fewer than two networks have as many.
    """
    least = 4 * max(cosines)
    if sum(n >= least for n in networks) < 2:
        raise ValueError(
            f"networks = {tuple(networks)}: rates are seen from {least} cells on, four for each of "
            f"the {max(cosines)} half waves of the data; give two numbers from there on."
        )
    return least


def check_loss(study: Study, nets: Sequence[ScoreNetwork]) -> Array:
    """Compare the score-matching losses, which it returns, with the form that knows no score."""
    losses, others = [], []
    for net in nets:
        steps = math.ceil(25.0 * net.flow.decay)
        loss, other = net.loss(steps), net.implicit_loss(2 * steps, 10)
        losses.append(Figure(np.array(loss), loss - net.loss(2 * steps, 10)))
        others.append(Figure(np.array(other), other - net.implicit_loss(steps)))
    found = Figure.stack(losses)
    study.equals("J by parts, n={}", found, Figure.stack(others), 1e-4, over=[n.n for n in nets])
    return found.value


def check_atom(study: Study, net: ScoreNetwork, markers: Grid, mass: Figure) -> None:
    """The atom nearest to the mode, against small steps.

    A report where it is at no node, or of too few of the 64 markers a cell of ``stepped_atom``.
    """
    quantity = f"ODE: atom nearest to the mode, n={net.n}"
    place, _ = ode_sample(net, markers.finer()).atom_at(net.flow.mode)
    at_node = abs(net.n * place - round(net.n * place)) <= 1e-9
    if at_node and 16.0 * net.n * float(mass) >= 1.0:
        study.equals(quantity, mass, stepped_atom(net, place), 0.02)
    else:
        study.report(quantity, mass)


def check_rates(
    study: Study,
    quantity: str,
    networks: Sequence[int],
    errors: Figure,
    rate: float | None,
    least: int,
) -> None:
    """Rates between neighbours, to a tenth.

    Without a rate they must be at least 1, the order of the bound of ``ode_bound``. Those from
    fewer than ``least`` cells are reported.
    """
    for i, slope in enumerate(errors.slopes(networks)):
        where = f"{quantity}, n={networks[i]} to {networks[i + 1]}"
        if networks[i] < least:
            study.report(where, -slope)
        elif rate is None:
            study.above(where, -slope, 1.0)
        else:
            study.equals(where, -slope, rate, 0.1)


def draw_densities(
    study: Study, comm: MPI.Comm, net: ScoreNetwork, grid: Grid, markers: Grid
) -> None:
    """Densities of both samplers through one network, and the data. Collective."""
    rho = sde_density(comm, net, grid)
    g = Elements(rho.function_space, 1)
    parts = comm.allgather(np.column_stack([g.points[:, 0], g.evaluate(rho.x.array).ravel()]))
    x, sde = np.unique(np.concatenate(parts), axis=0).T
    edges = np.linspace(0.0, 1.0, 201)
    ode = ode_sample(net, markers).masses(edges) / np.diff(edges)
    study.picture(
        f"One network with {net.n} cells",
        "x",
        "density",
        Line(0.5 * (edges[1:] + edges[:-1]), ode, "reverse ODE, 200 bins", "-"),
        Line(x, sde, "reverse SDE", "-"),
        Line(x, net.flow.density(0.0, x), "data", "--"),
    )


FEW = {"networks": (8, 16), "markers": Grid(2000, 50)}
EXPERIMENTS = [
    Experiment(key, study, markers=Grid(8000, 200), quick=FEW)
    for key, study in (
        ("t1.samplers", same_network),
        ("t1.samplers.continuous", continuous_score),
        ("t1.samplers.atom", atoms.atom_at_a_mode),
        ("t1.samplers.walls", atoms.modes_at_walls),
    )
]
