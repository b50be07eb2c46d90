"""Networks of the course, and any model as a function of its weights."""

from .diagonal import DiagonalNetwork
from .functional import assign, call_with, only
from .linear import linearised, restarted
from .moves import LowRank, low_rank
from .networks import authors_cnn, lenet5, mlp, network_for, resnet18, small_cnn, zero_output_layer
from .parametrisations import Exponents, exponents, parametrised
from .scale import scaled
from .unit_weights import standardised

__all__ = [
    "DiagonalNetwork",
    "Exponents",
    "LowRank",
    "assign",
    "authors_cnn",
    "call_with",
    "exponents",
    "lenet5",
    "linearised",
    "low_rank",
    "mlp",
    "network_for",
    "only",
    "parametrised",
    "resnet18",
    "restarted",
    "scaled",
    "small_cnn",
    "standardised",
    "zero_output_layer",
]
