"""A Gram matrix times a vector, by one backward and one forward-mode pass, no entry of it made."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.func import jvp

from ..basics import validate
from ..basics.samples import Samples
from ..models.functional import call_with
from ..tangents.certified import found_right, key_of, known_right
from ..tangents.cotangents import Cotangent, Summed, of_block, part
from ..tangents.forward import agrees
from ..tangents.precision import multiplying
from ..tangents.routes import gradients
from ..tangents.running import in_rows, plainly, run, untraced
from .plan import slices
from .sides import Sides, one_side

if TYPE_CHECKING:
    from .operator import Gram

# Samples that go through the network at once.
_BATCH = {"cpu": 256}
_BATCH_ELSEWHERE = 2048
# Vectors up to which a pass for each is less work than the blocks.
_VECTORS = 16


@torch.inference_mode(False)
def times(gram: "Gram", v: Tensor) -> Tensor:
    """Multiply by v (M,), (M, r), and for stacked cotangents (M, S), (M, S, r)."""
    sides = gram._sides
    validate.per_sample(sides.model)  # it may have gone back to training since
    columns, single = _columns(sides, v, 1)
    with multiplying("exact"):
        passes = columns.shape[-1] <= _VECTORS and sides.known.additive and not isinstance(sides.c1, Summed)
        out = _by_passes(sides, columns) if passes else None
    out = _by_blocks(gram, columns) if out is None else out
    out = out if sides.stacked else out[:, 0]
    return out[..., 0] if single else out


@torch.inference_mode(False)
def quadratic(gram: "Gram", v: Tensor) -> Tensor:
    """Return the squared length of the sum of features weighted by each column of v."""
    sides = gram._sides
    one_side(sides, "quadratic")
    validate.per_sample(sides.model)
    columns, single = _columns(sides, v, 0)
    if isinstance(sides.c1, Summed) or not sides.known.additive:
        products = v * times(gram, v)
        return products.sum() if single else products.flatten(0, -2).sum(0)
    with multiplying("exact"):
        directions = _directions(sides, sides.x1, sides.c1, columns)
    out = torch.stack([torch.stack([(g**2).sum() for g in u.values()]).sum() for u in directions])
    return out[0] if single else out


def _columns(sides: Sides, v: Tensor, axis: int) -> tuple[Tensor, bool]:
    """Check v and return it as (M, S, r), and whether it was a single vector."""
    n, s = sides.shape[axis], sides.cotangents[axis]
    wanted = (n, s) if sides.stacked else (n,)
    if not isinstance(v, Tensor) or v.dim() not in (len(wanted), len(wanted) + 1) or v.shape[: len(wanted)] != wanted:
        got = f"shape {tuple(v.shape)}" if isinstance(v, Tensor) else type(v).__name__
        raise ValueError(f"v: got {got}; wanted a torch.Tensor {wanted} or {(*wanted, 'r')}, a number for each column")
    if v.dtype != sides.dtype or v.device != sides.device:
        raise ValueError(f"v: got {v.dtype} on {v.device}; wanted {sides.dtype} on {sides.device}, as the model")
    return v.detach().reshape(n, s, -1), v.dim() == len(wanted)


def _by_passes(sides: Sides, columns: Tensor) -> Tensor | None:
    """Go backward from the second side and forward to the first; None where forward mode does not get through."""
    directions = _directions(sides, sides.x2, sides.c2, columns)
    try:
        return _forward(sides, directions)
    except RuntimeError:  # an operation without a rule, a hook, a checkpoint
        return None


def _directions(sides: Sides, x: Samples, c: Cotangent, columns: Tensor) -> list[dict[str, Tensor]]:
    """Sum up the gradients, weighted by each column (M, S), of samples x."""
    weights = _own(sides)
    sums = [{name: torch.zeros_like(p) for name, p in weights.items()} for _ in range(columns.shape[-1])]
    for some in _batches(x):
        with torch.inference_mode(False), torch.enable_grad():
            x_b = x[some]
            z = run(sides.model, x_b.clone() if x_b.is_inference() else x_b, sides.known.traces)
            sides.known.refuse_late(z, sides.model, len(x_b))
            c_b, z = _stacked(part(c, some), z), in_rows(z)
            for total, column in zip(sums, columns[some].unbind(-1), strict=True):
                v = torch.einsum("nsk,ns->nk", c_b, column)
                found = gradients(sides.model, z, v, list(weights.values()))
                for name, g in zip(weights, found, strict=True):
                    if g is not None:
                        total[name] += g
    return [{name: g.detach() for name, g in total.items()} for total in sums]


def _forward(sides: Sides, directions: list[dict[str, Tensor]]) -> Tensor | None:
    """Return how the first side's outputs move along each direction, against its cotangents, (N, R, r).

    None where that is not what plain autograd says.
    """
    weights, model, traces = _weights(sides), sides.model, sides.known.traces
    parts: list[Tensor] = []
    for some in _batches(sides.x1):
        columns, x = [], sides.x1[some]
        for u in directions:
            with untraced(model, traces), plainly(model):
                call = partial(_called, model, x.clone() if traces.samples else x)
                z, moved = (validate.answer(t.detach(), len(x)) for t in jvp(call, (weights,), (u,))[:2])
            c_b, moved = _stacked(part(sides.c1, some), z), in_rows(moved)
            columns.append(torch.einsum("nrk,nk->nr", c_b, moved))
            if known_right(model, key := key_of(model, x, traces, "forward", sides.known.among)):
                continue
            if not agrees(model, x, _own(sides), u, moved, traces):
                return None
            found_right(model, key)
        parts.append(torch.stack(columns, -1))
    return torch.cat(parts)


def _called(model, x, weights):
    return call_with(model, weights, x)


def _by_blocks(gram: "Gram", columns: Tensor) -> Tensor:
    sides = gram._sides
    out = columns.new_zeros(len(sides.x1), sides.cotangents[0], columns.shape[-1])
    for rows, cols, block in gram.blocks():
        block = block if sides.stacked else block[..., None, None]
        out[rows] += torch.einsum("nmrs,msv->nrv", block, columns[cols])
    return out


def _stacked(c: Cotangent, z: Tensor) -> Tensor:
    c = of_block(c, z)
    return c if c.dim() == 3 else c.unsqueeze(1)


def _own(sides: Sides) -> dict[str, nn.Parameter]:
    return {name: sides.model.get_parameter(name) for name in sides.known.numels}


def _weights(sides: Sides) -> dict[str, Tensor]:
    return {name: p.detach() for name, p in _own(sides).items()}


def _batches(x: Samples) -> Iterator[slice]:
    return iter(slices(len(x), _BATCH.get(x.device.type, _BATCH_ELSEWHERE)))
