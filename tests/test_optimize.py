"""The optimization: descent, what stops it, checkpoints, interruption."""

import dataclasses
import itertools
import os
import signal
import subprocess
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from problems import SELF, WORLD, cube, mpirun, raised, tracking

import fpcontrol as fpc

TESTS = Path(__file__).parent


def quiet(problem: fpc.TrackingProblem, **options) -> fpc.Result:
    return fpc.minimize(problem, **{"max_iterations": 12, "progress": False} | options)


def count_derivatives(problem: fpc.TrackingProblem, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one with every evaluation of value and derivative."""
    calls: list[int] = []
    evaluate = problem.value_and_derivative

    def counted(weights):
        calls.append(len(calls) + 1)
        return evaluate(weights)

    monkeypatch.setattr(problem, "value_and_derivative", counted)
    return calls


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("method", ["lmvm", "cg"])
def test_cost_goes_down_and_history_tells_how(method, monkeypatch):
    problem = tracking()
    calls = count_derivatives(problem, monkeypatch)
    result = quiet(problem, method=method)
    history = result.history
    assert result.value < 0.5 * problem(problem.drift.weights)
    assert problem(result.weights) == result.value == history[-1].value
    assert result.relative_error == history[-1].relative_error
    # J is half the relative error squared, and nothing else here.
    assert result.value == pytest.approx(0.5 * result.relative_error**2, rel=1e-12)
    assert [i.iteration for i in history] == list(range(13))
    assert result.reason == "max_iterations"
    assert result.evaluations == history[-1].evaluations == len(calls)
    for before, after in itertools.pairwise(history):
        assert after.evaluations > before.evaluations
        assert after.value <= before.value
        assert after.seconds >= before.seconds
    dual = problem.derivative(result.weights)
    assert history[-1].gradient_norm == pytest.approx(np.linalg.norm(dual), rel=1e-12)
    # What every rank holds is the same to the last bit.
    mine = (result.weights.tobytes(), history, result.reason)
    assert WORLD.allgather(mine) == [mine] * WORLD.size


@pytest.mark.parallel([1, 2])
def test_weights_to_start_from_can_be_given():
    problem = tracking()
    zero = np.zeros_like(problem.drift.weights)
    assert quiet(problem, weights=zero, max_iterations=1).history[0].value == problem(zero)
    assert not zero.any()


@pytest.mark.parallel([1, 2])
def test_stops_at_the_target_error():
    first = quiet(tracking()).history
    target = 0.5 * (first[3].relative_error + first[4].relative_error)
    result = quiet(tracking(), target_error=target)
    assert (result.reason, len(result.history)) == ("target_error", 5)
    assert result.relative_error <= target < result.history[-2].relative_error


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("limit", [1, 2, 7])
def test_never_evaluates_more_often_than_allowed(limit, monkeypatch):
    problem = tracking()
    calls = count_derivatives(problem, monkeypatch)
    result = quiet(problem, max_iterations=100, max_evaluations=limit)
    assert len(calls) == result.evaluations == limit
    assert result.reason == "max_evaluations"
    assert problem(result.weights) == result.value <= result.history[0].value


@pytest.mark.parallel([1, 2])
def test_best_weights_are_kept_if_the_last_ones_are_worse(monkeypatch):
    problem = tracking()
    evaluate, seen = problem.value_and_derivative, []

    def rising(weights):
        value, dual = evaluate(weights)
        seen.append((value + (10.0 if len(seen) >= 4 else 0.0), weights.copy()))
        return seen[-1][0], dual

    monkeypatch.setattr(problem, "value_and_derivative", rising)
    result = quiet(problem, max_evaluations=6)
    best = min(seen, key=lambda pair: pair[0])
    assert len(seen) == 6
    assert result.value == best[0]
    assert np.array_equal(result.weights, best[1])


@pytest.mark.parallel([2, 3])
def test_ranks_that_round_differently_take_the_same_steps(monkeypatch):
    problem = tracking()
    evaluate = problem.value_and_derivative

    def rounded(weights):
        value, dual = evaluate(weights)
        # Far more than round-off, so that line searches would part soon.
        return value * (1.0 + 1e-3 * WORLD.rank), dual * (1.0 + 1e-2 * WORLD.rank)

    monkeypatch.setattr(problem, "value_and_derivative", rounded)
    result = quiet(problem, max_iterations=40)
    mine = (result.weights.tobytes(), result.history, result.evaluations, result.reason)
    assert WORLD.allgather(mine) == [mine] * WORLD.size


@pytest.mark.parallel([1, 2])
def test_stops_at_a_fraction_of_the_first_gradient():
    result = quiet(tracking(), max_iterations=100, gradient_tolerance=0.1)
    norms = [i.gradient_norm for i in result.history]
    assert result.reason == "gradient_tolerance"
    assert norms[-1] <= 0.1 * norms[0] < norms[-2]


@pytest.mark.parallel([2, 3])
def test_first_twenty_iterations_are_those_of_one_rank():
    alone, shared = (quiet(tracking(comm, n=5), max_iterations=20) for comm in (SELF, WORLD))
    for one, other in zip(alone.history, shared.history, strict=True):
        assert (other.iteration, other.evaluations) == (one.iteration, one.evaluations)
        # The optimizer amplifies the round-off that summation over ranks makes.
        assert other.value == pytest.approx(one.value, rel=1e-6)


@pytest.mark.parallel([1, 2])
def test_refined_result_has_the_same_weights_on_more_steps():
    result = quiet(tracking(), max_iterations=3)
    fine = result.refined(16)
    assert np.array_equal(fine.weights, result.weights)
    assert fine.problem.steps == 16
    assert len(fine.trajectory) == 17
    assert fine.value == fine.problem(result.weights) != result.value


# --- checkpoints ---------------------------------------------------------------------------------


@pytest.mark.parallel([1, 2, 3])
def test_resumed_run_goes_on_where_the_first_one_ended(tmp_path):
    path = tmp_path / "new" / "run.npz"
    first = quiet(tracking(), max_iterations=6, checkpoint=path)
    problem = tracking()
    second = quiet(problem, max_iterations=4, resume=path, checkpoint=path)
    assert second.history[:7] == first.history
    assert [i.iteration for i in second.history] == list(range(11))
    assert second.value < first.value
    assert second.history[7].evaluations > first.evaluations
    assert second.history[7].seconds >= first.history[-1].seconds
    third = quiet(tracking(), max_iterations=1, resume=path)
    assert third.history[:11] == second.history
    assert sorted(p.name for p in path.parent.iterdir()) == ["run.npz"]


@pytest.mark.parallel([1, 2])
def test_resumed_run_stops_against_the_first_gradient_of_all(tmp_path):
    path = tmp_path / "run.npz"
    first = quiet(tracking(), max_iterations=6, checkpoint=path)
    fraction = 1.01 * first.history[-1].gradient_norm / first.history[0].gradient_norm
    second = quiet(tracking(), resume=path, gradient_tolerance=fraction, max_iterations=50)
    assert second.reason == "gradient_tolerance"
    assert second.history[-1].gradient_norm <= fraction * first.history[0].gradient_norm


@pytest.mark.parallel([1, 2])
def test_checkpoint_is_written_every_so_many_iterations(tmp_path, monkeypatch):
    from fpcontrol.control import optimize

    lengths = []
    write = optimize.write_checkpoint

    def spy(path, fingerprint, weights, history, comm):
        lengths.append(len(history) - 1)
        write(path, fingerprint, weights, history, comm)

    monkeypatch.setattr(optimize, "write_checkpoint", spy)
    quiet(tracking(), max_iterations=8, checkpoint=tmp_path / "run.npz", checkpoint_every=3)
    assert lengths == [3, 6, 8]


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"degree": 2}, "degree = 1 there, 2 here"),
        ({"n": 5}, "cells = 32 there, 50 here"),
        ({"sigma": 0.9}, "sigma = [0.8, "),
        ({"activation": "sin"}, "activation = 'tanh' there, 'sin' here"),
        ({"width": 3}, "width = 2 there, 3 here"),
        ({"pieces": 4}, "pieces = 2 there, 4 here"),
        ({"decay": 0.1}, "decay = 0.0 there, 0.1 here"),
        ({"own_start": True}, "start_norm = "),
        ({"scheme": fpc.BackwardEuler()}, "scheme = 'CrankNicolson' there, 'BackwardEuler' here"),
    ],
    ids=str,
)
def test_checkpoint_of_another_problem_is_refused(change, named, tmp_path):
    path = tmp_path / "run.npz"
    quiet(tracking(), max_iterations=1, checkpoint=path)
    other = tracking(**change)
    message = raised(ValueError, lambda: quiet(other, resume=path))
    assert "is of another problem" in message
    assert named in message


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("dim", [1, 2])
@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_checkpoint_of_a_mirror_image_or_another_place_is_refused(sigma, dim, tmp_path):
    def problem(axis=0, centre=0.7, size=1.0, lower=0.0):
        mesh = cube(WORLD, dim, 8, size, lower)

        def f(x):
            return 1.0 + np.exp(-20.0 * ((x[axis] - lower) / size - centre) ** 2)

        goal = fpc.density.interpolate(mesh, f)
        reference = fpc.MoserFlow(fpc.density.uniform(mesh), goal, 1.0, sigma)
        return fpc.TrackingProblem(reference, fpc.NetworkDrift(mesh, dim, 2), sigma, 4)

    path = tmp_path / "run.npz"
    first = quiet(problem(), max_iterations=1, checkpoint=path)
    assert quiet(problem(), max_iterations=1, resume=path).history[:2] == first.history
    others = [({"centre": 0.3}, "reference_moments"), ({"lower": 1.0}, "box")]
    others += [({"axis": 1}, "reference_moments")] if dim == 2 else []
    for change, named in others:
        other = problem(**change)
        message = raised(ValueError, lambda other=other: quiet(other, resume=path))
        assert f"{named} = [" in message


@pytest.mark.parallel([2, 3])
def test_checkpoint_of_one_rank_is_that_of_many(tmp_path):
    path = tmp_path / f"run{WORLD.rank}.npz"
    alone = quiet(tracking(SELF, own_start=True), max_iterations=1, checkpoint=path)
    others = quiet(tracking(own_start=True), max_iterations=1, resume=tmp_path / "run0.npz")
    assert others.history[0].value == pytest.approx(alone.history[0].value, rel=1e-12)


@pytest.mark.parallel([1, 2])
def test_missing_and_corrupted_checkpoints_are_refused(tmp_path):
    path, problem = tmp_path / "run.npz", tracking()
    assert "no such file" in raised(FileNotFoundError, lambda: quiet(problem, resume=path))
    quiet(problem, max_iterations=1, checkpoint=path)
    whole = path.read_bytes()
    for content in (b"", b"no archive", whole[: len(whole) // 2]):
        WORLD.barrier()
        if WORLD.rank == 0:
            path.write_bytes(content)
        WORLD.barrier()
        assert "is not a checkpoint" in raised(OSError, lambda: quiet(problem, resume=path))


@pytest.mark.parallel([1, 2])
def test_checkpoint_that_cannot_be_written_is_an_error_before_the_first_step(tmp_path, monkeypatch):
    if WORLD.rank == 0:
        (tmp_path / "file").write_text("")
    WORLD.barrier()
    problem = tracking()
    calls = count_derivatives(problem, monkeypatch)
    path = tmp_path / "file" / "run.npz"
    assert "Choose another path" in raised(OSError, lambda: quiet(problem, checkpoint=path))
    assert not calls


# --- trial steps that cannot be evaluated --------------------------------------------------------


def noiseless(comm=WORLD) -> fpc.TrackingProblem:
    """A neural ODE whose descent tries a step by which labels leave the domain."""
    mesh = fpc.mesh.interval(comm, 40)
    goal = fpc.density.interpolate(mesh, lambda x: np.exp(-40.0 * (x[0] - 0.8) ** 2), floor=0.05)
    reference = fpc.MoserFlow(fpc.density.uniform(mesh), goal, 1.0, 0.0)
    drift = fpc.NetworkDrift(mesh, 1, 5, seed=7)
    return fpc.TrackingProblem(reference, drift, 0.0, 20, terminal_weight=1.0)


@pytest.mark.parallel([1, 2])
def test_steps_by_which_labels_leave_the_domain_are_shortened(monkeypatch):
    problem, refused = noiseless(), []
    check = problem.runs._check_inside

    def spy(n, x):
        try:
            check(n, x)
        except ValueError:
            refused.append(n)
            raise

    monkeypatch.setattr(problem.runs, "_check_inside", spy)
    result = quiet(problem, max_iterations=25)
    assert any(WORLD.allgather(bool(refused)))
    assert result.reason == "max_iterations"
    assert problem(result.weights) == result.value < 0.1 * result.history[0].value
    mine = (result.weights.tobytes(), result.history, result.evaluations)
    assert WORLD.allgather(mine) == [mine] * WORLD.size


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("how", ["solver fails", "J is not a number"])
def test_steps_that_cannot_be_evaluated_are_shortened(how, monkeypatch):
    problem = tracking()
    evaluate, first, longest = problem.value_and_derivative, problem.drift.weights.copy(), 0.05

    def failing(weights):
        if np.linalg.norm(weights - first) > longest:
            if how == "solver fails":
                raise ArithmeticError("no convergence")
            return np.nan, np.full_like(weights, np.nan)
        return evaluate(weights)

    steps = [quiet(problem, max_iterations=1).weights - first]
    monkeypatch.setattr(problem, "value_and_derivative", failing)
    result = quiet(problem, max_iterations=1)
    steps.append(result.weights - first)
    assert np.linalg.norm(steps[0]) > longest > np.linalg.norm(steps[1]) > 0.1 * longest
    assert result.value < result.history[0].value


@pytest.mark.parallel([1, 2])
def test_best_is_returned_and_saved_if_no_step_can_be_evaluated(tmp_path, monkeypatch):
    problem, path = tracking(), tmp_path / "run.npz"
    evaluate, calls = problem.value_and_derivative, []

    def failing(weights):
        calls.append(1)
        if len(calls) > 4:
            raise ArithmeticError("no convergence")
        return evaluate(weights)

    monkeypatch.setattr(problem, "value_and_derivative", failing)
    result = quiet(problem, max_iterations=100, checkpoint=path)
    assert result.reason == "diverged_ls_failure"
    assert result.evaluations == len(calls) < 200
    monkeypatch.undo()
    assert problem(result.weights) == result.value < result.history[0].value
    assert quiet(problem, max_iterations=1, resume=path).value <= result.value


@pytest.mark.parallel([1, 2])
def test_first_weights_that_cannot_be_evaluated_are_an_error():
    problem = noiseless()
    fast = np.full_like(problem.drift.weights, 40.0)
    assert "labels left the domain" in raised(ValueError, lambda: quiet(problem, weights=fast))


# --- interruption --------------------------------------------------------------------------------


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(("kind", "call"), [(LookupError, 4), (ArithmeticError, 1)])
def test_error_inside_an_evaluation_comes_out_as_it_was(kind, call, tmp_path, monkeypatch):
    problem, path = tracking(), tmp_path / "run.npz"
    evaluate, calls, values = problem.value_and_derivative, [], []

    def failing(weights):
        calls.append(1)
        if len(calls) == call:
            raise kind("no more")
        values.append(evaluate(weights))
        return values[-1]

    monkeypatch.setattr(problem, "value_and_derivative", failing)
    message = raised(kind, lambda: quiet(problem, checkpoint=path))
    assert str(kind("no more")) == message
    assert path.exists() == (call > 1)
    if call > 1:  # what had been found is there
        resumed = quiet(tracking(), max_iterations=1, resume=path)
        assert resumed.history[0].value == values[0][0]
        assert resumed.value < min(value for value, _ in values)


@pytest.mark.parallel([1, 2])
def test_error_of_the_checkpoint_comes_out_as_it_was(tmp_path, monkeypatch):
    from fpcontrol.control import optimize

    def full(*args):
        raise OSError("disk full")

    monkeypatch.setattr(optimize, "write_checkpoint", full)
    options = {"checkpoint": tmp_path / "run.npz", "checkpoint_every": 1}
    assert raised(OSError, lambda: quiet(tracking(), **options)) == "disk full"


@pytest.mark.parallel([1, 2, 3])
def test_interrupt_on_one_rank_ends_the_run_on_all(tmp_path, monkeypatch):
    problem, path = tracking(), tmp_path / "run.npz"
    evaluate, calls = problem.value_and_derivative, []

    def interrupted(weights):
        calls.append(1)
        if len(calls) == 5 and WORLD.rank == WORLD.size - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return evaluate(weights)

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(problem, "value_and_derivative", interrupted)
    result = quiet(problem, max_iterations=100, checkpoint=path)
    assert (result.reason, result.evaluations, len(calls)) == ("interrupted", 5, 5)
    assert problem(result.weights) == result.value < result.history[0].value
    assert signal.getsignal(signal.SIGINT) is handler
    resumed = quiet(tracking(), max_iterations=1, resume=path)
    assert resumed.value <= result.value


SCRIPT = """
import os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from problems import WORLD, tracking
import fpcontrol as fpc

folder = Path({folder!r})
(folder / f"pid{{WORLD.rank}}").write_text(str(os.getpid()))
problem = tracking(n=6, steps=20)
result = fpc.minimize(
    problem, max_iterations=10**6, gradient_tolerance=0.0, checkpoint=folder / "run.npz",
    checkpoint_every=1, progress=False,
)
text = f"{{result.reason}} {{result.value.hex()}} {{result.value < result.history[0].value}}"
(folder / f"end{{WORLD.rank}}").write_text(text)
"""


FAILING = """
import sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from problems import WORLD, tracking
import fpcontrol as fpc
from fpcontrol.control import optimize

optimize.PATIENCE = 3.0
problem = tracking()
evaluate, calls, write = problem.value_and_derivative, [], optimize.write_checkpoint

def failing(weights):
    calls.append(1)
    if len(calls) == 4 and WORLD.rank in {ranks!r}:
        raise LookupError("no more")
    return evaluate(weights)

def slow(*args):
    time.sleep(0.5)
    write(*args)

problem.value_and_derivative, optimize.write_checkpoint = failing, slow
fpc.minimize(problem, checkpoint=Path({folder!r}) / "run.npz", progress=False)
"""


@pytest.mark.parametrize("ranks", [[0], [1], [0, 1]], ids=str)
def test_failing_program_ends_on_all_ranks_and_rank_0_saves(ranks, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(FAILING.format(tests=str(TESTS), folder=str(tmp_path), ranks=ranks))
    assert subprocess.run(mpirun(script), timeout=60.0).returncode != 0
    assert (tmp_path / "run.npz").exists() == (0 in ranks)


@pytest.mark.parametrize("whom", ["one rank", "all ranks"])
def test_interrupted_program_ends_well_on_all_ranks(whom, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(TESTS), folder=str(tmp_path)))
    with subprocess.Popen(mpirun(script)) as program:
        try:
            deadline = time.monotonic() + 60.0
            while not (tmp_path / "run.npz").exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            pids = [int((tmp_path / f"pid{r}").read_text()) for r in range(2)]
            for pid in pids[1:] if whom == "one rank" else pids:
                os.kill(pid, signal.SIGINT)
            assert program.wait(60.0) == 0
        finally:
            program.kill()
    ends = [(tmp_path / f"end{r}").read_text() for r in range(2)]
    assert ends[0] == ends[1]
    assert ends[0].startswith("interrupted ")
    assert ends[0].endswith(" True")
    problem = tracking(SELF, n=6, steps=20)
    value = float.fromhex(ends[0].split()[1])
    resumed = quiet(problem, max_iterations=1, resume=tmp_path / "run.npz")
    assert resumed.value <= value * (1.0 + 1e-9)


def test_iterate_is_plain_numbers():
    # They go into JSON, in checkpoints and in records.
    last = quiet(tracking(SELF), max_iterations=1).history[-1]
    kinds = {type(value) for value in dataclasses.asdict(last).values()}
    assert kinds == {int, float}


# --- memory --------------------------------------------------------------------------------------


def peak(call) -> int:
    """Most memory, in bytes, that a call has taken from NumPy and Python."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("scheme", [fpc.CrankNicolson(), fpc.SDIRK2()], ids=str)
def test_memory_of_figures_of_merit_does_not_grow_with_the_steps(scheme):
    peaks, level = [], 0
    for steps in (20, 120):
        problem = tracking(n=16, steps=steps, scheme=scheme, snapshots=3)
        weights = problem.drift.weights
        result = quiet(problem, max_iterations=1)
        level = 8 * problem.elements.n_local
        calls = {
            "summary": result.summary,
            "record": lambda r=result: fpc.io.record(r),
            "tangent": lambda p=problem, w=weights: p.tangent(w, w),
            "trajectory": lambda p=problem, w=weights: p.trajectory(w),
        }
        peaks.append({name: peak(call) for name, call in calls.items()})
        assert problem.runs._kept.window is None
    growth = {name: (peaks[1][name] - peaks[0][name]) / level for name in peaks[0]}
    # The numbers of 100 steps are fewer than those of 10 levels.
    assert max(growth[name] for name in ("summary", "record", "tangent")) < 10
    assert growth["trajectory"] > 90  # so that this test would see levels that are kept


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("scheme", [fpc.CrankNicolson(), fpc.SDIRK2()], ids=str)
def test_results_are_those_of_levels_in_memory(scheme):
    few, everything = (tracking(scheme=scheme, steps=8, **o) for o in ({"snapshots": 2}, {}))
    weights = few.drift.weights
    result = quiet(few, max_iterations=2)
    expected = everything.trajectory(result.weights)
    found = few.trajectory(result.weights)
    assert np.array_equal(found.levels, expected.levels)
    assert found.iterations == expected.iterations
    assert few.tangent(weights, weights) == everything.tangent(weights, weights)
    for problem in (few, everything, noiseless()):
        w = problem.drift.weights
        mass, minimum = problem.mass_and_minimum(w)
        assert mass == pytest.approx(problem.trajectory(w).mass, rel=1e-14)
        assert np.array_equal(minimum, problem.trajectory(w).minimum)
    assert result.mass_defect == pytest.approx(expected.mass_defect, abs=1e-14)
    assert result.minimum_density == expected.minimum.min()
