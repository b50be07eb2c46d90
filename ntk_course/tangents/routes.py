"""The three routes to per-sample gradients: rules on the graph, torch.func, and one sample at a time."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.func import vjp, vmap

from ..basics.samples import Batch, leaves, of_leaves
from ..models.functional import call_with
from .graph import Use, output_shape
from .rules import Finish, Seen, rule_of
from .running import Traces, in_rows, plainly, run
from .shares import OuterProducts, Share, formed, join

# Shared nodes that lay a gradient out as it was, and those that transpose a matrix.
_SAME = {
    "ViewBackward0",
    "UnsafeViewBackward0",
    "ReshapeAliasBackward0",
    "UnsqueezeBackward0",
    "SqueezeBackward0",
    "SqueezeBackward1",
    "SqueezeBackward2",
    "AliasBackward0",
    "CloneBackward0",
}
_TURNED = {"TBackward0", "TransposeBackward0", "PermuteBackward0"}


def by_rules(
    z: Tensor, uses: Sequence[tuple[Use, Seen]], c: Tensor, names: dict[int, str], retain: bool = False, batched: bool = False
) -> dict[str, Share]:
    """Send cotangents (n, R, K) back to every use and collect the share of each parameter in `names`, which are by id.

    All R go back in one batched pass, or one after the other.

    Raises:
        LookupError: a use without a rule.
    """
    finish: list[Finish] = []
    for use, seen in uses:
        found = rule_of(use, seen)
        if found is None:
            raise LookupError(use.kind)
        finish.append(found)
    nodes = list(dict.fromkeys(use.node for use, _ in uses))
    arriving = dict(zip(nodes, _sent_back(z, nodes, c.to(z.dtype), retain, batched), strict=True))
    shares: dict[str, Share] = {}
    stacked: dict[tuple, Tensor] = {}
    for (use, seen), finished in zip(uses, finish, strict=True):
        key = (use.node, seen)
        if key not in stacked:
            here = arriving[use.node]
            here = here if isinstance(here, Tensor) else [z.new_zeros(use.shape) if t is None else t for t in here]
            stacked[key] = seen.stacked(here)
        for name, share in _pulled(use, finished(stacked[key]), names).items():
            shares[name] = join(shares[name], share) if name in shares else share
    return shares


def reordered(z: Tensor, uses: Sequence[tuple[Use, Seen]], n: int) -> bool:
    """Say whether what n samples send back arrives elsewhere than in their own places, at some use.

    Every sample sends the same twice, the second time a power of two larger or smaller, which no rounding touches: in its own
    places that much more or less arrives. There are so many powers that any two samples differ in one of few passes.
    """
    nodes = list(dict.fromkeys(use.node for use, _ in uses))
    draw = torch.randn(z.shape, generator=torch.Generator().manual_seed(0)).to(z)
    number, powers = torch.arange(n, device=z.device), _POWERS.get(z.dtype, _POWERS_ELSEWHERE)

    def arriving(by: Tensor | int) -> list[Tensor | None]:
        of_node = dict(zip(nodes, _sent_back(z, nodes, (draw * by).unsqueeze(1), True, False), strict=True))
        return [None if t is None else seen.first(t) for use, seen in uses for t in of_node[use.node]]

    once, least = arriving(1), torch.finfo(z.dtype).smallest_normal
    while int(number.max()) > 0:
        scale = torch.exp2((number % powers - powers // 2).to(z.dtype))
        for one, other in zip(once, arriving(scale[:, None]), strict=True):
            if one is not None and other is not None:
                wanted = one * scale.view(-1, *[1] * (one.dim() - 1))
                if bool(((other - wanted).abs() > _ALIKE * wanted.abs() + least).any()):
                    return True
        number = number // powers
    return False


# Powers of two by which samples are told apart, so few that what they make of a gradient is a number still; how alike is the same.
_POWERS = {torch.float16: 8}
_POWERS_ELSEWHERE = 64
_ALIKE = 0.25


def _sent_back(z: Tensor, nodes: list, c: Tensor, retain: bool, batched: bool) -> list[list[Tensor | None] | Tensor]:
    """Return what each of R cotangents sends back to the outputs of some nodes: for each node R tensors, or one of all (R, ...)."""
    edges, last = [GradientEdge(node, 0) for node in nodes], c.shape[1] - 1
    if not edges:
        return []
    if batched and last > 0:
        many = c.transpose(0, 1)
        found = torch.autograd.grad(z, edges, many, retain_graph=retain, allow_unused=True, is_grads_batched=True)
        return [[None] * len(many) if t is None else t for t in found]
    rounds = [
        torch.autograd.grad(z, edges, v, retain_graph=retain or r < last, allow_unused=True) for r, v in enumerate(c.unbind(1))
    ]
    return [list(of_node) for of_node in zip(*rounds, strict=True)]


def _pulled(use: Use, share: Share, names: dict[int, str]) -> dict[str, Share]:
    """Carry the share of what lies below a use on to the parameters it is made of."""
    node, number = use.below
    while not hasattr(node, "variable"):
        children = [(child, k) for child, k in node.next_functions if child is not None]
        name, shape = node.name(), output_shape((node, number))
        if len(children) == 1 and name in _SAME:
            node, number = children[0]
        elif len(children) == 1 and name in _TURNED and len(shape) == 2 and _swaps(node):
            share = share.turn() if isinstance(share, OuterProducts) and share.sizes.groups == 1 else _transposed(share, shape)
            node, number = children[0]
        else:
            return _through(node, number, formed(share), names)
    name = names.get(id(node.variable))
    return {} if name is None else {name: share}


def _swaps(node) -> bool:
    if node.name() == "PermuteBackward0":
        return [d % 2 for d in node._saved_dims] == [1, 0]
    return node.name() == "TBackward0" or (node._saved_dim0 - node._saved_dim1) % 2 == 1


def _transposed(share: Share, shape: torch.Size) -> Tensor:
    return formed(share).unflatten(2, shape).transpose(2, 3).flatten(2)


def _through(node, number: int, gradient: Tensor, names: dict[int, str]) -> dict[str, Share]:
    """Carry gradients (n, R, D) with respect to a shared node's output back to the parameters, by the graph below it."""
    n, r, _ = gradient.shape
    leaves, stack, met = {}, [node], set()
    while stack:
        here = stack.pop()
        if here in met:
            continue
        met.add(here)
        for child, _ in here.next_functions:
            if hasattr(child, "variable"):
                leaves[id(child.variable)] = child.variable
            elif child is not None:
                stack.append(child)
    wanted = {names[i]: leaf for i, leaf in leaves.items() if i in names}
    v = gradient.reshape(n * r, *output_shape((node, number)))
    edge = [GradientEdge(node, number)]
    found = torch.autograd.grad(edge, [*wanted.values()], [v], retain_graph=True, allow_unused=True, is_grads_batched=True)
    return {name: g.reshape(n, r, -1) for name, g in zip(wanted, found, strict=True) if g is not None}


