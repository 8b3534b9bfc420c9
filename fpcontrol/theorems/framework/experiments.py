"""Experiments: a study to run under a key, with parameters that a reader may choose."""

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType, UnionType
from typing import Any, get_args, get_origin

from mpi4py import MPI

from fpcontrol.theorems.framework.checks import Study
from fpcontrol.theorems.framework.resolution import Grid

# What parameters of these names are in every experiment; docstrings say where one is another.
COMMON = {
    "comm": "Communicator; all studies are collective.",
    "t1": "Last time T; for noising, how long it lasts.",
    "sigma": "Noise: its standard deviation in a unit of time.",
    "sigmas": "Noises.",
    "D": "Diffusivity of the noising.",
    "a": "Lipschitz constant of the drifts; of a ripple, in the markers that go with the flow.",
    "frequencies": "Numbers of periods m on the unit interval, ascending, at least two for rates.",
    "grid": "Cells, time steps and degree of the coarser of two runs; chosen to fit unless given.",
    "cells": "Cells of the coarser of two runs, of markers where there is no noise.",
    "steps": "Number of time steps.",
    "schemes": "Time schemes.",
    "cycles": "Numbers of cycles n, ascending, at least two.",
    "palindromic": "Whether each cycle runs forth and back.",
    "generators": "Of one or two dimensions; four at random in 1-D unless given.",
    "dimension": "1 or 2, of the unit interval or square.",
    "pieces": "Pieces of time in which a network's weights are constant.",
    "cosines": "Data: coefficients of cos(j pi x) by j.",
    "networks": "Numbers of cells n of the networks, ascending.",
    "markers": "Cells of markers and time steps of the coarser of two runs.",
    "stops": "Early stops, descending.",
    "limits": "Largest speeds M, ascending.",
    "kappas": "Values of D k^2/a, ascending.",
}


@dataclass(frozen=True)
class Parameter:
    """A parameter of an experiment.

    Attributes:
        name: As in Python, and behind ``--`` on the command line.
        default: What the experiment runs with unless told otherwise.
        text: What it is.
        kind: Its type.
    """

    name: str
    default: Any
    text: str
    kind: Any

    @property
    def shown(self) -> str:
        """The default as it would be typed."""
        value = self.default
        if isinstance(value, Grid):
            value = (value.cells, value.steps, value.degree)
        if isinstance(value, Sequence) and not isinstance(value, str):
            return ",".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value)
        return f"{value:g}" if isinstance(value, float) else "" if value is None else str(value)

    @property
    def reader(self) -> Callable[[str], Any] | None:
        """What turns text into a value; ``None`` for those that are given in Python only."""
        kind = self.kind
        if isinstance(kind, UnionType):
            kind = next(k for k in get_args(kind) if k is not type(None))
        if kind is Grid:
            return lambda text: Grid(*map(int, text.split(",")))
        if get_origin(kind) in (Sequence, tuple) and get_args(kind)[0] in (int, float):
            item = get_args(kind)[0]
            return lambda text: tuple(item(part) for part in text.split(","))
        if kind is bool:
            return lambda text: {"true": True, "false": False}[text.lower()]
        return kind if kind in (int, float, str) else None

    def read(self, text: str) -> Any:
        """The value that a text stands for.

        Raises:
            ValueError: If it stands for none.
        """
        try:
            assert self.reader
            return self.reader(text)
        except (ValueError, KeyError, TypeError):
            raise ValueError(
                f"--{self.name} {text!r} is no value of this parameter; give it as in "
                f"--{self.name} {self.shown or 'CELLS,STEPS'}."
            ) from None


@dataclass(frozen=True)
class Experiment:
    """A study to run.

    Attributes:
        key: Unique, such as ``t1.oscillating``.
        function: Takes the communicator and parameters by keyword; returns the study. Collective.
        values: Parameters that differ from the function's defaults.
        quick: Those that differ besides in a quick run; ``None`` if it has no part in one.
    """

    key: str
    function: Callable[..., Study]
    values: Mapping[str, Any]
    quick: Mapping[str, Any] | None

    def __init__(
        self,
        key: str,
        function: Callable[..., Study],
        /,
        *,
        quick: Mapping[str, Any] | None = MappingProxyType({}),
        **values: Any,
    ) -> None:
        object.__setattr__(self, "key", key)
        object.__setattr__(self, "function", function)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "quick", quick)

    def quickly(self) -> "Experiment":
        """The same as it is in a quick run."""
        return Experiment(self.key, self.function, **{**self.values, **(self.quick or {})})

    def run(self, comm: MPI.Comm) -> Study:
        """The study. Collective."""
        return self.function(comm, **self.values)

    @property
    def title(self) -> str:
        """The first line of the function's docstring."""
        return _documentation(self.function).splitlines()[0]

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """All that can be chosen."""
        signature = inspect.signature(partial(self.function, **self.values)).parameters
        texts = COMMON | _arguments(_documentation(self.function))
        return tuple(
            Parameter(name, p.default, texts.get(name, ""), p.annotation)
            for name, p in signature.items()
            if name != "comm"
        )

    def with_values(self, texts: Mapping[str, str]) -> "Experiment":
        """The same with parameters from the command line.

        Raises:
            ValueError: For a parameter that there is not, or a text that is no value of it.
        """
        known = {p.name: p for p in self.parameters if p.reader}
        for name in texts:
            if name not in known:
                raise ValueError(
                    f"{self.key} has no parameter --{name}; it has "
                    + ", ".join(f"--{name}" for name in known)
                    + "."
                )
        given = {name: known[name].read(text) for name, text in texts.items()}
        return Experiment(self.key, self.function, **(dict(self.values) | given))


def _documentation(function: Callable[..., Study]) -> str:
    return inspect.getdoc(function) or "\n"


def _arguments(text: str) -> dict[str, str]:
    """Names and texts of a docstring's section ``Args``."""
    section = re.search(r"^Args:\n((?:    .*\n?|\n)+)", text, re.MULTILINE)
    parts = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", section[1] if section else "", re.M)
    return {name: " ".join(words.split()) for name, words in parts}
