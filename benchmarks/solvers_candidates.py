"""The solvers that are tried. Names say what differs from GMRES(60) + ILU(0), rtol as given."""

from typing import Any

from mpi4py import MPI

from petsc4py import PETSc
from solvers_measure import Candidate

Options = dict[str, Any]
FOREVER = 10**9  # operators: longer than any run
SERIAL = MPI.COMM_WORLD.size == 1


def ilu(levels: int, method: str = "gmres", ordering: str = "rcm", **more: Any) -> Candidate:
    """Krylov method with ILU(levels), over the ranks inside additive Schwarz."""
    part = "" if SERIAL else "sub_"
    own = {f"{part}pc_factor_levels": levels, f"{part}pc_factor_mat_ordering_type": ordering}
    return Candidate({"ksp_type": method} | own, **more)


def pc(kind: str, method: str = "gmres", constant: bool = False, **more: Any) -> Candidate:
    """Krylov method with another preconditioner."""
    return Candidate({"ksp_type": method, "pc_type": kind} | more, constant=constant)


# Its own ordering, not the RCM that the candidates have by default.
MUMPS: Options = {
    "pc_factor_mat_solver_type": "mumps",
    "pc_factor_mat_ordering_type": "external",
}
NESTED: Options = {"pc_factor_mat_solver_type": "petsc", "pc_factor_mat_ordering_type": "nd"}
ONCE_AND_DONE: Options = {"ksp_initial_guess_nonzero": False}
# Multigrid by aggregation with one sweep of a smoother before and after.
SOR: Options = {
    "mg_levels_ksp_type": "richardson",
    "mg_levels_ksp_max_it": 1,
    "mg_levels_pc_type": "sor",
}
SMOOTHED_BY_ILU: Options = SOR | {"mg_levels_pc_type": "ilu" if SERIAL else "bjacobi"}
REUSED: Options = {"pc_gamg_reuse_interpolation": True}

FAST: dict[str, Candidate] = {"GMRES, ILU(0)": Candidate()}

MAIN: dict[str, Candidate] = FAST | {
    "BiCGStab, ILU(0)": ilu(0, "bcgs"),
    "GMRES, ILU(1)": ilu(1),
    "GMRES, ILU(2)": ilu(2),
    "GMRES, ILU(2), natural ordering": ilu(2, ordering="natural"),
    "GMRES, ILU(4)": ilu(4),
    "BiCGStab, ILU(2)": ilu(2, "bcgs"),
    "BiCGStab, ILU(4)": ilu(4, "bcgs"),
    "GMRES, ILU(0) of constant part": ilu(0, constant=True),
    "GMRES, ILU(2) of constant part": ilu(2, constant=True),
    "GMRES, GAMG/ILU of constant part": pc("gamg", "gmres", True, **SMOOTHED_BY_ILU),
}

# In 3-D the factors of more levels fill up: ILU(4) takes 5 microseconds a dof and step and more.
SLOW_IN_3D = ("GMRES, ILU(4)", "BiCGStab, ILU(4)")

THRIFT: dict[str, Candidate] = FAST | {
    "zero guess": Candidate(levels=0),
    "guess: last level": Candidate(levels=1),
    "guess: three levels": Candidate(levels=3),
    "guess: four levels": Candidate(levels=4),
    "guess: Fischer's projection": Candidate(
        {"ksp_guess_type": "fischer", "ksp_guess_fischer_model": "1,5"}
    ),
    "preconditioned from the right": Candidate({"ksp_pc_side": "right"}),
    "modified Gram-Schmidt": Candidate({"ksp_gmres_modifiedgramschmidt": True}),
    "Gram-Schmidt twice": Candidate({"ksp_gmres_cgs_refinement_type": "refine_always"}),
    "all vectors allocated": Candidate({"ksp_gmres_preallocate": True}),
    "natural ordering": Candidate({"pc_factor_mat_ordering_type": "natural"}),
    "ILU(0) kept for 4 operators": Candidate(keep=4),
    "ILU(0) never renewed": Candidate(keep=FOREVER),
    "ILU(0) of constant part": ilu(0, constant=True),
    "GMRES, ILU(1)": ilu(1),
    "GMRES, ILU(2)": ilu(2),
    "GMRES, ILU(2) kept for 4 operators": ilu(2, keep=4),
}

METHODS = ("bcgs", "bcgsl", "fbcgs", "ibcgs", "cgs", "tfqmr", "fgmres", "lgmres", "gcr", "pgmres")

EVERYTHING: dict[str, Candidate] = (
    MAIN
    | {f"{m}, ILU(0)": ilu(0, m) for m in METHODS[1:]}
    | {
        "Richardson, ILU(0)": ilu(0, "richardson"),
        "Chebyshev, ILU(0)": Candidate(
            {"ksp_type": "chebyshev", "ksp_chebyshev_esteig": "0,0.1,0,1.1"}
        ),
        "GMRES, ILU(3)": ilu(3),
        "GMRES, ILU(6)": ilu(6),
        "GMRES, ILU(4) of constant part": ilu(4, constant=True),
        "GMRES, ICC(0) of constant part": pc(
            "icc", "gmres", True, pc_factor_mat_ordering_type="rcm"
        ),
        "GMRES, SOR": pc("sor"),
        "GMRES, SSOR": pc("sor", pc_sor_symmetric=True),
        "GMRES, SSOR (Eisenstat)": pc("eisenstat"),
        "GMRES, Jacobi": pc("jacobi"),
        "BiCGStab, Jacobi": pc("jacobi", "bcgs"),
        "GMRES, GAMG/Chebyshev, interpolation kept": pc("gamg", **REUSED),
        "GMRES, GAMG/SOR, interpolation kept": pc("gamg", **REUSED, **SOR),
        "GMRES, GAMG/ILU, interpolation kept": pc("gamg", **REUSED, **SMOOTHED_BY_ILU),
        "GMRES, GAMG/SOR of constant part": pc("gamg", "gmres", True, **SOR),
        "GMRES, GAMG/ILU, plain aggregation, of constant part": pc(
            "gamg", "gmres", True, pc_gamg_agg_nsmooths=0, **SMOOTHED_BY_ILU
        ),
        "BiCGStab, GAMG/ILU of constant part": pc("gamg", "bcgs", True, **SMOOTHED_BY_ILU),
        "GMRES, LU of constant part": pc("lu", "gmres", True, **NESTED),
        "GMRES, Cholesky of constant part": pc("cholesky", "gmres", True, **NESTED),
        "GMRES, LU kept for 4 operators": Candidate({"pc_type": "lu"} | NESTED, keep=4),
        "LU": pc("lu", "preonly", **NESTED, **ONCE_AND_DONE),
        "LU (MUMPS)": pc("lu", "preonly", **MUMPS, **ONCE_AND_DONE),
    }
)
for package, made in (
    ("hypre", {"pc_type": "hypre", "pc_hypre_type": "boomeramg"}),
    ("ml", {"pc_type": "ml"}),
):
    if PETSc.Sys.hasExternalPackage(package):
        EVERYTHING[f"GMRES, {package}"] = Candidate(made)
        EVERYTHING[f"GMRES, {package} of constant part"] = Candidate(made, constant=True)

if not SERIAL:  # PETSc has these on one rank only
    ALONE = ("icc", "eisenstat", "cholesky", "lu")
    EVERYTHING = {
        name: c
        for name, c in EVERYTHING.items()
        if c.options.get("pc_type") not in ALONE or c.options.items() >= MUMPS.items()
    }
