"""Maximum mean discrepancy of two samples: unbiased, with its error and a test by permutations."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.spatial.distance import cdist, pdist

from fpcontrol.distances.optimal_transport import real_array
from fpcontrol.typing import Array

type Kernel = Literal["gaussian", "energy"]

BLOCK = 2**22  # entries of the kernel that are held at a time
SOME = 1000  # points that the bandwidth is taken from


@dataclass(frozen=True)
class Discrepancy:
    r"""Of two samples. Plain data.

    Attributes:
        squared: The unbiased estimate of :math:`\mathrm{MMD}^2`; negative by chance where the laws
            are near.
        standard_error: Of it, to first order in ``1/N``. Where the laws are equal that order
            vanishes: there look at ``p_value``.
        p_value: Share of the permutations whose estimate is no smaller, the samples as they are
            among them: the probability of such an estimate if both laws were one. nan without.
        bandwidth: Of the Gaussian kernel, as given or chosen; nan for the other.
    """

    squared: float
    standard_error: float
    p_value: float
    bandwidth: float


def mmd(
    x: Array,
    y: Array,
    kernel: Kernel = "gaussian",
    *,
    bandwidth: float | None = None,
    permutations: int = 0,
    seed: int = 0,
) -> Discrepancy:
    r"""Maximum mean discrepancy between two samples of independent points. Not collective.

    .. math:: \mathrm{MMD}^2 = E\,k(X, X') + E\,k(Y, Y') - 2\,E\,k(X, Y)

    with :math:`k(x, y) = e^{-|x-y|^2/(2h^2)}`, or :math:`-|x-y|` for the energy distance; estimated
    by means over pairs of different points, which has no bias. Exact, in blocks that bound the
    memory: the time grows as ``(N + M)**2``, some 6 s for 20 000 points on one core.

    Args:
        x: First sample, ``(N, d)``, all of it on the rank that calls, ``swarm.gather()``; N > 1.
        y: Second sample, ``(M, d)``, M > 1.
        kernel: ``"gaussian"`` or ``"energy"``.
        bandwidth: h; unless given the median distance of up to 1000 of the points.
        permutations: How many times the points are dealt anew for ``p_value``, which is at least
            ``1/(permutations + 1)``.
        seed: Of the permutations.

    Raises:
        ValueError: On this rank, for other shapes or values than these.

    References:
        A. Gretton, K. Borgwardt, M. Rasch, B. Schölkopf, A. Smola, A kernel two-sample test,
        J. Mach. Learn. Res. 13 (2012).
    """
    x, y = real_array("x", x), real_array("y", y)
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(
            f"x and y have shapes {x.shape}, {y.shape}; (N, d), (M, d), N, M > 1 are needed."
        )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("x and y must be finite; leave out particles that have left.")
    if kernel not in ("gaussian", "energy"):
        raise ValueError(f'kernel = {kernel!r} is unknown; choose "gaussian" or "energy".')
    if kernel == "energy" and bandwidth is not None:
        raise ValueError(f"bandwidth = {bandwidth!r}: the energy kernel has none.")
    if isinstance(permutations, bool) or not permutations >= 0 or permutations % 1:
        raise ValueError(f"permutations = {permutations!r} must be a whole number, not negative.")
    z = np.concatenate([x, y]).astype(float)
    if kernel == "gaussian" and bandwidth is None:
        bandwidth = float(np.median(pdist(z[:: -(-len(z) // SOME)])))
    if bandwidth is not None and not (np.isfinite(bandwidth) and bandwidth > 0.0):
        raise ValueError(f"bandwidth = {bandwidth!r} must be finite and positive.")
    h = float("nan") if bandwidth is None else float(bandwidth)
    m, n = len(x), len(y)
    deal = np.empty((len(z), 1 + int(permutations)))
    first, rng = np.arange(len(z)) < m, np.random.default_rng(seed)
    deal[:, 0] = first
    for k in range(int(permutations)):
        deal[:, 1 + k] = rng.permutation(first)
    inner, rows, to_first = _sums(z, h, deal)
    # Over ordered pairs of different points: within the first, across, within the second.
    total, reach = rows.sum(), deal.T @ rows
    across = reach - inner
    within = total - inner - 2.0 * across
    estimates = inner / (m * (m - 1)) + within / (n * (n - 1)) - 2.0 * across / (m * n)
    found = float(estimates[0])
    p = float((estimates >= found - 1e-12 * abs(found)).mean()) if permutations else float("nan")
    return Discrepancy(found, _standard_error(first, to_first, rows - to_first), p, h)


def _kernel(a: Array, b: Array, h: float) -> Array:
    """Of all pairs; of the energy distance where h is nan."""
    if np.isnan(h):
        return -cdist(a, b)
    return np.exp(-0.5 / h**2 * cdist(a, b, "sqeuclidean"))


def _sums(z: Array, h: float, deal: Array) -> tuple[Array, Array, Array]:
    """Sums of the kernel off its diagonal.

    Of pairs that both are in the first sample, by column of ``deal``; of rows; and of rows over the
    first sample as it is.
    """
    inner, rows, to_first = np.zeros(deal.shape[1]), np.empty(len(z)), np.empty(len(z))
    step = max(1, BLOCK // len(z))
    for start in range(0, len(z), step):
        part = slice(start, min(start + step, len(z)))
        k = _kernel(z[part], z, h)
        k[np.arange(len(k)), np.arange(part.start, part.stop)] = 0.0
        dealt = k @ deal
        inner += (deal[part] * dealt).sum(axis=0)
        rows[part], to_first[part] = k.sum(axis=1), dealt[:, 0]
    return inner, rows, to_first


def _standard_error(first: Array, to_first: Array, to_second: Array) -> float:
    """By the variance of the projections of the U-statistic on single points."""
    m, n = int(first.sum()), int((~first).sum())
    one = to_first[first] / (m - 1) - to_second[first] / n
    other = to_second[~first] / (n - 1) - to_first[~first] / m
    return float(2.0 * np.sqrt(one.var(ddof=1) / m + other.var(ddof=1) / n))
