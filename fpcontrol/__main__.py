"""``python -m fpcontrol``, and on ranks ``mpirun -n N python -m mpi4py -m fpcontrol``."""

import sys

from fpcontrol.cli import main

if __name__ == "__main__":
    sys.exit(main())
