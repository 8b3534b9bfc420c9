"""Members of an ensemble that use another communicator than their group's."""

import time

from mpi4py.util import pkl5

import dolfinx.mesh
import numpy as np
import pytest
from problems import WORLD, raised

import fpcontrol as fpc
from fpcontrol.ensemble import EnsembleError, run
from fpcontrol.parallel.attempt import attempt


def solved(mesh):
    equation = fpc.FokkerPlanck(mesh, lambda t, x: -x, 1.0)
    return equation.solve(fpc.density.uniform(mesh), 1.0, 4).mass[-1]


MISTAKES = {
    "a mesh": lambda comm: solved(fpc.mesh.interval(WORLD, 10)),
    "by keyword": lambda comm: solved(fpc.mesh.rectangle(comm=WORLD, n=(2, 2))),
    "dolfinx": lambda comm: solved(dolfinx.mesh.create_unit_interval(WORLD, 10)),
    "barrier": lambda comm: WORLD.barrier(),
    "upper case": lambda comm: WORLD.Allreduce(np.ones(1), np.ones(1)),
    "bound": lambda comm: [f() for f in (WORLD.barrier,)],
    "a copy": lambda comm: WORLD.Dup(),
    "an ensemble": lambda comm: run(lambda case, comm: case, [1], progress=False),
}


@pytest.mark.parallel([2, 3])
@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
@pytest.mark.parametrize("cases", [1, 2, 5])
def test_a_call_on_the_world_is_an_error_of_its_case(mistake, cases):
    wrong = cases // 2

    def member(case, comm):
        return mistake(comm) if case == wrong else case

    message = raised(
        EnsembleError, lambda: run(member, range(cases), progress=False, patience=5.0, groups=2)
    )
    assert f"1 of {cases} cases failed; case {wrong} raised RuntimeError: " in message
    assert f"was called on MPI.COMM_WORLD, of {WORLD.size} ranks, from within a member" in message
    assert "member(case, comm)" in message


@pytest.mark.parallel([2, 3])
def test_what_does_not_wait_for_others_is_allowed():
    def member(case, comm):
        assert WORLD.Get_rank() == WORLD.rank < WORLD.Get_size()
        assert isinstance(WORLD, pkl5.MPI.Comm)
        return comm.allreduce(1)

    assert set(run(member, range(4), progress=False)) == {1}
    # One group of all ranks: its communicator has the ranks of the world, and nothing hangs.
    everyone = run(lambda case, comm: WORLD.allreduce(case), range(3), groups=1, progress=False)
    assert everyone == [0, WORLD.size, 2 * WORLD.size]


@pytest.mark.parallel([2, 3])
def test_calls_are_watched_in_members_only():
    run(lambda case, comm: case, range(3), progress=False)
    assert WORLD.allreduce(1) == WORLD.size


@pytest.mark.parallel([2, 3])
def test_a_group_that_waits_long_says_so_once(capfd):
    def member(case, comm):
        time.sleep(1.0)
        return case

    run(member, [0], groups=WORLD.size, progress=False, patience=0.3)
    said = WORLD.allreduce(capfd.readouterr().err.count("0 of 1 cases are done"))
    assert said == 1


@pytest.mark.parallel([1, 2, 3])
def test_attempt_tells_all_ranks_where_a_call_raised():
    meeting = WORLD.Dup()

    def call():
        if WORLD.rank == WORLD.size - 1:
            raise OSError("disk full")
        return WORLD.rank

    outcome = attempt(call, meeting, 5.0, f"writing raised on rank {WORLD.rank}")
    assert outcome.failed == [WORLD.size - 1]
    assert "OSError: disk full" in outcome.told[-1]
    if outcome.error is None:
        assert outcome.value == WORLD.rank
    meeting.Free()
