"""Cost of a time step, of a derivative and of an operator, beside plain DOLFINx in the same run.

    mpirun -n 1 python -m mpi4py benchmarks/bench_steps.py [--quick] [--large] [--json FILE]

Unit square, dt D/h^2 = 1, the same space, quadrature, Krylov method, initial guesses and tolerance
for both; both must give the same density. About a minute; benchmarks/README.md explains the
columns.
"""

import argparse
import functools
from typing import Any

from mpi4py import MPI

import numpy as np
import timing
import ufl
from dolfinx import fem
from plain_dolfinx import PlainDolfinx, QuadratureDrift, UflDrift

import fpcontrol as fpc
from fpcontrol.galerkin import Galerkin, lagrange
from fpcontrol.timestepping import CrankNicolson, Stepper

COMM = MPI.COMM_WORLD
SIGMA = 0.5
D = 0.5 * SIGMA**2
RTOL = 1e-10
# Said in full to both, so that both run the same method whatever their defaults. The ordering by
# reverse Cuthill-McKee halves the iterations of ILU(0) for degree 2.
OPTIONS: dict[str, Any] = {"ksp_type": "gmres", "ksp_rtol": RTOL, "ksp_atol": 1e-300}
if COMM.size == 1:
    OPTIONS |= {"pc_type": "ilu", "pc_factor_mat_ordering_type": "rcm"}
else:
    OPTIONS |= {"pc_type": "asm", "pc_asm_overlap": 1, "sub_pc_factor_mat_ordering_type": "rcm"}
# Both stop at RTOL in the preconditioned residual; the densities then differ by this much at most.
SAME_DENSITY = 1e-8


class Case:
    """One mesh with its time step: dt D/h^2 = 1."""

    def __init__(self, n: int, degree: int, steps: int) -> None:
        self.n, self.degree, self.steps = n, degree, steps
        self.mesh = fpc.mesh.rectangle(COMM, (n, n))
        self.dt = 1.0 / (n * n * D)
        self.start = fpc.density.interpolate(
            self.mesh, lambda x: 1.0 + 0.5 * np.cos(np.pi * x[0]) * np.cos(np.pi * x[1]), degree
        )
        self.space = self.start.function_space
        self.dofs = self.space.dofmap.index_map.size_global

    def t1(self, steps: int) -> float:
        """Time after some steps."""
        return steps * self.dt

    def turn(self, t: float) -> float:
        """Phase of a drift that turns once over the run, sampled often enough to differ a step."""
        return 2.0 * np.pi * t / self.t1(self.steps)

    def per_dof(self, seconds: float, steps: int) -> float:
        """Microseconds per degree of freedom and step."""
        return 1e6 * seconds / (steps * self.dofs)


# -- drifts ----------------------------------------------------------------------------------------


def cheap(case: Case) -> Any:
    """Towards a centre that goes round: two additions a point."""

    def drift(t: float, x: np.ndarray) -> np.ndarray:
        a = case.turn(t)
        return np.array([0.5 + 0.25 * np.cos(a), 0.5 + 0.25 * np.sin(a)]) - x

    return drift


def cheap_plain(case: Case, drift: Any) -> dict[str, Any]:
    """The same for DOLFINx, in its two forms."""
    centre = fem.Constant(case.mesh, (0.0, 0.0))
    origin = np.zeros((1, 2))

    def update(t: float) -> None:
        centre.value[:] = drift(t, origin)[0]

    expression = centre - ufl.SpatialCoordinate(case.mesh)
    return {
        "ufl": UflDrift(expression, update),
        "quadrature": QuadratureDrift(case.space, 2 * case.degree, drift),
    }


def network(case: Case, width: int, pieces: int) -> fpc.NetworkDrift:
    """Network whose speed does not grow with its width, so that iterations stay comparable."""
    drift = fpc.NetworkDrift(case.mesh, width, pieces, case.t1(case.steps))
    outer, _, _ = drift.network.unpack(drift.weights.reshape(pieces, -1))
    outer *= (2.0 / width) ** 0.5
    return drift


