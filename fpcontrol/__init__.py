"""Control of the Fokker-Planck equation by networks of limited width, on any bounded domain."""

import os as _os
import sys as _sys

# numpy's BLAS takes every core on every rank, which makes two ranks slower than one.
if "numpy" not in _sys.modules:
    _os.environ.setdefault("OMP_NUM_THREADS", "1")

# dolfinx fails to import unless MPI is imported first.
from mpi4py import MPI as _MPI  # noqa: F401

from fpcontrol import density, drift, mesh
from fpcontrol.control.network import NetworkDrift
from fpcontrol.control.tracking import TrackingProblem
from fpcontrol.fokker_planck import FokkerPlanck, Trajectory
from fpcontrol.reference import MoserFlow
from fpcontrol.timestepping import BackwardEuler, CrankNicolson
