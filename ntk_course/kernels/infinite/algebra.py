"""Sums, products and contractions of fields."""

import itertools
import math
import operator
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from . import covariances, places
from .covariances import Pair
from .parts import apart, combined, same
from .program import Builder, Contraction, Field, Map, NeedsPairs, Unknown, settled


def _alike(build: Builder, a: Field, b: Field) -> tuple[Field, Field]:
    """Give two fields one shape, as broadcasting does, which counts axes from the last."""
    for field in (a, b):
        places.first_axis(field)
    if a.shape == b.shape and a.channels == b.channels:
        return a, b
    if a.batch == b.batch == 0 and len(a.shape) != len(b.shape):
        raise Unknown(f"it takes {('N', *a.shape)} with {('N', *b.shape)}: samples would meet positions; wanted as many axes")
    rank = max(len(field.shape) for field in (a, b) if field.batch == 0 or a.batch == b.batch)
    numbers = []
    for field in (a, b):
        both = places.numbered(build, field)[:2]
        if field.batch == 0 or (len(field.shape) > rank and field.shape[0] == 1):  # without the axis of samples, which are alike
            both = (both[0][0], both[1][0])
        elif len(field.shape) > rank:
            raise Unknown(f"it takes samples with a parameter of shape {field.shape}, which meets their axis; wanted 1 there")
        numbers.append(both)
    shape = torch.broadcast_shapes(*(where.shape for where, _ in numbers))
    batch = None if a.batch == b.batch is None else 0
    wider = [
        places.found(build, field, where.expand(shape), channel.expand(shape), batch)
        for field, (where, channel) in zip((a, b), numbers, strict=True)
    ]
    if wider[0].channels != wider[1].channels:
        raise Unknown(
            f"its parts have channels on axes {sorted(wider[0].channels)} and {sorted(wider[1].channels)}; wanted the same"
        )
    return wider[0], wider[1]


def add(build: Builder, a: Any, b: Any, alpha: float = 1) -> Any:
    """Add two fields: with no weights in common, covariances add."""
    if alpha != 1:
        return add(build, a, multiply(build, b, alpha))
    if not isinstance(a, Field) and not isinstance(b, Field):
        return settled(a) + settled(b)
    if not isinstance(a, Field) or not isinstance(b, Field):
        if isinstance(a, int | float) and a == 0 or isinstance(b, int | float) and b == 0:
            return a if isinstance(a, Field) else b
        raise Unknown("it adds plain numbers to channels that are random; wanted them added to the samples, or a bias")
    both = _alike(build, a, b)

    def rule(sides, one: Pair, other: Pair) -> Pair:
        return Pair(one.nngp + other.nngp, one.ntk + other.ntk)

    return combined(build, both, [()] * 2, both[0].shape, both[0].channels, rule)


def multiply(build: Builder, a: Any, b: Any) -> Any:
    """Multiply by a number, by a plain tensor that is the same for all channels, or two fields with no weights in common."""
    if not isinstance(a, Field) and (isinstance(b, Field) or not isinstance(a, Contraction)):
        a, b = b, a
    if isinstance(b, Tensor) and b.dim() == 0:
        b = b.item()
    if isinstance(a, Contraction):
        return replace(a, factor=a.factor * b) if isinstance(b, int | float) else settled(a) * settled(b)
    if not isinstance(a, Field):
        return a * b
    if isinstance(b, int | float):
        factor = float(b) ** 2
        by = (lambda t: t * b) if b else None
        made = build.like(a, lambda sides, pair: pair.map(lambda k: k * factor), by=by)
        return replace(made, scale=a.scale * b) if b else made
    if not isinstance(b, Field):
        return _masked(build, a, settled(b))
    apart(a, b)
    if not (a.alike or b.alike):
        raise Unknown(
            "it multiplies channels that are not alike, as of parts put side by side, on both sides; wanted a layer before one"
        )
    a, b = _alike(build, a, b)

    def rule(sides, one: Pair, other: Pair) -> Pair:
        return Pair(one.nngp * other.nngp, one.ntk * other.nngp + one.nngp * other.ntk)

    gain = a.gain + b.gain  # of a factor on either, the product itself is the tangent feature
    made = build.together(rule, [a, b], a.shape, a.channels, gaussian=False, gain=gain)
    return replace(made, centred=a.centred or b.centred)


def _masked(build: Builder, field: Field, value: Tensor) -> Field:
    """Multiply by plain numbers, one a position."""
    if field.batch is None:
        raise Unknown("it multiplies a parameter by plain numbers; wanted one number, or the parameter added to samples first")
    whole = (1,) * (len(field.shape) + 1 - value.dim()) + value.shape
    if len(whole) > len(field.shape) + 1 or any(whole[a + 1] != 1 for a in field.channels):
        raise Unknown(
            f"it multiplies by plain numbers of shape {tuple(value.shape)}; wanted one for all channels, of size 1 there"
        )
    value = value.reshape(whole)
    for axis in sorted(field.channels, reverse=True):
        value = value.squeeze(axis + 1)
    key = f"{build.key} factors"
    factors = value.expand(len(value), *field.positions).reshape(len(value), -1).double()
    build.keep(key, factors.expand(build.samples, -1))

    def rule(sides, pair: Pair) -> Pair:
        left, right = sides.outer(*sides.plain(key))
        return pair.map(lambda k: k * left * right)

    return build.like(field, rule, by=lambda t: factors[..., None] * t)


