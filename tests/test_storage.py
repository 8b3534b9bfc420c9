"""What is kept for the reverse sweep changes its cost, and nothing else."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from problems import WORLD, noiseless, quiet, tracking

import fpcontrol as fpc
from fpcontrol.control import storage
from fpcontrol.control import sweeps as adjoint
from fpcontrol.linalg.buffers import BufferCache
from fpcontrol.linalg.linear_solvers import LinearSolver


def problem(**options: Any) -> fpc.TrackingProblem:
    return tracking(n=6, steps=12, pieces=3, terminal_weight=0.3, **options)


def budgets(options: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Options for each way of storing, from what everything takes."""
    s = problem(**options).runs.storage
    levels, operator = s.level_memory, s.operator_memory / s.operators
    return {
        "everything": {},
        "levels, two operators": {"memory": s.work_memory + levels + 2.5 * operator},
        "levels": {"memory": s.work_memory + levels + 1.01 * operator},
        "snapshots": {"memory": s.work_memory + 0.7 * levels + operator},
    }


@pytest.mark.parallel([1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [{}, {"linear_solver": "direct"}, {"scheme": fpc.SDIRK2()}, {"sigma": lambda t: 1.0 - 0.3 * t}],
    ids=["gmres", "direct", "two stages", "schedule"],
)
def test_derivative_is_the_same_however_it_is_stored(options, tmp_path):
    ways = budgets(options)
    ways["disk"] = ways["snapshots"] | {"disk": tmp_path}
    found = {name: problem(**options, **more) for name, more in ways.items()}
    chosen = {name: p.runs.storage for name, p in found.items()}
    assert [s.levels for s in chosen.values()] == ["memory"] * 3 + ["recomputed", "disk"]
    assert chosen["everything"].operators == (3 if not callable(options.get("sigma")) else 12)
    assert [chosen[k].operators for k in ("levels, two operators", "levels")] == [2, 1]
    weights = found["everything"].drift.weights
    value, expected = found["everything"].value_and_derivative(weights)
    for p in found.values():
        assert p(weights) == pytest.approx(value, rel=1e-13)
        difference = p.derivative(weights) - expected
        assert np.abs(difference).max() <= 1e-12 * np.abs(expected).max()
        again = p.derivative(1.1 * weights)
        assert np.abs(again - expected).max() > 1e-3 * np.abs(expected).max()
        assert p.derivative(weights) == pytest.approx(expected, rel=1e-11, abs=1e-13)
    assert not list(tmp_path.iterdir())


@pytest.mark.parallel([1, 2])
def test_kept_operators_are_not_made_again():
    full, lean = problem(), problem(**budgets({})["levels"])
    for p, expected in ((full, 3), (lean, 3 + 2)):
        operators = p.runs.sweeps.stepper.operators
        before = operators.made
        p.value_and_derivative(p.drift.weights)
        assert operators.made - before == expected


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("scheme", [fpc.CrankNicolson(), fpc.SDIRK2(), fpc.SDIRK4()], ids=repr)
def test_stages_are_not_solved_for_again(scheme):
    p = problem(scheme=scheme)
    assert p.runs.storage.levels == "memory"
    solver, solves = p.runs.sweeps.stepper.solver, 12 * len(scheme.b)
    p(p.drift.weights)
    assert solver.solves == solves
    p.derivative(p.drift.weights)
    assert solver.solves == 2 * solves


@pytest.mark.parallel([1, 2])
def test_resident_part_of_levels_on_disk_is_given_back(tmp_path, monkeypatch):
    p = problem(memory=0.7 * problem().runs.storage.level_memory, disk=tmp_path)
    expected = p.derivative(p.drift.weights)
    returned = []
    monkeypatch.setattr(storage, "WINDOW", 1)
    p = problem(memory=p.runs.storage.budget, disk=tmp_path)
    give_back = adjoint.give_back
    monkeypatch.setattr(adjoint, "give_back", lambda w: (returned.append(1), give_back(w)))
    p.derivative(0.5 * p.drift.weights)
    assert p.derivative(p.drift.weights) == pytest.approx(expected, rel=1e-14)
    assert len(returned) > 12


@pytest.mark.parallel([1, 2])
def test_choice_is_said_before_the_run(capfd):
    p = problem()
    fpc.minimize(p, max_iterations=1)
    said = capfd.readouterr().err
    assert ("levels: all in memory" in said) == (WORLD.rank == 0)
    assert p.runs.settings()["levels"] == "memory"
    assert "snapshots, the others recomputed" in str(problem(snapshots=2).runs.storage)


def test_room_of_the_oldest_is_used_again():
    rooms: list[list[str]] = []

    def make() -> list[str]:
        rooms.append([])
        return rooms[-1]

    recent = BufferCache(make)
    assert recent.keep(2) == []
    filled: list[str] = []

    def of(key: str) -> list[str]:
        return recent(key, lambda room: (filled.append(key), room.append(key))[0])

    a = of("a")
    of("b")
    assert of("a") is a
    assert filled == ["a", "b"]
    assert of("c") is rooms[1]  # takes the room of b
    of("a")
    assert filled == ["a", "b", "c"]
    of("b")
    assert filled == ["a", "b", "c", "b"]
    assert len(rooms) == 2
    assert recent.keep(1) == [rooms[0]]
    assert of("b") is rooms[1]
    assert of("a") is rooms[1]
    assert len(filled) == 5


def test_interrupted_filling_leaves_no_operator_behind():
    p, fresh = (tracking(steps=4, pieces=2) for _ in range(2))
    weights, network = p.drift.weights, p.drift.network
    p(weights)
    right, calls = network.values, []

    def interrupted(theta, y):
        calls.append(theta)
        if len(calls) == 2:  # in the second piece
            raise KeyboardInterrupt
        return right(theta, y)

    object.__setattr__(network, "values", interrupted)
    with pytest.raises(KeyboardInterrupt):
        p(2.0 * weights)
    object.__delattr__(network, "values")
    for theta in (2.0 * weights, weights):
        assert p(theta) == pytest.approx(fresh(theta), rel=1e-12)


@pytest.mark.parametrize("where", ["constant part", "preconditioner"])
def test_interrupt_at_a_bad_moment_leaves_nothing_half_done(where, monkeypatch):
    options = {"n": 6, "steps": 4, "pieces": 2, "sigma": lambda t: 1.0 - 0.3 * t}
    full = tracking(**options)
    s = full.runs.storage
    lean = s.work_memory + s.level_memory + 1.01 * s.operator_memory / s.operators
    room = {"constant part": lean, "preconditioner": 2.0}[where]
    p = tracking(**options, memory=room)
    weights = p.drift.weights
    interrupts = [1]

    def once(function):
        def call(*arguments, **more):
            result = function(*arguments, **more)
            if interrupts:
                interrupts.clear()
                raise KeyboardInterrupt
            return result

        return call

    if where == "constant part":
        p(weights)
        monkeypatch.setattr(np, "multiply", once(np.multiply))
    else:
        monkeypatch.setattr(LinearSolver, "_configure", once(LinearSolver._configure))
    with pytest.raises(KeyboardInterrupt):
        p.value_and_derivative(weights)
    value, derivative = full.value_and_derivative(weights)
    assert p(weights) == pytest.approx(value, rel=1e-11)
    difference = p.derivative(weights) - derivative
    assert np.abs(difference).max() <= 1e-9 * np.abs(derivative).max()


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
