"""What a time step is: the interface that forward runs, sweeps and storage work with."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Protocol

from fpcontrol.discretization.base import DriftProducts, SemiDiscretization, StageDrift
from fpcontrol.typing import Array

type Drive = Callable[[int], StageDrift]  # what drives stage i of a step
type Collect = Callable[[int], DriftProducts]  # where stage i of a step adds its products


class Kept(Protocol):
    """What a stepper can keep from a forward sweep for the reverse one, such as factorizations."""

    @property
    def memory(self) -> float:
        """Bytes of one on this rank. Collective."""

    def keep(self, memory: float, most: int) -> int:
        """Keep as many as fit, at least one; returns how many. Collective."""


class Solves(Protocol):
    """What the solves of the steps so far have taken.

    Attributes:
        method: In a word.
        iterations: Linear iterations, or products with a matrix where nothing is solved.
        rescues: Direct solves where iterations have failed.
        tolerance: Relative tolerance of one.
    """

    method: str

    @property
    def iterations(self) -> int:
        """See above."""

    @property
    def rescues(self) -> int:
        """See above."""

    @property
    def tolerance(self) -> float:
        """See above."""


class Stepper(ABC):
    """One time step, its tangent and its transpose. Collective.

    Attributes:
        system: The discretization in space.
        rows: Local arrays kept a level for the reverse sweep: the density last, before it
            what the step that led to it computed on its way (``kept``).
        operators: What can be kept beside the levels.
        solver: The linear solver, for its statistics.
        workspace: Numbers in this rank's arrays while it goes back, beside some vectors.
        absorbed: This rank's part of the mass that each absorbing wall has taken in the last
            ``step``, ``(tags,)``.
        killed: This rank's part of the mass that was killed in the last ``step``.
        produced: Mass, of all ranks, that has entered again in the last ``step``.
        limited: Owned nodes that were limited, over all steps so far.
    """

    system: SemiDiscretization
    rows: int
    operators: Kept
    solver: Solves
    workspace: int = 0
    absorbed: Array
    killed: float = 0.0
    produced: float = 0.0
    limited: int = 0

    @abstractmethod
    def step(
        self, rho: Array, before: Array, out: Array, drive: Drive, kept: Array | None = None
    ) -> None:
        """Advance one step. Collective.

        Args:
            rho: Density at the start of the step, local.
            before: Density a step before, local, from which iterations may extrapolate.
            out: Density at the end of the step, local; ghosts updated.
            drive: What drives each stage.
            kept: If given, room for what the transpose needs, ``(rows - 1, n_local)``.
        """

    @abstractmethod
    def tangent_step(
        self,
        drho: Array,
        rho: Array,
        kept: Array,
        new: Array,
        drive: Drive,
        dv: Callable[[int], Array],
        out: Array,
    ) -> None:
        """Derivative of ``step``. Collective.

        Args:
            drho: Tangent at the start of the step, local.
            rho: Start of the step, local.
            kept: What ``step`` has kept.
            new: End of the step, local.
            drive: What drives each stage.
            dv: Tangent of the drift's values in each stage, ``(N, d)``.
            out: Tangent at the end of the step, local.
        """

    @abstractmethod
    def adjoint_state(self) -> Any:
        """What a reverse sweep carries from step to step beside the dual: guesses, room."""

    @abstractmethod
    def adjoint_step(
        self,
        dual: Array,
        rho: Array,
        kept: Array,
        new: Array,
        drive: Drive,
        state: Any,
        collect: Collect,
    ) -> Array:
        """Transpose of ``step``. Collective.

        Args:
            dual: Dual at the end of the step, owned entries.
            rho: Start of the step, local.
            kept: What ``step`` has kept.
            new: End of the step, local.
            drive: What drives each stage.
            state: From ``adjoint_state``.
            collect: Where each stage adds its products, called from the last stage to the first;
                their sum times ``product_scale`` is the derivative in the drift's values.

        Returns:
            Dual at the start of the step, owned entries.
        """

    def limited_share(self, count: int, steps: int) -> float:
        """Share of nodes times steps, for a rank's count of those limited. Collective."""
        g = self.system.elements
        return g.sum(count) / (g.index_map.size_global * steps)

    @property
    @abstractmethod
    def product_scale(self) -> float:
        """Factor of the collected products."""
