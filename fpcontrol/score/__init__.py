"""The density lab: what samplers make of a score, without sampling error."""

from fpcontrol.score.adapters import JaxScore
from fpcontrol.score.comparison import Comparison, Estimate, Sampler, compare
from fpcontrol.score.models import RippledScore

__all__ = ["Comparison", "Estimate", "JaxScore", "RippledScore", "Sampler", "compare"]
