r"""Training of scores on samples or on exact scores of noised data.

With :math:`X_t = \alpha X_0 + \sqrt v\,Z` and times even on the clock ``Graded``, the loss is

.. math:: E\,\omega(t)\tfrac vd\,|\hat s(t, X_t) - y|^2 + w_R\,E\,(\tfrac v{g^2}R(t, X_t))^2

with :math:`y = -Z/\sqrt v` (denoising) or :math:`y = \nabla\log p_t(X_t)` (exact), and R what is
left of the Fokker-Planck equation for the logarithm of the density,

.. math:: R = \partial_t\Phi + \nabla\cdot f + f\cdot\nabla\Phi
    - \tfrac{g^2}2(\Delta\Phi + |\nabla\Phi|^2),

zero for the logarithm of the exact density. For a network that is a score, :math:`\nabla\Phi` is
that and :math:`|\nabla R|^2v/d` takes the place of :math:`R^2`. All is without dimensions.
:math:`\omega` is 1, or makes the first term a multiple of one of those of ``RandomFeatures.fit``.

The regularized loss is of the kind of Deveney, Stanczuk, Kreusser, Budd, Schönlieb
(arXiv:2311.15996), with weights in time that make it even over the scales of the noise.
"""

import time
from collections.abc import Callable
from typing import Any

from mpi4py import MPI

import numpy as np

from fpcontrol.noising.mixture import GaussianMixture
from fpcontrol.noising.processes import Affine
from fpcontrol.noising.reversal import Graded
from fpcontrol.parallel.communicators import cached_comm
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.parallel.progress import Progress
from fpcontrol.parallel.signals import interrupts
from fpcontrol.score.features import WEIGHTINGS
from fpcontrol.score.networks import Architecture, Clock
from fpcontrol.score.trained import Epoch, TrainedScore
from fpcontrol.typing import Array

TIMES = 4096  # on the clock, from which those of a batch are drawn
CHUNK = 50  # iterations in one call of compiled code
# Of the finest age that a network resolves; and the share of the rate that the last step has.
FLOOR, LAST_RATE = 0.1, 0.01


