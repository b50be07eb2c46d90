"""Kernels by name: of a network as it is, of infinitely wide ones, along a training path, and label-aware ones."""

from . import infinite, paths
from .bound import AlongPath, HierarchyKernel, Kernel, LabelAwareKernel, as_matrix, empirical, nngp, ntk, traced
from .label_aware import LabelAware, agreement, label_products, lantk_hr, regressed_products, with_label_part
from .named import entk, lpntk, pntk, tangent_kernel
from .tangent_hierarchy import hierarchy, lantk_nth, two_layer_hierarchy

__all__ = [
    "AlongPath",
    "HierarchyKernel",
    "Kernel",
    "LabelAwareKernel",
    "as_matrix",
    "empirical",
    "nngp",
    "ntk",
    "traced",
    "LabelAware",
    "agreement",
    "entk",
    "hierarchy",
    "infinite",
    "label_products",
    "lantk_hr",
    "lantk_nth",
    "lpntk",
    "paths",
    "pntk",
    "regressed_products",
    "tangent_kernel",
    "two_layer_hierarchy",
    "with_label_part",
]
