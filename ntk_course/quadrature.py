"""Integrals over one training step: nodes and weights on [0, 1], and the kinks of piecewise-linear networks between them."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap

from . import validate
from .functional import call_with

RULES = ("left", "midpoint", "gauss", "piecewise")
_KINKED = (nn.ReLU, nn.LeakyReLU, nn.ReLU6, nn.Hardtanh)


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
        >>> (w * t**7).sum()  # 1/8
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


def activation_pattern(model: nn.Module, params: dict[str, Tensor], x: Tensor) -> tuple[Tensor, ...]:
    """Record which side of its kink every unit of one sample is on, and which input each max pooling picks.

    Args:
        model: whose kinks are modules: ReLU and its like, and MaxPool2d.
        params: by name, of one weight state.
        x: one sample (...).

    Returns:
        A tuple of integer tensors, one for each call of such a module.
    """
    seen: list[Tensor] = []

    def note(module: nn.Module, args: tuple) -> None:
        if isinstance(module, nn.MaxPool2d):
            how = (module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode)
            seen.append(nn.functional.max_pool2d(args[0], *how, return_indices=True)[1].flatten())
        elif isinstance(module, (nn.ReLU6, nn.Hardtanh)):
            low, high = (0.0, 6.0) if isinstance(module, nn.ReLU6) else (module.min_val, module.max_val)
            seen.append(((args[0] > low).long() + (args[0] > high).long()).flatten())
        else:
            seen.append((args[0] > 0).long().flatten())

    kinked = [m for m in model.modules() if isinstance(m, (*_KINKED, nn.MaxPool2d))]
    handles = [m.register_forward_pre_hook(note) for m in kinked]
    try:
        call_with(model, params, x[None])
    finally:
        for handle in handles:
            handle.remove()
    return tuple(seen)


@torch.no_grad()
def breakpoints(model: nn.Module, start: dict[str, Tensor], change: dict[str, Tensor], x: Tensor, scan: int = 8) -> list[Tensor]:
    r"""Find where the activation pattern of each sample changes as the weights go from w to w + change.

    With one layer of ReLUs behind one affine layer the inputs of the ReLUs are affine in t, and the roots are
    :math:`t = h_0/(h_0 - h_1)`. Otherwise the step is cut into ``scan`` parts, and every part whose ends have different
    patterns is bisected down to rounding. A unit that turns and turns back inside one part is not seen.

    Args:
        model: whose kinks are modules, see :func:`activation_pattern`.
        start: parameters at t = 0, by name.
        change: by name.
        x: (N, ...).
        scan: parts of the step.

    Returns:
        For each sample its breakpoints inside (0, 1), in order; a model without kinks has none.

    Raises:
        ValueError: scan below 1.

    Example:
        >>> [len(b) for b in breakpoints(model, path.unflatten(w[0]), path.unflatten(w[1] - w[0]), x)]
    """
    validate.positive(scan, "scan")
    kinked = [m for m in model.modules() if isinstance(m, (*_KINKED, nn.MaxPool2d))]
    if not kinked:
        return [x.new_empty(0) for _ in x]
    if len(kinked) == 1 and isinstance(kinked[0], (nn.ReLU, nn.LeakyReLU)):
        h0, middle, h1 = (_inputs(model, kinked[0], start, change, x, t) for t in (0.0, 0.5, 1.0))
        # affine in t up to rounding: one affine layer before the kink
        if (middle - (h0 + h1) / 2).abs().max() <= 64 * torch.finfo(x.dtype).eps * middle.abs().max():
            turned = (h0 > 0) != (h1 > 0)
            roots = torch.where(turned, h0 / torch.where(turned, h0 - h1, 1.0), -1.0)
            return [_inside(row) for row in roots]
    return _bisect(model, start, change, x, scan)


def _inside(roots: Tensor) -> Tensor:
    return roots[(roots > 0) & (roots < 1)].unique()  # sorted


def _inputs(model, module, start, change, x, t) -> Tensor:
    seen = []
    handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0].flatten(1)))
    try:
        call_with(model, {name: p + t * change[name] for name, p in start.items()}, x)
    finally:
        handle.remove()
    return torch.cat(seen, dim=1)


def _bisect(model, start, change, x, scan) -> list[Tensor]:
    def pattern(t: Tensor, one: Tensor) -> Tensor:
        moved = {name: p + t * change[name] for name, p in start.items()}
        return torch.cat(activation_pattern(model, moved, one))

    at = vmap(pattern)
    grid = torch.linspace(0, 1, scan + 1, dtype=x.dtype, device=x.device)
    whole = torch.stack([at(t.expand(len(x)), x) for t in grid])  # (scan + 1, N, units)
    part, sample = (whole[1:] != whole[:-1]).any(-1).nonzero(as_tuple=True)
    low, high, from_, to = grid[part], grid[part + 1], whole[part, sample], whole[part + 1, sample]
    for _ in range(1 - int(np.log2(torch.finfo(x.dtype).eps))):
        if not len(sample):
            break
        middle = (low + high) / 2
        here = at(middle, x[sample])
        left, right = (here != from_).any(1), (here != to).any(1)
        sample = torch.cat([sample[left], sample[right]])
        low, high = torch.cat([low[left], middle[right]]), torch.cat([middle[left], high[right]])
        from_, to = torch.cat([from_[left], here[right]]), torch.cat([here[left], to[right]])
    return [_inside((low + high)[sample == n] / 2) for n in range(len(x))]
