r"""Negative controls for the approximation of trajectories, all at :math:`\sigma = 0`.

Where no effect is expected, none is seen: a ripple that stays in place is averaged out by the flow
(``standing_ripple``), and fields that converge with their derivatives give densities that converge
in L2 (``benign_sequence``). And where an effect is seen that is not there: the upwind scheme
(``upwind_trap``), the one place where a mesh is used without noise, to warn of it.
"""

import math
from collections.abc import Sequence

from mpi4py import MPI

import numpy as np

from fpcontrol.characteristics.flow import Flow, carry
from fpcontrol.theorems.closed_forms.ripples import GOALS, LineDrift, comoving_errors, source_edges
from fpcontrol.theorems.framework.checks import Line, Panel, Row, Study
from fpcontrol.theorems.framework.resolution import Grid, markers_between, measured, slopes
from fpcontrol.typing import Array


def _in_space(comm: MPI.Comm, drift: LineDrift, cells: int) -> tuple[Array, Array]:
    """Relative L2 error and W2 at the last time, and what finer markers change in them."""
    profile, t1 = drift.profile, drift.t1

    def run(grid: Grid) -> Array:
        edges = source_edges(drift.a * t1, drift.k, grid.steps) if drift.comoving else ()
        markers = markers_between(comm, [0.0, 1.0, *edges], grid.cells, lambda x: np.ones(len(x)))
        rtol = 1e-7 / grid.steps**6  # the share of one of so many steps of order 8, and less
        flow = carry(markers, drift, [0.0, t1], rtol=rtol, atol=rtol)
        exact = profile.quantile(1.0, markers.points[:, 0])  # F_0(y) = y
        places = np.stack([markers.points, exact[:, None]])
        line = Flow(markers, flow.times, places, 0 * flow.density)
        whole = profile.integral(lambda x: profile.density(x) ** 2)
        error = flow.l2_errors(lambda t, x: profile.line(t / t1, x[:, 0])[0])[-1]
        return np.array([error / math.sqrt(whole), flow.wasserstein(line)[-1]])

    return measured(run, Grid(cells, 1))


def standing_ripple(
    comm: MPI.Comm,
    *,
    a: float = 2.0,
    t1: float = 1.0,
    frequencies: Sequence[int] = (4, 8, 16, 32),
    cells: int = 20,
) -> Study:
    r"""Negative control: a ripple that does not go with the flow is averaged out. Collective.

    Markers that cross the ripple at speed :math:`u` feel :math:`a\cos kx` as a phase of duration
    :math:`1/(ku)`. Only where :math:`u \lesssim a/k`, in layers of width :math:`\sim 1/k` at the
    walls, is the error of order 1, and beyond, at distance s, it is :math:`1/(ks)`: both leave
    :math:`k^{-1/2}` in L2. The same family that goes with the flow is carried in space, beside it.

    Args:
        comm: Communicator.
        a: Lipschitz constant of the ripple.
        t1: Last time.
        frequencies: Periods, ascending, at least two.
        cells: Cells of markers a period.
    """
    profile, k = GOALS["smooth"], 2 * np.pi * np.array(frequencies)
    runs: dict[bool, tuple[Array, Array]] = {}
    for comoving in (True, False):
        parts = [
            _in_space(comm, LineDrift(profile, t1, a, q, comoving), m * cells)
            for m, q in zip(frequencies, k, strict=True)
        ]
        fine, gap = np.array(parts).transpose(1, 2, 0)
        runs[comoving] = fine, gap
    (with_flow, gap), (l2, l2_gap) = runs[True], (runs[False][0][0], runs[False][1][0])
    rows = []
    for i, m in enumerate(frequencies):
        exact = comoving_errors(profile, a * t1, float(k[i]))
        for j, name in enumerate(("relative L2 error", "k W2")):
            scale = k[i] ** j
            rows.append(
                Row(
                    f"co-moving, carried in space: {name}, m = {m}",
                    float(scale * with_flow[j, i]),
                    predicted=float(exact[0][j]),
                    discretization_error=float(scale * gap[j, i] + exact[1][j]),
                    tolerance=1e-4,
                )
            )
    for name, scale, j in (("relative L2 error", np.ones(len(k)), 0), ("k W2", k, 1)):
        rows += [
            Row(f"standing: {name}, m = {m}", float(q * value), discretization_error=float(q * e))
            for m, q, value, e in zip(frequencies, scale, *np.array(runs[False])[:, j], strict=True)
        ]
    rows.append(
        Row(
            "standing: rate of L2 in k, last two",
            float(slopes(k, l2)[-1]),
            predicted=-0.5,
            discretization_error=float(np.sum(l2_gap[-2:] / l2[-2:])) / math.log(k[-1] / k[-2]),
            tolerance=0.1,
        )
    )
    return Study(
        f"standing ripple, sigma = 0, a = {a:g}, T = {t1:g}",
        r"Control: a ripple fixed in space is averaged out along a flow that crosses it; without "
        r"noise the $L^2$ error falls like $k^{-1/2}$.",
        "own",
        tuple(rows),
        (
            Panel(
                "Without noise: the ripple must go with the flow",
                "periods m",
                "relative L2 error at T",
                (
                    Line(frequencies, with_flow[0], "co-moving"),
                    Line(frequencies, l2, "standing", "s-"),
                    Line(frequencies, (l2[-1] * np.sqrt(k[-1] / k)).tolist(), "slope -1/2", "--"),
                ),
                "log",
                "log",
            ),
        ),
    )