def masked_fill(build: Builder, a: Any, mask: Any, value: Any) -> Any:
    """Put zeros where a plain mask says so."""
    if not isinstance(a, Field):
        return settled(a).masked_fill(mask, value)
    if isinstance(mask, Field | Contraction) or isinstance(value, Tensor | Field) or value != 0:
        raise Unknown("it puts other numbers than zeros in the place of random ones, or where random ones say so; wanted zeros")
    return _masked(build, a, (~mask).double())


def divide(build: Builder, a: Any, b: Any) -> Any:
    """Divide by a number, or by plain numbers."""
    if isinstance(b, Field | Contraction):
        raise Unknown("it divides by random numbers; wanted a normalisation layer")
    return multiply(build, a, 1 / b)


def subtract(build: Builder, a: Any, b: Any, alpha: float = 1) -> Any:
    """Subtract: add the negative, which of a field has the same covariances."""
    return add(build, a, multiply(build, b, -alpha))


def negative(build: Builder, a: Any) -> Any:
    """Change the sign."""
    return multiply(build, a, -1.0)


def contract(build: Builder, a: Any, b: Any) -> Any:
    """Multiply matrices: two fields over their channels, or a plain matrix with a field's positions."""
    if not isinstance(a, Field):
        return _weighed(build, settled(a), b) if isinstance(b, Field) else torch.matmul(settled(a), settled(b))
    if not isinstance(b, Field):
        raise Unknown("it multiplies a field by a plain matrix from the right; wanted the matrix on the left, over positions")
    a, b = (places.with_samples(build, field) for field in (a, b))
    rank = len(a.shape)
    if len(b.shape) != rank or rank < 2 or rank - 1 not in a.channels or rank - 2 not in b.channels:
        raise Unknown(f"it multiplies {('N', *a.shape)} and {('N', *b.shape)}; wanted (..., T, channels) and (..., channels, T')")
    if not build.own.every:
        raise NeedsPairs
    heads = [axis for axis in a.channels if axis < rank - 2]
    count = a.shape[-1]
    size = math.prod(a.positions)
    k = torch.zeros(build.samples, size, math.prod(b.positions), dtype=torch.float64, device=build.device)
    for one, other in itertools.product(a.sum, b.sum):
        if same(one.root, other.root):
            k = k + other.of(one.of(build.pairs[one.root.step].nngp).mT).mT
        else:
            apart(one.root, other.root)
            if not (one.root.centred or other.root.centred):
                k = k + one.mean() @ other.mean().mT
    k = k / (a.scale * b.scale)
    if len(a.positions) != 1:
        raise Unknown(f"its positions are {a.positions}; wanted one axis")
    for axis in sorted(heads):
        k = k.unsqueeze(1).expand(len(k), a.shape[axis], *k.shape[1:])
    return Contraction(k, count, a.scale * b.scale)


def _weighed(build: Builder, matrix: Tensor, field: Field) -> Field:
    """Let each position be a sum over positions, weighed by a plain matrix: a graph, or attention."""
    if not build.own.every:
        raise NeedsPairs
    field = places.with_samples(build, field)
    rank = len(field.shape)
    if rank < 2 or rank - 1 not in field.channels or len(field.positions) != 1 or rank - 2 in field.channels:
        raise Unknown(f"it multiplies a plain matrix and {('N', *field.shape)}; wanted (..., T, channels), one axis of positions")
    matrix = matrix.double().reshape((1,) * (rank + 1 - matrix.dim()) + matrix.shape)  # as broadcasting does, samples first
    for _ in range(rank - 2):  # heads, whose fields are independent copies of one another
        if not torch.equal(matrix, matrix[:, :1].expand_as(matrix)):
            raise Unknown("its heads weigh positions differently; wanted the same for all")
        matrix = matrix[:, 0]
    if len(matrix) not in (1, build.samples):
        raise Unknown(f"it multiplies by {len(matrix)} matrices for {build.samples} samples; wanted one of each, or one for all")
    key = f"{build.key} matrix"
    build.keep(key, matrix.expand(build.samples, *matrix.shape[1:]))

    def rule(sides, pair: Pair) -> Pair:
        left, right = sides.plain(key)
        return covariances.mixed(left, right, pair)

    shape = (*field.shape[:-2], matrix.shape[-2], field.shape[-1])
    return build.like(field, rule, shape, field.channels, by=lambda t: matrix @ t)


