"""Every benchmark runs with --quick as its header says, and its figures are what they must be."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"

pytestmark = pytest.mark.parallel(1)


def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a script of the folder on one rank."""
    return subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def tables(name: str, folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Run a benchmark and read what it has written; there must be a figure, too."""
    done = run(f"bench_{name}.py", "--quick", "--out", str(folder))
    assert done.returncode == 0, done.stderr
    figures = list(folder.glob(f"{name}*.png"))
    assert figures and all(figure.stat().st_size > 10_000 for figure in figures)
    # Nothing but whole files.
    assert {file.suffix for file in folder.iterdir() if file.is_file()} == {".json", ".png"}
    result = json.loads((folder / f"{name}.json").read_text())
    assert {"processor", "ranks", "versions", "date"} <= result["environment"].keys()
    return result["tables"]


def test_convergence(tmp_path: Path) -> None:
    found = tables("convergence", tmp_path)
    # That smooth drifts have the full orders is for test_fokker_planck_orders.py to say.
    assert {row["scheme"] for row in found["time"]} >= {"CrankNicolson", "SDIRK2", "SDIRK4"}
    layers = [row for row in found["layers"] if row["steps"] == 64 and row["scheme"] == "SDIRK2"]
    # 5/4 where a drift switches at the walls, 3/4 after a jump.
    assert [row["order over time"] for row in layers] == pytest.approx([1.25, 0.75], abs=0.03)
    by_m = {row["m"]: row for row in found["dissipation"]}
    for row in by_m.values():
        assert row["characteristics"] == pytest.approx(row["exact"], abs=1e-5)
    assert by_m[64]["upwind 500"] == pytest.approx(1.085, abs=1e-3)
    assert len(list(tmp_path.glob("*.png"))) == len(found)


def test_tracking(tmp_path: Path) -> None:
    found = tables("tracking", tmp_path)
    assert all(len(rows) == 1 for rows in found.values())
    for (row,) in found.values():
        assert row["error"] < 0.6 * row["uncontrolled"]
        assert row["minimum / mean"] > 0.0
        assert 0 < row["derivatives"] <= 42
    # What is known is not run again, and its figures come out of its weights again.
    done = run("bench_tracking.py", "--quick", "--check", "--pictures", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    lines = [line.split("|") for line in done.stdout.splitlines() if line.count("|") > 9]
    names = [name.strip() for name in lines[0]]
    for line in lines:
        if line[1].strip() not in ("target", "---"):
            assert line[names.index("again")] == line[names.index("error")]


def test_choices(tmp_path: Path) -> None:
    found = tables("choices", tmp_path)
    by_scheme = {row["scheme"]: row for row in found["smooth"]}
    assert by_scheme["SDIRK4"]["end"] == pytest.approx(3.9e-5, rel=0.05)
    # Two steps a piece: Crank-Nicolson rings at the walls.
    rung, kept = found["switching"]
    assert rung["minimum"] < 0.1 < 0.3 < kept["minimum"]
    one, three, six = (row["end"] for row in found["quadrature"][:3])
    assert one != three == pytest.approx(six, rel=1e-3)
    assert found["no noise"][1]["off by"] < 1e-5


def test_ornstein_uhlenbeck(tmp_path: Path) -> None:
    found = tables("ornstein_uhlenbeck", tmp_path)
    errors = {row["tool"]: row["error"] for row in found["accuracy"]}
    assert errors["fpcontrol P3 SDIRK4"] == pytest.approx(9.92e-3, rel=0.01)
    # The same elements and scheme by two codes; fpcontrol scales the start to mass 1.
    plain = errors["plain DOLFINx P3"]
    assert errors["fpcontrol P3 CrankNicolson"] == pytest.approx(plain, rel=3e-3)
    assert max(errors.values()) < 1e-2


def test_scaling(tmp_path: Path) -> None:
    found = tables("scaling", tmp_path)
    equal = [
        row
        for row in found["counts"]
        if (row["run"], row["solves"]) == ("forward", "equal iterations")
    ]
    assert [row["ranks"] for row in equal] == [1, 2, 3]
    assert [row["messages"] + row["reductions"] for row in equal[:1]] == [0]
    # GMRES has two reductions in an iteration and one before the first; one keeps the mass, one
    # asks whether the drift was good on all ranks, one how strong it is, and one watches the run.
    assert all(0 < r["reductions"] <= 2 * r["its/step"] + 5 for r in equal[1:])
    assert all(row["difference"] < 1e-7 for row in found["strong"])
    # Blocks that do not overlap take more iterations, whatever the step.
    assert all(row["its, Jacobi"] > row["its, Schwarz"] for row in found["blocks"])


# What each call makes rank 0 of two send.
CALLS = """
import json, sys
from pathlib import Path
from mpi4py import MPI
import numpy as np
from petsc4py import PETSc
sys.path.insert(0, {benchmarks!r})
from mpi_counts import counted
import dolfinx.fem, dolfinx.mesh
comm, ten = MPI.COMM_WORLD, np.zeros(10)
other = 1 - comm.rank
mesh = dolfinx.mesh.create_interval(comm, 8, (0.0, 1.0))
u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1)))
ghosts = u.function_space.dofmap.index_map.num_ghosts
def persistent():
    request = comm.Send_init(ten, other)
    for _ in range(3):
        request.Start()
        comm.Recv(ten.copy(), other)
        request.Wait()
    request.Free()