def train(
    process: Affine,
    data: GaussianMixture | Array,
    *,
    kind: str = "log_density",
    form: str = "damped",
    matching: str = "denoising",
    weighting: str = "even",
    hidden: tuple[int, ...] = (64, 64),
    activation: str = "swish",
    sharpness: float = 1.0,
    residual_weight: float = 0.0,
    collocation: int | None = None,
    iterations: int = 3000,
    batch: int = 512,
    rate: float = 3e-3,
    t0: float = 0.0,
    finest: float = 0.01,
    start: TrainedScore | None = None,
    seed: int = 0,
    comm: MPI.Comm = MPI.COMM_WORLD,
    progress: bool = False,
) -> TrainedScore:
    r"""Train a network for the score of noised data, by Adam. Collective. Needs JAX and optax.

    Rank 0 trains, in single precision, and the others get its weights. The first Ctrl-C ends the
    training with what there is by then; ``history`` says at which iteration.

    Args:
        process: Noising process without walls.
        data: Samples ``(N, d)``; or a mixture, of which every batch is drawn afresh.
        kind: ``"log_density"``, a network for the logarithm of the density, whose gradient is the
            score; or ``"score"``.
        form: What of it the network is: ``"plain"`` all, ``"centred"`` what is left beside a
            normal density, ``"damped"`` that over what is left of the data, ``"pinned"`` the
            Foellmer drift. As of ``RandomFeatures``, in units of the data's mean square.
        matching: ``"denoising"`` with the noise that was added; ``"exact"`` with the score of the
            noised mixture: without the variance of the former.
        weighting: ``"even"`` over the scales of the noise; ``"kl"``, the divergence of the
            sampler's paths; ``"noise"`` or ``"snr"``, that times :math:`1 - \kappa^2` or
            :math:`\kappa^2/(1 - \kappa^2)`. Scaled to a mean of 1 over the clock.
        hidden: Widths of the hidden layers.
        activation: ``"relu"``, ``"softplus"``, ``"swish"`` or ``"tanh"``.
        sharpness: The b in :math:`f(bz)/b`: large for what is nearly a kink.
        residual_weight: :math:`w_R`.
        collocation: Points of a batch at which R is asked for; a quarter unless given.
        iterations: Steps of the optimizer.
        batch: Points of a step.
        rate: First rate of Adam; it falls to a hundredth as a cosine.
        t0: Earliest noising time.
        finest: Of the clock ``fpc.noising.Graded``: finer noise is not resolved.
        start: A score whose network to go on from, of the same architecture and process.
        seed: Of the weights and the batches.
        comm: Whose ranks all get the score.
        progress: Whether to show it on rank 0.

    Returns:
        The score, for ``process.reverse``, ``fpc.score.compare``, ``save``.

    Raises:
        ImportError: On all ranks, if JAX or optax is not installed.
        ValueError: On all ranks, for an argument that is not as above.
        ArithmeticError: On all ranks, if the loss is not finite.
    """
    comm = cached_comm(comm)
    with collective_errors(comm):
        _import()
        source = _Source(process, data, matching)
        architecture = Architecture(
            kind, source.dimension, tuple(hidden), activation, sharpness, form
        )
        if weighting not in ("even", *WEIGHTINGS):
            known = ", ".join(("even", *WEIGHTINGS))
            raise ValueError(f"weighting = {weighting!r}; choose one of {known}.")
        counts = {"iterations": iterations, "batch": batch, "collocation": collocation}
        for name, count in counts.items():
            if count is not None and not (isinstance(count, int | np.integer) and count > 0):
                raise ValueError(f"{name} = {count!r} must be a positive whole number.")
        for name, value, least in (("rate", rate, 0.0), ("residual_weight", residual_weight, -1.0)):
            if not (np.isfinite(value) and value > least and value >= 0.0):
                raise ValueError(f"{name} = {value!r} must be finite and not negative.")
        if residual_weight and activation == "relu":
            raise ValueError(
                'activation = "relu" with residual_weight > 0: second derivatives of such a '
                'network are zero and say nothing of the density; choose "softplus", "swish" or '
                '"tanh".'
            )
        if t0 == 0.0 and (weighting == "snr" or (weighting == "kl" and not source.exact)):
            raise ValueError(
                f't0 = 0 with weighting = "{weighting}": the integral does not exist; give a '
                'positive t0, or weighting = "even".'
            )
        clock = Graded(process, t0, finest)
        floor = process.variance(process.time(FLOOR * finest))
        told = Clock(process, source.moment, floor)
        if start is not None and (start.architecture, start.clock) != (architecture, told):
            raise ValueError(f"start = {start!r} is of another network, process or data.")
        task = _Task(architecture, told, clock, source, residual_weight, weighting)
    layers = start.layers if start is not None else architecture.initial(seed)
    result: Any = None
    with interrupts() as interrupted, collective_errors(comm):
        if comm.rank == 0:
            shown = Progress("training", iterations, MPI.COMM_SELF, progress)
            points = min(batch, collocation or max(1, batch // 4))
            result = task.run(
                layers, iterations, batch, points, rate, seed, lambda: bool(interrupted), shown
            )
            shown.close()
    weights, history = comm.bcast(result)
    return TrainedScore(process, architecture, told, weights, history)


def _import() -> tuple[Any, Any]:
    try:
        import jax
        import optax
    except ImportError:
        raise ImportError("train needs JAX and optax: pip install 'fpcontrol[score]'") from None
    return jax, optax


class _Source:
    """Data, in batches."""

    def __init__(self, process: Affine, data: Any, matching: str) -> None:
        if not isinstance(process, Affine):
            raise ValueError(
                f"process = {process!r}: one without walls is needed, such as "
                "fpc.noising.OrnsteinUhlenbeck()."
            )
        if matching not in ("denoising", "exact"):
            raise ValueError(f'matching = {matching!r}; choose "denoising" or "exact".')
        self.mixture = data if isinstance(data, GaussianMixture) else None
        self.exact = matching == "exact"
        if self.mixture is not None:
            m = self.mixture
            self.dimension = m.dimension
            squares = (m.means**2).sum(axis=1) + np.trace(m.covariances, axis1=1, axis2=2)
            self.moment = float(m.weights @ squares) / m.dimension
            return
        if self.exact:
            raise ValueError(
                'matching = "exact": exact scores are those of a GaussianMixture, and data are '
                'samples; choose "denoising".'
            )
        self._points = np.asarray(data, dtype=float)
        if self._points.ndim != 2 or 0 in self._points.shape:
            raise ValueError(
                f"data of shape {self._points.shape}: samples (N, d) or a GaussianMixture are "
                "needed."
            )
        if not np.isfinite(self._points).all():
            raise ValueError("data: all samples must be finite.")
        self.dimension = self._points.shape[1]
        self.moment = float((self._points**2).mean())
        if not self.moment > 0.0:
            raise ValueError("data: all samples are at 0.")

    def draw(self, n: int, rng: np.random.Generator) -> Array:
        """Points of the data, ``(n, d)``."""
        if self.mixture is not None:
            return self.mixture.sample(n, seed=int(rng.integers(2**63)))
        return self._points[rng.integers(len(self._points), size=n)]


class _Task:
    """A loss, and steps that make it smaller."""

    def __init__(
        self,
        network: Architecture,
        told: Clock,
        clock: Graded,
        source: _Source,
        weight: float,
        weighting: str,
    ) -> None:
        self.network, self.source, self.weight = network, source, weight
        places = (np.arange(TIMES) + 0.5) / TIMES
        times = [clock.noising_time(u) for u in places]
        p = told.process
        rows = [
            (*told.at(t), *told.slope(t), p.scale(t), p.variance(t), p.rate(t), p.sigma(t) ** 2)
            for t in times
        ]
        table = np.array(rows)
        omega = np.ones(TIMES)
        if weighting != "even":
            v, kappas = table[:, 7], table[:, 1] ** 2
            omega = np.array([clock.rate(u) for u in places]) * table[:, 9] / v
            noise = v / table[:, 2]
            omega *= {"kl": np.ones(TIMES), "noise": noise, "snr": kappas / noise}[weighting]
        self._table = np.column_stack([table, omega / omega.mean()]).astype(np.float32)

    def run(
        self,
        layers: list,
        iterations: int,
        batch: int,
        points: int,
        rate: float,
        seed: int,
        stop: Callable[[], bool],
        shown: Progress,
    ) -> tuple[list, list[Epoch]]:
        """Train; weights and history. On one rank."""
        jax, optax = _import()
        rng = np.random.default_rng([seed, 1])
        with jax.enable_x64(False):
            schedule = optax.cosine_decay_schedule(rate, iterations, LAST_RATE)
            optimizer = optax.adam(schedule)
            weights = jax.tree.map(jax.numpy.asarray, [tuple(layer) for layer in layers])
            weights = jax.tree.map(lambda w: w.astype(jax.numpy.float32), weights)
            state = optimizer.init(weights)
            table = jax.numpy.asarray(self._table)

            def step(carry: Any, given: Any) -> Any:
                weights, state = carry
                slopes, parts = jax.grad(self._loss, has_aux=True)(weights, table, points, *given)
                updates, state = optimizer.update(slopes, state)
                return (optax.apply_updates(weights, updates), state), parts

            many = jax.jit(lambda carry, given: jax.lax.scan(step, carry, given))
            history: list[Epoch] = []
            done, begun = 0, time.monotonic()
            while done < iterations and not (stop() and done):
                n = min(CHUNK, iterations - done)
                (weights, state), parts = many((weights, state), self._batches(n, batch, rng))
                matching, residual = (float(np.mean(part)) for part in parts)
                if not np.isfinite([matching, residual]).all():
                    raise ArithmeticError(
                        f"The loss is not finite after {done + n} iterations: choose a smaller "
                        f"rate than {rate:g}, or a smaller residual_weight than {self.weight:g}."
                    )
                begun = begun if done else time.monotonic()
                done += n
                history.append(Epoch(done, matching, residual, time.monotonic() - begun))
                shown.update(f"matching {matching:.3g} residual {residual:.3g}", n)
            return [(np.array(W), np.array(b)) for W, b in weights], history

    def _batches(self, n: int, size: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
        """Places of times in the table, data and noise of n batches; times are stratified."""
        first = np.arange(size) * TIMES // size
        places = (first + rng.integers(max(TIMES // size, 1), size=(n, size))) % TIMES
        # Of the residual the first points are taken: any times.
        places = rng.permuted(places, axis=1).astype(np.int32)
        d = self.source.dimension
        x = self.source.draw(n * size, rng).reshape(n, size, d)
        return places, x.astype(np.float32), rng.standard_normal((n, size, d), dtype=np.float32)

    def _loss(self, weights: Any, table: Any, points: int, places: Any, x0: Any, z: Any) -> Any:
        import jax.numpy as jnp

        rows = table[places]
        told, slope, (scale, v, a, squares, omega) = rows[:, :3], rows[:, 3:6], rows[:, 6:].T
        x = scale[:, None] * x0 + jnp.sqrt(v)[:, None] * z
        gap = jnp.sqrt(v)[:, None] * self.network.score(weights, told, x)
        if self.source.exact:
            gap -= jnp.sqrt(v)[:, None] * self._exact(scale, v, x)
        else:
            gap += z
        matching = (omega[:, None] * gap**2).mean()
        if self.weight == 0.0:
            return matching, (matching, 0.0 * matching)
        k = slice(0, points)
        R = self.network.residual(weights, told[k], slope[k], a[k], squares[k], x[k])
        R = R * (v / squares)[k] if R.ndim == 1 else R * (v**1.5 / squares)[k, None]
        residual = (R**2).mean()
        return matching + self.weight * residual, (matching, residual)

    def _exact(self, scale: Any, v: Any, x: Any) -> Any:
        """Score of the noised mixture, each point at its own time, ``(N, d)``."""
        import jax
        import jax.numpy as jnp

        m = self.source.mixture
        assert m is not None
        lambdas, axes = np.linalg.eigh(m.covariances)
        total = scale[:, None, None] ** 2 * lambdas + v[:, None, None]
        y = jnp.einsum("kij,nki->nkj", axes, x[:, None] - scale[:, None, None] * m.means)
        logs = np.log(m.weights) - 0.5 * (y**2 / total + jnp.log(total)).sum(axis=2)
        return -jnp.einsum("nk,kij,nkj->ni", jax.nn.softmax(logs, axis=1), axes, y / total)
