"""The density lab: scores trained or given, and what samplers make of them, without samples."""

from fpcontrol.score.adapters import JaxScore, TorchScore
from fpcontrol.score.comparison import Comparison, Estimate, Sampler, compare
from fpcontrol.score.features import RandomFeatures
from fpcontrol.score.models import RippledScore
from fpcontrol.score.splines import SplineScore
from fpcontrol.score.trained import Epoch, TrainedScore, load
from fpcontrol.score.training import train

__all__ = [
    "Comparison",
    "Epoch",
    "Estimate",
    "JaxScore",
    "RandomFeatures",
    "RippledScore",
    "Sampler",
    "SplineScore",
    "TorchScore",
    "TrainedScore",
    "compare",
    "load",
    "train",
]
