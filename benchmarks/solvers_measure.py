"""Time and iterations of a candidate on the steps of a problem."""

import statistics
from dataclasses import dataclass, field
from typing import Any

import timing
from petsc4py import PETSc
from solvers_problem import COMM, HISTORY, Problem, apply, solver


@dataclass(frozen=True)
class Candidate:
    """A linear solver.

    Attributes:
        options: PETSc options over fpcontrol's defaults (GMRES(60), ILU(0) in RCM ordering).
        constant: The preconditioner is made of the constant part ``M + dt/2 D K``, once.
        keep: The preconditioner is renewed only every so many operators.
        levels: Levels that the initial guess is extrapolated from; 0: zero.
    """

    options: dict[str, Any] = field(default_factory=dict)
    constant: bool = False
    keep: int = 1
    levels: int = 2


class Trial:
    """A candidate on a problem, with its solver kept over the rounds."""

    def __init__(self, problem: Problem, candidate: Candidate, rtol: float) -> None:
        self.problem, self.candidate = problem, candidate
        self.matrix = problem.operators[0].copy()
        p = problem.constant if candidate.constant else self.matrix
        self.x = problem.levels[0].duplicate()
        self.failed = ""
        self.once = self.setup = self.solve = 0.0
        self.iterations = 0
        self.error = 0.0
        self.counts: list[int] = []

        def make() -> None:
            self.ksp = solver(self.matrix, p, {"ksp_rtol": rtol} | candidate.options)

        try:
            self.once = timing.seconds(COMM, make)
        except PETSc.Error as error:
            self.failed = f"error {error.ierr}"

    def run(self) -> tuple[float, float]:
        """Seconds of set-up and of solves over all steps."""
        problem, candidate, ksp = self.problem, self.candidate, self.ksp
        setup = solve = 0.0
        self.counts, self.error = [], 0.0
        for i in range(HISTORY, HISTORY + problem.steps):
            renewed = i % problem.per_piece == 0 or i == HISTORY
            if renewed:
                problem.refill(self.matrix, i)
                keep = i > HISTORY and (i // problem.per_piece) % candidate.keep != 0
                ksp.getPC().setReusePreconditioner(keep)
                # KSPSetUp alone would leave it to the first product with the preconditioner.
                setup += timing.seconds(COMM, ksp.getPC().setUp)
            problem.guess(i, candidate.levels, self.x)
            b = problem.rhs[i]
            solve += timing.seconds(COMM, lambda b=b: apply(ksp, b, self.x, problem.transposed))
            if ksp.getConvergedReason() <= 0:
                raise ArithmeticError(f"reason {ksp.getConvergedReason()}")
            self.counts.append(ksp.getIterationNumber())
            exact = problem.stages[i]
            self.x.axpy(-1.0, exact)
            self.error = max(self.error, self.x.norm() / exact.norm())
        return setup, solve


def compare(
    problem: Problem, candidates: dict[str, Candidate], repeats: int, rtol: float = 1e-10
) -> list[dict[str, Any]]:
    """All candidates in turns; microseconds per dof and step, the ratio to the first."""
    trials = {name: Trial(problem, c, rtol) for name, c in candidates.items()}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in trials}
    for k in range(repeats + 1):  # the first round warms up
        for name, trial in trials.items():
            if trial.failed:
                continue
            try:
                found = trial.run()
            except ArithmeticError as error:
                trial.failed = str(error)
            except PETSc.Error as error:
                trial.failed = f"error {error.ierr}"
            else:
                if k:
                    times[name].append(found)
    scale = 1e6 / (problem.dofs * problem.steps)
    first = [a + b for a, b in times[next(iter(trials))]]
    rows = []
    for name, trial in trials.items():
        row: dict[str, Any] = {"solver": name}
        if trial.failed:
            row |= dict.fromkeys(("its", "once", "setup", "solve", "step", "ratio", "error"))
        else:
            mine = times[name]
            both = [a + b for a, b in mine]
            row |= {
                "its": statistics.mean(trial.counts),
                "once": 1e6 * trial.once / problem.dofs,
                "setup": scale * timing.median([a for a, _ in mine]),
                "solve": scale * timing.median([b for _, b in mine]),
                "step": scale * timing.median(both),
                "ratio": timing.ratio(both, first) if first else None,
                "error": trial.error,
            }
        row["failed"] = trial.failed
        rows.append(row)
        if hasattr(trial, "ksp"):
            trial.ksp.destroy()
        trial.matrix.destroy()
    return rows
