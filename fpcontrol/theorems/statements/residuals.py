r"""What a wrong log-density leaves of the equation decides what its samplers make.

Data noised by :math:`dX = f\,dt + g\,dW` up to T are reversed with the score
:math:`\hat s = \nabla\Phi` of a wrong log-density, from a density of noise q:

.. math:: dX = (g^2\hat s - f)\,ds + g\,dW \quad\text{(SDE)},\qquad
    \dot X = \tfrac12g^2\hat s - f \quad\text{(ODE)}.

With what :math:`\Phi` leaves of the equation, and with what it is off at T,

.. math:: R = \partial_t\Phi + \nabla\cdot f + f\cdot\nabla\Phi
    - \tfrac{g^2}2(\Delta\Phi + |\nabla\Phi|^2),\qquad e_T = \Phi(T) - \log q,

the densities at t = 0 are (own)

.. math:: \log p_{ODE}(X_0) &= \Phi(0, X_0) + \int_0^TR(t, X_t)\,dt - e_T(X_T)
    \quad\text{along the ODE},\qquad (a)\\
    p_{SDE}(x) &= e^{\Phi(0, x)}\,E_x\Bigl[e^{\int_0^TR(t, Y_t)\,dt - e_T(Y_T)}\Bigr],
    \quad Y \text{ the noising process from } x:\qquad (b)

the ODE reads R along one path, the SDE takes its mean over noisy ones. Hence a maximum principle,
and, with :math:`L_t` the largest slope of the ODE's drift, a bound of the kind of Theorem 1 of [1]
(reconstructed; the printed one is through R):

.. math:: |\log p - \Phi(0)|_\infty &\le |e_T|_\infty + \int_0^T|R|_\infty\,dt
    \quad\text{for both},\qquad (c)\\
    W_2(p_{ODE}, p_{SDE}) &\le \int_0^Te^{\int_0^tL}\,\tfrac{g^2}2\,
    \|\hat s - \nabla\log p_{SDE}\|_{L^2(p_{SDE})}\,dt.\qquad (d)

The log-density is the exact one of a mixture of Gaussians plus :math:`e^{-4t}\psi`: waves of any
height and number, or a network drawn at random. Samplers start from noise alone, which at T = 3
is not the noised data. Suprema are over the box in which it is computed, where all mass is.
In the plane (d) is checked of a network all of whose weights are trained; its W2 lies between that
of the marginals and the cost of a rearrangement, coordinate by coordinate.

Traps. On the whole space :math:`|R|_\infty` is infinite. The logarithm of a density by elements
means nothing in the tails. Bounds hold with room: so each has a
control, another density of which it must be wrong, or a case in which it is reached; and so have
the identities, with R left out.

References:
    [1] T. Deveney, J. Stanczuk, L. Kreusser, C. Budd, C.-B. Schoenlieb, Closing the ODE-SDE gap in
    score-based diffusion models through the Fokker-Planck equation, arXiv:2311.15996.
"""

from dataclasses import replace

from mpi4py import MPI

import numpy as np

from fpcontrol.noising import GaussianMixture, Noised, OrnsteinUhlenbeck
from fpcontrol.parallel.errors import collective_errors
from fpcontrol.theorems.closed_forms.wrong_scores import (
    Network,
    Slope,
    Waves,
    WrongLogDensity,
)
from fpcontrol.theorems.framework import Experiment, Figure, Grid, Line, Study, measure
from fpcontrol.theorems.runs.in_the_plane import PlaneSamplers
from fpcontrol.theorems.runs.trained_networks import TrainedNetwork
from fpcontrol.theorems.runs.wrong_samplers import Box, Samplers
from fpcontrol.typing import Array

LINE = GaussianMixture([-1.2, 1.0], [0.08, 0.15], [0.6, 0.4])
PLANE = GaussianMixture([[-1.2, 0.0], [1.0, 0.6]], [0.2, 0.3], [0.4, 0.6])
NEAR = GaussianMixture([[-0.6, 0.0], [0.5, 0.4]], [0.25, 0.3], [0.4, 0.6])
ON_LINE = np.array([[-1.5], [-1.1], [0.0], [0.8], [1.2]])
IN_PLANE = np.array([[-1.25, 0.0], [-1.0, -0.5], [0.0, 0.25], [0.75, 0.5], [1.25, 1.0]])

DEFECT = 1e-6  # of identity (a)
ERRORS = 3.0  # standard errors of identity (b)
TOLERANCE = 1e-9  # of characteristics
FACTOR = 12.0  # of the perturbation in the control of (c)


