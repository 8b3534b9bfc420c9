r"""Certificates of controlled densities: how far from the reference they can be at most."""

import numpy as np

from fpcontrol.certificates import Certificate, certificate
from fpcontrol.characteristics.flow import Flow
from fpcontrol.control.on_mesh import MeshRuns
from fpcontrol.control.tracking import TrackingProblem
from fpcontrol.noise import Noise
from fpcontrol.reference import MoserFlow
from fpcontrol.trajectory import Trajectory, trajectory
from fpcontrol.typing import Array


def tracking_certificate(
    problem: TrackingProblem,
    weights: Array,
    controlled: Trajectory | Flow | None = None,
    *,
    signed: bool = False,
) -> Certificate:
    r"""Certificate of a controlled density against its reference. Collective.

    The first density is the controlled one, the second the Moser line with the drift that follows
    it at the problem's noise: so :math:`\frac1{2\sigma^2}E\int|v_\theta-v|^2` bounds the
    relative entropy of what the network does from what it should do. Both drifts are taken at the
    quadrature points of Galerkin's elements, whatever the problem's discretization is: the
    estimates are those of the equation, and hold for computed densities up to the errors of space
    and time.

    Args:
        problem: The control problem.
        weights: Flat weights, such as ``result.weights``.
        controlled: Its density, if it is at hand; run for unless given.
        signed: See ``certificate``.

    Raises:
        ValueError: On all ranks, for a problem without noise, by which the estimates divide, or
            whose noise depends on place or direction, with absorbing walls, or a reference that is
            not positive.
    """
    g, line = problem.elements, problem.reference
    if controlled is None:
        controlled = problem.trajectory(weights)
    if isinstance(controlled, Flow) or not isinstance(line, MoserFlow):
        raise ValueError("sigma = 0: these estimates divide by sigma**2; use a problem with noise.")
    if not Noise(problem.sigma).uniform:
        raise ValueError("sigma depends on place or direction: these estimates divide by a number.")
    if problem.tags or (isinstance(problem.runs, MeshRuns) and problem.runs.system.reacting):
        raise ValueError("absorbing, reactions: these estimates are of densities of equal mass.")
    reference = MoserFlow.through(
        line.densities,
        line.times,
        problem.sigma,
        quadrature_degree=g.quadrature_degree,
    )
    levels = np.array([reference.coefficients(t) for t in problem.times])
    return certificate(
        controlled,
        trajectory(reference.elements, problem.times, levels, 0),
        problem.drift.with_weights(weights),
        reference.drift,
        problem.sigma,
        quadrature_degree=g.quadrature_degree,
        signed=signed,
    )
