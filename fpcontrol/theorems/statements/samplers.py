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

At a node where :math:`\log p` has a maximum the score jumps downward: labels of the ODE arrive from
both sides and stay, an atom. (Gaps open where the score jumps upward, and at walls.) Its density is
in no L2: the L2 error grows with the number of bins at every n, while :math:`W_2\to0`. As the mode
wanders from node to node, an atom is set free and wanders with it. What fails is not the ODE but
this kind of approximation: a network that is accurate in the derivative of the score converges
through both (control).

Traps. Data with modes at the walls make their atoms there, and the L2 error inside hardly grows:
choose data with modes inside. An integrator with error control chatters at the jumps: labels are
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
from fpcontrol.theorems.framework.checks import Line, Panel, Row, Study
from fpcontrol.theorems.framework.experiments import Experiment
from fpcontrol.theorems.framework.resolution import Grid, measured, slopes
from fpcontrol.theorems.runs.reversal import (
    BINS,
    ode_bound,
    ode_figures,
    ode_sample,
    sde_binned_errors,
    sde_density,
    sde_errors,
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
    labels: Grid | None = None,
) -> Study:
    r"""Piecewise-constant scores: rates of the SDE, atoms of the ODE.

    Args:
        comm: Communicator.
        cosines: Data, see ``HeatFlow``; modes inside.
        D: Diffusivity of the noising.
        t1: How long it lasts.
        networks: Numbers of cells n, ascending.
        growth: Least factor of the ODE's L2 error from 250 to 4000 bins (4 for atoms alone).
        grid: Cells and steps of the SDE's density.
        labels: Label cells and steps of the ODE.

    Raises:
        ValueError: For networks that do not resolve the data.
    """
    flow = HeatFlow(cosines or INSIDE, D, t1)
    least = check_networks(networks, flow.cosines)
    grid, labels = grid or elements(flow), labels or Grid(4000, 100)
    rows: list[Row] = []
    l2, kl, w2, lines = [], [], [], []
    for n in networks:
        net = ScoreNetwork(flow, n)
        sde, gap = measured(partial(sde_errors, comm, net), grid)
        loss, loss_row = loss_and_check(net)
        rows += [
            Row(f"SDE: L2 error, n={n}", sde[0], discretization_error=gap[0]),
            loss_row,
            Row(f"SDE: KL against D J, n={n}", sde[1], bound=D * loss, discretization_error=gap[1]),
        ]
        l2.append((sde[0], gap[0] / sde[0]))
        kl.append((sde[1], gap[1] / sde[1]))

        def in_bins(at: Grid, net: ScoreNetwork = net) -> Array:
            return sde_binned_errors(comm, sde_density(comm, net, at), flow, BINS)

        binned, apart = measured(in_bins, grid)
        rise = binned[-1] / binned[0]
        quantity = f"control, SDE: growth of the L2 error from {BINS[0]} to {BINS[-1]} bins, n={n}"
        error = rise * float((apart / binned)[[0, -1]].sum())
        # Errors oscillate with the cells: bins of 1/250 average over a quarter of one at n = 64.
        rows += [
            Row(quantity, rise, bound=1.1, discretization_error=error),
            Row(f"SDE: W2, n={n}", sde[2], discretization_error=gap[2]),
        ]

        ode, gap = measured(partial(ode_figures, net, BINS), labels)
        first, last = ode[4], ode[-1]
        error = (gap[4] / first + gap[-1] / last) * last / first
        quantity = f"ODE: growth of the L2 error from {BINS[0]} to {BINS[-1]} bins, n={n}"
        rows += [
            Row(f"ODE: L2 error in {b} bins, n={n}", v, discretization_error=e)
            for b, v, e in zip(BINS, ode[4:], gap[4:], strict=True)
        ]
        rows += [
            Row(quantity, last / first, at_least=growth, discretization_error=error),
            Row(f"ODE: mass in atoms, n={n}", ode[2], discretization_error=gap[2]),
            atom_row(net, labels, ode[3], gap[3]),
            Row(f"ODE: W2, n={n}", ode[0], discretization_error=gap[0]),
            Row(f"ODE: farthest label, n={n}", ode[1], None, ode_bound(net), None, gap[1]),
        ]
        w2.append((ode[0], gap[0] / ode[0]))
        lines += [
            Line(BINS, tuple(ode[4:]), f"ODE, n={n}", "o-"),
            Line(BINS, tuple(binned), f"SDE, n={n}", "s--"),
        ]
    # Acceptance: rates 2 +- 0.2 in L2 and, twice that, 4 +- 0.4 in KL.
    rows += rate_rows("SDE: rate in L2", networks, l2, 2.0, least)
    rows += rate_rows("SDE: rate in KL", networks, kl, 4.0, least)
    rows += rate_rows("ODE: rate in W2", networks, w2, None, least)
    growing = Panel(
        "L2 error of the same networks, as bins get narrow",
        "bins",
        "L2 error",
        tuple(lines),
        "log",
        "log",
    )
    claim = (
        r"One score network: the SDE's L2 error falls as $n^{-2}$, the ODE has atoms at every n: "
        r"its L2 error grows with the number of bins, and only $W_2\to0$."
    )
    panels = (density_panel(comm, ScoreNetwork(flow, networks[0]), grid, labels), growing)
    name = f"the same network through both samplers, D={D:g}, T={t1:g}"
    return Study(name, claim, "own", tuple(rows), panels)


