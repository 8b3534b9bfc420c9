"""Bad input is one clear error, of the right type and the same on every rank, and nothing hangs."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from problems import WORLD, bump, cube, mpirun, raised, tracking

import fpcontrol as fpc

LAST = WORLD.rank == WORLD.size - 1


def equation(drift=None, **options) -> fpc.FokkerPlanck:
    options = {"sigma": 0.5, "degree": 1} | options
    return fpc.FokkerPlanck(cube(WORLD, 2, 4), drift or fpc.drift.zero(), **options)


def solve(drift=None, **options) -> fpc.Trajectory:
    e = equation(drift)
    return e.solve(**{"start": bump(e.mesh, 1, 0.3), "t1": 1.0, "steps": 2} | options)


def minimize(**options) -> fpc.Result:
    return fpc.minimize(tracking(), **{"max_iterations": 1, "progress": False} | options)


# --- numbers and names ---------------------------------------------------------------------------


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: equation(sigma=-1.0), "sigma = -1.0"),
        (lambda: equation(sigma=0.0), "sigma = 0.0"),
        (lambda: equation(sigma=0), "sigma = 0 "),
        (lambda: equation(sigma=np.nan), "sigma = nan"),
        (lambda: equation(sigma=np.inf), "sigma = inf"),
        (lambda: equation(sigma="1"), "sigma = '1'"),
        (lambda: tracking(sigma=-1.0), "sigma = -1.0"),
        (lambda: equation(degree=0), "degree = 0"),
        (lambda: equation(degree=4), "degree = 4"),
        (lambda: equation(quadrature_degree=-1), "quadrature_degree = -1 must be a whole number"),
        (lambda: equation(quadrature_degree=2.5), "quadrature_degree = 2.5"),
        (lambda: equation(quadrature_degree=99), "from 1 to 30"),
        (lambda: equation(method="upwind"), "method = 'upwind'"),
        (lambda: equation(drift=3.0), "drift = 3.0 is not callable"),
        (lambda: solve(steps=0), "steps = 0"),
        (lambda: solve(steps=-3), "steps = -3"),
        (lambda: solve(steps=2.0), "steps = 2.0"),
        (lambda: solve(t1=0.0), "t1 = 0.0"),
        (lambda: solve(t1=np.nan), "t1 = nan"),
        (lambda: solve(t0=2.0), "later than t0 = 2.0"),
        (lambda: tracking(steps=0), "steps = 0"),
        (lambda: tracking(steps=4.0), "steps = 4.0"),
        (lambda: tracking(steps=5), "steps = 5 is not a multiple of pieces = 2"),
        (lambda: tracking(pieces=0), "pieces = 0"),
        (lambda: tracking(width=1.5), "width = 1.5"),
        (lambda: tracking(activation="swish"), "activation = 'swish'"),
        (lambda: tracking(linear_solver="jacobi"), "linear_solver = 'jacobi'"),
        (lambda: equation(linear_solver="jacobi"), "linear_solver = 'jacobi'"),
        (lambda: tracking(running_weight=-1.0), "running_weight = -1.0"),
        (lambda: tracking(terminal_weight=np.nan), "terminal_weight = nan"),
        (lambda: tracking(decay=-0.1), "decay = -0.1"),
        (lambda: tracking(snapshots=0), "snapshots = 0"),
        (lambda: tracking(memory=-1.0), "memory = -1.0"),
        (lambda: tracking(memory="2"), "memory = '2'"),
        (lambda: tracking(disk=3), "disk = 3 must be the path"),
        (
            lambda: tracking(memory=1e-12),
            "memory = 1e-12 GiB per rank does not hold an operator and one snapshot",
        ),
        (lambda: tracking(disk="no/such/place"), "disk = 'no/such/place'"),
        (lambda: tracking(disk=__file__), "is no directory"),
        (lambda: tracking(t1=-1.0), "t1 = -1.0"),
        (lambda: solve(scheme=fpc.SDIRK4), "scheme = SDIRK4 is no scheme"),
        (lambda: solve(scheme="cn"), "scheme = 'cn' is no scheme"),
        (lambda: tracking(scheme=fpc.SDIRK4), "scheme = SDIRK4 is no scheme"),
        (lambda: tracking(scheme="cn"), "scheme = 'cn' is no scheme"),
        (lambda: minimize(gradient_tolerance=np.nan), "gradient_tolerance = nan"),
        (lambda: minimize(gradient_tolerance=-1.0), "gradient_tolerance = -1.0"),
        (lambda: minimize(target_error=np.nan), "target_error = nan"),
        (lambda: minimize(target_error=-0.1), "target_error = -0.1"),
        (lambda: minimize(method="newton"), "method = 'newton'"),
        (lambda: minimize(max_iterations=0), "max_iterations = 0"),
        (lambda: minimize(max_evaluations=2.5), "max_evaluations = 2.5"),
        (lambda: minimize(checkpoint_every=0), "checkpoint_every = 0"),
    ],
)
def test_bad_arguments_are_named_with_their_values(call, message):
    assert message in raised(ValueError, call)


def test_number_of_steps_that_would_do_is_suggested():
    with pytest.raises(ValueError, match="try 6"):
        tracking(steps=7, pieces=3)


# --- drifts --------------------------------------------------------------------------------------


def wrong_shape(t, x):
    return x[:, :1]


def transposed(t, x):
    return np.zeros_like(x).T


def not_finite(t, x):
    return np.where(x > 0.0, np.nan, x)


def complex_values(t, x):
    return x + 1j


def text(t, x):
    return np.full(x.shape, "fast")


def good(t, x):
    return np.zeros_like(x)


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("everywhere", [True, False], ids=["all ranks", "one rank"])
@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (wrong_shape, "are needed"),
        (transposed, "are needed"),
        (not_finite, "is not finite at t = "),
        (complex_values, "complex128 values"),
        (text, "are needed"),
        (lambda t, x: None, "are needed"),
    ],
)
def test_bad_drifts_are_refused(bad, everywhere, message):
    assert message in raised(ValueError, lambda: solve(bad if everywhere or LAST else good))


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("everywhere", [True, False], ids=["all ranks", "one rank"])
def test_error_of_the_drift_itself_comes_out(everywhere):
    def lost(t, x):
        if everywhere or LAST:
            raise LookupError("no wind at sea")
        return np.zeros_like(x)

    assert raised(LookupError, lambda: solve(lost)) == "no wind at sea"


class Unpicklable(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


@pytest.mark.parallel([2, 3])
def test_errors_that_do_not_travel_are_told():
    class Local(Exception):
        pass

    for error, said in ((Unpicklable(1, 2), "1 and 2"), (Local("here"), "here")):

        def bad(t, x, error=error):
            if LAST:
                raise error
            return np.zeros_like(x)

        caught = None
        try:
            solve(bad)
        except Exception as e:
            caught = f"{type(e).__name__}: {e}"
        name = f"{type(error).__name__}: {said}"
        assert WORLD.allgather(caught) == [f"RuntimeError: {name}"] * (WORLD.size - 1) + [name]


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("make", [equation, tracking], ids=["forward", "control"])
def test_schedule_that_fails_on_one_rank_fails_on_all(make):
    def sigma(t):
        return -1.0 if LAST and t > 0.5 else 1.0

    def call():
        made = make(sigma=sigma)
        if make is equation:
            made.solve(bump(made.mesh, 1, 0.3), 1.0, 4)

    assert "sigma = -1.0 at t = " in raised(ValueError, call)


@pytest.mark.parallel([2, 3])
def test_ranks_must_ask_for_the_same_storage():
    assert "must be the same on all ranks" in raised(
        ValueError, lambda: tracking(snapshots=2 + WORLD.rank)
    )
    p = tracking(n=6)
    storage = p.runs.storage
    level = storage.level_memory
    other = storage.work_memory + storage.operator_memory / storage.operators
    lean = tracking(n=6, memory=(0.9 if LAST else 2.0) * level + other)
    storage = lean.runs.storage
    assert WORLD.allgather(storage.levels) == ["recomputed"] * WORLD.size
    assert WORLD.allgather(storage.snapshots) == [storage.snapshots] * WORLD.size
    expected = p.derivative(p.drift.weights)
    assert lean.derivative(p.drift.weights) == pytest.approx(expected, rel=1e-11, abs=1e-13)


@pytest.mark.parallel([1, 2])
def test_full_disk_on_one_rank_is_an_error_on_all(tmp_path, monkeypatch):
    p = tracking(n=6)
    lean = tracking(n=6, memory=0.7 * p.runs.storage.level_memory, disk=tmp_path)

    allocate = os.posix_fallocate

    def full(*arguments):
        if LAST:
            raise OSError("No space left on device")
        allocate(*arguments)

    monkeypatch.setattr("os.posix_fallocate", full)
    assert "No space left" in raised(OSError, lambda: lean.derivative(p.drift.weights))


@pytest.mark.parallel([1, 2])
def test_steps_must_not_straddle_a_switch():
    mesh = cube(WORLD, 2, 4)
    drift = fpc.NetworkDrift(mesh, width=2, pieces=10, t1=2.0)
    e = fpc.FokkerPlanck(mesh, drift, 0.5, degree=1)
    rho = bump(mesh, 1, 0.3)

    def message(t0: float, t1: float, steps: int, **options) -> str:
        return raised(ValueError, lambda: e.solve(rho, t1, steps, t0=t0, **options))

    text = message(0.0, 2.0, 28)
    assert "steps = 28: the drift switches at t = 0.2, inside a step" in text
    assert "take a multiple of 10, such as 30" in text
    assert "such as 10." in message(0.0, 2.0, 3, tolerance=1e-3)
    assert "take a multiple of 5, such as 5" in message(1.0, 2.0, 4)
    assert "choose t0 and t1 at switches" in message(0.0, np.pi / 2.0, 10)
    assert len(e.solve(rho, 1.0, 5)) == 6
    assert len(e.solve(rho, 0.35, 1, t0=0.25)) == 2
    assert len(e.solve(rho, 0.5, 5)) == 6  # every other level is at a switch


@pytest.mark.parallel([2])
def test_drift_may_turn_bad_late():
    assert "t = 0.75" in raised(
        ValueError, lambda: solve(lambda t, x: np.full_like(x, np.nan if t > 0.5 and LAST else 0.0))
    )


# --- densities -----------------------------------------------------------------------------------


@pytest.mark.parallel([1, 2])
def test_start_of_another_space_is_refused():
    other = cube(WORLD, 2, 4)
    assert "start lives on another mesh" in raised(
        ValueError, lambda: solve(start=bump(other, 1, 0.3))
    )
    e = equation()
    assert "start is of degree 2, the equation of degree 1" in raised(
        ValueError, lambda: e.solve(bump(e.mesh, 2, 0.3), 1.0, 2)
    )
    assert "is not a dolfinx Function" in raised(ValueError, lambda: solve(start=np.ones(25)))
    problem = tracking()
    assert "start lives on another mesh" in raised(
        ValueError,
        lambda: fpc.TrackingProblem(
            problem.reference, problem.drift, 0.5, 4, start=bump(other, 1, 0.3)
        ),
    )


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_what_is_no_reference_or_no_network_is_refused(sigma):
    problem = tracking()
    drift, reference = problem.drift, problem.reference
    goal = bump(drift.mesh, 1, 0.7)
    assert "densities with MoserFlow(" in raised(
        ValueError, lambda: fpc.TrackingProblem(goal, drift, sigma, 4)
    )
    assert "give a NetworkDrift" in raised(
        ValueError, lambda: fpc.TrackingProblem(reference, lambda t, x: x, sigma, 4)
    )


@pytest.mark.parallel([1, 2])
def test_drift_of_another_mesh_or_time_is_refused():
    reference = tracking().reference
    strange = fpc.NetworkDrift(cube(WORLD, 2, 4), 2, 2)
    assert "different meshes" in raised(
        ValueError, lambda: fpc.TrackingProblem(reference, strange, 0.5, 4)
    )
    late = fpc.NetworkDrift(reference.elements.mesh, 2, 2, t1=2.0)
    assert "drift.t1 = 2 differs from reference.t1 = 1" in raised(
        ValueError, lambda: fpc.TrackingProblem(reference, late, 0.5, 4)
    )


@pytest.mark.parallel([1, 2])
def test_start_that_is_not_finite_on_one_rank_is_refused():
    e = equation()
    start = bump(e.mesh, 1, 0.3)
    if LAST:
        start.x.array[0] = np.inf
    assert "not finite" in raised(ValueError, lambda: e.solve(start, 1.0, 2))


# --- weights -------------------------------------------------------------------------------------


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("use", ["value", "derivative", "tangent", "trajectory", "minimize", "new"])
def test_bad_weights_are_refused(use):
    problem = tracking()
    right = problem.drift.weights
    calls = {
        "value": problem,
        "derivative": problem.derivative,
        "tangent": lambda w: problem.tangent(right, w),
        "trajectory": problem.trajectory,
        "minimize": lambda w: fpc.minimize(problem, w, max_iterations=1, progress=False),
        "new": problem.drift.with_weights,
    }
    call, bad = calls[use], right.copy()
    bad[7] = np.nan
    assert "19 entries; 20 are needed" in raised(ValueError, lambda: call(right[:-1]))
    assert "1 entries that are not finite, the first at 7" in raised(ValueError, lambda: call(bad))


@pytest.mark.parallel(2)
@pytest.mark.parametrize("use", ["value", "derivative", "tangent", "trajectory", "minimize", "new"])
def test_weights_bad_on_one_rank_are_refused_on_all(use):
    problem = tracking()
    weights = problem.drift.weights.copy()
    if LAST:
        weights[0] = np.nan
    calls = {
        "value": lambda: problem(weights),
        "derivative": lambda: problem.derivative(weights),
        "tangent": lambda: problem.tangent(problem.drift.weights, weights),
        "trajectory": lambda: problem.trajectory(weights),
        "minimize": lambda: fpc.minimize(problem, weights, max_iterations=1, progress=False),
        "new": lambda: problem.drift.with_weights(weights),
    }
    assert "not finite" in raised(ValueError, calls[use])


# --- files ---------------------------------------------------------------------------------------


@pytest.fixture
def blocked(tmp_path: Path) -> Path:
    """A folder that cannot be made, not even by root: its parent is a file."""
    if WORLD.rank == 0:
        (tmp_path / "file").write_text("")
    WORLD.barrier()
    return tmp_path / "file" / "out"


@pytest.mark.parallel([1, 2])
def test_missing_files_are_named(tmp_path):
    path = tmp_path / "island.xdmf"
    assert str(path) in raised(FileNotFoundError, lambda: fpc.mesh.read(path, WORLD))
    points = tmp_path / "towns.csv"
    assert str(points) in raised(FileNotFoundError, lambda: fpc.io.read_points(points, WORLD))


@pytest.mark.parallel([1, 2])
def test_folders_that_cannot_be_made_are_named(blocked):
    result = minimize()
    calls = [
        lambda: fpc.plotting.tracking(result, blocked / "a.png"),
        lambda: fpc.plotting.density(result.trajectory[0], blocked / "a.png"),
        lambda: fpc.io.write(result.trajectory, blocked / "a.bp"),
        lambda: fpc.io.write_record(result, blocked / "a.json"),
        lambda: minimize(checkpoint=blocked / "a.npz"),
    ]
    for call in calls:
        message = raised(OSError, call)
        assert str(blocked) in message
        assert "Choose another path" in message


@pytest.mark.parallel([1, 2])
def test_fields_in_an_unknown_format_are_refused(tmp_path):
    trajectory = solve()
    path = tmp_path / "a.vtu"
    assert "must end in .bp" in raised(ValueError, lambda: fpc.io.write(trajectory, path))


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("every", [-1, 0, 2.5])
def test_fields_of_no_number_of_levels_are_refused(every, tmp_path):
    trajectory, path = solve(), tmp_path / "a.bp"
    message = raised(ValueError, lambda: fpc.io.write(trajectory, path, every=every))
    assert f"every = {every}" in message


@pytest.mark.parallel([1, 2])
def test_densities_along_labels_are_written_on_a_mesh(tmp_path):
    problem, path = tracking(sigma=0.0), tmp_path / "a.bp"
    flow = problem.trajectory(problem.drift.weights)
    message = raised(ValueError, lambda: fpc.io.write(flow, path))
    assert "trajectory.on_mesh(space)" in message
    fpc.io.write(flow.on_mesh(problem.elements.space), path)
    assert path.exists()


@pytest.mark.parallel([1, 2])
def test_pictures_that_cannot_be_drawn_are_refused(tmp_path):
    result = minimize()
    for times in (1, 0, 2.5):
        path = tmp_path / "t.png"
        message = raised(
            ValueError, lambda t=times, p=path: fpc.plotting.tracking(result, p, times=t)
        )
        assert f"times = {times}" in message
    for name in ("fig", "fig.xyz"):
        path = tmp_path / name
        for call in (
            lambda p=path: fpc.plotting.tracking(result, p),
            lambda p=path: fpc.plotting.density(result.problem.reference.start, p),
        ):
            message = raised(ValueError, call)
            assert name in message
            assert "png" in message
    assert not list(tmp_path.iterdir())


# --- programs ------------------------------------------------------------------------------------

FAILING = """
from pathlib import Path
from mpi4py import MPI
import fpcontrol as fpc

mesh = fpc.mesh.rectangle(MPI.COMM_WORLD, (4, 4))
if MPI.COMM_WORLD.rank == 1:
    Path({path!r}).touch()
    raise RuntimeError("rank 1 has had enough")
fpc.density.uniform(mesh)
MPI.COMM_WORLD.barrier()
"""


def test_program_that_fails_on_one_rank_ends(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(FAILING.format(path=str(tmp_path / "failed")))
    done = subprocess.run(mpirun(script), capture_output=True, timeout=60)
    # Not by its last words: the launcher drops what it has not read when it ends the ranks.
    assert done.returncode != 0
    assert (tmp_path / "failed").exists()


def test_ranks_are_real():
    # The tests above mean nothing if a launcher starts two programs of one rank each.
    # In one piece: print may write the number and the end of the line apart, between another's.
    code = "import os; from mpi4py import MPI; os.write(1, b'%d\\n' % MPI.COMM_WORLD.size)"
    command = [*mpirun(Path("-"))[:-2], "mpi4py", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["2", "2"]
