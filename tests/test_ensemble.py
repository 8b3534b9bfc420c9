"""Cases side by side on groups of ranks: the same results, and no group stands in another's way."""

import os
import signal
import subprocess
import time
from pathlib import Path

from mpi4py import MPI

import numpy as np
import pytest
from petsc4py import PETSc
from problems import PROGRAM, WORLD, mpirun, raised, tracking

import fpcontrol as fpc
from fpcontrol.ensemble import EnsembleError, run
from fpcontrol.parallel import communicators as parallel

TESTS = Path(__file__).parent


def quiet(member, cases, **options):
    return run(member, cases, progress=False, **options)


def sizes(case, comm):
    return comm.size


# -- who runs what ---------------------------------------------------------------------------------


@pytest.mark.parallel([1, 2, 3])
def test_results_are_in_order_on_all_ranks():
    for groups in range(1, WORLD.size + 1):
        found = quiet(lambda case, comm: (case**2, np.arange(case)), range(7), groups=groups)
        assert [f[0] for f in found] == [k**2 for k in range(7)]
        assert all(f[1].tolist() == list(range(k)) for k, f in enumerate(found))


@pytest.mark.parallel(3)
def test_groups_differ_by_one_rank_at_most():
    # As long as each is on its case, every group takes one of the two.
    def member(case, comm):
        arrived.Ibarrier().Wait()
        return comm.size, comm.allreduce(WORLD.rank)

    arrived = WORLD.Dup()
    assert sorted(quiet(member, "ab", groups=2)) == [(1, 2), (2, 1)]
    arrived.Free()
    assert quiet(sizes, "abcd", groups=1) == [3] * 4
    assert quiet(sizes, "abcd") == [1] * 4
    assert sorted(set(quiet(sizes, "ab"))) in ([1], [2], [1, 2])  # no more groups than cases
    assert quiet(sizes, "a") == [3]


@pytest.mark.parallel([2, 3])
def test_who_is_done_takes_the_next_case(tmp_path):
    # Rank 0 computes, without a call to MPI, until the others have taken all other cases.
    def member(case, comm):
        (tmp_path / str(case)).touch()
        end = time.monotonic() + PROGRAM
        while WORLD.rank == 0 and len(list(tmp_path.iterdir())) < 12:
            assert time.monotonic() < end, "nobody else gets a case"
        return WORLD.rank

    found = quiet(member, range(12))
    assert found.count(0) <= 1, found


@pytest.mark.parallel([1, 2])
def test_progress_is_of_cases_and_of_nothing_within(monkeypatch, capfd):
    monkeypatch.setattr("fpcontrol.parallel.progress.LOG_SECONDS", 0.0)

    def member(case, comm):
        return fpc.minimize(tracking(comm, 1, n=4), max_iterations=2).value

    run(member, range(3), groups=1)
    said = capfd.readouterr().err
    assert ("cases 3/3" in said) == (WORLD.rank == 0)
    assert "minimize" not in said
    run(member, range(3), groups=1, progress=False)
    assert "cases" not in capfd.readouterr().err
    member(0, WORLD)  # outside all is as before
    assert ("minimize" in capfd.readouterr().err) == (WORLD.rank == 0)


@pytest.mark.parallel(3)
def test_ensemble_within_a_group():
    def member(case, comm):
        return quiet(lambda inner, c: 10 * case + inner, range(3), comm=comm)

    found = quiet(member, range(4), groups=2)
    assert found == [[10 * k + j for j in range(3)] for k in range(4)]


# -- all that the package does, on groups that do different things ---------------------------------


def everything(folder):
    """A member that solves, tracks, minimizes, resumes, draws and writes; it returns figures."""

    def member(case, comm):
        dim, degree, sigma = case
        name = folder / f"{dim}-{degree}-{sigma:g}"
        problem = tracking(comm, dim, degree, 4, sigma=sigma, activation="tanh")
        first = fpc.minimize(
            problem,
            method="lmvm",
            max_iterations=1,
            checkpoint=f"{name}.npz",
            checkpoint_every=1,
        )
        result = fpc.minimize(problem, method="lmvm", max_iterations=1, resume=f"{name}.npz")
        value, derivative = problem.value_and_derivative(problem.drift.weights)
        if dim == 1 and sigma:
            fpc.plotting.tracking(result, f"{name}.png")
        if sigma:
            fpc.io.write(result.trajectory, f"{name}.bp", reference=problem.reference)
        fpc.io.write_record(result, f"{name}.json")
        uncontrolled = problem.errors(0.0 * problem.drift.weights)
        return value, derivative, first.value, uncontrolled.relative_error

    return member