def loss_and_check(net: ScoreNetwork) -> tuple[float, Row]:
    """Score-matching loss, and its comparison with the form that knows no score."""
    steps = math.ceil(25.0 * net.flow.decay)
    loss, other = net.loss(steps), net.implicit_loss(2 * steps, 10)
    error = abs(loss - net.loss(2 * steps, 10)) + abs(other - net.implicit_loss(steps))
    return loss, Row(f"J by parts, n={net.n}", loss, other, None, None, error, 1e-4)


def atom_row(net: ScoreNetwork, labels: Grid, mass: float, error: float) -> Row:
    """The atom nearest to the mode, against small steps.

    A report where it is at no node, or made of too few of the 64 labels a cell of ``stepped_atom``.
    """
    quantity = f"ODE: atom nearest to the mode, n={net.n}"
    place, _ = ode_sample(net, labels.finer()).atom_at(net.flow.mode)
    if abs(net.n * place - round(net.n * place)) > 1e-9 or 16.0 * net.n * mass < 1.0:
        return Row(quantity, mass, discretization_error=error)
    stepped, more = stepped_atom(net, place)
    return Row(quantity, mass, stepped, None, None, error + more, 0.02)


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


def rate_rows(
    quantity: str,
    networks: Sequence[int],
    errors: Sequence[tuple[float, float]],
    rate: float | None,
    least: int,
) -> list[Row]:
    """Rates between neighbours, to a tenth, from errors with relative accuracies.

    Without a rate they must be at least 1, the order of the bound of ``ode_bound``. Those from
    fewer than ``least`` cells are reported.
    """
    values, accuracies = np.array(errors).T
    rows = []
    for i, slope in enumerate(slopes(np.array(networks, dtype=float), values)):
        e = accuracies[i : i + 2].sum() / math.log(networks[i + 1] / networks[i])
        where = f"{quantity}, n={networks[i]} to {networks[i + 1]}"
        if networks[i] < least:
            rows += [Row(where, -slope, discretization_error=e)]
        elif rate is None:
            rows += [Row(where, -slope, at_least=1.0, discretization_error=e)]
        else:
            rows += [Row(where, -slope, rate, None, None, e, 0.1)]
    return rows


def density_panel(comm: MPI.Comm, net: ScoreNetwork, grid: Grid, labels: Grid) -> Panel:
    """Densities of both samplers through one network, and the data. Collective."""
    rho = sde_density(comm, net, grid)
    g = Elements(rho.function_space, 1)
    parts = comm.allgather(np.column_stack([g.points[:, 0], g.evaluate(rho.x.array).ravel()]))
    x, sde = np.unique(np.concatenate(parts), axis=0).T
    edges = np.linspace(0.0, 1.0, 201)
    middle = 0.5 * (edges[1:] + edges[:-1])
    ode = ode_sample(net, labels).masses(edges) / np.diff(edges)
    return Panel(
        f"One network with {net.n} cells",
        "x",
        "density",
        (
            Line(tuple(middle), tuple(ode), "reverse ODE, 200 bins", "-"),
            Line(tuple(x), tuple(sde), "reverse SDE", "-"),
            Line(tuple(x), tuple(net.flow.density(0.0, x)), "data", "--"),
        ),
    )


