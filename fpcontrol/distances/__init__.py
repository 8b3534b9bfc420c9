"""Distances between densities on one mesh or on two of the same domain, and between samples."""

from fpcontrol.distances.discrepancy import Discrepancy, mmd
from fpcontrol.distances.measures import (
    chi_square,
    h_minus_1,
    kl,
    l2,
    sliced_wasserstein,
    total_variation,
    wasserstein,
    wasserstein_with_bound,
)

__all__ = [
    "Discrepancy",
    "chi_square",
    "h_minus_1",
    "kl",
    "l2",
    "mmd",
    "sliced_wasserstein",
    "total_variation",
    "wasserstein",
    "wasserstein_with_bound",
]
