"""Tangent features of a block of samples: what a model's graph tells, a rule for each kind of layer, products of features."""

from .features import Tangents, explicit_is_cheaper, tangent_features
from .layers import Positions
from .lines import shifted

__all__ = [
    "Positions",
    "Tangents",
    "explicit_is_cheaper",
    "shifted",
    "tangent_features",
]
