"""Kernels along a training path, exact and discrete: quadrature over each step, and machines made of them."""

from .kernel import PathKernel, dpk, epk, mean_jacobian, step_breakpoints
from .kinks import activation_pattern
from .machines import logit_uncertainty, per_class, support_vectors, symmetric_gram, weighted_gram
from .rules import Quadrature, pieces, quadrature
from .turning import breakpoints

__all__ = [
    "PathKernel",
    "Quadrature",
    "activation_pattern",
    "breakpoints",
    "dpk",
    "epk",
    "logit_uncertainty",
    "mean_jacobian",
    "per_class",
    "pieces",
    "quadrature",
    "step_breakpoints",
    "support_vectors",
    "symmetric_gram",
    "weighted_gram",
]
