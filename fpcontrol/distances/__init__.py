"""Distances between densities on one mesh or on two of the same domain, and between samples."""

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
    "chi_square",
    "h_minus_1",
    "kl",
    "l2",
    "sliced_wasserstein",
    "total_variation",
    "wasserstein",
    "wasserstein_with_bound",
]