CASES = [(1, 2, 0.8), (2, 1, 0.5), (1, 1, 0.0), (1, 3, 0.5), (3, 1, 0.8)]


@pytest.mark.parallel([1, 2, 3])
def test_results_are_those_of_one_group(tmp_path):
    collective_errors = quiet(everything(tmp_path), CASES, groups=1)
    for groups in range(2, WORLD.size + 1):
        apart = quiet(everything(tmp_path), CASES, groups=groups)
        for one, other in zip(collective_errors, apart, strict=True):
            for a, b in zip(one, other, strict=True):
                assert np.allclose(a, b, rtol=1e-9, atol=1e-12)
    if WORLD.size == 1:  # and those without an ensemble
        apart = [everything(tmp_path)(case, WORLD) for case in CASES]
        for one, other in zip(collective_errors, apart, strict=True):
            for a, b in zip(one, other, strict=True):
                assert np.allclose(a, b, rtol=1e-12, atol=1e-15)
    names = [f"{dim}-{degree}-{sigma:g}" for dim, degree, sigma in CASES]
    assert all((tmp_path / f"{name}.json").is_file() for name in names)
    assert all((tmp_path / f"{n}.bp").is_dir() for n in names if not n.endswith("-0"))
    assert len(list(tmp_path.glob("*.png"))) == 2
    assert not list(tmp_path.glob(".*"))


# MPICH has 2 000 communicators or so.


@pytest.mark.parallel(3)
def test_what_is_dropped_in_a_group_holds_no_communicator():
    # A mesh has a communicator of its own: objects of PETSc on it would keep it for ever.
    def member(case, comm):
        all_here.Ibarrier().Wait()  # so that the group of two takes one of the cases
        for _ in range(2200 if comm.size == 2 else 0):
            own = comm.Dup()
            PETSc.Vec().createMPI((1, comm.size), comm=parallel.cached_comm(own))
            own.Free()
        return comm.size

    all_here = WORLD.Dup()
    assert sorted(quiet(member, range(2), groups=2)) == [1, 2]
    all_here.Free()


@pytest.mark.parallel([1, 2])
def test_runs_give_their_communicators_back():
    for _ in range(550):  # of four each
        quiet(sizes, range(1))