v = PETSc.Vec().createMPI((5, 10), comm=comm)
found = {{
    "Allreduce": counted(lambda: comm.Allreduce(ten, ten.copy())),
    "allreduce": counted(lambda: comm.allreduce(1.0)),
    "Sendrecv": counted(lambda: comm.Sendrecv(ten, other, recvbuf=ten.copy())),
    "persistent": counted(persistent),
    "alone": counted(lambda: MPI.COMM_SELF.Allreduce(ten, ten.copy())),
    "PETSc": counted(lambda: v.sum()),
    "DOLFINx": counted(u.x.scatter_forward),
    "nothing": counted(lambda: None),
}}
if comm.rank == 0:
    Path({path!r}).write_text(json.dumps([found, comm.recv(source=1)]))
else:
    comm.send(ghosts, 0)
"""


def test_every_library_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import mpi_counts

    script, result = tmp_path / "calls.py", tmp_path / "calls.json"
    script.write_text(CALLS.format(benchmarks=str(BENCHMARKS), path=str(result)))
    mpi_counts.launch(2, str(script), preload=mpi_counts.built(tmp_path))
    found, ghosts = json.loads(result.read_text())
    by_call = {name: tuple(counts.values()) for name, counts in found.items()}
    assert by_call == {
        "Allreduce": (0, 0, 1, 0),
        "allreduce": (0, 0, 0, 2),  # sizes, then pickles
        "Sendrecv": (1, 80, 0, 0),
        "persistent": (3, 240, 0, 0),
        "alone": (0, 0, 0, 0),
        "PETSc": (0, 0, 1, 0),
        "DOLFINx": (1, 8 * ghosts, 0, 0),
        "nothing": (0, 0, 0, 0),
    }


def test_derivative(tmp_path: Path) -> None:
    found = tables("derivative", tmp_path)
    rows = {row["tool"]: row for row in found["tools"]}
    # Another code's adjoint of the same discrete problem, by two solvers and two chain rules.
    by_hand = [row for name, row in rows.items() if name.startswith("by hand")]
    assert len(by_hand) == 4
    assert all(0.0 < row["off by"] < 1e-9 for row in by_hand)
    if "dolfinx-adjoint, replay" in rows:  # `make peers`
        assert 0.0 < rows["dolfinx-adjoint, replay"]["off by"] < 1e-8
    # The reverse sweep does not know how many weights there are: a hundred times as many.
    few, _, many = found["widths"]
    assert many["value + derivative"] < 20.0 * few["value + derivative"]


def test_forward(tmp_path: Path) -> None:
    found = tables("forward", tmp_path)
    rows = found["forward"]
    assert {row["drift"] for row in rows} == {"steady", "cheap", "network/1", "network/4"}
    assert all(row["difference"] < 1e-8 for row in rows)
    # Both count the same iterations: the same matrix, preconditioner and guesses.
    assert all(row["its"] == row["its dolfinx"] for row in rows)
    # A step cannot be faster than what it has to move, bandwidth taken from a core's own cache.
    fastest = max(row["triad"] for row in found["triad"])
    assert all(row["fpcontrol"] > 1e-3 * row["bytes/dof"] / (2.0 * fastest) for row in rows)
    error = {row["tool"]: row["error"] for row in found["peers"]}
    assert error["fpcontrol P1"] == pytest.approx(error["plain DOLFINx P1"], rel=1e-6)
    assert error["fpcontrol P2"] < 0.5 * error["fpcontrol P1"]


def test_forward_runs_what_is_asked_for(tmp_path: Path) -> None:
    asked = ["--sizes", "1e3", "--degrees", "2", "--drifts", "cheap", "--rounds", "1", "--no-peers"]
    done = run("bench_forward.py", "--quick", "--out", str(tmp_path), *asked)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "forward.json").read_text())["tables"]
    kinds = [(r["drift"], r["degree"], r["dimension"], r["dofs"]) for r in found["forward"]]
    assert kinds == [("cheap", 2, 2, 961)]
    assert found["peers"] == []


def test_memory(tmp_path: Path) -> None:
    found = tables("memory", tmp_path)
    rows = found["memory"]
    assert {row["run"] for row in rows} == {"steady", "moving", "derivative"}
    for row in rows:
        assert row["bytes/dof"] > row["levels"] >= 8 * 21
        assert max(phase["held"] for phase in row["phases"]) <= row["bytes/dof"] * 1.01
    everything, revolve, disk = found["budget"]
    assert everything["snapshots"] is None and disk["snapshots"] is None
    assert 0 < revolve["snapshots"] < revolve["steps"] / 4
    assert max(revolve["off by"], disk["off by"]) <= 1e-12


def test_solvers(tmp_path: Path) -> None:
    found = tables("solvers", tmp_path)
    its = {
        (row["dt D/h2"], row["solver"]): row["its"]
        for row in found["everything"]
        if (row["dim"], row["degree"]) == (2, 1)
    }
    assert its[1.0, "GMRES, ILU(2)"] < its[1.0, "GMRES, ILU(0)"]
    explicit = {row["method"]: row for row in found["explicit"]}
    # Exact to round-off, derivative against differences.
    assert explicit["RKC2"]["transposed"] < 1e-13
    assert explicit["RKC2"]["derivative"] < 1e-6


def test_particles(tmp_path: Path) -> None:
    found = tables("particles", tmp_path)
    for row in found["agreement"]:
        assert row["p"] > 1e-3 and row["normal"] > 1e-3 and row["outside"] == 0
    for row in found["costs"]:
        assert 0.0 < row["no drift"] < row["numpy and dolfinx"]
    coarse, fine = found["orders"][:2]
    # The errors themselves are some 20 to 100 of their standard errors.
    assert abs(coarse["EulerMaruyama"]) > 1.5 * abs(fine["EulerMaruyama"])
    assert abs(coarse["clipped"]) < 1.5 * abs(fine["clipped"])
    slopes = {row["scheme"]: row["slope"] for row in found["slopes"]}
    assert slopes["clipped"] < 0.5 < 0.9 < min(slopes["EulerMaruyama"], slopes["Heun"])


def test_positive(tmp_path: Path) -> None:
    found = tables("positive", tmp_path)
    strong = next(row for row in found["layers"] if row["Peclet"] == 10.0)
    assert strong["truth"] < 1e-3
    assert strong["W1 Limited"] < 0.25 * strong["W1 Monotone, hybrid"]
    for row in found["layers"]:
        for name in ("Limited", "Monotone, bernoulli", "Monotone, hybrid"):
            assert row[f"minimum {name}"] >= 0.0
    weak = next(row for row in found["smooth"] if row["Peclet"] == 0.1)
    assert weak["Limited"] == pytest.approx(weak["Galerkin P1"], rel=0.1)
    assert {row["method"] for row in found["cost"]} >= {"Galerkin P1", "Limited"}


def test_sigma(tmp_path: Path) -> None:
    found = tables("sigma", tmp_path)
    # Closed forms; sigma = 0 is along characteristics.
    assert all(row["off"] < 1e-4 for row in found["regimes"])
    assert all(row["off"] < 1e-4 for row in found["halved"])


def test_steps(tmp_path: Path) -> None:
    found = tables("steps", tmp_path)
    assert [row["degree"] for row in found["refill"]] == [1, 2]
    small = found["overhead"][0]
    for sweep in ("forward", "reverse"):
        assert 0.0 < small[f"{sweep} overhead"] < small[sweep]


def test_out_is_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("bench_forward.py", "--quick", "--out", str(tmp_path / "file"))
    assert done.returncode == 2
    assert "Cannot make the folder" in done.stderr
    # Nor is an option guessed from its beginning.
    done = run("bench_convergence.py", "--quick", "--ou", str(tmp_path))
    assert done.returncode == 2


def test_figures_are_drawn_again(tmp_path: Path) -> None:
    tables("steps", tmp_path)
    figure = tmp_path / "steps.png"
    figure.unlink()
    assert run("results.py", str(tmp_path)).returncode == 0
    assert figure.stat().st_size > 10_000


def test_half_written_results_replace_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import results

    path = tmp_path / "any.json"
    results.write(path, {"a": float("nan"), "b": [np.float64(1.5), np.int64(2)]})
    before = path.read_text()
    assert json.loads(before) == {"a": None, "b": [1.5, 2]}
    with pytest.raises(TypeError):
        results.write(path, {"a": 1.0, "b": object()})
    assert path.read_text() == before
    assert list(tmp_path.iterdir()) == [path]


def test_aims_follow_the_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import aims

    def refills(*ratios: float) -> list[dict[str, Any]]:
        rows = [{"degree": 1, "dofs": 1089, "ratio": ratio} for ratio in ratios]
        small = {"dofs": 1089, "forward overhead": 0.5, "reverse overhead": 1.5}
        text = {"environment": {"date": "today"}, "tables": {"refill": rows, "overhead": [small]}}
        (tmp_path / "steps.json").write_text(json.dumps(text))
        return [row for row in aims.table(tmp_path) if row["by"] == "bench_steps.py"]

    low, high, forward, reverse = refills(0.19, 0.21)
    assert [row["reached"] for row in (low, high, forward, reverse)] == ["yes", "no", "yes", "no"]
    assert (low["measured"], low["size"]) == ("0.19", "degree 1, 1089 dofs")
    unknown = [row for row in aims.table(tmp_path) if row["by"] != "bench_steps.py"]
    assert unknown and {row["measured"] for row in unknown} == {"not measured"}
    assert {row["reached"] for row in unknown} == {""}
    done = run("aims.py", str(tmp_path))
    assert f"2 reached, 2 not, {len(unknown)} not measured" in done.stdout
    assert "| 0.19 | yes |" in (tmp_path / "aims.md").read_text()


@pytest.mark.slow
def test_score(tmp_path: Path) -> None:
    for name in ("jax", "optax"):
        pytest.importorskip(name)
    found = tables("score", tmp_path)
    rows = found["samplers"]
    assert [(row["w_R"], row["noise"]) for row in rows] == [
        (w, noise) for w in (0.0, 1.0) for noise in (1.0, 0.4, 0.0)
    ]
    for row in rows:
        assert row["l2 error"] < 0.1 * row["l2"]
        if row["noise"] > 0.0 and row["kl"] is not None:
            assert row["kl"] < row["certificate"]


def test_bridges(tmp_path: Path) -> None:
    found = tables("bridges", tmp_path)
    for row in found["processes"]:
        for name in ("path KL", "KL", "L2", "W2"):
            gap = abs(row[name] - row[f"{name} pinned"])
            assert gap < 0.04 * row[name] + 2.0 * row[f"{name} error"]
    key = ("target", "family", "form", "weighting")
    rows = {tuple(r[part] for part in key): r for r in found["forms"]}
    for (target, family, form, weighting), row in rows.items():
        if target == "two" and form != "exact":
            assert 1e-3 < row["KL"] < row["path KL"]
            assert row["path KL"] >= rows[target, family, form, "kl"]["path KL"]
            assert row["L2"] > 10.0 * rows[target, "", "exact", ""]["L2"], weighting
    jax = all(importlib.util.find_spec(name) for name in ("jax", "optax"))
    assert {family for _, family, *_ in rows} == {"", "features"} | ({"trained"} if jax else set())
    # All rows are kept, and a second run makes the same table of them.
    kept = json.loads((tmp_path / "bridges-runs.json").read_text())
    again = tables("bridges", tmp_path)
    assert again == found and json.loads((tmp_path / "bridges-runs.json").read_text()) == kept
