"""Which levels a run keeps, and the run that is taken level by level."""

import tracemalloc

import numpy as np
import pytest
from problems import WORLD, bump, cube, raised

import fpcontrol as fpc


def equation(n: int = 6) -> fpc.FokkerPlanck:
    return fpc.FokkerPlanck(cube(WORLD, 2, n), lambda t, x: np.sin(3.0 * x + t), 0.7)


def start(e: fpc.FokkerPlanck):
    return bump(e.mesh, 2, 0.3)


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(
    ("save", "kept"),
    [
        ("all", range(11)),
        ("last", [10]),
        (1, range(11)),
        (4, [0, 4, 8, 10]),
        (5, [0, 5, 10]),
        (100, [0, 10]),
        ([1.3, 0.66], [2, 10]),
        ((0.5 + 0.08 * 3 + 1e-12,), [3]),
    ],
)
def test_levels_kept_are_those_of_the_whole_run(save, kept):
    e = equation()
    everything = e.solve(start(e), 1.3, 10, t0=0.5)
    some = e.solve(start(e), 1.3, 10, t0=0.5, save=save)
    assert np.array_equal(some.levels, everything.levels[list(kept)])
    assert np.array_equal(some.times, everything.times[list(kept)])
    assert len(some) == len(list(some)) == len(kept)
    assert np.array_equal(some[-1].x.array, everything.levels[list(kept)[-1]])
    # Of the figures all levels are known in any case.
    for figure in ("all_times", "mass", "minimum", "mass_defect", "iterations"):
        assert np.array_equal(getattr(some, figure), getattr(everything, figure))


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize(
    ("save", "said"),
    [
        ([0.0, 0.33], "t = 0.33 is no time level of 10 steps from 0 to 1; the nearest is 0.3."),
        ([2.0], "the nearest is 1."),
        ([], "list of times"),
        ([[0.0], [1.0]], "list of times"),
        ([np.nan], "list of times"),
        ("first", "choose"),
        (0, "positive"),
        (True, "list of times"),
        (None, "list of times"),
        (["0.5"], "list of times"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_the_run(save, said):
    e = equation(2)
    assert said in raised(ValueError, lambda: e.solve(start(e), 1.0, 10, save=save))


@pytest.mark.parallel([1, 2])
def test_march_yields_the_levels_of_solve():
    e = equation()
    run = e.solve(start(e), 1.3, 10, t0=0.5, scheme=fpc.SDIRK2())
    seen = list(e.march(start(e), 1.3, 10, t0=0.5, scheme=fpc.SDIRK2()))
    assert np.array_equal([t for t, _ in seen], run.times)
    for (_, density), level in zip(seen, run.levels, strict=True):
        assert np.array_equal(density.x.array, level)
    first, second = seen[0][1], seen[1][1]
    first.x.array[:] = 0.0  # each is the caller's own
    assert np.array_equal(second.x.array, run.levels[1])


@pytest.mark.parallel([1, 2])
def test_march_can_be_left_and_checks_its_arguments_at_once():
    e = equation(2)
    for t, density in e.march(start(e), 1.0, 1000):
        if density.x.array.size >= 0 and t > 0.0015:
            break
    assert t == pytest.approx(0.002)
    assert "steps" in raised(ValueError, lambda: e.march(start(e), 1.0, 0))


@pytest.mark.parallel([1, 2])
@pytest.mark.parametrize("save", ["all", "last", 3, [0.0, 0.4]])
def test_tolerance_holds_at_the_levels_kept(save):
    e = equation(4)
    run = e.solve(start(e), 0.4, 2, tolerance=2e-3, save=save)
    fine = e.solve(start(e), 0.4, 4 * (len(run.all_times) - 1))
    assert 0.0 < run.time_error <= 2e-3
    assert len(run.mass) == len(run.all_times) > len(run) - (save == "all")
    zero = fine[0]
    zero.x.array[:] = 0.0
    gap = max(
        fpc.distances.l2(rho, fine[4 * int(np.argmin(np.abs(run.all_times - t)))])
        for t, rho in zip(run.times, run, strict=True)
    )
    assert gap <= 4e-3 * fpc.distances.l2(fine[0], zero)


@pytest.mark.parallel(1)
def test_memory_is_that_of_the_levels_kept():
    e = equation(20)
    rho = start(e)

    def peak(run) -> float:
        """In levels, beyond what one step takes."""
        tracemalloc.start()
        kept = run()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        del kept
        return most / rho.x.array.nbytes

    def march():
        for _ in e.march(rho, 1.0, 100):
            pass

    e.solve(rho, 1.0, 2)
    little = peak(lambda: e.solve(rho, 1.0, 4, save="last"))
    assert peak(lambda: e.solve(rho, 1.0, 100, save="last")) < little + 3
    assert peak(march) < little + 3
    assert peak(lambda: e.solve(rho, 1.0, 100, save=10)) < little + 14
    assert peak(lambda: e.solve(rho, 1.0, 100)) > little + 90  # so that this test sees levels


@pytest.mark.parallel(2)
def test_trajectory_is_plain_data():
    e = equation(3)
    run = e.solve(start(e), 1.0, 6, save=2)
    said = ""
    if WORLD.rank == 0:  # alone: nothing that is read or printed may wait for the other rank
        said = repr(run)
        public = {name: getattr(run, name) for name in dir(run) if not name.startswith("_")}
        assert {"times", "levels", "mass", "minimum", "mass_defect"} <= set(public)
        assert run[2].x.array.shape == next(iter(run)).x.array.shape
    assert WORLD.bcast(said) == (
        f"Trajectory: 4 of 7 levels, t = 0 ... 1, 49 unknowns, mass 1, "
        f"minimum {run.minimum.min():.3g}, cell Peclet number {run.cell_peclet}"
    )
    assert len(said) == 0 or "\n" not in said