def network_plain(case: Case, drift: fpc.NetworkDrift) -> dict[str, Any]:
    """The same for DOLFINx; wide networks as UFL would take the form compiler minutes."""
    found: dict[str, Any] = {
        "quadrature": QuadratureDrift(case.space, 2 * case.degree, drift),
    }
    if drift.network.width <= 4:
        m = drift.network.width
        w, a, b = (fem.Constant(case.mesh, np.zeros(s)) for s in ((2, m), (m, 2), (m,)))
        y = (ufl.SpatialCoordinate(case.mesh) - ufl.as_vector(drift.centre)) / drift.scale
        hidden = [ufl.tanh(ufl.dot(a[i, :], y) + b[i]) for i in range(m)]

        def update(t: float) -> None:
            weights = drift.network.unpack(drift.piece_weights(t))
            for constant, value in zip((w, a, b), weights, strict=True):
                constant.value[...] = value

        v = [drift.scale * sum(w[k, i] * hidden[i] for i in range(m)) for k in range(2)]
        found["ufl"] = UflDrift(ufl.as_vector(v), update)
    return found


# -- what is measured ------------------------------------------------------------------------------


def forward(
    case: Case, name: str, drift: Any, plains: dict[str, Any], per_piece: int, k: int
) -> dict[str, Any]:
    """Forward runs. One run of one step is taken off each, and with it what is made only once."""
    equation = fpc.FokkerPlanck(
        case.mesh, drift, SIGMA, degree=case.degree, linear_solver="gmres", petsc_options=OPTIONS
    )
    peers = {
        form: PlainDolfinx(case.space, plain, D, case.dt, 2 * case.degree, OPTIONS)
        for form, plain in plains.items()
    }
    runs: dict[str, Any] = {}
    last: dict[str, Any] = {}
    long, short = case.steps, per_piece
    for steps, tag in ((short, "short"), (long, "long")):

        def own(steps: int = steps) -> None:
            last["own"] = equation.solve(case.start, case.t1(steps), steps)

        runs[f"own {tag}"] = own
        for form, peer in peers.items():

            def theirs(peer: PlainDolfinx = peer, steps: int = steps) -> None:
                peer.forward(case.start, steps, per_piece)

            runs[f"{form} {tag}"] = theirs
    times = timing.interleaved(COMM, runs, k)
    step = {
        who: [b - a for a, b in zip(times[f"{who} short"], times[f"{who} long"], strict=True)]
        for who in ("own", *peers)
    }
    fastest = min(peers, key=lambda form: timing.median(step[form]))
    rho = last["own"].levels[-1][: len(peers[fastest].density)]
    scale = COMM.allreduce(np.abs(rho).max(initial=0.0), op=MPI.MAX)
    difference = COMM.allreduce(
        max(np.abs(peer.density - rho).max(initial=0.0) / scale for peer in peers.values()),
        op=MPI.MAX,
    )
    if difference > SAME_DENSITY:
        raise AssertionError(f"{name}: the densities differ by {difference:.1e}.")
    count = long - short
    return {
        "drift": name,
        "dofs": case.dofs,
        "steps/piece": per_piece,
        "fpcontrol": case.per_dof(timing.median(step["own"]), count),
        "dolfinx": case.per_dof(timing.median(step[fastest]), count),
        "ratio": timing.ratio(step["own"], step[fastest]),
        "its": last["own"].iterations / long,
        "its dolfinx": peers[fastest].iterations / long,
        "drift in dolfinx": fastest,
        "difference": difference,
    }


