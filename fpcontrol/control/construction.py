r"""Weights to start from, and other ones in the places of some: what an optimizer does not find.

Few neurons at a time have many local minima. Good weights come from steep neurons whose kinks lie
in the domain, chosen by how well they fit what the adjoint asks for, and from running through a
control of few pieces twice as fast, twice as often.
"""

from collections.abc import Iterable

import numpy as np

from fpcontrol.control.hidden_layer import ACTIVATIONS
from fpcontrol.control.network import NetworkDrift
from fpcontrol.control.on_mesh import MeshRuns
from fpcontrol.control.parametric import ParametricDrift, PiecewiseConstant, Terms
from fpcontrol.control.tracking import TrackingProblem
from fpcontrol.parallel.communicators import comm_of
from fpcontrol.parallel.errors import collective_errors, reduced
from fpcontrol.typing import Array

STEEPNESS = 1.0, 12.0  # of inner weights, the box being [-1, 1] along its longest side
WAVES = 1.0, 40.0  # of sines, which are not all the same from some steepness on
PARALLEL = 0.4  # share of blocks whose neurons all look in one direction
CANDIDATES = 1000  # neurons that are screened for a piece
BEGINNINGS = 5  # of them, from which a piece's neurons are chosen one after another
ALIKE = 1e-2  # of a neuron's energy: so much must be left of it beside the others


def steep_weights(drift: NetworkDrift, seed: int = 0) -> Array:
    r"""Random weights with steep neurons whose kinks cross the domain's box, and outer weights 0.

    Inner weights of length log-uniform in 1 to 12, in a random direction, in two of five pieces the
    same for all neurons; the kink :math:`a\cdot y + b = 0` through a random point of the box. The
    drift is zero, its derivative in the outer weights is not.

    Args:
        drift: A network whose weights vary in time.
        seed: Seed.

    Returns:
        Flat, as ``drift.weights``.

    Raises:
        ValueError: On all ranks, for another drift.
    """
    network, rng = _checked(drift).network, np.random.default_rng(seed)
    d, m = network.dimension, network.width
    blocks = []
    for _ in range(drift.time.blocks):
        inner, shift = _neurons(rng, m, drift, STEEPNESS, together=rng.random() < PARALLEL)
        blocks.append(np.concatenate([np.zeros(d * m), inner.ravel(), shift]))
    return np.concatenate(blocks)


def interleaved(weights: Array, drift: ParametricDrift, together: int = 4) -> Array:
    """Weights of twice as many pieces: groups of pieces, each run through twice in half its time.

    ABCD becomes ABCDABCD, not AABBCCDD: the density follows the mean of the pieces more closely,
    which as a rule lowers the error at once, at no cost.

    Args:
        weights: Flat.
        drift: Whose weights they are, constant on pieces.
        together: Pieces in a group, the last one being shorter if need be.

    Returns:
        Flat, for ``2 * drift.pieces`` pieces.

    Raises:
        ValueError: On all ranks, for weights that do not fit or are not constant on pieces.
    """
    with collective_errors(comm_of(drift.mesh)):
        if not isinstance(drift.time, PiecewiseConstant):
            raise ValueError(f"{type(drift.time).__name__} weights cannot be interleaved.")
        if together < 1:
            raise ValueError(f"together = {together!r} must be a positive integer.")
        blocks = drift.check_weights(weights).reshape(drift.pieces, -1)
    groups = [blocks[k : k + together] for k in range(0, len(blocks), together)]
    return np.concatenate([np.concatenate([group, group]).ravel() for group in groups])


