"""Atoms of the reverse ODE of ``samplers``: one in closed form, and those at walls."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

from mpi4py import MPI

import numpy as np
from scipy import integrate

from fpcontrol.theorems.closed_forms.score_networks import HeatFlow, ScoreNetwork
from fpcontrol.theorems.framework import Figure, Grid, Study, measure_each
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
    markers: Grid | None = None,
) -> Study:
    r"""Data :math:`1 - A\cos2\pi x`, whose mode stays at 1/2: the atom in closed form.

    Markers within d of the mode arrive, as many bins grow narrow the L2 error is the atom's mass
    times their root, and

    .. math:: d = Dn\int_0^T\log\frac{p_s(1/2)}{p_s(1/2 - 1/n)}\,ds .

    All ranks do the same.

    Args:
        amplitude: A, in (0, 1).
        networks: Numbers of cells n, even, ascending.
        bins: Many.

    Raises:
        ValueError: If markers from beyond the next cell arrive, or n is odd.
    """
    flow, markers = HeatFlow({2: -amplitude}, D, t1), markers or Grid(2000, 50)
    study = Study(
        f"atom at a mode, D={D:g}, T={t1:g}",
        "The reverse ODE gathers mass of order 1/n in one point: no density, at any n.",
    )
    exact = [_mass_within_reach(flow, n) for n in networks]
    nets = [ScoreNetwork(flow, n) for n in networks]
    _, _, total, atom, l2 = measure_each(partial(ode_figures, (bins,)), nets, markers).T
    # Nested cells may round the ends of an atom alike: a divided cell at each is added.
    atom = Figure(atom.value, atom.error + 2.0 * DIVISIONS**-PASSES / markers.cells)
    outside = Figure((total - atom).value, total.error)
    study.equals("mass of the atom, n={}", atom, exact, 1e-3, over=networks)
    study.equals("mass outside it in atoms, n={}", outside, 0.0, 1e-6, over=networks)
    study.equals(
        f"L2 error over root of {bins} bins, n={{}}",
        l2 / math.sqrt(bins),
        exact,
        0.02,  # the rest of the density is 1e-3 of the atom's at this width
        over=networks,
    )
    curves = {"closed form": exact, "markers": atom}
    study.curves("The atom of the reverse ODE at the mode", "n", "mass", networks, curves, "xy")
    return study


def _mass_within_reach(flow: HeatFlow, n: int) -> float:
    """Mass at T of markers that arrive at the mode."""
    half, h = np.array(0.5), 1.0 / n

    def speed(s: float) -> float:
        return flow.D / h * math.log(flow.density(s, half) / flow.density(s, half - h))

    reach = integrate.quad(speed, 0.0, flow.t1, epsabs=1e-14)[0]
    if n % 2 or reach > h:
        amplitude = -flow.cosines[2]
        raise ValueError(f"n = {n!r} must be even, and amplitude = {amplitude:g} smaller.")
    below = flow.cumulative(flow.t1, half) - flow.cumulative(flow.t1, half - reach)
    return 2.0 * float(below)


def modes_at_walls(
    comm: MPI.Comm,
    *,
    cosines: Mapping[int, float] | None = None,
    D: float = 0.1,
    t1: float = 1.0,
    networks: Sequence[int] = (8, 16, 32, 64),
    markers: Grid | None = None,
) -> Study:
    r"""Trap: with modes at the walls the atoms are there, and little is to be seen inside.

    All ranks do the same.

    Args:
        cosines: Data, see ``HeatFlow``, with modes at both walls.
    """
    flow = HeatFlow(cosines or AT_WALLS, D, t1)
    study = Study(
        f"trap: modes at walls, D={D:g}, T={t1:g}",
        "Outward drifts make atoms at the walls, which are no effect of the network's jumps.",
    )

    def figures(n: int, at: Grid) -> Array:
        sample = ode_sample(ScoreNetwork(flow, n), at)
        places, masses = sample.atoms
        walls = masses[(places < 1e-12) | (places > 1.0 - 1e-12)].sum()
        whole, inner = (growth_of(sample, *ends) for ends in ((0.0, 1.0), (0.05, 0.95)))
        return np.array([walls, walls / masses.sum(), whole, inner])

    walls, share, whole, inner = measure_each(figures, networks, markers or Grid(4000, 100)).T
    study.report("mass of atoms at the walls, n={}", walls, over=networks)
    study.above("their share of all atoms, n={}", share, 0.75, over=networks)
    study.above("growth of the L2 error with bins, n={}", whole, 1.5, over=networks)
    study.below("growth of it inside, n={}", inner, 1.4, over=networks)
    return study


def growth_of(sample: Sample, lower: float, upper: float) -> float:
    """Of the L2 error between ``lower`` and ``upper``, from the fewest to the most bins."""
    few, *_, many = (round(b * (upper - lower)) for b in BINS)
    return sample.l2_error(many, lower, upper) / sample.l2_error(few, lower, upper)
