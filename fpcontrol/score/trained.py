"""Scores that were trained: networks with their process, on disk and back."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mpi4py import MPI

import numpy as np

from fpcontrol.noising.processes import Affine
from fpcontrol.parallel.communicators import cached_comm
from fpcontrol.score.adapters import JaxScore
from fpcontrol.score.files import read, write
from fpcontrol.score.networks import Architecture, Clock
from fpcontrol.typing import Array

FORMAT = 1
BLOCKS = (512, 2048)  # points at a time: two compilations for any number of points, little memory


@dataclass(frozen=True)
class Epoch:
    """Where a training stood.

    Attributes:
        iteration: Iterations so far.
        matching: Mean of the matching loss since the entry before, in the units of ``train``.
        residual: The same of the residual term without its weight; zero where there was none.
        seconds: Since the beginning, compilation left out.
    """

    iteration: int
    matching: float
    residual: float
    seconds: float


class TrainedScore(JaxScore):
    """A network that ``train`` made; a score like any other, in double precision. Needs JAX.

    Args:
        process: The noising process.
        architecture: The network's.
        clock: How it is told the time.
        weights: Matrices and offsets of its layers.
        history: Of the training.

    Attributes:
        process, architecture, clock, history: As given.
    """

    def __init__(
        self,
        process: Affine,
        architecture: Architecture,
        clock: Clock,
        weights: Sequence[tuple[Array, Array]],
        history: Sequence[Epoch] = (),
    ) -> None:
        self.process, self.architecture, self.clock = process, architecture, clock
        self.history = tuple(history)
        self.layers = [(np.asarray(W), np.asarray(b)) for W, b in weights]

        def one(weights: Any, time: Any, x: Any) -> Any:
            return architecture.output(weights, time[None], x[None])[0]

        super().__init__(one, [tuple(layer) for layer in self.layers])
        jax = self._jax

        def batch(weights: Any, time: Any, x: Any) -> tuple[Any, Any]:
            return self._unravel(weights), jax.numpy.broadcast_to(time[:3], (len(x), 3))

        def residual(weights: Any, time: Any, x: Any) -> Any:
            ones = jax.numpy.ones(len(x))
            tree, features = batch(weights, time, x)
            slope = jax.numpy.broadcast_to(time[3:6], (len(x), 3))
            return architecture.residual(tree, features, slope, time[6] * ones, time[7] * ones, x)

        self._residual = jax.jit(residual)
        self._output = jax.jit(lambda w, time, x: architecture.output(*batch(w, time, x), x))

    def __repr__(self) -> str:
        a = self.architecture
        return (
            f"<TrainedScore: {a.kind} in {a.dimension}-D, {a.form}, {a.activation} {a.hidden}, "
            f"of {self.process}>"
        )

    def log_density(self, t: float, x: Array) -> Array:
        r"""The function :math:`\Phi`, ``(N,)``; its exponential is a density but for its mass.

        Raises:
            ValueError: If the network is one for scores.
        """
        if self.architecture.kind != "log_density":
            raise ValueError('log_density: this network was made with kind = "score".')
        return self._asked(self._output, t, x)

    def residual(self, t: float, x: Array) -> Array:
        """What is left of the Fokker-Planck equation, see ``train``; ``(N,)``, or ``(N, d)``."""
        slope, process = self.clock.slope(t), self.process
        time = [*self.clock.at(t), *slope, process.rate(t), process.sigma(t) ** 2]
        return self._blocks(self._residual, np.array(time), x)

    def _asked(self, function: Callable, t: float, *arrays: Array) -> Array:
        return self._blocks(function, self.clock.at(t), *arrays)

    def _blocks(self, function: Callable, time: Array, *arrays: Array) -> Array:
        n = len(arrays[0])
        if function is self._vjp:  # a sum over the points: those that are added have no part in it
            total = np.zeros(self.size)
            for part in _blocks(n, *arrays):
                total += self._called(function, time, *part)
            return total
        parts = [self._called(function, time, *part) for part in _blocks(n, *arrays)]
        return np.concatenate(parts)[:n]

    def save(self, path: str | os.PathLike[str], comm: MPI.Comm = MPI.COMM_WORLD) -> None:
        """Write it to an ``.npz`` file, from rank 0, in place of what is there. Collective.

        The process is not written, only what tells it from others: ``load`` is given it.

        Raises:
            OSError: On all ranks, if it cannot be written.
        """
        comm = cached_comm(comm)
        arrays = {
            f"{name}{i}": array
            for i, layer in enumerate(self.layers)
            for name, array in zip("Wb", layer, strict=True)
        }
        about = {
            "format": FORMAT,
            "architecture": asdict(self.architecture),
            "moment": self.clock.moment,
            "floor": self.clock.floor,
            "process": str(self.process),
            "history": [asdict(epoch) for epoch in self.history],
        }
        write(path, comm, about, arrays | {"probe": _probe(self.process)})


def load(
    path: str | os.PathLike[str], process: Affine, comm: MPI.Comm = MPI.COMM_WORLD
) -> TrainedScore:
    """A network from a file of ``TrainedScore.save``. Collective.

    Args:
        path: The file; nothing in it is run.
        process: The noising process that it was trained for.
        comm: Whose ranks all get it.

    Raises:
        OSError: On all ranks, if there is no such file or it is none of these.
        ValueError: On all ranks, if the network was trained for another process.
        ImportError: If JAX is not installed.
    """
    comm = cached_comm(comm)
    architecture, about, layers, probe = read(path, comm, "trained score", _checked)
    if not np.allclose(probe, _probe(process), rtol=1e-10, atol=0.0):
        raise ValueError(
            f"process = {process}: the network in {str(path)!r} was trained for {about['process']}."
        )
    clock = Clock(process, about["moment"], about["floor"])
    history = [Epoch(**epoch) for epoch in about["history"]]
    return TrainedScore(process, architecture, clock, layers, history)


def _blocks(n: int, *arrays: Array) -> Iterator[list[Array]]:
    """Blocks of equal numbers of rows: the last one is filled up with zeros."""
    size = BLOCKS[0] if n <= BLOCKS[0] else BLOCKS[1]
    for first in range(0, max(n, 1), size):
        parts = [a[first : first + size] for a in arrays]
        yield [np.pad(a, ((0, size - len(a)), *[(0, 0)] * (a.ndim - 1))) for a in parts]


def _checked(content: Any) -> tuple[Architecture, dict[str, Any], list, Array]:
    about = json.loads(str(content["about"]))
    if about.get("kind") == "SplineScore":
        raise ValueError("it holds splines; SplineScore.load(path, process) reads it")
    if about["format"] != FORMAT:
        raise ValueError(f"its format is {about['format']}, not {FORMAT}")
    about["architecture"]["hidden"] = tuple(about["architecture"]["hidden"])
    architecture = Architecture(**about["architecture"])
    shapes = architecture.shapes()
    layers = [(content[f"W{i}"], content[f"b{i}"]) for i in range(len(shapes))]
    if [(W.shape, b.shape) for W, b in layers] != shapes:
        raise ValueError("its layers are not of the widths that it names")
    return architecture, about, layers, content["probe"]


def _probe(process: Affine) -> Array:
    """Numbers that tell processes apart."""
    times = process.t1 * np.array([0.1, 0.5, 1.0])
    values = [(process.scale(t), process.variance(t), process.sigma(t)) for t in times]
    return np.array([*np.ravel(values), process.t1])
