r"""What a derivative costs, beside adjoints of others, on the same problem in the same run.

    python benchmarks/bench_derivative.py [--quick] [--rounds N] [--out DIR]

The problem is in peers/problem.py: a network drift is to follow a line of densities on the unit
square, 20 Crank-Nicolson steps, 5 pieces of 10 weights. The run fails if the derivatives of the
same discrete problem differ; benchmarks/README.md explains the columns. Peers that need an
environment of their own are set up by `make peers`, and left out without. On one rank; about three
minutes.
"""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from mpi4py import MPI

import numpy as np
import peer_processes
import results
import timing
import ufl
from dolfinx import fem
from peer_processes import Peer
from peers.problem import Tracking
from plain_adjoint import PlainAdjoint

import fpcontrol as fpc

COMM = MPI.COMM_SELF
Array = np.ndarray
OWN = "fpcontrol"
DEGREE = 1
# Wide networks on more dofs than this have one round: a value takes seconds there.
MANY = 5e4
# Largest relative distance of derivatives of the same discrete problem, each system solved to
# 1e-10. Finite volumes are another discretization: theirs may differ by CLOSE dt D/h.
SAME, CLOSE = 1e-8, 2.0
# Cells a side, dt D/h^2: with long steps the systems are harder, and explicit schemes dear.
CASES = ((32, 1.0), (128, 1.0), (128, 16.0))
LU = {"ksp_type": "preonly", "pc_type": "lu"}
MUMPS = LU | {"pc_factor_mat_solver_type": "mumps"}
NESTED = LU | {"pc_factor_mat_solver_type": "petsc", "pc_factor_mat_ordering_type": "nd"}


def gmres(case: Tracking) -> dict[str, Any]:
    """The Krylov solver of all with finite elements, said in full."""
    return {
        "ksp_type": "gmres",
        "ksp_rtol": case.rtol,
        "ksp_atol": 1e-300,
        "ksp_pc_side": "right",
        "pc_type": "ilu",
        "pc_factor_mat_ordering_type": "rcm",
        "pc_factor_levels": 0,
    }


# Seconds of a value, and of a value with its derivative.
Pair = tuple[float, float]


@dataclass(frozen=True)
class Tool:
    """What is measured.

    Attributes:
        value: J at the first weights.
        derivative: Its derivative there.
        round: Seconds of the round of a number, by the name of the row that they belong to.
        facts: For the JSON.
        tolerance: How far its derivative may be off.
    """

    value: float
    derivative: Array
    round: Callable[[int], dict[str, Pair]]
    facts: dict[str, Any]
    tolerance: float = SAME


# -- those that run here ---------------------------------------------------------------------------


class Fpcontrol:
    """The problem in fpcontrol.

    Args:
        case: The problem.
        solver: ``linear_solver`` of the ``TrackingProblem``.
        options: PETSc options.
    """

    def __init__(self, case: Tracking, solver: str, options: dict[str, Any]) -> None:
        mesh = fpc.mesh.rectangle(COMM, (case.n, case.n))
        self.start = fpc.density.interpolate(mesh, case.start, DEGREE)
        self.goal = fpc.density.interpolate(mesh, case.goal, DEGREE)
        drift = fpc.NetworkDrift(mesh, case.width, case.pieces, case.t1)
        if not (np.allclose(drift.centre, case.centre) and np.isclose(drift.scale, case.scale)):
            raise AssertionError("The network's coordinates are not those of the peers.")
        reference = fpc.MoserFlow(self.start, self.goal, case.t1, case.sigma)
        self._problem = fpc.TrackingProblem(
            reference, drift, case.sigma, case.steps, linear_solver=solver, petsc_options=options
        )
        # Its J is relative to the reference: 1/2 int ||rho - ref||^2 dt over int ||ref||^2 dt.
        rho = fem.Function(self.start.function_space)
        square = fem.form(rho * rho * ufl.dx)
        norms = []
        for t in np.linspace(0.0, case.t1, case.steps + 1):
            rho.x.array[:] = reference.density(t).x.array
            norms.append(fem.assemble_scalar(square))
        self._scale = float(case.trapezoid @ norms)

    def value(self, weights: Array) -> float:
        return self._scale * self._problem(weights)

    def both(self, weights: Array) -> tuple[float, Array]:
        value, derivative = self._problem.value_and_derivative(weights)
        return self._scale * value, self._scale * derivative.reshape(weights.shape)

    @property
    def stored(self) -> float:
        """MB that are kept for the reverse sweep, as estimated."""
        storage = self._problem.runs.storage
        return (storage.level_memory + storage.operator_memory) * 2.0**30 / 1e6

    def iterations(self, weights: Array) -> int:
        """Krylov iterations of a forward run."""
        return int(self._problem.trajectory(weights).iterations)


