"""Kernels of infinitely wide networks, in closed form: of any architecture, and of two of them by name."""

from .activations import ACTIVATIONS, SLOPES, SMOOTH, expectations
from .composed import PARAMETERIZATIONS, Kernels, limit
from .convolutional import cntk
from .dense import mlp, network
from .features import random_features
from .orthants import positive_moments

__all__ = [
    "ACTIVATIONS",
    "Kernels",
    "PARAMETERIZATIONS",
    "SLOPES",
    "SMOOTH",
    "cntk",
    "expectations",
    "limit",
    "mlp",
    "network",
    "positive_moments",
    "random_features",
]
