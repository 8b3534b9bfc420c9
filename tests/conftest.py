"""Ranks that pass and fail together.

Under ``mpiexec`` every rank runs its own pytest. A test that fails on one rank only would leave
the others waiting in their next collective call for ever, and rank 0, whose verdict is printed,
might not know. So the ranks meet after every phase of a test.
"""

import time
from pathlib import Path

from mpi4py import MPI

import pytest

from fpcontrol.parallel.errors import abort

# A rank that has failed waits this long (seconds) for the others: they are just behind it or stuck.
PATIENCE = 60.0

# A meeting must not be taken for a collective call of the test that another rank is still in.
meeting = MPI.COMM_WORLD.Dup()


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let rank 0 speak for all."""
    if MPI.COMM_WORLD.rank > 0:
        config.pluginmanager.unregister(name="terminalreporter")


def pytest_report_header() -> str:
    """Name what tells one batch from the next."""
    return f"ranks: {MPI.COMM_WORLD.size}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item):
    """Fail on all ranks what has failed on one."""
    report = yield
    failures = gather_failures(report.longreprtext if report.failed else "", item.nodeid)
    if any(failures) and not report.failed:
        report.outcome = "failed"
        report.longrepr = "\n".join(
            f"On rank {r}:\n{text}" for r, text in enumerate(failures) if text
        )
    return report


def gather_failures(failure: str, nodeid: str) -> list[str]:
    """Return every rank's failure; end the whole run if the others leave a failed rank alone."""
    arrived = meeting.Ibarrier()
    deadline = time.monotonic() + PATIENCE
    while not arrived.Test():
        if failure and time.monotonic() > deadline:
            abort(f"\n{nodeid} failed on rank {MPI.COMM_WORLD.rank}, others are stuck:\n{failure}")
        time.sleep(1e-3)  # leaves the core to ranks that still work
    return meeting.allgather(failure)


@pytest.fixture
def tmp_path(tmp_path: Path) -> Path:
    """One directory for all ranks."""
    return MPI.COMM_WORLD.bcast(tmp_path)
