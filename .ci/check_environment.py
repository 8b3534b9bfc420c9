"""Say in one line what this machine lacks.

Usage: check_environment.py [platform] [compiler] [headers] [petsc]
"""

import os
import platform
import shlex
import subprocess
import sys
import sysconfig
from pathlib import Path


def check_platform() -> str | None:
    """The wheels are built for one platform only."""
    libc, version = platform.libc_ver()
    here = f"{platform.system()} {platform.machine()} {libc} {version}".strip()
    if here.startswith("Linux x86_64 glibc") and tuple(map(int, version.split("."))) >= (2, 34):
        return None
    return (
        f"No DOLFINx wheel for this machine ({here}), only for Linux x86_64 glibc >= 2.34. "
        "Activate a conda environment made with "
        "`conda create -n fpcontrol -c conda-forge fenics-dolfinx mpich` and run make again."
    )


def check_compiler() -> str | None:
    """The form compiler writes C and compiles it, as setuptools would."""
    command = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    try:
        subprocess.run(
            [*shlex.split(command), "-x", "c", "-fsyntax-only", "-"],
            input=b"#include <stdio.h>\n",
            capture_output=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return (
            f"No working C compiler (tried: {command}), which the form compiler needs "
            "(Debian, Ubuntu: apt install gcc libc6-dev; conda: install c-compiler)."
        )
    return None


def check_headers() -> str | None:
    """What the form compiler writes includes Python.h."""
    header = Path(sysconfig.get_path("include"), "Python.h")
    if header.exists():
        return None
    return (
        f"{header} is missing, which the form compiler needs "
        "(Debian, Ubuntu: apt install python3-dev; Fedora: dnf install python3-devel)."
    )


def check_petsc() -> str | None:
    """Densities are real."""
    try:
        import mpi4py.MPI  # noqa: F401, I001 - dolfinx does not load before it
        import dolfinx  # noqa: F401
        from petsc4py import PETSc
    except Exception as error:
        first_line = str(error).partition("\n")[0]
        return f"DOLFINx does not load in {sys.prefix}: {first_line}"
    if issubclass(PETSc.ScalarType, complex):
        return (
            f"The PETSc in {sys.prefix} is built for complex numbers; fpcontrol needs a real one "
            "(conda: conda install -c conda-forge 'petsc=*=real*' fenics-dolfinx)."
        )
    return None


CHECKS = {
    "platform": check_platform,
    "compiler": check_compiler,
    "headers": check_headers,
    "petsc": check_petsc,
}

if __name__ == "__main__":
    for name in sys.argv[1:]:
        if message := CHECKS[name]():
            sys.exit(message)
