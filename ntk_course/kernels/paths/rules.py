"""Integrals over one training step: nodes and weights on [0, 1], and on every piece between breakpoints."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ...basics import validate

RULES = ("left", "midpoint", "gauss", "piecewise")


class Quadrature(NamedTuple):
    """Nodes and weights of a rule on [0, 1], both (Q,)."""

    nodes: Tensor
    weights: Tensor


def quadrature(rule: str, nodes: int, dtype: torch.dtype = torch.float64) -> Quadrature:
    r"""Return the nodes and weights of a rule on [0, 1].

    "left" is the Riemann sum of the papers, :math:`t_q = q/Q` (one node is the discrete path kernel); "midpoint"
    :math:`t_q = (q + \tfrac12)/Q`; "gauss" the Gauss-Legendre rule, exact for polynomials of degree 2Q - 1. "piecewise"
    is "gauss" on every smooth piece; see :func:`pieces`.

    Args:
        rule: "left", "midpoint", "gauss" or "piecewise".
        nodes: Q, of the rule or of each piece.
        dtype: of the answer.

    Returns:
        A :class:`Quadrature`; weights add up to 1.

    Raises:
        ValueError: an unknown rule, or fewer than one node.

    Example:
        >>> t, w = quadrature("gauss", 4)
        >>> torch.isclose((w * t**7).sum(), torch.tensor(1 / 8, dtype=torch.float64))
        tensor(True)
    """
    if rule not in RULES:
        raise ValueError(f"quadrature: got {rule!r}; wanted one of {RULES}")
    count = validate.positive(nodes, "nodes")
    if rule in ("gauss", "piecewise"):
        t, w = np.polynomial.legendre.leggauss(count)
        return Quadrature(torch.tensor((t + 1) / 2, dtype=dtype), torch.tensor(w / 2, dtype=dtype))
    t = (torch.arange(count, dtype=dtype) + (0.5 if rule == "midpoint" else 0.0)) / count
    return Quadrature(t, torch.full_like(t, 1 / count))


def pieces(breakpoints: list[Tensor], rule: Quadrature) -> Quadrature:
    """Apply a rule to every piece between breakpoints, sample by sample.

    Args:
        breakpoints: for each sample its breakpoints inside (0, 1), in order.
        rule: on [0, 1], Q nodes.

    Returns:
        A :class:`Quadrature` of nodes and weights (N, R), R the most that any sample needs; the rest have weight zero.

    Raises:
        ValueError: no samples.

    Example:
        >>> pieces([torch.tensor([0.5], dtype=torch.float64)], quadrature("midpoint", 1)).nodes
        tensor([[0.2500, 0.7500]], dtype=torch.float64)
    """
    if not breakpoints:
        raise ValueError("breakpoints: got none; wanted a tensor for each sample")
    q, most = len(rule.nodes), max(len(b) for b in breakpoints) + 1
    nodes = rule.nodes.new_zeros(len(breakpoints), most * q)
    weights = torch.zeros_like(nodes)
    for n, inside in enumerate(breakpoints):
        ends = torch.cat([nodes.new_zeros(1), inside.to(nodes), nodes.new_ones(1)])
        start, length = ends[:-1, None], ends.diff()[:, None]
        used = slice(0, len(length) * q)
        nodes[n, used] = (start + length * rule.nodes).flatten()
        weights[n, used] = (length * rule.weights).flatten()
    return Quadrature(nodes, weights)