def continuous_score(
    comm: MPI.Comm,
    *,
    cosines: Mapping[int, float] | None = None,
    D: float = 0.1,
    t1: float = 1.0,
    networks: Sequence[int] = (8, 16, 32, 64),
    grid: Grid | None = None,
    labels: Grid | None = None,
) -> Study:
    r"""Control: piecewise-linear, continuous scores converge in L2 through both samplers.

    The derivative of the score's error is of first order in 1/n, and averages out along the flow
    save near the modes, where labels do not pass cells: a rate between 1 and 2.

    Args:
        comm: Communicator.
        cosines: Data, see ``HeatFlow``.
        D: Diffusivity of the noising.
        t1: How long it lasts.
        networks: Numbers of cells n, ascending.
        grid: Cells and steps of the SDE's density.
        labels: Label cells and steps of the ODE.

    Raises:
        ValueError: For networks that do not resolve the data.
    """
    flow = HeatFlow(cosines or INSIDE, D, t1)
    least = check_networks(networks, flow.cosines)
    grid, labels = grid or elements(flow), labels or Grid(4000, 100)
    rows: list[Row] = []
    sde_l2, ode_l2 = [], []
    for n in networks:
        net = ScoreNetwork(flow, n, smooth=True)
        sde, gap = measured(partial(sde_errors, comm, net), grid)
        loss, loss_row = loss_and_check(net)
        rows += [
            Row(f"SDE: L2 error, n={n}", sde[0], discretization_error=gap[0]),
            loss_row,
            Row(f"SDE: KL against D J, n={n}", sde[1], bound=D * loss, discretization_error=gap[1]),
        ]
        sde_l2.append((sde[0], gap[0] / sde[0]))
        ode, gap = measured(partial(ode_figures, net, BINS[1:]), labels)
        coarse, fine = ode[4:]
        rows += [
            Row(f"ODE: L2 error in {BINS[-1]} bins, n={n}", fine, discretization_error=gap[-1]),
            Row(f"ODE: mass in atoms, n={n}", ode[2], 0.0, None, None, gap[2], 1e-6),
            Row(
                f"ODE: growth of the L2 error from {BINS[1]} to {BINS[-1]} bins, n={n}",
                fine / coarse,
                1.0,
                discretization_error=(gap[-1] / fine + gap[-2] / coarse),
                tolerance=0.03,  # what bins of 1/1000 hide of cells of 1/64
            ),
        ]
        ode_l2.append((fine, gap[-1] / fine))
    rows += rate_rows("SDE: rate in L2", networks, sde_l2, 2.0, least)
    rows += rate_rows("ODE: rate in L2", networks, ode_l2, None, least)
    panel = Panel(
        "Continuous scores: both samplers converge",
        "n",
        "L2 error",
        (
            Line(tuple(networks), [v for v, _ in ode_l2], "ODE", "o-"),
            Line(tuple(networks), [v for v, _ in sde_l2], "SDE", "s-"),
        ),
        "log",
        "log",
    )
    claim = "Networks that are accurate in the derivative of the score converge through both."
    name = f"control: continuous scores, D={D:g}, T={t1:g}"
    return Study(name, claim, "own", tuple(rows), (panel,))


def experiments(quick: bool) -> list[Experiment]:
    """What ``fpcontrol verify`` runs for this statement.

    Args:
        quick: Fewer networks, fewer labels.
    """
    n = (8, 16) if quick else (8, 16, 32, 64)
    labels = Grid(2000, 50) if quick else Grid(8000, 200)
    return [
        Experiment(key, partial(study, networks=n, labels=labels))
        for key, study in (
            ("t1.samplers", same_network),
            ("t1.samplers.continuous", continuous_score),
            ("t1.samplers.atom", atoms.atom_at_a_mode),
            ("t1.samplers.walls", atoms.modes_at_walls),
        )
    ]
