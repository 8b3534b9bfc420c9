"""What we aim at, beside what was measured: a table made of the results in a folder.

    python benchmarks/aims.py DIR        # prints it, and writes DIR/aims.md

Every number comes from a JSON that a benchmark has written; an aim whose size was not run says so.
"""

import argparse
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mpi4py import MPI

import results
import timing

from fpcontrol.parallel.files import output_path, replacing

Row = dict[str, Any]
Tables = Mapping[str, list[Row]]
# A size, and what was measured there.
Found = Iterable[tuple[str, float | None]]


@dataclass(frozen=True)
class Aim:
    """One line of the table, for as many sizes as it is for.

    Attributes:
        figure: What is measured.
        bound: What it should not exceed, or be below.
        source: Benchmark that measures it.
        found: ``found(tables)`` of its result.
        unit: Of the number.
        at_least: Whether the bound is one from below.
    """

    figure: str
    bound: float
    source: str
    found: Callable[[Tables], Found]
    unit: str = ""
    at_least: bool = False

    @property
    def text(self) -> str:
        """The aim in words."""
        return f"{'at least' if self.at_least else 'at most'} {self.bound:g} {self.unit}".strip()

    def _verdict(self, value: float | None) -> str:
        if value is None:
            return ""
        return "yes" if (value >= self.bound if self.at_least else value <= self.bound) else "no"

    def rows(self, out: Path) -> Iterator[Row]:
        """Lines of the table."""
        result = results.read(out, self.source)
        found = self.found(result["tables"]) if result else [("", None)]
        for size, value in found:
            yield {
                "figure": self.figure,
                "size": size,
                "aim": self.text,
                "measured": "not measured" if value is None else f"{value:.3g} {self.unit}".strip(),
                "reached": self._verdict(value),
                "by": f"bench_{self.source}.py",
                "on": result["environment"]["date"] if result else "",
            }


def at(rows: list[Row], column: str, *sizes: float) -> Found:
    """A column at sizes, each met to a tenth."""
    for size in sizes:
        near = [row for row in rows if abs(row["dofs"] / size - 1.0) < 0.1]
        value = near[0].get(column) if near else None
        yield f"{near[0]['dofs'] if near else round(size)} dofs", value


def forward(drift: str, column: str) -> Callable[[Tables], Found]:
    """Steps of degree 1 in 2-D."""

    def found(tables: Tables) -> Found:
        rows = [r for r in tables["forward"] if (r["degree"], r["dimension"]) == (1, 2)]
        return at([r for r in rows if r["drift"] == drift], column, 5e4, 2.6e5)

    return found


def refill(tables: Tables) -> Found:
    for row in tables["refill"]:
        yield f"degree {row['degree']}, {row['dofs']} dofs", row["ratio"]


def growth(tables: Tables) -> Found:
    for r in tables["growth"]:
        size = f"degree {r['degree']}, {r['dimension']}-D, {r['from']} to {r['to']} dofs"
        yield f"{r['drift']}, {size}", r["beyond the triad"]


def overhead(sweep: str) -> Callable[[Tables], Found]:
    return lambda tables: at(tables["overhead"], f"{sweep} overhead", 1089)


def widths(tables: Tables) -> Found:
    for weights in (10, 250, 1000):
        rows = [r for r in tables["widths"] if r["weights/piece"] == weights]
        for size, value in at(rows, "ratio", 1089, 16641, 103041):
            yield f"{size}, {weights} weights a piece", value


def factored(tables: Tables) -> Found:
    for row in tables["tools"]:
        if row["tool"] == "fpcontrol, LU":
            size = f"{row['dofs']} dofs, dt D/h^2 = {row['dt D/h^2']:g}"
            memory = row.get("levels and operators, MB")
            yield size + (f", {memory:.3g} MB" if memory else ""), 1.0 + row["derivative/value"]


def beside_adjoint(dofs: int) -> Callable[[Tables], Found]:
    """Its faster way against ours: seconds of the derivative."""

    def found(tables: Tables) -> Found:
        rows = [r for r in tables["tools"] if r["tool"].startswith("dolfinx-adjoint")]
        ratios = [r["derivative over"] for r in rows if (r["dofs"], r["dt D/h^2"]) == (dofs, 1.0)]
        yield f"{dofs} dofs", min(ratios, default=None)

    return found


def seconds(tables: Tables, start: str) -> float | None:
    """The fastest of the tools whose names start so, to 1e-4."""
    rows = [r for r in tables["accuracy"] if r["target"] == 1e-4 and r["tool"].startswith(start)]
    return min((r["seconds"] for r in rows), default=None)


def own_seconds(tables: Tables) -> Found:
    yield "error 1e-4", seconds(tables, "fpcontrol")


