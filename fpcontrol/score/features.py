r"""Scores that are linear in their weights, fitted by least squares: numpy alone, in seconds.

Every process :math:`X_t = \alpha X_0 + \sqrt v\,Z` is one up to a change of time and scale: with
:math:`S = \alpha^2 + v` and :math:`\kappa = \alpha/\sqrt S`,

.. math:: Y = X_t/\sqrt S = \kappa X_0 + \sqrt{1 - \kappa^2}\,Z

is an Ornstein-Uhlenbeck process in its age :math:`s = -\log\kappa`. Its score is modelled, and
that of X is :math:`\sqrt S` times smaller; so one model serves all processes, and the divergence
of paths

.. math:: \tfrac12\int g^2E|\hat s_X - \nabla\log p_t|^2\,dt = \int E|\hat s_Y - s_Y|^2\,ds

is the same in all.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from scipy.linalg import eigh

from fpcontrol.noising.mixture import GaussianMixture
from fpcontrol.noising.processes import Affine
from fpcontrol.noising.reversal import Graded
from fpcontrol.typing import Array

# What a form takes off, by what it multiplies the features, and how it scales their points: the
# powers of kappa.
FORMS = {
    "plain": (0.0, 0, 0),
    "centred": (1.0, 0, 0),
    "damped": (1.0, 1, 0),
    "pinned": (1.0, 1, 1),
}
WEIGHTINGS = ("kl", "noise", "snr")
# Kinks lie within this distance of the origin, in units of Y and of the label of time; the label
# runs over [-REACH, REACH], too.
REACH = 3.0
# Standard normal points in a line or in the plane: the trapezoidal rule is right to round-off for
# smooth functions at this step.
STEP, END = {1: 0.2, 2: 0.5}, 5.0
# Share of the largest eigenvalue below which a direction of the weights is left at zero.
NEGLIGIBLE = 1e-13
BLOCK = 20_000  # rows at a time


@dataclass(frozen=True, eq=False, repr=False)
class RandomFeatures:
    r"""A score that is a sum of random kinks, :math:`\phi_j = \max(0, a_j\cdot y + e_jc - b_j)`.

    With :math:`N(y) = \sum_jw_j\phi_j(y, c)`, c the logarithm of the ratio of noise to data,

    ============= ==============================
    ``"plain"``   :math:`\hat s_Y = N(y)`
    ``"centred"`` :math:`\hat s_Y = -y + N(y)`
    ``"damped"``  :math:`\hat s_Y = -y + \kappa N(y)`
    ``"pinned"``  :math:`\hat s_Y = -y + \kappa N(\kappa y)`
    ============= ==============================

    The first models the score of the Ornstein-Uhlenbeck process itself; the last the Foellmer
    drift, :math:`u(t, z) = N(z)`, of the Brownian motion :math:`z = \kappa y` pinned at the data.

    A score model like any other: for ``process.reverse``, ``fpc.score.compare``. Not collective.

    Attributes:
        process: The noising process that ``t`` and ``x`` are of.
        form: As above.
        slopes: Of the kinks in space, ``(n, d)``.
        tilts: Of the kinks in the label of time, ``(n,)``.
        offsets: Of the kinks, ``(n,)``.
        weights: ``(n, d)``.
        floor: Share of the noise below which the label hardly changes.
        ends: Of the logarithm that becomes the label.
    """

    process: Affine
    form: str
    slopes: Array
    tilts: Array
    offsets: Array
    weights: Array
    floor: float
    ends: tuple[float, float]

    @classmethod
    def fit(
        cls,
        process: Affine,
        data: GaussianMixture | Array,
        n: int = 128,
        *,
        form: str = "pinned",
        weighting: str = "kl",
        t0: float = 0.0,
        finest: float = 0.01,
        times: int = 64,
        points: int = 2000,
        ridge: float = 0.0,
        seed: int = 0,
    ) -> "RandomFeatures":
        r"""Fit the weights by least squares to the score of noised data.

        .. math:: \min_w\int\omega\,E|\hat s_Y - s_Y|^2\,ds,\qquad
            \omega = 1\ (\mathtt{kl}),\quad 1 - \kappa^2\ (\mathtt{noise}),\quad
            \tfrac{\kappa^2}{1 - \kappa^2}\ (\mathtt{snr})

        The first is the Kullback-Leibler divergence of the sampler's paths.

        Args:
            process: Noising process without walls.
            data: A mixture, whose exact score is fitted: on a line and in the plane by quadrature
                over all points, else at points drawn. Or samples ``(N, d)``: the noise that was
                added is fitted (denoising), the score in the mean.
            n: Number of features.
            form: See above.
            weighting: ``"kl"``, ``"noise"`` or ``"snr"``.
            t0: Earliest noising time; positive for ``"snr"``, and for ``"kl"`` with samples, whose
                integrals do not exist else.
            finest: See ``fpc.noising.Graded``, on whose clock the times are even.
            times: Their number.
            points: Drawn at each time, where it is not quadrature.
            ridge: Penalty on the weights, in units of the mean square of a feature.
            seed: Of the features and the points drawn.

        Raises:
            ValueError: For an argument that is not as above.

        References:
            A. Rahimi, B. Recht, Random features for large-scale kernel machines, NIPS (2007).
        """
        if not isinstance(process, Affine):
            raise ValueError(
                f"process = {process!r}: one without walls is needed, such as "
                "fpc.noising.OrnsteinUhlenbeck()."
            )
        for name, value, known in (("form", form, FORMS), ("weighting", weighting, WEIGHTINGS)):
            if value not in known:
                raise ValueError(f"{name} = {value!r}; choose one of {', '.join(known)}.")
        for name, count in (("n", n), ("times", times), ("points", points)):
            if not (isinstance(count, int | np.integer) and count > 0):
                raise ValueError(f"{name} = {count!r} must be a positive whole number.")
        if not (np.isfinite(ridge) and ridge >= 0.0):
            raise ValueError(f"ridge = {ridge!r} must be finite and not negative.")
        clock = Graded(process, t0, finest)
        source = data if isinstance(data, GaussianMixture) else _samples(data)
        exact = isinstance(source, GaussianMixture)
        if t0 == 0.0 and (weighting == "snr" or (weighting == "kl" and not exact)):
            raise ValueError(
                f't0 = 0 with weighting = "{weighting}": the integral does not exist; give a '
                'positive t0, or weighting = "noise".'
            )
        d = source.dimension if isinstance(source, GaussianMixture) else source.shape[1]
        rng = np.random.default_rng(seed)
        slopes = rng.standard_normal((n, d))
        angle = rng.uniform(-0.5 * math.pi, 0.5 * math.pi, n)
        slopes *= (np.cos(angle) / np.linalg.norm(slopes, axis=1))[:, None]
        first = process.time(process.age(t0) + 0.1 * finest)
        model = cls(
            process=process,
            form=form,
            slopes=slopes,
            tilts=np.sin(angle),
            offsets=rng.uniform(-REACH, REACH, n),
            weights=np.zeros((n, d)),
            floor=process.variance(first) / _total(process, first),
            ends=(0.0, 1.0),
        )
        model = replace(model, ends=(model._logarithm(t0), model._logarithm(process.t1)))
        gram, right = np.zeros((n, n)), np.zeros((n, d))
        for i in range(times):
            u = (i + 0.5) / times
            t = clock.noising_time(u)
            S, kappa = model._scales(t)
            share = clock.rate(u) * process.sigma(t) ** 2 / (2.0 * S) / times
            if weighting != "kl":
                share *= 1.0 - kappa**2 if weighting == "noise" else kappa**2 / (1.0 - kappa**2)
            base, gain, _ = FORMS[form]
            for x, score, w in _rows(process, source, t, points, rng):
                y = x / math.sqrt(S)
                rows = kappa**gain * model._features(t, x)
                weighted = (share * w)[:, None] * rows
                gram += weighted.T @ rows
                right += weighted.T @ (math.sqrt(S) * score + base * y)
        gram[np.diag_indices(n)] += ridge * np.trace(gram) / n
        lambdas, axes = eigh(gram)
        kept = lambdas > NEGLIGIBLE * lambdas[-1]
        axes = axes[:, kept]
        return replace(model, weights=axes @ ((axes.T @ right) / lambdas[kept, None]))

    def __repr__(self) -> str:
        n, d = self.weights.shape
        return f"<RandomFeatures: {n} in {d}-D, {self.form}, of {self.process}>"

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.weights.size

    def of(self, process: Affine) -> "RandomFeatures":
        """The same score of another process: of the same Y at the same age."""
        return replace(self, process=process)

    def values(self, t: float, x: Array) -> Array:
        """Score at points, ``(N, d)``."""
        S, kappa = self._scales(t)
        base, gain, _ = FORMS[self.form]
        found = np.empty_like(x, dtype=float)
        for rows in _blocks(len(x)):
            found[rows] = self._features(t, x[rows]) @ self.weights
        return (kappa**gain * found - base / math.sqrt(S) * x) / math.sqrt(S)

    def divergence(self, t: float, x: Array) -> Array:
        """Its divergence, ``(N,)``; of kinks it has jumps."""
        S, kappa = self._scales(t)
        base, gain, inner = FORMS[self.form]
        along = (self.slopes * self.weights).sum(axis=1)
        found = np.empty(len(x))
        for rows in _blocks(len(x)):
            found[rows] = (self._features(t, x[rows]) > 0.0) @ along
        return (kappa ** (gain + inner) * found - base * x.shape[1]) / S

    def vjp(self, t: float, x: Array, s: Array) -> Array:
        """Derivative of ``sum(s * values(t, x))`` in the weights, ``(size,)``."""
        S, kappa = self._scales(t)
        factor = kappa ** FORMS[self.form][1] / math.sqrt(S)
        total = np.zeros_like(self.weights)
        for rows in _blocks(len(x)):
            total += self._features(t, x[rows]).T @ s[rows]
        return factor * total.ravel()

    def _features(self, t: float, x: Array) -> Array:
        """Features at points, ``(N, n)``."""
        S, kappa = self._scales(t)
        low, high = self.ends
        label = REACH * (2.0 * (self._logarithm(t) - low) / (high - low) - 1.0)
        scale = kappa ** FORMS[self.form][2] / math.sqrt(S)
        z = x @ (scale * self.slopes.T)
        z += label * self.tilts - self.offsets
        return np.maximum(z, 0.0, out=z)

    def _scales(self, t: float) -> tuple[float, float]:
        S = _total(self.process, t)
        return S, self.process.scale(t) / math.sqrt(S)

    def _logarithm(self, t: float) -> float:
        S, kappa = self._scales(t)
        return 0.5 * math.log((self.process.variance(t) / S + self.floor) / kappa**2)


def _total(process: Affine, t: float) -> float:
    return process.scale(t) ** 2 + process.variance(t)


def _samples(data: Array) -> Array:
    x = np.asarray(data, dtype=float)
    if x.ndim != 2 or 0 in x.shape or not np.isfinite(x).all():
        raise ValueError(
            f"data of shape {x.shape}: finite samples (N, d) or a GaussianMixture are needed."
        )
    return x


def _rows(
    process: Affine, source: GaussianMixture | Array, t: float, n: int, rng: np.random.Generator
) -> Iterator[tuple[Array, Array, Array]]:
    """Points at a time, what their scores shall be, and their weights, in blocks."""
    scale, variance = process.scale(t), process.variance(t)
    if not isinstance(source, GaussianMixture):
        x0 = source[rng.integers(len(source), size=n)]
        z = rng.standard_normal(x0.shape)
        x, score = scale * x0 + math.sqrt(variance) * z, -z / math.sqrt(variance)
        for rows in _blocks(n):
            yield x[rows], score[rows], np.full(len(x[rows]), 1.0 / n)
        return
    density = source.noised(scale, variance)
    if source.dimension in STEP:
        x, w = _quadrature(density, STEP[source.dimension])
    else:
        x, w = density.sample(n, seed=int(rng.integers(2**63))), np.full(n, 1.0 / n)
    for rows in _blocks(len(x)):
        yield x[rows], density.score(x[rows]), w[rows]


def _quadrature(p: GaussianMixture, step: float) -> tuple[Array, Array]:
    """Points and weights for expectations under a mixture, on a line or in the plane."""
    line = np.arange(-END, END + 0.5 * step, step)
    z = np.stack(np.meshgrid(*[line] * p.dimension, indexing="ij"), -1).reshape(-1, p.dimension)
    w = np.exp(-0.5 * (z**2).sum(axis=1))
    kept = w > math.exp(-0.5 * END**2)
    z, w = z[kept], w[kept] / w[kept].sum()
    roots = np.linalg.cholesky(p.covariances)
    x = p.means[:, None] + np.einsum("kij,nj->kni", roots, z)
    return x.reshape(-1, p.dimension), np.outer(p.weights, w).ravel()


def _blocks(n: int) -> Iterator[slice]:
    return (slice(first, first + BLOCK) for first in range(0, n, BLOCK))