def waves(
    comm: MPI.Comm,
    *,
    c: float = 8.0,
    omega: float = 8.0,
    t1: float = 3.0,
    paths: int = 4000,
    path_steps: int = 200,
    seed: int = 0,
    grid: Grid | None = None,
) -> Study:
    r"""Waves on the log-density of two Gaussians on a line: (a) to (d).

    Args:
        c: Height of the error of the second derivative.
        omega: Its wave number.
        paths: Noisy paths from each point.
        path_steps: Of them.
        seed: Of the paths.
    """
    study = Study(
        f"residual of a log-density with waves, c = {c:g}, omega = {omega:g}, T = {t1:g}",
        "Along the ODE the log-density is off by the integral of the residual; the SDE's density "
        "is the mean over noisy paths; both stay within the residual's bound.",
    )
    data = Noised(OrnsteinUhlenbeck(t1), LINE)
    samplers = Samplers(WrongLogDensity(data, Waves(c, omega)), Box(comm, 1, 4.5))
    grid = grid or Grid(180, 60)
    _check(study, samplers, ON_LINE, paths, path_steps, seed, grid)
    apart, _, bound = measure(lambda at: np.array(samplers.between(at, samplers)), grid)
    study.report("(d) W2 of ODE and SDE", apart)
    study.below("(d) W2 of ODE and SDE over its bound", apart / bound, 1.0)
    return study


def sharp(
    comm: MPI.Comm,
    *,
    c: float = 2.0,
    t1: float = 8.0,
    grid: Grid | None = None,
) -> Study:
    r"""A score off by a constant, of a Gaussian at rest: the bound (d) is reached.

    Both samplers keep the variance 1/2 and move the mean; with one sign of
    :math:`\hat s - \nabla\log p_{SDE}`, a constant, no inequality on the way to (d) is strict.

    Args:
        c: The error of the score at t = 0.
        t1: Last time T. The noise has the variance (1 - exp(-2 T))/2: for T = 3 the bound is half
            a percent larger.
    """
    study = Study(
        f"score off by a constant, c = {c:g}, T = {t1:g}",
        "Of a Gaussian with a score that is off by a constant the distance of ODE and SDE is its "
        "bound; an ODE that errs the other way is beyond it.",
    )
    data = Noised(OrnsteinUhlenbeck(t1), GaussianMixture([0.0], 0.5))
    samplers = Samplers(WrongLogDensity(data, Slope(c)), Box(comm, 1, 4.5))
    far = Samplers(replace(samplers.model, scale=-1.0), samplers.box)
    own, other, bound = measure(
        lambda at: np.array(samplers.between(at, far)), grid or Grid(120, 120, 3)
    )
    study.equals("(d) W2 of ODE and SDE", own, _apart(c, t1), 2e-3)
    study.equals("(d) W2 over its bound", own / bound, 1.0, 2e-3)
    study.above("control: the ODE that errs the other way, over the bound", other / bound, 1.5)
    return study


def _apart(c: float, t1: float, k: float = 4.0) -> float:
    r"""Means of ODE and SDE: :math:`\dot m = \tfrac12ce^{-kt}` and :math:`-m + ce^{-kt}`."""
    ode = 0.5 * c * -np.expm1(-k * t1) / k
    sde = c * -np.expm1(-(k + 1.0) * t1) / (k + 1.0)
    return abs(ode - sde)


def network(
    comm: MPI.Comm,
    *,
    width: int = 16,
    weights: int = 1,
    t1: float = 3.0,
    paths: int = 4000,
    path_steps: int = 200,
    seed: int = 0,
    grid: Grid | None = None,
) -> Study:
    r"""A network on the log-density of two Gaussians in the plane: (a) to (c).

    Args:
        width: Of its hidden layer.
        weights: Seed of its weights.
        paths: Noisy paths from each point.
        path_steps: Of them.
        seed: Of the paths.
    """
    study = Study(
        f"residual of a log-density with a network of width {width}, T = {t1:g}",
        "The same of a network in the plane: one path for the ODE, noisy ones for the SDE.",
    )
    data = Noised(OrnsteinUhlenbeck(t1), PLANE)
    model = WrongLogDensity(data, Network(2, width, weights))
    samplers = Samplers(model, Box(comm, 2, 4.0))
    _check(study, samplers, IN_PLANE, paths, path_steps, seed, grid or Grid(32, 24))
    return study


def trained(
    comm: MPI.Comm,
    *,
    width: int = 12,
    iterations: int = 100,
    t1: float = 3.0,
    seed: int = 0,
    grid: Grid | None = None,
) -> Study:
    r"""A network that is trained to the score of two Gaussians in the plane: (d).

    Args:
        width: Of its hidden layer.
        iterations: Of its training, see ``TrainedNetwork.trained``.
        seed: Of its first weights and of the points of the training.
    """
    study = Study(
        f"trained network of width {width} in the plane, T = {t1:g}",
        "The ODE of a trained score is no farther from its SDE than the bound, even by a "
        "rearrangement that is not the cheapest; the ODE of another score is farther.",
    )
    with collective_errors(comm):
        model = None
        if comm.rank == 0:
            data = Noised(OrnsteinUhlenbeck(t1), NEAR)
            model = TrainedNetwork.trained(data, width, iterations=iterations, seed=seed)
    model = comm.bcast(model)
    samplers = PlaneSamplers(model, Box(comm, 2, 4.0))
    still = replace(samplers, model=replace(model, outer=0.0 * model.outer))
    least, most, other, _, bound = measure(
        lambda at: samplers.distances(at, still), grid or Grid(20, 24, 3)
    )
    study.report("(d) W2 of ODE and SDE, at least", least)
    study.report("(d) W2 of ODE and SDE, at most", most)
    study.report("(d) bound", bound)
    study.below("(d) W2 at least over at most", least / most, 1.0)
    study.below("(d) W2 of ODE and SDE, at most, over its bound", most / bound, 1.0)
    study.above(
        "control: the ODE of the noise's score, at least, over the bound", other / bound, 1.5
    )
    return study


