r"""Compiled loops of the limiter (``discretization.limiter``), over cells and over edges.

What belongs to a cell lies side by side: of some fifty values each, in rows of their own, a loop
over cells would have as many places of memory to read from at once.
"""

import functools
from collections.abc import Callable
from math import sqrt
from typing import Any

import numpy as np

from fpcontrol.discretization.kernels import compiled

# Up to this share of what a node can give, of what leaves it, all of it is let through.
UNLIMITED = 0.5


@functools.cache
def cell_fluxes(d: int) -> Callable[..., None]:
    """``add(geometry, v, leaving, entering, D, dt, change, y, low, f)`` for cells of dimension d.

    Adds the antidiffusive fluxes of all cells to ``f (n_edges,)``, into the edges' first ends.

    Args of the result:
        dofs: ``(n_cells, d + 1)``; of the geometry, as the next.
        numbers, signs: The cells' edges in f, ``(n_cells, E)``.
        pairs: Their local ends, ``(E, 2)``.
        cofactor: ``det(J) J^{-1}``, ``(n_cells, d, d)``.
        volumes: Of the cells.
        weight: Of a point in the reference cell.
        own, shares: Weights of the cells' edges, with their signs, and of the positive method.
        v: Drift, ``(n_cells, E, d)``.
        leaving, entering: ``D B(-p)``, ``D B(p)``, ``(n_cells, E)``.
        D, dt: Diffusivity of the cells, time step.
        change, y, low: ``high - rho``, the mean over the step, the positive density, local.
    """
    n, edges = d + 1, d * (d + 1) // 2

    @compiled
    def add(
        dofs: Any,
        numbers: Any,
        signs: Any,
        pairs: Any,
        cofactor: Any,
        volumes: Any,
        weight: float,
        own: Any,
        shares: Any,
        v: Any,
        leaving: Any,
        entering: Any,
        D: Any,
        dt: float,
        change: Any,
        y: Any,
        low: Any,
        f: Any,
    ) -> None:
        r, cut, flow_through = np.empty(n), np.empty(edges), np.empty(d)
        for c in range(dofs.shape[0]):
            total = 0.0
            for i in range(n):
                total += change[dofs[c, i]]
            share = volumes[c] / (n * (n + 1))
            for i in range(n):
                r[i] = share * (n * change[dofs[c, i]] - total)
            for m in range(d):
                flow_through[m] = 0.0
            for e in range(edges):
                a, b = pairs[e, 0], pairs[e, 1]
                i, j = dofs[c, a], dofs[c, b]
                flux = leaving[c, e] * low[i] - entering[c, e] * low[j]
                flow = dt * own[c, e] * (flux - D[c] * (y[i] - y[j]))
                r[a] += flow
                r[b] -= flow
                cut[e] = -dt * (own[c, e] - shares[c, e]) * flux
                q = 0.5 * dt * weight * (y[i] + y[j])
                for m in range(d):
                    flow_through[m] += q * v[c, e, m]
            for k in range(d):
                moved = 0.0
                for m in range(d):
                    moved += cofactor[c, k, m] * flow_through[m]
                r[k + 1] += moved
                r[0] -= moved
            for e in range(edges):
                into = (r[pairs[e, 0]] - r[pairs[e, 1]]) / n + cut[e]
                f[numbers[c, e]] += signs[c, e] * into

    return add


