"""Loops that are kept on disk are those of the sources that are there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fpcontrol.discretization.compiling

pytestmark = pytest.mark.parallel(1)

INNER = """
from compiling import kept
SCALE = {scale}
@kept
def inner(x):
    return {value} * x
"""
OUTER = """
from compiling import kept
from inner import SCALE, inner
def made(power):
    @kept
    def middle(x):
        return inner(x) ** power
    return middle
middle = made(2)
@kept
def outer(x):
    return SCALE * middle(x)
cubed = made(3)
cubed(1.0)
print(outer(1.0), *(sum(f.stats.cache_hits.values()) for f in (outer, cubed)))
"""


def test_loops_are_compiled_anew_when_what_they_use_changes(tmp_path: Path) -> None:
    """A loop calls another one, made with a number of its own, that calls one of another file.

    Beside it is one that was made with another number: neither takes the other's place.
    """
    shutil.copy(fpcontrol.discretization.compiling.__file__, tmp_path)  # needs numba alone
    (tmp_path / "outer.py").write_text(OUTER)

    def run(value: float, scale: float) -> list[float]:
        text = INNER.format(value=value, scale=scale)
        if not (tmp_path / "inner.py").exists() or (tmp_path / "inner.py").read_text() != text:
            (tmp_path / "inner.py").write_text(text)
        done = subprocess.run(
            [sys.executable, "-B", "outer.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
            env={k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"},
        )
        return [float(word) for word in done.stdout.split()]

    assert run(3.0, 10.0) == [90.0, 0.0, 0.0]
    assert run(3.0, 10.0) == [90.0, 1.0, 1.0]  # kept
    assert run(4.0, 10.0) == [160.0, 0.0, 0.0]
    assert run(4.0, 20.0) == [320.0, 0.0, 0.0]
    assert run(4.0, 20.0) == [320.0, 1.0, 1.0]
