"""Integrals over one training step: nodes and weights on [0, 1], and the kinks of piecewise-linear networks between them."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import vmap

from ...basics import validate
from ...models.functional import assign, call_with
from ...models.networks import Pointwise
from ...tangents.lines import movable, shifted

RULES = ("left", "midpoint", "gauss", "piecewise")
# Numbers of input that go through the model at a time when patterns are compared.
_ROWS = 2**18
# Breakpoints of one sample in one step beyond which something other than the step must be wrong.
_MOST = 10_000
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


def activation_pattern(model: nn.Module, params: dict[str, Tensor], x: Tensor) -> tuple[Tensor, ...]:
    """Record which side of its kink every unit of one sample is on, and which input each max pooling picks.

    Args:
        model: whose kinks are modules: ReLU and its like, and MaxPool2d.
        params: by name, of one weight state.
        x: one sample (...).

    Returns:
        A tuple of integer tensors, one for each call of such a module.

    Example:
        >>> activation_pattern(torch.nn.ReLU(), {}, torch.tensor([-1.0, 2.0]))
        (tensor([0, 1]),)
    """
    with _watched(model) as seen:
        call_with(model, params, x[None])
    return tuple(codes[0] for codes in seen)


@contextmanager
def _watched(model: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the patterns of a batch, a tensor (N, units) for each call of a module with kinks."""
    seen: list[Tensor] = []

    def note(module: nn.Module, args: tuple) -> None:
        h = args[0]
        if isinstance(module, nn.MaxPool2d):
            seen.append(_winners(module, h))
        elif isinstance(module, (nn.ReLU6, nn.Hardtanh)):
            low, high = (0.0, 6.0) if isinstance(module, nn.ReLU6) else (module.min_val, module.max_val)
            seen.append(((h > low).long() + (h > high).long()).flatten(1))
        else:
            seen.append((h > 0).flatten(1).long())

    handles = [m.register_forward_pre_hook(note) for m in _kinked(model)]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def _kinked(model: nn.Module) -> list[nn.Module]:
    """List the modules of a model that have kinks; all but MaxPool2d, ReLU6 and Hardtanh have one, at 0."""
    kinds = (*_KINKED, nn.MaxPool2d)
    return [m for m in model.modules() if isinstance(m, kinds) or (isinstance(m, Pointwise) and m.function is torch.abs)]


def _winners(module: nn.MaxPool2d, h: Tensor) -> Tensor:
    """Find which input each window of a max pooling picks, the first where several are equal up to rounding.

    On a uniform background all inputs of a window are equal, and rounding would choose another one at every t.
    """
    if module.ceil_mode:
        raise ValueError("model: got MaxPool2d with ceil_mode, whose winners are not followed; wanted ceil_mode=False")
    up, left = (module.padding,) * 2 if isinstance(module.padding, int) else module.padding
    padded = nn.functional.pad(h, (left, left, up, up), value=torch.finfo(h.dtype).min)
    windows = nn.functional.unfold(padded, module.kernel_size, module.dilation, 0, module.stride)
    windows = windows.unflatten(1, (h.shape[1], -1))  # (N, channels, inputs, windows)
    slack = 1024 * torch.finfo(h.dtype).eps * h.abs().amax((1, 2, 3))
    near = windows >= windows.amax(2, keepdim=True) - slack.view(-1, 1, 1, 1)
    return near.to(torch.uint8).argmax(2).flatten(1)


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
        ValueError: scan below 1, or a pooling in ceil_mode; ArithmeticError: more than ten thousand breakpoints a sample.

    Example:
        >>> start, change = path.unflatten(path.weights[0]), path.unflatten(path.weights[1] - path.weights[0])
        >>> len(breakpoints(path.model, start, change, path.x))
        32
    """
    validate.positive(scan, "scan")
    kinked = _kinked(model)
    if not kinked:
        return [x.new_empty(0) for _ in x]
    if len(kinked) == 1 and not isinstance(kinked[0], (nn.MaxPool2d, nn.ReLU6, nn.Hardtanh)):
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


@torch.no_grad()
def _bisect(model, start, change, x, scan) -> list[Tensor]:
    at = _fingerprints(model, start, change, x)
    grid = torch.linspace(0, 1, scan + 1, dtype=x.dtype, device=x.device)
    everyone = torch.arange(len(x), device=x.device)
    whole = torch.stack([at(t.expand(len(x)), everyone) for t in grid])  # (scan + 1, N)
    part, sample = (whole[1:] != whole[:-1]).nonzero(as_tuple=True)
    low, high, from_, to = grid[part], grid[part + 1], whole[part, sample], whole[part + 1, sample]
    for _ in range(1 - int(np.log2(torch.finfo(x.dtype).eps))):
        if not len(sample):
            break
        if len(sample) > _MOST * len(x):
            raise ArithmeticError(f"breakpoints: got more than {_MOST} a sample in one step; wanted a smaller step size")
        middle = (low + high) / 2
        here = at(middle, sample)
        left, right = here != from_, here != to
        sample = torch.cat([sample[left], sample[right]])
        low, high = torch.cat([low[left], middle[right]]), torch.cat([middle[left], high[right]])
        from_, to = torch.cat([from_[left], here[right]]), torch.cat([here[left], to[right]])
    return [_inside((low + high)[sample == n] / 2) for n in range(len(x))]


def _fingerprints(model, start, change, x) -> Callable[[Tensor, Tensor], Tensor]:
    """Make the function from times (P,) and numbers of samples (P,) to a number for each activation pattern there.

    A pattern is multiplied with random 64-bit integers, so that two patterns share a number once in 2^64 times.
    """
    own, random = assign(copy.deepcopy(model), start), np.random.default_rng(0)
    one_pass = movable(own, x)
    keys: dict[int, Tensor] = {}

    def number(seen: list[Tensor]) -> Tensor:
        for i, codes in enumerate(seen):
            if i not in keys:
                keys[i] = torch.from_numpy(random.integers(-(2**63), 2**63, codes.shape[1])).to(x.device)
        return torch.stack([(codes * keys[i]).sum(1) for i, codes in enumerate(seen)]).sum(0)

    def singly(t: Tensor, one: Tensor) -> Tensor:
        with _watched(own) as seen:
            call_with(own, {name: p + t * change[name] for name, p in start.items()}, one[None])
        return number(seen)[0]

    def together(t: Tensor, some: Tensor) -> Tensor:
        with _watched(own) as seen, shifted(own, change, t):
            own(some)
        return number(seen)

    run, rows = together if one_pass else vmap(singly), max(1, _ROWS // x[0].numel())
    return lambda t, n: torch.cat([run(a, x[b]) for a, b in zip(t.split(rows), n.split(rows), strict=True)])
