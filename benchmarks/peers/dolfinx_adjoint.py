r"""The tracking problem in dolfinx-adjoint, without checkpointing: tape, reverse, and replay.

As a user of it would write it with care: one LinearProblem for all steps, whose forms are compiled
once, :math:`(M + \tfrac{dt}{2} N(v)) u = M\rho_n` with the drift on one side only and
:math:`\rho_{n+1} = 2u - \rho_n` (a quarter faster than the drift on both sides); the ten weights of
a piece in one vector-valued Constant, so that there is one sensitivity form for all of them; Krylov
method, preconditioner and tolerance as everyone's, also for the adjoint solves, started from the
last solution.
"""

from importlib import metadata
from typing import Any

from mpi4py import MPI

import dolfinx
import dolfinx_adjoint as dxa
import numpy as np
import pyadjoint
import ufl
from dolfinx_adjoint.blocks.function_assigner import (
    FunctionAssignBlock,
    create_function_with_special_vector,
)
from peers.problem import Tracking
from peers.worker import Prepared, serve

_assigned = FunctionAssignBlock.evaluate_adj_component


def _own_vector(self: Any, *args: Any, **options: Any) -> Any:
    """The adjoint of an assignment, in a vector of its own.

    In 0.4.0 all terms of a linear combination come back in one vector, each over the one before.
    """
    self._working_memory[0] = create_function_with_special_vector(self.get_outputs()[0].output)
    return _assigned(self, *args, **options)


FunctionAssignBlock.evaluate_adj_component = _own_vector
JIT = {"cffi_extra_compile_args": ["-O3", "-march=native", "-g0"]}


class Tape:
    """Forward runs that are recorded, and what is made of the record.

    Args:
        case: The problem.
    """

    def __init__(self, case: Tracking) -> None:
        self.case = case
        mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, case.n, case.n)
        self.space = space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
        rule = {"quadrature_degree": 2, "quadrature_rule": "default"}
        self._dx = dx = ufl.dx(domain=mesh, metadata=rule)
        options = {
            "ksp_type": "gmres",
            "ksp_rtol": case.rtol,
            "ksp_atol": 1e-300,
            "ksp_pc_side": "right",
            "ksp_initial_guess_nonzero": True,
            "pc_type": "ilu",
            "pc_factor_mat_ordering_type": "rcm",
        }

        self._weights = dxa.Constant(mesh, np.zeros(5 * case.width))
        self._rho, self._middle, self._next = (dxa.Function(space) for _ in range(3))
        trial, w = ufl.TrialFunction(space), ufl.TestFunction(space)
        v = self._drift(ufl.SpatialCoordinate(mesh))

        flux = case.D * ufl.grad(trial) - trial * v

        with pyadjoint.stop_annotating():
            self._problem = dxa.LinearProblem(
                trial * w * dx + 0.5 * case.dt * ufl.dot(flux, ufl.grad(w)) * dx,
                self._rho * w * dx,
                u=self._middle,
                petsc_options=options,
                adjoint_petsc_options=options,
                jit_options=JIT,
            )
            self._start, goal = self._density(case.start), self._density(case.goal)
            self._references = []
            for level in np.linspace(0.0, 1.0, case.steps + 1):
                reference = dxa.Function(space)
                reference.x.array[:] = (1.0 - level) * self._start.x.array + level * goal.x.array
                self._references.append(reference)
            self._controls = [
                dxa.Function(self._weights.function_space) for _ in range(case.pieces)
            ]

    def _density(self, shape: Any) -> dxa.Function:
        """A function at the nodes, scaled to mass 1."""
        rho = dxa.Function(self.space)
        rho.interpolate(shape)
        mass = dolfinx.fem.assemble_scalar(dolfinx.fem.form(rho * self._dx))
        rho.x.array[:] /= mass
        return rho

    def _drift(self, x: Any) -> Any:
        case, theta, m = self.case, self._weights, self.case.width
        y = [(x[j] - case.centre) / case.scale for j in range(2)]
        hidden = [
            ufl.tanh(
                theta[2 * m + 2 * i] * y[0] + theta[2 * m + 2 * i + 1] * y[1] + theta[4 * m + i]
            )
            for i in range(m)
        ]
        return ufl.as_vector(
            [case.scale * sum(theta[k * m + i] * hidden[i] for i in range(m)) for k in range(2)]
        )

    def forward(self, weights: Any) -> None:
        """Record a run on a new tape, and make the reduced functional of it."""
        case = self.case
        pyadjoint.set_working_tape(pyadjoint.Tape())
        pyadjoint.continue_annotation()
        for control, values in zip(self._controls, weights, strict=True):
            control.x.array[:] = values
            control.create_block_variable()
        for reference in (self._start, *self._references):
            reference.create_block_variable()
        dxa.assign(self._start, self._rho)
        self.value = self._misfit(0, self._rho)
        for n in range(case.steps):
            if n % case.steps_per_piece == 0:
                dxa.assign(self._controls[n // case.steps_per_piece], self._weights)
            self._problem.solve()
            dxa.assign(2.0 * self._middle - self._rho, self._next)
            dxa.assign(self._next, self._rho)
            self.value += self._misfit(n + 1, self._rho)
        self._reduced = pyadjoint.ReducedFunctional(
            self.value, [pyadjoint.Control(control) for control in self._controls]
        )
        pyadjoint.pause_annotation()

    def _misfit(self, n: int, rho: Any) -> Any:
        form = 0.5 * self.case.trapezoid[n] * (rho - self._references[n]) ** 2 * self._dx
        return dxa.assemble_scalar(form, jit_options=JIT)

    def gradient(self) -> np.ndarray:
        """Derivative of the last value, ``(pieces, weights)``: the reverse sweep."""
        duals = self._reduced.derivative()
        return np.array([dual.x.array for dual in duals])

    def replay(self, weights: Any) -> float:
        """J at other weights from the tape."""
        for control, values in zip(self._controls, weights, strict=True):
            control.x.array[:] = values
        return float(self._reduced(self._controls))


def prepare(arguments: dict[str, Any]) -> Prepared:
    """Compile, record, differentiate, replay."""
    case = Tracking(**arguments["problem"])
    tape = Tape(case)
    weights = [case.weights(i) for i in range(arguments["rounds"] + 1)]
    tape.forward(weights[0])
    value, gradient = float(tape.value), tape.gradient()
    tape.replay(weights[-1])
    np.save(arguments["derivative"], gradient)
    names = ("dolfinx-adjoint", "pyadjoint-ad", "dolfinx-solver-real", "fenics-dolfinx")
    facts = {"value": value, "versions": versions(names)}
    # At the tape's end the weights are those of the next round: a replay must not be a repetition.
    return facts, {
        "forward": lambda i: tape.forward(weights[i]),
        "gradient": lambda i: tape.gradient(),
        "replay": lambda i: tape.replay(weights[i - 1]),
    }


def versions(names: tuple[str, ...]) -> dict[str, str]:
    """Those that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


if __name__ == "__main__":
    serve(prepare)
