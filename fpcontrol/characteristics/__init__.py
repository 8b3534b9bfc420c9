"""The continuity equation (sigma = 0) along characteristics, where no mesh adds a diffusion."""

from fpcontrol.characteristics.flow import Flow, binned_l2, carry
from fpcontrol.characteristics.markers import Labels

__all__ = ["Flow", "Labels", "binned_l2", "carry"]
