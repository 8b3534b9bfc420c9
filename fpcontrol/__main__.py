"""``python -m fpcontrol``, and on ranks ``mpirun -n N python -m mpi4py -m fpcontrol``."""

import os
import sys

from mpi4py import MPI

from fpcontrol.cli import main

if __name__ == "__main__":
    code = main()
    if code and MPI.COMM_WORLD.size > 1:
        # `python -m mpi4py` takes an exit code for a crash: it would abort all ranks, and say so.
        sys.stdout.flush()
        sys.stderr.flush()
        MPI.Finalize()
        os._exit(code)
    sys.exit(code)