def attention(
    build: Builder,
    q: Any,
    k: Any,
    v: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
) -> Any:
    """Weigh values by a softmax of scores."""
    if dropout_p:
        raise Unknown(f"got dropout_p={dropout_p}, which it applies in eval mode too; wanted 0")
    turned = places.moved(build, lambda t: t.transpose(-2, -1), (k,), {}, k)
    scores = multiply(build, contract(build, q, turned), q.shape[-1] ** -0.5 if scale is None else scale).settled()
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=build.device).tril()
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return contract(build, scores.softmax(-1), v)


def concatenate(build: Builder, tensors: Any, dim: int = 0) -> Field:
    """Put fields with no weights in common one after the other: along positions, or along channels."""
    if not all(isinstance(f, Field) for f in tensors):
        raise Unknown("it puts plain numbers beside random ones; wanted a layer for each part")
    tensors = [places.with_samples(build, one) for one in tensors]
    first = tensors[0]
    axis = dim % (len(first.shape) + 1) - 1
    if axis < 0:
        raise Unknown("it puts samples after samples; wanted each by itself")
    shape = list(first.shape)
    shape[axis] = sum(f.shape[axis] for f in tensors)
    if axis in first.channels:
        for one, other in itertools.combinations(tensors, 2):
            apart(one, other)
        shares = [f.width / sum(g.width for g in tensors) for f in tensors]

        def beside(sides, *pairs: Pair) -> Pair:
            return Pair(*(sum(s * k for s, k in zip(shares, some, strict=True)) for some in zip(*pairs, strict=True)))

        return replace(build.together(beside, tensors, shape, first.channels, gaussian=False), alike=False)
    if not build.own.every:
        raise NeedsPairs
    # the numbers that the parts' positions have in the whole
    numbers, count = [], 0
    for f in tensors:
        numbers.append(torch.arange(count, count + math.prod(f.positions)).view(f.positions))
        count += math.prod(f.positions)
    whole = torch.cat(numbers, axis - sum(a < axis for a in first.channels)).flatten().to(build.device)

    def behind(sides, *pairs: Pair) -> Pair:
        return Pair(*(_blocks(some)[..., whole[:, None], whole] for some in zip(*pairs, strict=True)))

    put = [_placing(whole, numbers, i) for i in range(len(tensors))]
    return combined(build, tensors, put, shape, first.channels, behind)


def _placing(whole: Tensor, numbers: list[Tensor], i: int) -> tuple[Map]:
    """Return the map that lays a part's positions among those of all, zero elsewhere."""
    count = sum(n.numel() for n in numbers)

    def lay(t: Tensor) -> Tensor:
        every = t.new_zeros(len(t), count, t.shape[-1])
        every[:, numbers[i].flatten().to(t.device)] = t
        return every[:, whole]

    return (lay,)


def stack(build: Builder, tensors: Any, dim: int = 0) -> Field:
    """Put fields one after the other along a new axis of positions."""
    if not all(isinstance(f, Field) for f in tensors):
        raise Unknown("it puts plain numbers beside random ones; wanted a layer for each part")
    tensors = [places.with_samples(build, one) for one in tensors]
    dim = dim % (len(tensors[0].shape) + 2)
    if dim == 0:
        raise Unknown("it puts samples after samples; wanted each by itself")
    return concatenate(build, [places.moved(build, torch.unsqueeze, (f, dim), {}, f) for f in tensors], dim)


def _blocks(some: tuple[Tensor, ...]) -> Tensor:
    lead = torch.broadcast_shapes(*(k.shape[:-2] for k in some))
    rows = []
    for i, k in enumerate(some):
        row = [
            k.expand(*lead, *k.shape[-2:]) if i == j else k.new_zeros(*lead, k.shape[-2], o.shape[-1]) for j, o in enumerate(some)
        ]
        rows.append(torch.cat(row, -1))
    return torch.cat(rows, -2)


# By what the graph calls; a method has its name alone.
ALGEBRA: dict[Any, Callable] = {
    operator.add: add, torch.add: add, "add": add, operator.iadd: add, "add_": add,
    operator.sub: subtract, torch.sub: subtract, "sub": subtract, operator.isub: subtract, "sub_": subtract,
    operator.mul: multiply, torch.mul: multiply, "mul": multiply, operator.imul: multiply, "mul_": multiply,
    operator.truediv: divide, torch.div: divide, "div": divide, operator.itruediv: divide, "div_": divide,
    operator.neg: negative, torch.neg: negative, "neg": negative,
    operator.matmul: contract, torch.matmul: contract, torch.bmm: contract, "matmul": contract, "bmm": contract,
    F.scaled_dot_product_attention: attention, torch.cat: concatenate, torch.concat: concatenate, torch.stack: stack,
    torch.masked_fill: masked_fill, "masked_fill": masked_fill,
}  # fmt: skip