def switched(weights: Array, drift: NetworkDrift, width: int, repeats: int = 1) -> Array:
    r"""Weights of a narrow network that switches through the neurons of a wide one.

    A piece of the wide network :math:`\sum_{i=1}^{m} w_i\varphi(a_i\cdot y + b_i)` becomes
    :math:`m/k` pieces of k neurons in turn, k the narrow width, with outer weights :math:`w_i m/k`.
    Their mean over time is the wide network's drift, and the faster they follow one another the
    closer to its density is theirs. Where the mean of few neurons is not good enough, this is a
    better beginning than neurons that are sought for the narrow network itself.

    Args:
        weights: Flat.
        drift: Whose weights they are, constant on pieces.
        width: k, a divisor of the wide network's width.
        repeats: How often they take their turn in a piece.

    Returns:
        Flat, for ``drift.pieces * repeats * m / k`` pieces.

    Raises:
        ValueError: On all ranks, for weights that do not fit, a bound on the speed (which the
            narrow network would meet earlier) or a width that does not divide the wide one.
    """
    network = _checked(drift).network
    m = network.width
    with collective_errors(comm_of(drift.mesh)):
        if not isinstance(width, int | np.integer) or width < 1 or m % width:
            raise ValueError(f"width = {width!r} must be a divisor of {m}, the network's width.")
        if not isinstance(repeats, int | np.integer) or repeats < 1:
            raise ValueError(f"repeats = {repeats!r} must be a positive integer.")
        if drift.field.limit is not None:
            raise ValueError(
                "max_speed: neurons that act in turn have to be stronger than together, and the "
                "bound would hold them back."
            )
        blocks = drift.check_weights(weights).reshape(drift.pieces, -1)
    turns, parts = m // width, []
    w, a, b = network.unpack(blocks)
    for i in range(0, m, width):
        some = slice(i, i + width)
        part = turns * w[..., some], a[:, some], b[:, some]
        parts.append(np.concatenate([x.reshape(drift.pieces, -1) for x in part], axis=1))
    cycles = np.stack(parts, axis=1)  # (pieces, turns, size)
    return np.tile(cycles, (1, repeats, 1)).ravel()