def benign_sequence(
    comm: MPI.Comm, *, t1: float = 1.0, indices: Sequence[int] = (4, 8, 16, 32), cells: int = 200
) -> Study:
    r"""Negative control: :math:`v(1 + 1/m)` converges with its derivative. Collective.

    Then L2 converges without noise, like :math:`1/m`.

    Args:
        comm: Communicator.
        t1: Last time.
        indices: The m, ascending, at least two.
        cells: Cells of markers.
    """
    parts = [
        _in_space(comm, LineDrift(GOALS["smooth"], t1, excess=1.0 / m), cells) for m in indices
    ]
    fine, gap = np.array(parts).transpose(1, 2, 0)
    m = np.array(indices, dtype=float)
    rows = []
    for name, values, gaps in zip(("L2", "W2"), fine, gap, strict=True):
        rows += [
            Row(f"{name} error, m = {i}", float(v), discretization_error=float(e))
            for i, v, e in zip(indices, values, gaps, strict=True)
        ]
        rows.append(
            Row(
                f"rate of {name} in m, last two",
                float(slopes(m, values)[-1]),
                predicted=-1.0,
                discretization_error=float(np.sum(gaps[-2:] / values[-2:]))
                / math.log(m[-1] / m[-2]),
                # c/m (1 + b/m), where |b| is below .15 on this reference, whatever the time.
                tolerance=0.2 / m[-2],
            )
        )
    return Study(
        f"benign sequence, sigma = 0, T = {t1:g}",
        r"Control: for $v_m = (1 + 1/m) v$ the derivative converges too, and so do $L^2$ and "
        r"$W_2$, like $1/m$, without noise.",
        "own",
        tuple(rows),
    )


# -- the trap --------------------------------------------------------------------------------------


def upwind(n: int, m: int, a: float, t1: float, steps: int) -> float:
    r"""L2 error of the upwind scheme for the ripple on the uniform density. THE TRAP.

    First-order finite volumes, explicit. The fluxes add a diffusion :math:`|v|h/2`: sigma is not 0.

    Args:
        n: Number of cells.
        m: Periods.
        a: Strength.
        t1: Last time.
        steps: Time steps.
    """
    k, dt = 2 * np.pi * m, t1 / steps
    v = a / k * np.sin(k * np.arange(1, n) / n)  # faces; none at the walls
    right, left = np.maximum(v, 0.0), np.minimum(v, 0.0)
    rho = np.ones(n)
    for _ in range(steps):
        flux = right * rho[:-1] + left * rho[1:]
        rho[:-1] -= dt * n * flux
        rho[1:] += dt * n * flux
    return float(np.sqrt(np.mean((rho - 1.0) ** 2)))


def _along_characteristics(comm: MPI.Comm, m: int, a: float, t1: float, grid: Grid) -> float:
    """The same L2 error without a mesh."""
    k, rtol = 2 * np.pi * m, 1e-7 / grid.steps**6
    edges = [0.0, 1.0, *source_edges(a * t1, k, grid.steps)]
    flow = carry(
        markers_between(comm, edges, grid.cells, lambda x: np.ones(len(x))),
        lambda t, x: a / k * np.sin(k * x),
        [0.0, t1],
        divergence=lambda t, x: a * np.cos(k * x[:, 0]),
        rtol=rtol,
        atol=rtol,
    )
    return float(flow.l2_errors(lambda t, x: np.ones(len(x)))[-1])


