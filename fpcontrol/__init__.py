"""Control of the Fokker-Planck equation by networks of limited width, on any bounded domain."""

import atexit as _atexit
import importlib as _importlib
import os as _os
import sys as _sys
from importlib import metadata as _metadata
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

# numpy's BLAS takes every core on every rank, which makes two ranks slower than one.
if "numpy" not in _sys.modules:
    _os.environ.setdefault("OMP_NUM_THREADS", "1")

# petsc4py and dolfinx fail to import unless MPI is imported first.
from mpi4py import MPI as _MPI  # noqa: F401

from petsc4py import PETSc as _PETSc

if _PETSc.ScalarType(0).dtype.kind == "c":
    raise ImportError("fpcontrol needs PETSc with real numbers; this one is built with complex.")

# petsc4py's exit handler is collective: a rank that fails alone would wait in it for ever and
# never reach the abort of `python -m mpi4py`, while the other ranks wait for it.
if hasattr(_PETSc, "_pre_finalize"):
    _atexit.unregister(_PETSc._pre_finalize)

from fpcontrol import (
    characteristics,
    density,
    distances,
    drift,
    ensemble,
    guide,
    io,
    mesh,
    noising,
    observables,
    particles,
    score,
    verification,
    walls,
)
from fpcontrol.control import construction, objectives
from fpcontrol.control.network import NetworkDrift
from fpcontrol.control.optimize import minimize
from fpcontrol.control.parametric import (
    ParametricDrift,
    ParametricField,
    PiecewiseConstant,
    PiecewiseLinear,
    SmoothField,
)
from fpcontrol.control.result import Result
from fpcontrol.control.steer import steer
from fpcontrol.control.tracking import TrackingProblem
from fpcontrol.discretization.galerkin import Galerkin
from fpcontrol.discretization.limited import Limited
from fpcontrol.discretization.monotone import Monotone
from fpcontrol.discretization.reactions import Reactions
from fpcontrol.fokker_planck import FokkerPlanck
from fpcontrol.parallel.progress import announce_compilation as _announce_compilation
from fpcontrol.reference import MoserFlow
from fpcontrol.stepping.schemes import SDIRK2, SDIRK4, BackwardEuler, CrankNicolson, Exponential
from fpcontrol.trajectory import Trajectory

try:
    __version__ = _metadata.version("fpcontrol")
except _metadata.PackageNotFoundError:  # imported from a folder that was never installed
    __version__ = "unknown"

_announce_compilation()

if _TYPE_CHECKING:
    from fpcontrol import plotting


def __getattr__(name: str) -> _Any:
    # matplotlib takes as long to load as DOLFINx, and most ranks of most runs never draw.
    if name == "plotting":
        return _importlib.import_module("fpcontrol.plotting")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "SDIRK2",
    "SDIRK4",
    "BackwardEuler",
    "CrankNicolson",
    "Exponential",
    "FokkerPlanck",
    "Galerkin",
    "Limited",
    "Monotone",
    "MoserFlow",
    "NetworkDrift",
    "ParametricDrift",
    "ParametricField",
    "PiecewiseConstant",
    "PiecewiseLinear",
    "Reactions",
    "Result",
    "SmoothField",
    "TrackingProblem",
    "Trajectory",
    "__version__",
    "characteristics",
    "construction",
    "density",
    "distances",
    "drift",
    "ensemble",
    "guide",
    "io",
    "mesh",
    "minimize",
    "noising",
    "objectives",
    "observables",
    "particles",
    "plotting",
    "score",
    "steer",
    "verification",
    "walls",
]