def own(case: Tracking, name: str, problem: Fpcontrol) -> Tool:
    """``fpcontrol``; it remembers its last run, but no round asks for the same weights twice."""
    value, derivative = problem.both(case.weights())

    def seconds(number: int) -> dict[str, Pair]:
        w = case.weights(number), case.weights(number - 1)
        alone = timing.seconds(COMM, lambda: problem.value(w[0]))
        return {name: (alone, timing.seconds(COMM, lambda: problem.both(w[1])))}

    facts = {
        "iterations a step": problem.iterations(case.weights()) / case.steps,
        "levels and operators, MB": problem.stored,
    }
    return Tool(value, derivative, seconds, facts)


def by_hand(case: Tracking, name: str, peer: PlainAdjoint) -> Tool:
    """Plain DOLFINx."""
    weights = case.weights()
    value, derivative = peer.value(weights), peer.derivative(weights)

    def seconds(number: int) -> dict[str, Pair]:
        w = case.weights(number)
        forward = timing.seconds(COMM, lambda: peer.value(w))
        return {name: (forward, forward + timing.seconds(COMM, lambda: peer.derivative(w)))}

    facts = {f"iterations a step, {k}": i / case.steps for k, i in peer.iterations.items()}
    return Tool(value, derivative, seconds, facts)


# -- those in an environment of their own ----------------------------------------------------------


def dolfinx_adjoint(case: Tracking, rounds: int, stack: contextlib.ExitStack) -> Tool:
    """Forward run with annotation, or a replay of the tape, and the reverse sweep after either."""
    peer = Peer("dolfinx_adjoint", {"problem": case.as_dict(), "rounds": rounds})
    stack.callback(peer.close)

    def seconds(number: int) -> dict[str, Pair]:
        t = peer.round(number)
        return {
            "dolfinx-adjoint, new tape": (t["forward"], t["forward"] + t["gradient"]),
            "dolfinx-adjoint, replay": (t["replay"], t["replay"] + t["gradient"]),
        }

    return Tool(peer.facts["value"], peer.derivative, seconds, peer.facts)


def jax(case: Tracking, scheme: str, rounds: int, stack: contextlib.ExitStack) -> Tool:
    """Finite volumes in JAX."""
    told = {"problem": case.as_dict(), "rounds": rounds, "scheme": scheme}
    peer = Peer("jax_volumes", told)
    stack.callback(peer.close)

    def seconds(number: int) -> dict[str, Pair]:
        t = peer.round(number)
        return {f"JAX volumes, {scheme}": (t["value"], t["both"])}

    return Tool(
        peer.facts["value"], peer.derivative, seconds, peer.facts, CLOSE * case.number / case.n
    )


# -- what is measured ------------------------------------------------------------------------------


def compare(case: Tracking, rounds: int, peers: bool) -> tuple[list[dict[str, Any]], Any]:
    """All tools at one size, in turns."""
    krylov = gmres(case)
    first = Fpcontrol(case, "gmres", krylov)
    tools = {
        OWN: own(case, OWN, first),
        "direct": own(case, f"{OWN}, LU", Fpcontrol(case, "direct", {})),
    }
    for name, options, chain in (
        ("by hand, GMRES", krylov, "points"),
        ("by hand, GMRES, ten forms", krylov, "forms"),
        ("by hand, MUMPS kept", MUMPS, "points"),
        ("by hand, PETSc's LU kept", NESTED, "points"),
    ):
        peer = PlainAdjoint(case, first.start, first.goal, options, chain)
        tools[name] = by_hand(case, name, peer)
    times: dict[str, list[Pair]] = {}
    source: dict[str, Tool] = {}
    with contextlib.ExitStack() as stack:
        if peers:
            tools["dolfinx-adjoint"] = dolfinx_adjoint(case, rounds, stack)
            for scheme in ("implicit", "explicit"):
                tools[f"JAX {scheme}"] = jax(case, scheme, rounds, stack)
        off = {name: distance(tool, tools[OWN]) for name, tool in tools.items()}
        for name, tool in tools.items():
            if not off[name] <= tool.tolerance:
                raise AssertionError(f"{name}: the derivative is off by {off[name]:.1e}.")
        for number in range(1, rounds + 1):
            for tool in tools.values():
                for row, pair in tool.round(number).items():
                    times.setdefault(row, []).append(pair)
                    source[row] = tool
    rows = []
    for name, pairs in times.items():
        value, both = ([pair[i] for pair in pairs] for i in range(2))
        gradient = [b - a for a, b in pairs]
        rows.append(
            {
                "tool": name,
                "dofs": case.dofs,
                "dt D/h^2": case.number,
                "value": timing.median(value),
                "derivative": timing.median(gradient),
                "derivative/value": timing.ratio(gradient, value),
                "value + derivative": timing.median(both),
                "over fpcontrol": timing.ratio(both, [pair[1] for pair in times[OWN]]),
                "derivative over": timing.ratio(gradient, [b - a for a, b in times[OWN]]),
                "levels and operators, MB": source[name].facts.get("levels and operators, MB"),
                "off by": distance(source[name], tools[OWN]),
            }
        )
    return rows, {name: tool.facts | {"value": tool.value} for name, tool in tools.items()}