def upwind_trap(
    comm: MPI.Comm,
    *,
    a: float = 2.0,
    t1: float = 1.0,
    frequencies: Sequence[int] = (1, 4, 16, 64),
    cells: int = 500,
) -> Study:
    r"""THE TRAP: on a mesh, upwinding shows an L2 convergence that is not there. Collective.

    On the uniform density the relative L2 error is :math:`\sqrt{\cosh aT-1}` for every frequency.
    An upwind scheme at a fixed number of cells shows an error that falls with the frequency: it
    is the theorem for the noise of the mesh, seen at kh alone. To first order in the time the
    diffusion :math:`|v|h/2` takes the share :math:`\frac2{3\pi}kh\,aT` of the wave
    :math:`at\cos kx`; what is left must be below :math:`1/(1 + \frac2{3\pi}kh\,aT)`. Never take it
    as evidence about :math:`\sigma = 0`.

    Args:
        comm: Communicator.
        a: Strength of the ripple.
        t1: Last time.
        frequencies: Periods, ascending; the second last a quarter of the last.
        cells: Finite volumes.

    Raises:
        ValueError: If the last two frequencies are others.
    """
    if len(frequencies) < 2 or frequencies[-1] != 4 * frequencies[-2]:
        raise ValueError(f"frequencies = {frequencies!r} must end with some m and 4 m.")
    exact = math.sqrt(math.cosh(a * t1) - 1.0)
    # The Courant number is below 1/2 for one period on the finer mesh, and dt is the same for all.
    steps = math.ceil(max(400.0, 2.0 * a * t1 * 4 * cells / (2 * np.pi * min(frequencies))))
    coarse, fine = ([upwind(n, m, a, t1, steps) for m in frequencies] for n in (cells, 4 * cells))
    halved = [upwind(cells, m, a, t1, 2 * steps) for m in frequencies]
    last, last_gap = measured(
        lambda grid: _along_characteristics(comm, frequencies[-1], a, t1, grid),
        Grid(16 * frequencies[-1], 1),
    )
    gap = np.abs(np.array(coarse) - halved).tolist()
    loss = 2.0 * math.pi * frequencies[-1] / cells * a * t1
    rows = [
        Row(
            f"characteristics, m = {frequencies[-1]}",
            last,
            predicted=exact,
            discretization_error=last_gap,
            tolerance=1e-4,
        )
    ]
    rows += [
        Row(f"TRAP: upwind, {cells} cells, m = {m} (exact {exact:.4f})", c, discretization_error=e)
        for m, c, e in zip(frequencies, coarse, gap, strict=True)
    ]
    rows += [
        Row(
            f"TRAP: share of the exact error that upwinding shows, m = {frequencies[-1]}",
            coarse[-1] / exact,
            bound=1.0 / (1.0 + 2.0 / (3.0 * math.pi) * loss),
            discretization_error=gap[-1] / exact,
        ),
        Row(
            f"the same with {4 * cells} cells: the mesh's noise, a function of kh alone",
            fine[-1],
            predicted=coarse[-2],
            # The same numbers a wave, but for round-off in each of the steps.
            discretization_error=steps * float(np.finfo(float).eps) * fine[-1],
            tolerance=1e-9,
        ),
    ]
    return Study(
        f"TRAP: upwind scheme at sigma = 0, a = {a:g}, T = {t1:g}",
        r"THE TRAP, not evidence: the exact $L^2$ error is the same for every frequency, and an "
        r"upwind scheme shows one that falls, because upwinding is a noise of the size of a cell.",
        "own",
        tuple(rows),
        (
            Panel(
                "THE TRAP: upwinding at sigma = 0 shows a decay that is not there",
                "periods m",
                "relative L2 error at T",
                (
                    Line(frequencies, [exact] * len(frequencies), "exact", "-"),
                    Line(frequencies, coarse, f"upwind, {cells} cells", "o--"),
                    Line(frequencies, fine, f"upwind, {4 * cells} cells", "s--"),
                ),
                "log",
            ),
        ),
    )
