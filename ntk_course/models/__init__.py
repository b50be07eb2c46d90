"""Networks of the course, and any model as a function of its weights."""

from .functional import assign, call_with, only
from .networks import authors_cnn, lenet5, mlp, network_for, resnet18, small_cnn, zero_output_layer

__all__ = [
    "assign",
    "authors_cnn",
    "call_with",
    "lenet5",
    "mlp",
    "network_for",
    "only",
    "resnet18",
    "small_cnn",
    "zero_output_layer",
]