def _check(
    study: Study,
    samplers: Samplers,
    points: Array,
    paths: int,
    steps: int,
    seed: int,
    grid: Grid,
) -> None:
    """(a), (b), (c), each with a control. Collective."""
    model, box = samplers.model, samplers.box
    x = box.nodes_near(points, grid.cells)
    seen = box.lattice()
    p = np.exp(model.log_density(0.0, seen))
    seen = seen[p > 1e-4 * p.max()]
    seen = np.concatenate([x, seen[:: max(1, len(seen) // 300)]])

    def defects(tolerance: float) -> Array:
        log_p, integral, initial = samplers.along_the_ode(seen, tolerance)
        gap = log_p - model.log_density(0.0, seen)
        without = np.abs(gap + initial).max()
        return np.array([np.abs(gap - integral + initial).max(), without, np.abs(gap).max()])

    identity, without, ode = Figure.refined(defects(TOLERANCE), defects(0.1 * TOLERANCE))
    study.below("(a) defect of log p_ODE along the ODE", identity, DEFECT)
    study.above("control: the same without R", without, 1e3 * DEFECT)

    runs = {at: samplers.sde(at)[-1] for at in (grid, grid.finer())}
    # Crank-Nicolson and elements of degree 2: of order 2 at least.
    coarse, fine = (samplers.at_nodes(rho, x) for rho in runs.values())
    exact = Figure.refined(coarse, fine, order=2.0)
    means, deviations = samplers.over_noisy_paths(x, paths, steps, seed)
    labels = [", ".join(f"{v:g}" for v in point) for point in x]
    found = Figure(means[0], means[0] - means[1])
    study.report("p_SDE at {}", exact, over=labels)
    off = _distance(found, exact, deviations[0])
    study.below("(b) standard errors from p_SDE, at {}", off, ERRORS, over=labels)
    off = _distance(Figure(means[2], 0.0), exact, deviations[2]).max()
    study.above("control: the same without R, largest", off, 2.0 * ERRORS)

    bound = samplers.bound
    sde = Figure.refined(*(samplers.log_error(rho) for rho in runs.values()))
    study.below("(c) |log p_SDE - Phi| over its bound", sde / bound, 1.0)
    study.below("(c) |log p_ODE - Phi| over its bound", ode / bound, 1.0)
    study.report("(c) bound", bound)
    other = Samplers(replace(model, scale=FACTOR), box)

    def other_error(tolerance: float) -> float:
        log_p = other.along_the_ode(seen, tolerance)[0]
        return float(np.abs(log_p - model.log_density(0.0, seen)).max())

    far = Figure.refined(other_error(1e-6), other_error(1e-7))
    study.above(f"control: the ODE of {FACTOR:g} times the perturbation", far / bound, 1.0)
    _draw(study, samplers, exact, found, x)


def _distance(found: Figure, exact: Figure, deviation: Array) -> Figure:
    """In standard errors."""
    gap = np.abs(found.value - exact.value)
    return Figure(gap / deviation, (found.error + exact.error) / deviation)


def _draw(study: Study, samplers: Samplers, exact: Figure, found: Figure, x: Array) -> None:
    """Densities along the first axis, through the origin of the others. Collective."""
    d, half = samplers.box.dimension, samplers.box.half
    line = np.zeros((241, d))
    line[:, 0] = np.linspace(-0.6 * half, 0.6 * half, len(line))
    ode = np.exp(samplers.along_the_ode(line, 1e-6)[0])
    phi = np.exp(samplers.model.log_density(0.0, line))
    lines = [Line(line[:, 0], ode, "ODE", "-"), Line(line[:, 0], phi, "exp Phi", "--")]
    if d == 1:
        lines += [Line(x[:, 0], exact, "SDE", "o"), Line(x[:, 0], found, "SDE by (b)", "x")]
    study.picture("Densities at t = 0", "x", "density", *lines)


EXPERIMENTS = [
    Experiment("t6.waves", waves, quick={"paths": 2000, "path_steps": 100}),
    Experiment("t6.waves.low", waves, c=2.0, omega=4.0, quick=None),
    Experiment("t6.sharp", sharp),
    Experiment("t6.network", network, quick=None),
    Experiment("t6.trained", trained, quick=None),
]
