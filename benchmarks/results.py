"""Results of a benchmark: DIR/NAME.json and the figures drawn from it, replaced atomically.

    python benchmarks/results.py DIR [NAME ...]        # draws the figures again

Every benchmark takes --quick and --out DIR. An old result stays until a new one is complete.
"""

import argparse
import importlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mpi4py import MPI

import numpy as np

from fpcontrol.parallel.files import output_path, replacing

Row = dict[str, Any]
Result = Mapping[str, Any]
# Modules with `draw(result)`, which gives a figure for every ending of a name: DIR/NAME*.png.
FIGURES = {
    "bridges": "bridges_figure",
    "choices": "choices_figure",
    "convergence": "convergence_figures",
    "derivative": "derivative_figure",
    "forward": "forward_figure",
    "memory": "memory_figure",
    "ornstein_uhlenbeck": "accuracy_figure",
    "particles": "particles_figure",
    "positive": "positive_figure",
    "scaling": "scaling_figure",
    "score": "score_figure",
    "sigma": "sigma_figure",
    "solvers": "solvers_figure",
    "steps": "steps_figure",
    "tracking": "tracking_figure",
}


def arguments(doc: str | None, name: str, quick: str) -> argparse.ArgumentParser:
    """What all benchmarks take; ``quick`` says what they run then."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0], allow_abbrev=False)
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument(
        "--out", metavar="DIR", type=folder, help=f"write {name}.json and figures of it to DIR"
    )
    return parser


def folder(text: str) -> Path:
    """A folder that can be written to: said before the minutes that a benchmark takes."""
    try:
        output_path(Path(text) / "any.json", MPI.COMM_SELF)
    except OSError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return Path(text)


def save(out: Path | None, name: str, result: Result, comm: MPI.Comm) -> None:
    """Write a result and its figures from rank 0, if they are asked for.

    The name of a part of a result, as of one table, is NAME-PART.
    """
    if out is None or comm.rank > 0:
        return
    write(out / f"{name}.json", result)
    draw(out, name)


def write(path: Path, result: Any) -> None:
    """A JSON file; on one rank."""
    text = json.dumps(_plain(result), indent=1, allow_nan=False) + "\n"
    with replacing(output_path(path, MPI.COMM_SELF), MPI.COMM_SELF) as beside:
        beside.write_text(text)


def read(out: Path, name: str) -> Result | None:
    """A result, if it is there."""
    path = out / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def draw(out: Path, name: str) -> None:
    """Figures of a result that has been written."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    module = FIGURES.get(name.partition("-")[0])
    if module is None:
        return
    drawn: Callable[[Result], dict[str, Any]] = importlib.import_module(module).draw
    for ending, figure in drawn(json.loads((out / f"{name}.json").read_text())).items():
        target = output_path(out / f"{name}{ending}.png", MPI.COMM_SELF)
        with replacing(target, MPI.COMM_SELF) as beside:
            figure.savefig(beside, dpi=150, bbox_inches="tight")
        plt.close(figure)


def _plain(value: Any) -> Any:
    """What JSON knows: no numbers of numpy's, and what is none is null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def main() -> None:
    """Draw again."""
    parser = argparse.ArgumentParser(description="Draw the figures of results again.")
    parser.add_argument("out", metavar="DIR", type=Path)
    parser.add_argument("names", metavar="NAME", nargs="*", help="all that there are, if not given")
    options = parser.parse_args()
    for name in options.names or sorted(path.stem for path in options.out.glob("*.json")):
        draw(options.out, name)


if __name__ == "__main__":
    main()
