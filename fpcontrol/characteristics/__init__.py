"""The continuity equation (sigma = 0) along characteristics, where no mesh adds a diffusion."""

import warnings

from fpcontrol.characteristics.flow import Flow, binned_l2, carry
from fpcontrol.characteristics.markers import Markers

__all__ = ["Flow", "Markers", "binned_l2", "carry"]


def __getattr__(name: str) -> type[Markers]:
    if name == "Labels":
        warnings.warn(
            "fpc.characteristics.Labels is called Markers now.", DeprecationWarning, stacklevel=2
        )
        return Markers
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
