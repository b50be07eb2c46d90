"""Kernels of infinitely wide networks, in closed form: fully connected and convolutional ones."""

from .convolutional import cntk
from .dense import ACTIVATIONS, PARAMETERIZATIONS, SLOPES, SMOOTH, Kernels, expectations, mlp, network
from .orthants import positive_moments

__all__ = [
    "ACTIVATIONS",
    "Kernels",
    "PARAMETERIZATIONS",
    "SLOPES",
    "SMOOTH",
    "cntk",
    "expectations",
    "mlp",
    "network",
    "positive_moments",
]
