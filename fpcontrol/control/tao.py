"""Minimization by PETSc TAO: gradients alone, with a line search."""

from collections.abc import Mapping
from typing import Any

from petsc4py import PETSc

from fpcontrol.control.run import Run, everywhere
from fpcontrol.linalg.options import petsc_options_set
from fpcontrol.parallel.communicators import cached_comm
from fpcontrol.typing import Array

# TAO's types that need values and derivatives only, with options that differ from TAO's own.
TYPES: dict[str, dict[str, Any]] = {
    "lmvm": {"tao_lmvm_mat_lmvm_scale_type": "scalar", "tao_lmvm_mat_lmvm_hist_size": 30},
    "cg": {},
}


def tao_descent(
    run: Run, start: Array, method: str, max_iterations: int, options: Mapping[str, Any]
) -> str:
    """Minimize from some weights on; why it stopped. Collective.

    A trial step at which the equation cannot be solved counts as too long: the line search shortens
    it.
    """
    comm = run.problem.elements.comm
    # One optimizer for all ranks, its vectors on rank 0 alone: optimizers of their own would round
    # differently on different ranks (BLAS does, by alignment), and after some hundred iterations
    # one rank takes a step that another refuses.
    shared = cached_comm(comm)
    x = PETSc.Vec().createMPI((start.size if comm.rank == 0 else 0, start.size), comm=shared)
    x.array[:] = start[: x.local_size]
    tao = PETSc.TAO().create(shared)
    tao.setType(method)
    calls = _Calls(run)
    tao.setObjectiveGradient(calls.evaluate, x.duplicate())
    tao.setConvergenceTest(calls.iterated)
    tao.setMaximumIterations(max_iterations)
    tao.setMaximumFunctionEvaluations(10**9)
    # Without a prefix: TAO's own does not reach the matrix of the quasi-Newton method.
    with petsc_options_set("", TYPES[method] | dict(options)):
        tao.setFromOptions()
        try:
            tao.solve(x)
        except PETSc.Error:
            if calls.error is None:
                raise
            raise calls.error from None
    return calls.reason or _reason(tao.getConvergedReason())


class _Calls:
    """What TAO calls. An exception in it leaves TAO as PETSc error 101; it is kept."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self.reason: str | None = None
        self.error: Exception | None = None
        # The last iterate, its value and derivative, on rank 0: where line searches start.
        self._base: tuple[Array, float, Array] | None = None

    def evaluate(self, tao: PETSc.TAO, x: PETSc.Vec, gradient: PETSc.Vec) -> float:
        """Value and derivative for TAO."""
        run = self._run
        try:
            weights = run.problem.elements.comm.bcast(x.getArray(readonly=True).copy())
            value, dual = run.evaluate(weights)
        except Exception as error:
            if self._base is None or not everywhere(error):
                self.error = error
                raise
            return self._too_long(x, gradient)
        gradient.array[:] = dual[: gradient.local_size]
        return value

    def _too_long(self, x: PETSc.Vec, gradient: PETSc.Vec) -> float:
        r"""A surrogate for value and derivative at a trial step that could not be evaluated.

        A parabola along the step :math:`s`, with the value of J and its slope :math:`g\cdot s < 0`
        at the start, and its minimum a quarter of the way: a line search sees a value that it
        rejects, and interpolates to a shorter step.
        """
        assert self._base is not None
        start, value, dual = self._base
        run = self._run
        run.evaluations += 1
        run.shortened += 1
        slope = run.problem.elements.comm.bcast(float(dual @ (x.getArray(readonly=True) - start)))
        gradient.array[:] = -3.0 * dual
        return value + max(abs(slope), 1e-6 * abs(value))

    def iterated(self, tao: PETSc.TAO) -> None:
        """Record an iteration and decide whether to stop; the same on all ranks."""
        try:
            self._base = (
                tao.getSolution().getArray(readonly=True).copy(),
                tao.getObjectiveValue(),
                tao.getGradient()[0].getArray(readonly=True).copy(),
            )
            self.reason = self._run.record(tao.getIterationNumber())
        except Exception as error:
            self.error = error
            raise
        if self.reason:
            tao.setConvergedReason(PETSc.TAO.ConvergedReason.CONVERGED_USER)
        elif tao.getIterationNumber() >= tao.getMaximumIterations():
            tao.setConvergedReason(PETSc.TAO.ConvergedReason.DIVERGED_MAXITS)


def _reason(code: int) -> str:
    names = {v: k for k, v in vars(PETSc.TAO.ConvergedReason).items() if k.isupper()}
    if code == PETSc.TAO.ConvergedReason.DIVERGED_MAXITS:
        return "max_iterations"
    return names.get(code, str(code)).lower()