def by_torch_func(model: nn.Module, x: Tensor | Batch, c: Tensor, weights: dict[str, Tensor], nested: bool) -> Tensor:
    """Form per-sample gradients (n, R, D) with vmap over vjp: right for most models, slower and larger.

    The R cotangents go at once where they may be nested, or one after the other.
    """
    if not nested and c.shape[1] > 1:
        return torch.cat([by_torch_func(model, x, v, weights, True) for v in c.split(1, 1)], 1)

    def one_sample(x_n: list[Tensor], c_n: Tensor) -> Tensor:
        pull = vjp(lambda free: call_with(model, free, of_leaves(x, [t[None] for t in x_n])).flatten(), weights)[1]
        of = lambda v: torch.cat([g.flatten() for g in pull(v)[0].values()])  # noqa: E731
        return of(c_n[0])[None] if len(c_n) == 1 else vmap(of)(c_n)

    with plainly(model):
        return vmap(one_sample)(leaves(x), c).detach()


def alone(model: nn.Module, x: Tensor | Batch, c: Tensor, weights: dict[str, nn.Parameter], traces: Traces) -> Tensor:
    """Form gradients (n, R, D) one sample at a time, by plain autograd: right for any model, and slow."""
    out = c.new_empty(len(x), c.shape[1], sum(w.numel() for w in weights.values()))
    for i in range(len(x)):
        z = in_rows(run(model, x[i : i + 1], traces))
        if not z.requires_grad:
            out[i] = 0
            continue
        for r in range(c.shape[1]):
            found = gradients(model, z, c[i : i + 1, r], list(weights.values()))
            parts = [torch.zeros_like(w) if g is None else g for w, g in zip(weights.values(), found, strict=True)]
            out[i, r] = torch.cat([g.flatten() for g in parts])
    return out


def gradients(model: nn.Module, z: Tensor, v: Tensor, weights: list[nn.Parameter]) -> list[Tensor | None]:
    """Return the gradients of z . v by plain autograd, None for what z does not depend on; the graph is kept."""
    v = v.to(z.dtype)
    try:
        found = torch.autograd.grad(z, weights, v, retain_graph=True, allow_unused=True)
        return [g.to_dense() if g is not None and g.is_sparse else g for g in found]
    except RuntimeError as error:
        if ".grad()" not in str(error):
            raise
    before = [(p, p.grad) for p in model.parameters()]  # a reentrant checkpoint only goes this way
    try:
        for p, _ in before:
            p.grad = None
        z.backward(v, retain_graph=True)
        return [w.grad for w in weights]
    finally:
        for p, g in before:
            p.grad = g