def distance(tool: Tool, other: Tool) -> float:
    """Of two derivatives, relative; of the values if that is larger."""
    a, b = tool.derivative, other.derivative
    return max(
        float(np.linalg.norm(a - b) / np.linalg.norm(b)), abs(tool.value / other.value - 1.0)
    )


def said(facts: dict[str, dict[str, Any]]) -> str:
    """Iterations, one tool a line."""
    lines = []
    for name, fact in facts.items():
        its = [f"{v:g} {k}" for k, v in fact.items() if k.startswith(("iterations", "substeps"))]
        if its:
            lines.append(f"    {name}: {', '.join(its)}")
    return "\n".join(lines)


def widths(cases: list[Tracking], rounds: int) -> list[dict[str, Any]]:
    """Value, and value with derivative, of fpcontrol alone, by the number of weights and dofs."""
    tools = []
    for case in cases:
        problem = Fpcontrol(case, "gmres", gmres(case))
        tools.append((case, problem, own(case, OWN, problem)))
    times: list[list[Pair]] = [[] for _ in tools]
    for number in range(1, rounds + 1):
        for kept, (case, _, tool) in zip(times, tools, strict=True):
            if number == 1 or case.width <= 2 or case.dofs < MANY:
                kept.append(tool.round(number)[OWN])
    return [
        {
            "dofs": case.dofs,
            "width": case.width,
            "weights/piece": 5 * case.width,
            "value": timing.median([value for value, _ in pairs]),
            "value + derivative": timing.median([both for _, both in pairs]),
            "ratio": timing.ratio([both for _, both in pairs], [value for value, _ in pairs]),
            "its": tool.facts["iterations a step"],
        }
        for pairs, (case, _, tool) in zip(times, tools, strict=True)
    ]


def main() -> None:
    """Measure, print, write."""
    parser = results.arguments(__doc__, "derivative", "a small mesh: seconds")
    parser.add_argument("--rounds", type=int, default=0, help="of which the median counts")
    options = parser.parse_args()
    if MPI.COMM_WORLD.rank > 0:
        return
    cases = [Tracking(n, number=number) for n, number in CASES]
    if options.quick:
        cases = [Tracking(16)]
    rounds = options.rounds or (2 if options.quick else 3)
    peers = peer_processes.available()
    if not peers:
        print(peer_processes.MISSING)
    quadrature = 2 * DEGREE
    print(
        f"{cases[0].steps} steps of Crank-Nicolson, {cases[0].pieces} pieces, quadrature of degree "
        f"{quadrature}, rtol {cases[0].rtol:g}; seconds of one processor, medians of {rounds} "
        "rounds"
    )
    rows: list[dict[str, Any]] = []
    facts = {}
    for case in cases:
        found, fact = compare(case, rounds, peers)
        title = f"{case.dofs} dofs, dt D/h^2 = {case.number:g}"
        print(timing.table(title, found), flush=True)
        print(said(fact))
        rows, facts[title] = rows + found, fact
    alone = [
        Tracking(n, width)
        for n in dict.fromkeys(case.n for case in cases)
        for width in (2, 50, 200)
    ]
    if not options.quick:
        alone += [Tracking(320, width) for width in (2, 50, 200)]
    flat = widths(alone, rounds)
    print(timing.table("fpcontrol alone, dt D/h^2 = 1", flat))
    result = {
        "environment": timing.environment(COMM),
        "settings": {
            "steps": cases[0].steps,
            "pieces": cases[0].pieces,
            "rtol": cases[0].rtol,
            "quadrature degree": quadrature,
            "petsc options": gmres(cases[0]),
            "rounds": rounds,
        },
        "facts": facts,
        "tables": {"tools": rows, "widths": flat},
    }
    results.save(options.out, "derivative", result, COMM)


if __name__ == "__main__":
    main()