def beside(tool: str, over: bool) -> Callable[[Tables], Found]:
    """Seconds of another tool over ours, or ours over another's."""

    def found(tables: Tables) -> Found:
        own, other = seconds(tables, "fpcontrol"), seconds(tables, tool)
        if own is None or other is None:
            yield "error 1e-4", None
        else:
            yield "error 1e-4", other / own if over else own / other

    return found


def budget(tables: Tables) -> Found:
    for row in tables["budget"]:
        if row["budget MB"] is not None:
            where = "on disk" if row["levels"] == "disk" else row["levels"]
            size = f"{where}, {row['dofs']} dofs, {row['steps']} steps, {row['budget MB']:.3g} MB"
            yield size, row["taken MB"] / row["budget MB"]


def same_derivative(tables: Tables) -> Found:
    for row in tables["budget"]:
        if row["budget MB"] is not None:
            yield f"{row['levels']}, {row['dofs']} dofs, {row['steps']} steps", row["off by"]


def highest(tables: Tables) -> Found:
    worst = max(tables["memory"], key=lambda row: row["GiB"])
    yield f"{worst['run']}, {worst['dimension']}-D, {worst['dofs']} dofs", worst["GiB"]


def two_ranks(column: str) -> Callable[[Tables], Found]:
    def found(tables: Tables) -> Found:
        rows = [r for r in tables["strong"] if r["ranks"] == 2 and r["dofs"] >= 2e5]
        for row in rows:
            yield f"{row['dofs']} dofs", row[column]
        if not rows:
            yield "1e5 dofs a rank", None

    return found


AIMS = (
    Aim("operator refill over assembly in DOLFINx", 0.2, "steps", refill),
    Aim("step, affine drift, over plain DOLFINx", 0.4, "forward", forward("cheap", "ratio")),
    Aim("step, network drift, over plain DOLFINx", 0.5, "forward", forward("network/1", "ratio")),
    Aim("step, affine drift", 0.25, "forward", forward("cheap", "fpcontrol"), "us/dof"),
    Aim(
        "step, drift that stays, over the bare solve",
        1.1,
        "forward",
        forward("steady", "to bare solve"),
    ),
    Aim("growth of a step's cost, beyond the triad", 1.5, "forward", growth),
    Aim("value + derivative over value", 2.2, "derivative", widths),
    Aim("the same with factors kept", 1.3, "derivative", factored),
    Aim("forward step outside the solver", 1.0, "steps", overhead("forward"), "ms"),
    Aim("reverse step outside the solver", 1.0, "steps", overhead("reverse"), "ms"),
    Aim(
        "derivative of dolfinx-adjoint over ours",
        10.0,
        "derivative",
        beside_adjoint(16641),
        at_least=True,
    ),
    Aim(
        "derivative of dolfinx-adjoint over ours",
        50.0,
        "derivative",
        beside_adjoint(1089),
        at_least=True,
    ),
    Aim("Ornstein-Uhlenbeck process", 0.35, "ornstein_uhlenbeck", own_seconds, "s"),
    Aim(
        "fplanck over ours (--slow)",
        100.0,
        "ornstein_uhlenbeck",
        beside("fplanck", True),
        at_least=True,
    ),
    Aim(
        "finite volumes over ours",
        30.0,
        "ornstein_uhlenbeck",
        beside("SciPy finite volumes", True),
        at_least=True,
    ),
    Aim(
        "ours over 4th-order differences",
        3.0,
        "ornstein_uhlenbeck",
        beside("SciPy 4th-order", False),
    ),
    Aim("memory of a derivative over its budget", 1.0, "memory", budget),
    Aim("derivative with a budget, off by", 1e-12, "memory", same_derivative),
    Aim("highest memory of all runs", 24.0, "memory", highest, "GiB"),
    Aim(
        "two ranks, step, of the triad's speedup",
        0.85,
        "scaling",
        two_ranks("step, of triad"),
        at_least=True,
    ),
    Aim(
        "two ranks, value + derivative, of the triad's",
        0.85,
        "scaling",
        two_ranks("value + derivative, of triad"),
        at_least=True,
    ),
)


def table(out: Path) -> list[Row]:
    """All lines."""
    return [row for aim in AIMS for row in aim.rows(out)]


def markdown(rows: list[Row]) -> str:
    """The table for a README."""
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *([str(row[h]) for h in heads] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Print and write."""
    parser = argparse.ArgumentParser(description="Aims beside what was measured.")
    parser.add_argument("out", metavar="DIR", type=Path, help="of the results")
    out = parser.parse_args().out
    if MPI.COMM_WORLD.rank > 0:
        return
    rows = table(out)
    print(timing.table("What we aim at", rows))
    count = [row["reached"] for row in rows]
    print(
        f"\n{count.count('yes')} reached, {count.count('no')} not, {count.count('')} not measured."
    )
    with replacing(output_path(out / "aims.md", MPI.COMM_SELF), MPI.COMM_SELF) as beside:
        beside.write_text(markdown(rows))


if __name__ == "__main__":
    main()