@functools.cache
def cell_fluxes_transposed(d: int) -> Callable[..., None]:
    """The transpose of ``cell_fluxes(d)`` in ``change``, ``y``, ``low``, v and p.

    Args of the result:
        slopes: Derivatives of a flux in v along the edge over ``low`` at its ends,
            ``(n_cells, E, 2)``.
        of_f: Dual of f; cells without any are passed over.
        of_change, of_y, of_low: What is added to, local.
        of_v: Likewise, over dt, ``(E, n_cells, d)``, but for
        of_p: what belongs to v along the edges' vectors, ``(E, n_cells)``.
    """
    n, edges = d + 1, d * (d + 1) // 2

    @compiled
    def add(
        dofs: Any,
        numbers: Any,
        signs: Any,
        pairs: Any,
        cofactor: Any,
        volumes: Any,
        weight: float,
        own: Any,
        shares: Any,
        v: Any,
        leaving: Any,
        entering: Any,
        slopes: Any,
        D: Any,
        dt: float,
        y: Any,
        low: Any,
        of_f: Any,
        of_change: Any,
        of_y: Any,
        of_low: Any,
        of_v: Any,
        of_p: Any,
    ) -> None:
        r, g, slope = np.empty(n), np.empty(edges), np.empty(d)
        for c in range(dofs.shape[0]):
            for i in range(n):
                r[i] = 0.0
            limited = False
            for e in range(edges):
                limited |= of_f[numbers[c, e]] != 0.0
            if not limited:
                continue
            for e in range(edges):
                g[e] = signs[c, e] * of_f[numbers[c, e]]
                r[pairs[e, 0]] += g[e] / n
                r[pairs[e, 1]] -= g[e] / n
            total = 0.0
            for i in range(n):
                total += r[i]
            share = volumes[c] / (n * (n + 1))
            for i in range(n):
                of_change[dofs[c, i]] += share * (n * r[i] - total)
            for m in range(d):
                slope[m] = 0.0
                for k in range(d):
                    slope[m] += cofactor[c, k, m] * (r[k + 1] - r[0])
            for e in range(edges):
                a, b = pairs[e, 0], pairs[e, 1]
                i, j = dofs[c, a], dofs[c, b]
                gap = r[a] - r[b]
                of_flux = own[c, e] * gap - (own[c, e] - shares[c, e]) * g[e]  # over dt
                of_low[i] += dt * leaving[c, e] * of_flux
                of_low[j] -= dt * entering[c, e] * of_flux
                of_p[e, c] += (slopes[c, e, 0] * low[i] + slopes[c, e, 1] * low[j]) * of_flux
                q, speeds = 0.5 * weight * (y[i] + y[j]), 0.0
                for m in range(d):
                    speeds += slope[m] * v[c, e, m]
                    of_v[e, c, m] += q * slope[m]
                both = 0.5 * dt * weight * speeds
                of_y[i] += both - dt * D[c] * own[c, e] * gap
                of_y[j] += both + dt * D[c] * own[c, e] * gap

    return add


@compiled
def outgoing(f: Any, width: float, i: Any, j: Any, parts: Any, out: Any) -> None:
    """Add the smoothed parts of f that leave the edges' ends, f being what enters the first."""
    for e in range(f.size):
        size = sqrt(f[e] * f[e] + width * width)
        out[i[e]] += 0.5 * parts[e] * (size - f[e])
        out[j[e]] += 0.5 * parts[e] * (size + f[e])


@compiled
def outgoing_tangent(f: Any, df: Any, width: float, i: Any, j: Any, parts: Any, out: Any) -> None:
    """Derivative of ``outgoing``."""
    for e in range(f.size):
        slope = f[e] / max(sqrt(f[e] * f[e] + width * width), 1e-300)
        out[i[e]] += 0.5 * parts[e] * (slope - 1.0) * df[e]
        out[j[e]] += 0.5 * parts[e] * (slope + 1.0) * df[e]


@compiled
def limiting(f: Any, R: Any, S: Any, i: Any, j: Any, parts: Any, out: Any) -> None:
    """Add ``R_i S_j f`` to the edges' first ends, and take it from the second."""
    for e in range(f.size):
        flow = parts[e] * R[i[e]] * S[j[e]] * f[e]
        out[i[e]] += flow
        out[j[e]] -= flow


