"""Noising processes, densities and scores of noised data, and the drifts that lead back."""

from fpcontrol.noising.mixture import GaussianMixture
from fpcontrol.noising.noised import Noised
from fpcontrol.noising.on_mesh import HeatFlow, NoisedOnMesh
from fpcontrol.noising.processes import (
    Affine,
    OrnsteinUhlenbeck,
    PinnedBrownian,
    VarianceExploding,
    VariancePreserving,
)
from fpcontrol.noising.reversal import Graded, Reversal, ScoreModel

__all__ = [
    "Affine",
    "GaussianMixture",
    "Graded",
    "HeatFlow",
    "Noised",
    "NoisedOnMesh",
    "OrnsteinUhlenbeck",
    "PinnedBrownian",
    "Reversal",
    "ScoreModel",
    "VarianceExploding",
    "VariancePreserving",
]
