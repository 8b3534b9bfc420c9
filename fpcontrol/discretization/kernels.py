r"""Compiled loops over cells, which pass over memory once where numpy would pass many times.

Each is compiled for the sizes of one element at its first use, and kept on disk beside this file
(or where ``NUMBA_CACHE_DIR`` says). Cells are treated in blocks that stay in the cache, cell by
cell innermost, so that the processor's vector instructions apply.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from fpcontrol.discretization.compiling import kept

BLOCK = 64  # cells whose element matrices fit the first-level cache, degree 2 in 2-D, say


def compiled[F: Callable[..., None]](loop: F) -> F:
    """The loop, compiled at its first call; sums may be taken in any order."""
    fast = {"contract", "reassoc", "nsz"}
    return kept(loop, fastmath=fast, error_model="numpy")


@compiled
def find(indptr: Any, indices: Any, rows: Any, columns: Any, out: Any) -> None:
    """Numbers of entries ``(row, column)`` of a matrix in compressed rows, sorted in each row.

    Args:
        indptr: Where the rows begin.
        indices: Columns of the entries.
        rows: Shape ``(n_basis, n_cells)``; all pairs with a cell's columns are looked for.
        columns: Shape ``(n_basis, n_cells)``.
        out: Shape ``(n_cells, n_basis**2)``.
    """
    n, cells = rows.shape
    for c in range(cells):
        for i in range(n):
            low, high = indptr[rows[i, c]], indptr[rows[i, c] + 1]
            for j in range(n):
                column, a, b = columns[j, c], low, high
                while b - a > 1:
                    middle = (a + b) // 2
                    if indices[middle] <= column:
                        a = middle
                    else:
                        b = middle
                out[c, i * n + j] = a


@compiled
def add_entries(slots: Any, cells: Any, out: Any) -> None:
    """Add element matrices ``(n_basis**2, n_cells)`` to entries at ``slots``."""
    for c in range(slots.shape[0]):
        for e in range(slots.shape[1]):
            out[slots[c, e]] += cells[e, c]


@compiled
def add_edges(slots: Any, leaving: Any, entering: Any, out: Any) -> None:
    """Add edges' fluxes ``leaving * u_i - entering * u_j`` from i to j to a matrix's entries.

    Args:
        slots: Numbers of the entries ii, ij, ji, jj, ``(n_edges, 4)``.
        leaving: Shape ``(n_edges,)``.
        entering: Shape ``(n_edges,)``.
        out: Entries.
    """
    for e in range(leaving.size):
        out[slots[e, 0]] += leaving[e]
        out[slots[e, 1]] -= entering[e]
        out[slots[e, 2]] -= leaving[e]
        out[slots[e, 3]] += entering[e]


@compiled
def edge_products(i: Any, j: Any, u: Any, z: Any, at_i: Any, at_j: Any) -> None:
    """Add ``(z_i - z_j) u_i`` to ``at_i`` and ``(z_i - z_j) u_j`` to ``at_j`` for all edges."""
    for e in range(i.size):
        a, b = i[e], j[e]
        gap = z[a] - z[b]
        at_i[e] += gap * u[a]
        at_j[e] += gap * u[b]


@compiled
def blend(a: float, x: Any, b: float, y: Any, out: Any) -> None:
    """``out = a x + b y``."""
    for i in range(out.size):
        out[i] = a * x[i] + b * y[i]


@compiled
def increment(y: Any, start: Any, shift: float, gamma: float, b: float, d: Any, out: Any) -> None:
    """``d = (y - start - shift) / gamma`` and ``out += b d``."""
    for i in range(out.size):
        d[i] = (y[i] - start[i] - shift) / gamma
        out[i] += b * d[i]


@compiled
def projected(delta: Any, factor: float, mass: Any, shift: float, out: Any) -> None:
    """``out = factor delta - shift mass``, as far as ``mass`` reaches."""
    for i in range(mass.size):
        out[i] = factor * delta[i] - shift * mass[i]


@compiled
def inspect(u: Any, last: Any, before: Any, integrals: Any, weights: Any, out: Any) -> None:
    """What a watch wants to know of a level, in one pass over the entries of ``integrals``.

    Writes the sums of ``integrals * u`` and ``weights * |u|``, the weighted sums of ``d e``,
    ``d d``, ``e e`` and ``u u`` with ``d = u - last`` and ``e = last - before``, and the smallest
    entry of ``u`` (infinite if there is none).
    """
    mass, size, inner, new, old, square, low = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, np.inf
    for i in range(integrals.size):
        value, w = u[i], weights[i]
        d, e = value - last[i], last[i] - before[i]
        mass += integrals[i] * value
        size += w * abs(value)
        inner += w * d * e
        new += w * d * d
        old += w * e * e
        square += w * value * value
        low = min(low, value)
    out[0], out[1], out[2], out[3], out[4], out[5], out[6] = (
        mass,
        size,
        inner,
        new,
        old,
        square,
        low,
    )


@functools.cache
def advection(d: int, n_points: int, n_basis: int) -> Callable[..., None]:
    """``fill(v, cofactor, table, slots, scale, constant, out)`` for one element.

    ``out = constant +`` ``scale`` times the entries of the advection matrix.

    Args of the result:
        v: Drift, ``(d, n_points, n_cells)``.
        cofactor: ``det(J) J^{-1}``, ``(d, d, n_cells)``.
        table: Advection of the reference cell, ``(n_basis**2, d * n_points)``.
        slots: Where element matrices go, ``(n_cells, n_basis**2)``.
        scale: Factor.
        constant, out: Entries.
    """
    rows, size = d * n_points, n_basis * n_basis

    @compiled
    def fill(
        v: Any, cofactor: Any, table: Any, slots: Any, scale: float, constant: Any, out: Any
    ) -> None:
        out[:] = constant
        flux, element = np.empty((rows, BLOCK)), np.empty((size, BLOCK))
        n_cells = slots.shape[0]
        for start in range(0, n_cells, BLOCK):
            width = min(BLOCK, n_cells - start)
            for a in range(d):
                for q in range(n_points):
                    f = flux[a * n_points + q]
                    for c in range(width):
                        total = 0.0
                        for k in range(d):
                            total += cofactor[a, k, start + c] * v[k, q, start + c]
                        f[c] = scale * total
            for e in range(size):
                row = element[e]
                for c in range(width):
                    total = 0.0
                    for m in range(rows):
                        total += table[e, m] * flux[m, c]
                    row[c] = total
            for c in range(width):
                for e in range(size):
                    out[slots[start + c, e]] += element[e, c]

    return fill


@functools.cache
def products(d: int, n_points: int, n_basis: int) -> Callable[..., None]:
    """``add(u, z, dofs, values, slopes, out)`` for one element.

    Adds ``u`` times the reference gradient of ``z`` at the quadrature points.

    Args of the result:
        u, z: Local arrays.
        dofs: Numbers of the basis functions, ``(n_basis, n_cells)``.
        values: Basis functions at the points, ``(n_points, n_basis)``.
        slopes: Their reference gradients, ``(d * n_points, n_basis)``.
        out: Shape ``(d, n_points, n_cells)``.
    """

    @compiled
    def add(u: Any, z: Any, dofs: Any, values: Any, slopes: Any, out: Any) -> None:
        a, b, value = np.empty((n_basis, BLOCK)), np.empty((n_basis, BLOCK)), np.empty(BLOCK)
        n_cells = dofs.shape[1]
        for start in range(0, n_cells, BLOCK):
            width = min(BLOCK, n_cells - start)
            for i in range(n_basis):
                for c in range(width):
                    a[i, c] = u[dofs[i, start + c]]
                    b[i, c] = z[dofs[i, start + c]]
            for q in range(n_points):
                for c in range(width):
                    total = 0.0
                    for i in range(n_basis):
                        total += values[q, i] * a[i, c]
                    value[c] = total
                for k in range(d):
                    for c in range(width):
                        total = 0.0
                        for i in range(n_basis):
                            total += slopes[k * n_points + q, i] * b[i, c]
                        out[k, q, start + c] += value[c] * total

    return add


@functools.cache
def sources(d: int, n_points: int, n_basis: int) -> Callable[..., None]:
    """``add(dv, u, cofactor, dofs, values, slopes, out)`` for one element.

    Adds ``(dv_k u, grad phi_i)`` of the cells for several directions ``dv_k``.

    Args of the result:
        dv: Directions, ``(directions, d, n_points, n_cells)``.
        u: Local array.
        cofactor: ``det(J) J^{-1}``, ``(d, d, n_cells)``.
        dofs: Numbers of the basis functions, ``(n_basis, n_cells)``.
        values: Basis functions at the points times the points' weights, ``(n_points, n_basis)``.
        slopes: Their reference gradients, ``(d * n_points, n_basis)``.
        out: Shape ``(directions, n_local)``.
    """

    @compiled
    def add(dv: Any, u: Any, cofactor: Any, dofs: Any, values: Any, slopes: Any, out: Any) -> None:
        value, part = np.empty((n_points, BLOCK)), np.empty((n_basis, BLOCK))
        flux = np.empty((d * n_points, BLOCK))
        n_cells = dofs.shape[1]
        for start in range(0, n_cells, BLOCK):
            width = min(BLOCK, n_cells - start)
            for q in range(n_points):
                for c in range(width):
                    total = 0.0
                    for i in range(n_basis):
                        total += values[q, i] * u[dofs[i, start + c]]
                    value[q, c] = total
            for j in range(dv.shape[0]):
                for a in range(d):
                    for q in range(n_points):
                        for c in range(width):
                            total = 0.0
                            for k in range(d):
                                total += cofactor[a, k, start + c] * dv[j, k, q, start + c]
                            flux[a * n_points + q, c] = total * value[q, c]
                for i in range(n_basis):
                    for c in range(width):
                        total = 0.0
                        for m in range(d * n_points):
                            total += slopes[m, i] * flux[m, c]
                        part[i, c] = total
                for i in range(n_basis):
                    for c in range(width):
                        out[j, dofs[i, start + c]] += part[i, c]

    return add
