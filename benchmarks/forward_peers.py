"""Other tools beside the forward solver, on a drift that moves and a density in closed form.

About 1e4 unknowns and the same 50 steps of Crank-Nicolson for all (peers/moving_gaussian.py), an
operator made anew in every step. The error stands beside the cost: a fast solver that is wrong is
no peer.
"""

from collections.abc import Callable
from typing import Any

import timing
import ufl
from cases import COMM, OPTIONS
from dolfinx import fem
from peer_processes import answer
from peers import scipy_volumes
from peers.moving_gaussian import HALF, T1, D, centre, density, grid_error
from plain_dolfinx import PlainDolfinx, QuadratureDrift, UflDrift

import fpcontrol as fpc
from fpcontrol.verification import l2_error

SIGMA = (2.0 * D) ** 0.5
RADIUS = 1.0
# Below this the tools solve the problem; finite volumes of second order come to 0.004 at 100^2.
ACCURATE = 0.03
Row = dict[str, Any]


def drift(t: float, x: Any) -> Any:
    """Towards a centre that goes round."""
    return centre(t, RADIUS) - x


def function_error(u: fem.Function) -> float:
    """Relative L2 error at the last time, by quadrature."""

    def exact(x: Any) -> Any:
        return density(T1, x, RADIUS)

    return l2_error(u, exact) / l2_error(fem.Function(u.function_space), exact)


class Elements:
    """`fpcontrol` and plain DOLFINx of one degree: the same space, scheme, solver and tolerance."""

    def __init__(self, degree: int, unknowns: int, steps: int) -> None:
        n = round((unknowns**0.5 - 1.0) / degree)
        mesh = fpc.mesh.rectangle(COMM, (n, n), (-HALF, -HALF), (HALF, HALF))
        self.steps = steps
        self.start = fpc.density.interpolate(mesh, lambda x: density(0.0, x[:2].T, RADIUS), degree)
        space = self.start.function_space
        self.dofs = space.dofmap.index_map.size_global
        self.equation = fpc.FokkerPlanck(
            mesh, drift, SIGMA, degree=degree, linear_solver="gmres", petsc_options=OPTIONS
        )
        middle = fem.Constant(mesh, (0.0, 0.0))

        def update(t: float) -> None:
            middle.value[:] = centre(t, RADIUS)

        forms = {
            "ufl": UflDrift(middle - ufl.SpatialCoordinate(mesh), update),
            "quadrature": QuadratureDrift(space, 2 * degree, drift),
        }
        self.plain = {
            form: PlainDolfinx(space, plain, D, T1 / steps, 2 * degree, OPTIONS)
            for form, plain in forms.items()
        }

    def own(self) -> None:
        """A run of this package."""
        self.trajectory = self.equation.solve(self.start, T1, self.steps)

    def theirs(self, form: str) -> Callable[[], None]:
        """A run of plain DOLFINx."""
        return lambda: self.plain[form].forward(self.start, self.steps)

    def errors(self) -> tuple[float, float]:
        """Of this package and of plain DOLFINx."""
        u = fem.Function(self.start.function_space)
        u.x.array[:] = self.plain["ufl"].density
        return function_error(self.trajectory[-1]), function_error(u)


def measure(quick: bool, say: Callable[..., None]) -> list[Row]:
    """All tools; the ones in this process in turns. One rank only: the peers are serial."""
    if COMM.size > 1:
        say("\nOther tools run on one rank only: left out.")
        return []
    unknowns, steps, rounds = (900, 10, 3) if quick else (10_000, 50, 5)
    cells = round(unknowns**0.5)
    runs: dict[str, Callable[[], Any]] = {}
    elements = {p: Elements(p, unknowns, steps) for p in (1, 2, 3)}
    for p, element in elements.items():
        runs[f"fpcontrol P{p}"] = element.own
        for form in element.plain:
            runs[f"plain DOLFINx P{p} {form}"] = element.theirs(form)
    volumes = {
        solver: scipy_volumes.Volumes(cells, HALF, D, T1 / steps, drift, solver)
        for solver in scipy_volumes.SOLVERS
    }
    last: dict[str, Any] = {}
    for solver, mine in volumes.items():

        def run(mine: Any = mine, solver: str = solver) -> None:
            last[solver] = mine.run(density(0.0, mine.x, RADIUS), steps)

        runs[f"SciPy {solver}"] = run
    times = timing.interleaved(COMM, runs, rounds)
    base = times["fpcontrol P1"]
    rows: list[Row] = []

    def add(tool: str, how: str, dofs: int, name: str, its: float | None, error: float) -> None:
        rows.append(
            {
                "tool": tool,
                "solver": how,
                "unknowns": dofs,
                "us/dof/step": 1e6 * timing.median(times[name]) / (steps * dofs),
                "to fpcontrol P1": timing.ratio(times[name], base),
                "its": its,
                "error": error,
            }
        )

    for p, element in elements.items():
        own, plain = element.errors()
        name, its = f"fpcontrol P{p}", element.trajectory.iterations / steps
        add(name, "GMRES + ILU(0)", element.dofs, name, its, own)
        name = f"plain DOLFINx P{p}"
        form = min(element.plain, key=lambda f: timing.median(times[f"{name} {f}"]))
        its = element.plain[form].iterations / steps
        add(name, f"GMRES + ILU(0), drift {form}", element.dofs, f"{name} {form}", its, plain)
    for solver, mine in volumes.items():
        error = grid_error(last[solver], mine.x, RADIUS)
        how = solver if solver == "superlu" else f"{solver} + spilu, kept"
        its = mine.iterations or None
        add("SciPy finite volumes", how, mine.cells, f"SciPy {solver}", its, error)
    found = answer(
        "fipy",
        "--solvers",
        "GMRES",
        "BiCGStab",
        "--cells",
        cells,
        "--steps",
        steps,
        "--radius",
        RADIUS,
        "--repeats",
        2,
    )
    for scheme in ("midpoint", "Euler") if found else ():
        run = min((r for r in found["runs"] if r["scheme"] == scheme), key=lambda r: r["stepping"])
        times["FiPy"] = [run["stepping"]] * rounds
        tool = f"FiPy {found['version']}, {scheme}"
        add(tool, run["solver"], cells**2, "FiPy", None, run["error"])
    title = f"Other tools, drift that moves, {steps} steps up to t = {T1:g}"
    say(timing.table(title, rows), flush=True)
    check(rows, quick)
    return rows


def check(rows: list[Row], quick: bool) -> None:
    """All must solve the problem, and those that discretize alike must agree."""
    bound = 0.3 if quick else ACCURATE
    wrong = [row["tool"] for row in rows if not row["error"] < bound]
    if wrong:
        raise AssertionError(f"Relative errors above {bound}: {wrong}.")
    alike: dict[str, list[float]] = {}
    for row in rows:
        kind = row["tool"].split()[-1]
        kind = "volumes" if kind == "midpoint" else kind  # FiPy's are the same volumes
        alike.setdefault(kind, []).append(row["error"])
    for kind, errors in alike.items():
        if max(errors) - min(errors) > 1e-6 * max(errors):
            raise AssertionError(f"{kind}: errors {errors} should be equal.")