def screened(
    problem: TrackingProblem, weights: Array, pieces: Iterable[int], seed: int = 0
) -> Array:
    r"""Other neurons in some pieces: of many random ones those that the adjoint asks for most.

    With these pieces' outer weights set to zero, J changes with a drift :math:`v` in one of them by
    :math:`\int s\cdot v\,dx\,dt` to first order, s from the adjoint. Of a thousand random
    neurons :math:`\varphi` those are taken, one after another, whose span fits
    :math:`-s/\rho` best in the norm of :math:`L^2(\rho)`: the steepest descent per energy. Their
    outer weights are zero, for ``minimize`` to find. Collective.

    Args:
        problem: A problem with noise and a ``NetworkDrift``.
        weights: Flat.
        pieces: Numbers of the pieces.
        seed: Seed, the same on all ranks.

    Returns:
        Flat; J is that of the weights without these pieces.

    Raises:
        ValueError: On all ranks, for another kind of problem or pieces that there are not.
    """
    drift, runs = _checked(problem.drift), problem.runs
    network = drift.network
    if not isinstance(runs, MeshRuns):
        raise ValueError("Neurons are screened by the adjoint on a mesh, that is, with noise.")
    chosen = sorted({int(k) for k in pieces})
    if not chosen or not 0 <= chosen[0] <= chosen[-1] < drift.pieces:
        raise ValueError(f"pieces = {pieces!r} must be numbers from 0 to {drift.pieces - 1}.")
    with collective_errors(problem.elements.comm):
        blocks = drift.check_weights(weights).reshape(drift.pieces, -1).copy()
    d, m = network.dimension, network.width
    blocks[chosen, : d * m] = 0.0
    base, per = blocks.copy(), problem.steps // drift.pieces
    middles = {
        n // per: rho.copy()
        for n, rho in enumerate(runs.levels(base.ravel()))
        if n % per == per // 2 and n // per in chosen
    }
    system = runs.system
    # A neuron is wider than a cell: one value for all points of a cell is enough.
    per_cell = system.elements.n_points if system.by_cells else 1
    y = drift.scaled(_by_cell(system.points, per_cell) / per_cell)
    y = drift.field.features(y)
    activation = ACTIVATIONS[network.activation]
    steepness = WAVES if network.activation == "sin" else STEEPNESS

    def choose(terms: Terms, s: Array) -> None:
        """Neurons of a piece, from the derivative in its drift's values."""
        k = terms[0][0]
        if k not in middles:
            return
        rng = np.random.default_rng((seed, k))
        count = max(8 * m, min(CANDIDATES, 2**25 // max(y.shape[1], 1)))
        inner, shift = _neurons(rng, count, drift, steepness)
        values = activation.value(inner @ y + shift[:, None])
        rho = np.maximum(system.at_points(middles[k]), 0.0) * system.point_weights
        best = _pursuit(values, _by_cell(s, per_cell), _by_cell(rho, per_cell), m, problem)
        blocks[k, d * m :] = np.concatenate([inner[best].ravel(), shift[best]])

    runs.derivative(base.ravel(), choose)
    return blocks.ravel()


def energies(problem: TrackingProblem, weights: Array) -> Array:
    r""":math:`\int\rho\,|v|^2\,dx` in the middle of each piece, ``(pieces,)``. Collective.

    Args:
        problem: A problem with noise.
        weights: Flat.
    """
    runs, drift = problem.runs, problem.drift
    if not isinstance(runs, MeshRuns):
        raise ValueError("The energy is that of a density on a mesh, that is, with noise.")
    system, per = runs.system, problem.steps // drift.pieces
    at, parts = drift.with_weights(weights), []
    for n, rho in enumerate(runs.levels(weights)):
        if n % per == per // 2 and n < problem.steps:
            v = at.values((n // per + 0.5) * drift.t1 / drift.pieces, system.points)
            speeds = np.einsum("nd,nd->n", v, v)
            parts.append(float(system.point_weights @ (system.at_points(rho) * speeds)))
    return reduced(problem.elements.comm, np.array(parts))


def _by_cell(values: Array, points: int) -> Array:
    """Sums over the points of each cell, of ``(points * n_cells, ...)``."""
    result: Array = values.reshape(points, -1, *values.shape[1:]).sum(axis=0)
    return result


def _pursuit(values: Array, s: Array, rho: Array, m: int, problem: TrackingProblem) -> list[int]:
    """Orthogonal matching pursuit from several beginnings: rows of ``values`` that fit s best."""
    comm = problem.elements.comm
    slopes = reduced(comm, values @ s)  # (candidates, d)
    energies = reduced(comm, (values * values) @ rho)
    floor = 1e-12 * max(float(energies.max()), 1e-300)
    energies = np.maximum(energies, floor)
    first = np.argsort(-(slopes**2).sum(axis=1) / energies, kind="stable")[:BEGINNINGS]
    best, most = [int(first[0])] * m, -1.0
    for i in first:
        chosen, total = [], 0.0
        rest, left, directions = slopes.copy(), energies.copy(), np.zeros((len(values), 0))
        k = int(i)
        for _ in range(m):
            across = reduced(comm, values @ (rho * values[k])) - directions @ directions[k]
            scale = np.sqrt(left[k])
            total += float(rest[k] @ rest[k]) / float(left[k])
            chosen.append(k)
            directions = np.column_stack([directions, across / scale])
            rest = rest - np.outer(across / left[k], rest[k])
            left = np.maximum(energies - (directions**2).sum(axis=1), ALIKE * energies)
            gains = (rest**2).sum(axis=1) / left
            gains[chosen] = -1.0
            k = int(np.argmax(gains))
        if total > most:
            best, most = chosen, total
    return best


def _neurons(
    rng: np.random.Generator,
    count: int,
    drift: NetworkDrift,
    steepness: tuple[float, float],
    together: bool = False,
) -> tuple[Array, Array]:
    """Inner weights ``(count, k)`` and shifts ``(count,)`` of steep neurons."""
    half, features = 0.5 * (drift.box[1] - drift.box[0]) / drift.scale, drift.field.features
    lengths = np.exp(rng.uniform(np.log(steepness[0]), np.log(steepness[1]), count))
    directions = rng.standard_normal((count, features.count))
    if together:
        directions[:] = directions[0]
    inner = directions * (lengths / np.linalg.norm(directions, axis=1))[:, None] * features.units
    points = rng.uniform(-1.0, 1.0, (count, len(half))) * half
    return inner, -(inner * features(points.T).T).sum(axis=1)


def _checked(drift: ParametricDrift) -> NetworkDrift:
    """A drift that has neurons."""
    if not isinstance(drift, NetworkDrift):
        raise ValueError(
            f"drift, a {type(drift).__name__}, has no neurons to choose; give a NetworkDrift."
        )
    return drift