@compiled
def limiting_transposed(f: Any, R: Any, dual: Any, i: Any, j: Any, parts: Any, out: Any) -> None:
    """Add the dual of R where ``limiting(f, R, R)`` has a dual."""
    for e in range(f.size):
        a, b = i[e], j[e]
        work = parts[e] * f[e] * (dual[a] - dual[b])
        out[a] += R[b] * work
        out[b] += R[a] * work


@compiled
def fluxes_transposed(
    f: Any, width: float, R: Any, dual: Any, leaving: Any, i: Any, j: Any, out: Any
) -> None:
    """The dual of f from those of ``limiting`` (``dual``) and of ``outgoing`` (``leaving``).

    Of what is limited of it, ``R_i R_j - 1``.
    """
    for e in range(f.size):
        a, b = i[e], j[e]
        slope = f[e] / max(sqrt(f[e] * f[e] + width * width), 1e-300)
        out[e] = (R[a] * R[b] - 1.0) * (dual[a] - dual[b])
        out[e] += 0.5 * ((slope - 1.0) * leaving[a] + (slope + 1.0) * leaving[b])


@compiled
def fractions(node: Any, least: Any, s: Any) -> None:
    """From P in ``node``, owned entries: ``s = P / least``, and R in place of P."""
    for i in range(s.size):
        s[i] = node[i] / least[i]
        x = max(s[i] - UNLIMITED, 0.0)
        node[i] = 1.0 / (1.0 + (x - x * (1.0 / (1.0 + x * x))))


@compiled
def fractions_transposed(s: Any, R: Any, least: Any, node: Any, given: Any) -> None:
    """From the dual of R in ``node``: that of P in its place, and of ``least``."""
    for i in range(s.size):
        x = max(s[i] - UNLIMITED, 0.0)
        q = 1.0 / (1.0 + x * x)
        steep = (1.0 + q - 2.0 * q * q) * (R[i] / least[i]) * node[i]
        given[i] = steep * (R[i] * s[i])
        node[i] = -steep * R[i]


@compiled
def low_fluxes(
    dofs: Any,
    numbers: Any,
    signs: Any,
    pairs: Any,
    shares: Any,
    leaving: Any,
    entering: Any,
    dt: float,
    low: Any,
    out: Any,
) -> None:
    """Add the positive method's fluxes over a step, into the edges' first ends."""
    for c in range(dofs.shape[0]):
        for e in range(pairs.shape[0]):
            i, j = dofs[c, pairs[e, 0]], dofs[c, pairs[e, 1]]
            flux = leaving[c, e] * low[i] - entering[c, e] * low[j]
            out[numbers[c, e]] -= signs[c, e] * dt * shares[c, e] * flux


@compiled
def low_fluxes_transposed(
    dofs: Any,
    numbers: Any,
    signs: Any,
    pairs: Any,
    shares: Any,
    leaving: Any,
    entering: Any,
    slopes: Any,
    dt: float,
    low: Any,
    dual: Any,
    first: Any,
    second: Any,
    of_low: Any,
    of_p: Any,
) -> None:
    """Duals of ``low`` and, over dt, of p from those of the sums at the nodes (``divergence``)."""
    for c in range(dofs.shape[0]):
        for e in range(pairs.shape[0]):
            number = numbers[c, e]
            gap = dual[first[number]] - dual[second[number]]
            work = -signs[c, e] * shares[c, e] * gap
            i, j = dofs[c, pairs[e, 0]], dofs[c, pairs[e, 1]]
            of_low[i] += dt * leaving[c, e] * work
            of_low[j] -= dt * entering[c, e] * work
            of_p[e, c] += (slopes[c, e, 0] * low[i] + slopes[c, e, 1] * low[j]) * work


@compiled
def divergence(f: Any, i: Any, j: Any, parts: Any, out: Any) -> None:
    """Add f to the edges' first ends, and take it from the second."""
    for e in range(f.size):
        out[i[e]] += parts[e] * f[e]
        out[j[e]] -= parts[e] * f[e]
