"""The stepper that belongs to a scheme and a discretization."""

from collections.abc import Mapping
from typing import Any

from fpcontrol.discretization.base import SemiDiscretization
from fpcontrol.discretization.limited import LimitedSystem
from fpcontrol.stepping.base import Stepper
from fpcontrol.stepping.exponential import ExponentialStepper
from fpcontrol.stepping.limited import LimitedStepper
from fpcontrol.stepping.reentry import ReentryStepper
from fpcontrol.stepping.runge_kutta import RungeKuttaStepper
from fpcontrol.stepping.schemes import Exponential, RungeKutta, Scheme, check_scheme


def make_stepper(
    system: SemiDiscretization,
    dt: float,
    scheme: Scheme,
    diffusivity: float,
    linear_solver: str = "auto",
    petsc_options: Mapping[str, Any] | None = None,
) -> Stepper:
    """The stepper of a scheme on a discretization. Collective.

    Args:
        system: The discretization on a mesh.
        dt: Time step.
        scheme: Such as ``CrankNicolson()``.
        diffusivity: Largest ``D = sigma**2/2`` of the run.
        linear_solver: See ``LinearSolver``.
        petsc_options: See ``LinearSolver``.

    Raises:
        ValueError: On all ranks, if the scheme cannot serve the discretization; it says why.
    """
    scheme = check_scheme(scheme, system.discretization, bool(system.absorbing))
    if isinstance(scheme, Exponential) and system.reacting:
        raise ValueError(
            f"reactions: scheme = {scheme.name} has the exponential of the transport alone; take "
            "BackwardEuler() with sources and killing."
        )
    stepper: Stepper
    if isinstance(scheme, Exponential):
        stepper = ExponentialStepper(system, dt)
    elif not isinstance(scheme, RungeKutta):
        raise ValueError(f"scheme = {scheme.name} is no scheme that there are steps for.")
    else:
        limited = isinstance(system, LimitedSystem)
        make: Any = LimitedStepper if limited else RungeKuttaStepper
        stepper = make(system, dt, scheme, diffusivity, linear_solver, petsc_options)
    if system.reentry is None:
        return stepper
    return ReentryStepper(stepper, system.reentry, len(system.discretization.nodes(scheme)))
