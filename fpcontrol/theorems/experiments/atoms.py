"""Atoms of the reverse ODE of ``samplers``: one in closed form, and those at walls."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

from mpi4py import MPI

import numpy as np
from scipy import integrate

from fpcontrol.theorems.closed_forms.score_networks import HeatFlow, ScoreNetwork
from fpcontrol.theorems.framework.checks import Line, Panel, Row, Study
from fpcontrol.theorems.framework.resolution import Grid, measured
from fpcontrol.theorems.runs.reversal import (
    BINS,
    DIVISIONS,
    PASSES,
    Sample,
    ode_figures,
    ode_sample,
)
from fpcontrol.typing import Array

# Coefficients of cos(j pi x): modes at both walls.
AT_WALLS = {2: 0.5, 3: -0.3, 5: 0.15}


def atom_at_a_mode(
    comm: MPI.Comm,
    *,
    amplitude: float = 0.5,
    D: float = 0.1,
    t1: float = 1.0,
    networks: Sequence[int] = (8, 16, 32, 64),
    bins: int = 1 << 18,
    labels: Grid | None = None,
) -> Study:
    r"""Data :math:`1 - A\cos2\pi x`, whose mode stays at 1/2: the atom in closed form.

    Labels within d of the mode arrive, as many bins grow narrow the L2 error is the atom's mass
    times their root, and

    .. math:: d = Dn\int_0^T\log\frac{p_s(1/2)}{p_s(1/2 - 1/n)}\,ds .

    Args:
        comm: Communicator; all ranks do the same.
        amplitude: A, in (0, 1).
        D: Diffusivity of the noising.
        t1: How long it lasts.
        networks: Numbers of cells n, even, ascending.
        bins: Many.
        labels: Label cells and steps of the ODE.

    Raises:
        ValueError: If labels from beyond the next cell arrive, or n is odd.
    """
    flow, labels = HeatFlow({2: -amplitude}, D, t1), labels or Grid(2000, 50)
    rows, masses, exact = [], [], []
    for n in networks:
        half, h = np.array(0.5), 1.0 / n

        def speed(s: float, half: Array = half, h: float = h) -> float:
            return D / h * math.log(flow.density(s, half) / flow.density(s, half - h))

        reach = integrate.quad(speed, 0.0, t1, epsabs=1e-14)[0]
        if n % 2 or reach > h:
            raise ValueError(f"n = {n!r} must be even, and amplitude = {amplitude:g} smaller.")
        mass = 2.0 * float(flow.cumulative(t1, half) - flow.cumulative(t1, half - reach))
        net = ScoreNetwork(flow, n)
        value, gap = measured(partial(ode_figures, net, (bins,)), labels)
        _, _, total, atom, l2 = value
        # Nested cells may round the ends of an atom alike: a divided cell at each is added.
        error = gap[3] + 2.0 * DIVISIONS**-PASSES / labels.cells
        rows += [
            Row(f"mass of the atom, n={n}", atom, mass, None, None, error, 1e-3),
            Row(f"mass outside it in atoms, n={n}", total - atom, 0.0, None, None, gap[2], 1e-6),
            Row(
                f"L2 error over root of {bins} bins, n={n}",
                l2 / math.sqrt(bins),
                mass,
                discretization_error=gap[4] / math.sqrt(bins),
                tolerance=0.02,  # the rest of the density is 1e-3 of the atom's at this width
            ),
        ]
        masses.append(float(atom))
        exact.append(mass)
    panel = Panel(
        "The atom of the reverse ODE at the mode",
        "n",
        "mass",
        (
            Line(tuple(networks), exact, "closed form", "-"),
            Line(tuple(networks), masses, "labels", "o"),
        ),
        "log",
        "log",
    )
    claim = "The reverse ODE gathers mass of order 1/n in one point: no density, at any n."
    return Study(f"atom at a mode, D={D:g}, T={t1:g}", claim, "own", tuple(rows), (panel,))


def modes_at_walls(
    comm: MPI.Comm,
    *,
    cosines: Mapping[int, float] | None = None,
    D: float = 0.1,
    t1: float = 1.0,
    networks: Sequence[int] = (8, 16, 32, 64),
    labels: Grid | None = None,
) -> Study:
    r"""Trap: with modes at the walls the atoms are there, and little is to be seen inside.

    Args:
        comm: Communicator; all ranks do the same.
        cosines: Data, see ``HeatFlow``, with modes at both walls.
        D: Diffusivity of the noising.
        t1: How long it lasts.
        networks: Numbers of cells n, ascending.
        labels: Label cells and steps of the ODE.
    """
    flow, labels = HeatFlow(cosines or AT_WALLS, D, t1), labels or Grid(4000, 100)
    rows = []
    for n in networks:

        def figures(g: Grid, n: int = n) -> Array:
            sample = ode_sample(ScoreNetwork(flow, n), g)
            places, masses = sample.atoms
            walls = masses[(places < 1e-12) | (places > 1.0 - 1e-12)].sum()
            whole, inner = (growth_of(sample, *ends) for ends in ((0.0, 1.0), (0.05, 0.95)))
            return np.array([walls, walls / masses.sum(), whole, inner])

        value, gap = measured(figures, labels)
        rows += [
            Row(f"mass of atoms at the walls, n={n}", value[0], discretization_error=gap[0]),
            Row(f"their share of all atoms, n={n}", value[1], None, None, 0.75, gap[1]),
            Row(f"growth of the L2 error with bins, n={n}", value[2], None, None, 1.5, gap[2]),
            Row(f"growth of it inside, n={n}", value[3], bound=1.4, discretization_error=gap[3]),
        ]
    claim = "Outward drifts make atoms at the walls, which are no effect of the network's jumps."
    return Study(f"trap: modes at walls, D={D:g}, T={t1:g}", claim, "own", tuple(rows))


def growth_of(sample: Sample, lower: float, upper: float) -> float:
    """Of the L2 error between ``lower`` and ``upper``, from the fewest to the most bins."""
    few, *_, many = (round(b * (upper - lower)) for b in BINS)
    return sample.l2_error(many, lower, upper) / sample.l2_error(few, lower, upper)
