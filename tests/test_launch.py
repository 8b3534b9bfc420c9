"""A program on ranks: its first words, its answer to Ctrl-C, its errors once."""

import importlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from mpi4py import MPI

import pytest
from problems import PROGRAM, WORLD, mpirun

import fpcontrol as fpc
from fpcontrol.parallel import launch as launching
from fpcontrol.parallel.launch import launch
from fpcontrol.parallel.progress import Progress
from fpcontrol.parallel.signals import interrupts


def launched(
    main: Callable[[], object],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> tuple[int, str]:
    """Exit code, the same on all ranks, and what all of them have printed on stderr."""
    monkeypatch.setattr(launching, "leave", sys.exit)  # the test's own process is to go on
    code: object = 0
    try:
        launch(main, patience=20.0)
    except SystemExit as leaving:
        code = leaving.code
    assert WORLD.allgather(code) == [code] * WORLD.size
    assert isinstance(code, int)
    return code, "".join(WORLD.allgather(capsys.readouterr().err))


@pytest.mark.parallel([1, 2, 3])
def test_error_of_all_ranks_is_printed_once(monkeypatch, capsys):
    code, text = launched(lambda: fpc.mesh.interval(WORLD, 0), monkeypatch, capsys)
    assert code == 1
    assert text.startswith("Traceback")
    assert text.count("Traceback") == text.count("\nValueError: n must be") == 1
    assert "parallel/launch.py" not in text


@pytest.mark.parallel([2, 3])
def test_error_of_the_last_rank_is_named(monkeypatch, capsys):
    last = WORLD.size - 1
    code, text = launched(lambda: WORLD.rank < last or 1 / 0, monkeypatch, capsys)
    assert code == 1
    assert text.startswith(f"On rank {last}:\nTraceback")
    assert text.count("ZeroDivisionError") == 1


@pytest.mark.parallel([2, 3])
def test_different_errors_are_all_named(monkeypatch, capsys):
    def main() -> None:
        raise ValueError(f"rank {WORLD.rank} says so")

    code, text = launched(main, monkeypatch, capsys)
    assert code == 1
    assert text.count("Traceback") == 1
    for rank in range(WORLD.size):
        assert f"ValueError: rank {rank} says so" in text


@pytest.mark.parallel([1, 2])
def test_programs_leave_with_their_own_code_and_words(monkeypatch, capsys):
    def stopped() -> None:
        raise KeyboardInterrupt

    for main, expected in (
        (lambda: None, (0, "")),
        (lambda: sys.exit(3), (3, "")),
        (lambda: sys.exit("no such island"), (1, "no such island\n")),
        (stopped, (130, "stopped by Ctrl-C\n")),
    ):
        assert launched(main, monkeypatch, capsys) == expected


def test_error_of_one_rank_ends_those_that_wait_for_it(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        "from mpi4py import MPI\n"
        "from fpcontrol.parallel.launch import launch\n"
        "world = MPI.COMM_WORLD\n"
        "launch(lambda: (world.rank or 1 / 0, world.barrier()), patience=1.0)\n"
    )
    done = subprocess.run(mpirun(script), capture_output=True, text=True, timeout=PROGRAM)
    assert done.returncode != 0
    assert done.stderr.count("Traceback") == 1
    assert "On rank 0 alone" in done.stderr
    assert "ZeroDivisionError" in done.stderr


def test_ranks_end_with_the_code_and_nothing_else_is_said(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        "import sys\n"
        "from fpcontrol.parallel.launch import launch\n"
        "launch(lambda: (print('done'), sys.exit(3)))\n"
    )
    done = subprocess.run(mpirun(script), capture_output=True, text=True, timeout=PROGRAM)
    assert (done.returncode, done.stdout.count("done"), done.stderr) == (3, 2, "")


@pytest.mark.parallel(1)
def test_mesh_that_goes_while_an_error_passes_keeps_no_other_from_going(tmp_path: Path) -> None:
    script = tmp_path / "gone.py"
    script.write_text(
        "import gc\n"
        "from mpi4py import MPI\n"
        "import fpcontrol as fpc\n"
        "def used():\n"
        "    mesh = fpc.mesh.rectangle(MPI.COMM_WORLD, (4, 4))\n"
        "    fpc.density.from_points(mesh, [[0.5, 0.5]], bandwidth=0.3)\n"
        "    gc.collect()\n"
        "    return mesh\n"
        "try:\n"
        "    [used(), 1 / 0]\n"
        "except ZeroDivisionError:\n"
        "    pass\n"
        "used()\n"
        "print('gone')\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=PROGRAM
    )
    assert done.stdout == "gone\n" and "SystemError" not in done.stderr


@pytest.mark.parallel([1, 2])
def test_interrupt_is_answered_before_it_is_looked_at(capfd):
    usual = signal.getsignal(signal.SIGINT)
    with interrupts() as outer, interrupts() as inner:
        os.kill(os.getpid(), signal.SIGINT)
        text = "".join(WORLD.allgather(capfd.readouterr().err))
        assert text == "\nCtrl-C: stopping after this step; again to abort.\n"
        assert inner == outer == [signal.SIGINT]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
            signal.sigtimedwait([], 1.0)  # until the signal arrives
    assert signal.getsignal(signal.SIGINT) is usual


def test_log_has_a_line_before_the_first_step(capfd):
    Progress("forward", 7, MPI.COMM_SELF)
    assert capfd.readouterr().err == "forward 0/7\n"
    Progress("forward", 7, MPI.COMM_SELF, shown=False)
    assert capfd.readouterr().err == ""


def test_compilation_is_announced_once_and_counts_for_no_budget(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        "import os\n"
        "import time\n"
        "from mpi4py import MPI\n"
        "import numpy as np\n"
        # each rank compiles: from a folder of both, one might load what the other has just compiled
        "os.environ['NUMBA_CACHE_DIR'] += str(MPI.COMM_WORLD.rank)\n"
        "from fpcontrol.discretization import kernels\n"
        "from fpcontrol.parallel.progress import clock\n"
        "x = np.ones(3)\n"
        "kernels.blend(1.0, x, 2.0, x, np.empty(3))\n"
        "begun, budgeted = time.monotonic(), clock()\n"
        "kernels.projected(x, 2.0, x, 0.0, np.empty(3))\n"
        "assert clock() - budgeted < 0.5 * (time.monotonic() - begun)\n"
        "begun, budgeted = time.monotonic(), clock()\n"
        "time.sleep(0.1)\n"
        "assert 0.1 - 1e-6 <= clock() - budgeted <= time.monotonic() - begun + 1e-6\n"
    )
    done = subprocess.run(
        mpirun(script),
        capture_output=True,
        text=True,
        timeout=PROGRAM,
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path / "cache")},
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("compiling loops") == 1


def test_version_is_that_of_the_installation(monkeypatch):
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", lambda name: f"1.2 of {name}")
    try:
        assert importlib.reload(fpc).__version__ == "1.2 of fpcontrol"
        monkeypatch.setattr(metadata, "version", missing)
        assert importlib.reload(fpc).__version__ == "unknown"
    finally:
        monkeypatch.undo()
        importlib.reload(fpc)


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
    done = subprocess.run(mpirun(script), capture_output=True, timeout=PROGRAM)
    # Not by its last words: the launcher drops what it has not read when it ends the ranks.
    assert done.returncode != 0
    assert (tmp_path / "failed").exists()


def test_ranks_are_real():
    # The tests above mean nothing if a launcher starts two programs of one rank each.
    # In one piece: print may write the number and the end of the line apart, between another's.
    code = "import os; from mpi4py import MPI; os.write(1, b'%d\\n' % MPI.COMM_WORLD.size)"
    command = [*mpirun(Path("-"))[:-2], "mpi4py", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM)
    assert done.stdout.split() == ["2", "2"]
