"""Problems without time that an equation answers: stationary, spectral, and of first passage."""

import functools
import warnings

from mpi4py import MPI

import numpy as np
from dolfinx import fem
from dolfinx.mesh import MeshTags

from fpcontrol.discretization.base import SemiDiscretization
from fpcontrol.discretization.elements import Elements
from fpcontrol.discretization.neumann import Parts
from fpcontrol.discretization.noise_sampler import NoiseSampler
from fpcontrol.discretization.sets import Where, dofs_of
from fpcontrol.drift.base import Drift
from fpcontrol.generator.operator import Generator
from fpcontrol.generator.spectrum import Eigenpairs, eigenpairs
from fpcontrol.noise import Noise
from fpcontrol.parallel.errors import reduced
from fpcontrol.typing import Array

# Part of the mean density that the minimum may be below zero without a word, as in a run.
NEGATIVE = 0.01


class SteadyProblems:
    r"""What is asked of a process whose drift and noise do not depend on time.

    All of it is of the discretization that runs in time, :math:`M\dot\rho = -N\rho`: the exact
    limits of its runs, and of its order. With ``Monotone()`` densities, probabilities and times are
    not negative; with ``Galerkin()`` they are up to the error. ``Limited()`` is not linear and is
    refused. By LU on any number of ranks (``generator.operator``), whose memory is the limit. The
    slowest times are known to about 1e-16 of their ratio to the fastest: barriers above some 30 D
    are beyond double precision with ``Galerkin()``.
    """

    system: SemiDiscretization
    elements: Elements
    drift: Drift
    noise: Noise
    _sampler: NoiseSampler

    @functools.cached_property
    def _generator(self) -> Generator:
        return Generator(self.system, self.drift, self._sampler)

    def stationary(self) -> fem.Function:
        r"""The density of mass 1 that stays, :math:`N\rho = 0`, for any steady drift. Collective.

        With a source (``fpc.Reactions``) the one that it keeps up against walls that absorb and
        killing, :math:`(N + K)\rho = F`, of the mass that it has then. With ``reentry``, r, the one
        of mass 1 with :math:`N\rho = f M r`; f is the rate at which walls take mass.

        Raises:
            ValueError: On all ranks, if walls absorb or mass is killed without a source, or a
                source makes mass that nothing takes, drift or noise depends on time, the mesh has
                parts that do not touch, or for ``Limited()``.
            ArithmeticError: On all ranks, if the solver fails.
        """
        generator = self._generator
        reacting = self.system.reacting
        if reacting is not None and reacting.rate > 0.0:
            self._check_reached(generator.walls, "the source's mass would grow for ever")
            found = generator.closed(generator.walls)(reacting.load)
        elif self.system.reentry is not None:
            self._check_reached(generator.walls, "nothing reaches a wall and enters again")
            load = generator.mass(self.system.reentry.density)
            load[generator.walls[: self.elements.n_owned]] = 0.0
            found = generator.closed(generator.walls)(load)
            found /= self.elements.integral(found)
        elif generator.leaks:
            raise ValueError(
                "Walls absorb, or mass is killed: no density stays. eigenpairs(1) gives the one "
                "whose shape stays, fpc.Reactions(source=...) keeps one up."
            )
        else:
            found = generator.stationary(generator.pinned())
        rho = _function(self.elements, found, "stationary")
        own = rho.x.array[: self.elements.n_owned]
        lowest = float(reduced(self.elements.comm, np.array(own.min(initial=np.inf)), MPI.MIN))
        share = lowest * self.elements.volume / self.elements.integral(found)
        if share < -NEGATIVE and self.elements.comm.rank == 0:
            warnings.warn(
                f"The stationary density falls to {lowest:.3g}, {share:.2g} of its mean: the mesh "
                "does not resolve the drift. Refine it, or take Monotone().",
                stacklevel=2,
            )
        return rho

    def eigenpairs(self, count: int, *, backward: bool = False) -> Eigenpairs:
        r"""The slowest modes, :math:`N\varphi = \lambda M\varphi`. Collective.

        Densities relax as :math:`\rho = \pi + \sum_j c_j e^{-\lambda_j t}\varphi_j`. The first one
        is the stationary density, :math:`\lambda = 0`; between absorbing walls the quasi-stationary
        one, whose mass decays at the rate :math:`\lambda_0`; either has mass 1. The others have the
        norm 1 in L2, and backward, where no wall absorbs, in L2 with the weight :math:`\pi`.

        By ARPACK on the inverse, on rank 0, with a basis of 4 ``count`` + 20 vectors there; all
        ranks share in its solves. The slowest are chosen among the 2 ``count`` + 8 of smallest
        modulus: one that turns faster than all of these is not seen. ``Monotone()`` damps turning
        modes by its numerical diffusion.

        Args:
            count: How many, by real part; one more comes if a complex pair would be cut.
            backward: Whether of the backward equation, :math:`N^\top\psi = \lambda M\psi`:
                observables whose mean decays as :math:`e^{-\lambda t}`, the first the constant 1.

        Raises:
            ValueError: As ``stationary``, and for a bad ``count``.
            ArithmeticError: On all ranks, if the solver fails or does not converge.
        """
        whole = isinstance(count, int | np.integer) and not isinstance(count, bool)
        if not whole or count < 1:
            raise ValueError(f"count = {count!r} must be a positive integer.")
        self._refuse_reentry("eigenpairs")
        return eigenpairs(self._generator, int(count), backward)

    def committor(self, a: Where, b: Where, *, tags: MeshTags | None = None) -> fem.Function:
        r"""Probability to reach ``b`` before ``a`` from each point. Collective.

        .. math:: v\cdot\nabla q + D\Delta q = 0,\qquad q = 0 \text{ on } a,\ q = 1 \text{ on } b

        and :math:`n\cdot\nabla q = 0` at walls that reflect; at those that absorb :math:`q = 0`,
        unless they belong to ``b``.

        Args:
            a: Set: ``marker(x)`` as in dolfinx, ``x`` of shape ``(3, N)``, which picks nodes; or
                one or several tags of cells or facets.
            b: Another set, apart from it.
            tags: ``MeshTags`` of cells or facets, if ``a`` and ``b`` name some.

        Raises:
            ValueError: On all ranks, for sets that are empty or overlap, and as ``stationary``.
            ArithmeticError: On all ranks, if the solver fails.
        """
        self._refuse_reentry("committor")
        g = self.elements
        zero, one = dofs_of(g, a, tags, "a"), dofs_of(g, b, tags, "b")
        both = int(g.sum(float((zero & one)[: g.n_owned].sum())))
        if both:
            raise ValueError(
                f"a and b share {both} nodes; the committor needs sets that are apart."
            )
        return self._harmonic(zero | self._generator.walls, one, "committor")

    def exit_probability(self, tag: int | str) -> fem.Function:
        r"""Probability to leave through one of the absorbing walls, from each point. Collective.

        Its mean in a start density is what ``Trajectory.absorbed`` of this wall tends to.

        Args:
            tag: One of the walls' tags, or its name; 1 for a marker.

        Raises:
            ValueError: On all ranks, if no wall has this tag, and as ``committor``.
            ArithmeticError: On all ranks, if the solver fails.
        """
        walls = self.system.absorbing
        number = walls.names.get(tag, -1) if walls and isinstance(tag, str) else tag
        if walls is None or number not in walls.tags:
            known = walls.tags if walls else "none"
            raise ValueError(f"tag = {tag!r} is no absorbing wall's; there are: {known}.")
        return self._harmonic(self._generator.walls, walls.of_tag(number), "exit probability")

    def exit_time(
        self, target: Where | None = None, *, tags: MeshTags | None = None
    ) -> fem.Function:
        r"""Mean first passage time to absorbing walls and a target, or until killed. Collective.

        .. math:: v\cdot\nabla\tau + D\Delta\tau = -1,\qquad \tau = 0 \text{ there}

        Its mean in a start density is the integral over all times of the mass in a run.

        Args:
            target: Set as ``a`` of ``committor``; none unless given.
            tags: ``MeshTags``, if the target names some.

        Raises:
            ValueError: On all ranks, if there is nothing to reach, or not from everywhere, and as
                ``committor``.
            ArithmeticError: On all ranks, if the solver fails.
        """
        g, generator = self.elements, self._generator
        fixed = generator.walls
        if target is not None:
            fixed |= dofs_of(g, target, tags, "target")
        elif not generator.leaks:
            raise ValueError(
                "There is nothing to reach: give a target, or the equation absorbing walls."
            )
        self._check_reached(fixed)
        time = generator.closed(fixed)(generator.mass(np.ones(g.n_local)), transpose=True)
        return _function(g, time, "exit time")

    # -- inner parts ---------------------------------------------------------------------------

    def _harmonic(self, zero: Array, one: Array, name: str) -> fem.Function:
        """Solution of the backward equation without source with two values given. Collective."""
        generator, fixed = self._generator, zero | one
        self._check_reached(fixed)
        values = one.astype(float)
        u = generator.closed(fixed)(-generator.apply(values, transpose=True), transpose=True)
        return _function(self.elements, u + values, name)

    def _refuse_reentry(self, name: str) -> None:
        if self.system.reentry is not None:
            raise ValueError(
                f"{name}: the operator with reentry is not that of the walls, which alone is "
                "solved with here. Make the equation without reentry=."
            )

    def _check_reached(self, fixed: Array, why: str = "nothing can be reached") -> None:
        """Refuse parts of the mesh from which nothing takes mass. Collective."""
        g, parts = self.elements, Parts.of(self.elements)
        taken = fixed[: g.n_owned].astype(float)
        if self.system.reacting is not None:
            taken += self.system.reacting.loss > 0.0
        missing = np.flatnonzero(parts.sums(taken) == 0.0)
        if missing.size:
            k = missing[0]
            raise ValueError(
                f"From {missing.size} of the {len(parts.volumes)} parts of the mesh {why}, the "
                f"first from {parts.lower[k]} to {parts.upper[k]}."
            )


def _function(g: Elements, u: Array, name: str) -> fem.Function:
    f = fem.Function(g.space, name=name)
    f.x.array[:] = u
    return f