def derivative(case: Case, width: int, per_piece: int, k: int) -> dict[str, Any]:
    """Value of a tracking problem, and value with derivative."""
    drift = network(case, width, case.steps // per_piece)
    goal = fpc.density.interpolate(
        case.mesh, lambda x: 1.0 + 0.4 * np.sin(np.pi * x[0]) ** 2, case.degree
    )
    reference = fpc.MoserFlow(case.start, goal, drift.t1, SIGMA)
    problem = fpc.TrackingProblem(
        reference, drift, SIGMA, case.steps, linear_solver="gmres", petsc_options=OPTIONS
    )
    # The problem remembers its last forward run: weights that differ make it run again.
    one, two = drift.weights, drift.weights * (1.0 + 1e-9)
    solver = problem.runs.sweeps.stepper.solver
    counts: dict[str, float] = {}

    def counted(name: str, run: Any) -> Any:
        def call() -> None:
            before = solver.iterations
            run()
            counts[name] = (solver.iterations - before) / case.steps

        return call

    runs = {
        "value": counted("value", lambda: problem(one)),
        "both": counted("both", lambda: problem.value_and_derivative(two)),
    }
    times = timing.interleaved(COMM, runs, k)
    return {
        "width": width,
        "weights/piece": drift.network.size,
        "dofs": case.dofs,
        "steps/piece": per_piece,
        "value": case.per_dof(timing.median(times["value"]), case.steps),
        "value+derivative": case.per_dof(timing.median(times["both"]), case.steps),
        "ratio": timing.ratio(times["both"], times["value"]),
        "its": counts["value"],
        "its adjoint": counts["both"] - counts["value"],
    }


def refill(case: Case, k: int) -> dict[str, Any]:
    """Drift values (fpcontrol) or drift (DOLFINx) to a matrix that is ready for products."""
    g = Galerkin(lagrange(case.mesh, case.degree))
    drift = cheap(case)
    v = drift(0.0, g.points)
    stepper = Stepper(g, case.dt, CrankNicolson(), "gmres")
    plains = cheap_plain(case, drift)
    peers = {
        (form, whole): PlainDolfinx(case.space, plain, D, case.dt, 2 * case.degree, OPTIONS, whole)
        for form, plain in plains.items()
        for whole in (False, True)
    }
    for plain in plains.values():
        plain.update(0.0)

    def often(run: Any, times: int = 5) -> Any:
        return lambda: [run() for _ in range(times)]

    runs: dict[Any, Any] = {"own": often(lambda: stepper.set_operator(v, D))}
    runs |= {key: often(peer.refill) for key, peer in peers.items()}
    times = timing.interleaved(COMM, runs, k)
    fastest = min(peers, key=lambda key: timing.median(times[key]))
    whole = min(
        (key for key in peers if key[1]),
        key=lambda key: timing.median(times[key]),
    )
    return {
        "degree": case.degree,
        "dofs": case.dofs,
        "fpcontrol": case.per_dof(timing.median(times["own"]), 5),
        "dolfinx": case.per_dof(timing.median(times[fastest]), 5),
        "ratio": timing.ratio(times["own"], times[fastest]),
        "whole form": case.per_dof(timing.median(times[whole]), 5),
        "ratio to whole": timing.ratio(times["own"], times[whole]),
        "drift in dolfinx": fastest[0],
    }


def overhead(case: Case, k: int) -> dict[str, Any]:
    """Milliseconds a step outside the Krylov solves, network of width 2, a piece every step."""
    drift = network(case, 2, case.steps)
    reference = fpc.MoserFlow(
        case.start, fpc.density.uniform(case.mesh, case.degree), drift.t1, SIGMA
    )
    problem = fpc.TrackingProblem(
        reference, drift, SIGMA, case.steps, linear_solver="gmres", petsc_options=OPTIONS
    )
    stepper = problem.runs.sweeps.stepper

    # The solver is wrapped: the time outside it is the time of a step less the time within.
    class Timed:
        def __init__(self, solver: Any) -> None:
            self._solver, self.seconds = solver, 0.0

        def __getattr__(self, name: str) -> Any:
            return getattr(self._solver, name)

        def solve(self, b: Any, x: Any) -> None:
            self.seconds += timing.seconds(COMM, lambda: self._solver.solve(b, x))

        def solve_transpose(self, b: Any, x: Any) -> None:
            self.seconds += timing.seconds(COMM, lambda: self._solver.solve_transpose(b, x))

    stepper.solver = solver = Timed(stepper.solver)
    found: dict[str, list[float]] = {n: [] for n in ("forward", "solve", "reverse", "solve T")}
    for i in range(k + 1):
        weights = drift.weights * (1.0 + 1e-9 * i)
        # The forward run is remembered: at the same weights the derivative is the reverse sweep.
        for sweep, solve, run in (
            ("forward", "solve", problem),
            ("reverse", "solve T", problem.derivative),
        ):
            solver.seconds = 0.0
            total = timing.seconds(COMM, functools.partial(run, weights))
            if i:  # the first round warms up
                found[sweep].append(total)
                found[solve].append(solver.seconds)
    ms = {name: 1e3 * timing.median(t) / case.steps for name, t in found.items()}
    return {
        "degree": case.degree,
        "dofs": case.dofs,
        "forward": ms["forward"],
        "forward Krylov": ms["solve"],
        "forward overhead": ms["forward"] - ms["solve"],
        "reverse": ms["reverse"],
        "reverse Krylov": ms["solve T"],
        "reverse overhead": ms["reverse"] - ms["solve T"],
    }


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smallest mesh, few repeats")
    parser.add_argument("--large", action="store_true", help="263 169 degrees of freedom too")
    parser.add_argument("--degree", type=int, default=1, help="polynomial degree (default 1)")
    parser.add_argument("--repeats", type=int, default=0, help="rounds of which the median counts")
    parser.add_argument("--json", help="write the result to this file")
    options = parser.parse_args()

    sizes = [32] if options.quick else [32, 128, 512] if options.large else [32, 128]
    sizes = [n // options.degree for n in sizes]
    k = options.repeats or (3 if options.quick else 7)
    steps = 20 if options.quick else 40
    tables: dict[str, list[dict[str, Any]]] = {
        "forward": [],
        "derivative": [],
        "refill": [],
        "overhead": [],
    }
    for n in sizes:
        case = Case(n, options.degree, steps)
        drift = cheap(case)
        plains = cheap_plain(case, drift)
        tables["forward"].append(forward(case, "cheap", drift, plains, 1, k))
        for per_piece in (1, 4):
            net = network(case, 2, steps // per_piece)
            plains = network_plain(case, net)
            tables["forward"].append(forward(case, "network", net, plains, per_piece, k))
        for width, per_piece in ((2, 1), (2, 4), (50, 4)):
            tables["derivative"].append(derivative(case, width, per_piece, k))
        for degree in (1, 2):
            tables["refill"].append(refill(Case(max(n // degree, 1), degree, 1), k))
    tables["overhead"].append(overhead(Case(32 // options.degree, options.degree, steps), k))

    result = {
        "environment": timing.environment(COMM),
        "settings": {
            "dt D/h^2": 1.0,
            "degree": options.degree,
            "petsc options": OPTIONS,
            "steps": steps,
            "repeats": k,
        },
        "tables": tables,
    }
    if COMM.rank == 0:
        print(f"{COMM.size} rank(s), {result['settings']}")
        unit = "microseconds per dof and step"
        print(timing.table(f"Forward, {unit}", tables["forward"]))
        print(timing.table(f"Value and derivative, network drift, {unit}", tables["derivative"]))
        print(timing.table("Operator refill, microseconds per dof", tables["refill"]))
        print(timing.table("Overhead, network drift, ms per step", tables["overhead"]))
    if options.json:
        timing.write(options.json, result, COMM)


if __name__ == "__main__":
    main()