@pytest.mark.parallel([1, 2, 3])
def test_lasting_communicator_is_one_for_the_same_ranks():
    half = WORLD.Split(WORLD.rank // 2, WORLD.rank)
    again = half.Dup()
    one, other = parallel.cached_comm(half), parallel.cached_comm(again)
    half.Free()
    again.Free()
    assert MPI.Comm.Compare(one, other) == MPI.IDENT
    assert one.allreduce(1) == one.size  # still there
    assert parallel.cached_comm(WORLD.Dup()) == WORLD
    back = WORLD.Split(0, -WORLD.rank)
    if WORLD.size > 1:  # the same ranks in another order
        assert parallel.cached_comm(back) != WORLD
    back.Free()


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parallel([1, 2, 3])
def test_one_error_ends_nothing_else():
    def member(case, comm):
        if case == "bad":
            raise ValueError("sigma = -1 must be positive.")
        return case

    for groups in range(1, WORLD.size + 1):
        error = None
        try:
            quiet(member, ["a", "bad", "b", "bad", "c"], groups=groups)
        except EnsembleError as caught:
            error = caught
        assert error is not None
        assert str(error).startswith(
            "2 of 5 cases failed; case 1 raised ValueError: sigma = -1 must be positive."
        )
        assert [type(e) for e in error.exceptions] == [ValueError] * 2
        assert error.results[::2] == ["a", "b", "c"]
        assert error.results[1] is error.exceptions[0]
        notes = "\n".join(error.exceptions[1].__notes__)
        assert "(case 3 = 'bad')" in notes
        assert "in member" in notes  # its traceback


@pytest.mark.parallel([2, 3])
def test_error_on_one_rank_without_a_call_left():
    def member(case, comm):
        if comm.rank == 1 and case == 1:
            raise ArithmeticError("by chance")

    message = raised(EnsembleError, lambda: quiet(member, range(3), groups=1))
    assert "1 of 3 cases failed; case 1 raised ArithmeticError: by chance" in message
    try:
        quiet(member, range(3), groups=1)
    except EnsembleError as caught:
        assert "on rank 1 of its group, not on all" in caught.exceptions[0].__notes__[-1]


class Unpicklable(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


@pytest.mark.parallel([1, 2])
def test_what_cannot_be_pickled_is_said():
    message = raised(EnsembleError, lambda: quiet(lambda c, comm: lambda: c, [1]))
    assert "TypeError: member returned" in message
    assert "cannot be pickled" in message

    def member(case, comm):
        raise Unpicklable(1, 2)

    message = raised(EnsembleError, lambda: quiet(member, [1, 2]))
    assert "Unpicklable: 1 and 2" in message


@pytest.mark.parallel([1, 2, 3])
def test_bad_arguments():
    def message(**options):
        return raised(ValueError, lambda: quiet(sizes, range(3), **options))

    assert f"groups = {WORLD.size + 1} must be from 1 to the number of ranks" in message(
        groups=WORLD.size + 1
    )
    assert "groups = 0 must be from 1" in message(groups=0)
    assert "groups = 1.5 must be a whole number" in message(groups=1.5)
    assert "groups = True must be" in message(groups=True)
    assert "cases = [] has nothing to run" in raised(ValueError, lambda: quiet(sizes, []))


@pytest.mark.parallel([2, 3])
def test_ranks_that_say_different_things():
    message = raised(ValueError, lambda: quiet(sizes, range(3 + WORLD.rank)))
    assert "must be the same on all ranks" in message

    def cases():
        if WORLD.rank == 1:
            raise OSError("no such table")
        yield 1

    assert "no such table" in raised(OSError, lambda: quiet(sizes, cases()))


# The group of one rank works on until the run ends: it might take all cases before the others come.
HANGS = """
import time
from mpi4py import MPI
import fpcontrol as fpc
def member(case, comm):
    while comm.size == 1:
        time.sleep(0.1)
    if comm.rank == 1:
        raise ValueError("alone")
    comm.barrier()
    return case
fpc.ensemble.run(member, range(6), groups=2, patience=0.5)
"""


@pytest.mark.parallel(1)
def test_group_that_hangs_ends_the_run(tmp_path):
    (tmp_path / "script.py").write_text(HANGS)
    done = subprocess.run(
        mpirun(tmp_path / "script.py", 3), capture_output=True, text=True, timeout=PROGRAM
    )
    assert done.returncode != 0
    assert "raised on rank 1 of its group, others are stuck" in done.stderr
    assert done.stderr.startswith("cases 0/6\ncase ")
    assert "ValueError: alone" in done.stderr


STOPPED = """
import os, sys, time
from pathlib import Path
sys.path.insert(0, {tests!r})
from mpi4py import MPI
from problems import WORLD, tracking
import fpcontrol as fpc
folder = Path({folder!r})
(folder / f"pid{{WORLD.rank}}").write_text(str(os.getpid()))
def member(case, comm):
    result = fpc.minimize(
        tracking(comm, n=6, steps=20),
        max_iterations=10**6,
        gradient_tolerance=0.0,
        checkpoint=folder / f"{{case}}.npz",
        checkpoint_every=1,
    )
    return result.reason
try:
    fpc.ensemble.run(member, range(5), progress=False)
except fpc.ensemble.EnsembleInterrupt as stopped:
    (folder / f"end{{WORLD.rank}}").write_text(repr(stopped.results))
"""


@pytest.mark.parallel(1)
@pytest.mark.parametrize("ranks", [1, 2])
def test_interrupt_ends_what_runs_and_hands_out_no_more(ranks, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(STOPPED.format(tests=str(TESTS), folder=str(tmp_path)))
    # What an optimization that is under way has written.
    began = [tmp_path / f"{i}.npz" for i in range(ranks)]
    with subprocess.Popen(mpirun(script, ranks)) as program:
        try:
            deadline = time.monotonic() + PROGRAM
            while not all(f.exists() for f in began) and time.monotonic() < deadline:
                time.sleep(0.05)
            for rank in range(ranks):
                os.kill(int((tmp_path / f"pid{rank}").read_text()), signal.SIGINT)
            assert program.wait(PROGRAM) == 0
        finally:
            program.kill()
    expected = repr(["interrupted"] * ranks + [None] * (5 - ranks))
    assert [(tmp_path / f"end{r}").read_text() for r in range(ranks)] == [expected] * ranks
    assert not (tmp_path / f"{ranks}.npz").exists()
